"""What strokes cover: pixels whose centres lie inside, exactly. Coordinates are (x, y) in pixels of the frame.

Pixel (row, column) has its centre at (column + 0.5, row + 0.5). Nothing here knows of objects or of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Inside = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Area:
    """Some pixels of a frame.

    Attributes:
        top, left: of the box that they lie in.
        inside: which pixels of the box, (h, w).
    """

    top: int
    left: int
    inside: Inside

    @classmethod
    def of(cls, inside: Inside) -> Self:
        """From the pixels of a whole frame (H, W): in the smallest box."""
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        if not rows.size:
            return cls(0, 0, inside[:0, :0])
        top, left = int(rows[0]), int(columns[0])
        return cls(top, left, inside[top : rows[-1] + 1, left : columns[-1] + 1].copy())

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns."""
        height, width = self.inside.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def brushed(size: tuple[int, int], points: Sequence[Point], radius: float) -> Area:
    """What a round brush covers on its way.

    Args:
        size: (H, W) of the frame.
        points: of the way, at least one.
        radius: of the brush, in pixels; however thin, it covers the pixels that its way goes through.
    """
    way = np.asarray(points, np.float64).reshape(-1, 2)
    reach = max(radius, 0.5)
    top, left, bottom, right = _clipped(size, way, reach)
    inside = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_)
    for start, end in zip(way, way[1:] if len(way) > 1 else way, strict=False):
        part = np.stack((start, end))
        first, begin, last, end_column = _clipped(size, part, reach)
        if last <= first or end_column <= begin:
            continue
        y, x = np.ogrid[first + 0.5 : last, begin + 0.5 : end_column]
        along = end - start
        length = float(along @ along)
        share = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length, 0, 1) if length else 0.0
        distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
        inside[first - top : last - top, begin - left : end_column - left] |= distance <= reach
    for x_, y_ in np.floor(way).astype(int):  # a thin brush between centres still leaves a trace
        if top <= y_ < bottom and left <= x_ < right:
            inside[y_ - top, x_ - left] = True
    return Area(top, left, inside)


def polygon(size: tuple[int, int], points: Sequence[Point]) -> Area:
    """What lies inside a closed outline; where it crosses itself, by turns in and out (the even-odd rule).

    Args:
        size: (H, W) of the frame.
        points: corners, at least three.
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    top, left, bottom, right = _clipped(size, corners, 0)
    inside = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_)
    following = np.roll(corners, -1, axis=0)
    low, high = np.minimum(corners[:, 1], following[:, 1]), np.maximum(corners[:, 1], following[:, 1])
    centres = np.arange(left, right) + 0.5
    for row in range(top, bottom):
        y = row + 0.5
        crossed = (low <= y) & (high > y)
        (x0, y0), (x1, y1) = corners[crossed].T, following[crossed].T
        at = np.sort(x0 + (y - y0) / (y1 - y0) * (x1 - x0))
        inside[row - top] = np.searchsorted(at, centres, side="left") % 2 == 1
    return Area(top, left, inside)


def filled(same: Inside, start: tuple[int, int]) -> Area:
    """The pixels that hang together with a pixel, by their sides.

    Args:
        same: which pixels may be filled, (H, W).
        start: row and column of the pixel.
    """
    found = np.zeros_like(same)
    row, column = start
    if not (0 <= row < same.shape[0] and 0 <= column < same.shape[1] and same[row, column]):
        return Area.of(found)
    edges = np.diff(np.pad(same, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    runs = [
        list(zip(np.flatnonzero(line == 1).tolist(), np.flatnonzero(line == -1).tolist(), strict=True))
        for line in edges
    ]
    waiting = [(row, run) for run in runs[row] if run[0] <= column < run[1]]
    while waiting:
        row, (first, end) = waiting.pop()
        if found[row, first]:
            continue
        found[row, first:end] = True
        for near in (row - 1, row + 1):
            if 0 <= near < len(runs):
                waiting += [
                    (near, run) for run in runs[near] if run[0] < end and run[1] > first and not found[near, run[0]]
                ]
    return Area.of(found)


def without_holes(inside: Inside) -> Inside:
    """A mask (H, W) and what it encloses."""
    outside = ~np.pad(inside, 1)
    around = filled(outside, (0, 0))
    reached = np.zeros_like(outside)
    reached[around.box] = around.inside
    return ~reached[1:-1, 1:-1]


def grown(inside: Inside, radius: int) -> Inside:
    """A mask (H, W) grown by so many pixels, as by a disc; shrunk where the number is negative."""
    if radius < 0:
        return ~grown(~inside, -radius)
    height, width = inside.shape
    padded = np.pad(inside, radius)
    found = np.zeros_like(inside)
    for dy in range(-radius, radius + 1):
        reach = int(np.sqrt(radius * radius - dy * dy))
        rows = padded[radius + dy : radius + dy + height]
        sums = np.cumsum(np.pad(rows, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
        first, last = radius - reach, radius + reach + 1
        found |= sums[:, last : last + width] > sums[:, first : first + width]
    return found


def smooth(inside: Inside, radius: int) -> Inside:
    """A mask (H, W) with smoother edges: each pixel becomes what most pixels of the square around it are."""
    height, width = inside.shape
    side = 2 * radius + 1
    sums = np.pad(np.pad(inside, radius, mode="edge"), ((1, 0), (1, 0))).cumsum(0, np.int32).cumsum(1, np.int32)
    count = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(count[:height, :width] * 2 > side * side)


def _clipped(size: tuple[int, int], points: npt.NDArray[np.float64], reach: float) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of a box around points, inside the frame."""
    low, high = np.floor(points.min(0) - reach).astype(int), np.ceil(points.max(0) + reach).astype(int) + 1
    return max(low[1], 0), max(low[0], 0), min(high[1], size[0]), min(high[0], size[1])
