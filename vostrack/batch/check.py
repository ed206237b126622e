"""Looks a plan over before anything runs: what would fail in the middle of the night is said now, all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

from vostrack.batch import remote
from vostrack.batch.task import Task
from vostrack.errors import InputError, MethodError, VostrackError, WeightsError, unknown_name
from vostrack.files import nearest, shown
from vostrack.formats import format_of
from vostrack.refine import REFINERS
from vostrack.run.place import address
from vostrack.video.images import image_size, is_black
from vostrack.video.playback import Playback
from vostrack.video.ranges import beyond, choose, is_gone
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
    faults = [*_name_faults(tasks, out), *_value_faults(tasks)]
    away = remote.faults({path for task in tasks for path in task.inputs if address(path)})
    checked = []
    for task in tasks:
        header, told = _looked_at(task)
        told += [*_place_faults(task, out), *(away[path] for path in task.inputs if away.get(path))]
        faults += [f"{_where(task)}: {fault}" for fault in told]
        checked.append(replace(task, frames=header.count))
    return checked, faults


def _looked_at(task: Task) -> tuple[Header, list[str]]:
    """What a clip says of itself, and what is wrong with it and its masks."""
    header, told = Header((), None), list[str]()
    try:
        playback = Playback(task.arguments.get("deinterlace", False), task.arguments.get("fps"))
        header = header if address(task.clip) else read_header(task.clip, playback)
    except (InputError, OSError, ValueError) as error:
        told.append(str(error))
    told += [*_frame_faults(task, header.count), *_object_faults(task)]
    for moment, path in task.masks.items():
        try:
            must_show = len(task.masks) == 1 or moment == 0
            told += [] if address(path) else _mask_faults(task, header, path, must_show)
        except OSError as error:
            told.append(f"cannot use mask {shown(path)!r}: {error.strerror}")
    return header, told


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


def _place_faults(task: Task, out: Path) -> Iterator[str]:
    """Inputs that lie where results of the clip would go."""
    here = os.path.abspath(out / task.name)
    for path in task.inputs:
        if f"{os.path.abspath(path)}{os.sep}".startswith(f"{here}{os.sep}"):
            yield f"{shown(path)} lies in the folder of its results, {shown(task.name)!r}: give another out"


def _value_faults(tasks: Sequence[Task]) -> Iterator[str]:
    """Formats and refinements that there are not, and files of weights, once each."""
    told = set[tuple[str, str]]()
    for task in tasks:
        exports = task.arguments.get("exports")
        wanted = {("exports", str(name)) for name in (exports if isinstance(exports, list | tuple | set) else ())}
        wanted |= {(kind, str(task.arguments[kind])) for kind in ("refine", "weights") if task.arguments.get(kind)}
        for kind, name in sorted(wanted - told):
            told.add((kind, name))
            try:
                _check_value(kind, name)
            except VostrackError as error:
                yield f"{_where(task)}: {error}"


def _check_value(kind: str, name: str) -> None:
    """Raise `VostrackError` where there is nothing of a name."""
    if kind == "exports":
        format_of(name)
    elif kind == "refine" and name not in REFINERS:
        raise MethodError(unknown_name("refinement", name, REFINERS))
    elif kind == "weights" and Path(name).suffix and not Path(name).is_file():
        raise WeightsError(f"there are no weights at {shown(name)}{nearest(Path(name)) or ': check the path'}")


def _frame_faults(task: Task, count: int | None) -> Iterator[str]:
    """Frames that a range, a mask or a span says, of which a clip of so many has none; times take decoding it."""
    span = task.arguments.get("range")
    if any(isinstance(moment, Fraction) for moment in (*task.masks, *(span if isinstance(span, tuple) else ()))):
        return
    try:
        chosen, masks = choose(task.clip, span, task.masks, task.arguments.get("start_number"))
        if count is not None:
            chosen.check_end(count)
    except VostrackError as error:
        yield str(error)
        return
    if count is None:
        return
    if (last := max(masks, default=0)) >= count:
        yield beyond(f"there is a mask for frame {last}", last, count)
    with suppress(AttributeError, TypeError, ValueError):  # of another shape: the run of the clip refuses it
        for name, spans in (task.arguments.get("gone") or {}).items():
            for first, end in spans:
                if (most := max(first, end or 0)) >= count:
                    yield beyond(is_gone(shown(name), first, end), most, count)


def _object_faults(task: Task) -> Iterator[str]:
    """Names of what no image of a mask can have: its objects are told by colours and numbers, not by words."""
    names = task.arguments.get("names")
    named = names.items() if isinstance(names, dict) else ()  # of another shape: the run of the clip refuses it
    wrong = [pair for pair in named if all(isinstance(each, str) for each in pair) and not pair[0].isdecimal()]
    if wrong and all(path.suffix.lower() in ENDINGS and not path.is_dir() for path in task.masks.values()):
        from vostrack.video.object_names import (
            exchanged,
            unnamed,
        )  # with torch, which a plan without faults never needs

        yield from (unnamed(*pair) + exchanged(*pair) for pair in wrong)


def _mask_faults(task: Task, header: Header, path: Path, must_show: bool) -> list[str]:
    """What is wrong with a mask; that of another tool takes reading it."""
    if not path.exists():
        return [f"cannot find mask {shown(path)!r}{nearest(path)}"]
    is_image, faults = path.is_file(), list[str]()
    for image in [path] if is_image else sorted(path.iterdir()):
        if image.suffix.lower() in ENDINGS and not image.name.startswith("."):
            faults += _image_faults(task, header, image, must_show and is_image)
    return faults


def _image_faults(task: Task, header: Header, image: Path, must_show: bool) -> Iterator[str]:
    """Whether an image cannot be read, shows nothing, or has another size or shape than the clip."""
    try:
        size, is_empty = image_size(image), must_show and not _read_otherwise(task) and is_black(image)
    except (InputError, OSError, ValueError) as error:
        yield str(error).replace("image ", "mask ", 1)
        return
    if is_empty:
        yield f"mask {shown(image)!r} has no object: all pixels are background; paint the object white"
    if not header.sizes or size in header.sizes:
        return
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
