from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vostrack.web.shapes import Area, Inside, Point, brushed, filled, grown, polygon, smooth, without_holes

SIZE = (13, 17)
POINTS = st.tuples(st.floats(-6, 24, width=32), st.floats(-6, 20, width=32))
MASKS = arrays(np.bool_, SIZE)


def whole(area: Area) -> Inside:
    found = np.zeros(SIZE, np.bool_)
    found[area.box] = area.inside
    return found


def distance(x: float, y: float, start: Point, end: Point) -> float:
    """From a point to a line between two others, by trying many of its points."""
    share = np.linspace(0, 1, 2001)
    return float(np.hypot(start[0] + share * (end[0] - start[0]) - x, start[1] + share * (end[1] - start[1]) - y).min())


@given(st.lists(POINTS, min_size=1, max_size=4), st.floats(0.5, 6, width=32))
def test_a_brush_covers_what_is_near_its_way(points: Sequence[Point], radius: float) -> None:
    found = whole(brushed(SIZE, points, radius))
    pairs = list(zip(points, points[1:] or points, strict=False))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            nearest = min(distance(column + 0.5, row + 0.5, *pair) for pair in pairs)
            if abs(nearest - radius) > 0.02:
                on_way = any((int(np.floor(x)), int(np.floor(y))) == (column, row) for x, y in points)
                assert found[row, column] == (nearest < radius or on_way)


def winding(x: float, y: float, corners: Sequence[Point]) -> bool:
    """Whether a ray to the right crosses the outline an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            crossings += 1
    return crossings % 2 == 1


CORNERS = st.tuples(st.integers(-24, 96), st.integers(-24, 80)).map(lambda p: (p[0] / 4 + 0.13, p[1] / 4 + 0.07))


@given(st.lists(CORNERS, min_size=3, max_size=7))
def test_a_polygon_covers_centres_inside_of_it(corners: Sequence[Point]) -> None:
    found = whole(polygon(SIZE, corners))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            near = {winding(column + 0.5 + shift, row + 0.5, corners) for shift in (-1e-6, 1e-6)}
            if len(near) == 1:  # not on the outline itself
                assert {bool(found[row, column])} == near


def test_a_rectangle_has_its_size() -> None:
    assert whole(polygon(SIZE, [(2, 3), (7, 3), (7, 9), (2, 9)])).sum() == 30


@given(MASKS, st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1)))
def test_filling_reaches_what_hangs_together(same: Inside, start: tuple[int, int]) -> None:
    found, waiting = set(), [start] if same[start] else []
    while waiting:
        row, column = waiting.pop()
        if (row, column) in found:
            continue
        found.add((row, column))
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < SIZE[0] and 0 <= c < SIZE[1] and same[r, c]:
                waiting.append((r, c))
    assert {*zip(*np.nonzero(whole(filled(same, start))), strict=True)} == found


def test_holes_are_closed_and_bays_are_not() -> None:
    ring = np.zeros(SIZE, np.bool_)
    ring[2:9, 2:9] = True
    ring[4:6, 4:6] = False
    ring[7:9, 5] = False  # a bay
    closed = ring.copy()
    closed[4:6, 4:6] = True
    np.testing.assert_array_equal(without_holes(ring), closed)


@given(MASKS, st.integers(0, 4))
def test_growing_is_by_a_disc_and_shrinking_is_its_opposite(inside: Inside, radius: int) -> None:
    rows, columns = np.nonzero(inside)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            near = bool(((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).any())
            assert grown(inside, radius)[row, column] == near
    np.testing.assert_array_equal(grown(inside, -radius), ~grown(~inside, radius))


@given(MASKS, st.integers(0, 3))
def test_smoothing_asks_the_square_around(inside: Inside, radius: int) -> None:
    padded = np.pad(inside, radius, mode="edge")
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            square = padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1]
            assert smooth(inside, radius)[row, column] == (square.mean() > 0.5)


@pytest.mark.parametrize("points", [[(-50, -50)], [(100, 5), (120, 8)]])
def test_a_way_outside_the_frame_covers_nothing(points: Sequence[Point]) -> None:
    assert not whole(brushed(SIZE, points, 3)).any()
