"""LabelMe: a JSON file for each frame beside its image; an object is a shape of the type `mask`, exact to the pixel.

Source: labelme's own files, from version 5.3 on, which has that type: a box, both corners in it, and a PNG of what is
in it, as base64.
"""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vostrack.errors import damage_as
from vostrack.files import shaped
from vostrack.formats.base import Bools, Shot, box_of, jpeg, objects_in, png
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
    pasted,
)
from vostrack.formats.polygons import ellipse, filled, rectangle
from vostrack.types import Prediction
from vostrack.video.writer import FileWriter


@dataclass(frozen=True)
class _Shape:
    """A shape, as a file has it."""

    label: str
    points: list[list[float]]
    shape_type: str = "polygon"
    group_id: Any = None
    mask: str | None = None


@dataclass(frozen=True)
class _File:
    """What is read of a file."""

    shapes: list[_Shape]
    imagePath: str
    imageHeight: float | None = None
    imageWidth: float | None = None


class Labelme(FileWriter):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._shot = shot

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        name, (height, width) = prediction.frame.name, self._shot.size
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [self._shape(number, mask) for number, mask in objects_in(prediction)],
            "imagePath": f"{name}.jpg",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        yield f"{name}.jpg", jpeg(prediction)
        yield f"{name}.json", json.dumps(content, indent=2).encode()

    def _shape(self, number: int, mask: Bools) -> dict[str, Any]:
        left, top, width, height = box_of(mask)
        inside = png(Image.fromarray(mask[top : top + height, left : left + width]))
        return {
            "label": self._shot.objects[number],
            "points": [[left, top], [left + width - 1, top + height - 1]],
            "group_id": number,
            "description": "",
            "shape_type": "mask",
            "flags": {},
            "mask": base64.b64encode(inside).decode("ascii"),
        }


def read(value: Any, path: Path) -> Drawings:
    """What a file holds; raises `ValueError`."""
    file: _File = shaped(value, _File)
    shapes, others = [], 0
    for number, each in enumerate(file.shapes, 1):
        place = f"shape {number}"
        draw = _drawn(each, place)
        others += draw is None
        if draw is not None:
            track = None if each.group_id is None else checked_key(each.group_id, f"group_id of {place}")
            shapes.append(Shape(checked_name(each.label, place), track, draw, place))
    size = None
    if file.imageHeight is not None and file.imageWidth is not None:
        size = checked_size(file.imageHeight, file.imageWidth, "the image")
    image = Drawing(file.imagePath or path.name, shapes, size, None, folder_of(file.imagePath))
    return Drawings(path, "LabelMe", [image], left_out(others, "shape", "points and lines have no area"))


def _drawn(shape: _Shape, place: str) -> Draw | None:
    """What draws a shape; None where it has no area."""
    points, kind = shape.points, shape.shape_type
    if any(len(point) != 2 for point in points):
        raise ValueError(f"{place} has a point that is not an x and a y")
    if kind == "rectangle" and len(points) == 4:  # of X-AnyLabeling
        kind = "polygon"
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise ValueError(f"{place} is a {kind} with {len(points)} points, expected 2")
    if kind in ("polygon", "oriented_rectangle", "rotation"):
        return partial(filled, np.array(points, np.float64).reshape(-1, 2))
    if kind == "rectangle":
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(*points, strict=True))
        return partial(filled, rectangle(left, top, right, bottom))
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return partial(filled, ellipse(x, y, radius, radius))
    if kind == "mask":
        (left, top), (right, bottom) = points
        size = round(bottom - top) + 1, round(right - left) + 1
        return pasted(_unpacked(shape.mask or "", size, place), int(left), int(top))
    return None


def _unpacked(text: str, size: tuple[int, int], place: str) -> Bools:
    """The PNG of a mask; raises `ValueError` where it is none of that size."""
    size = checked_size(*size, place)
    with damage_as(lambda error: ValueError(f"{place} has a mask that cannot be read: {error}")):
        data = io.BytesIO(base64.b64decode(text, validate=True))
        with warnings.catch_warnings(action="ignore"), Image.open(data, formats=["PNG"]) as image:
            if (image.height, image.width) != size:
                raise ValueError(f"it is {image.width}x{image.height} in a box of {size[1]}x{size[0]}")
            return np.asarray(image.convert("L")) > 0
