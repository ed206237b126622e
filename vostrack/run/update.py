"""`vostrack.update`: a run is corrected, and only what that can change is computed again."""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from vostrack.errors import MaskError, OutputError, counted
from vostrack.files import OutputRoot, lock_folder, output_error, shown
from vostrack.methods import Direction
from vostrack.methods.base import Stepping
from vostrack.notes import Code, Note
from vostrack.propagate import Gone, Propagator, Reuse, Said, check_prompts, gone_at, known_ids
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.cuts import beyond_cuts
from vostrack.run.export import older
from vostrack.run.folder import OutputFolder, digest
from vostrack.run.given import Known, choose_masks
from vostrack.run.kept import COMPLETE, KeptCells, Renewed
from vostrack.run.pipeline import Pipeline, changes, load_pipeline
from vostrack.run.place import RECORD, REVIEW, check_clip, check_run
from vostrack.run.prompts import GoneSpans, Locks, gone_by_id, object_id, said_gone
from vostrack.run.request import Request
from vostrack.run.segment import FolderStore, named_objects, redraw, write_run
from vostrack.run.steps import NEXT, finish_moves, remove_tree, take_back, take_next
from vostrack.run.summary import ObjectLog
from vostrack.types import Frame, FrameStream, LabelMap, Prediction
from vostrack.video.masks import Prompts, read_prompts
from vostrack.video.object_names import Names, checked_names, shared_names
from vostrack.video.ranges import GivenMasks, choose
from vostrack.video.series import numbered
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter

_ENDLESS = 1 << 60
_WAYS = (Direction.FORWARD, Direction.BACKWARD)
Spans = Sequence[tuple[int, int | None]]
Kept = Mapping[Direction, tuple[KeptCells, KeptCells]]
"""What the passes of a run and of its new version keep."""


def update(
    run: str | os.PathLike[str],
    masks: GivenMasks | None = None,
    *,
    names: Names | None = None,
    gone: GoneSpans | None = None,
    drop_masks: Collection[int] | Collection[Fraction] = (),
    drop_gone: Collection[int | str] = (),
    lock: Collection[int | str] = (),
    lock_ranges: Sequence[tuple[int, int]] = (),
    unlock: bool = False,
    clip: str | os.PathLike[str] | None = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Correct a complete run: with further masks, without some, with other names, or by saying when objects are gone.

    Without locks the results are those of a run of `vostrack.segment` with all of this, byte for byte, and what was
    there before can be restored with `vostrack.undo`. The run stays as it is until the new one is complete; an update
    that was broken off goes on when it is asked for again.

    Args:
        run: output folder of `vostrack.segment`.
        masks: by frame or time, or a file with those of several frames, as for `vostrack.segment`; they replace those
            that were given for their frames. Colours and names mean the objects that have them.
        names: of objects, by id, by the name or the colour that they have, or as for `vostrack.segment` in new masks.
        gone: when objects are not there, beside what was said before.
        drop_masks: frames, or times, whose given masks are taken back.
        drop_gone: ids or names of objects of which all that was said before of when they are gone is taken back.
        lock: ids or names of objects whose pixels stay as they are in all frames, also in later updates.
        lock_ranges: first and last frame of spans in which all masks stay as they are, also in later updates.
        unlock: whether what was locked before is let go. Masks that somebody has retouched stay only where they are
            locked, and where nothing can have changed.
        clip: where the clip is now, if it was moved.
        callbacks: what is called on the way.

    Returns:
        The new summary.

    Raises:
        OutputError: the folder holds no complete run, or was made in another way than this program does it now.
        InputError, MaskError: the clip, a mask or what is said of objects cannot be used, or nothing changes.
        Cancelled: the callbacks said so; the same call goes on.
    """
    callbacks, path, named = checked_callbacks(callbacks), Path(run), checked_names(names or {})
    check_run(path)
    with lock_folder(path):
        repeated = finish_moves(path) == NEXT  # an update was complete but for its last moves; perhaps it was this one
        earlier = OutputFolder(path)
        request, known = Request.kept_in(earlier)
        if not (path / "summary.json").is_file():
            raise OutputError(f"the run in {shown(path)} is not complete: resume it first")
        request = replace(request, source=Path(clip) if clip is not None else request.source)
        objects = Known(frozenset(known_ids(known.labels, 0, Direction.BOTH)), known.names)
        whole = request.span.first, request.span.last
        span, wanted = choose_masks(request.source, whole, {} if masks is None else masks, known=objects)
        span = replace(span, start_number=request.span.start_number)
        request = replace(request, masks=wanted, names=named, span=span)
        moments: dict[Any, Path] = dict.fromkeys(drop_masks, path)
        dropped = {*choose(request.source, None, moments)[1]}
        if repeated:
            dropped &= {*known.labels, *known.empty}
        correction = _Correction(path, request, load_pipeline(request.config), known)
        try:
            summary = correction.run(gone or {}, dropped, drop_gone, lock, lock_ranges, unlock, callbacks)
        except _NothingChangesError:
            if repeated:
                return earlier.summary()
            raise
        changed = correction.changed(summary)
        take_next(path)
        callbacks.note(changed)
        return summary


def clip_of(run: str | os.PathLike[str]) -> Path:
    """The clip of a run.

    Raises:
        OutputError: the folder holds no run.
        InputError: the clip is not there any more.
    """
    path = Path(run)
    check_run(path)
    with lock_folder(path):
        finish_moves(path)
        source = Request.kept_in(OutputFolder(path))[0].source
    check_clip(source)
    return source


def undo(run: str | os.PathLike[str]) -> None:
    """Take back the last update of a run; raises `OutputError` where there is none."""
    path = Path(run)
    check_run(path)
    with lock_folder(path):
        if finish_moves(path) in ("", NEXT):  # else that was an undoing
            take_back(path)
        remove_tree(path, NEXT)


class _NothingChangesError(MaskError):
    """What is asked for is what is there."""


class _Correction:
    """A new version of a run, made beside it."""

    def __init__(self, path: Path, request: Request, pipeline: Pipeline, known: Prompts) -> None:
        self._path, self._request, self._pipeline, self._known = path, request, pipeline, known
        self._earlier = OutputFolder(path, known.labels, direction=request.direction)
        self._record = self._earlier.told(RECORD)
        self._unlocks = False

    def run(
        self,
        gone: GoneSpans,
        drop_masks: Collection[int],
        drop_gone: Collection[int | str],
        lock: Collection[int | str],
        lock_ranges: Sequence[tuple[int, int]],
        unlock: bool,
        callbacks: Callbacks,
    ) -> dict[str, Any]:
        """Make it; the summary."""
        request, self._unlocks = self._request, unlock and self._request.locks != Locks()
        with request.open() as whole:
            stream = request.span.of(whole)
            if any(labels.size != whole.size for labels in self._known.labels.values()):
                raise OutputError(f"what was asked for in {shown(self._path)} is damaged: a mask has another size")
            kept = self._without(drop_masks, whole.files)
            reading, stored = request.reading, whole.stored_size
            given = read_prompts(request.masks, whole.size, reading, stored, kept, request.names)
            given = given._replace(names=self._names_of(given))
            check_prompts(given.labels, whole.count, whole.files)
            cuts = request.cuts(callbacks)
            before = beyond_cuts(cuts, self._known.labels, gone_by_id(request.gone, self._known))
            there = known_ids(given.labels, 0, Direction.BOTH)
            back = {object_id(key, there, given.names) for key in drop_gone}
            held = {number: spans for number, spans in request.gone.items() if number in {*there} - back}
            locks, said = self._locks(lock, lock_ranges, given), said_gone(gone, given)
            request = replace(request, gone=_joined(held, said), locks=locks)
            absent = beyond_cuts(cuts, given.labels, gone_by_id(request.gone, given, whole.count, whole.files))
            record = self._pipeline.record() | request.record(given.labels, absent)
            self._check_same(record)
            changed = first, last = self._changed(given, before, absent)
            # A mask is looked at when all is said of the cells of its frame; who is gone there is known before.
            holds = (
                frame + step * (set(gone_at(before, frame)) == set(gone_at(absent, frame)))
                for frame, step in ((first, 1), (last, -1))
            )
            look = replace(request.look, colors=given.colors, names=given.names, shift=request.span.shift)
            if not self._unlocks and not changes(self._record, record):
                return self._renamed(replace(request, look=look), given, record, stream, callbacks)
            folder = self._begun(record, given)
            grid = Propagator(self._pipeline.method, request.config.size).grid(stream.size)
            cells = {way: (self._kept(self._earlier, way, grid), self._kept(folder, way, grid)) for way in _WAYS}
            renewed = self._renewed(request, absent, cells, *changed, *holds)
            self._link_cells(folder, cells, renewed)
            request.keep_in(folder, given)
            log, measured = ObjectLog(absent, [*given.labels]), self._earlier.signs()
            store = FolderStore(folder, request.outputs, request, stream.fps, look, log, measured)
            reuse = self._reuse(request, cells, renewed)
            passes = request.passes(self._pipeline, given.labels, stream, absent, store, callbacks, reuse)

            def locked(prediction: Prediction) -> Prediction:
                return locks.applied(prediction, self._earlier.read_prediction(prediction.frame))

            change = locked if locks.record() else lambda prediction: prediction
            locked_out = locks.held_back(given, self._request.masks, said)
            notes = request.notes(given, whole) + self._swapped(given) + locked_out + _older(self._path)
            return write_run(passes, store, stream, notes, record, change, self._path)

    def _renamed(
        self, request: Request, given: Prompts, record: Mapping[str, Any], stream: FrameStream, callbacks: Callbacks
    ) -> dict[str, Any]:
        """Make a version with other names alone: what it lacks stays as it is in the run."""
        remove_tree(self._path, NEXT)
        folder, look = OutputFolder(OutputRoot(self._path).at(NEXT)), request.look
        request.keep_in(folder, given)
        OutputRoot(folder.path).write_json(RECORD, record)
        if "overlay" in request.outputs and look.labels:
            source = None if request.source.is_dir() else request.source
            overlay = WRITERS["overlay"](Destination(folder.path, source, stream.fps, look=look))
            with ThreadedWriter([overlay]) as writing:
                redraw(stream, lambda frame: writing.write(self._earlier.read_prediction(frame)), callbacks)
        summary = self._earlier.summary()
        summary |= {"objects": named_objects(summary["objects"], look), "exports": {}}
        folder.complete(summary)
        for note in shared_names(given.names) + _older(self._path):
            callbacks.note(note)
        return summary

    def changed(self, summary: Mapping[str, Any]) -> Note:
        """Which masks are others than before, once the new version is complete."""
        if not (self._path / NEXT / "masks").is_dir():
            objects = sorted(summary["objects"].items(), key=lambda each: (len(each[0]), each[0]))
            named = (f"{number} = {shown(told['name'])}" for number, told in objects if told["name"])
            return Note(Code.RUN_CHANGED, f"no mask changed; names are {', '.join(named)}")
        names = OutputFolder(self._path / NEXT).frame_names()
        files = ([self._path / part / "masks" / f"{name}.png" for part in (".", NEXT)] for name in names)
        try:
            frames = [
                frame
                for frame, (old, new) in enumerate(files, self._request.span.first)
                if not old.is_file() or not filecmp.cmp(old, new, shallow=False)
            ]
        except OSError as error:
            raise OutputError(f"masks in {shown(self._path)} cannot be read ({shown(error)}): update again") from error
        which = f": {spans(frames)}" if frames else ""
        return Note(Code.RUN_CHANGED, f"{len(frames)} of {counted(len(names), 'mask')} changed{which}")

    def _swapped(self, given: Prompts) -> list[Note]:
        """Notes on new masks in which two objects lie where each the other was before."""
        names, notes = self._earlier.frame_names(), list[Note]()
        for index in self._request.masks:
            place = index - self._request.span.first
            if index not in given.labels or not place < len(names):
                continue
            now = given.labels[index]
            frame = Frame(index, Fraction(0), torch.empty(3, *now.size, dtype=torch.uint8), names[place])
            before = self._earlier.read_prediction(frame).labels.pixels
            pairs = [(one, other) for one in now.ids for other in now.ids if one < other]
            for one, other in pairs:
                if _covers(before, one, now.pixels, other) and _covers(before, other, now.pixels, one):
                    text = f"at frame {index} object {one} lies where object {other} was, and the other way round"
                    notes.append(
                        Note(Code.MASK_SWAPPED, f"{text}: are their colours exchanged? If so, undo the update")
                    )
        return notes

    def _without(self, drop_masks: Collection[int], files: Sequence[str]) -> Prompts:
        """The masks that were given before, but for those that are dropped."""
        known, given = self._known, dict(self._known.labels)
        for frame in drop_masks:
            if frame not in given and frame not in known.empty:
                there = ", ".join(map(str, sorted({*known.labels, *known.empty}))) + numbered(files, frame)
                raise MaskError(f"no mask was given for frame {frame}; there are masks for {there}")
            given.pop(frame, None)
        if not given and not self._request.masks:
            raise MaskError("no mask is left: give another one beside those that are dropped")
        ids = known_ids(given, 0, Direction.BOTH)
        return known._replace(
            labels=given,
            colors={number: color for number, color in known.colors.items() if number in ids},
            names={number: name for number, name in known.names.items() if number in ids},
            empty=[frame for frame in known.empty if frame not in drop_masks],
        )

    def _names_of(self, given: Prompts) -> dict[int, str]:
        """Names of objects; one keeps its own though the mask that told of it is replaced by another in its colour."""
        known, ids = self._known, known_ids(given.labels, 0, Direction.BOTH)
        same = (number for number in ids if known.colors.get(number) == given.colors.get(number))
        return {number: known.names[number] for number in same if number in known.names} | given.names

    def _locks(self, lock: Collection[int | str], ranges: Sequence[tuple[int, int]], given: Prompts) -> Locks:
        ids = known_ids(self._known.labels, 0, Direction.BOTH)
        for first, last in ranges:
            if not 0 <= first <= last:
                raise MaskError(f"frames {first} to {last} cannot be locked: give the first one first")
        names = {number: given.names[number] for number in ids if number in given.names}
        new = Locks(tuple(object_id(key, ids, names) for key in lock), tuple(ranges))
        if self._unlocks:
            return new
        old = self._request.locks
        objects = (*old.objects, *(number for number in new.objects if number not in old.objects))
        return Locks(objects, (*old.frames, *(span for span in new.frames if span not in old.frames)))

    def _check_same(self, record: Mapping[str, Any]) -> None:
        """Refuse where other results would come for another reason than what is corrected."""
        ours = {"masks", "gone", "locks"}
        before, now = ({k: v for k, v in each.items() if k not in ours} for each in (self._record, record))
        if differ := changes(before, now):
            raise OutputError(
                f"{shown(self._path)} cannot be updated, since this changed: {differ}; "
                "start again with `segment` and `overwrite=True`"
            )

    def _changed(self, prompts: Prompts, before: Gone, absent: Gone) -> tuple[int, int]:
        """The first frame that the pass forwards, and the last that the one backwards, sees in another way than before.

        Where an object is gone is nothing to the one before its first mask, and to the other behind its last one.
        """
        known, given = self._known.labels, prompts.labels
        frames = [
            frame
            for frame in {*known, *given}
            if frame not in known or frame not in given or digest(known[frame]) != digest(given[frame])
        ]
        said = [span for each in (before, absent) for many in each.values() for span in many]
        edges = sorted({edge for start, end in said for edge in (start, _ENDLESS if end is None else end + 1)})
        spans = [
            (number, start, end - 1)
            for start, end in pairwise([*edges, _ENDLESS])
            for number in {*gone_at(before, start)} ^ {*gone_at(absent, start)}
        ]
        if not frames and not spans and not self._unlocks and prompts.names == self._known.names:
            raise _NothingChangesError("nothing changes: give a mask, drop one, name or say when an object is gone")
        firsts, lasts = [*frames, _ENDLESS], [*frames, -1]
        for number, start, end in spans:
            shows = [frame for each in (known, given) for frame, labels in each.items() if number in labels.ids]
            firsts += [max(start, min(shows))] if end >= min(shows) else []
            lasts += [min(end, max(shows))] if start <= max(shows) else []
        return min(firsts), max(lasts)

    def _begun(self, record: Mapping[str, Any], given: Prompts) -> OutputFolder:
        """The folder of the new version, empty or with what an update like this has left."""
        folder = OutputFolder(OutputRoot(self._path).at(NEXT), given.labels, direction=self._request.direction)
        try:
            finished = folder.prepare(record, overwrite=False, resume=True)
        except OutputError:
            finished = {}
        # Another update, one that was not yet put in its place, or what is left of one that was being dropped.
        if finished is not None or not folder.resumes:
            remove_tree(self._path, NEXT)
            folder.prepare(record, overwrite=False, resume=False)
        return folder

    def _reusable(self) -> bool:
        """Whether what was said of cells is all that the method goes on with."""
        refiner = self._pipeline.refiner()
        return not isinstance(self._pipeline.method, Stepping) and not (refiner and refiner.feedback)

    def _kept(self, folder: OutputFolder, direction: Direction, grid: tuple[int, int]) -> KeptCells:
        return KeptCells(folder.cells, direction, folder.prompts, grid)

    def _can_take_results(self, request: Request) -> bool:
        """Whether results of the earlier version can be taken as they are."""
        filtered = self._pipeline.adapt is not None or self._pipeline.refiner() is not None
        return not filtered and "probs" not in request.outputs and self._reusable()

    def _renewed(
        self, request: Request, absent: Gone, kept: Kept, first: int, last: int, until: int, since: int
    ) -> Renewed:
        """What passes are made again for; the last four as for `Renewed`, but for what is kept of earlier passes."""
        stale = {way: earlier.stale for way, (earlier, _) in kept.items()}
        if (forward := stale[Direction.FORWARD]) is not None:
            first, until = min(first, forward), min(until, forward)
        if (backward := stale[Direction.BACKWARD]) is not None:
            last, since = max(last, backward), max(since, backward)
        given, locks = kept[Direction.FORWARD][1].prompts, request.locks

        def is_settled(frame: int) -> bool:
            shown = {*known_ids(given, frame, request.direction)}
            return locks.hold(frame) or shown <= {*locks.objects, *gone_at(absent, frame)}

        frames = range(request.span.first, request.span.first + len(self._earlier.frame_names()))
        can = locks.record() and self._can_take_results(request)
        settled = frozenset(filter(is_settled, frames if can else ()))
        open_ = [frame for frame in frames if frame not in settled]
        ends = max(open_, default=-1), min(open_, default=_ENDLESS)
        return Renewed(frames, settled, (first, last), (until, since), ends)

    def _link_cells(self, folder: OutputFolder, kept: Kept, renewed: Renewed) -> None:
        """What was said of cells stays where it holds, and where it is not said again."""
        if not self._reusable():
            return
        for direction, (earlier, new) in kept.items():
            there = self._earlier.cells / direction
            for name in os.listdir(there) if there.is_dir() else ():
                index = int(name[:-4]) if name[:-4].isdecimal() and name.endswith(".png") else None
                stays = name == COMPLETE and renewed.changes[1] < 0  # nothing of what was followed backwards is another
                if index is not None:
                    same = renewed.is_over(direction, index) and earlier.ids(index) == new.ids(index)
                    stays = renewed.holds(direction, index) or same
                if stays:
                    _link(OutputRoot(self._path), there / name, folder.cells / direction / name)
            if (stale := renewed.stale(direction)) in renewed.frames:
                new.leave(stale)

    def _reuse(self, request: Request, kept: Kept, renewed: Renewed) -> dict[Direction, Reuse]:
        """What was said of cells that holds; and results that are locked, or follow from that alone, as they are."""
        if not self._reusable():
            return {}
        given, (first, last), (until, since) = kept[Direction.FORWARD][1].prompts, renewed.changes, renewed.holding
        ends = max((*self._known.labels, *given))
        can = self._can_take_results(request)

        def result(frame: Frame) -> Prediction | None:
            before = frame.index < first or request.direction is Direction.BACKWARD
            after = frame.index > last or frame.index > ends or request.direction is Direction.FORWARD
            same = before and after and not self._unlocks
            if not can or not (same or frame.index in renewed.settled):
                return None
            earlier = self._earlier.read_prediction(frame)
            ids = known_ids(given, frame.index, request.direction)
            nothing = LabelMap(torch.zeros_like(earlier.labels.pixels), ids)
            return Locks(ids).applied(Prediction(frame, nothing), earlier)

        def said(way: Direction, index: int) -> Said | None:
            return kept[way][1].read(index) if renewed.holds(way, index) else None

        aheads: tuple[Callable[[int], int | None], ...] = (
            lambda index: None if any(index < mask < until for mask in given) else until - index,
            lambda index: None if any(since < mask < index for mask in given) else index - since,
        )
        return {
            way: Reuse(ahead, partial(said, way), found, partial(renewed.is_over, way))
            for way, ahead, found in zip(_WAYS, aheads, (result, lambda frame: None), strict=True)
        }


def spans(frames: Sequence[int]) -> str:
    """Frames, ascending, in words: "4, 8 to 12"; of many spans the first five and the last frame."""
    found = list[list[int]]()
    for frame in frames:
        if found and found[-1][-1] == frame - 1:
            found[-1][1:] = [frame]
        else:
            found.append([frame])
    words = [" to ".join(map(str, span)) for span in found]
    return ", ".join(words if len(words) <= 6 else [*words[:5], f"... and {words[-1]}"])


def _older(run: Path) -> list[Note]:
    """Notes on what lies beside a run, or in it, and is of the version that goes."""
    page = f"{REVIEW} showed the run as it was before, and is put aside: make it again"
    return older(run) + ([Note(Code.EXPORT_OLDER, page)] if os.path.lexists(run / REVIEW) else [])


def _covers(before: torch.Tensor, one: int, now: torch.Tensor, other: int) -> bool:
    """Whether most of an object of a label map is where another one of a second map is."""
    there = now == other
    return bool((before[there] == one).sum() * 2 > there.sum())


def _joined(one: Mapping[Any, Spans], other: Mapping[Any, Spans]) -> dict[int | str, Spans]:
    """All spans of both."""
    return {key: [*one.get(key, ()), *other.get(key, ())] for key in {**one, **other}}


def _link(root: OutputRoot, source: Path, target: Path) -> None:
    """A second name for a file below a folder that nobody writes to, or a copy where there are no such names."""
    data, there = root.at(source.relative_to(root.path)), root.new(target.relative_to(root.path)).final
    if there.exists():
        return
    with contextlib.suppress(OSError):
        os.link(data, there)
        return
    try:
        root.write(target.relative_to(root.path), data.read_bytes())
    except OSError as error:
        raise output_error(error, data) from error
