"""What a person has drawn: objects, masks of frames, and all steps, which can be undone without end.

Each step is written to a journal before it is done, so that nothing is lost if the program dies; a new one does all
steps again. Labels are ids at the size of the clip, and what is saved is what `--mask N:PATH` reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vostrack.errors import MaskError, OutputError
from vostrack.files import OutputRoot, open_regular, output_error, parse_json, shown
from vostrack.types import BACKGROUND, VOID, LabelMap
from vostrack.video.ground import Color
from vostrack.video.masks import DrawnMask, MaskFile
from vostrack.video.palette import PALETTE, palette_image
from vostrack.web.shapes import Area
from vostrack.web.strokes import STROKES, Labels, decoded, encoded, only
from vostrack.web.things import OBJECTS, Step, Thing, check_unlocked

JOURNAL = "journal.jsonl"
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask that is drawn.

    Attributes:
        data: its ids, compressed; also of what was predicted below what is drawn.
        counts: how many pixels each id has, (256,).
        revision: that of the document which made it so.
    """

    data: bytes
    counts: npt.NDArray[np.int64]
    revision: int

    @cached_property
    def ids(self) -> frozenset[int]:
        """Objects that it shows, drawn or predicted."""
        return _ids_of(self.counts)


@dataclass(frozen=True)
class Patch:
    """Pixels of a frame before and after a step, compressed."""

    frame: int
    box: tuple[slice, slice]
    before: bytes
    after: bytes


@dataclass(frozen=True)
class Done:
    """A step that was done, and all that takes it back.

    Attributes:
        step: that was done.
        patches: pixels that it changed.
        things: objects on the other side of it.
        drawn: frames that have a mask there, each with the objects that a person drew or erased on it.
    """

    step: Step
    patches: list[Patch]
    things: dict[int, Thing]
    drawn: dict[int, frozenset[int]]


class Document:
    """Objects and masks that are being drawn.

    Attributes:
        size: (H, W) of the clip.
        things: objects by id, in the order in which they were made.
        revision: grows with each change.
        touched: frames that ever were drawn on.
        told: ids of which it ever was said when they are not there, or that they are of no object any more.
    """

    def __init__(self, size: tuple[int, int], folder: Path) -> None:
        """Begin, or go on from the journal in a folder.

        Raises:
            OutputError: the journal cannot be read.
        """
        self.size, self.things, self.revision = size, dict[int, Thing](), 0
        self.touched, self.told = set[int](), set[int]()
        self._root = OutputRoot(folder)
        self._masks: dict[int, Mask] = {}
        self._drawn: dict[int, frozenset[int]] = {}
        self._end = 0  # of the steps in the journal, in bytes
        self._done: list[Done] = []
        self._undone: list[Done] = []
        try:
            for step in self._written():
                self._again(step)
        except (OSError, ValueError, MaskError) as error:
            where = shown(self._root.path / JOURNAL)
            raise OutputError(f"what was drawn before cannot be read ({shown(error)}): move {where} away") from error

    @property
    def frames(self) -> list[int]:
        """Frames that something is drawn or erased on."""
        return sorted(frame for frame, ids in self._drawn.items() if ids)

    @property
    def count(self) -> int:
        """How many steps are done, without those that were taken back."""
        return len(self._done)

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def picture(self, frame: int) -> Labels:
        """Ids of a frame, uint8 (H, W), a copy: what is drawn, and what was predicted below it."""
        mask = self._masks.get(frame)
        if mask is None:
            return np.zeros(self.size, np.uint8)
        return np.frombuffer(zlib.decompress(mask.data), np.uint8).reshape(self.size).copy()

    def labels(self, frame: int) -> Labels:
        """Ids of what is drawn on a frame, uint8 (H, W), a copy; background where nothing is."""
        return only(self.picture(frame), self._own(frame))

    def over(self, frame: int, below: Labels) -> Labels:
        """Ids (H, W) with what is drawn on their frame above them, as an engine takes a given mask."""
        if frame not in self._masks:
            return below
        laid = self._laid(frame, below)
        return np.where(laid == VOID, below, laid)

    def ids(self, frame: int) -> frozenset[int]:
        """Objects that are drawn on a frame, and not those that were predicted there."""
        mask = self._masks.get(frame)
        return frozenset() if mask is None else mask.ids & self._drawn[frame]

    def erased(self, frame: int) -> frozenset[int]:
        """Objects of which nothing is left on a frame that they were drawn or erased on."""
        return self._drawn.get(frame, frozenset()) - self.ids(frame) - {BACKGROUND}

    def is_empty(self, frame: int) -> bool:
        """Whether a mask was given for a frame which says that no object is there, and none was drawn since."""
        return BACKGROUND in self._drawn.get(frame, ()) and not self.ids(frame)

    def since(self, frame: int) -> int:
        """The revision from which on the mask of a frame is as it is; -1 where there is none."""
        mask = self._masks.get(frame)
        return -1 if mask is None else mask.revision

    def lay(self, step: Step, predicted: Labels) -> None:
        """Put labels (H, W) that were predicted for the frame of a step, which comes next, below what is drawn there.

        Raises:
            MaskError: the step cannot be done then.
            OutputError: it cannot be written down.
        """
        before, laid = self.picture(step.frame), self._laid(step.frame, predicted)
        if (before != laid).any():
            self._checked(step, laid)  # a frame that nothing is drawn on stays as it is
            self.do(Step("predicted", step.frame, data=encoded(predicted), opens=True))

    def do(self, step: Step) -> list[int]:
        """Do a step, and write it down first; gives the frames that changed.

        Raises:
            MaskError: it cannot be done.
            OutputError: it cannot be written down.
        """
        done = self._checked(step)
        self._write(step)
        self._undone.clear()
        return self._apply(done)

    def undo(self) -> list[int]:
        """Take the last step back; gives the frames that changed."""
        if not self._done:
            return []
        self._write(Step("undo"))
        return self._back()

    def redo(self) -> list[int]:
        """Do the last step again that was taken back; gives the frames that changed."""
        if not self._undone:
            return []
        self._write(Step("redo"))
        return self._forth()

    def given(self, frame: int, path: Path) -> DrawnMask:
        """The mask of a frame, which is in a file, with its ids here, whatever its colours mean elsewhere."""
        data = zlib.compress(self.labels(frame).tobytes(), 1)
        colors = {number: _rgb(self.things[number].color) for number in sorted(self.ids(frame))}
        return DrawnMask(path.name, path, "a mask of the page", self.size, partial(_given, data, colors))

    def save(self, folder: Path, frame: int) -> Path:
        """Write the mask of a frame as a palette PNG, in the colours of the objects; gives its path."""
        image = palette_image(self.labels(frame))
        palette = PALETTE.copy()
        for thing in self.things.values():
            palette[thing.id] = _rgb(thing.color)
        image.putpalette(palette.tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        root, name = OutputRoot(folder), mask_name(frame)
        root.write(name, buffer.getvalue())
        return root.at(name)

    def _written(self) -> list[Step]:
        path = self._root.at(JOURNAL)
        if not path.exists():
            return []
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES)
        if len(data) == _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # a kill has cut off the last line: that step was not done
            self._root.write(JOURNAL, whole)
        self._end = len(whole)
        return [parse_json(line, Step) for line in whole.splitlines()]

    def _write(self, step: Step) -> None:
        plain = Step("")
        told = {name: value for name, value in vars(step).items() if value != getattr(plain, name)}
        line = f"{json.dumps(told)}\n"
        self._cut(self._root.new(JOURNAL).final)  # makes the folder
        try:
            self._root.append(JOURNAL, line)
        except OutputError:
            with contextlib.suppress(OutputError):
                self._cut(self._root.at(JOURNAL))
            raise
        self._end += len(line)

    def _cut(self, path: Path) -> None:
        """Take out of the journal what is left of a step that could not be written down; raises `OutputError`."""
        try:
            if path.exists() and path.stat().st_size > self._end:
                os.truncate(path, self._end)
        except OSError as error:
            raise output_error(error, path) from error

    def _again(self, step: Step) -> None:
        if step.kind == "undo":
            self._back()
        elif step.kind == "redo":
            self._forth()
        else:
            self._undone.clear()
            self._apply(self._prepared(step))

    def _checked(self, step: Step, before: Labels | None = None) -> Done:
        """What a new step changes; raises `MaskError` also where a lock keeps it from being done."""
        done = self._prepared(step, before)
        if step.kind in STROKES or step.kind in ("delete", "merge"):
            check_unlocked(self.things, (step.id, step.other))
        if step.kind in STROKES and not done.patches:
            before = self.picture(step.frame) if before is None else before
            free = self._painted(before, step, locks=False)
            check_unlocked(self.things, _ids_of(_counts(before[before != free])))
        return done

    def _prepared(self, step: Step, before: Labels | None = None) -> Done:
        """What a step changes, on a frame as it is or with other labels; raises `MaskError` where it cannot be done."""
        if step.frame < 0:
            raise MaskError(f"there is no frame {step.frame}")
        if step.kind in OBJECTS:
            return self._prepared_of_objects(step)
        if step.kind not in STROKES:
            raise MaskError(f"there is no step {shown(step.kind)!r}")
        if step.id and step.id not in self.things:
            raise MaskError(f"there is no object {step.id}: add it first")
        before = self.picture(step.frame) if before is None else before
        after = self._painted(before, step)
        drawn = self._drawn.get(step.frame, frozenset()) | _drawn_by(step, before, after)
        _check_there(self.things, step.frame, after, drawn)
        patch = _patch(step.frame, before, after)
        return Done(step, [patch] if patch else [], dict(self.things), {**self._drawn, step.frame: drawn})

    def _prepared_of_objects(self, step: Step) -> Done:
        """What a step about objects changes."""
        things, patches = OBJECTS[step.kind](dict(self.things), step), list[Patch | None]()
        part = {step.other} if step.kind == "merge" else set[int]()
        drawn = {frame: ids | part if step.id in ids else ids for frame, ids in self._drawn.items()}
        drawn = {frame: ids & {BACKGROUND, *things} for frame, ids in drawn.items()}  # its id may come again
        if step.kind in ("delete", "merge", "gone"):
            for frame in [each for each, mask in self._masks.items() if step.id in mask.ids]:
                old = self.picture(frame)
                new = old if step.kind == "gone" else _relabelled(old, step)
                _check_there(things, frame, new, drawn[frame])
                patches.append(_patch(frame, old, new))
        return Done(step, [patch for patch in patches if patch], things, drawn)

    def _own(self, frame: int) -> set[int]:
        """Ids whose pixels on a frame are not those that were predicted there."""
        return {*self._drawn.get(frame, ()), VOID}

    def _laid(self, frame: int, below: Labels) -> Labels:
        """The picture (H, W) of a frame with other labels below what is drawn."""
        own, drawn = self._own(frame), self.labels(frame)
        return np.where(drawn > 0, drawn, only(below, {*range(VOID)} - own))

    def _painted(self, before: Labels, step: Step, locks: bool = True) -> Labels:
        """The labels of a frame after a step that draws, with or without regard to locks."""
        after, own = before.copy(), before == step.id
        if step.kind in ("begin", "predicted"):
            labels = decoded(step.data, self.size)
            if unknown := {*np.unique(labels).tolist()} - {BACKGROUND, VOID, *self.things}:
                raise MaskError(f"there is no object {min(unknown)}: add it first")
            return labels if step.kind == "begin" else self._laid(step.frame, labels)
        if step.kind == "clear":
            area, number = Area.of(before > 0 if not step.id else own), 0
        else:
            area, number = STROKES[step.kind](self.size, before, own, step)
        inside = np.zeros(self.size, np.bool_)
        inside[area.box] = area.inside
        if step.kind in ("smooth", "grow"):  # the object becomes this area, and what it leaves becomes background
            gone = own & ~inside
            after[gone] = 0
        locked = [thing.id for thing in self.things.values() if thing.locked and locks]
        may = ~np.isin(before, locked)
        if step.only == "background":
            may &= before == 0
        elif step.only != "all":
            raise MaskError(f"there is no {shown(step.only)!r} to paint over: all, or background")
        after[inside & may] = number
        return np.where(np.isin(before, locked), before, after)

    def _apply(self, done: Done) -> list[int]:
        if done.step.kind in STROKES:
            self.touched.add(done.step.frame)
        if done.step.kind in ("gone", "here", "delete", "merge"):
            self.told.add(done.step.id)
        kept = replace(done, things=dict(self.things), drawn=self._drawn)
        self._done.append(kept)
        self.things = done.things
        return self._put(done, after=True)

    def _back(self) -> list[int]:
        """Take the last step back, and with the first one on a frame also its beginning."""
        changed = self._swap(self._done, self._undone, after=False)
        if self._done and self._done[-1].step.opens:
            changed += self._swap(self._done, self._undone, after=False)
        return sorted({*changed})

    def _forth(self) -> list[int]:
        """The opposite of `_back`."""
        begins = bool(self._undone) and self._undone[-1].step.opens
        changed = self._swap(self._undone, self._done, after=True)
        if begins:
            changed += self._swap(self._undone, self._done, after=True)
        return sorted({*changed})

    def _swap(self, source: list[Done], target: list[Done], after: bool) -> list[int]:
        if not source:
            return []
        done = source.pop()
        target.append(replace(done, things=dict(self.things), drawn=self._drawn))
        self.things = dict(done.things)
        return self._put(done, after)

    def _put(self, done: Done, after: bool) -> list[int]:
        """Write patches into masks, and keep masks for its frames alone; gives the frames that changed."""
        frames, revision = {*done.drawn}, self.revision + 1
        changed = {frame for frame in {*self._masks, *frames} if done.drawn.get(frame) != self._drawn.get(frame)}
        for frame in frames - {*self._masks}:
            blank = np.zeros(self.size, np.uint8)
            self._masks[frame] = Mask(zlib.compress(blank.tobytes(), 1), _counts(blank), revision)
        for patch in done.patches:
            labels, counts = self.picture(patch.frame), self._masks[patch.frame].counts
            old = labels[patch.box]
            data = zlib.decompress(patch.after if after else patch.before)
            new = np.frombuffer(data, np.uint8).reshape(old.shape)
            counts = counts - _counts(old) + _counts(new)
            labels[patch.box] = new
            self._masks[patch.frame] = Mask(zlib.compress(labels.tobytes(), 1), counts, revision)
            changed.add(patch.frame)
        for frame in {*self._masks} - frames:
            del self._masks[frame]
        for frame in changed & frames:
            self._masks[frame] = replace(self._masks[frame], revision=revision)
        self._drawn, self.revision = done.drawn, revision
        return sorted(changed)


def _patch(frame: int, before: Labels, after: Labels) -> Patch | None:
    area = Area.of(before != after)
    if not area.inside.size:
        return None
    return Patch(frame, area.box, *(zlib.compress(each[area.box].tobytes(), 1) for each in (before, after)))


def _given(data: bytes, colors: dict[int, Color], size: tuple[int, int]) -> MaskFile:
    pixels = torch.frombuffer(bytearray(zlib.decompress(data)), dtype=torch.uint8).view(size)
    return MaskFile(LabelMap(pixels, tuple(colors)), (), colors)


def _rgb(color: str) -> Color:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _counts(labels: Labels) -> npt.NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=256)


def _ids_of(counts: npt.NDArray[np.int64]) -> frozenset[int]:
    """Objects that have pixels."""
    return frozenset(np.flatnonzero(counts).tolist()) - {BACKGROUND, VOID}


def _drawn_by(step: Step, before: Labels, after: Labels) -> frozenset[int]:
    """Objects that a step on a frame draws or erases; one that another is painted over stays as it was."""
    if step.kind == "predicted":
        return frozenset()
    if step.kind == "begin":
        return _ids_of(_counts(after)) or frozenset({BACKGROUND})
    erased = _ids_of(_counts(before[(before != BACKGROUND) & (after == BACKGROUND)]))
    own = step.id and step.kind != "erase" and (step.kind == "clear" or (after == step.id).any())
    return erased | {step.id} if own else erased


def _check_there(things: Mapping[int, Thing], frame: int, labels: Labels, drawn: frozenset[int]) -> None:
    """Raise `MaskError` where labels show an object that is drawn, and said not to be there."""
    for thing in things.values():
        if thing.id in drawn and thing.is_gone(frame) and (labels == thing.id).any():
            who = shown(thing.name) or f"object {thing.id}"
            raise MaskError(
                f"{who} is drawn at frame {frame}, where it would be gone: erase it, or say that it is here"
            )


def mask_name(frame: int) -> str:
    """What the file of a mask is called."""
    return f"{frame:05d}.png"


def _relabelled(labels: Labels, step: Step) -> Labels:
    """Labels in which one object has become another, or background."""
    return np.where(labels == step.id, step.other if step.kind == "merge" else 0, labels).astype(np.uint8)
