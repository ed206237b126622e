"""The short forms of the programs that give inputs to readers, and of long work."""

from __future__ import annotations

import sys

import pytest

from tests.reliability import fuzz, hostile, soak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process does is looked up as Linux tells it"),
]


def test_hostile_inputs_end_well_or_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile.main([]) == 0, capsys.readouterr().out


def test_readers_raise_only_what_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main([]) == 0, capsys.readouterr().out


def test_long_work_holds_no_more_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main([]) == 0, capsys.readouterr().out
