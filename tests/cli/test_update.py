"""`vostrack update`: what is typed, and refusals in one line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
    assert code == 0, words


@pytest.fixture
def _threads() -> Iterable[None]:
    """Gives back the threads of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shot(numbers: Iterable[int], form: str = "{:05d}") -> None:
    """The clip as a folder of images with these numbers."""
    Path("shot").mkdir()
    for index, number in enumerate(numbers):
        Image.fromarray(pictures(index + 1)[index]).save(f"shot/{form.format(number)}.png")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="ONE CORE: there is one number of threads")
@pytest.mark.usefixtures("_threads")
def test_a_run_is_corrected_with_as_many_threads_as_it_had(said: Any) -> None:
    torch.set_num_threads(1)
    begun(said)
    torch.set_num_threads(2)
    code, words = said("update", "out", "-m", "5:fix.png")
    assert code == 0, words
    assert torch.get_num_threads() == 1
    kept = Path("out/.vostrack/run.json")
    kept.write_text(kept.read_text().replace('"threads": 1', '"threads": 1000000'))
    code, words = said("update", "out", "--drop-mask", "5")
    assert (code, torch.get_num_threads()) == (6, 1)
    assert "threads from 1000000 to 1" in words


def test_what_a_lock_keeps_from_having_an_effect_is_told(said: Any) -> None:
    begun(said)
    code, words = said("update", "out", "-m", "5:fix.png", "--lock", "200", "--lock-range", "0-2")
    assert (code, "run-locked" in words) == (0, False)
    code, words = said("update", "out", "-m", "1:first.png", "--gone", "200@6-")
    assert code == 0
    told = [line.partition("[run-locked] ")[2] for line in words.splitlines() if "run-locked" in line]
    assert told == [
        "object 200 is locked: it stays where it is said to be gone; --unlock releases what is locked",
        "frame 1 is locked: the mask for it is not shown there; --unlock releases what is locked",
    ]
    code, words = said("update", "out", "-m", "4:fix.png", "--lock", "3")
    assert "all objects of the mask for frame 4 are locked: they stay as they are" in words


def test_locks_alone_are_no_update(said: Any) -> None:
    begun(said)
    code, words = said("update", "out", "--lock", "200")
    assert code == 2
    assert "only say what these must not change" in words


def test_a_run_is_corrected_and_taken_back(said: Any) -> None:
    begun(said)
    before = [labels(Path("out"), index) for index in range(COUNT)]
    code, words = said("update", "out", "-m", "5:fix.png", "--gone", "200@6-", "--lock-range", "0-2", "--lock", "200")
    assert code == 0, words
    assert "note [run-changed] 1 of 8 masks changed: 5\n" in words
    after = [labels(Path("out"), index) for index in range(COUNT)]
    assert np.array_equal(after[5] == 3, truth(5) == 3)
    assert all(map(np.array_equal, before[:3], after[:3]))
    Path("out_cvat.xml").write_text("an export")
    code, words = said("update", "out", "--undo")
    assert code == 0
    assert "note [export-older] out_cvat.xml may be of the run as it was before" in words
    assert all(map(np.array_equal, before, [labels(Path("out"), index) for index in range(COUNT)]))


def test_review_and_suggest_are_quiet_where_that_is_asked_for(said: Any) -> None:
    begun(said)
    assert said("review", "out", "-q") == (0, "")
    assert Path("out/review.html").is_file()
    assert said("suggest", "out", "-q") == (0, "")


def test_objects_get_names(said: Any) -> None:
    begun(said)
    code, words = said("update", "out", "--name", "dog=3", "--name", "cat=200")
    assert code == 0, words
    assert "note [run-changed] no mask changed; names are 3 = dog, 200 = cat\n" in words
    assert words.endswith("next: to take the names back: vostrack update out --undo\n")
    assert said("update", "out", "--gone", "cat@6-", "--name", "cow=dog")[0] == 0
    assert said("update", "out", "--gone", "cow@6-")[0] == 0
    assert not labels(Path("out"), 6).any()


def test_what_was_said_to_be_gone_is_here_again(said: Any) -> None:
    begun(said)
    for option, is_there in (("--gone", "200@6-"), False), (("--drop-gone", "200"), True):
        assert said("update", "out", *option)[0] == 0
        assert (labels(Path("out"), 7) == 200).any() == is_there


def test_a_mask_may_be_for_a_frame_of_a_folder_by_its_name(said: Any) -> None:
    shot(range(1000, 1000 + COUNT), "s_{}")
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


@pytest.mark.parametrize("frame", ["5", "0.2s", "00:00:00.2", "s_1005", "s_1005.png"])
def test_a_mask_is_taken_back_by_number_time_or_name(frame: str, said: Any) -> None:
    clip = "clip.mp4"
    if frame.startswith("s"):
        shot(range(1000, 1000 + COUNT), "s_{}")
        clip = "shot"
    begun(said, clip)
    assert said("update", "out", "-m", "5:fix.png")[0] == 0
    code, words = said("update", "out", "--drop-mask", frame)
    assert code == 0, words
    code, words = said("update", "out", "--drop-mask", frame)
    assert (code, "no mask was given for frame 5" in words) == (4, True), words


def pasted(words: str) -> list[list[str]]:
    """The commands in what was said, parted as by a shell."""
    return [shlex.split(command) for command in re.findall(r"vostrack ((?:frame|update) [^,;\n]*)", words)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "shot", "-m", "40:first.png", "--method", NAME),
        ("segment", "shot", "-m", "first.png", "--gone", "3@40-", "--method", NAME),
        ("segment", "shot", "-m", "first.png", "--range", "0-40", "--method", NAME),
        ("update", "out", "-m", "40:first.png"),
        ("update", "out", "--drop-mask", "40"),
        ("frame", "shot", "40"),
    ],
    ids=" ".join,
)
def test_the_number_of_a_file_beyond_the_clip_comes_with_its_frame(arguments: tuple[str, ...], said: Any) -> None:
    shot(32 + index for index in range(COUNT + 1))
    begun(said, "shot")
    code, words = said(*arguments)
    assert code != 0
    assert words.rstrip().endswith("; 00040.png is frame 8"), words


@pytest.mark.parametrize("start", ["segment", "suggest"])
def test_what_comes_next_can_be_pasted(start: str, said: Any) -> None:
    shutil.move("clip.mp4", "my clip.mp4")
    run = ("segment", "my clip.mp4", "-m", "first.png", "--method", NAME, "--no-overlay", "-o", "my run")
    code, words = said(*run)
    if start == "suggest":
        code, words = said("suggest", "my run")
    assert code == 0, words
    frame, update = pasted(words)
    if start == "suggest":
        assert re.search(rf"\nnext: paint frame {frame[2]}( first)?: vostrack frame 'my clip.mp4' ", words)
    code, words = said(*frame)
    assert code == 0, words
    number = frame[2]
    assert f"save it as frame-{number}_mask.png, then vostrack update RUN -m {number}:" in words
    write_mask(Path(f"frame-{number}_mask.png"), truth(int(number)))
    code, words = said(*update)
    assert code == 0, words
    assert "if that is no better: vostrack update 'my run' --undo" in words
    assert said(*pasted(words)[0])[0] == 0
    shutil.move("my run", "my clip_vostrack")
    words = said("frame", "my clip.mp4", "5", "-o", "a.png")[1]
    assert ", then vostrack update 'my clip_vostrack' -m 5:a_mask.png" in words


@pytest.mark.parametrize("command", ["suggest", "review", "update --undo", "export --format coco"])
def test_a_run_that_is_not_there_is_told_with_the_one_that_is_meant(command: str, said: Any) -> None:
    Path("dog_vostrack").mkdir()
    code, words = said(*command.split(), "dog_vostrak")
    assert code != 0
    assert "; did you mean dog_vostrack?\n" in words
    if "export" not in command:
        assert "is not the output folder of a run: give the one that" in said(*command.split(), "clip.mp4")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a mask"),
        (("-m", "fix.png"), "say which frame fix.png is for, as in -m 40:fix.png"),
        (("-m", "h0005.png"), "say which frame h0005.png is for, as in -m 5:h0005.png"),
        (("-m", "50:fix.png"), "clip ends with frame 7"),
        (("-m", "5:none.png"), "none.png is missing"),
        (("--gone", "dog"), "expected OBJECT@FIRST-LAST"),
        (("-m", "5:fix.png", "--lock-range", "4s-5s"), "expected frames such as 0-80"),
        (("--undo", "--lock", "3"), "nothing else"),
        (("--undo",), "no update to undo"),
        (("--drop-mask", "3"), "no mask was given for frame 3"),
        (("--drop-mask", "x"), "expected a frame such as 40"),
        (("--name", "dog"), "expected NAME=COLOUR or NAME=ID"),
        (("--name", "dog=7"), "no mask has the id or grey 7 (named dog): there are 2 objects, 3, 200"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(said: Any, arguments: tuple[str, ...], words: str) -> None:
    begun(said)
    code, printed = said("update", "out", *arguments)
    assert code != 0
    assert words in printed
    assert "Traceback" not in printed
