"""A session with a small clip, whose engine is the method `copy`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.batch.clips import write_clips
from tests.forks import server
from tests.web.tabs import Tab, chromium, served
from vostrack.cli.edit import command
from vostrack.web.session import Session
from vostrack.web.work import Work


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that import nothing."""
    monkeypatch.setattr(Work, "context", server())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip of twelve frames of 64x48, with a square that moves to the right by a pixel a frame."""
    return write_clips(tmp_path, {"dog": 12}) / "videos/dog.mp4"


@pytest.fixture
def session(clip: Path) -> Iterator[Session]:
    """Its session, new."""
    made = Session.open(clip)
    made.command = command
    yield made
    made.close()


@pytest.fixture
def address(session: Session) -> Iterator[str]:
    """Where the page of the session is served."""
    with served(session) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    """The page of the session, in whose console no error may come."""
    opened = Tab(browser, address)
    yield opened
    assert opened.errors == []
    opened.page.context.close()
