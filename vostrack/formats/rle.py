"""The run lengths of COCO, which YouTube-VIS and SA-V share: column by column, packed as text.

pycocotools packs them; what others packed is read here, since it is trusted in nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vostrack.formats.base import Bools
from vostrack.formats.polygons import outlines, polygon

_CHARACTERS = 7
"""Of five bits each, at most, that a run may have."""


def encoded(mask: Bools) -> dict[str, Any]:
    """A mask (H, W) as `size`, height then width, and `counts`, as text."""
    from pycocotools import mask as coco

    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode("ascii")}


def decoded(counts: object, size: tuple[int, int]) -> Bools:
    """A mask (H, W) from its run lengths, the first of background, as a list or packed.

    Raises:
        ValueError: they are none, or do not fill the mask.
    """
    height, width = size
    return expanded(_lengths(counts), width * height).reshape(width, height).T


def is_empty(counts: object) -> bool:
    """Whether run lengths show nothing; raises `ValueError` where they are none."""
    return not _lengths(counts)[1::2].any()


def _lengths(counts: object) -> npt.NDArray[np.int64]:
    lengths = _unpacked(counts) if isinstance(counts, str) else from_list(counts)
    if len(lengths) and lengths.min() < 0:
        raise ValueError("has run lengths below 0")
    return lengths


def from_list(counts: object) -> npt.NDArray[np.int64]:
    """Run lengths from JSON; raises `ValueError` where they are none."""
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 1 << 31 for count in counts):
        raise ValueError("has run lengths that are not a list of whole numbers from 0")
    return np.array(counts, np.int64)


def expanded(lengths: npt.NDArray[np.int64], total: int) -> Bools:
    """Runs of so many values in all, false and true by turns; raises `ValueError` where there are more or fewer."""
    found = int(lengths.sum()) if len(lengths) and lengths.max() <= total else int(lengths.max(initial=0))
    if found != total or not len(lengths):
        raise ValueError(f"has run lengths of {found} pixels in all, and should have {total}")
    return np.repeat(np.arange(len(lengths)) % 2 > 0, lengths)


def _unpacked(text: str) -> npt.NDArray[np.int64]:
    """Run lengths from text: five bits a character, the lowest first; from the fourth on, less the last but one."""
    codes = np.frombuffer(text.encode(errors="replace"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(~codes & 32)
    if not len(ends) or ((codes < 0) | (codes > 63)).any() or ends[-1] != len(codes) - 1:
        raise ValueError("has packed run lengths that are damaged")
    starts = np.concatenate(([0], ends[:-1] + 1))
    places = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _CHARACTERS:
        raise ValueError("has packed run lengths that are too long")
    values = np.add.reduceat((codes & 31) << 5 * places, starts)
    values -= np.where(codes[ends] & 16, 1 << 5 * (ends - starts + 1), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def exact_polygons(mask: Bools) -> list[list[int]] | None:
    """A mask (H, W) as polygons x, y, x, y, ..., of which readers make the same pixels; else None.

    There is one for each part; or one for all, where there are holes: readers fill polygons one by one.
    """
    from pycocotools import mask as coco

    for loops in (outlines(mask), [polygon(mask)]):
        corners = [loop.ravel().tolist() for loop in loops]
        if np.array_equal(coco.decode(coco.merge(coco.frPyObjects(corners, *mask.shape))), mask):
            return corners
    return None
