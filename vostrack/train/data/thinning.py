"""Which frames of a source are kept, how large they are, and how many fit into a size.

For an estimate only the first frame of a source is decoded. Knows nothing of the files of a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
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
_ROOM = 0.95
"""Share of a size that is planned with: an estimate is not exact."""


@dataclass(frozen=True)
class Estimate:
    """What a source will take: how many frames are kept of it, and the bytes of each with its labels.

    Where a source does not say how long it is, it has no frames here.
    """

    frames: int
    each: int

    @property
    def least(self) -> int:
        """Frames that are kept however little room there is."""
        return min(2, self.frames)

    def fraction(self, share: float) -> Fraction:
        """Which part of its frames is kept: those, and a share of the others."""
        kept = self.least + int(share * (self.frames - self.least))
        return Fraction(kept, self.frames) if self.frames else Fraction(1)

    def bytes(self, share: float = 1.0) -> int:
        """What they take."""
        return int(self.fraction(share) * self.frames) * self.each


def small_size(source: Source, size: Sequence[int], short_side: int) -> tuple[int, int]:
    """Size (H, W) of the kept frames of a source whose frames have some size (H, W)."""
    return at_most((size[0], size[1]), round(short_side * STILL_SCALE) if source.still else short_side)


def estimated(source: Source, short_side: int, limit: int | None) -> Estimate:
    """What a source will take; nothing for what cannot be opened, which is left out when it is decoded."""
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
            elif rate:
                count = math.ceil(count / max(1, math.ceil(rate * _GAP - 1e-6)))
    except (InputError, DatasetError):
        return Estimate(0, 0)
    height, width = small_size(source, size, short_side)
    return Estimate(min(count, limit or count), height * width * (3 if source.masks is None else 4))


def share_that_fits(estimates: Sequence[Estimate], most: float) -> float:
    """The share of frames, beyond two of each source, that fits into so many bytes; 1 where all do.

    Raises:
        DatasetError: not even two frames of each fit.
    """
    whole, least = sum(each.bytes() for each in estimates), sum(each.bytes(0.0) for each in estimates)
    if whole <= most:
        return 1.0
    if least > _ROOM * most:
        raise DatasetError("two frames of each clip take more than `cache_size`: give a larger one, or fewer clips")
    return (_ROOM * most - least) / (whole - least)


def kept(source: Source, part: Fraction, limit: int | None) -> Iterator[tuple[Frame, Path | None]]:
    """A part of the frames that are worth keeping, spread evenly; with their masks where the source has some."""
    for number, found in enumerate(islice(_worth_keeping(source), limit)):
        if math.floor(number * part) > math.floor((number - 1) * part):
            yield found


def _worth_keeping(source: Source) -> Iterator[tuple[Frame, Path | None]]:
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
            elif stream.fps is None or float(frame.time) + 1e-6 >= due:
                due = float(frame.time) + _GAP
                yield frame, None
