"""Names that a person gives to objects, by what these are painted in, and the ids that colours get by their order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

from PIL import ImageColor

from vostrack.errors import MaskError, counted
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.types import MAX_OBJECTS, LabelMap
from vostrack.video.ground import Color
from vostrack.video.mask_labels import Labels, hex_name, listed, object_ids

Painted = int | Color | str
"""What tells an object in a mask: a colour (R, G, B), a grey value, a palette index or an id, or the name of a file."""

Names = Mapping[int, str] | Mapping[Color, str] | Mapping[str, str] | Mapping[Painted, str]
"""Names by what is named; the order of colours is that of their ids."""

_LONGEST = 80
_NEAR = 12
_OBJECT = "#?[0-9a-fA-F]{6}|[0-9]{1,3}(,[0-9]{1,3},[0-9]{1,3})?"


def checked_names(names: object) -> dict[Painted, str]:
    """Names by what is named, of the right types; raises `MaskError`."""
    if not isinstance(names, Mapping):
        raise MaskError(f"names are given by colour, id or file, such as {{(255, 0, 0): 'dog'}}, not as {names!r}")
    for painted, name in names.items():
        levels = painted if isinstance(painted, tuple) and len(painted) == 3 else (painted,)
        whole = all(type(level) is int and 0 <= level <= 255 for level in levels)
        if not whole and not isinstance(painted, str):
            raise MaskError(f"names are given by colour (R, G, B), number from 0 to 255 or file, not by {painted!r}")
        if not is_name(name):
            raise MaskError(
                f"the name of an object is a text of 1 to {_LONGEST} letters that can be shown, not {shown(repr(name))}"
            )
    return dict(names)


def is_name(name: object) -> bool:
    """Whether this can be the name of an object."""
    return isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name) <= _LONGEST


def fixed_ids(names: Mapping[Painted, str]) -> dict[Color, int]:
    """The ids of colours that are named: from 1 on, in their order, without those that are named themselves."""
    free = iter([number for number in range(1, MAX_OBJECTS + 1) if number not in names])
    return {painted: next(free) for painted in names if isinstance(painted, tuple)}


def names_of_known(
    names: Mapping[Painted, str], ids: Iterable[int], known: Mapping[int, str], colors: Mapping[int, Color]
) -> tuple[dict[int, str], dict[Painted, str]]:
    """The names of objects that are known already, by id, and the rest of the names, by what is named.

    Args:
        names: by what is named; what an object is called so far means it too.
        ids: of the objects.
        known: what they are called so far, by id.
        colors: what they were painted in, by id.

    Raises:
        MaskError: one gets two names.
    """
    found, rest, there = dict[int, str](), dict[Painted, str](), {*ids}
    for painted, name in names.items():
        called = painted if isinstance(painted, str) else None
        meant = {n for n in there if n == painted or (called and known.get(n) == called)}
        if isinstance(painted, tuple):
            meant = {n for n in there if n in colors and _distance(colors[n], painted) <= _NEAR}
        for number in sorted(meant):
            _name(found, number, name)
        if not meant:
            rest[painted] = name
    return found, rest


def names_by_id(names: Mapping[Painted, str], masks: Iterable[Labels | LabelMap]) -> dict[int, str]:
    """The names of objects by id.

    Args:
        names: by what is named.
        masks: in which ids are settled.

    Raises:
        MaskError: no mask has an object that is named, or one gets two names.
    """
    found: dict[int, str] = {}
    masks = list(masks)
    for painted, name in names.items():
        ids = {number for mask in masks for number in _found(painted, mask)}
        if not ids:
            there = dict.fromkeys(text for mask in masks for text in _objects(mask))
            raise MaskError(
                f"{unnamed(painted, name)}: there {'is' if len(there) == 1 else 'are'} "
                f"{counted(len(there), 'object')}, {listed(list(there))}{exchanged(painted, name)}"
            )
        for number in sorted(ids):
            _name(found, number, name)
    return found


def unnamed(painted: Painted, name: str) -> str:
    """What is wrong where nothing in a mask is what gets a name."""
    kind = {int: "id or grey", tuple: "colour"}.get(type(painted), "colour, id or file")
    what = hex_name(painted) if isinstance(painted, tuple) else shown(painted)
    return f"no mask has the {kind} {what} (named {name})"


def exchanged(painted: Painted, name: str) -> str:
    """How to mend it where a name and what gets it may be exchanged, for the end of a message."""
    is_object = name.lower() in ImageColor.colormap or re.fullmatch(_OBJECT, name)
    if not is_object or not isinstance(painted, str):
        return ""
    return f"; exchange them if {shown(painted)} is the name of {name}"


def shared_names(names: Mapping[int, str]) -> list[Note]:
    """A note for each name that several objects have."""
    called: dict[str, list[int]] = {}
    for number, name in sorted(names.items()):
        called.setdefault(name, []).append(number)
    return [
        Note(Code.OBJECTS_ALIKE, f"objects {', '.join(map(str, ids))} are called {name}: it is their class")
        for name, ids in called.items()
        if len(ids) > 1
    ]


def _name(found: dict[int, str], number: int, name: str) -> None:
    if found.setdefault(number, name) != name:
        raise MaskError(f"object {number} has two names, {found[number]} and {name}: leave one out")


def _found(painted: Painted, mask: Labels | LabelMap) -> Sequence[int]:
    """Ids of the objects of a mask that are meant."""
    if isinstance(mask, LabelMap):
        return [painted] if isinstance(painted, int) and painted in mask.ids else []
    ids = object_ids(mask.pixels)
    drawn = {number: color for number, color in (mask.palette | mask.colors).items() if number in ids}
    if isinstance(painted, tuple):
        near = [number for number, color in drawn.items() if _distance(color, painted) <= _NEAR]
        exact = [number for number in near if drawn[number] == painted]
        grey = [] if drawn or len(set(painted)) > 1 else _found(painted[0], mask)
        return exact or near or grey
    if isinstance(painted, int):
        valued = [number for number, value in mask.names.items() if value == str(painted) and number in ids]
        return valued or [number for number in ids if number == painted]
    return [
        number
        for number in ids
        if painted in {mask.titles.get(number), mask.names.get(number), PurePath(mask.names.get(number, "")).stem}
    ]


def _objects(mask: Labels | LabelMap) -> Iterator[str]:
    """What the objects of a mask are painted in, for a message, as it can be given."""
    if isinstance(mask, LabelMap):
        yield from map(str, mask.ids)
        return
    for number in object_ids(mask.pixels):
        color = mask.colors.get(number)
        named = mask.names.get(number, str(number))
        grey = int(named) if named.isdecimal() and named != str(number) else None
        color = color or (None if grey is None else (grey, grey, grey))
        yield hex_name(color) if color else named


def _distance(one: Color, other: Color) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
