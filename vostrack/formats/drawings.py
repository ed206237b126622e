"""What readers of formats give: the images of a file and their objects, drawn when the size of the clip is known.

Readers raise `ValueError` for what they cannot read; who calls them names the file and the place in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vostrack.errors import counted
from vostrack.files import shown
from vostrack.formats.base import Bools, Bytes
from vostrack.notes import Code, Note
from vostrack.types import MAX_OBJECTS
from vostrack.video.object_names import is_name
from vostrack.video.stream import MAX_PIXELS

Draw = Callable[[tuple[int, int]], Bools]
"""Gives the pixels of an object, bool (H, W), for a size (H, W)."""

MOST_IMAGES = 100_000

MOST_KEPT = 1 << 33
"""Pixels of all masks of a file together that are kept in memory, in bits."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An object in an image, or a part of one.

    Attributes:
        name: its class; empty where there is none.
        track: what it has in common with the same object in other images: a whole number is its id, if it can be one.
        draw: gives its pixels.
        place: in the file, for messages.
        void: whether these pixels are unknown instead of an object, as a crowd is.
        number: id that it gets where it has no other, and that is free.
    """

    name: str
    track: int | str | None
    draw: Draw
    place: str = ""
    void: bool = False
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image of a file.

    Attributes:
        name: of the image file, as it is written there; empty where there is none.
        shapes: its objects, in the order in which they are drawn.
        size: (H, W) that the shapes are drawn at; None for that of the clip.
        frame: number of its frame, where the file says that.
        clip: name of the clip that it is of, where the file says that.
    """

    name: str
    shapes: Sequence[Shape]
    size: tuple[int, int] | None = None
    frame: int | None = None
    clip: str = ""


@dataclass(frozen=True, slots=True)
class Drawings:
    """A file or folder of masks.

    Attributes:
        path: of it.
        kind: what it is, in words.
        images: in the order of the file.
        notes: what is not used, one line each.
        begins: whether its frames count from the one that is named with it, as those of a movie do.
    """

    path: Path
    kind: str
    images: Sequence[Drawing]
    notes: Sequence[Note] = field(default_factory=list)
    begins: bool = False


def checked_name(name: object, place: str) -> str:
    """The name of an object, which may be shown; raises `ValueError`."""
    if not is_name(name):
        raise ValueError(f"{place} has a name that cannot be used, {shown(repr(name))}: rename it")
    return str(name)


def checked_key(value: object, place: str) -> int | str:
    """What refers to something else in a file, a whole number or a text; raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{place} is {type(value).__name__}, expected a whole number")
    return value


def checked_size(height: float, width: float, place: str) -> tuple[int, int]:
    """A size (H, W) that is not too large; raises `ValueError`."""
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS and height % 1 == width % 1 == 0):
        raise ValueError(f"{place} has the size {width:.0f}x{height:.0f}: expected 1 to {MAX_PIXELS} pixels")
    return int(height), int(width)


def number_of(name: str) -> int | None:
    """The id in a name that an export gave to an object without one: 7 of `object_7`."""
    match = re.fullmatch(r"object_([1-9][0-9]{0,2})", name)
    return int(match[1]) if match else None


def stem(name: str) -> str:
    """`00040` of `images/00040.jpg`, on whatever system that was written."""
    return PurePosixPath(name.replace("\\", "/")).stem


def folder_of(name: str) -> str:
    """`dog` of `train/dog/00040.jpg`."""
    return PurePosixPath(name.replace("\\", "/")).parent.name


def titled(stems: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Names and ids of objects by the names of their files or layers, whose numbers are ids where all have one.

    `dog_3` and `cat_4` are dog, 3, and cat, 4; `left_2` beside `right` is called that.
    """
    ends = {stem: re.fullmatch(r"(.*?)[\W_]*([1-9][0-9]{0,2})", stem) for stem in stems}
    found = {stem: (end[1], int(end[2])) for stem, end in ends.items() if end}
    ids = {number for _, number in found.values()}
    if len(found) == len(ends) == len(ids) and max(ids, default=0) <= MAX_OBJECTS:
        return {stem: ("" if name == "object" else name, number) for stem, (name, number) in found.items()}
    return {stem: (stem, None) for stem in ends}


def kept(mask: Bools, name: str = "", track: int | None = None, place: str = "") -> Shape:
    """A shape that is read already; it is kept in an eighth of its size."""
    return Shape(name, track, partial(_unpacked, np.packbits(mask), mask.shape), place)


def _unpacked(bits: Bytes, shape: tuple[int, int], size: tuple[int, int]) -> Bools:
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape) > 0


def pasted(inside: Bools, left: int, top: int) -> Draw:
    """What draws a box of pixels; raises `ValueError` where it does not lie in the image."""

    def draw(size: tuple[int, int]) -> Bools:
        height, width = inside.shape
        if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
            raise ValueError("lies outside of its image")
        mask = np.zeros(size, np.bool_)
        mask[top : top + height, left : left + width] = inside
        return mask

    return draw


def left_out(count: int, what: str, why: str) -> list[Note]:
    """A note on parts of a file that are not used."""
    return [Note(Code.MASK_LEFT_OUT, f"left out: {counted(count, what)}, since {why}")] if count else []


def whole(value: Any, place: str) -> int:
    """A whole number from text or JSON; raises `ValueError`."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if isinstance(value, bool) or (isinstance(value, float) and value != number) or not 0 <= number < 1 << 31:
        raise ValueError(f"{place} is {shown(repr(value))}, expected a whole number from 0")
    return number
