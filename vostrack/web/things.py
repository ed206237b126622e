"""Steps of a person, and what those about objects change: names, colours, locks, and when objects are not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vostrack.errors import MaskError
from vostrack.files import shown
from vostrack.types import MAX_OBJECTS
from vostrack.video.palette import PALETTE

Frames = tuple[int, int | None]
"""First and last frame; None for the end of the clip."""

BRIGHT = ("#ff7028", "#38dcff", "#fff050", "#f050ff", "#28a064", "#ffb4d0")
"""The first colours that are offered: bright on dark footage, and told apart by people with any kind of sight."""

_LONGEST_NAME, _MOST_SPANS = 80, 1000


@dataclass(frozen=True)
class Step:
    """Something that a person did, as the page says it.

    Attributes:
        kind: "brush", "erase", "polygon", "fill", "holes", "smooth", "grow", "clear", "region" for a frame; "add",
            "rename", "recolor", "lock", "delete", "merge", "gone", "here" for objects; "begin" for a mask that was
            given; "predicted" for what lies below what is drawn on a frame.
        frame: that it is about; the first one where an object is gone, or here again.
        id: object that it is about; 0 erases.
        points: (x, y) in pixels of the clip.
        radius: of a brush, or how far edges move; negative to shrink.
        name: of an object.
        color: of an object, "#rrggbb".
        other: object that another one becomes part of.
        locked: whether an object is locked.
        only: where it may paint: over "all" that is not locked, over "background" alone, or over this "id" alone.
        data: pixels, as a PNG of ids or a mask, in base 64.
        opens: whether a step belongs to the one after it, and is taken back with that.
        last: frame where an object is gone, or here again; None for the end of the clip.
    """

    kind: str
    frame: int = 0
    id: int = 0
    points: list[list[float]] = field(default_factory=list)
    radius: float = 0.0
    name: str = ""
    color: str = ""
    other: int = 0
    locked: bool = False
    only: str = "all"
    data: str = ""
    opens: bool = False
    last: int | None = None


@dataclass(frozen=True)
class Thing:
    """An object.

    Attributes:
        id: its id.
        name: what it is called, or "".
        color: as "#rrggbb".
        locked: whether its pixels are.
        gone: spans of frames in which it is not there, in order and apart from one another.
    """

    id: int
    name: str
    color: str
    locked: bool = False
    gone: tuple[Frames, ...] = ()

    def is_gone(self, frame: int) -> bool:
        """Whether it is said not to be there."""
        return any(first <= frame and (last is None or frame <= last) for first, last in self.gone)


Things = dict[int, Thing]
Change = Callable[[Things, Step], Things]


def joined(spans: tuple[Frames, ...], first: int, last: int | None) -> tuple[Frames, ...]:
    """Spans and one more; those that touch become one."""
    found = list[Frames]()
    for begin, end in sorted((*spans, (first, last)), key=lambda span: span[0]):
        if found and (found[-1][1] is None or begin <= found[-1][1] + 1):
            before = found[-1][1]
            found[-1] = found[-1][0], None if before is None or end is None else max(before, end)
        else:
            found.append((begin, end))
    return tuple(found)


def without(spans: tuple[Frames, ...], first: int, last: int | None) -> tuple[Frames, ...]:
    """Spans but for the frames of another one."""
    found = list[Frames]()
    for begin, end in spans:
        if begin < first:
            found.append((begin, first - 1 if end is None else min(end, first - 1)))
        if last is not None and (end is None or end > last):
            found.append((max(begin, last + 1), end))
    return tuple(found)


def within(spans: tuple[Frames, ...], first: int, last: int | None) -> tuple[Frames, ...]:
    """What of spans lies in the frames of another one."""
    inside = without(spans, 0, first - 1)
    return inside if last is None else without(inside, last + 1, None)


def _known(things: Things, number: int) -> Thing:
    if number not in things:
        raise MaskError(f"there is no object {number}")
    return things[number]


def _add(things: Things, step: Step) -> Things:
    number = step.id or next((number for number in range(1, MAX_OBJECTS + 1) if number not in things), 0)
    if not 1 <= number <= MAX_OBJECTS or number in things:
        raise MaskError(f"no object can be added as {number}: ids go from 1 to {MAX_OBJECTS}, each once")
    free = [color for color in BRIGHT if color not in {thing.color for thing in things.values()}]
    color = step.color or (free[0] if free else "#{:02x}{:02x}{:02x}".format(*PALETTE[number]))
    return {**things, number: Thing(number, _name(step.name), _color(color))}


def _changed(change: Callable[[Step], Mapping[str, Any]]) -> Change:
    """What changes fields of an object."""
    return lambda things, step: {**things, step.id: replace(_known(things, step.id), **change(step))}


def _placed(
    change: Callable[[tuple[Frames, ...], int, int | None], tuple[Frames, ...]],
) -> Change:
    """What changes when an object is not there."""

    def changed(things: Things, step: Step) -> Things:
        if step.last is not None and step.last < step.frame:
            raise MaskError(f"{step.frame} to {step.last} are no frames")
        thing = _known(things, step.id)
        check_unlocked(things, [thing.id])
        spans = change(thing.gone, step.frame, step.last)
        if len(spans) > _MOST_SPANS:
            raise MaskError(f"an object is gone {_MOST_SPANS} times at most")
        return {**things, step.id: replace(thing, gone=spans)}

    return changed


def check_unlocked(things: Mapping[int, Thing], ids: Iterable[int]) -> None:
    """Raise `MaskError` where one of some objects is locked."""
    for thing in (things[number] for number in ids if number in things):
        if thing.locked:
            raise MaskError(f"{shown(thing.name) or f'object {thing.id}'} is locked: unlock it first")


def _without(things: Things, step: Step) -> Things:
    """Objects without one, which is deleted or becomes part of another."""
    _known(things, step.id)
    if step.kind == "merge" and (step.other not in things or step.other == step.id):
        raise MaskError(f"object {step.id} cannot become part of {step.other}")
    return {number: thing for number, thing in things.items() if number != step.id}


def _name(name: str) -> str:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise MaskError(f"a name has at most {_LONGEST_NAME} printable characters, not {shown(name)!r}")
    return name


def _color(color: str) -> str:
    if re.fullmatch("#[0-9a-f]{6}", color) is None or color == "#000000":
        raise MaskError(f"a colour is #rrggbb, not black, and not {shown(color)!r}")
    return color


OBJECTS: Mapping[str, Change] = {
    "add": _add,
    "rename": _changed(lambda step: {"name": _name(step.name)}),
    "recolor": _changed(lambda step: {"color": _color(step.color)}),
    "lock": _changed(lambda step: {"locked": step.locked}),
    "delete": _without,
    "merge": _without,
    "gone": _placed(joined),
    "here": _placed(without),
}
"""What steps about objects make of these."""
