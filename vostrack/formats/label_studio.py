"""Label Studio: a task for each frame, whose masks are brush strokes; it has none over time for masks.

Source: the format of brush labels of labelstud.io, packed as by thi.ng/rle-pack: RGBA, row by row, as a string of bits.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from vostrack.formats.base import Bools, Collected, Shot, objects_in, runs
from vostrack.types import Prediction

_WORD = 8
_SIZES = (3, 4, 8, 16)
"""Bits of a value, and those that a length may have."""

_MOST = 1 << _SIZES[-1]


def packed(mask: Bools) -> list[int]:
    """A mask (H, W) as bytes: 255 in all four channels of its pixels, 0 elsewhere."""
    bits = [f"{4 * mask.size:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for number, pixels in enumerate(runs(mask)):
        value, left = 255 * (number % 2), 4 * int(pixels)
        while left:
            length = min(left, _MOST)
            kind = next(kind for kind, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value:0{_WORD}b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


class LabelStudio(Collected):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot)
        self._tasks: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        image = quote(f"{self.shot.name}/{self.shot.image_of(prediction)}")
        result = [self._stroke(number, mask) for number, mask in objects_in(prediction)]
        self._tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={image}", "frame": prediction.index},
                "predictions": [{"model_version": "vostrack", "result": result}],
            }
        )

    def content(self) -> list[dict[str, Any]]:
        """The file."""
        return self._tasks

    def _stroke(self, number: int, mask: Bools) -> dict[str, Any]:
        height, width = self.shot.size
        return {
            "id": f"object_{number}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": packed(mask), "brushlabels": [self.shot.objects[number]]},
        }
