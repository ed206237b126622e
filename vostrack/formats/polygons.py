"""A mask as one polygon, along the edges of its pixels: parts and holes are joined by bridges of no width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vostrack.formats.base import Bools

Points = npt.NDArray[np.int64]


def polygon(mask: Bools) -> Points:
    """The polygon of a mask that is not empty.

    Args:
        mask: bool (H, W).

    Returns:
        (N, 2), x then y, corners of pixels from 0 to W and H; the last is joined to the first. What is inside by the
        even-odd rule are the pixels of the mask: a bridge is walked twice and counts for nothing.
    """
    first, *others = outlines(mask)
    joined = first
    for loop in others:
        nearest = int(np.abs(joined - loop[0]).sum(1).argmin())
        bridged = np.concatenate((loop, loop[:1], joined[nearest : nearest + 1]))
        joined = np.insert(joined, nearest + 1, bridged, axis=0)
    return joined


def outlines(mask: Bools) -> list[Points]:
    """Closed outlines of the parts of a mask and of its holes, each (N, 2) corners of pixels, x then y.

    Along a line between two rows the corners lie in pairs, the ends of pieces of an outline, and so they do between two
    columns: an outline goes from partner to partner, by turns. Where only two pixels that face each other by a corner
    are in the mask, or only two that do not, two outlines touch, and the corner counts twice.
    """
    padded = np.pad(mask, 1)
    top_left, top_right, left, right = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = top_left ^ top_right ^ left ^ right
    touching = (top_left == right) & (top_right == left) & (top_left != top_right)
    y, x = np.nonzero(odd | touching)
    times = np.where(touching[y, x], 2, 1)
    y, x = np.repeat(y, times), np.repeat(x, times)
    along_rows, along_columns = _partners(np.arange(len(x))), _partners(np.lexsort((y, x)))
    seen, found = np.zeros(len(x), np.bool_), list[Points]()
    for start in range(len(x)):
        if seen[start]:
            continue
        corner, loop = start, list[int]()
        while not seen[corner]:
            other = along_rows[corner]
            seen[corner] = seen[other] = True
            loop += [corner, other]
            corner = along_columns[other]
        found.append(np.stack((x[loop], y[loop]), 1))
    return found


def _partners(order: npt.NDArray[np.int64]) -> list[int]:
    """Of each corner the one that it is paired with, where each two that follow one another in an order are a pair."""
    partners = np.empty_like(order)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    return [int(partner) for partner in partners]
