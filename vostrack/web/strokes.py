"""What steps on a frame draw: the pixels of each, and ids as the page and the journal have them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from vostrack.errors import MaskError, damage_as
from vostrack.files import shown
from vostrack.web.shapes import Area, Inside, brushed, filled, grown, polygon, smooth, without_holes
from vostrack.web.things import Step

Labels = npt.NDArray[np.uint8]

_MOST_POINTS, _MOST_RADIUS = 100_000, 2000


def only(labels: Labels, ids: Iterable[int]) -> Labels:
    """Labels (H, W) of some ids, others become background."""
    table = np.zeros(256, np.uint8)
    for number in ids:
        table[number] = number
    return table[labels]


def decoded(data: str, size: tuple[int, int]) -> Labels:
    """Ids from a PNG in base 64; raises `MaskError` where it is none of this size."""
    with (
        damage_as(lambda error: MaskError(f"these are no pixels of a frame: {shown(error)}")),
        Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"]) as image,
    ):
        if image.mode != "L" or (image.height, image.width) != size:
            raise ValueError(f"a {image.mode} image of {image.width}x{image.height}")
        return np.array(image)


def encoded(labels: Labels) -> str:
    """Ids (H, W) as a PNG in base 64."""
    return base64.b64encode(png(labels)).decode()


def png(labels: Labels) -> bytes:
    """Ids (H, W) as a grey PNG, whose values are the ids."""
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _points(step: Step, least: int) -> list[tuple[float, float]]:
    """The points of a step; raises `MaskError` where they are too few, too many, or no points."""
    if not least <= len(step.points) <= _MOST_POINTS or any(len(point) != 2 for point in step.points):
        raise MaskError(f"{step.kind} needs {least} to {_MOST_POINTS:,} points (x, y)")
    if any(abs(value) > 1 << 16 for point in step.points for value in point):
        raise MaskError("a point lies far outside the frame")
    return [(x, y) for x, y in step.points]


def _radius(step: Step) -> float:
    if abs(step.radius) > _MOST_RADIUS:
        raise MaskError(f"a radius is at most {_MOST_RADIUS} pixels")
    return step.radius


def _brush(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    return brushed(size, _points(step, 1), _radius(step)), step.id


def _erase(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    """Erases one object alone, or all of them where none is named."""
    area = brushed(size, _points(step, 1), _radius(step))
    return (Area(area.top, area.left, area.inside & own[area.box]) if step.id else area), 0


def _polygon(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    return polygon(size, _points(step, 3)), step.id


def _fill(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    """Fills what hangs together around a point and is of one object, or background."""
    column, row = (math.floor(value) for value in _points(step, 1)[0])
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        raise MaskError("the point lies outside the frame")
    return filled(labels == labels[row, column], (row, column)), step.id


def _holes(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    """Fills the holes of an object that are background."""
    return Area.of(without_holes(own) & (labels == 0)), step.id


def _smooth(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    """Smooths the edges of an object against the background; others keep their pixels."""
    return Area.of(smooth(own, round(_radius(step))) & (own | (labels == 0))), step.id


def _grow(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    """Moves the edges of an object out over the background, or in."""
    return Area.of(grown(own, round(_radius(step))) & (own | (labels == 0))), step.id


def _region(size: tuple[int, int], labels: Labels, own: Inside, step: Step) -> tuple[Area, int]:
    return Area.of(decoded(step.data, size) > 0), step.id


STROKES: Mapping[str, Callable[[tuple[int, int], Labels, Inside, Step], tuple[Area, int]]] = {
    "brush": _brush,
    "erase": _erase,
    "polygon": _polygon,
    "fill": _fill,
    "holes": _holes,
    "smooth": _smooth,
    "grow": _grow,
    "region": _region,
    "clear": _region,
    "begin": _region,
    "predicted": _region,
}
"""What steps on a frame draw, from its size, its labels and the pixels of their object: an area, and the id it gets."""
