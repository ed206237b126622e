"""Draws objects over a frame, for people to look at: a tint in each object's colour and a bright line around it.

One pure function of an image and a label map; knows nothing of files or codecs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vostrack.types import BACKGROUND, VOID
from vostrack.video.palette import PALETTE

Pixels = npt.NDArray[np.uint8]

# The palette's first colours have a largest channel of 128; at full brightness the line stands out from tint and scene.
_LINE = (PALETTE * (255.0 / np.maximum(PALETTE.max(axis=1, keepdims=True), 1))).astype(np.uint8)


def draw_overlay(image: Pixels | Tensor, labels: Pixels, alpha: float = 0.5) -> Pixels:
    """Draw the objects of a label map over an image.

    Args:
        image: uint8 RGB, an array (H, W, 3) or a tensor (3, H, W).
        labels: uint8 (H, W) object ids; background and void are not drawn.
        alpha: strength of the tint, 0 to 1.

    Returns:
        A new image, uint8 (H, W, 3).
    """
    # A colour plane at a time: numpy is twice as fast where pixels of one kind lie side by side.
    planes: Pixels = np.array(image.numpy() if isinstance(image, Tensor) else image.transpose(2, 0, 1), order="C")
    objects = np.where(labels == VOID, np.uint8(BACKGROUND), labels)
    box = _bounds(objects)
    if box is not None:
        # Only the box around the objects is touched: in most clips it is a small part of the frame.
        part, inside = planes[:, box[0], box[1]], objects[box]
        _blend(part, inside, alpha)
        y, x = _contour(inside, width=max(1, round(min(labels.shape) / 540))).nonzero()
        part[:, y, x] = _LINE[inside[y, x]].T
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _bounds(objects: Pixels) -> tuple[slice, slice] | None:
    """A box that holds all objects and a pixel around them, or None where there are none."""
    rows, columns = np.flatnonzero(objects.any(axis=1)), np.flatnonzero(objects.any(axis=0))
    if not rows.size:
        return None
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _blend(planes: Pixels, objects: Pixels, alpha: float) -> None:
    """Tint the pixels of objects in place; integer arithmetic, 256 standing for 1."""
    weight = np.full(256, 256 - round(256 * alpha), np.uint16)
    weight[BACKGROUND] = 256
    keep = np.take(weight, objects)
    for plane, colour in zip(planes, PALETTE.T, strict=True):
        tint = np.take(colour * (256 - weight), objects)
        plane[...] = (plane * keep + tint) >> 8


def _contour(objects: Pixels, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of objects that are at most `width` steps from a pixel with another label; bool (H, W)."""
    edge = np.zeros(objects.shape, np.bool_)
    across, down = objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1]
    _spread(edge, across, down)
    for _ in range(width - 1):
        _spread(edge, edge[:, 1:] | edge[:, :-1], edge[1:] | edge[:-1])
    edge &= objects != BACKGROUND
    return edge


def _spread(edge: npt.NDArray[np.bool_], across: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> None:
    """Mark both pixels of each pair of neighbours that is set."""
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
