"""Which frames of a source are kept, how large they are, and an estimate of what they will take.

For that only the first frame of a source is decoded. Knows nothing of the files of a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from vostrack.benchmark.datasets.mask_folders import list_frames
from vostrack.errors import DatasetError, InputError
from vostrack.ops.grid import at_most
from vostrack.train.data.footage import Source
from vostrack.types import Frame
from vostrack.video.images import read_image
from vostrack.video.reader import open_clip

FRAME_RATE = 10
"""Frames a second that are kept: neighbours still overlap, and a clip is not thirty near-copies a second."""

SHORT_SIDE = 224
"""Short side of the kept frames in pixels."""

STILL_SCALE = 1.5
"""Stills are kept larger by this factor: what moves over them sees a part at a time."""

_GAP = 1 / FRAME_RATE - 1e-3


def small_size(source: Source, size: Sequence[int], short_side: int) -> tuple[int, int]:
    """Size (H, W) of the kept frames of a source whose frames have some size (H, W)."""
    return at_most((size[0], size[1]), round(short_side * STILL_SCALE) if source.still else short_side)


def estimated(source: Source, short_side: int) -> tuple[int, int]:
    """How many frames of a source are kept, and the bytes of each with its labels.

    Zeros stand for what cannot be opened, which is left out when it is decoded, and for clips that do not say how long
    they are.
    """
    try:
        if source.still:
            _, *size = read_image(source.path)[0].shape
            count = 1
        else:
            with open_clip(source.path) as stream:
                size, rate = list(stream.size), float(stream.fps or 0)
                count = stream.count or math.ceil((stream.seconds or 0) * rate)
            if source.masks is not None:
                count = len(list_frames(source.masks))
            elif rate and not source.all_frames:
                count = math.ceil(count / max(1, math.ceil(rate * _GAP - 1e-6)))
    except (InputError, DatasetError):
        return 0, 0
    height, width = small_size(source, size, short_side)
    return count, height * width * (3 if source.masks is None else 4)


def kept(source: Source) -> Iterator[tuple[Frame, Path | None]]:
    """Frames worth keeping, with their masks where the source has some."""
    if source.still:
        yield Frame(0, Fraction(0), read_image(source.path)[0], source.path.stem), None
        return
    due = 0.0
    with open_clip(source.path) as stream:
        for frame in stream:
            if source.masks is not None:
                mask = source.masks / f"{frame.name}.png"
                if mask.is_file():
                    yield frame, mask
            elif source.all_frames or stream.fps is None or float(frame.time) + 1e-6 >= due:
                due = float(frame.time) + _GAP
                yield frame, None
