"""The lists that come with datasets: which sequences a split has, which frames count, when objects appear.

Lists are untrusted: a name is a plain name or it is refused, so that no list leads out of its dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vostrack.errors import DatasetError
from vostrack.files import shown
from vostrack.types import MAX_OBJECTS

_MAX_BYTES = 1 << 26


def plain_name(name: object, where: Path) -> str:
    """A name from a list, if it names something in a folder and nothing outside of it.

    Raises:
        DatasetError: it is a path, empty, hidden, or not printable.
    """
    if not isinstance(name, str) or not name.isprintable() or not re.fullmatch(r"[^./\\:][^/\\:]{0,199}", name):
        raise DatasetError(f"{shown(where)} names {shown(repr(name)[:80])}, which is no name of a sequence or frame")
    return name


def read_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Sequences of a split, each with the frames that the list names; no frames where it names the sequence alone.

    Args:
        path: a text file with a sequence in each line, or, as in DAVIS-2016, a frame and its mask:
            "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png".

    Raises:
        DatasetError: it is missing, or a line cannot be understood.
    """
    frames: dict[str, list[str]] = {}
    for line in _read(path).splitlines():
        words = line.split()
        if not words:
            continue
        # The first path alone: of a pair, both lead to the same frame.
        parts = words[0].strip("/").split("/")
        if len(parts) == 1 and len(words) == 1:
            frames.setdefault(plain_name(words[0], path), [])
        elif len(parts) > 2 and len(words) <= 2:
            for part in parts:
                plain_name(part, path)
            frames.setdefault(parts[-2], []).append(Path(parts[-1]).stem)
        else:
            raise DatasetError(f"{shown(path)} has a line {shown(line[:80])!r}: expected a sequence or a pair of files")
    if not frames:
        raise DatasetError(f"{shown(path)} names no sequence")
    return {name: tuple(dict.fromkeys(found)) for name, found in frames.items()}


def read_meta(path: Path) -> dict[str, dict[int, tuple[str, ...]]]:
    """Frames of each object of each sequence, from YouTube-VOS's `meta.json`.

    Raises:
        DatasetError: it is missing or not laid out so.
    """
    try:
        videos = json.loads(_read(path))["videos"]
        return {plain_name(name, path): _objects(video["objects"], path) for name, video in videos.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{shown(path)} is not YouTube-VOS's list of videos and objects ({shown(error)})") from error


def _objects(objects: Mapping[str, Any], path: Path) -> dict[int, tuple[str, ...]]:
    found = {int(number): tuple(plain_name(f, path) for f in entry["frames"]) for number, entry in objects.items()}
    if any(not 1 <= number <= MAX_OBJECTS or not frames for number, frames in found.items()):
        raise ValueError(f"objects need ids from 1 to {MAX_OBJECTS} and frames")
    return found


def read_attributes(folder: Path) -> dict[str, tuple[str, ...]]:
    """DAVIS's attributes of its sequences, from `db_info.yaml`; none where the file is not there.

    Only the two fields that matter are looked for, which needs no YAML reader: "name: dog" and "attributes: [FM, OCC]".
    """
    for path in (folder / "db_info.yaml", folder / "data" / "db_info.yaml", folder / "Annotations" / "db_info.yml"):
        if path.is_file():
            entries = re.split(r"^\s*- (?=\w+:)", _read(path), flags=re.MULTILINE)
            pairs = (
                (re.search(r"\bname: *([\w-]+)", entry), re.search(r"\battributes: *\[([^\]]*)\]", entry))
                for entry in entries
            )
            return {name[1]: tuple(re.findall(r"\w+", given[1])) for name, given in pairs if name and given}
    return {}


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("it is missing")
        if path.stat().st_size > _MAX_BYTES:
            raise OSError("it is too large for a list")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read list {shown(path)}: {shown(error)}") from error
