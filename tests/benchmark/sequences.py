"""Small made-up sequences of label maps, in memory and in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vostrack.benchmark.score import OFFICIAL, ObjectScore, Rules, score_masks
from vostrack.run.callbacks import Callbacks

Labels = NDArray[np.uint8]


def clip(seed: int, frames: int = 6, ids: Sequence[int] = (1, 2), size: tuple[int, int] = (24, 31)) -> list[Labels]:
    """Label maps with one moving box an id."""
    random = np.random.default_rng(seed)
    maps = [np.zeros(size, dtype=np.uint8) for _ in range(frames)]
    for number in ids:
        y, x = random.integers(0, size[0] // 2), random.integers(0, size[1] // 2)
        for step, labels in enumerate(maps):
            labels[y + step // 2 : y + 9 + step // 2, x + step : x + 10 + step] = number
    return maps


def save(folder: Path, maps: Sequence[Labels], sequence: str = "dog") -> Path:
    (folder / sequence).mkdir(parents=True, exist_ok=True)
    for number, labels in enumerate(maps):
        Image.fromarray(labels).save(folder / sequence / f"{number:05d}.png")
    return folder


def scored(prediction: Sequence[Labels], truth: Sequence[Labels], rules: Rules = OFFICIAL) -> list[ObjectScore]:
    """Scores of what `save` would write."""
    frames = enumerate(zip(prediction[1:-1], truth[1:-1], strict=True), start=1)
    return score_masks("dog", truth[0], ((f"{number:05d}", *pair) for number, pair in frames), rules)


def binary(maps: Sequence[Labels]) -> list[Labels]:
    return [np.where(labels > 0, np.uint8(255), np.uint8(0)) for labels in maps]


class Log(Callbacks):
    """What was called."""

    def __init__(self, stop: int = -1) -> None:
        self.notes: list[str] = []
        self.seen: list[tuple[int, int | None]] = []
        self._stop = stop

    def progress(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def cancelled(self) -> bool:
        return len(self.seen) == self._stop


def folders(path: Path) -> tuple[Path, Path]:
    for number, name in enumerate(("cat", "dog", "emu")):
        save(path / "results", clip(number, ids=(1, 2)[: number + 1]), name)
        save(path / "truth", clip(number + 9, ids=(1, 2)[: number + 1]), name)
    return path / "results", path / "truth"
