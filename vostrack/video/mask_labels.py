"""From one decoded mask image to object ids; `masks.read_mask` says which kinds of image mean what.

Knows nothing of files and of the clip's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from vostrack.errors import MaskError
from vostrack.notes import Code, Note
from vostrack.types import BACKGROUND, MAX_OBJECTS, VOID
from vostrack.video.ground import Color, Reading, border_share, dark_ground, full_range, named_ground
from vostrack.video.palette import RECOGNISED, palette_ids
from vostrack.video.snap import Bools, Bytes, Flat, flatten, interior

# Colours that went through a lossy format, or lay beside soft edges, may be a little off.
_OFF = 6
# Ids up to here cannot be told from the noise of a lossy format.
_SMALL_ID = 24
# A palette image of so many objects that nearly all are thin is a picture.
_MANY = 8
# Alpha from here on is meant to be seen.
_FAINT = 32
_FULL_16 = 65535


@dataclass(slots=True)
class Labels:
    """What an image means.

    Attributes:
        pixels: uint8 (H, W), ids with 0 as background and 255 as void.
        notes: what was assumed or changed, one line each.
        colors: for an image in colours, the colour that each id was drawn in; else empty.
        names: what each id was drawn in, as `Reading.background` names it; by default the id itself.
        palette: for a palette image, the colours that its ids are shown in, which mean nothing by themselves.
        titles: what to call the objects beside their ids, where files of theirs are named after them.
        chosen: whether the ids were chosen here, or may not be meant as ids, as that of 0 and 1 in grey.
    """

    pixels: Bytes
    notes: list[Note] = field(default_factory=list)
    colors: dict[int, Color] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    palette: dict[int, Color] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    chosen: bool = False


class _PictureError(MaskError):
    """The image is a photo; where it has an alpha channel, that may still be a mask."""


# Up to here a grey value beside 255 is an id; larger ones are greys that somebody painted with.
_LARGEST_USUAL_ID = 16


def image_labels(image: Image.Image, where: str, reading: Reading, *, lossy: bool = False) -> Labels:
    """Find the objects of a mask image.

    Args:
        image: decoded and upright; of mode 1, L, LA, P, RGB, RGBA, F, or one of 16 or 32 bits.
        where: the file, as it is named in messages.
        reading: what is background.
        lossy: whether it comes from a format that adds noise.

    Raises:
        MaskError: a photo, ids above 254, more than 254 objects, or without the background that was named.
    """
    if image.mode == "P":
        labels = _from_index(image, where, reading)
        by_color = _by_color(image, reading)
        if (
            not reading.no_background
            and len(object_ids(labels.pixels)) >= _MANY
            and interior(labels.pixels).mean() < 0.5
        ):
            raise _PictureError(f"{where} looks like a picture of few colours, not a mask; give an image of object ids")
        if not by_color and not _mostly_thin(labels.pixels):
            return labels
        drawn = image_labels(image.convert("RGBA" if image.has_transparency_data else "RGB"), where, reading)
        # Soft edges that were reduced to a palette become few objects, many small objects do not.
        fewer = 2 * len(object_ids(drawn.pixels)) < len(object_ids(labels.pixels))
        return drawn if by_color or fewer else labels
    pixels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        return _from_alpha(pixels[..., :-1], pixels[..., -1], where, reading, lossy)
    if image.mode == "RGB":
        return _from_channels(pixels, where, reading, lossy)
    return _from_channels(_eight_bits(pixels, where)[..., None], where, reading, lossy)


def array_labels(array: npt.NDArray[Any] | Tensor, where: str, reading: Reading) -> Labels:
    """Read an array or tensor (H, W) of ids: 0 is background, 255 void, but 255 alone is object 1; or of booleans.

    Args:
        array: of booleans or whole numbers; any layout in memory.
        where: the mask, as it is named in messages.
        reading: what is background.

    Raises:
        MaskError: another shape or type, values outside of 0 to 255, or without the background that was named.
    """
    try:
        values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    except (TypeError, ValueError):
        values = np.empty(0, object)
    if values.dtype.kind not in "bui" or values.ndim != 2 or not values.size:
        found = f"{values.dtype} {values.shape}" if values.size else type(array).__name__
        raise MaskError(f"{where} is {found}: expected (H, W) of booleans or whole object ids from 0 to {MAX_OBJECTS}")
    if values.dtype.kind == "b":
        return Labels(values.astype(np.uint8), chosen=True)
    if values.min() < BACKGROUND or values.max() > VOID:
        wrong = values.min() if values.min() < BACKGROUND else values.max()
        raise MaskError(f"{where} holds {wrong}, and object ids go from 1 to {MAX_OBJECTS}: number the objects from 1")
    pixels = values.astype(np.uint8)
    if reading.background is not None:
        return _grounded(pixels, None, where, reading)
    if not ((pixels != BACKGROUND) & (pixels != VOID)).any():
        pixels = (pixels == VOID).astype(np.uint8)
    return Labels(pixels, chosen=object_ids(pixels) == [1])


def color_ids(colors: Sequence[Color], where: str, tolerance: int = 0, ground: Color | None = None) -> list[int]:
    """Choose the ids for colours: 0 for black, 1 for white alone, those of the palette, else 1 to n in sorted order.

    Args:
        colors: different colours.
        where: the files, as they are named in messages.
        tolerance: how far colours may be off, in levels.
        ground: the colour that is 0, if it is not black.

    Raises:
        MaskError: there are more than 254.
    """
    objects = [color for color in colors if (max(color) > tolerance if ground is None else color != ground)]
    if len(objects) == 1 and min(objects[0]) >= 255 - tolerance:
        return [int(color in objects) for color in colors]
    if len(objects) <= len(RECOGNISED):
        known = palette_ids(np.array(objects, np.uint8).reshape(-1, 3), tolerance)
        if known is not None and known.all():
            numbers = dict(zip(objects, known.tolist(), strict=True))
            return [numbers.get(color, BACKGROUND) for color in colors]
    if len(objects) > MAX_OBJECTS:
        raise MaskError(
            f"{where} has {len(objects)} colours, and at most {MAX_OBJECTS} objects can be followed; "
            "draw each object in one flat colour"
        )
    numbers = {color: number for number, color in enumerate(sorted(objects), 1)}
    return [numbers.get(color, BACKGROUND) for color in colors]


def color_note(colors: Mapping[int, Color], called: Mapping[int, str]) -> list[Note]:
    """Say which colour became which id, and what that is called; unless it is plain: the palette's, or white alone."""
    if all(red == green == blue and number in (1, red) for number, (red, green, blue) in colors.items()):
        return []
    found = palette_ids(np.array(list(colors.values()), np.uint8), _OFF)
    if found is not None and found.tolist() == list(colors):
        text = "white is void, not an object, beside colours of the palette"
        return [Note(Code.MASK_VOID, text)] if VOID in colors else []
    names = [
        f"{hex_name(color)} = {number}{f' ({called[number]})' if number in called else ''}"
        for number, color in sorted(colors.items())
    ]
    return [Note(Code.MASK_IDS, f"colours became objects: {listed(names)}")]


def painted(labels: Labels) -> dict[int, Color]:
    """The colours that objects were painted in, by id; none where all are greys, which stand for something else."""
    colors = labels.colors or labels.palette
    if all(min(color) == max(color) for color in colors.values()):
        return {}
    return {number: color for number, color in colors.items() if number != VOID}


def hex_name(color: Color) -> str:
    """A colour as #rrggbb."""
    return "#" + "".join(f"{level:02x}" for level in color)


def listed(names: Sequence[str]) -> str:
    """Join names for a note, the first twenty at most."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def is_free(color: Color) -> bool:
    """Whether a colour has no id of its own: it is neither grey nor in the palette."""
    return min(color) != max(color) and palette_ids(np.array([color], np.uint8), _OFF) is None


def _mostly_thin(pixels: Bytes) -> bool:
    """Whether most of several objects are as thin as soft edges."""
    many = len(object_ids(pixels))
    return many > 2 and 2 * len(thin_ids(pixels)) > many


def thin_ids(pixels: Bytes) -> set[int]:
    """Objects that are nowhere 3 pixels wide."""
    return set(object_ids(pixels)) - set(object_ids(pixels[interior(pixels)]))


def object_ids(pixels: Bytes) -> list[int]:
    """The object ids that occur, ascending."""
    return [number for number in np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist() if number % VOID]


def _by_color(image: Image.Image, reading: Reading) -> bool:
    """Whether the colours of a palette image mean more than its indices: its ground is black or transparent, but not 0.

    Programs that shrink files sort the palette, so index 0 may be an object.
    """
    if reading.no_background or reading.background is not None:
        return False
    pixels, clear = np.asarray(image), np.zeros(256, np.bool_)
    black = _palette(image).max(axis=1) <= _OFF
    given = image.info.get("transparency", b"")
    clear[[given] if isinstance(given, int) else np.flatnonzero(np.frombuffer(given, np.uint8) <= 127)] = True
    grounds = [] if clear[0] else [clear] if black[0] and not pixels.all() else [clear, black]
    return any(border_share(ground[pixels]) > border_share(pixels == 0) for ground in grounds)


def _palette(image: Image.Image) -> Bytes:
    """The colours of a palette, uint8 (256, 3)."""
    colors = np.array(image.getpalette("RGB") or [0], np.uint8)
    return np.pad(colors, (0, 768 - len(colors))).reshape(256, 3)


def _from_index(image: Image.Image, where: str, reading: Reading) -> Labels:
    """Read a palette image: the index is the id, whatever its colour."""
    pixels, colors = np.array(image, np.uint8), _palette(image)
    if reading.background is not None:
        return _grounded(pixels, colors, where, reading)
    used = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist()
    if VOID in used and not object_ids(pixels):
        text = "palette index 255 stands for void, but there is no other object: taken as object 1"
        return Labels((pixels == VOID).astype(np.uint8), [Note(Code.MASK_IDS, text)], chosen=True)
    palette = {
        index: (int(r), int(g), int(b)) for index, (r, g, b) in enumerate(colors) if index in used and index % VOID
    }
    black = [index for index in used if not colors[index].any()]
    if black and BACKGROUND in used and colors[BACKGROUND].any():
        text = f"palette index 0 is the background, though it is index {black[0]} that is black"
        return Labels(pixels, [Note(Code.MASK_GROUND, text)], palette=palette)
    return Labels(pixels, palette=palette)


def _grounded(pixels: Bytes, colors: Bytes | None, where: str, reading: Reading) -> Labels:
    """Ids (H, W), of which another than 0 is the background that the caller names; 0 is then an object.

    Args:
        pixels: ids.
        colors: (256, 3), in which they are shown; None if they have no colours.
        where: the mask, as it is named in messages.
        reading: the background, as an id or a colour.
    """
    used = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist()
    shown = np.arange(256).repeat(3).reshape(256, 3) if colors is None or reading.is_value else colors
    present = [(int(red), int(green), int(blue)) for red, green, blue in shown[used]]
    ground = named_ground(present, reading, where, [str(number) for number in used])
    table = np.arange(256, dtype=np.uint8)
    notes = []
    if ground is not None and used[ground]:
        table[used[ground]] = BACKGROUND
        if BACKGROUND in used:
            table[BACKGROUND] = min(set(range(1, VOID)) - set(used) | {used[ground]} - {VOID})
            notes = [Note(Code.MASK_IDS, f"0 is not the background: it became object {table[BACKGROUND]}")]
    labels = table[pixels]
    if VOID in used and not object_ids(labels):
        labels = (labels == VOID).astype(np.uint8)
    return Labels(labels, notes)


def _from_alpha(channels: Bytes, alpha: Bytes, where: str, reading: Reading, lossy: bool) -> Labels:
    """Read an image (H, W, 1 or 3) with alpha (H, W): objects by colour where that is flat, else by alpha alone."""
    if alpha.min() == alpha.max():
        return _from_channels(channels, where, reading, lossy)
    if alpha.max() <= _SMALL_ID and len(np.unique(alpha)) > 2:
        raise MaskError(f"{where} has an alpha channel of values up to {alpha.max()} of 255: save ids as a grey image")
    opaque = alpha > alpha.max() // 2  # a marker need not be opaque
    inside = channels[opaque]
    notes = _faint_note(alpha, opaque)
    # One grey or black silhouette: its brightness cannot be meant as an id.
    several = bool((inside != inside[0]).any())
    if several or inside[0].min() != inside[0].max():
        hidden = np.array(reading.color or (0, 0, 0), np.uint8)[: channels.shape[2]]
        try:
            labels = _from_channels(np.where(opaque[..., None], channels, hidden), where, reading, lossy, opaque)
            labels.pixels[~opaque] = BACKGROUND
            black = opaque & (labels.pixels == BACKGROUND)
            if (black & interior(black)).any():
                text = "black is background where it is opaque too; paint objects in other colours"
                notes.append(Note(Code.MASK_BLACK, text))
            labels.notes += notes
            return labels
        except _PictureError:
            text = (
                "its colours are not flat, so all that is opaque became one object; "
                "draw with a hard brush, each object in one colour, to have several"
            )
            notes.append(Note(Code.MASK_MERGED, text))
    return Labels(
        opaque.astype(np.uint8),
        [Note(Code.MASK_ALPHA, "object 1 was taken from the alpha channel"), *notes],
        names={1: "what is opaque"},
        chosen=True,
    )


def _faint_note(alpha: Bytes, opaque: Bools) -> list[Note]:
    """Point out areas of even, weak opacity, which soft edges are not: a second brush may have been a marker."""
    faint = interior(alpha) & ~opaque & (alpha >= _FAINT)
    if not faint.any():
        return []
    level, most = (100 * int(alpha) / 255 for alpha in (np.bincount(alpha[faint]).argmax(), alpha.max()))
    text = f"areas that are {level:.0f}% opaque are background, as others are {most:.0f}%; paint objects fully opaque"
    return [Note(Code.MASK_FAINT, text)]


def _from_channels(
    channels: Bytes, where: str, reading: Reading, lossy: bool = False, opaque: Bools | None = None
) -> Labels:
    """Read an image without alpha, (H, W, 1 or 3)."""
    gray = channels[..., :1]
    colored = channels.shape[2] == 3
    if colored and (channels != gray).any():
        flat = flatten(channels, known=RECOGNISED, where=opaque, lossy=lossy)
    else:
        flat = flatten(gray, where=opaque, lossy=lossy)
    if flat is None:
        raise _PictureError(
            f"{where} looks like a picture, not a mask; expected areas of flat colour on black, object ids, or a "
            "cutout on transparency"
        )
    if lossy and 0 < channels.max() <= _SMALL_ID:
        raise MaskError(
            f"{where} holds values up to {channels.max()} alone, and compression blurs such small ids: save it as a PNG"
        )
    tolerance = _OFF if lossy or flat.moved else 0
    notes = [_snap_note(flat), *_faded_note(flat, colored)] if flat.moved else []
    ids, colors, assumed = _color_labels(flat, colored, tolerance, where, reading)
    drawn = {number: color for number, color in zip(ids, colors, strict=True) if number}
    names = {number: _color_name(color, colored) for number, color in drawn.items()}
    if lossy and any(color == (number,) * 3 for number, color in drawn.items()):
        assumed.append(Note(Code.MASK_LOSSY, "ids in a lossy format may be off by a little; save them as a PNG"))
    chosen = list(drawn) == [1] or any(color != (number,) * 3 for number, color in drawn.items())
    return Labels(np.array(ids, np.uint8)[flat.index], notes + assumed, drawn if colored else {}, names, chosen=chosen)


def _color_labels(
    flat: Flat, colored: bool, tolerance: int, where: str, reading: Reading
) -> tuple[list[int], list[Color], list[Note]]:
    """Choose the ids for the areas of an image: ids and colours of the areas, and what was assumed."""
    is_gray, levels = flat.colors.shape[1] == 1, flat.colors.astype(np.int64)
    notes = []
    guess = reading.background is None and not reading.no_background
    if is_gray and guess and (full_range(levels) != levels).any():
        levels = full_range(levels)
        notes = [Note(Code.MASK_RANGE, "grey values from 16 to 235 were taken as black to white")]
    colors = [(int(c[0]), int(c[-2]), int(c[-1])) for c in levels.repeat(3 // levels.shape[1], axis=1)]
    names = [_color_name(color, colored) for color in colors]
    ground = named_ground(colors, reading, where, names, not tolerance)
    if guess:
        ground = dark_ground(flat.index, colors, tolerance)
        if ground is not None:
            notes.append(Note(Code.MASK_GROUND, f"{names[ground]}, nearly black, is the background"))
    others = [color for place, color in enumerate(colors) if place != ground]
    if not is_gray or (ground is not None and any(max(color) <= tolerance for color in others)):
        return color_ids(colors, where, tolerance, None if ground is None else colors[ground]), colors, notes
    values = _clean([BACKGROUND if place == ground else color[0] for place, color in enumerate(colors)], tolerance)
    white = np.isin(flat.index, np.flatnonzero(np.array(values) == VOID))
    ids, assumed = _gray_ids(values, colored, bool((white & interior(white.astype(np.uint8))).any()), where)
    return ids, [(value, value, value) for value in values], notes + assumed


def _color_name(color: Color, colored: bool) -> str:
    return str(color if colored else color[0])


def _clean(values: Sequence[int], tolerance: int) -> list[int]:
    """Make nearly black values black and nearly white values white."""
    cleaned = [0 if value <= tolerance else 255 if value >= 255 - tolerance else int(value) for value in values]
    # Blurred or compressed white may be any light grey; exact ids were not blurred.
    bright = [value for value in cleaned if value]
    alone = tolerance > 0 and len(bright) == 1 and bright[0] >= 128
    return [255 if value and alone else value for value in cleaned]


def _gray_ids(values: Sequence[int], colored: bool, wide: bool, where: str) -> tuple[list[int], list[Note]]:
    """Choose the ids for grey values, and say what was assumed.

    Args:
        values: 0 to 255.
        colored: whether the file could have held colours, so that greys of the palette are colours as well.
        wide: whether 255 is an area, not a rim alone.
        where: the mask, as it is named in messages.

    Raises:
        MaskError: 255 may be void as well as an object.
    """
    others = sorted(set(values) - {BACKGROUND})
    if others == [VOID]:
        return [int(value == VOID) for value in values], []
    if VOID not in others:
        known = palette_ids(np.array([(value,) * 3 for value in values], np.uint8)) if colored else None
        return list(values) if known is None else known.tolist(), []
    if len(others) <= 6 and np.abs(others - np.linspace(0, VOID, len(others) + 1)[1:]).max() <= 1:
        # Somebody painted in black, grey and white; read as ids, white would be void and an object be lost.
        numbers = {BACKGROUND: BACKGROUND} | {value: number for number, value in enumerate(others, 1)}
        names = listed([f"{value} = {number}" for value, number in numbers.items() if number])
        note = Note(Code.MASK_IDS, f"evenly spread grey values became objects: {names}")
        return [numbers[value] for value in values], [note]
    if wide and others[0] > _LARGEST_USUAL_ID:
        raise MaskError(
            f"{where} has areas of {listed(list(map(str, others)))}, where 255 may be an object or void: "
            "number the objects from 1, or paint each in a colour of its own"
        )
    return list(values), [Note(Code.MASK_VOID, "grey values are object ids, and 255 is void, not an object")]


def _eight_bits(values: npt.NDArray[np.generic], where: str) -> Bytes:
    """Bring grey values of any depth to 0..255."""
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    if values.dtype == np.uint8:
        return values.astype(np.uint8)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all() or numbers.min() < 0:
        raise MaskError(f"{where} has negative numbers or none; expected ids from 0 to {MAX_OBJECTS}")
    high = numbers.max()
    if (numbers != np.rint(numbers)).any():  # a matte: ids have no fractions
        if 1 < high <= VOID // 2 or high > VOID:
            raise MaskError(f"{where} has fractions up to {high:g}; expected a matte from 0 to 1 or 0 to 255, or ids")
        return np.rint(numbers * 255 if high <= 1 else numbers).astype(np.uint8)
    if high == _FULL_16:
        # Beside ids the largest value is void; where others are large too, it is white.
        is_id = (numbers <= MAX_OBJECTS) | (numbers == _FULL_16)
        numbers = np.minimum(numbers, VOID) if is_id.all() else numbers // 256
    elif bits := next((bits for bits in (10, 12) if 0.98 * 2**bits < high < 2**bits), None):
        numbers = numbers // 2 ** (bits - 8)  # a matte of fewer bits than its file has: no ids are so large
    elif step := next((step for step in (257, 256) if high > VOID and not (numbers % step).any()), None):
        numbers = numbers // step  # 8 bits, which somebody moved to the upper byte or to both
    elif high > VOID:
        raise MaskError(
            f"{where} has the value {high:.0f}: ids go up to {MAX_OBJECTS}, and white of 16 bits is {_FULL_16}; number "
            "the objects from 1, or, if it is a matte, save it with 8 bits"
        )
    return numbers.astype(np.uint8)


def _faded_note(flat: Flat, colored: bool) -> list[Note]:
    """Point out areas that may have been objects."""
    colors = [] if flat.faded is None else flat.faded.tolist()
    if not colors:
        return []
    names = listed([_color_name((c[0], c[-2 % len(c)], c[-1]), colored) for c in colors])
    text = f"even areas of {names} were taken for soft edges; if they are objects, draw with hard edges"
    return [Note(Code.MASK_FADED, text)]


def _snap_note(flat: Flat) -> Note:
    kinds = f"{flat.between} in-between values" if flat.between > 1 else "an in-between value"
    return Note(
        Code.MASK_SNAPPED,
        f"{flat.moved} pixels of {kinds} (anti-aliased edges or compression) "
        f"were snapped to the nearest of {len(flat.colors)} labels",
    )
