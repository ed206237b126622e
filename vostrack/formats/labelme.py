"""LabelMe: a JSON file for each frame beside its image; an object is a shape of the type `mask`, exact to the pixel.

Source: labelme's own files, from version 5.3 on, which has that type: a box, both corners in it, and a PNG of what is
in it, as base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from PIL import Image

from vostrack.formats.base import Bools, Shot, box_of, jpeg, objects_in, png
from vostrack.types import Prediction
from vostrack.video.writer import FileWriter


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
