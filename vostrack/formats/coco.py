"""COCO instances: an image for each frame, an annotation for each object that it shows.

Source: the data format of cocodataset.org; `track_id`, the id of the object, is added for trackers. Polygons are filled
one by one, so holes are joined to the rim; what readers would fill in another way is given as run lengths.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.files import shaped
from vostrack.formats.base import Bools, Listed, Shot, box_of, objects_in
from vostrack.formats.drawings import (
    Draw,
    Drawing,
    Drawings,
    Shape,
    checked_key,
    checked_name,
    checked_size,
    folder_of,
    left_out,
    whole,
)
from vostrack.formats.polygons import filled
from vostrack.formats.rle import decoded, encoded, exact_polygons
from vostrack.types import Prediction


@dataclass(frozen=True)
class _Image:
    """An image, as a file has it."""

    id: Any
    file_name: str
    width: float
    height: float
    frame: int | None = None


@dataclass(frozen=True)
class _Annotation:
    """An annotation, as a file has it."""

    image_id: Any
    category_id: Any
    segmentation: Any = None
    iscrowd: Any = 0
    track_id: Any = None


@dataclass(frozen=True)
class Category:
    """A class, as a file has it."""

    id: Any
    name: str


@dataclass(frozen=True)
class _File:
    """What is read of a file."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[Category]


def categories(shot: Shot) -> list[dict[str, Any]]:
    """The classes of a shot, as COCO lists them."""
    return [{"id": number, "name": name, "supercategory": "object"} for name, number in shot.classes.items()]


class Coco(Listed):
    """Writes it."""

    key = "annotations"

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._images: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        height, width = self.shot.size
        image = {"id": len(self._images) + 1, "file_name": self.shot.image_of(prediction)}
        self._images.append(image | {"width": width, "height": height, "frame": prediction.index})
        for number, mask in objects_in(prediction):
            self.put(
                {
                    "id": self.count + 1,
                    "image_id": image["id"],
                    "category_id": self.shot.classes[self.shot.objects[number]],
                    "segmentation": (self.shot.options.polygons and exact_polygons(mask)) or encoded(mask),
                    "area": int(mask.sum()),
                    "bbox": list(map(float, box_of(mask))),
                    "iscrowd": 0,
                    "track_id": number,
                }
            )

    def rest(self) -> dict[str, Any]:
        """What else the file has."""
        return {
            "info": {"description": f"{self.shot.name}, by vostrack"},
            "images": self._images,
            "categories": categories(self.shot),
        }


def read(value: Any, path: Path) -> Drawings:
    """What a file holds; raises `ValueError`."""
    file: _File = shaped(value, _File)
    names = category_names(file.categories)
    shapes: dict[int | str, list[Shape]] = defaultdict(list)
    boxes = 0
    for number, each in enumerate(file.annotations, 1):
        place = f"annotation {number}"
        if not each.segmentation:
            boxes += 1
            continue
        name = names.get(checked_key(each.category_id, f"category_id of {place}"))
        if name is None:
            raise ValueError(f"{place} is of category {each.category_id!r}, which is not in the list of categories")
        track = None if each.track_id is None else checked_key(each.track_id, f"track_id of {place}")
        shape = Shape(name, track, drawn(each.segmentation), place, void=bool(each.iscrowd))
        shapes[checked_key(each.image_id, f"image_id of {place}")].append(shape)
    images = []
    for image in file.images:
        place = f"image {image.file_name!r}"
        found = shapes.pop(checked_key(image.id, f"the id of {place}"), [])
        size = checked_size(image.height, image.width, place)
        frame = None if image.frame is None else whole(image.frame, f"the frame of {place}")
        images.append(Drawing(image.file_name, found, size, frame, folder_of(image.file_name)))
    if shapes:
        raise ValueError(f"{next(iter(shapes.values()))[0].place} is of an image that is not in the list of images")
    return Drawings(path, "COCO instances", images, left_out(boxes, "annotation", "boxes are no masks"))


def category_names(categories: list[Category]) -> dict[int | str, str]:
    """Names of classes by their ids; raises `ValueError`."""
    return {
        checked_key(each.id, f"the id of category {number}"): checked_name(each.name, f"category {number}")
        for number, each in enumerate(categories, 1)
    }


def drawn(segmentation: Any) -> Draw:
    """What draws a segmentation: polygons, or run lengths as text or as a list. It raises `ValueError`."""

    def draw(size: tuple[int, int]) -> Bools:
        if isinstance(segmentation, dict):
            if segmentation.get("size") != list(size):
                raise ValueError(f"has a mask of the size {segmentation.get('size')!r}, its image {list(size)}")
            return decoded(segmentation.get("counts"), size)
        mask = np.zeros(size, np.bool_)
        for polygon in shaped(segmentation, list[list[float]], "segmentation"):
            if len(polygon) % 2:
                raise ValueError("has a polygon with an x without a y")
            mask |= filled(np.array(polygon, np.float64).reshape(-1, 2), size)
        return mask

    return draw
