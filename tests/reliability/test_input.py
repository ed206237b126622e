"""The short forms of the programs that give inputs to readers, and of long work."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest

from tests.reliability import fuzz, hostile, soak
from tests.reliability.__main__ import PROGRAMS
from tests.reliability.readers import readers

ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process does is looked up as Linux tells it")


def test_the_page_names_programs_and_tests_that_there_are() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(PROGRAMS)
    named = re.findall(r"`(tests/[\w/]+\.py)`", page)
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


@pytest.mark.slow
@on_linux
def test_hostile_inputs_end_well_or_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile.main([]) == 0, capsys.readouterr().out


starved = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # between `open` and `with`, nobody can close a file


@starved
def test_too_little_memory_is_never_called_damage() -> None:
    assert not [said for reader in readers().values() for said in fuzz.starved(reader, 3)]


@pytest.mark.slow
@on_linux
@starved
def test_readers_raise_only_what_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main([]) == 0, capsys.readouterr().out


@on_linux
@pytest.mark.parametrize("size", [0, 50_000])
def test_memory_that_grows_by_a_little_is_seen(size: int) -> None:
    kept, said = list[bytearray](), list[float]()
    gc.freeze()  # or each collection would look at all that other tests have left
    try:
        for _ in range(40):
            kept.append(bytearray(size))
            said.append(soak.allocated())
    finally:
        gc.unfreeze()
    assert (soak.growth(said) > soak.MOST_MIB) == (size > 0)


@pytest.mark.slow
@on_linux
def test_long_work_holds_no_more_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main([]) == 0, capsys.readouterr().out
