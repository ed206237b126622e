"""Metrics against naive twins of the official formulas, and what follows from their definitions."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vostrack.benchmark.metrics import (
    boundary,
    contour,
    is_binary,
    jumpcut_error,
    object_labels,
    region,
    statistics,
)

Mask = NDArray[np.bool_]


def naive_boundary(mask: Mask) -> Mask:
    """The official code's, pixel by pixel."""
    height, width = mask.shape

    def at(y: int, x: int) -> bool:
        return bool(mask[y, x]) if y < height and x < width else False

    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            here, east, south, corner = at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)
            result[y, x] = here != east or here != south or here != corner
            if y == height - 1:
                result[y, x] = here != east
            if x == width - 1:
                result[y, x] = here != south
    result[-1, -1] = False
    return result


def naive_contour(prediction: Mask, truth: Mask, tolerance: float = 0.008) -> float:
    """The official code's: two boundaries, matched by the distance of every pair of pixels."""
    reach = tolerance if tolerance >= 1 else np.ceil(tolerance * np.linalg.norm(prediction.shape))
    ours, theirs = (np.argwhere(naive_boundary(mask)) for mask in (prediction, truth))
    if not len(ours) and not len(theirs):
        return 1.0
    if not len(ours) or not len(theirs):
        return 0.0
    near = ((ours[:, None] - theirs[None]) ** 2).sum(axis=2) <= reach**2
    precision, recall = near.any(axis=1).sum() / len(ours), near.any(axis=0).sum() / len(theirs)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def official_statistics(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The official code's arithmetic with its 8-bit indices (numpy 1: an index plus one does not wrap)."""
    places = np.round(np.linspace(1, len(values), 5) + 1e-10) - 1
    ids = [int(i) for i in places.astype(np.int64).astype(np.uint8)]
    first, *_, last = [values[ids[i] : ids[i + 1] + 1] for i in range(4)]
    decay = np.nanmean(first) - np.nanmean(last) if len(last) else math.nan
    return float(np.nanmean(values)), float(np.nanmean(values > 0.5)), float(decay)


def blob(shape: tuple[int, int], seed: int) -> Mask:
    """Two overlapping ellipses that may reach over the image's edges."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for _ in range(2):
        cy, cx = random.uniform(0, shape[0]), random.uniform(0, shape[1])
        ry, rx = random.uniform(0.1, 0.5, 2) * shape
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return mask


sizes = st.tuples(st.integers(1, 40), st.integers(1, 70))
masks = sizes.flatmap(lambda size: arrays(np.bool_, size))
pairs = sizes.flatmap(lambda size: st.tuples(arrays(np.bool_, size), arrays(np.bool_, size)))


@given(pairs)
def test_region_is_the_share_of_common_pixels(pair: tuple[Mask, Mask]) -> None:
    both = sum(bool(p and t) for p, t in zip(pair[0].flat, pair[1].flat, strict=True))
    either = sum(bool(p or t) for p, t in zip(pair[0].flat, pair[1].flat, strict=True))
    assert region(*pair) == (both / either if either else 1)


@given(masks)
def test_boundary_is_the_official_one(mask: Mask) -> None:
    np.testing.assert_array_equal(boundary(mask), naive_boundary(mask))


def dots(size: tuple[int, int]) -> st.SearchStrategy[Mask]:
    """Masks with a few single pixels."""
    points = st.lists(st.tuples(*[st.integers(0, length - 1) for length in size]), max_size=4)
    grid = np.arange(math.prod(size)).reshape(size)
    return points.map(lambda chosen: np.isin(grid, [y * size[1] + x for y, x in chosen]))


# Dots test each pixel's reach; blobs test the windows.
@settings(max_examples=150)
@given(
    sizes.flatmap(lambda size: st.tuples(dots(size), dots(size))),
    st.sampled_from([0.0, 0.008, 0.03, 0.2, 1, 1.5, 2, 3, 5, 8, 13.7, 200]),
)
def test_contour_is_the_official_one_for_dots(pair: tuple[Mask, Mask], tolerance: float) -> None:
    assert contour(*pair, tolerance) == pytest.approx(naive_contour(*pair, tolerance), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(48, 86), (97, 64), (130, 1), (1, 130), (120, 214)])
def test_contour_is_the_official_one_for_blobs(shape: tuple[int, int], seed: int) -> None:
    pair = blob(shape, seed), blob(shape, seed // 2)
    for tolerance in (0.008, 0.03, 8):
        assert contour(*pair, tolerance) == pytest.approx(naive_contour(*pair, tolerance), abs=1e-12)


@pytest.mark.parametrize("radius", [*range(1, 20), 37, 73, 2.5])
def test_contour_tolerance_is_a_disk(radius: float) -> None:
    size = 2 * math.ceil(radius) + 5
    for corner in ((0, 0), (size - 3, size - 3), (0, size - 3), (size - 3, 0)):
        point = np.zeros((size, size), dtype=bool)
        point[corner] = True
        full = np.zeros_like(point)
        full[:: size - 1, ::2] = full[1::5, 1::4] = True
        assert contour(point, full, radius) == pytest.approx(naive_contour(point, full, radius), abs=1e-12)


def test_default_tolerance_is_eight_pixels_at_480p() -> None:
    left, near, far = (np.zeros((480, 854), dtype=bool) for _ in range(3))
    left[:, :100] = near[:, :108] = far[:, :109] = True
    assert contour(left, near) == 1
    assert contour(left, far) == 0


@given(pairs, st.sampled_from([0.008, 1, 4]))
def test_scores_are_symmetric_and_between_zero_and_one(pair: tuple[Mask, Mask], tolerance: float) -> None:
    assert 0 <= region(*pair) <= 1
    assert 0 <= contour(*pair, tolerance) <= 1
    assert region(*pair) == region(*pair[::-1])
    assert contour(*pair, tolerance) == pytest.approx(contour(*pair[::-1], tolerance), abs=1e-12)


@given(masks)
def test_a_mask_equals_itself(mask: Mask) -> None:
    assert region(mask, mask) == contour(mask, mask) == 1
    assert jumpcut_error(mask, mask | ~mask)[0] == pytest.approx(100 * (1 - mask.mean()))


@given(pairs)
def test_contour_grows_with_the_tolerance(pair: tuple[Mask, Mask]) -> None:
    scores = [contour(*pair, tolerance) for tolerance in (0, 1, 2, 4, 8, 16)]
    assert scores == sorted(scores)


def test_empty_and_full_masks() -> None:
    empty, full = np.zeros((9, 7), dtype=bool), np.ones((9, 7), dtype=bool)
    half = full.copy()
    half[:4] = False
    assert region(empty, empty) == contour(empty, empty) == contour(full, full) == 1
    assert region(empty, full) == 0
    assert contour(empty, full) == 1, "neither has a boundary"
    assert contour(half, full) == contour(half, empty) == contour(empty, half) == 0
    assert contour(np.zeros((0, 0), dtype=bool), np.zeros((0, 0), dtype=bool)) == 1


def test_any_value_but_zero_is_the_object() -> None:
    labels = np.array([[0, 1, 255], [0, 7, 0]], dtype=np.uint8)
    assert region(labels, labels > 0) == contour(labels, labels > 0) == 1


def test_the_arguments_are_not_changed() -> None:
    pair = blob((30, 40), 1), blob((30, 40), 2)
    for mask in pair:
        mask.flags.writeable = False
    # A write would raise.
    assert 0 <= region(*pair) <= 1
    assert 0 <= contour(*pair) <= 1
    assert boundary(pair[0]).any()


@pytest.mark.parametrize("score", [region, contour])
def test_masks_of_two_sizes_are_refused(score: object) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        score(np.zeros((2, 3)), np.zeros((3, 2)))  # type: ignore[operator]


@pytest.mark.parametrize("tolerance", [1e12, math.inf])
def test_any_tolerance_is_bounded_by_the_image(tolerance: float) -> None:
    corner, other = np.zeros((9, 13), dtype=bool), np.zeros((9, 13), dtype=bool)
    corner[0, 0] = other[8, 12] = True
    assert contour(corner, other, tolerance) == 1


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        contour(np.zeros((2, 3)), np.zeros((2, 3)), -1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 58, 98, 255, 256])
@pytest.mark.parametrize("official_decay", [False, True])
def test_statistics_are_the_official_ones_up_to_256_frames(count: int, official_decay: bool) -> None:
    values = np.random.default_rng(count).random(count)
    stats = statistics(values, official_decay)
    assert tuple(stats.values()) == pytest.approx(official_statistics(values), abs=1e-12)


@pytest.mark.parametrize("count", [257, 258, 260, 520, 1000, 1030])
def test_official_decay_wraps_around_above_256_frames(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    decay = statistics(values, official_decay=True)["decay"]
    assert decay == pytest.approx(official_statistics(values)[2], abs=1e-12, nan_ok=True)
    assert decay != statistics(values)["decay"]


@pytest.mark.parametrize("count", [300, 257, 4001])
def test_decay_is_right_for_long_sequences(count: int) -> None:
    values = np.linspace(1, 0, count)
    assert statistics(values)["decay"] == pytest.approx(0.75, abs=2 / count)


def test_decay_of_worked_examples() -> None:
    assert statistics([0.3])["decay"] == 0
    assert statistics([0.75, 0.25])["decay"] == 0.5
    assert statistics([1, 0.5, 0.25])["decay"] == 0.5  # (1 + 0.5) / 2 - 0.25
    assert statistics([1, 0.5, 0.25, 0.125])["decay"] == 0.75 - 0.1875  # ids 0, 1, 2, 2, 3


def test_recall_leaves_out_one_half() -> None:
    assert statistics([0.5, 0.5000001, 0.4, 1])["recall"] == 0.5


def test_statistics_of_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="no frames"):
        statistics([])


def test_jumpcut_error_of_a_worked_example() -> None:
    truth = np.zeros((4, 5), dtype=bool)
    truth[:2, :2] = True
    missed, doubled = np.zeros_like(truth), np.zeros_like(truth)
    doubled[:2, :4] = doubled[2:, 0] = True
    # Six pixels of ten are wrong; by the text of VideoMatch relative to the ten, by JumpCut to the four true ones.
    assert [jumpcut_error(mask, truth) for mask in (missed, doubled, truth)] == [(100, np.inf), (150, 60), (0, 0)]


def test_jumpcut_error_needs_an_object() -> None:
    some, empty = np.ones((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)
    with pytest.raises(ValueError, match="no object in the truth"):
        jumpcut_error(some, empty)


@pytest.mark.parametrize(
    ("values", "binary"), [((0, 255), True), ((255,), True), ((0,), False), ((0, 1), False), ((0, 1, 255), False)]
)
def test_binary_label_maps_hold_nothing_but_0_and_255(values: tuple[int, ...], binary: bool) -> None:
    assert is_binary(np.array([values], dtype=np.uint8)) is binary


def test_255_is_the_object_or_void() -> None:
    labels = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    assert object_labels(labels, binary=False).tolist() == [[0, 1, 2, 0]]
    assert object_labels(np.array([[0, 255]], dtype=np.uint8), binary=True).tolist() == [[0, 1]]
    assert labels.tolist() == [[0, 1, 2, 255]]
    assert object_labels(labels, binary=False).dtype == np.uint8


def test_metrics_need_no_torch() -> None:
    code = "import sys, vostrack.benchmark.metrics, vostrack.benchmark.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
