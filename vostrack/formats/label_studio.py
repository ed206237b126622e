"""Label Studio: a task for each frame, whose masks are brush strokes; it has none over time for masks.

Source: the format of brush labels of labelstud.io, packed as by thi.ng/rle-pack: RGBA, row by row, as a string of bits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from vostrack.files import shaped
from vostrack.formats.base import Bools, Listed, objects_in, runs
from vostrack.formats.drawings import (
    Drawing,
    Drawings,
    Shape,
    checked_name,
    checked_size,
    folder_of,
    left_out,
    number_of,
    whole,
)
from vostrack.formats.polygons import ellipse, filled, rectangle, turned
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


@dataclass(frozen=True)
class _Region:
    """A part of the result of a task, as a file has it."""

    type: str
    value: dict[str, Any]
    id: str = ""
    original_width: float = 0
    original_height: float = 0


@dataclass(frozen=True)
class _Work:
    """What somebody, or a program, says of a task, as a file has it."""

    result: list[_Region]
    was_cancelled: bool = False


@dataclass(frozen=True)
class _Task:
    """A task, as a file has it."""

    data: dict[str, Any]
    annotations: list[_Work] | None = None
    predictions: list[Any] | None = None


class LabelStudio(Listed):
    """Writes it."""

    def write(self, prediction: Prediction) -> None:
        """Take a frame."""
        image = quote(os.fsencode(f"{self.shot.name}/{self.shot.image_of(prediction)}"))
        result = [self._stroke(number, mask) for number, mask in objects_in(prediction)]
        self.put(
            {
                "data": {"image": f"/data/local-files/?d={image}", "frame": prediction.index},
                "predictions": [{"model_version": "vostrack", "result": result}],
            }
        )

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


def read(value: Any, path: Path) -> Drawings:
    """What a file holds; raises `ValueError`."""
    images, others = [], 0
    for number, entry in enumerate(value if isinstance(value, list) else [value], 1):
        task, place = shaped(entry, _Task, f"task {number}"), f"task {number}"
        work = [each for each in task.annotations or () if not each.was_cancelled]
        told = [each for each in task.predictions or () if isinstance(each, dict)]  # others are numbers of predictions
        work = work or shaped(told, list[_Work], f"predictions of {place}")
        if len(work) > 1:
            raise ValueError(f"{place} was labelled {len(work)} times: keep one of these annotations")
        regions = [region for each in work for region in each.result]
        sizes = {(each.original_height, each.original_width) for each in regions if each.original_height}
        if len(sizes) > 1:
            raise ValueError(f"{place} has regions of images of different sizes")
        size = checked_size(*sizes.pop(), place) if sizes else None
        shapes = []
        for at, region in enumerate(regions, 1):
            found = _shape(region, size, f"{place}, region {at}")
            shapes += [found] if found else []
            others += not found and region.type != "choices"
        name = _image_name(task.data)
        frame = whole(task.data["frame"], f"the frame of {place}") if "frame" in task.data else None
        images.append(Drawing(name, shapes, size, frame, folder_of(name)))
    return Drawings(path, "Label Studio tasks", images, left_out(others, "region", "they have no area or no label"))


def _image_name(data: dict[str, Any]) -> str:
    """Name of the image of a task: its own one has eight characters before it where it was uploaded."""
    texts = [text for text in [data.get("image"), *data.values()] if isinstance(text, str)]
    name = unquote(texts[0].rpartition("?d=")[2].partition("?")[0]) if texts else ""
    folder, slash, file = name.rpartition("/")
    return folder + slash + re.sub(r"^[0-9a-f]{8}-", "", file)


def _shape(region: _Region, size: tuple[int, int] | None, place: str) -> Shape | None:
    """What a region draws; None where it has no area or no label."""
    value, kind = region.value, region.type
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels or size is None:
        return None
    name = checked_name(labels[0], place)
    if kind == "brushlabels":
        rle = value.get("rle")
        if value.get("format") != "rle" or not isinstance(rle, list):
            raise ValueError(f"{place} has a mask that is not run lengths")
        return Shape(name, number_of(region.id), partial(_brushed, rle), place)
    percent = {key: shaped(value[key], float, key) for key in _PERCENT if key in value}
    scale = np.array(size[::-1]) / 100
    x, y, across, down, degrees = (percent.get(key, 0.0) for key in ("x", "y", "width", "height", "rotation"))
    if kind == "polygonlabels":
        points: list[list[float]] = shaped(value.get("points"), list[list[float]], f"points of {place}")
        if any(len(point) != 2 for point in points):
            raise ValueError(f"{place} has a point that is not an x and a y")
        corners = np.array(points, np.float64).reshape(-1, 2) * scale
    elif kind == "rectanglelabels":
        box = rectangle(x, y, x + across, y + down) * scale
        corners = turned(box, (x * scale[0], y * scale[1]), degrees)
    elif kind == "ellipselabels":
        radii = percent.get("radiusX", 0.0) * scale[0], percent.get("radiusY", 0.0) * scale[1]
        corners = ellipse(x * scale[0], y * scale[1], *radii, degrees)
    else:
        return None
    return Shape(name, number_of(region.id), partial(filled, corners), place)


_PERCENT = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY")


def _brushed(data: list[Any], size: tuple[int, int]) -> Bools:
    """A mask from bytes, by the last of its four channels; raises `ValueError`."""
    if not all(type(byte) is int and 0 <= byte < 256 for byte in data):
        raise ValueError("has run lengths that are not a list of bytes")
    total = 4 * size[0] * size[1]
    values = np.concatenate([*_runs(bytes(data), total)])
    return values.reshape(*size, 4)[..., 3] > 0


def _runs(data: bytes, total: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The values that are packed, part by part; raises `ValueError` where there are not so many."""
    bits, at = "".join(f"{byte:08b}" for byte in data), 0

    def number(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise ValueError("has run lengths that end early")
        return int(bits[at - count : at], 2)

    said, word = number(32), number(5) + 1
    if word != _WORD:
        raise ValueError(f"has run lengths of values of {word} bits, not {_WORD}")
    if said != total:
        raise ValueError(f"has a mask of {said} values, its image {total}")
    sizes, done = [number(4) + 1 for _ in range(4)], 0
    while done < total:
        same, count = number(1), number(sizes[number(2)]) + 1
        done += count
        if done > total:
            raise ValueError("has run lengths that fill more than its image")
        if same:
            yield np.full(count, number(_WORD), np.uint8)
        else:
            packed = number(count * _WORD).to_bytes(count, "big")
            yield np.frombuffer(packed, np.uint8)
