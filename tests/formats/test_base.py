"""Names of objects and clips become names of files and layers, whatever they are."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vostrack
from tests.fakes import truth
from tests.formats.samples import write_masks
from vostrack.formats import ExportOptions
from vostrack.formats.base import Shot

NAMES = [
    *("../x", "..", "CON", "con", "", "   ", "dog", "Dog", "dog", "dog_3", "dog_4"),
    *("a/b", "a\\b", "собака", "e\u0301", "\u00e9"),
]


def stems(names: list[str], ascii_only: bool = False) -> dict[int, str]:
    objects = dict(enumerate(names, 1))
    shot = Shot(Path("out"), "clip", (1, 1), 1, objects, lambda index, name: name, ExportOptions(), None, Fraction(24))
    return shot.stems(ascii_only)


@pytest.mark.parametrize("ascii_only", [False, True])
@given(st.lists(st.sampled_from(NAMES) | st.text(max_size=200), min_size=1, max_size=12))
def test_stems_are_names_of_files_and_never_alike(ascii_only: bool, names: list[str]) -> None:
    found = list(stems(names, ascii_only).values())
    assert len({stem.casefold() for stem in found}) == len(names)
    for stem in found:
        assert stem.replace("_", "a").isalnum()
        assert not stem[0].isdigit()
        assert stem.casefold() not in {"con", "nul"}
        assert len(stem.encode()) < 255
        assert stem.isascii() or not ascii_only


def test_stems_are_the_names_where_these_are_good() -> None:
    assert stems(["dog", "red car", "2", "", "dog", "dog_1", "NUL"]) == {
        1: "dog_1_1",
        2: "red_car",
        3: "object_2",
        4: "object_4",
        5: "dog_5",
        6: "dog_1_6",
        7: "NUL_7",
    }
    assert stems(["собака", "dog"], ascii_only=True) == {1: "object_1", 2: "dog"}


@pytest.mark.needs("pycocotools", "coco")
@pytest.mark.parametrize("source", ["/nowhere/nothing/..", "a\nb.mp4", "\udcff.mp4", "c:\\x.mp4", "<&>.mp4"])
def test_the_name_of_a_clip_leads_nowhere(source: str, finished: Path, tmp_path: Path) -> None:
    """The folder of a run may come from anybody, and says where its clip was."""
    run = shutil.copytree(finished, tmp_path / "run")
    request = json.loads((run / ".vostrack" / "request.json").read_text())
    (run / ".vostrack" / "request.json").write_text(json.dumps(request | {"clip": source}))
    for kind, ending in {"davis": ".zip", "label-studio": ".json", "cvat": ".xml", "coco": ".json"}.items():
        vostrack.export(run, kind, tmp_path / f"{kind}{ending}")
    with zipfile.ZipFile(tmp_path / "davis.zip") as archive:
        for name in archive.namelist():
            folder, file = name.split("/")
            assert file.endswith(".png")
            assert folder.isprintable()
            assert not set(folder) & set("\\:<>")
            assert folder not in ("", ".", "..")
    ElementTree.parse(tmp_path / "cvat.xml")
    json.loads((tmp_path / "label-studio.json").read_text())


def test_names_of_images_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    run = write_masks(tmp_path / "run", [truth(0)])
    Image.new("RGB", truth(0).shape[::-1]).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path / "clip") + b"/\xff.png")
    for kind, ending in {"label-studio": ".json", "cvat": ".xml"}.items():
        made: dict[str, Any] = vostrack.export(run, kind, tmp_path / f"{kind}{ending}", clip=tmp_path / "clip")
        assert made["frames"] == 1
    (task,) = json.loads((tmp_path / "label-studio.json").read_text())
    assert task["data"]["image"].endswith("clip/%FF.png")
