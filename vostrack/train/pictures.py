"""A picture of what the network can do so far: objects of a first frame, propagated through a few clips.

Where clips have no masks, a chequerboard stands for the objects: its squares stay on what they lay on, and keep their
shape, where the features are good. Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vostrack.files import atomic_path
from vostrack.methods.base import Method
from vostrack.propagate import Propagator
from vostrack.train.data.cache import CachedClip, FrameCache
from vostrack.train.data.stills import homography_clip
from vostrack.train.evaluate import as_clip, exam
from vostrack.types import LabelMap
from vostrack.video.overlay import draw_overlay

ROWS = 3
COLUMNS = 4
SPAN = 10
"""Frames of a clip that are propagated through."""

_SQUARES = (4, 6)


def write_picture(path: Path, cache: FrameCache, method: Method[Any], device: torch.device) -> None:
    """Draw a few clips of a cache, a row each, the given objects at the left, and write it as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    count = min(ROWS, len(cache.clips))
    chosen = [cache.clips[len(cache.clips) * row // count] for row in range(count)]
    rows = [_row(cache, clip, method, device) for clip in chosen]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(padded)).save(partial, format="PNG")


def _row(cache: FrameCache, clip: CachedClip, method: Method[Any], device: torch.device) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): frames of a clip beside each other."""
    frames, first = _task(cache, clip)
    wanted = {(len(frames) - 1) * column // (COLUMNS - 1) for column in range(COLUMNS)}
    predictions = Propagator(method, None, device).run(as_clip(frames, first))
    return np.concatenate(
        [
            draw_overlay(prediction.frame.image, prediction.labels.pixels.numpy())
            for prediction in predictions
            if prediction.frame.index in wanted
        ],
        axis=1,
    )


def _task(cache: FrameCache, clip: CachedClip) -> tuple[Tensor, LabelMap]:
    """Frames uint8 (T, 3, H, W), and what is propagated from the first."""
    asked = exam(cache, clip) if clip.labels is not None else None
    if asked is not None:
        return asked.frames[:SPAN], LabelMap(asked.truth[0], asked.ids)
    frames = cache.frames(clip, range(min(SPAN, clip.count))).cpu()
    if clip.count == 1:
        moving = homography_clip(frames[0].float() / 255, COLUMNS, torch.Generator().manual_seed(0))
        frames = (255 * moving).round().clamp(0, 255).byte()
    return frames, _chequerboard(clip.height, clip.width)


def _chequerboard(height: int, width: int) -> LabelMap:
    """Every other square of a board is an object, the rest is background."""
    rows, columns = _SQUARES
    row = torch.arange(height)[:, None] * rows // height
    column = torch.arange(width)[None] * columns // width
    pixels = torch.where((row + column) % 2 == 0, 1 + row * columns + column, 0).byte()
    return LabelMap(pixels, tuple(torch.unique(pixels).tolist()[1:]))
