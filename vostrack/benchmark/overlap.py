"""Which objects of a result and of the ground truth lie on one another, whatever their ids are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vostrack.notes import Code, Note

_IDS = 256
_MUCH = 0.3
"""So much more overlap, in IoU, with objects of other ids than with those of their own is no chance."""


class Overlap:
    """Counts the pixels that objects share over the scored frames of a sequence."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._pixels = np.zeros((_IDS, _IDS), np.int64)

    def add(self, result: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Count a frame: two label maps, uint8 (H, W)."""
        pairs = np.bincount(result.ravel().astype(np.intp) * _IDS + truth.ravel(), minlength=_IDS**2)
        self._pixels += pairs.reshape(_IDS, _IDS)

    def notes(self, sequence: str, objects: Collection[int], known: Collection[int]) -> Iterator[Note]:
        """Warnings: an object that one side lacks, and ids that seem exchanged.

        Args:
            sequence: its name.
            objects: ids that are scored.
            known: ids that the truth has, also in frames that are not scored.
        """
        found, true = (sorted({*objects} & self._present(axis)) for axis in (1, 0))
        for side, ids in (("result", {*true} - {*found}), ("ground truth", {*found} - {*known})):
            if ids:
                names = ", ".join(map(str, sorted(ids)))
                yield Note(Code.OBJECTS_DIFFER, f"{sequence}: the {side} never shows object {names}")
        shared, others = self._iou(), {k: v for k, v in self.pairs().items() if k != v and v in true}
        best, equal = (
            sum(shared[ids] for ids in pairs) / max(len(others), 1)
            for pairs in (others.items(), ((number, number) for number in others.values()))
        )
        if best > equal + _MUCH:
            text = f"objects have other ids in the ground truth ({said(others)}): IoU {best:.2f} so, {equal:.2f} by id"
            yield Note(Code.OBJECTS_EXCHANGED, f"{sequence}: {text}")

    def pairs(self) -> dict[int, int]:
        """By id in the result, the object of the truth that it lies on: the best pairs first, each object once."""
        shared = self._iou()
        pairs: dict[int, int] = {}
        for place in np.argsort(-shared, axis=None, kind="stable"):
            number, other = divmod(int(place), _IDS)
            if not shared[number, other]:
                break
            if number not in pairs and other not in pairs.values():
                pairs[number] = other
        return dict(sorted(pairs.items()))

    def _present(self, axis: int) -> set[int]:
        """Ids that are there, of the result (1) or of the truth (0)."""
        return set(np.flatnonzero(self._pixels.sum(axis)).tolist()) - {0}

    def _iou(self) -> NDArray[np.float64]:
        """Intersection over union of each object of the result with each of the truth."""
        union = self._pixels.sum(1, keepdims=True) + self._pixels.sum(0, keepdims=True) - self._pixels
        iou: NDArray[np.float64] = self._pixels / np.maximum(union, 1)
        iou[0], iou[:, 0] = 0, 0
        return iou


def said(pairs: Mapping[int, int]) -> str:
    """Which objects of a result have another id in the truth: "1 is 2, 2 is 1"."""
    return ", ".join(f"{number} is {other}" for number, other in pairs.items() if number != other)
