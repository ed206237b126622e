"""Calls of commands fail, one by one: the error is one line, nothing final is wrong, and the next run mends all.

A disk that is full stays so, a fault of a device comes once. All is done in one process, as a program would that uses
the library and goes on after an error.
"""

from __future__ import annotations

import argparse
import errno
import gc
import io
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.reliability.breaks import CHANGES, MAY_FAIL, Break, inside, is_preloaded, outside, preloaded, starving
from tests.reliability.commands import COMMANDS, QUICK, Act, chosen, write_inputs
from tests.reliability.trials import DOCUMENTED, SOME_FAILED, Lost, Place

_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_SWEPT = (errno.ENOSPC, errno.EIO)
_DOCUMENTED = DOCUMENTED - {0, 1}
_FEW = 2
_DISKS, _PAGE, _HOURS = 8, 4096, 7200.0


def main(arguments: list[str]) -> int:
    """Let calls fail; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability faults", description=__doc__)
    parser.add_argument("--every", type=int, help="one of so many calls fails, until none is left", metavar="N")
    parser.add_argument(
        "--random", type=int, help=f"so many calls at random fail [{_FEW}, of a few commands]", metavar="N"
    )
    parser.add_argument("--memory", type=int, help="so many calls at random, of any kind, find no memory", metavar="N")
    parser.add_argument("--disks", action="store_true", help="no call is made to fail: disks are too small")
    parser.add_argument("--seed", type=int, default=0, help="of the chances")
    parser.add_argument("--command", action="append", choices=[*COMMANDS], help="only this one; repeatable")
    parser.add_argument("--outside", action="store_true", help="calls of the C library fail, as native code makes")
    given = parser.parse_args(arguments)
    if given.outside and not is_preloaded():
        return preloaded("faults", arguments)
    began, lost, count = time.monotonic(), 0, 0
    is_short = not (given.every or given.random or given.memory or given.disks)
    given.random = _FEW if is_short else given.random
    commands = chosen(given.command or (QUICK if is_short else None))
    with TemporaryDirectory(prefix="faults-") as folder:
        write_inputs(Path(folder, "in"))
        for command in commands:
            try:
                hook = outside if given.outside else starving if given.memory else inside
                trial = _Trial(Place(command, Path(folder, command.name), hook))
                injected, told = trial.run(given)
            except Lost as error:
                injected, told = 0, [str(error)]
            count, lost = count + injected, lost + len(told)
            for text in told:
                print(f"LOST in {command.name}: {text}", flush=True)
    what, seconds = "small disks" if given.disks else "faults", time.monotonic() - began
    print(f"faults: {count} {what} over {len(commands)} commands, {lost} lost, {seconds:.0f} s", flush=True)
    return 1 if lost or not count else 0  # where nothing fails, nothing is shown


class _Trial:
    """A command whose calls fail, in one process."""

    def __init__(self, place: Place) -> None:
        self._place, self._hook = place, place.hook
        self._count, self._told, self._open = 0, list[str](), 0

    def run(self, wanted: argparse.Namespace) -> tuple[int, list[str]]:
        """Do what is wanted in a process; how many faults there were, and what was lost. Raises `Lost`."""
        result = self._place.folder / "result"

        def act() -> int:
            if wanted.disks:
                self._on_small_disks()
            elif wanted.memory:
                self._at_random([errno.ENOMEM] * wanted.memory, random.Random(wanted.seed))
            elif wanted.every:
                self._one_by_one(wanted.every)
            else:
                rng = random.Random(wanted.seed)
                self._at_random(rng.choices([*MAY_FAIL], k=wanted.random), rng)
            result.write_text(json.dumps([self._count, self._told]))
            return 0

        self._place.expect(self._place.run(act, seconds=_HOURS), 0)
        count, told = json.loads(result.read_text())
        return int(count), list(told)

    def _one_by_one(self, every: int) -> None:
        """Each call fails, until a run makes fewer calls."""
        for error in _SWEPT:
            at = every
            while self._reached(error, at):
                at += every

    def _at_random(self, errors: list[int], rng: random.Random) -> None:
        """Calls at random fail with errors."""
        most = {error: self._calls(error) for error in {*errors}}
        for error in errors:
            self._reached(error, rng.randint(1, max(1, most[error])))

    def _on_small_disks(self) -> None:
        """Disks are full at some point; then they become large enough."""
        place = self._place
        before, after = (_pages(folder) for folder in (place.folder / "before", place.work))
        more = max(after - before, _DISKS * _PAGE)
        for part in range(1, _DISKS):
            with _disk(place.work, before + more * part // _DISKS) as enlarge:
                self._checked(f"on a disk of {part} / {_DISKS}", lambda: self._broken(enlarge=enlarge))

    def _calls(self, error: int) -> int:
        place = self._place
        place.reset()
        with self._hook(Break(place.work, kinds=MAY_FAIL.get(error, CHANGES))) as calls:
            _said(place.command.act)
            return int(calls())

    def _reached(self, error: int, at: int) -> bool:
        """Let a call fail; false where a run makes fewer."""
        plan = Break(self._place.work, at, error, MAY_FAIL.get(error, CHANGES), lasting=error in _LASTING)
        return self._checked(f"{errno.errorcode[error]} at call {at}", lambda: self._broken(plan))

    def _checked(self, name: str, broken: Callable[[], bool]) -> bool:
        try:
            reached = broken()
        except Lost as lost:
            self._told.append(f"{name}: {lost}")
            reached = True
        self._count += reached
        gc.collect()  # what an error in a cycle holds is no leak
        now = len(os.listdir("/proc/self/fd"))
        if self._open and now > self._open:
            self._told.append(f"{name}: {now - self._open} files stay open")
        self._open = now
        return reached

    def _broken(self, plan: Break | None = None, enlarge: Callable[[], None] = lambda: None) -> bool:
        """Run the command while calls fail, and then again; raises `Lost`."""
        place = self._place
        place.reset()
        with self._hook(plan) if plan else _nothing() as calls:
            code, said = _said(place.command.act)
            # Calls of processes that work for it are not counted here.
            reached = plan is None or calls() >= plan.at or (place.command.works and code != 0)
        if code == 0:
            place.check_whole()
        elif code not in _DOCUMENTED or not reached:
            raise Lost(f"it ended with {code}: {said}")
        elif code != SOME_FAILED and [line[:7] for line in said.splitlines() if line[:5] == "error"] != ["error: "]:
            raise Lost(f"it said more or less than one line: {said}")
        place.check_left()
        enlarge()
        code, said = _said(place.command.again)
        if code not in (0, *place.command.complete):
            raise Lost(f"the next run ended with {code}: {said}")
        place.check_whole()
        return reached


def _said(act: Act) -> tuple[int, str]:
    """The exit code of something, and what it said on stderr; raises `Lost` where it raises something."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            code = act()
        except Exception as error:
            raise Lost(f"it raised {type(error).__name__}: {error}") from error
    return code, said.getvalue()


def _pages(folder: Path) -> int:
    """Bytes that a disk in memory needs for what is below a folder, and for the folders."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in (folder, *folder.rglob("*")))


@contextmanager
def _nothing() -> Iterator[Callable[[], int]]:
    yield lambda: 0


def can_mount() -> bool:
    """Whether this process may mount a disk."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    with TemporaryDirectory() as folder:
        mounts = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        return mounts.returncode == 0 and subprocess.run(["umount", folder], check=False).returncode == 0


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Mount a disk of so many bytes on a folder; gives what makes it large."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)

    def enlarge() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)

    try:
        yield enlarge
    finally:
        # Lazily: PyAV does not close a file that it cannot finish, and a busy disk is not given back.
        subprocess.run(["umount", "--lazy", folder], check=True)
