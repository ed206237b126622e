"""All that writes, as the programs that break it off run it: clips of a few frames, methods that take no time."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.adapt.clips import SMALL, narrow_net
from tests.batch.clips import write_clips
from tests.benchmark.trees import davis17
from tests.fakes import NAME, PATH, SIZE, truth, write_clip, write_mask, write_weights
from tests.reliability.breaks import is_preloaded
from tests.train.samples import write_footage, write_labelled
from vostrack import cli
from vostrack.errors import OutputError, VostrackError, exit_code
from vostrack.formats import FORMATS
from vostrack.methods import METHODS
from vostrack.run import passes
from vostrack.web.document import JOURNAL, Document
from vostrack.web.session import drawn_in, held
from vostrack.web.things import Step

Act = Callable[[], int]
"""Something that is done in a process, with its exit code."""

FRAMES = 6
_RUN = "work/run"
_SEGMENT = f"segment ../in/clip.mp4 --method {NAME} -m ../in/first.png -o {_RUN} --quiet"
_ADAPT = " ".join(f"--adapt-set {key.replace('_', '-')}={value}" for key, value in SMALL.items())
_TRAIN = "train --method tiny --device cpu --data ../in/footage --held-out ../in/held --evaluate-every 1 -o work/train"
_BENCHMARK = "benchmark davis17 --root ../in/davis -o work/scores"
_FOURTH = "-m 4:../in/fourth.png"


@dataclass(frozen=True)
class Command:
    """Something that writes below `work` in the current folder, and reads `../in` beside it.

    Attributes:
        name: for messages and options.
        act: does it.
        again: goes on with it, or does it again.
        before: what must have been done.
        complete: exit codes of `again` where there is nothing left to do.
        grows: patterns of names, below `work`, of what is rewritten on the way and ends as ever.
        varies: patterns of names of what is never twice the same.
        spare: patterns of names of what may be missing, and may be left of a run that was broken off.
        package: that it needs.
        works: whether it starts processes that work for it.
    """

    name: str
    act: Act
    again: Act
    before: Act = lambda: 0
    complete: tuple[int, ...] = ()
    grows: tuple[str, ...] = ()
    varies: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    package: str = ""
    works: bool = False


def _cli(line: str) -> Act:
    return lambda: cli.run(line.split())


def _segment(name: str, options: str = "", **more: Any) -> Command:
    line = f"{_SEGMENT} {options}"
    return Command(name, _cli(line), _cli(f"{line} --resume"), **more)


def _repeated(name: str, line: str, **more: Any) -> Command:
    """A command that goes on by itself."""
    return Command(name, _cli(line), _cli(line), **more)


def _export(kind: str) -> Command:
    line = f"export {_RUN} --format {kind} --resume --quiet"
    return _repeated(f"export-{kind}", line, before=_cli(_SEGMENT), complete=(9,), package=FORMATS[kind].package)


def _updated() -> int:
    """A run that was updated."""
    return _cli(_SEGMENT)() or _cli(f"update {_RUN} {_FOURTH} --quiet")()


def _train_on() -> int:
    """Goes on with a training, or starts it where nothing is there to go on with, as the error says."""
    code = _cli(f"{_TRAIN} --resume")()
    return _cli(_TRAIN)() if code == OutputError.exit_code else code


_STEPS = (
    Step("add", id=3, name="dog", color="#ff0000"),
    Step("brush", 0, 3, [[9.0, 9.0], [20.0, 12.0]], 4.0),
    Step("undo"),
    Step("redo"),
    Step("brush", 2, 3, [[30.0, 20.0], [40.0, 22.0]], 5.0),
    Step("add", id=7, name="cat", color="#00ff00"),
    Step("polygon", 2, 7, [[5.0, 5.0], [5.0, 30.0], [28.0, 18.0]]),
    Step("undo"),
    Step("grow", 0, 3, radius=2.0),
)


def _draw() -> int:
    """What is left of a drawing, as a person would go on, and its masks; each step that was done is told in `told`."""
    out = Path(_RUN)
    folder = drawn_in(out)
    try:
        with held(out):
            document = Document(SIZE, folder)
            journal = folder / JOURNAL
            done = len(journal.read_bytes().splitlines()) if journal.exists() else 0
            told = Path("told").stat().st_size if Path("told").exists() else 0
            assert done >= told, f"{told} steps were done, and {done} are there"
            for step in _STEPS[done:]:
                {"undo": document.undo, "redo": document.redo}.get(step.kind, lambda step=step: document.do(step))()
                with Path("told").open("a") as file:
                    file.write(".")
            for frame in document.frames:
                document.save(folder, frame)
    except (VostrackError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    return 0


_ALL = (
    _segment("segment"),
    _segment("segment-both", f"--direction both {_FOURTH}"),
    _segment("segment-crf", "--refine crf", package="pydensecrf", works=True),
    _segment("segment-adapt", f"--adapt {_ADAPT}"),
    _segment("segment-adapt-live", f"--adapt-live {_ADAPT}"),
    _segment(
        "segment-export",
        "--objects --probs --export coco --export ffv1 --export png-rgba",
        package="pycocotools",
        grows=("*/summary.json",),
    ),
    _repeated("update", f"update {_RUN} {_FOURTH} --quiet", before=_cli(_SEGMENT), complete=(4,)),
    _repeated("update-undo", f"update {_RUN} --undo", before=_updated, complete=(6,)),
    *(_export(kind) for kind in FORMATS),
    Command(
        "train",
        _cli(_TRAIN),
        _train_on,
        grows=("*/checkpoint.pt", "*/best.safetensors", "*/cache/*"),
        spare=("*/pictures/*",),
    ),
    _repeated("benchmark", f"{_BENCHMARK} --method {NAME}", varies=("*report.html",)),
    # Workers are processes that know nothing of a method of the tests.
    _repeated("benchmark-jobs", f"{_BENCHMARK} --method copy --jobs 2", varies=("*report.html",), works=True),
    _repeated(
        "batch",
        "batch run ../in/videos --masks ../in/masks -o work/runs --option method=copy --jobs 2",
        grows=("*/batch.json",),
        varies=("*/batch.csv", "*/batch.html"),
        works=True,
    ),
    Command("draw", _draw, _draw),
)

QUICK = ("segment-both", "segment-adapt", "segment-export", "update", "export-png-rgba", "train", "benchmark", "draw")
"""Commands of all kinds that take no second."""

COMMANDS: Mapping[str, Command] = {command.name: command for command in _ALL}
"""All commands by name."""


def chosen(names: Collection[str] | None) -> list[Command]:
    """Commands of these names, or all; says which are left out for lack of a package."""
    wanted = [each for each in COMMANDS.values() if not names or each.name in names]
    lacking = {each.name for each in wanted if each.package and importlib.util.find_spec(each.package) is None}
    for name in lacking:
        print(f"LEFT OUT: {name} needs {COMMANDS[name].package}", flush=True)
    return [each for each in wanted if each.name not in lacking]


_SLOW = ("torch._dynamo", "vostrack.run.segment", "vostrack.run.export", "vostrack.train.run", "typer.rich_utils")


def write_inputs(folder: Path) -> None:
    """What commands read; and what takes long to import is imported once, before processes are forked."""
    for name in _SLOW:
        importlib.import_module(name)
    folder.mkdir()
    write_clip(folder / "clip.mp4", FRAMES)
    write_mask(folder / "first.png")
    write_mask(folder / "fourth.png", truth(4))
    write_weights(folder / "weights")
    write_footage(folder / "footage")
    write_labelled(folder / "held", 3)
    davis17(folder / "davis", count=3)
    write_clips(folder, {"one": 3, "two": 4})


def become_quick(folder: Path) -> None:
    """Let this process find the fake methods and their weights in a folder, and save after each frame."""
    METHODS.update({NAME: PATH, "tiny": "tests.train.samples:TinyMethod"})
    os.environ["VOSTRACK_WEIGHTS"] = str(folder / "weights")
    os.environ.pop("VOSTRACK_DATA", None)
    if not is_preloaded():  # that one leaves it out by itself
        os.fsync = lambda fd: None  # nobody cuts the power, and it takes most of the time
    passes.SAVE_SECONDS = 0.0
    narrow_net(pytest.MonkeyPatch())
