"""Fixtures for the tests of training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.train.samples import write_footage
from vostrack.train.data.cache import FrameCache, build_cache
from vostrack.train.data.footage import find_footage


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and it takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    return write_footage(tmp_path / "footage")


@pytest.fixture
def cache(footage: Path, tmp_path: Path) -> FrameCache:
    return build_cache(find_footage([footage]), tmp_path / "cache")
