"""`vostrack.export`: the masks of a finished run, for another tool."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from vostrack.errors import Cancelled, InputError, MaskError, OutputError, OutputExistsError, VostrackError
from vostrack.files import atomic_path, make_folder, shown
from vostrack.formats import FORMATS, Format, format_of
from vostrack.formats.base import Shot
from vostrack.formats.folder import atomic_folder
from vostrack.notes import Code, Note, by_severity
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.finished import Finished
from vostrack.run.place import HIDDEN, RESULTS
from vostrack.run.prompts import object_id
from vostrack.types import BACKGROUND, LabelMap, Prediction
from vostrack.video.ranges import Range, Span, choose
from vostrack.video.writer import ThreadedWriter

_WAITING = 2
"""Frames that wait to be written; they may be large."""

_OURS = (*RESULTS, HIDDEN)


def export(
    run: str | os.PathLike[str],
    format: str,  # noqa: A002
    out: str | os.PathLike[str] | None = None,
    *,
    only: Collection[int | str] = (),
    range: Range | None = None,  # noqa: A002
    start_number: int | None = None,
    clip: str | os.PathLike[str] | None = None,
    fps: Fraction | float | None = None,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the masks of a finished run in a format of another tool.

    Nothing is under its final name before it is complete.

    Args:
        run: output folder of `vostrack.segment`, or a folder of palette PNGs.
        format: name of the format (`vostrack export --help` lists them).
        out: file or folder to write; by default beside the run, as `dog_vostrack_coco.json`.
        only: ids or names of the objects that are wanted; all, if empty.
        range: first and last frame, both in it, or times, as for `vostrack.segment`; None for all frames of the run.
        start_number: number of the first frame in what is written; None for the names of the run.
        clip: where the clip is now, if it was moved; a folder of PNGs needs it for formats with images.
        fps: frames a second, where the clip is a folder of images; None for that of the run, or 24.
        overwrite: whether an earlier export is replaced.
        callbacks: what is called on the way.
        options: of the format: `hard`, `feather`, `grow`, `bits`, `each`.

    Returns:
        `format`, `out`, `frames`, `objects`, the names by id, and `warnings` and `notes` as in a summary.

    Raises:
        VostrackError: there is no such format, or it does not take such an option.
        OutputError: the run is not complete or damaged, or nothing can be written there.
        InputError, MaskError: the clip cannot be read; there is no such frame or object.
        Cancelled: the callbacks said so; nothing is written.
    """
    kind = format_of(format)
    chosen, make, callbacks = kind.choose(options), kind.writer(), checked_callbacks(callbacks)
    if fps is not None and not kind.images:
        raise VostrackError(f"{kind.name} has no frame rate: leave out fps")
    finished = Finished(Path(run), None if clip is None else Path(os.path.abspath(clip)), fps)
    span = _span(finished, range, start_number)
    objects = _objects(finished, only)
    path = Path(out) if out is not None else _default_out(Path(run), kind, chosen.each)
    _check_place(path, finished)
    notes = list[Note]()
    with _result(path, _is_folder(path, kind, chosen.each), overwrite) as temporary:
        soft = kind.soft and not chosen.hard
        if soft and not finished.is_soft:
            text = "the run kept no probabilities, so soft edges are made from its masks and the image alone"
            notes.append(Note(Code.EXPORT_EDGES, text))
        count = (span.last or 0) - span.first + 1
        name = finished.source.stem if finished.source else finished.path.resolve().name
        timed = finished.source if kind.images and finished.source and not finished.source.is_dir() else None
        rate = finished.rate() if kind.images else None
        shot = Shot(temporary, name, finished.size, count, objects, finished.image_name, chosen, timed, rate)
        done, writing = 0, ThreadedWriter([make(shot)], _WAITING)
        with writing, closing(finished.frames(span, kind.images, soft and finished.is_soft)) as frames:
            for done, prediction in enumerate(frames, 1):
                writing.write(_wanted(prediction, objects, span))
                callbacks.progress(done, count)
                if callbacks.cancelled():
                    raise Cancelled(f"cancelled after {done} frames: nothing was written")
            if done < count:
                raise InputError(f"{shown(finished.source)} ends early: it has {done} of {count} frames")
        finished.check_same()
    notes += writing.notes
    for note in notes:
        callbacks.note(note)
    named = {str(number): name for number, name in objects.items()}
    return {"format": kind.name, "out": str(path), "frames": count, "objects": named, **by_severity(notes)}


def _span(finished: Finished, wanted: Range | None, start_number: int | None) -> Span:
    """The frames that are wanted, which the run must have."""
    last = finished.first + len(finished.names) - 1
    source = finished.source if finished.source is not None else ()
    span, _ = choose(source, wanted, {}, start_number)
    first, end = (finished.first, last) if wanted is None else (span.first, last if span.last is None else span.last)
    if first < finished.first or end > last:
        raise InputError(f"the run has frames {finished.first} to {last}, not {first} to {end}: choose among these")
    return replace(span, first=first, last=end)


def _objects(finished: Finished, only: Collection[int | str]) -> dict[int, str]:
    """Names of the objects that are wanted, by id; raises `MaskError`."""
    names, wanted = finished.objects, set[int]()
    for key in only:
        alike = [number for number, name in names.items() if name == key]
        wanted |= set(alike or [object_id(key, tuple(names), names)])
    if not names:
        raise MaskError(f"{shown(finished.path)} shows no object")
    return {number: name for number, name in names.items() if number in wanted or not only}


def _default_out(run: Path, kind: Format, each: bool) -> Path:
    """`dog_vostrack_coco.json` beside `dog_vostrack`."""
    place = Path(os.path.abspath(run))
    name = f"{place.name}_{kind.name.replace('-', '_')}{'' if each else kind.ending}"
    return run.with_name(name) if run.name else place.with_name(name)


def _is_folder(path: Path, kind: Format, each: bool) -> bool:
    """Whether a folder is to be written; raises `OutputError` where the name is one of another format."""
    endings = ("",) if each else (kind.ending, *kind.endings)
    ending = path.suffix.lower()
    if ending and ending in endings:
        return False
    others = {ending for other in FORMATS.values() for ending in (other.ending, *other.endings)} - {""}
    if "" in endings and ending not in others:
        return True
    wanted = " or ".join(ending or "no ending, for a folder" for ending in endings)
    raise OutputError(f"{shown(path)}: {kind.name} needs a name with {wanted}")


@contextlib.contextmanager
def _result(path: Path, folder: bool, overwrite: bool) -> Iterator[Path]:
    """Where to write what gets a name at the end."""
    if folder:
        with atomic_folder(path, overwrite) as temporary:
            yield temporary
        return
    if os.path.lexists(path) and not (overwrite and path.is_file() and not path.is_symlink()):
        raise OutputExistsError(f"{shown(path)} is there already: choose another `out`, or `overwrite=True`")
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        yield temporary


def _check_place(path: Path, finished: Finished) -> None:
    """Refuse to write over an input, or among the frames of a clip or the results of a run."""
    here, run = path.resolve(), finished.path.resolve()
    source = finished.source.resolve() if finished.source else None
    inside = [run / name for name in _OURS] if finished.is_run else [run]
    inside += [source] if source and source.is_dir() else []
    if here in (run, source) or any(here.is_relative_to(place) for place in inside):
        raise OutputError(f"{shown(path)} would be among the inputs: choose another `out`")


def _wanted(prediction: Prediction, objects: dict[int, str], span: Span) -> Prediction:
    """A prediction with the objects that are wanted alone, under the name that it gets."""
    frame, pixels = prediction.frame, prediction.labels.pixels
    keep = torch.zeros(256, dtype=torch.uint8)
    keep[list(objects)] = torch.tensor(list(objects), dtype=torch.uint8)
    pixels = torch.where(pixels == BACKGROUND, pixels, keep[pixels.int()])
    if span.start_number is not None:
        frame = replace(frame, name=f"{frame.index + span.shift:05d}")
    return replace(prediction, frame=frame, labels=LabelMap(pixels, prediction.ids))
