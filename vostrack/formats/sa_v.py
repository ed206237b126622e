"""SA-V: `masklet[frame][object]`, an empty mask where the object is not there.

Source: the data card of SA-V, with which SAM 2 was published. Its own files have every fourth frame of a video.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from vostrack.formats.base import Collected, Shot, objects_in
from vostrack.formats.rle import encoded
from vostrack.types import Prediction


class SaV(Collected):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._masklet: list[list[dict[str, Any]]] = []
        self._areas: list[list[int]] = []

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        found = dict(objects_in(prediction))
        masks = [found.get(number, np.zeros(self.shot.size, np.bool_)) for number in self.shot.objects]
        self._masklet.append([encoded(mask) for mask in masks])
        self._areas.append([int(mask.sum()) for mask in masks])

    def content(self) -> dict[str, Any]:
        """The file."""
        (height, width), count = self.shot.size, len(self._masklet)
        by_object = [list(areas) for areas in zip(*self._areas, strict=True)]
        visible = [[area > 0 for area in areas] for areas in by_object]
        mean = [sum(areas) / max(sum(seen), 1) for areas, seen in zip(by_object, visible, strict=True)]
        return {
            "video_id": self.shot.name,
            "video_frame_count": float(count),
            "video_height": float(height),
            "video_width": float(width),
            "masklet": self._masklet,
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
        }
