"""Progress without a terminal: lines, JSON, and an estimate of all of it."""

from __future__ import annotations

import contextlib
import json
from functools import partial

import pytest

from vostrack.cli.benchmark_tables import SequenceBar
from vostrack.cli.console import Form, FrameBar
from vostrack.cli.pace import Pace, duration
from vostrack.notes import Code, Note


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that bars see."""
    clock = Clock()
    for module in ("console", "benchmark_tables"):
        monkeypatch.setattr(f"vostrack.cli.{module}.Pace", partial(Pace, clock))
    return clock


def follow(bar: FrameBar, clock: Clock, count: int, total: int | None, seconds: float) -> None:
    """Do some frames, each of which takes so many seconds."""
    for done in range(1, count + 1):
        clock.now += seconds
        bar.progress(done, total)


def test_the_rate_leaves_out_what_comes_before_the_first_frame() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.line("frame") == "0 frames"
    clock.now = 100
    pace.update(1, 11)
    assert (pace.each, pace.left) == (None, None)
    clock.now = 104
    pace.update(3, 11)
    assert (pace.each, pace.left) == (2, 16)
    assert pace.line("frame") == "3 of 11 frames, 2.00 s a frame, about 16 s left"
    pace.update(20, None)
    assert pace.left is None
    pace.update(20, 11)
    assert pace.left == 0, "more than the clip says"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (150, "2 min"), (5400, "1.5 h")])
def test_a_time_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sequences_have_a_line_every_half_minute(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with SequenceBar("benchmark", "again") as bar:
        for done in range(1, 6):
            clock.now += 20
            bar.progress(done, 9)
    assert capfd.readouterr().err.splitlines() == [
        "benchmark: 2 of 9 sequences, 20.00 s a sequence, about 2 min left",
        "benchmark: 4 of 9 sequences, 20.00 s a sequence, about 2 min left",
    ]


def test_without_a_terminal_there_is_a_line_every_half_minute(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with FrameBar("dog.mp4") as bar:
        follow(bar, clock, 20, 20, 5.0)
    assert capfd.readouterr().err.splitlines() == [
        "dog.mp4: about 2 min in all",
        "dog.mp4: 6 of 20 frames, 5.00 s a frame, about 70 s left",
        "dog.mp4: 12 of 20 frames, 5.00 s a frame, about 40 s left",
        "dog.mp4: 18 of 20 frames, 5.00 s a frame, about 10 s left",
    ]


def test_a_long_run_is_told_in_its_first_minute_what_is_quicker(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with FrameBar("dog.mp4", quicker=lambda: "--size 240") as bar:
        bar.phase("resuming")
        follow(bar, clock, 3, 400, 15.0)
        bar.phase("segmenting")
        follow(bar, clock, 3, 400, 15.0)
    said = capfd.readouterr().err
    assert said.count("quicker") == 1
    assert "dog.mp4: about 1.7 h for segmenting; quicker: --size 240\n" in said


def test_quiet_says_nothing_of_it(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    for form in Form:
        with FrameBar("dog.mp4", quiet=True, form=form, quicker=lambda: "x") as bar:
            follow(bar, clock, 9, 400, 15.0)
    assert capfd.readouterr().err == ""


def test_json_lines_for_programs(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with FrameBar("dog.mp4", form=Form.JSONL) as bar:
        follow(bar, clock, 10, 10, 0.4)
        bar.note(Note(Code.MASK_LATE, "two\nlines"))
    failing = FrameBar("dog.mp4", form=Form.JSONL)
    with contextlib.suppress(ZeroDivisionError), failing:
        failing.phase("training")
        follow(failing, clock, 4, None, 10.0)
        raise ZeroDivisionError("by\nzero")
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (told[-1]["note"], told[-1].pop("exit_code")) == ("by zero", 1)
    assert {tuple(each) for each in told} == {
        ("event", "done", "total", "seconds", "phase", "note", "code", "severity")
    }
    assert [(each["event"], each["done"]) for each in told] == [
        ("start", 0),
        ("progress", 1),
        ("progress", 3),
        ("progress", 6),
        ("progress", 9),
        ("progress", 10),
        ("note", 10),
        ("end", 10),
        ("start", 0),
        ("phase", 0),
        *(("progress", done) for done in (1, 2, 3, 4)),
        ("failed", 4),
    ]
    assert [told[6][key] for key in ("note", "code", "severity")] == ["two\nlines", "mask-late", "warning"]
    assert (told[-1]["phase"], told[-1]["total"], told[-1]["seconds"]) == ("training", None, 40)
