"""CVAT for images 1.1: an XML file of masks. Its masks of a track would lose all but their first shape on import.

Source: the format's page of docs.cvat.ai: lengths of runs inside the box, row by row, the first of background.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from vostrack.files import escaped
from vostrack.formats.base import Bools, Shot, box_of, objects_in, runs
from vostrack.formats.drawings import (
    Draw,
    Drawing,
    Drawings,
    Shape,
    checked_name,
    checked_size,
    folder_of,
    left_out,
    pasted,
    whole,
)
from vostrack.formats.polygons import Corners, ellipse, filled, rectangle, turned
from vostrack.formats.rle import expanded, from_list
from vostrack.notes import Note
from vostrack.types import Prediction

_MOST_ELEMENTS = 1 << 20


class Cvat:
    """Writes it, frame by frame."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self.notes: list[Note] = []
        self._shot, self._count = shot, 0
        self._file = shot.out.open("x", encoding="utf-8", newline="\n")
        names = "".join(self._label(name) for name in shot.classes)
        meta = f"  <meta><task><labels>{names}</labels></task></meta>\n"
        self._file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{meta}')

    def write(self, prediction: Prediction) -> None:
        """Write a frame."""
        file, (height, width) = self._file, self._shot.size
        name = quoteattr(escaped(self._shot.image_of(prediction)))
        file.write(f'  <image id="{self._count}" name={name} width="{width}" height="{height}">\n')
        self._count += 1
        for number, mask in objects_in(prediction):
            file.write(self._mask(number, mask))
        file.write("  </image>\n")

    def finish(self) -> None:
        """Complete the file."""
        self._file.write("</annotations>\n")
        self._file.close()

    def abort(self) -> None:
        """Close the file; what goes wrong then does not matter any more."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _label(self, name: str) -> str:
        attribute = "<attribute><name>object_id</name><mutable>False</mutable><input_type>text</input_type></attribute>"
        color = f"<color>{self._shot.class_colors[name]}</color>"
        return f"<label><name>{escape(escaped(name))}</name>{color}<attributes>{attribute}</attributes></label>"

    def _mask(self, number: int, mask: Bools) -> str:
        left, top, width, height = box_of(mask)
        lengths = ", ".join(map(str, runs(mask[top : top + height, left : left + width])))
        label = quoteattr(escaped(self._shot.objects[number]))
        return (
            f'    <mask label={label} source="auto" occluded="0" rle="{lengths}" left="{left}" top="{top}" '
            f'width="{width}" height="{height}" z_order="0">\n'
            f'      <attribute name="object_id">{number}</attribute>\n    </mask>\n'
        )


def parse(data: bytes) -> Element:
    """XML without a document type, which could expand to any size; raises `ValueError`."""
    builder, parser, count = TreeBuilder(), expat.ParserCreate(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > _MOST_ELEMENTS:
            raise ValueError("it has too many elements")
        builder.start(name, attributes)

    def refuse(*told: object) -> None:
        raise ValueError("it declares a document type, which annotations do not")

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    return builder.close()


def read(root: Element, path: Path) -> Drawings:
    """What a file holds, of CVAT for images 1.1 or of its tracks; raises `ValueError`."""
    images, others = [], 0
    for image in root.findall("image"):
        name = image.get("name", "")
        place = f"image {name!r}"
        size = checked_size(whole(image.get("height"), place), whole(image.get("width"), place), place)
        layers = sorted(image, key=lambda shape: whole(shape.get("z_order", 0), f"z_order in {place}"))
        found = [
            _shape(shape, shape.get("label"), None, f"{place}, shape {number}")
            for number, shape in enumerate(layers, 1)
        ]
        others += found.count(None)
        clip = folder_of(name) or image.get("task_id", "")
        images.append(Drawing(name, [shape for shape in found if shape], size, None, clip))
    tracked: dict[int, list[Shape]] = defaultdict(list)
    for number, track in enumerate(root.findall("track")):
        for shape in track:
            frame = whole(shape.get("frame"), f"a frame of track {number}")
            at = f"track {number}, frame {frame}"
            drawn = _shape(shape, track.get("label"), f"track {track.get('id', number)}", at)
            others += drawn is None
            if drawn and shape.get("outside") != "1":
                tracked[frame].append(drawn)
    task = root.find("meta/task/original_size")
    whole_size = None
    if task is not None:
        height, width = (whole(task.findtext(side), side) for side in ("height", "width"))
        whole_size = checked_size(height, width, "the task")
    images += [Drawing("", shapes, whole_size, frame) for frame, shapes in sorted(tracked.items())]
    return Drawings(path, "CVAT annotations", images, left_out(others, "shape", "tags, points and lines have no area"))


def _shape(shape: Element, label: str | None, track: str | None, place: str) -> Shape | None:
    """What an element draws; None where it has no area."""
    draw = _drawn(shape.tag, shape.attrib, place)
    if draw is None:
        return None
    said = [each.text or "" for each in shape.findall("attribute") if each.get("name") == "object_id"]
    number = int(said[0]) if said and re.fullmatch("[0-9]{1,9}", said[0].strip()) else None
    return Shape(checked_name(label, place), track if number is None else number, draw, place)


def _drawn(kind: str, said: Mapping[str, str], place: str) -> Draw | None:
    def numbers(*names: str) -> list[float]:
        return [_number(said.get(name), f"{name} of {place}") for name in names]

    degrees = _number(said.get("rotation", "0"), f"rotation of {place}")
    if kind == "polygon":
        pairs = [pair.split(",") for pair in said.get("points", "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{place} has points that are not written as x,y;x,y")
        return partial(filled, np.array([[_number(side, place) for side in pair] for pair in pairs]))
    if kind == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        middle = (left + right) / 2, (top + bottom) / 2
        corners: Corners = turned(rectangle(left, top, right, bottom), middle, degrees)
        return partial(filled, corners)
    if kind == "ellipse":
        x, y, across, down = numbers("cx", "cy", "rx", "ry")
        return partial(filled, ellipse(x, y, across, down, degrees))
    if kind == "mask":
        left, top, width, height = (
            whole(said.get(name), f"{name} of {place}") for name in ("left", "top", "width", "height")
        )
        size = checked_size(height, width, place)
        return partial(_unpacked, said.get("rle", ""), (left, top), size)
    return None


def _unpacked(text: str, corner: tuple[int, int], inside: tuple[int, int], size: tuple[int, int]) -> Bools:
    """A mask from the run lengths in its box; raises `ValueError`."""
    lengths = from_list([whole(count.strip(), "a run length") for count in text.split(",")])
    return pasted(expanded(lengths, inside[0] * inside[1]).reshape(inside), *corner)(size)


def _number(text: str | None, place: str) -> float:
    """A finite number from text; raises `ValueError`."""
    try:
        number = float(text or "")
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{place} is {text!r}, expected a number")
    return number
