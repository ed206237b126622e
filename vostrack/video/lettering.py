"""Ids and names of objects, and the number of the frame, written on a picture. Knows nothing of files."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vostrack.types import BACKGROUND
from vostrack.video.ground import Color

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two are not in it."""

_LINES = 28
"""Lines of text that a frame has room for along its short side."""

_LEAST = 10
_MOST_NAME = 24
_SAMPLES = 270
_FRAME = (28, 28, 28)


class Lettering:
    """Writes on the frames of a clip, in the scale of the frame, with Pillow's own font, which has ASCII alone."""

    def __init__(self, names: Mapping[int, str]) -> None:
        """Take the names of objects, by id; accents are dropped, and names in other scripts left out."""
        plain = {number: _without_accents(name)[:_MOST_NAME].strip() for number, name in names.items()}
        self._names = {number: name for number, name in plain.items() if name.isascii() and name.isprintable()}
        self._size = 0
        self._tags: dict[tuple[str, Color], Pixels] = {}

    def write(self, picture: Pixels, objects: Pixels, colors: Mapping[int, Color], index: int | None) -> None:
        """Write a tag at each object, and the number of the frame in a corner.

        Args:
            picture: uint8 (H, W, 3), changed in place.
            objects: uint8 (H, W), ids.
            colors: of the tags, for all ids that occur.
            index: number of the frame, or None.
        """
        self._resize(max(_LEAST, round(min(objects.shape) / _LINES)))
        taken: list[Box] = []
        if index is not None:
            margin = self._size // 2
            tag = _tag(self._font, f"frame {index}", _FRAME)  # not kept: each is used once
            taken.append(_paste(picture, tag, margin, margin))
        for number, color in colors.items():
            tag = self._object_tag(number, color)
            taken.append(_paste(picture, tag, *_place(objects, number, tag.shape[:2], taken)))

    def _resize(self, size: int) -> None:
        if size != self._size:
            self._size, self._font = size, ImageFont.load_default(size)
            self._tags.clear()

    def _object_tag(self, number: int, color: Color) -> Pixels:
        text = f"{number} {self._names.get(number, '')}".strip()
        if (text, color) not in self._tags:
            self._tags[text, color] = _tag(self._font, text, color)
        return self._tags[text, color]


def _without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def _tag(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str, color: Color) -> Pixels:
    """A text on a plate with round corners, uint8 (h, w, 4)."""
    left, _, right, _ = font.getbbox(text)
    tall = round(font.getbbox("Ag")[3])
    pad = max(2, tall // 5)
    size = round(right - left) + 3 * pad, tall + pad
    plate = Image.new("RGBA", size)
    pen = ImageDraw.Draw(plate)
    light = 299 * color[0] + 587 * color[1] + 114 * color[2] >= 128_000
    ink = (0, 0, 0) if light else (255, 255, 255)
    pen.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=2 * pad, fill=color, outline=ink)
    pen.text((size[0] / 2, size[1] / 2), text, fill=ink, font=font, anchor="mm")
    return np.asarray(plate)


def _place(objects: Pixels, number: int, size: tuple[int, ...], taken: Sequence[Box]) -> tuple[int, int]:
    """Where a tag goes, left and top: above its object, else below it, else on it; where it can, on nothing else.

    Args:
        objects: uint8 (H, W), ids.
        number: of the object; it has a pixel.
        size: (h, w) of the tag.
        taken: boxes of other tags.
    """
    (height, width), gap = size, size[0] // 4
    step = max(1, min(objects.shape) // _SAMPLES)  # a few pixels of a large frame do not matter
    where = objects[::step, ::step] == number
    if not where.any():
        step, where = 1, objects == number
    columns = np.flatnonzero(where.any(axis=0)) * step
    left = max(0, min((int(columns[0] + columns[-1]) - width) // 2, objects.shape[1] - width))
    below = where[:, left // step : (left + width) // step + 1].any(axis=1)  # of the object, the part under the tag
    rows = np.flatnonzero(below if below.any() else where.any(axis=1)) * step
    first, last = int(rows[0]), int(rows[-1]) + step
    middle = (first + last - height) // 2
    tops = [first - height - gap, last + gap, middle, middle - height, middle + height]
    inside = [top for top in tops if 0 <= top <= objects.shape[0] - height] or [0]

    def covers(top: int) -> tuple[bool, bool]:
        box = left, top, left + width, top + height
        others = objects[top : box[3], left : box[2]]
        covered = np.count_nonzero((others != number) & (others != BACKGROUND))
        return any(_meet(box, each) for each in taken), bool(4 * covered > height * width)

    return left, min(inside, key=covers)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _paste(picture: Pixels, tag: Pixels, left: int, top: int) -> Box:
    """Lay a tag over a picture, as far as that reaches; gives the box that it takes."""
    part = picture[top : top + tag.shape[0], left : left + tag.shape[1]]
    seen = tag[: part.shape[0], : part.shape[1]]
    opacity = seen[..., 3:].astype(np.uint16)
    part[...] = (part * (255 - opacity) + seen[..., :3] * opacity) // 255
    return left, top, left + tag.shape[1], top + tag.shape[0]
