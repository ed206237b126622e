"""What a person says of a clip beside its masks: which way to follow objects, and when they are not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from vostrack.errors import MaskError, MethodError, unknown_name
from vostrack.files import shown
from vostrack.methods import Direction, OnCut
from vostrack.notes import Code, Note
from vostrack.ops.grid import size_of
from vostrack.ops.labels import one_hot, resize_labels
from vostrack.propagate import Gone, check_gone, known_ids
from vostrack.types import BACKGROUND, LabelMap, Prediction
from vostrack.video.masks import Prompts
from vostrack.video.ranges import Span

GoneSpans = Mapping[int | str, Sequence[tuple[int, int | None]]]
"""By object id or name, the first and the last frame of each span in which it is not there; None for the end."""


@dataclass(frozen=True)
class Locks:
    """What stays as it is in an earlier version of a run.

    Attributes:
        objects: ids; their pixels stay in all frames.
        frames: first and last frame of spans whose masks stay.
    """

    objects: tuple[int, ...] = ()
    frames: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Mapping[str, Sequence[Any]]]) -> Self:
        """What `record` gave; raises `ValueError` or `TypeError` for anything else."""
        said = record.get("locks", {})
        frames = tuple((int(first), int(last)) for first, last in said.get("frames", ()))
        return cls(tuple(int(number) for number in said.get("objects", ())), frames)

    def record(self) -> dict[str, Any]:
        """As JSON; nothing where nothing is locked."""
        locked = {"objects": list(self.objects), "frames": [list(span) for span in self.frames]}
        return {"locks": locked} if self.objects or self.frames else {}

    def hold(self, frame: int) -> bool:
        """Whether the whole mask of a frame stays."""
        return any(first <= frame <= last for first, last in self.frames)

    def held_back(self, given: Prompts, masks: Collection[int], gone: Collection[int]) -> list[Note]:
        """Notes on what is asked for now and has no effect, since it is locked.

        Args:
            given: all masks.
            masks: frames whose masks are new.
            gone: objects that are said to be gone now.
        """
        held = sorted({*gone} & {*self.objects})
        texts = [f"object {number} is locked: it stays where it is said to be gone" for number in held]
        for index in sorted({*masks} & {*given.labels}):
            ids = {*given.labels[index].ids}
            if self.hold(index):
                texts.append(f"frame {index} is locked: the mask for it is not shown there")
            elif ids and ids <= {*self.objects}:
                texts.append(f"all objects of the mask for frame {index} are locked: they stay as they are")
        return [Note(Code.RUN_LOCKED, f"{text}; `unlock=True` releases what is locked") for text in texts]

    def applied(self, prediction: Prediction, earlier: Prediction) -> Prediction:
        """A prediction with what is locked as an earlier one has it, but for objects that are not followed any more."""
        pixels, ids, probs = prediction.labels.pixels, prediction.ids, prediction.probs
        old = torch.where(torch.isin(earlier.labels.pixels, _ids(ids)), earlier.labels.pixels, BACKGROUND)
        if self.hold(prediction.index):
            pixels = old
        elif self.objects:
            pixels = torch.where(torch.isin(pixels, _ids(self.objects)), BACKGROUND, pixels)
            pixels = torch.where(torch.isin(old, _ids(self.objects)), old, pixels)
        pixels = pixels.to(torch.uint8)
        if probs is not None:
            probs = one_hot(resize_labels(pixels, size_of(probs)), ids)
        return replace(prediction, labels=LabelMap(pixels, ids), probs=probs)


def _ids(numbers: Sequence[int]) -> torch.Tensor:
    return torch.tensor(list(numbers), dtype=torch.uint8)


def checked_direction(name: str) -> Direction:
    """The direction of a name; raises `MethodError`."""
    try:
        return Direction(name)
    except ValueError:
        raise MethodError(unknown_name("direction", str(name), list(map(str, Direction)))) from None


def checked_on_cut(name: str) -> OnCut:
    """What to do at a cut, by name; raises `MethodError`."""
    try:
        return OnCut(name)
    except ValueError:
        raise MethodError(unknown_name("way to go on at a cut", str(name), list(map(str, OnCut)))) from None


def gone_by_id(gone: GoneSpans | None, given: Prompts, count: int | None = None, files: Sequence[str] = ()) -> Gone:
    """When objects are not there in a clip of so many frames, by id; where a mask is empty, none of them is.

    `files` are the names of the files that frames are, for messages.

    Raises:
        MaskError: there is no such object, a span is none, or a given mask shows an object that is gone.
    """
    ids, spans = known_ids(given.labels, 0, Direction.BOTH), said_gone(gone or {}, given)
    for frame in given.empty:
        for number in ids:
            spans.setdefault(number, []).append((frame, frame))
    check_gone(spans, given.labels, count, files)
    return spans


def said_gone(gone: GoneSpans, given: Prompts) -> dict[int, list[tuple[int, int | None]]]:
    """When a person says that objects are not there, by id.

    Raises:
        MaskError: there is no such object.
        MethodError: what is said is of another type.
    """
    ids = known_ids(given.labels, 0, Direction.BOTH)
    spans: dict[int, list[tuple[int, int | None]]] = {}
    try:
        for key, wanted in gone.items():
            spans.setdefault(object_id(key, ids, given.names), []).extend((first, last) for first, last in wanted)
    except (AttributeError, TypeError, ValueError) as error:
        text = "gone must have the first and the last frame of spans by object, such as {2: [(131, 160), (200, None)]}"
        raise MethodError(text) from error
    return spans


def object_id(key: int | str, ids: Sequence[int], names: Mapping[int, str]) -> int:
    """The id of an object that is called by its id or name."""
    named = [number for number, name in names.items() if name == key]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise MaskError(f"{shown(key)} is the name of several objects: give the id, one of {named}")
    if key in ids:
        return int(key)
    there = ", ".join(f"{number} ({shown(names[number])})" if number in names else str(number) for number in ids)
    raise MaskError(f"there is no object {shown(key)}; there are: {there}")


def one_way_notes(prompts: Mapping[int, LabelMap], direction: Direction, span: Span, count: int | None) -> list[Note]:
    """Notes on frames of a span to which no object is followed, in a clip of so many frames."""
    first, last, notes = min(prompts), max(prompts), []
    end = span.last if span.last is not None else None if count is None else count - 1
    if direction is Direction.FORWARD and first > span.first:
        text = f"the first mask is for frame {first}: frames before it get empty masks"
        notes.append(Note(Code.MASK_LATE, text))
    if direction is Direction.BACKWARD and (end is None or last < end):
        notes.append(Note(Code.MASK_LATE, f"the last mask is for frame {last}: frames after it get empty masks"))
    return notes
