from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.refine import fake_package


@pytest.fixture
def fake_crf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Puts a pydensecrf in front of the path that does what FAKE_CRF says; gives its folder."""
    (tmp_path / "pydensecrf").mkdir()
    (tmp_path / "pydensecrf" / "__init__.py").write_text("")
    shutil.copy(fake_package.__file__, tmp_path / "pydensecrf" / "densecrf.py")
    names = ("pydensecrf", "pydensecrf.densecrf")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)  # the real one, if there was one, comes back with the patch's end
