"""All that writes, as the programs that break it off run it: clips of a few frames, methods that take no time."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
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
from vostrack.errors import OutputError, VostrackError
from vostrack.formats import FORMATS
from vostrack.methods import METHODS
from vostrack.run import passes
from vostrack.web.document import JOURNAL, Document, Step
from vostrack.web.session import drawn_in, held

Act = Callable[[], int]
"""Something that is done in a process, with its exit code."""

FRAMES = 6
_CLIP, _RUN = "../in/clip.mp4", "work/run"
_SEGMENT = ("segment", _CLIP, "--method", NAME, "-o", _RUN, "-m", "../in/first.png")
_BOTH = ("--direction", "both", "-m", "4:../in/fourth.png")
_ADAPT = tuple(text for key, value in SMALL.items() for text in ("--adapt-set", f"{key.replace('_', '-')}={value}"))
_TRAIN = ("train", "--method", "tiny", "--device", "cpu", "-o", "work/train", "--data", "../in/footage",
          "--held-out", "../in/held", "--evaluate-every", "1")  # fmt: skip
_BATCH = ("batch", "run", "../in/videos", "--masks", "../in/masks", "-o", "work/runs", "--option", "method=copy")


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

    @property
    def is_there(self) -> bool:
        """Whether what it needs is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def _cli(*arguments: str) -> Act:
    return lambda: cli.run([*arguments, "--quiet"] if arguments[0] in ("segment", "update", "export") else [*arguments])


def _segment(name: str, *options: str, **more: Any) -> Command:
    arguments = (*_SEGMENT, *options)
    return Command(name, _cli(*arguments), _cli(*arguments, "--resume"), **more)


def _repeated(*arguments: str, **more: Any) -> Command:
    return Command(arguments[0], _cli(*arguments), _cli(*arguments), **more)


def _train_on() -> int:
    """Goes on with a training, or starts it where nothing is there to go on with, as the error says."""
    code = cli.run([*_TRAIN, "--resume"])
    return cli.run([*_TRAIN]) if code == OutputError.exit_code else code


def _export(kind: str) -> Command:
    arguments = ("export", _RUN, "--format", kind, "--resume")
    name, package = f"export-{kind}", FORMATS[kind].package
    return Command(name, _cli(*arguments), _cli(*arguments), _cli(*_SEGMENT), complete=(9,), package=package)


def _update(name: str, *options: str, before: tuple[tuple[str, ...], ...] = (), **more: Any) -> Command:
    arguments = ("update", _RUN, *options)
    return Command(
        name,
        _cli(*arguments),
        _cli(*arguments),
        lambda: max(_cli(*each)() for each in (_SEGMENT, *(("update", _RUN, *each) for each in before))),
        **more,
    )


_FOURTH = ("-m", "4:../in/fourth.png")
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
    except VostrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


_ALL = (
    _segment("segment"),
    _segment("segment-both", *_BOTH),
    _segment("segment-crf", "--refine", "crf", package="pydensecrf", works=True),
    _segment("segment-adapt", "--adapt", *_ADAPT),
    _segment("segment-adapt-live", "--adapt-live", *_ADAPT),
    _segment(
        "segment-export",
        "--objects",
        "--probs",
        "--export",
        "coco",
        "--export",
        "ffv1",
        "--export",
        "png-rgba",
        package="pycocotools",
        grows=("*/summary.json",),
    ),
    _update("update", *_FOURTH, complete=(4,)),
    _update("update-undo", "--undo", before=(_FOURTH,), complete=(6,)),
    *(_export(kind) for kind in FORMATS),
    Command(
        "train",
        _cli(*_TRAIN),
        _train_on,
        grows=("*/checkpoint.pt", "*/best.safetensors", "*/cache/*"),
        spare=("*/pictures/*",),
    ),
    _repeated(
        "benchmark", "davis17", "--root", "../in/davis", "--method", NAME, "-o", "work/scores", varies=("*report.html",)
    ),
    _repeated(
        *_BATCH,
        "--jobs",
        "1",
        works=True,
        grows=("*/batch.json",),
        varies=("*/batch.jsonl", "*/batch.csv", "*/batch.html"),
    ),
    Command("draw", _draw, _draw),
)

QUICK = ("segment-both", "segment-adapt", "segment-export", "update", "export-png-rgba", "train", "benchmark", "draw")
"""Commands of all kinds that take no second."""

COMMANDS: Mapping[str, Command] = {command.name: command for command in _ALL}
"""All commands by name."""


def write_inputs(folder: Path) -> None:
    """What commands read."""
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
