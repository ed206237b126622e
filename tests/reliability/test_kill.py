from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.reliability.commands import COMMANDS, QUICK

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NO LINUX, whose processes the program follows")


def chosen(names: tuple[str, ...]) -> list[str]:
    return [text for name in names for text in ("--command", name)]


def test_a_kill_loses_nothing(program: Callable[..., str]) -> None:
    assert " 0 lost" in program("kill", "--runs", str(len(QUICK)), *chosen(QUICK))


@pytest.mark.slow
def test_a_kill_loses_nothing_of_any_command(program: Callable[..., str]) -> None:
    rest = tuple(name for name in COMMANDS if name not in QUICK)
    assert " 0 lost" in program("kill", "--runs", str(len(rest)), *chosen(rest))
