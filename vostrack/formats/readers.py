"""Masks of other tools: the table of readers. What a file is, its content says; what is none of these is an image.

Each reader lives with the writer of its format, and is imported when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vostrack.errors import MaskError
from vostrack.files import open_regular, parse_json, read_json, shown
from vostrack.formats.drawings import MOST_IMAGES, Drawings, checked_name
from vostrack.video.series import ENDINGS, VIDEO_ENDINGS, natural_key

_MOST_BYTES = 128 << 20
_HEAD = 4096
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)

_JSON: Sequence[tuple[str, set[str]]] = (
    ("labelme", {"shapes", "imagePath"}),
    ("ytvis", {"videos", "annotations", "categories"}),
    ("coco", {"images", "annotations", "categories"}),
    ("sa_v", {"masklet"}),
    ("label_studio", {"data"}),
)
"""Modules of this package, and what their JSON has at its top, or in each entry of its list."""


@dataclass(frozen=True)
class _Summary:
    """What is read of the summary of a run."""

    objects: dict[str, dict[str, Any]]


def read_drawings(path: Path, frames: Collection[str] = ()) -> Drawings | None:
    """What a file or folder holds, if it is in the format of another tool; None if it is an image, or a folder of some.

    Nothing is drawn yet. A file that is not there is no such file.

    Args:
        path: of it; untrusted.
        frames: names of the frames of the clip, without endings: palette images that are named so are their masks,
            unless the names are numbers below 1000, which may be those of objects.

    Raises:
        MaskError: it is in such a format, and cannot be read.
    """
    try:
        return _folder(path, frames) if path.is_dir() else _file(path)
    except (ValueError, OSError) as error:
        raise MaskError(f"mask {shown(path)} cannot be read: {shown(error)}") from error


def _file(path: Path) -> Drawings | None:
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except (ValueError, OSError):
        return None  # the reader of images says what is wrong
    for fits, read in _CONTENTS:
        if fits(head):
            return read(path)
    if path.name in _module("yolo_seg").CLASSES:
        raise ValueError(f"it names the classes of YOLO labels: give their folder, {shown(path.parent)}")
    return None


def _folder(folder: Path, frames: Collection[str] = ()) -> Drawings | None:
    if (folder / "masks").is_dir() and (folder / "summary.json").is_file():
        return _run(folder)
    entries = [path for _, path in zip(range(MOST_IMAGES), folder.iterdir(), strict=False)]
    entries = sorted(
        (path for path in entries if not path.name.startswith(".")), key=lambda path: natural_key(path.name)
    )
    images = [path for path in entries if path.suffix.lower() in ENDINGS and path.is_file()]
    for ending, read in _ENDINGS.items():
        found = [path for path in entries if path.suffix.lower() == ending]
        if found and (not images or (ending == ".json" and _is_labelme(found[0]))):
            return _together(folder, [read(path) for path in found])
    movies = [path for path in entries if path.suffix.lower() in VIDEO_ENDINGS]
    if not images and movies:
        return _read("movies", movies, folder)
    if not images and (labels := _module("yolo_seg").label_files(folder)):
        return _read("yolo_seg", folder, labels)
    names = {path.stem for path in images}
    return _pictures(folder, images, names <= {*frames} and not all(re.fullmatch("[0-9]{1,3}", name) for name in names))


def _run(folder: Path) -> Drawings | None:
    """The masks of a run, with the names of its objects."""
    objects: dict[str, dict[str, Any]] = read_json(folder / "summary.json", _Summary).objects
    names = {
        number: checked_name(each["name"], f"object {number}") for number, each in objects.items() if each.get("name")
    }
    files = [path for path in (folder / "masks").iterdir() if path.suffix.lower() == ".png"]
    masks = _pictures(folder / "masks", files, named=True)
    if masks is None:
        return None
    images = [
        replace(image, shapes=[replace(shape, name=names.get(str(shape.track), "")) for shape in image.shapes])
        for image in masks.images
    ]
    return replace(masks, path=folder, kind="the masks of a run", images=images)


def _together(folder: Path, files: Sequence[Drawings]) -> Drawings:
    """The files of a folder as one; raises `ValueError` where they are of several kinds."""
    kinds = sorted({file.kind for file in files})
    if len(kinds) > 1:
        raise ValueError(f"it holds files of several kinds, {' and '.join(kinds)}: give one of them")
    images = [image for file in files for image in file.images]
    return Drawings(folder, kinds[0], images, [note for file in files for note in file.notes])


def _pictures(folder: Path, images: Sequence[Path], named: bool) -> Drawings | None:
    """Images of many frames, perhaps `named` like them; None where they are objects of one frame, or there are none."""
    below = () if images else (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [path for _, path in zip(range(MOST_IMAGES), below, strict=False)] or images
    names = sorted((path.relative_to(folder).as_posix() for path in found), key=natural_key)
    if not names or (images and not _may_be_frames(images)):
        return None
    try:
        files = {name: partial(_bytes, folder / name) for name in names}
        read: Drawings | None = _module("layouts").read(files, folder, named=named)
        return read
    except ValueError:
        if images:
            return None
        raise


def _may_be_frames(images: Sequence[Path]) -> bool:
    """Whether images may be frames instead of objects of one: they are numbered so, or the first one has a palette."""
    with open_regular(images[0]) as file:
        head = file.read(26)
    numbered = len(images) > 1 and all(re.fullmatch("[0-9]{4,}", path.stem) for path in images)
    return numbered or (head.startswith(b"\x89PNG") and head[25:] == b"\x03")


def _is_labelme(path: Path) -> bool:
    try:
        return _json_module(_parsed(_bytes(path))) == "labelme"
    except (OSError, ValueError):
        return False


def _json(path: Path) -> Drawings:
    return _from_json(_bytes(path), path)


def _from_json(data: bytes, path: Path) -> Drawings:
    try:
        value = _parsed(data)
        module = _json_module(value)
        if module is None:
            raise ValueError("it is JSON, but none of COCO, YouTube-VIS, SA-V, LabelMe or Label Studio")
        return _read(module, value, path)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _json_module(value: Any) -> str | None:
    """The module that reads JSON, by what it has at its top."""
    top = value[0] if isinstance(value, list) and value else value
    keys = set(top) if isinstance(top, dict) else set()
    return next((module for module, needed in _JSON if needed <= keys), None)


def _xml(path: Path) -> Drawings:
    return _from_xml(_bytes(path), path)


def _from_xml(data: bytes, path: Path) -> Drawings:
    root = _module("cvat").parse(data)
    if root.tag != "annotations":
        raise ValueError("it is XML, but not of CVAT")
    return _read("cvat", root, path)


def _labels(path: Path) -> Drawings:
    return _read("yolo_seg", path.parent, [path])


def _exr(path: Path) -> Drawings:
    if importlib.util.find_spec("OpenEXR") is None:
        raise ValueError("OpenEXR files need OpenEXR: pip install 'vostrack[exr]'")
    return _read("exr", path)


def _movie(path: Path) -> Drawings:
    return _read("movies", [path], path)


def _archive(path: Path) -> Drawings:
    """A zip file of palette images, or one with one file of annotations; nothing is unpacked to the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.filename.endswith("/")][:MOST_IMAGES]
            told = [each for each in members if each.filename.lower().endswith((".json", ".xml"))]
            images = sorted(
                (each for each in members if PurePosixPath(each.filename).suffix.lower() in ENDINGS),
                key=lambda each: natural_key(each.filename),
            )
            if len(told) == 1:
                read = _from_json if told[0].filename.lower().endswith(".json") else _from_xml
                return read(_member(archive, told[0]), path)
            if told or not images:
                raise ValueError(f"it holds {len(told)} files of annotations: unpack it and give the one that is meant")
            files = {each.filename: partial(_member, archive, each) for each in images}
            found: Drawings = _module("layouts").read(files, path, flat=False)
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        raise ValueError(f"it is a damaged archive: {error}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type not in _PACKED:  # LZMA takes as much memory as a file says
        raise ValueError(f"{info.filename} is packed in a way that is not read: pack it by deflate, as usual")
    with archive.open(info) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{info.filename} has more than {_MOST_BYTES:,} bytes")
    return data


def _parsed(data: bytes) -> Any:
    return parse_json(data.decode("utf-8-sig"))


def _bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    return data


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _read(module: str, *content: Any) -> Drawings:
    found: Drawings = _module(module).read(*content)
    if len(found.images) > MOST_IMAGES:
        raise ValueError(f"it has more than {MOST_IMAGES:,} images")
    return found


_MOVIE = rb"\x1a\x45\xdf\xa3|RIFF....AVI |....(?:ftyp(?!avi[fs]|hei|mif)|moov|mdat|wide|free)"

_CONTENTS: Sequence[tuple[Callable[[bytes], object], Callable[[Path], Drawings]]] = (
    (re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]").match, _json),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<").match, _xml),
    (re.compile(rb"\d+(?: [\d.e-]+){4,}\s").match, _labels),
    (re.compile(rb"\x76\x2f\x31\x01").match, _exr),
    (re.compile(rb"PK\x03\x04").match, _archive),
    (
        re.compile(rb"\x1a\x45\xdf\xa3|RIFF....AVI |....(ftyp(?!avi[fs]|hei|mif)|moov|mdat|wide|free)", re.S).match,
        _movie,
    ),
)
"""What a file begins with, and its reader."""

_ENDINGS: Mapping[str, Callable[[Path], Drawings]] = {".json": _json, ".xml": _xml, ".exr": _exr}
"""Files that a folder may hold many of, an image each."""
