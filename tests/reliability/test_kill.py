from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.forks import fork
from tests.reliability.breaks import Break, inside
from tests.reliability.commands import COMMANDS, QUICK, Command
from tests.reliability.trials import Lost, Place

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NO LINUX, whose processes the program follows")


def chosen(names: tuple[str, ...]) -> list[str]:
    return [text for name in names for text in ("--command", name)]


def test_a_kill_loses_nothing(program: Callable[..., str]) -> None:
    assert " 0 lost" in program("kill", "--runs", str(len(QUICK)), *chosen(QUICK))


@pytest.mark.slow
def test_a_kill_loses_nothing_of_any_command(program: Callable[..., str]) -> None:
    rest = tuple(name for name in COMMANDS if name not in QUICK)
    assert " 0 lost" in program("kill", "--runs", str(len(rest)), *chosen(rest))


def _careless(folder: Path) -> None:
    """A file that is written in its place, and one that nobody clears away."""

    def act() -> int:
        Path("work/result.json").write_text("[1, 2, 3]")
        Path("work/.vostrack-1.part").write_text("[1, 2")
        Path("work/.vostrack-1.part").unlink()
        return 0

    place = Place(Command("careless", act, lambda: 0), folder / "careless", inside)
    for at, is_found in ((1, True), (2, True), (3, False)):
        place.reset()
        assert place.run(act, Break(place.work, at, torn=True)).code == -signal.SIGKILL
        with pytest.raises(Lost) if is_found else nullcontext():
            place.check_left()
    with pytest.raises(Lost, match="are left"):
        place.go_on()


def test_what_a_careless_command_loses_is_found(tmp_path: Path) -> None:
    process = fork(tmp_path / "log", _careless, tmp_path)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log/err").read_text()
