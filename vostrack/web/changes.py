"""What has changed since a clip was followed, and which results are older than what is drawn and said now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, read_json, shown
from vostrack.run.folder import OutputFolder
from vostrack.run.request import Request
from vostrack.types import BACKGROUND, VOID
from vostrack.video.masks import Prompts
from vostrack.video.ranges import Span
from vostrack.web.document import Document
from vostrack.web.strokes import Labels
from vostrack.web.things import Frames, joined, without

ONCE = "once.json"

Spans = Mapping[int, list[Frames]]
"""Frames by object id."""


@dataclass(frozen=True)
class Once:
    """What is locked in the run for one time alone, since it was not to be followed.

    Attributes:
        objects: ids.
        frames: first and last frame of spans.
    """

    objects: list[int] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def kept_in(cls, folder: Path) -> Self:
        """What a page before this one kept in the folder of what is drawn; raises `OutputError`."""
        path = OutputRoot(folder).at(ONCE)
        try:
            once: Self = read_json(path, cls) if path.exists() else cls()
            if any(len(span) != 2 for span in once.frames):
                raise ValueError("a span has a first and a last frame")
        except (OSError, ValueError) as error:
            raise OutputError(f"{shown(path)} cannot be read ({shown(error)}): move it away") from error
        return once


class Followed:
    """What a run was asked for, and what is drawn now.

    Attributes:
        request: without masks.
        known: its masks, as they were read.
    """

    def __init__(self, folder: OutputFolder, document: Document, result: Callable[[int], Labels | None]) -> None:
        """Read what was asked for.

        Args:
            folder: of the run.
            document: what is drawn now.
            result: gives the mask (H, W) of a frame that the run has, or None where it cannot be read.

        Raises:
            OutputError: it cannot be read.
        """
        self.request, self.known = Request.kept_in(folder)
        self._said, self._there = said(self.request), {*self.known.labels, *self.known.empty}
        self._document, self._result = document, result
        self._differing: dict[int, tuple[int, frozenset[int]]] = {}

    def news(self, given: Sequence[int], gone: Spans) -> dict[str, Any]:
        """What has changed since, as arguments of an update; of masks their frames alone.

        Args:
            given: frames whose masks a run is given.
            gone: when objects are not there, by id.
        """
        document, before = self._document, self._said
        present = {number for frame in given for number in document.ids(frame)}
        moved = {number for number in {*before, *gone} & present if before.get(number) != gone.get(number)}
        names = {thing.id: thing.name for thing in document.things.values() if thing.id in present and thing.name}

        def is_said(frame: int) -> bool:  # in another way than by an empty mask
            return all(any(a <= frame and (b is None or frame <= b) for a, b in gone.get(n, ())) for n in present)

        return {
            "masks": [frame for frame in given if frame not in self._there or self.changed(frame)],
            "drop_masks": sorted(self._there - {*given} - {*filter(is_said, self.known.empty)}),
            "gone": {number: spans for number, spans in gone.items() if number in moved},
            "drop_gone": sorted(moved & {*before}),
            "names": {number: name for number, name in names.items() if self.known.names.get(number) != name},
        }

    def some(
        self, news: Mapping[str, Any], objects: Collection[int], spared: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        """Of what `news` gave, what is about some objects, and not about frames that are spared; and names."""
        known = {number for labels in self.known.labels.values() for number in labels.ids}
        frames = [each for each in (*news["masks"], *news["drop_masks"]) if not any(a <= each <= b for a, b in spared)]
        which = {*objects} | known - {*self._document.things}
        frames = [frame for frame in frames if not self.changed(frame) or self.changed(frame) & which]
        there = known.union(*(self._document.ids(frame) for frame in frames))
        return {
            "masks": [frame for frame in news["masks"] if frame in frames],
            "drop_masks": [frame for frame in news["drop_masks"] if frame in frames],
            "gone": {number: spans for number, spans in news["gone"].items() if number in objects},
            "drop_gone": [number for number in news["drop_gone"] if number in objects],
            "names": {number: name for number, name in news["names"].items() if number in there},
        }

    def older(self, given: Sequence[int], gone: Spans) -> dict[int, tuple[Frames, ...]]:
        """Frames whose results are older than what is drawn and said of an object, by its id.

        They go from each mask that has changed to the next one that shows the object, and from the first one that does
        also back to the start. Arguments are those of `news`.
        """
        found, masks = dict[int, tuple[Frames, ...]](), {*given}
        for frame in sorted({*self._document.frames} | self._there):
            for number in self.changed(frame):
                drawn = [each for each in given if number in self._document.ids(each)]
                span = _around(frame, drawn, frame in self._there - masks, self.request.span)
                found[number] = joined(found.get(number, ()), *span)
        present = {number for frame in given for number in self._document.ids(frame)}
        for number in {*self._said, *gone} & present:
            one, other = (tuple(each.get(number, ())) for each in (self._said, gone))
            for span in (*_but(one, other), *_but(other, one)):
                found[number] = joined(found.get(number, ()), *span)
        return found

    def changed(self, frame: int) -> frozenset[int]:
        """Objects whose pixels at a frame are not those that the run was given, or has; looks once at each mask."""
        document, is_there = self._document, frame in self._there
        since = document.since(frame)
        found, differing = self._differing.get(frame, (None, frozenset()))
        if found != since:
            now = document.labels(frame)
            locks = self.request.locks  # what was locked can lack what its mask says
            held = {number for number in document.ids(frame) if locks.hold(frame) or number in locks.objects}
            has = self._result(frame) if held or not is_there else None
            over = now if has is None else document.over(frame, has)
            before = mask_of(self.known, frame, document.size)
            if has is not None and not is_there:
                before, now = has, over
            differing = _differing(before, now)
            if not differing and (before != now).any():  # what is left open may be of any
                differing = document.ids(frame)
            if has is not None:
                differing |= _differing(has, over) & held
            if has is not None or (is_there and not held):  # else it may be there when it is asked for again
                self._differing[frame] = since, differing
        return differing


def said(request: Request) -> dict[int, list[Frames]]:
    """When a run was told that objects are not there, by id."""
    found = dict[int, tuple[Frames, ...]]()
    for number, spans in request.gone.items():
        for first, last in spans:
            found[int(number)] = joined(found.get(int(number), ()), first, last)
    return {number: [*spans] for number, spans in found.items()}


def mask_of(known: Prompts, frame: int, size: tuple[int, int]) -> Labels:
    """The mask (H, W) that a run was given for a frame, black where it said that nothing is there."""
    return known.labels[frame].pixels.numpy() if frame in known.labels else np.zeros(size, np.uint8)


def outside(spans: Iterable[Frames], last: int) -> list[tuple[int, int]]:
    """Frames up to the last one that lie in none of some spans."""
    left: tuple[Frames, ...] = ((0, last),)
    for first, end in spans:
        left = without(left, first, end)
    return [(first, last if end is None else end) for first, end in left]


def _differing(one: Labels, other: Labels) -> frozenset[int]:
    """Objects in the pixels in which two masks differ."""
    places = one != other
    return frozenset(np.unique((one[places], other[places])).tolist()) - {BACKGROUND, VOID}


def _around(frame: int, drawn: Sequence[int], is_dropped: bool, span: Span) -> Frames:
    """Frames that the mask of a frame is for, among those that show an object."""
    before = max((each for each in drawn if each < frame), default=None)
    after = min((each for each in drawn if each > frame), default=None)
    first = span.first if before is None else before + 1 if is_dropped else frame
    return first, span.last if after is None else after - 1


def _but(spans: tuple[Frames, ...], others: tuple[Frames, ...]) -> tuple[Frames, ...]:
    """Spans without the frames of others."""
    for first, last in others:
        spans = without(spans, first, last)
    return spans
