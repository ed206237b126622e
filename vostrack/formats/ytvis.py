"""YouTube-VIS: video instances, an annotation for each object with its mask in every frame, null where it is not there.

Source: the data format of youtube-vos.org/dataset/vis.
"""

from __future__ import annotations

from typing import Any

from vostrack.formats.base import Collected, Shot, box_of, objects_in
from vostrack.formats.coco import categories
from vostrack.formats.rle import encoded
from vostrack.types import Prediction


class Ytvis(Collected):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._names: list[str] = []
        self._found: dict[int, dict[int, tuple[Any, list[int], int]]] = {number: {} for number in shot.objects}

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        for number, mask in objects_in(prediction):
            self._found[number][len(self._names)] = encoded(mask), list(box_of(mask)), int(mask.sum())
        self._names.append(self.shot.image_of(prediction))

    def content(self) -> dict[str, Any]:
        """The file."""
        shot, frames = self.shot, range(len(self._names))
        size = {"width": shot.size[1], "height": shot.size[0], "length": len(self._names)}
        nothing = (None, None, None)
        annotations = []
        for number, found in self._found.items():
            masks, boxes, areas = map(list, zip(*(found.get(frame, nothing) for frame in frames), strict=True))
            annotations.append(
                {
                    "id": number,
                    "video_id": 1,
                    "category_id": shot.classes[shot.objects[number]],
                    "iscrowd": 0,
                    **size,
                    "segmentations": masks,
                    "bboxes": boxes,
                    "areas": areas,
                }
            )
        return {
            "info": {"description": f"{shot.name}, by vostrack"},
            "videos": [{"id": 1, **size, "file_names": self._names}],
            "annotations": annotations,
            "categories": categories(shot),
        }
