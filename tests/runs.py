"""Runs of `segment` that break off, and what they leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fakes import read_labels
from vostrack.run.callbacks import Callbacks


class Stop(Exception):
    pass


class StopAfter(Callbacks):
    """Raises after so many frames."""

    def __init__(self, count: int) -> None:
        self.count = count

    def progress(self, done: int, total: int | None) -> None:
        if done == self.count:
            raise Stop


def results(folder: Path) -> dict[str, bytes]:
    """All results but the summary, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".vostrack" not in str(path.relative_to(folder))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "summary.json"}


def labels(folder: Path, index: int) -> np.ndarray:
    return read_labels(folder / "masks" / f"{index:05d}.png")


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
