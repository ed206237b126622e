"""A command in a place of its own: what is left where it is broken off, against what it makes undisturbed."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import fnmatch
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import torch
from PIL import Image

from tests.forks import print_to
from tests.reliability.breaks import Break, Hook
from tests.reliability.commands import Act, Command, become_quick
from vostrack.files import LOCK_NAME

SOME_FAILED = 3
DOCUMENTED = {0, 1, SOME_FAILED, 4, 5, 6, 7, 8}
"""Exit codes of docs/formats.md that commands with good arguments may end with."""

SECONDS = 600.0
"""Longer than anything here takes, on a machine that is busy as well."""

_DEATH_SIGNAL, _SUBREAPER = 1, 36
_ABOUT_TIME = {
    "seconds", "seconds_per_frame", "peak_rss_mb", "timing", "minutes", "ended", "worker", "attempts", "notes",
    "decoding",
}  # fmt: skip
"""Keys whose values differ from run to run."""

_ENCODED = ("*overlay.mp4",)
"""x264 gives other bytes for the same pictures now and then (`tests.runs.results`): these are decoded alone."""

_LOGS = ("*/.vostrack/frames.jsonl", "*/.vostrack/signs.jsonl", "*/batch.jsonl")
"""Lists to which lines are added: what was done again is there twice, and a line that was cut off stays."""


_TRACKED = re.compile(r'Traceback.*\n +File ".*resource_tracker\.py", .*\n.*\nKeyError: .*\n')
"""What Python itself says of semaphores where the process that keeps a list of them was killed."""


class Lost(Exception):
    """Something that was promised is not so."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, as of `waitstatus_to_exitcode`, what it said, and how many calls it made."""

    code: int
    said: str
    calls: int
    seconds: float


class Place:
    """Where a command is broken off, again and again; the folder `work` in it has all that it writes.

    Attributes:
        command: the command.
        hook: what breaks its calls.
        calls: that change files, in a run that nobody disturbs.
        seconds: that it takes.
    """

    def __init__(self, command: Command, folder: Path, hook: Hook) -> None:
        """Make the place, in a folder beside `in`, and run the command in it undisturbed.

        Raises:
            Lost: it fails, or its results cannot be decoded.
        """
        self.command, self.folder, self.hook = command, folder.resolve(), hook
        self.work = self.folder / "work"
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # what killed processes leave behind is ours to wait for
        self.work.mkdir(parents=True)
        self.expect(self.run(command.before), 0)
        shutil.copytree(self.work, self.folder / "before")
        self.before = contents(self.work)
        ended = self.run(command.act, Break(self.work))
        self.expect(ended, 0)
        self.after, self.calls, self.seconds = contents(self.work), ended.calls, ended.seconds
        for name in self.after:
            check_decodes(self.work / name)

    def reset(self) -> None:
        """Make it as it was before the command."""
        for path in self.work.iterdir():  # the folder itself may be a disk
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.folder / "before", self.work, dirs_exist_ok=True)
        (self.folder / "told").unlink(missing_ok=True)

    def start(self, act: Act, plan: Break | None = None) -> int:
        """Start a process that does something, which ends with this one; its id."""
        pid = os.fork()
        if pid == 0:
            try:
                ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # nothing goes on when the program is gone
                os.chdir(self.folder)
                print_to(self.folder)
                become_quick(self.folder.parent / "in")
                with self.hook(plan) if plan else contextlib.nullcontext(lambda: 0) as calls:
                    code = act()
                    count = calls()
                Path("calls").write_text(str(count))
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                code = 70
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        return pid

    def run(
        self,
        act: Act,
        plan: Break | None = None,
        disturb: Callable[[int], None] = lambda pid: None,
        seconds: float = SECONDS,
    ) -> Ended:
        """Do something in a process, and wait until it and all that it has started are gone.

        Args:
            act: what is done.
            plan: what happens to its calls.
            disturb: is given the process as soon as it has started.
            seconds: that it may take.

        Raises:
            Lost: something that it started stays.
        """
        begun = time.monotonic()
        (self.folder / "calls").write_text("0")
        pid = self.start(act, plan)
        disturb(pid)
        code = _reaped(pid, seconds)
        said = (self.folder / "err").read_text(errors="replace")
        calls = (self.folder / "calls").read_text() or 0  # a kill may come while they are written down
        return Ended(code, said, int(calls), time.monotonic() - begun)

    def check_told(self, ended: Ended) -> None:
        """Raise `Lost` where a process that lost one that worked for it has not ended in a documented way."""
        code, said = ended.code, _TRACKED.sub("", ended.said)
        if code not in DOCUMENTED or "Traceback" in said or (code not in (0, SOME_FAILED) and "error: " not in said):
            raise Lost(f"it ended with {code} when one that worked for it was killed: {said[-2000:]}")

    def check_left(self) -> None:
        """Raise `Lost` where a final file is neither as before nor as it becomes, or cannot be decoded."""
        for name, data in contents(self.work).items():
            if data in (self.before.get(name), self.after.get(name)) or is_partial(name) or _matches(name, _LOGS):
                continue
            grows = _is_hidden(name) or name.endswith(".jsonl") or _matches(name, self.command.grows)
            if not grows and not _matches(name, (*self.command.varies, *_ENCODED)):
                raise Lost(f"{name} is neither as before nor as it becomes")
            check_decodes(self.work / name)

    def check_whole(self) -> None:
        """Raise `Lost` where the results are not those of a run that nobody disturbed."""
        there = contents(self.work)
        if left := [name for name in there if is_partial(name)]:
            raise Lost(f"{left} are left")
        names = {name for name in there.keys() ^ self.after.keys() if not _matches(name, self.command.spare)}
        if names:
            raise Lost(f"{sorted(names)} are there without reason, or are not there")
        for name, data in there.items():
            if name in self.after and data != self.after[name] and not _matches(name, _LOGS):
                if not _matches(name, (*self.command.varies, *_ENCODED)):
                    raise Lost(f"{name} differs from that of an undisturbed run")
                check_decodes(self.work / name)

    def go_on(self) -> None:
        """Go on with the command, in a process of its own; raises `Lost` where it fails, or as `check_whole`."""
        self.expect(self.run(self.command.again), 0, *self.command.complete)
        self.check_whole()

    def expect(self, ended: Ended, *codes: int) -> None:
        """Raise `Lost` where a process ended with another code."""
        if ended.code not in codes:
            raise Lost(f"{self.command.name} ended with {ended.code}: {ended.said[-2000:]}")


def _reaped(pid: int, seconds: float) -> int:
    """Wait for a process, and for all that come to us when it is gone; its exit code."""
    code, until = None, time.monotonic() + seconds
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            assert code is not None
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
        if not ended:
            if time.monotonic() > until:
                for each in [pid] if code is None else children(os.getpid()):
                    os.kill(each, signal.SIGKILL)
                raise Lost("a process hangs" if code is None else "a process that it started stays")
            time.sleep(0.002)


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return own + [each for child in own for each in children(child)]


def contents(folder: Path) -> dict[str, Any]:
    """What files hold, by path below a folder, without what differs from run to run."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() and path.name != LOCK_NAME)
    return {path.relative_to(folder).as_posix(): _lasting(path.name, path.read_bytes()) for path in paths}


def _lasting(name: str, data: bytes) -> Any:
    """Data without what says how long it took."""
    with contextlib.suppress(ValueError, RuntimeError):
        if name.endswith(".json"):
            return _timeless(json.loads(data))
        if name.endswith(".jsonl"):
            return [_timeless(json.loads(line)) for line in data.splitlines() if line.strip()]
        if name.endswith(".safetensors"):
            end = 8 + int.from_bytes(data[:8], "little")
            told = json.loads(data[8:end])
            told["__metadata__"] = {key: _lasting(".json", text.encode()) for key, text in told["__metadata__"].items()}
            return _timeless(told), data[end:]
        if name.endswith(".pt"):
            return _timeless(torch.load(io.BytesIO(data), weights_only=True))
    return data


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _ABOUT_TIME}
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def is_partial(name: str) -> bool:
    """Whether a path is that of something that is not finished yet."""
    return any(part.startswith(".vostrack-") and part.endswith(".part") for part in PurePath(name).parts)


def _is_hidden(name: str) -> bool:
    return any(part in (".vostrack", ".batch") for part in PurePath(name).parts)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def check_decodes(path: Path) -> None:
    """Raise `Lost` where a file cannot be decoded to its end; of lists of lines, the last one may be cut off."""
    try:
        decode = _DECODERS.get(path.suffix)
        if decode is not None:
            decode(path)
    except Exception as error:
        raise Lost(f"{path.name} cannot be decoded: {type(error).__name__}: {error}") from error


def _image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _movie(path: Path) -> None:
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0


def _lines(path: Path) -> None:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n") and line.strip():
            json.loads(line)


def _table(path: Path) -> None:
    with path.open(newline="") as file:
        first, *rows = csv.reader(file)
    assert all(len(row) == len(first) for row in rows)


def _tensors(path: Path) -> None:
    from safetensors.torch import load_file

    load_file(path)


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def _arrays(path: Path) -> None:
    with np.load(path) as arrays:
        assert [arrays[name].shape for name in arrays.files]


def _layers(path: Path) -> None:
    import OpenEXR

    with OpenEXR.File(str(path)) as file:
        assert file.channels()


_DECODERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((".png", ".jpg"), _image),
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".webm"), _movie),
    ".json": lambda path: json.loads(path.read_bytes()),
    ".jsonl": _lines,
    ".csv": _table,
    ".npz": _arrays,
    ".safetensors": _tensors,
    ".zip": _archive,
    ".xml": lambda path: ElementTree.fromstring(path.read_text()),
    ".exr": _layers,
    ".pt": lambda path: torch.load(path, weights_only=True),
}
