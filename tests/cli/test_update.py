"""`vostrack update`: what is typed, and refusals in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import NAME, pictures, register, truth, write_clip, write_mask
from tests.runs import labels
from tests.video.media import read
from vostrack.cli import run

COUNT = 8


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_clip(Path("clip.mp4"), COUNT)
    write_mask(Path("first.png"))
    write_mask(Path("fix.png"), np.where(truth(5) == 3, 3, 0).astype(np.uint8))


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives its exit code and what it says."""

    def call(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        return code, capfd.readouterr().err

    return call


def begun(said: Any, clip: str = "clip.mp4") -> None:
    code, words = said("segment", clip, "-m", "first.png", "--method", NAME, "--no-overlay", "-o", "out")
    assert code == 0
    assert "vostrack update out -m N:PATH" in words


def test_a_run_is_corrected_and_taken_back(said: Any) -> None:
    begun(said)
    before = [labels(Path("out"), index) for index in range(COUNT)]
    code, words = said("update", "out", "-m", "5:fix.png", "--gone", "200@6-", "--lock-range", "0-2", "--lock", "200")
    assert code == 0, words
    after = [labels(Path("out"), index) for index in range(COUNT)]
    assert np.array_equal(after[5] == 3, truth(5) == 3)
    assert all(map(np.array_equal, before[:3], after[:3]))
    assert said("update", "out", "--undo")[0] == 0
    assert all(map(np.array_equal, before, [labels(Path("out"), index) for index in range(COUNT)]))


def test_a_mask_may_be_for_a_frame_of_a_folder_by_its_name(said: Any) -> None:
    from PIL import Image

    Path("shot").mkdir()
    for index, image in enumerate(pictures(COUNT)):
        Image.fromarray(image).save(f"shot/s_{1000 + index}.png")
    begun(said, "shot")
    shutil.move("shot", "moved")
    code, words = said("update", "out", "-m", "s_1005:fix.png")
    assert code == 5
    assert "shot" in words
    code, words = said("update", "out", "-m", "s_1005:fix.png", "--clip", "moved")
    assert code == 6, "a folder of another name is another clip"
    shutil.move("moved", "shot")
    assert said("update", "out", "-m", "s_1005:fix.png")[0] == 0
    assert len(read(Path("shot"))[1]) == COUNT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a mask"),
        (("-m", "fix.png"), "say which frame fix.png is for, as in -m 40:fix.png"),
        (("-m", "50:fix.png"), "clip ends with frame 7"),
        (("-m", "5:none.png"), "none.png is missing"),
        (("--gone", "dog"), "expected OBJECT@FIRST-LAST"),
        (("-m", "5:fix.png", "--lock-range", "4s-5s"), "expected frames such as 0-80"),
        (("--undo", "--lock", "3"), "nothing else"),
        (("--undo",), "no update to undo"),
        (("--drop-mask", "3"), "no mask was given for frame 3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(said: Any, arguments: tuple[str, ...], words: str) -> None:
    begun(said)
    code, printed = said("update", "out", *arguments)
    assert code != 0
    assert words in printed
    assert "Traceback" not in printed
