"""COCO instances: an image for each frame, an annotation for each object that it shows.

Source: the data format of cocodataset.org; `track_id`, the id of the object, is added for trackers.
"""

from __future__ import annotations

from typing import Any

from vostrack.formats.base import Collected, Shot, box_of, objects_in
from vostrack.formats.rle import encoded
from vostrack.types import Prediction


def categories(shot: Shot) -> list[dict[str, Any]]:
    """The classes of a shot, as COCO lists them."""
    return [{"id": number, "name": name, "supercategory": "object"} for name, number in shot.classes.items()]


class Coco(Collected):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        height, width = self.shot.size
        image = {"id": len(self._images) + 1, "file_name": self.shot.image_of(prediction)}
        self._images.append(image | {"width": width, "height": height, "frame": prediction.index})
        for number, mask in objects_in(prediction):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image["id"],
                    "category_id": self.shot.classes[self.shot.objects[number]],
                    "segmentation": encoded(mask),
                    "area": int(mask.sum()),
                    "bbox": list(map(float, box_of(mask))),
                    "iscrowd": 0,
                    "track_id": number,
                }
            )

    def content(self) -> dict[str, Any]:
        """The file."""
        return {
            "info": {"description": f"{self.shot.name}, by vostrack"},
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories(self.shot),
        }
