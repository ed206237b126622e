"""What a person says of a clip beside its masks: which way to follow objects, and when they are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vostrack.errors import MaskError, VostrackError, unknown_name
from vostrack.files import shown
from vostrack.methods import Direction
from vostrack.notes import Code, Note
from vostrack.propagate import Gone, check_gone, known_ids
from vostrack.types import LabelMap
from vostrack.video.masks import Prompts
from vostrack.video.ranges import Span

GoneSpans = Mapping[int | str, Sequence[tuple[int, int | None]]]
"""By object id or name, the first and the last frame of each span in which it is not there; None for the end."""


def checked_direction(name: str) -> Direction:
    """The direction of a name; raises `VostrackError`."""
    try:
        return Direction(name)
    except ValueError:
        raise VostrackError(unknown_name("direction", str(name), list(map(str, Direction)))) from None


def gone_by_id(gone: GoneSpans | None, given: Prompts, count: int | None = None) -> Gone:
    """When objects are not there in a clip of so many frames, by id; where a mask is empty, none of them is.

    Raises:
        MaskError: there is no such object, a span is none, or a given mask shows an object that is gone.
    """
    ids = known_ids(given.labels, 0, Direction.BOTH)
    spans: dict[int, list[tuple[int, int | None]]] = {}
    for key, wanted in (gone or {}).items():
        spans.setdefault(object_id(key, ids, given.names), []).extend((first, last) for first, last in wanted)
    for frame in given.empty:
        for number in ids:
            spans.setdefault(number, []).append((frame, frame))
    check_gone(spans, given.labels, count)
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
