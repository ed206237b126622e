"""`vostrack.export`: the masks of a finished run, for another tool."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vostrack import __version__
from vostrack.errors import (
    Cancelled,
    ExportError,
    InputError,
    MaskError,
    MethodError,
    OutputError,
    VostrackError,
    exit_code,
)
from vostrack.files import OutputRoot, escaped, read_json, shown
from vostrack.formats import FORMATS, ExportOptions, Format, format_of
from vostrack.formats.base import Shot
from vostrack.formats.staged import check_free, drop_rest, remove, staged
from vostrack.notes import Code, Note, by_severity
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.finished import Finished
from vostrack.run.place import EXPORTS, HIDDEN, RESULTS
from vostrack.run.prompts import object_id
from vostrack.types import LabelMap, Prediction
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
    resume: bool = False,
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
        resume: whether an export that was broken off goes on: in a folder with files for each frame, those that are
            complete stay; others start at the first frame, with a note.
        callbacks: what is called on the way.
        options: of the format: `hard`, `feather`, `grow`, `bits`, `each`, `polygons`, `folders`.

    Returns:
        `format`, `out`, `clip` (or None), `frames`, `objects`, the names by id, and `warnings` and `notes` as in a
        summary.

    Raises:
        MethodError: there is no such format, or it does not take such an option.
        OutputError: the run is not complete or damaged, or nothing can be written there.
        InputError, MaskError: the clip cannot be read; there is no such frame or object.
        Cancelled: the callbacks said so; nothing has the name that was wanted.
    """
    kind = format_of(format)
    chosen, make, callbacks = kind.choose(options), kind.writer(), checked_callbacks(callbacks)
    if fps is not None and not kind.images:
        raise MethodError(f"{kind.name} has no frame rate: leave out `fps`")
    finished = Finished(Path(run), None if clip is None else Path(os.path.abspath(clip)), fps)
    span = _span(finished, range, start_number)
    objects = _objects(finished, only)
    path = Path(out) if out is not None else default_out(finished.path, kind, chosen.each)
    _check_place(path, finished)
    is_folder = _is_folder(path, kind, chosen.each)
    by_frame = is_folder and not (chosen.each and kind.ending)
    named = {str(number): name for number, name in objects.items()}
    what = {"format": kind.name, "options": asdict(chosen), "objects": named}
    record = {**what, **span.record(), **_source(finished, fps)}
    with staged(path, is_folder, record, keeps=by_frame, overwrite=overwrite, resume=resume) as stage:
        soft = kind.soft and not chosen.hard
        shot = _shot(finished, kind, stage.path, span, objects, chosen)
        writing = ThreadedWriter([make(shot), *([stage] if by_frame else [])], _WAITING)
        left = replace(span, first=span.first + stage.done)
        with writing, closing(finished.frames(left, kind.images, soft and finished.is_soft)) as frames:
            _write(frames, writing, shot, span, stage.done, by_frame, callbacks)
        finished.check_same()
    notes = stage.notes + writing.notes
    if soft and not finished.is_soft:
        text = "the run kept no probabilities, so soft edges are made from its masks and the image alone"
        notes.append(Note(Code.EXPORT_EDGES, text))
    for note in notes:
        callbacks.note(note)
    source = finished.source and str(finished.source)
    said = {"frames": shot.count, "objects": named, **by_severity(notes)}
    return {"format": kind.name, "out": str(path), "clip": source, **said}


def _shot(
    finished: Finished, kind: Format, path: Path, span: Span, objects: Mapping[int, str], options: ExportOptions
) -> Shot:
    """What is exported, but for its frames."""
    count = (span.last or 0) - span.first + 1
    name = finished.source.stem if finished.source else finished.path.resolve().name
    name = re.sub(r'[\\/:*?"<>|]', "_", escaped(name)).strip(". ") or "clip"  # folders get it, also in archives
    timed = finished.source if kind.images and finished.source and not finished.source.is_dir() else None
    rate = finished.rate() if kind.images else None
    told = finished.image_name, options, timed, rate, finished.colors, finished.objects
    return Shot(path, name, finished.size, count, objects, *told)


def _write(
    frames: Iterator[Prediction],
    writing: ThreadedWriter,
    shot: Shot,
    span: Span,
    done: int,
    keeps: bool,
    callbacks: Callbacks,
) -> None:
    """Write the frames of a span that are not done; those that are done stay where it is broken off, if it `keeps`."""
    for number in range(done + 1, shot.count + 1):
        prediction = next(frames, None)
        if prediction is None:
            raise InputError(f"{shown(shot.name)} ends early: it has {number - 1} of {shot.count} frames")
        writing.write(_wanted(prediction, shot.objects, span))
        callbacks.progress(number, shot.count)
        if callbacks.cancelled():
            left = "go on with `resume=True`" if keeps else "nothing was written"
            raise Cancelled(f"cancelled after {number} frames: {left}")


class Exports:
    """The exports that a run ends with: their places are checked before it starts, and it makes them when complete.

    Attributes:
        run: output folder of the run.
    """

    def __init__(self, names: Iterable[str], run: Path) -> None:
        """Take names of formats, and the output folder of the run.

        Raises:
            MethodError: there is no such format.
            OutputError: a package that it needs is not there.
        """
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise MethodError(f"exports must be a list of names such as ['coco'], not {names!r}")
        self.run, self._places = run, dict[Format, Path]()
        for kind in map(format_of, names):
            kind.writer()
            self._places[kind] = default_out(run, kind)

    def check(self, inputs: Iterable[Path], overwrite: bool, resume: bool) -> None:
        """Raise `OutputError` where an export would replace what is not of this run, or an input."""
        known, taken = self._known() if resume else set[str](), {path.resolve() for path in inputs}
        for kind, path in self._places.items():
            if path.resolve() in taken:
                raise OutputError(
                    f"{shown(path)} is an input, and would be replaced by the export: choose another `out`"
                )
            if kind.name not in known:
                check_free(path, not kind.ending, overwrite)

    def begin(self, overwrite: bool, resume: bool) -> None:
        """Keep in the folder of the run, which has begun, that what is there from now on is of this run."""
        known = self._known() if resume else set[str]()
        for path in self._places.values() if overwrite and not resume else ():
            remove(path)
        root, names = OutputRoot(self.run), {*known, *(kind.name for kind in self._places)}
        if names:
            root.write_json(EXPORTS, sorted(names))

    def make(self, clip: Path, callbacks: Callbacks) -> dict[str, Any]:
        """Make those that are missing; where they are by format, and what was noted, as in a summary."""
        made = list[dict[str, Any]]()
        for kind, path in self._places.items():
            if os.path.lexists(path):
                drop_rest(path)
            else:
                callbacks.phase(f"exporting {kind.name}")
                try:
                    made.append(export(self.run, kind.name, path, clip=clip, resume=True, callbacks=callbacks))
                except Cancelled:
                    raise
                except (VostrackError, OSError) as error:
                    text = f"the masks are complete, but their export as {kind.name} failed: {error}"
                    raise ExportError(text, exit_code(error)) from error
        told = {each: [note for one in made for note in one[each]] for each in ("warnings", "notes")}
        return {"exports": {kind.name: str(path) for kind, path in self._places.items()}, **told}

    def _known(self) -> set[str]:
        with contextlib.suppress(OSError, ValueError):
            return set(read_json(OutputRoot(self.run).at(EXPORTS), list[str]))
        return set()


def older(run: Path) -> list[Note]:
    """Notes on exports that lie beside a run and are older than what it becomes now."""
    notes = []
    for kind in FORMATS.values():
        for path in dict.fromkeys(default_out(run, kind, each) for each in (False, True)):
            if os.path.lexists(path):
                text = f"{shown(path)} may be of the run as it was before: export it again with `overwrite=True`"
                notes.append(Note(Code.EXPORT_OLDER, text))
    return notes


def _source(finished: Finished, fps: Fraction | float | None) -> dict[str, Any]:
    """What an export is made from, as its record has it."""
    return {
        "run": finished.digest(),
        "clip": str(finished.source),
        "fps": fps and str(Fraction(fps)),
        "vostrack": __version__,
    }


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


def default_out(run: Path, kind: Format, each: bool = False) -> Path:
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
    wanted = " or ".join(f"that ends with {each}" if each else "without an ending, for a folder" for each in endings)
    raise OutputError(f"{shown(path)}: {kind.name} needs a name {wanted}")


def _check_place(path: Path, finished: Finished) -> None:
    """Refuse to write over an input, or among the frames of a clip or the results of a run."""
    here, run = path.resolve(), finished.path.resolve()
    source = finished.source.resolve() if finished.source else None
    inside = [run / name for name in _OURS] if finished.is_run else [run]
    inside += [source] if source and source.is_dir() else []
    if here in (run, source) or any(here.is_relative_to(place) for place in inside):
        raise OutputError(f"{shown(path)} would be among the inputs: choose another `out`")


def _wanted(prediction: Prediction, objects: Mapping[int, str], span: Span) -> Prediction:
    """A prediction with the objects that are wanted alone, under the name that it gets."""
    frame, keep = prediction.frame, np.zeros(256, np.uint8)
    keep[list(objects)] = list(objects)
    if span.start_number is not None:
        frame = replace(frame, name=f"{frame.index + span.shift:05d}")
    labels = LabelMap(torch.from_numpy(keep[prediction.mask]), prediction.ids)
    return replace(prediction, frame=frame, labels=labels)
