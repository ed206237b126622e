"""Fixtures for all tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.refine import fake_package

pytest.register_assert_rewrite("tests.contract")

# There is a process of tests for each core. Torch, which nothing has imported yet, reads this, in subprocesses as well.
os.environ["OMP_NUM_THREADS"] = "1"
# Typer colours its help where it finds this, without a terminal too; tests compare plain text.
os.environ.pop("GITHUB_ACTIONS", None)

# Test machines are shared: how long one example takes says nothing about the code.
settings.register_profile("vostrack", deadline=None)
settings.load_profile("vostrack")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that needs a package which is missing; in continuous integration, which installs all, it fails."""
    for marker in item.iter_markers("needs"):
        package, extra = marker.args
        if importlib.util.find_spec(package) is None:
            end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            end(f"NO {package}: pip install 'vostrack[{extra}]'")


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The development clips: $VOSTRACK_DATA, else ../shared/data beside the repository; skips where there are none."""
    given = os.environ.get("VOSTRACK_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"NO DEVELOPMENT DATA in {folder}: set VOSTRACK_DATA to its folder to run this test")
    return folder


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


@pytest.fixture
def fake_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes the fake method and its weights what the package finds."""
    from tests.fakes import register

    register(monkeypatch, tmp_path / "weights")


@pytest.fixture
def small_adaptation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptations train a network so narrow that a step takes no time."""
    from tests.adapt.clips import narrow_net

    narrow_net(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    # Lazily: PyAV does not close a file that it cannot finish, and a busy disk is not given back.
    subprocess.run(["umount", "--lazy", folder], check=True)
