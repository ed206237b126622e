"""Looks a plan over before anything runs: what would fail in the middle of the night is said now, all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vostrack.batch import remote
from vostrack.batch.task import Task
from vostrack.errors import InputError, VostrackError
from vostrack.files import shown
from vostrack.formats import format_of
from vostrack.run.place import address
from vostrack.video.images import image_size, is_black
from vostrack.video.reader import Header, read_header
from vostrack.video.series import ENDINGS
from vostrack.video.stream import is_stretched, size_text

_NAME_BYTES = 255


def check(tasks: Sequence[Task], out: Path) -> tuple[list[Task], list[str]]:
    """Find what is wrong with tasks, without decoding clips.

    Args:
        tasks: what is wanted.
        out: folder of all results.

    Returns:
        The tasks, with the numbers of frames that their headers say, and the faults.
    """
    faults = [*_name_faults(tasks, out), *_export_faults(tasks)]
    away = remote.faults({path for task in tasks for path in task.inputs if address(path)})
    checked = []
    for task in tasks:
        faults += [f"{_where(task)}: {away[path]}" for path in task.inputs if away.get(path)]
        try:
            header = Header((), None) if address(task.clip) else read_header(task.clip)
            checked.append(replace(task, frames=header.count))
            faults += [f"{_where(task)}: {fault}" for fault in _mask_faults(task, header)]
        except (InputError, OSError, ValueError) as error:
            faults.append(f"{_where(task)}: {error}")
    return checked, faults


def _name_faults(tasks: Sequence[Task], out: Path) -> Iterator[str]:
    """Folders that two clips would share, that lie in each other or not below that of all results."""
    taken: dict[str, Task] = {}
    for task in tasks:
        path = PurePosixPath(task.name)
        parts = task.name.split("/")
        if path.is_absolute() or any(part in ("", ".", "..") or "\\" in part for part in parts):
            yield f"{_where(task)}: out {shown(task.name)!r} is no folder below that of all results: give a name"
            continue
        if (
            parts[0].startswith(".")
            or not task.name.isprintable()
            or any(len(os.fsencode(part)) > _NAME_BYTES for part in parts)
        ):
            yield f"{_where(task)}: {shown(task.name)!r} cannot be a folder of results: give another name as out"
            continue
        folded = task.name.casefold()  # some systems do not tell Dog from dog
        if other := taken.get(folded):
            is_twice = "it is the same clip; remove one, or " if task.clip == other.clip else ""
            yield (
                f"{_where(task)}: its results would go to {shown(task.name)!r}, as those of {_where(other)}: "
                f"{is_twice}give one of them another name as out"
            )
        taken.setdefault(folded, task)
    for folded, task in taken.items():
        for parent in PurePosixPath(folded).parents:
            if other := taken.get(str(parent)):
                yield f"{_where(task)}: {shown(task.name)!r} lies in results of {_where(other)}: give another out"


def _export_faults(tasks: Sequence[Task]) -> Iterator[str]:
    """Formats that there are not, once each."""
    wanted: dict[str, Task] = {}
    for task in tasks:
        for name in task.arguments.get("exports") or ():
            wanted.setdefault(str(name), task)
    for name, task in wanted.items():
        try:
            format_of(name)
        except VostrackError as error:
            yield f"{_where(task)}: {error}"


def _mask_faults(task: Task, header: Header) -> Iterator[str]:
    """Masks that are not there, show nothing, or have another size or shape than the clip."""
    for moment, path in task.masks.items():
        if address(path):
            continue
        if not path.exists():
            yield f"cannot find mask {shown(path)!r}"
            continue
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        image = files[0] if files and files[0].suffix.lower() in ENDINGS else None
        if image is None:
            continue  # of another tool, or nothing: that takes reading it
        must_show = image == path and (len(task.masks) == 1 or moment == 0)
        try:
            size, is_empty = image_size(image), must_show and not _read_otherwise(task) and is_black(image)
        except (InputError, OSError, ValueError) as error:
            yield str(error).replace("image ", "mask ", 1)
            continue
        if is_empty:
            yield f"mask {shown(image)!r} has no object: all pixels are background; paint the object white"
        if not header.sizes or size in header.sizes:
            continue
        differs = f"mask {shown(image)!r} is {size_text(size)}, the clip is {size_text(header.sizes[0])}"
        if all(is_stretched(size, other) for other in header.sizes):
            yield f"{differs}, which has another shape: draw the mask on a frame of this clip"
        elif not task.arguments.get("resize_mask"):
            yield f"{differs}: draw it on a frame of the clip, or accept it with `resize_mask=True`"


def _read_otherwise(task: Task) -> bool:
    """Whether something else than black is background in its masks."""
    return any(task.arguments.get(name) not in (None, False) for name in ("background", "invert_mask"))


def _where(task: Task) -> str:
    return task.where or shown(task.clip)
