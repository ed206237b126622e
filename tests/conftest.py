"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Test machines are shared: how long one example takes says nothing about the code.
settings.register_profile("vostrack", deadline=None)
settings.load_profile("vostrack")


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The development clips: $VOSTRACK_DATA, else ../shared/data beside the repository; skips where there are none."""
    given = os.environ.get("VOSTRACK_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"NO DEVELOPMENT DATA in {folder}: set VOSTRACK_DATA to its folder to run this test")
    return folder
