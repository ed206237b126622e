"""Calls that change files below a folder are counted; at one of them the process dies, or they fail.

`inside` replaces functions of Python in this process; `outside` tells a library in C that was preloaded, which also
sees what native code writes and reaches processes that this one starts.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]
import builtins
import ctypes
import errno
import inspect
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntFlag, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import vostrack

_PACKAGE = str(Path(vostrack.__file__).parent)
_UNMEANT = f"torch{os.sep}storage.py"
"""Called by native code, which makes another error of what is raised there."""


class Kind(IntFlag):
    """What a call does; READ and OPEN open a file, to read it alone or to write it."""

    READ = auto()
    OPEN = auto()
    WRITE = auto()
    FSYNC = auto()
    RENAME = auto()
    MKDIR = auto()
    LINK = auto()
    TRUNCATE = auto()
    REMOVE = auto()


CHANGES = ~Kind.READ & Kind(2 * Kind.REMOVE - 1)
_ROOM = Kind.OPEN | Kind.WRITE | Kind.FSYNC | Kind.RENAME | Kind.MKDIR | Kind.LINK
MAY_FAIL = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: _ROOM | Kind.READ | Kind.TRUNCATE,
    errno.EACCES: Kind.READ | Kind.OPEN | Kind.RENAME | Kind.MKDIR | Kind.LINK,
    errno.EROFS: Kind.OPEN | Kind.RENAME | Kind.MKDIR | Kind.LINK,
    errno.EMFILE: Kind.READ | Kind.OPEN,
}
"""Which calls a system lets fail with an error."""


@dataclass(frozen=True)
class Break:
    """What happens below a folder.

    Attributes:
        root: the folder; absolute, no link.
        at: number of the call, from 1; 0 to count alone.
        error: with which it fails; 0 for SIGKILL right after it.
        kinds: which calls count.
        lasting: whether all calls behind it fail as well.
        torn: whether a write that ends with SIGKILL has written half of its data.
    """

    root: Path
    at: int = 0
    error: int = 0
    kinds: Kind = CHANGES
    lasting: bool = False
    torn: bool = False


Hook = Callable[[Break], Any]
"""A context that gives a function, which says how many calls there were."""


@contextmanager
def inside(plan: Break) -> Iterator[Callable[[], int]]:
    """Break calls of Python code in this process."""
    calls = _Calls(plan)
    with ExitStack() as stack:
        for module, name, function in calls.replaced():
            stack.enter_context(mock.patch.object(module, name, function))
        yield lambda: calls.count


@contextmanager
def outside(plan: Break) -> Iterator[Callable[[], int]]:
    """Break calls of the C library, in this process and in those that it starts; it must be preloaded."""
    library = ctypes.CDLL(None)
    library.broken_calls.restype = ctypes.c_long
    numbers = (int(plan.kinds), plan.at, plan.error, int(plan.lasting), int(plan.torn))
    told = {"TESTS_BREAK": f"{' '.join(map(str, numbers))} {plan.root}"} if plan.at else {}
    kinds, at, *rest = numbers
    with mock.patch.dict(os.environ, told):
        library.break_at(os.fsencode(plan.root), kinds, ctypes.c_long(at), *rest)
        try:
            yield lambda: int(library.broken_calls())
        finally:
            library.break_at(b"", 0, ctypes.c_long(0), 0, 0, 0)


@contextmanager
def starving(plan: Break) -> Iterator[Callable[[], int]]:
    """Let a call that code of the package makes, in this process, fail for lack of memory; files do not matter."""
    count, lock = itertools.count(1), threading.Lock()
    made = 0

    def seen(frame: types.FrameType, event: str, argument: Any) -> None:
        nonlocal made
        caller = frame.f_back if event == "call" else frame
        code = frame.f_code
        passes = code.co_flags & inspect.CO_GENERATOR or code.co_filename.endswith(_UNMEANT)
        if event in ("call", "c_call") and caller and not passes and caller.f_code.co_filename.startswith(_PACKAGE):
            with lock:
                number = next(count)
                made = number
            if number == plan.at:
                raise MemoryError

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        yield lambda: made
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def is_preloaded() -> bool:
    """Whether `outside` works in this process."""
    return hasattr(ctypes.CDLL(None), "break_at")


def compiled(folder: Path) -> Path | None:
    """The library to preload, compiled into a folder; None where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/proc/self/fd").is_dir():
        return None
    out = folder / "breaks.so"
    source = Path(__file__).with_name("breaks.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(out), str(source), "-ldl"], check=True)
    return out


def preloaded(program: str, arguments: list[str]) -> int:
    """Run one of the programs in a process that has the library; its exit code."""
    with TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        if library is None:
            print(f"{program}: NOTHING WAS DONE: there is no C compiler, or no Linux")
            return 0
        command = [sys.executable, "-m", "tests.reliability", program, *arguments]
        return subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(library)}, check=False).returncode


class _Calls:
    """Functions that count, fail and die, in the place of those of `os` and of `open`."""

    def __init__(self, plan: Break) -> None:
        self._plan, self._root, self.count = plan, str(plan.root), 0
        self._open, self._write, self._lock = io.open, os.write, threading.Lock()

    def replaced(self) -> Iterator[tuple[Any, str, Any]]:
        """Module, name and function."""
        yield builtins, "open", self._opened
        yield io, "open", self._opened
        yield os, "write", self._written
        yield os, "open", self._wrapped(os.open, Kind.OPEN)
        kinds = {
            Kind.FSYNC: ["fsync"],
            Kind.RENAME: ["rename", "replace"],
            Kind.MKDIR: ["mkdir"],
            Kind.LINK: ["link"],
            Kind.TRUNCATE: ["truncate", "ftruncate"],
            Kind.REMOVE: ["unlink", "remove", "rmdir"],
        }
        for kind, names in kinds.items():
            for name in names:
                yield os, name, self._wrapped(getattr(os, name), kind)

    def _is_below(self, target: Any, folder: int | None = None) -> bool:
        try:
            if isinstance(target, int):
                path = os.readlink(f"/proc/self/fd/{target}")
            else:
                here = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
                path = os.path.normpath(os.path.join(here, os.fsdecode(target)))
        except OSError:
            return False
        return path == self._root or path.startswith(self._root + os.sep)

    def _dies(self, kind: Kind) -> bool:
        """Count a call; whether the process ends with it. Raises the error."""
        plan = self._plan
        if not kind & plan.kinds:
            return False
        with self._lock:
            self.count += 1
            number = self.count
        if not plan.at or (number != plan.at and not (plan.lasting and number > plan.at)):
            return False
        if plan.error:
            raise OSError(plan.error, os.strerror(plan.error))
        return True

    def _wrapped(self, real: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
        renames = kind in (Kind.RENAME, Kind.LINK)

        def call(*arguments: Any, **options: Any) -> Any:
            folder = options.get("dst_dir_fd" if renames else "dir_fd")
            if not self._is_below(arguments[renames], folder):
                return real(*arguments, **options)
            reads = kind is Kind.OPEN and not arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            dies = self._dies(Kind.READ if reads else kind)
            result = real(*arguments, **options)
            if dies:
                _die()
            return result

        return call

    def _written(self, descriptor: int, data: Any) -> int:
        if not self._is_below(descriptor):
            return self._write(descriptor, data)
        half = bytes(data[: len(data) // 2])
        try:
            dies = self._dies(Kind.WRITE)
        except OSError:
            if half and self._plan.lasting and self.count == self._plan.at:  # a disk that becomes full takes a part
                return self._write(descriptor, half)
            raise
        written = self._write(descriptor, half if dies and self._plan.torn else data)
        if dies:
            _die()
        return written

    def _opened(self, file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        """A file whose writes are calls of `os.write`, if it is below the folder and to be written."""
        writes = set(mode) & set("wax+")
        if not isinstance(file, int) and self._is_below(file):
            if writes:
                return _pyio.open(file, mode, *more, **options)
            if self._dies(Kind.READ):
                _die()
        return self._open(file, mode, *more, **options)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
