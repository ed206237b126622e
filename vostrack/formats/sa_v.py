"""SA-V: `masklet[frame][object]`, an empty mask where the object is not there.

Source: the data card of SA-V, with which SAM 2 was published. Its own files have every fourth frame of a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.files import shaped
from vostrack.formats.base import Listed, Shot, objects_in
from vostrack.formats.coco import drawn
from vostrack.formats.drawings import Drawing, Drawings, Shape, checked_name, checked_size, whole
from vostrack.formats.rle import encoded, is_empty
from vostrack.types import Prediction

_EVERY = 4
"""Frames of a video from one with masks to the next, in files of the dataset itself."""


@dataclass(frozen=True)
class _Mask:
    """A mask, as a file has it."""

    size: list[int]
    counts: Any


@dataclass(frozen=True)
class _File:
    """What is read of a file; the last three are in our own alone."""

    masklet: list[list[_Mask | None]]
    video_height: float
    video_width: float
    video_frame_count: float
    video_id: str = ""
    object_id: list[int] | None = None
    object_name: list[str] | None = None
    frame_index: list[int] | None = None


class SaV(Listed):
    """Writes it."""

    key = "masklet"

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._areas: list[list[int]] = []
        self._frames: list[int] = []

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        found = dict(objects_in(prediction))
        masks = [found.get(number, np.zeros(self.shot.size, np.bool_)) for number in self.shot.objects]
        self.put([encoded(mask) for mask in masks])
        self._areas.append([int(mask.sum()) for mask in masks])
        self._frames.append(prediction.index)

    def rest(self) -> dict[str, Any]:
        """What else the file has."""
        height, width = self.shot.size
        by_object = [list(areas) for areas in zip(*self._areas, strict=True)]
        visible = [[area > 0 for area in areas] for areas in by_object]
        mean = [sum(areas) / max(sum(seen), 1) for areas, seen in zip(by_object, visible, strict=True)]
        return {
            "video_id": self.shot.name,
            "video_frame_count": float(self.count),
            "video_height": float(height),
            "video_width": float(width),
            "masklet_id": list(range(len(visible))),
            "masklet_num": len(visible),
            "masklet_frame_count": [sum(seen) for seen in visible],
            "masklet_first_appeared_frame": [float(seen.index(True)) if any(seen) else None for seen in visible],
            "masklet_size_abs": mean,
            "masklet_size_rel": [area / (height * width) for area in mean],
            "masklet_visibility_changes": [sum(a != b for a, b in pairwise(seen)) for seen in visible],
            "masklet_type": ["auto"] * len(visible),
            "object_id": list(self.shot.objects),
            "object_name": list(self.shot.objects.values()),
            "frame_index": self._frames,
        }


def read(value: Any, path: Path) -> Drawings:
    """What a file holds; raises `ValueError`."""
    file: _File = shaped(value, _File)
    count, width = len(file.masklet), max(map(len, file.masklet), default=0)
    size = checked_size(file.video_height, file.video_width, "the video")
    frames = file.frame_index
    if frames is None:
        step = 1 if file.video_frame_count == count else _EVERY
        if not step * (count - 1) < file.video_frame_count <= step * count:
            raise ValueError(
                f"masklet has {count} frames, the video {file.video_frame_count:g}: neither all nor every 4th"
            )
        frames = [*range(0, step * count, step)]
    ids: Sequence[int | str] = file.object_id or [f"masklet {number}" for number in range(width)]
    names = file.object_name or [""] * width
    if len(frames) != count or not len(ids) == len(names) >= width:
        raise ValueError("frame_index, object_id or object_name is shorter than masklet")
    images = []
    for frame, masks in zip(frames, file.masklet, strict=True):
        shapes = [
            Shape(name and checked_name(name, "an object"), track, drawn(vars(mask)), f"frame {frame}, object {track}")
            for track, name, mask in zip(ids, names, masks, strict=False)
            if mask is not None and not is_empty(mask.counts)
        ]
        images.append(Drawing("", shapes, size, whole(frame, "a frame"), file.video_id))
    return Drawings(path, "SA-V masklets", images)
