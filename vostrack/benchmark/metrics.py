"""Scores of one mask against another, as the official DAVIS evaluation defines them: J, F and their statistics.

Pure functions of numpy arrays; nothing here knows of files, sequences or object ids beyond the rule for 0/255 masks.
A mask is a two-dimensional array in which every value but 0 belongs to the object.

Contours are matched on the bits of one Python integer: row after row, each with as many zero bits at its end as the
disk is wide, so that one shift moves the whole image and nothing moves from one row into the pixels of another.

Paper: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", 2016; where the
paper leaves a choice, davis2017-evaluation (ac7c43f) has made it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[Any]

VOID = 255


def region(prediction: Mask, truth: Mask) -> float:
    """Region similarity J = |P ∩ T| / |P ∪ T|; 1 where both are empty.

    Args:
        prediction: (H, W) mask.
        truth: (H, W) mask.

    Raises:
        ValueError: the masks differ in size.
    """
    found, wanted = _pair(prediction, truth)
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 1.0


def contour(prediction: Mask, truth: Mask, tolerance: float = 0.008) -> float:
    """Contour accuracy F = 2 P R / (P + R).

    P is the share of the prediction's boundary pixels that have a boundary pixel of the truth within the tolerance, R
    the share of the truth's that have one of the prediction. F is 1 where neither mask has a boundary, 0 where only one
    has.

    Args:
        prediction: (H, W) mask.
        truth: (H, W) mask.
        tolerance: greatest distance; below 1 a share of the image diagonal, rounded up to whole pixels, else in pixels.

    Raises:
        ValueError: the masks differ in size, or the tolerance is negative.
    """
    found, wanted = _pair(prediction, truth)
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    height, width = found.shape
    diagonal = math.sqrt(height**2 + width**2)
    distance = min(tolerance, math.ceil(diagonal)) if tolerance >= 1 else math.ceil(tolerance * diagonal)
    window = _window(found | wanted)
    margin = math.floor(distance)
    ours, stride = _pack(boundary(found[window]), margin)
    theirs, _ = _pack(boundary(wanted[window]), margin)
    if not ours or not theirs:
        return float(ours == theirs)
    precision = (ours & _dilate(theirs, distance, stride)).bit_count() / ours.bit_count()
    recall = (theirs & _dilate(ours, distance, stride)).bit_count() / theirs.bit_count()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> NDArray[np.bool_]:
    """Pixels that differ from their neighbour to the right, below, or right below.

    The map therefore lies half a pixel towards the origin. Neighbours outside the image count as equal to the pixel at
    the edge, so that an object has no boundary along the image's edge.

    Args:
        mask: (H, W).

    Returns:
        (H, W) bool.
    """
    inside = np.asarray(mask, dtype=np.bool_)
    edges = np.zeros(inside.shape, dtype=np.bool_)
    np.not_equal(inside[:, 1:], inside[:, :-1], out=edges[:, :-1])
    edges[:-1] |= inside[1:] != inside[:-1]
    edges[:-1, :-1] |= inside[1:, 1:] != inside[:-1, :-1]
    return edges


def statistics(values: Sequence[float] | NDArray[np.float64], official_decay: bool = False) -> dict[str, float]:
    """Mean, recall and decay of the scores of one object over the scored frames of a sequence, by these names.

    Recall is the share of frames above 0.5, decay the mean of the first quarter of the frames less that of the last.
    The quarters of the decay share the frames at which they meet, as in the official code.

    Args:
        values: one score a frame, in order.
        official_decay: keep the official code's overflow: it holds the frames that part the quarters in 8 bits, so that
            above 256 frames they wrap around and the decay means nothing (often it is not a number).

    Raises:
        ValueError: there are no values.
    """
    scores = np.asarray(values, dtype=np.float64)
    count = scores.size
    if not count:
        raise ValueError("statistics of no frames")
    # The small term makes a half go up where numpy would round it to the even neighbour.
    marks = [int(mark) for mark in np.round(np.linspace(1, count, 5) + 1e-10) - 1]
    if official_decay:
        marks = [mark % 256 for mark in marks]
    first, last = scores[marks[0] : marks[1] + 1], scores[marks[3] : marks[4] + 1]
    decay = float(first.mean() - last.mean()) if first.size and last.size else math.nan
    return {"mean": float(scores.mean()), "recall": float((scores > 0.5).mean()), "decay": decay}


def jumpcut_error(prediction: Mask, truth: Mask) -> tuple[float, float]:
    """JumpCut's error rate of one frame in percent: 100 |P ≠ T| / |T|, and 100 |P ≠ T| / |P|; either can exceed 100.

    VideoMatch's text divides by the object's pixels in the prediction, which rewards masks that are too large; the
    JumpCut benchmark divides by those of the truth.

    Args:
        prediction: (H, W) mask; the protocol takes that of frame i + d, given the truth at i = 0, 16, ..., 96; d = 16.
        truth: (H, W) mask.

    Returns:
        Relative to the truth, and to the prediction: infinite where that is empty.

    Raises:
        ValueError: the masks differ in size, or the truth is empty.

    Paper: Hu et al., "VideoMatch", 2018, section 4.2, after Fan et al., "JumpCut", 2015.
    """
    found, wanted = _pair(prediction, truth)
    size = np.count_nonzero(wanted)
    if not size:
        raise ValueError("no object in the truth, so that it has no error rate")
    wrong, predicted = np.count_nonzero(found != wanted), np.count_nonzero(found)
    return 100 * (wrong / size), 100 * (wrong / predicted) if predicted else math.inf


def is_binary(labels: Mask) -> bool:
    """Whether 255 stands for the object in a label map, as in DAVIS-2016: there are values 255, and else only 0."""
    void = labels == VOID
    return bool(void.any() and not labels[~void].any())


def object_labels(labels: Mask, binary: bool) -> NDArray[np.uint8]:
    """Label map in which every value but 0 is an object.

    Args:
        labels: uint8 (H, W).
        binary: 255 stands for object 1. Else it is void, which the official code scores as background.
    """
    return np.where(labels == VOID, np.uint8(binary), labels)


def _pair(prediction: Mask, truth: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if prediction.shape != truth.shape or prediction.ndim != 2:
        raise ValueError(f"expected two (H, W) masks of one size, got {prediction.shape} and {truth.shape}")
    return np.asarray(prediction, dtype=np.bool_), np.asarray(truth, dtype=np.bool_)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of an image outside of which `boundary` is empty; where it ends, the mask or the image does."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _pack(bits: NDArray[np.bool_], margin: int) -> tuple[int, int]:
    """An image as one integer, pixel (y, x) at bit y * stride + x, with `margin` zero bits or more after each row."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    rows = np.zeros((bits.shape[0], (bits.shape[1] + margin + 7) // 8), dtype=np.uint8)
    rows[:, : packed.shape[1]] = packed
    return int.from_bytes(rows.tobytes(), "little"), 8 * rows.shape[1]


def _spread(bits: int, distance: int, step: int) -> int:
    """Set all bits up to `distance` steps from one that is set.

    Reaching at most twice as far each time, no bit needs a path over the image's first row, where shifts lose it.
    """
    reach = 0
    while reach < distance:
        shift = min(reach + 1, distance - reach)
        bits |= bits << shift * step | bits >> shift * step
        reach += shift
    return bits


def _dilate(bits: int, radius: float, stride: int) -> int:
    """Dilate a packed image by the disk dx² + dy² <= radius².

    The disk is built from its left and right ends to its middle: `disk` holds what has been seen so far, still to be
    widened by `width`; `column` is the image spread over as many rows as the disk has at that width.
    """
    disk, column, height = bits, bits, 0
    width = math.floor(radius)
    for offset in range(width, -1, -1):
        taller = math.isqrt(math.floor(radius**2) - offset**2)
        if taller > height:
            column = _spread(column, taller - height, stride)
            disk = _spread(disk, width - offset, 1) | column
            width, height = offset, taller
    return _spread(disk, width, 1)
