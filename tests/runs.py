"""Runs of `segment` that break off, and what they leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import av
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
    """All results but the summary, which holds times; of an overlay, when its frames are shown and their sizes.

    Its encoder, x264, gives other bytes for the same pictures now and then, in a process that has done much else.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and ".vostrack" not in str(path.relative_to(folder))]
    files = [path for path in files if path.name != "summary.json"]
    return {str(path.relative_to(folder)): _told(path) for path in files}


def _told(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name != "overlay.mp4" or data[4:8] != b"ftyp":
        return data
    with av.open(str(path)) as container:
        return repr([(frame.pts, frame.width, frame.height) for frame in container.decode(video=0)]).encode()


def labels(folder: Path, index: int) -> np.ndarray:
    return read_labels(folder / "masks" / f"{index:05d}.png")


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
