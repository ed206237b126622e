"""YOLO segmentation: `images/`, `labels/` with a line for each object, and `data.yaml`.

Source: the dataset format of docs.ultralytics.com: class, then x and y of the corners, as shares of width and height.
An object is one polygon, whose parts and holes are joined by bridges of no width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vostrack.files import open_regular, shown, write_text
from vostrack.formats.base import Bools, Shot, jpeg, objects_in
from vostrack.formats.drawings import MOST_IMAGES, Drawing, Drawings, Shape, checked_name, left_out
from vostrack.formats.polygons import Corners, filled, polygon
from vostrack.notes import Code, Note
from vostrack.types import Prediction
from vostrack.video.mask_labels import listed
from vostrack.video.series import natural_key
from vostrack.video.writer import FileWriter

_MOST_BYTES = 64 << 20
_NEARLY = 1e-3
"""How far beyond the image a corner may be, as a share of it, since some programs round up."""


class YoloSeg(FileWriter):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._shot = shot

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        name = prediction.frame.name
        lines = (self._line(number, polygon(mask).tolist()) for number, mask in objects_in(prediction))
        yield f"labels/{name}.txt", "".join(lines).encode()
        yield f"images/{name}.jpg", jpeg(prediction)

    def _line(self, number: int, points: list[list[int]]) -> str:
        height, width = self._shot.size
        shares = [f"{x / width:.7g} {y / height:.7g}" for x, y in points]
        return f"{self._shot.classes[self._shot.objects[number]] - 1} {' '.join(shares)}\n"

    def finish(self) -> None:
        """Write `data.yaml`; names are quoted as in JSON, which YAML reads, and comments give the ids of objects."""
        objects = self._shot.named.items()
        names = "".join(
            f"  {number - 1}: {json.dumps(name, ensure_ascii=False)}{_OBJECT}"
            f"{', '.join(str(each) for each, called in objects if called == name)}\n"
            for name, number in self._shot.classes.items()
        )
        text = f"train: images\nval: images\nnames:\n{names}"
        write_text(self._shot.out / "data.yaml", text)


def label_files(folder: Path) -> list[Path]:
    """Files of labels in a folder, or in `labels/` in it, but for lists of classes; none where there are none."""
    place = folder / "labels" if (folder / "labels").is_dir() else folder
    found = (path for path in place.rglob("*.txt") if not path.name.startswith(".") and path.name != _CLASSES)
    files = [path for _, path in zip(range(MOST_IMAGES), found, strict=False)]
    return sorted(files, key=lambda path: natural_key(path.as_posix()))


def read(folder: Path, files: Sequence[Path]) -> Drawings:
    """What the files of a folder hold; raises `ValueError`."""
    (names, ids), left, images, boxes = _names(folder), _MOST_BYTES, [], 0
    used = dict[str, str]()
    for path in files:
        text = _text(path, left)
        left -= len(text)
        shapes = []
        for number, line in enumerate(text.splitlines(), 1):
            kind, *numbers = line.split() or ("",)
            place = f"{shown(path.name)}, line {number}"
            boxes += len(numbers) == 4
            if kind and len(numbers) != 4:
                shapes.append(_shape(kind, numbers, names, ids, place))
                used[kind] = shapes[-1].name
        parts = path.relative_to(folder).parts
        images.append(Drawing(path.stem, shapes, clip=parts[-2] if len(parts) > 2 else ""))
    told = listed([f"{kind} is {shown(used[kind])}" for kind in sorted(used, key=natural_key)])
    classes = [Note(Code.MASK_IDS, f"of its classes, {told}")] if used else []
    return Drawings(folder, "YOLO labels", images, [*classes, *left_out(boxes, "line", "boxes are no masks")])


def _shape(kind: str, numbers: list[str], names: dict[int, str], ids: dict[int, int], place: str) -> Shape:
    """What a line draws; raises `ValueError`."""
    try:
        corners = np.array([float(number) for number in numbers], np.float64).reshape(-1, 2)
        number = int(kind)
    except ValueError:
        raise ValueError(f"{place}: expected a class and then pairs of x and y") from None
    if len(corners) < 3 or not (np.abs(corners - 0.5) <= 0.5 + _NEARLY).all():
        raise ValueError(f"{place}: expected three corners or more, from 0 to 1")
    name, draw = names.get(number) or f"class_{number}", partial(_drawn, corners)
    return Shape(name, None, draw, place, number=ids.get(number))


def _drawn(shares: Corners, size: tuple[int, int]) -> Bools:
    return filled(shares * size[::-1], size)


_CLASSES, _YAML = "classes.txt", ("data.yaml", "dataset.yaml", "data.yml")
CLASSES = (_CLASSES, *_YAML)
"""Files that name classes."""


def _names(folder: Path) -> tuple[dict[int, str], dict[int, int]]:
    """Names of classes, and ids of objects, by number, from `data.yaml` or `classes.txt` in the folder or beside it.

    Raises:
        ValueError: it cannot be read.
    """
    for place in (folder, folder.parent):
        for name in _YAML:
            if (place / name).is_file():
                return _from_yaml(_text(place / name, _LARGEST), name)
        if (place / _CLASSES).is_file():
            lines = _text(place / _CLASSES, _LARGEST).splitlines()
            return {at: checked_name(line.strip(), _CLASSES) for at, line in enumerate(lines) if line.strip()}, {}
    return {}, {}


_LIST = r"""(?mx) ^names:[ \t]* ( \[[^\]]*\] | \{[^}]*\} )? [ \t]* (?:\#.*)? $
    ( (?: \n[ \t]* (?: [-\#].* | [0-9]+[ \t]*:.* )? )* )"""
_ENTRY = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^,"'])+"""
_LARGEST = 1 << 20
_OBJECT = "  # object "


def _from_yaml(text: str, place: str) -> tuple[dict[int, str], dict[int, int]]:
    """`names` of YAML: numbered, as a list, or as one in brackets; other YAML is not read. Raises `ValueError`.

    The comments of an export give the ids of objects.
    """
    block = re.search(_LIST, text)
    if block is None:
        raise ValueError(f"{place} has no `names:` that can be read: list them below it in lines such as `  0: dog`")
    entries = re.findall(_ENTRY, block[1][1:-1]) if block[1] else block[2].split("\n")
    names, ids = dict[int, str](), dict[int, int]()
    for entry in entries:
        rest, _, told = entry.strip().rpartition(_OBJECT.strip() + " ")
        if not (rest[-1:].isspace() and re.fullmatch("[0-9, ]+", told)):
            rest, told = entry.strip(), ""
        match = re.fullmatch(r"(?:-\s|([0-9]{1,9})\s*:\s)?\s*(\S.*)", rest.rstrip())
        if match is None or match[2].startswith("#"):
            continue
        number = int(match[1]) if match[1] else len(names)
        names[number] = checked_name(_unquoted(match[2]), place)
        if first := re.match("[1-9][0-9]{0,2}", told):
            ids[number] = int(first[0])
    return names, ids


def _unquoted(text: str) -> str:
    """A scalar of YAML; one in double quotes as in JSON."""
    if text[0] == text[-1] == '"' and len(text) > 1:
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return (
        text[1:-1].replace("''", "'")
        if text[0] == text[-1] == "'" and len(text) > 1
        else text.partition(" #")[0].strip()
    )


def _text(path: Path, most: int) -> str:
    """A text file of a bounded size; raises `ValueError`."""
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError("it is too large")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(path.name)} cannot be read: {getattr(error, 'strerror', None) or error}") from error
