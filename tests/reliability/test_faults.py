from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.reliability.commands import QUICK
from tests.reliability.faults import can_mount

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NO LINUX, whose open files the program looks at")


@pytest.mark.parametrize("name", QUICK)
def test_calls_that_fail_lose_nothing(name: str, program: Callable[..., str]) -> None:
    assert " 0 lost" in program("faults", "--random", "3", "--command", name)


def test_too_little_memory_loses_nothing(program: Callable[..., str]) -> None:
    assert " 0 lost" in program("faults", "--memory", "3", "--command", "segment-both", "--command", "draw")


def test_disks_that_are_too_small_lose_nothing(program: Callable[..., str]) -> None:
    if not can_mount():
        pytest.skip("NO DISK CAN BE MOUNTED here")
    assert " 0 lost" in program("faults", "--disks", "--command", "segment-export")


def test_calls_of_native_code_that_fail_lose_nothing(program: Callable[..., str]) -> None:
    said = program("faults", "--outside", "--random", "4", "--command", "export-prores4444", "--command", "export-exr")
    if "NOTHING WAS DONE" in said:
        pytest.skip(said)
    assert " 0 lost" in said
