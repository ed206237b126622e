"""A mask as one polygon, along the edges of its pixels: parts and holes are joined by bridges of no width; and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vostrack.formats.base import Bools

Points = npt.NDArray[np.int64]
Corners = npt.NDArray[np.float64]

_MOST_CROSSINGS = 1 << 23
"""Edges that may cross rows of pixels, all counted: what a program draws has some thousands."""

_FARTHEST = 1e6
"""Pixels from the image that corners may lie."""


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


def filled(corners: Corners, size: tuple[int, int]) -> Bools:
    """The pixels of a polygon: those whose centres are inside by the even-odd rule.

    Args:
        corners: (N, 2), x then y, in pixels; the last is joined to the first.
        size: (H, W).

    Raises:
        ValueError: it is none, or too complicated.
    """
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError("has a polygon of fewer than three corners")
    if not np.abs(corners).max() <= _FARTHEST:  # also where it is no number
        raise ValueError("has a corner far outside of its image")
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first, last = (np.clip(np.ceil(y - 0.5), 0, size[0]).astype(int) for y in (np.minimum(y0, y1), np.maximum(y0, y1)))
    counts = last - first
    total = int(counts.sum())
    if total > _MOST_CROSSINGS:
        raise ValueError("has a polygon that is too complicated")
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, size[1]).astype(int)
    crossings = np.zeros((size[0], size[1] + 1), np.uint8)
    np.add.at(crossings, (row, column), 1)  # beyond 255 it starts again, and stays even or odd
    return np.add.accumulate(crossings, axis=1, dtype=np.uint8)[:, :-1] & 1 > 0


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> Corners:
    """An ellipse around a point, with its radii, as a polygon."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    return turned(np.stack((x + across * np.cos(angles), y + down * np.sin(angles)), 1), (x, y), degrees)


def rectangle(left: float, top: float, right: float, bottom: float) -> Corners:
    """A rectangle as a polygon."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def turned(corners: Corners, around: tuple[float, float], degrees: float) -> Corners:
    """A polygon turned clockwise around a point."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    moved: Corners = (corners - around) @ np.array([[cosine, sine], [-sine, cosine]]) + around
    return moved
