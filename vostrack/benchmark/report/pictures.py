"""Pictures of errors: a frame, with what was found, missed and wrongly taken, beside the truth."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, read_mask
from vostrack.benchmark.metrics import boundary
from vostrack.benchmark.sequence_run import open_frames
from vostrack.video.palette import PALETTE

FOUND, MISSED, TAKEN = (0, 158, 115), (230, 159, 0), (204, 121, 167)
"""Colours of pixels that are right, that lack, and that belong to something else."""

_WIDTH = 360
_GREY = 0.45


def error_pictures(sequence: Sequence, masks: Path, frame: str) -> tuple[str, str]:
    """The truth over a frame, and the errors over the same frame, as addresses for `<img>` that need no network.

    Args:
        sequence: of a dataset.
        masks: folder with the sequence's results.
        frame: one that is scored.
    """
    image = _frame(sequence, frame)
    wanted, found = read_labels(sequence.truths[frame], sequence.masks), read_mask(masks / f"{frame}.png")
    return _address(_truth(image, wanted)), _address(_errors(image, wanted, found))


def _frame(sequence: Sequence, frame: str) -> Labels:
    """The picture of a frame, uint8 (H, W, 3)."""
    with open_frames(sequence, [frame]) as stream:
        image = next(given.image for given in stream if given.name == frame)
    return np.ascontiguousarray(image.numpy().transpose(1, 2, 0))


def _truth(image: Labels, wanted: Labels) -> Labels:
    inside = wanted > 0
    shown = image.copy()
    shown[inside] = (0.5 * image[inside] + 0.5 * PALETTE[wanted[inside]]).astype(np.uint8)
    shown[boundary(inside)] = 255
    return shown


def _errors(image: Labels, wanted: Labels, found: Labels) -> Labels:
    grey = _GREY * image.mean(axis=2, keepdims=True)
    shown = np.repeat(grey, 3, axis=2)
    for where, colors in (
        ((wanted == found) & (wanted > 0), FOUND),
        ((wanted != found) & (wanted > 0), MISSED),
        ((wanted != found) & (found > 0) & (wanted == 0), TAKEN),
    ):
        shown[where] += 0.55 * np.asarray(colors)
    return shown.clip(0, 255).astype(np.uint8)


def _address(pixels: Labels) -> str:
    image = Image.fromarray(pixels)
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
