"""The fake method and its weights, for the tests of the runner, its report and its command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fakes
from vostrack.benchmark.sequence_run import loaded
from vostrack.methods import METHODS


@pytest.fixture
def fake_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the fake method's weights; the method is registered."""
    monkeypatch.setitem(METHODS, fakes.NAME, fakes.PATH)
    path = fakes.write_weights(tmp_path_factory.mktemp("weights"))
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(path.parent))
    yield path
    loaded.cache_clear()
