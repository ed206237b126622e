"""The ids of objects over several masks of a clip: a new mask never changes that of a known object in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vostrack.errors import MaskError
from vostrack.notes import Code, Note
from vostrack.types import MAX_OBJECTS, VOID, LabelMap
from vostrack.video import mask_labels
from vostrack.video.ground import Color
from vostrack.video.mask_labels import Labels, hex_name, object_ids
from vostrack.video.snap import Bools, Bytes

# Colours of one object may differ by this much between the files of a lossy format.
_SAME_COLOR = 12
# A new colour this near to that of a known object, or a shape that shares this much with it, may be that object.
_ALIKE, _SAME_SHAPE = 40, 0.5


@dataclass(slots=True)
class _Known:
    """The objects of the masks so far.

    Attributes:
        last: by id, the mask (H, W) that shows it last.
        drawn: by id, its colour in images in colours.
        colors: the id of each colour, also of palettes.
        values: by id, the grey value or the file that the id was chosen for.
        reserved: ids that belong to a colour, whether a mask shows it or not.
    """

    last: dict[int, Bytes] = field(default_factory=dict)
    drawn: dict[int, Color] = field(default_factory=dict)
    colors: dict[Color, int] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    reserved: frozenset[int] = frozenset()

    def in_place_of(self, number: int, shape: Bools) -> bool:
        """Whether a shape (H, W) is about that of a known object."""
        area = self.last[number] == number
        return bool((shape & area).sum() >= _SAME_SHAPE * (shape | area).sum())

    def of_value(self, value: str) -> int | None:
        """The id of what was painted in a grey value, or nearly, or lay in a file of that name."""
        ids = {str(color[0]): number for color, number in self.colors.items() if min(color) == max(color)}
        ids |= {painted: number for number, painted in self.values.items() if painted}
        near = [
            number
            for painted, number in ids.items()
            if painted.isdecimal() and value.isdecimal() and abs(int(painted) - int(value)) <= _SAME_COLOR
        ]
        return ids.get(value, near[0] if len(near) == 1 else None)


def share_ids(
    loaded: Mapping[str, Labels | LabelMap],
    fixed: Mapping[Color, int] | None = None,
    drawn: Mapping[int, Color] | None = None,
) -> None:
    """Keep the ids of known objects in later masks; a colour has the id of the first mask. Changes the masks.

    Args:
        loaded: the masks, all of one size, by the names that messages give them, those that decide first.
        fixed: the ids of some colours.
        drawn: by id, the colour of objects that are known before; their masks are label maps.

    Raises:
        MaskError: an object may be meant as a known one with another id, or there are more than 254.
    """
    fixed, drawn = fixed or {}, drawn or {}
    before = {color: number for number, color in drawn.items()}
    known = _Known(drawn=dict(drawn), colors={**fixed, **before}, reserved=frozenset(fixed.values()))
    for name, labels in loaded.items() if len(loaded) > 1 or fixed or drawn else ():
        if isinstance(labels, LabelMap):
            pixels = labels.pixels.cpu().numpy()
        else:
            colors = _shared_colors(labels, known)
            # A grey value is no id where an earlier mask used it as a colour.
            greys = [number for number in object_ids(labels.pixels) if number not in known.last]
            painted = not colors and any(known.of_value(str(number)) is not None for number in greys)
            if labels.chosen or colors or painted:
                _choose_ids(labels, colors, known, name)
            else:
                _check_swapped(labels, known, name)
            known.colors = {c: i for i, c in labels.palette.items() if mask_labels.is_free(c)} | known.colors
            pixels = labels.pixels
        known.last |= dict.fromkeys(object_ids(pixels), pixels)


def _shared_colors(labels: Labels, known: _Known) -> dict[int, Color]:
    """The colours that tell the objects of a mask, by id; a palette's only where an image in colours has one of them.

    Greys that are ids do not count.
    """
    free = [color for color in labels.palette.values() if mask_labels.is_free(color)]
    is_known = any(_same(color, other) for color in free for other in known.drawn.values())
    is_told = is_known and len(set(labels.palette.values())) == len(labels.palette)
    colors = labels.palette if is_told else labels.colors
    return {number: color for number, color in colors.items() if number != VOID and color != (number,) * 3}


def _choose_ids(labels: Labels, colors: Mapping[int, Color], known: _Known, name: str) -> None:
    """Choose the ids of a mask with regard to known objects; changes both."""
    match = _match_colors(colors, list(known.colors))
    ids = {number: known.colors[color] for number, color in match.items() if color in known.colors}
    numbers = object_ids(labels.pixels)
    values = {} if colors else {number: labels.names.get(number, "") for number in numbers}
    for number in values:
        same = known.of_value(labels.names.get(number, str(number)))
        if same is not None and same not in ids.values():
            ids[number] = same
    shown = {*ids.values(), *(number for number, value in values.items() if known.values.get(number) == value)}
    for number in [number for number in numbers if number not in ids]:
        color, shape = match.get(number), labels.pixels == number
        kept = color is None or _keeps_id(number, color, shape, known, alone=len(numbers) == 1)
        if color is None:  # another grey value than that of the object of this id is another object
            pair = known.values.get(number, ""), values.get(number, "")
            kept = number not in {*ids.values(), *known.reserved} and not (
                all(map(str.isdecimal, pair)) and pair[0] != pair[1]
            )
        new = number if kept else _free_id(number, {*known.last, *known.reserved, *ids.values()}, name)
        _check_new(new, color, shape, known, shown, f"{name} adds {_drawn_name(number, color, labels)}")
        ids[number] = new
    if values and any(number != new for number, new in ids.items()):
        names = [f"{labels.names.get(number, number)} = {new}" for number, new in sorted(ids.items())]
        told = [note for note in labels.notes if note.code is not Code.MASK_IDS]
        shared = Note(Code.MASK_IDS, f"ids with regard to earlier masks: {mask_labels.listed(names)}")
        labels.notes = [*told, shared]
    labels.titles = {ids.get(number, number): title for number, title in labels.titles.items()}
    labels.names = {ids.get(number, number): painted for number, painted in labels.names.items()}
    table = np.arange(VOID + 1, dtype=np.uint8)
    table[list(ids)] = list(ids.values())
    labels.pixels = table[labels.pixels]
    known.values |= {ids[number]: value for number, value in values.items()}
    if colors:
        void = {number: color for number, color in labels.colors.items() if number not in ids}
        labels.colors = void | {ids[number]: color for number, color in colors.items()}
        known.drawn |= {ids[number]: color for number, color in match.items()}
        known.colors |= {color: ids[number] for number, color in match.items()}


def _keeps_id(number: int, color: Color, shape: Bools, known: _Known, alone: bool) -> bool:
    """Whether a new colour may have its id, though that is known: no colour tells otherwise, and it may be that."""
    if number not in known.last:
        return False
    free = mask_labels.is_free(color)
    if number in known.drawn and (free or mask_labels.is_free(known.drawn[number])):
        return False
    return alone or not free or known.in_place_of(number, shape)


def _drawn_name(number: int, color: Color | None, labels: Labels) -> str:
    if color is not None:
        return hex_name(color)
    return "white" if labels.names.get(number) == str(VOID) else f"object {number}"


def _free_id(number: int, taken: set[int], name: str) -> int:
    """An id for a new colour: its own, or the lowest one that is free."""
    free: list[int] = [other for other in (number, *range(1, VOID)) if other not in taken]
    if not free:
        raise MaskError(f"with {name} there are more than {MAX_OBJECTS} objects; draw each in one colour")
    return free[0]


def _check_new(new: int, color: Color | None, shape: Bools, known: _Known, shown: set[int], what: str) -> None:
    """Ask about an object that may be meant as one with another id, which its mask does not show."""
    for other in known.last:
        if other == new or other in shown:
            continue
        drawn = known.drawn.get(other)
        alike = color is not None and drawn is not None and _alike(color, drawn)
        if not alike and not known.in_place_of(other, shape):
            continue
        like = "much like" if alike else "in the place of"
        if drawn is not None:
            raise MaskError(
                f"{what}, which is {like} {hex_name(drawn)} of an earlier mask: paint it in {hex_name(drawn)} if it is "
                "that object; if it is a new one, paint both in this mask"
            )
        free = _free_id(max(new, 2), {*known.last, *known.reserved}, what)  # 1 alone would be asked about again
        raise MaskError(
            f"{what}, which is {like} object {other} of an earlier mask: paint this mask in grey values that are ids, "
            f"with {other} if it is that object and {free} if it is a new one"
        )


def _check_swapped(labels: Labels, known: _Known, name: str) -> None:
    """Ask about ids that are all in the place of others, where nobody chose the ids of the colours before."""
    numbers = [number for number in object_ids(labels.pixels) if number in known.last]
    places = {
        number: other
        for number in numbers
        for other in known.last
        if known.in_place_of(other, labels.pixels == number)
        and all(at in known.drawn and mask_labels.is_free(known.drawn[at]) for at in (number, other))
    }
    swapped = {number: other for number, other in places.items() if number != other}
    if swapped and len(swapped) == len(numbers) and (len(swapped) > 1 or not labels.palette):
        number, other = next(iter(swapped.items()))
        one, two = hex_name(known.drawn[number]), hex_name(known.drawn[other])
        raise MaskError(
            f"{name} shows {number}, the id of {one} of an earlier mask, in the place of {two}, whose id is {other}: "
            f"paint this mask in the colours of the earlier one, with {two} if it is that object and {one} if not"
        )


def _match_colors(colors: Mapping[int, Color], known: Sequence[Color]) -> dict[int, Color]:
    """For each colour of a mask, by id, find the equal or nearly equal one of other masks; else it is its own."""
    match: dict[int, Color] = {}
    for number, color in colors.items():
        # Two colours of this mask stay two, however near they are.
        taken = {*match.values(), *colors.values()} - {color}
        near = [other for other in known if other not in taken and _same(color, other)]
        match[number] = color if color in known or not near else near[0]
    return match


def _alike(one: Color, other: Color) -> bool:
    """Whether two colours may be meant as one; those of the palette are told apart."""
    return _same(one, other, _ALIKE) and (mask_labels.is_free(one) or mask_labels.is_free(other))


def _same(one: Color, other: Color, most: int = _SAME_COLOR) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= most
