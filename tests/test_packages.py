"""What pyproject.toml says of the packages that vostrack needs."""

from __future__ import annotations

import re
from pathlib import Path

from vostrack.files import read_toml
from vostrack.formats import FORMATS

EXTRAS = read_toml(Path(__file__).parents[1] / "pyproject.toml")["project"]["optional-dependencies"]


def test_the_extra_all_brings_every_extra_that_is_not_compiled() -> None:
    (brought,) = EXTRAS["all"]
    match = re.fullmatch(r"vostrack\[([\w,]+)\]", brought)
    assert match is not None
    assert set(match[1].split(",")) == set(EXTRAS) - {"all", "crf", "dev"}
    assert EXTRAS["dev"][0] == "vostrack[all]", "the tests need what all users can have"


def test_what_formats_need_is_in_their_extras() -> None:
    for kind in FORMATS.values():
        names = [re.split("[>=]", package)[0] for package in EXTRAS.get(kind.extra, [])]
        assert not kind.package or kind.package in names, kind.name
