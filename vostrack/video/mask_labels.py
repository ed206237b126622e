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
from vostrack.types import BACKGROUND, MAX_OBJECTS, VOID
from vostrack.video.palette import RECOGNISED, palette_ids
from vostrack.video.snap import Bools, Bytes, Flat, flatten, interior

Color = tuple[int, int, int]

# Colours that went through a lossy format, or lay beside soft edges, may be a little off.
_OFF = 6
_FULL_16 = 65535


@dataclass(slots=True)
class Labels:
    """What an image means.

    Attributes:
        pixels: uint8 (H, W), ids with 0 as background and 255 as void.
        notes: what was assumed or changed, one line each.
        colors: for an image in colours, the colour that each id was drawn in; else empty.
    """

    pixels: Bytes
    notes: list[str] = field(default_factory=list)
    colors: dict[int, Color] = field(default_factory=dict)


class _PictureError(MaskError):
    """The image is a photo; where it has an alpha channel, that may still be a mask."""


def image_labels(image: Image.Image, where: str, *, lossy: bool = False) -> Labels:
    """Find the objects of a mask image.

    Args:
        image: decoded and upright; of mode 1, L, LA, P, RGB, RGBA, F, or one of 16 or 32 bits.
        where: the file, as it is named in messages.
        lossy: whether it comes from a format that adds noise.

    Raises:
        MaskError: a photo, ids above 254, or more than 254 objects.
    """
    if image.mode == "P":
        return _from_index(image)
    pixels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        return _from_alpha(pixels[..., :-1], pixels[..., -1], where, lossy)
    if image.mode == "RGB":
        return _from_channels(pixels, where, lossy)
    return _from_channels(_eight_bits(pixels, where)[..., None], where, lossy)


def array_labels(array: npt.NDArray[Any] | Tensor, where: str) -> Labels:
    """Read an array or tensor (H, W) of ids: 0 is background, 255 void, but 255 alone is object 1; or of booleans.

    Args:
        array: of booleans or whole numbers; any layout in memory.
        where: the mask, as it is named in messages.

    Raises:
        MaskError: another shape or type, or values outside of 0 to 255.
    """
    try:
        values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    except (TypeError, ValueError):
        values = np.empty(0, object)
    if values.dtype.kind not in "bui" or values.ndim != 2 or not values.size:
        found = f"{values.dtype} {values.shape}" if values.size else type(array).__name__
        raise MaskError(f"{where} is {found}: expected (H, W) of booleans or whole object ids from 0 to {MAX_OBJECTS}")
    if values.dtype.kind == "b":
        return Labels(values.astype(np.uint8))
    if values.min() < BACKGROUND or values.max() > VOID:
        wrong = values.min() if values.min() < BACKGROUND else values.max()
        raise MaskError(f"{where} holds {wrong}, and object ids go from 1 to {MAX_OBJECTS}: number the objects from 1")
    pixels = values.astype(np.uint8)
    if not ((pixels != BACKGROUND) & (pixels != VOID)).any():
        pixels = (pixels == VOID).astype(np.uint8)
    return Labels(pixels)


def color_ids(colors: Sequence[Color], where: str, tolerance: int = 0) -> list[int]:
    """Choose the ids for colours: 0 for black, 1 for white alone, those of the palette, else 1 to n in sorted order.

    Args:
        colors: different colours.
        where: the files, as they are named in messages.
        tolerance: how far colours may be off, in levels.

    Raises:
        MaskError: there are more than 254.
    """
    objects = [color for color in colors if max(color) > tolerance]
    if len(objects) == 1 and min(objects[0]) >= 255 - tolerance:
        return [int(color in objects) for color in colors]
    if len(objects) <= len(RECOGNISED):
        known = palette_ids(np.array(colors, np.uint8).reshape(-1, 3), tolerance)
        if known is not None:
            return [int(number) for number in known]
    if len(objects) > MAX_OBJECTS:
        raise MaskError(
            f"{where} has {len(objects)} colours, and at most {MAX_OBJECTS} objects can be followed; "
            "draw each object in one flat colour"
        )
    numbers = {color: number for number, color in enumerate(sorted(objects), 1)}
    return [numbers.get(color, BACKGROUND) for color in colors]


def color_note(colors: Mapping[int, Color]) -> list[str]:
    """Say which colour became which id, unless that is plain: the palette's colours, or white alone."""
    if all(red == green == blue and number in (1, red) for number, (red, green, blue) in colors.items()):
        return []
    found = palette_ids(np.array(list(colors.values()), np.uint8), _OFF)
    if found is not None and found.tolist() == list(colors):
        return ["white is void, not an object, beside colours of the palette"] if VOID in colors else []
    names = [f"#{red:02x}{green:02x}{blue:02x} = {number}" for number, (red, green, blue) in sorted(colors.items())]
    return [f"colours became objects: {listed(names)}"]


def listed(names: Sequence[str]) -> str:
    """Join names for a note, the first twenty at most."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def is_free(color: Color) -> bool:
    """Whether a colour has no id of its own: it is neither grey nor in the palette."""
    return min(color) != max(color) and palette_ids(np.array([color], np.uint8), _OFF) is None


def thin_note(pixels: Bytes) -> list[str]:
    """Point out objects that look like the soft edges of others."""
    ids, wide = set(object_ids(pixels)), set(object_ids(pixels[interior(pixels)]))
    thin = len(ids - wide)
    if len(ids) < 8 or 2 * thin <= len(ids):
        return []
    return [f"{thin} of {len(ids)} objects are nowhere 3 pixels wide; if these are soft edges, draw without smoothing"]


def object_ids(pixels: Bytes) -> list[int]:
    """The object ids that occur, ascending."""
    return [number for number in np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist() if number % VOID]


def _from_index(image: Image.Image) -> Labels:
    """Read a palette image: the index is the id, whatever its colour."""
    pixels = np.array(image, np.uint8)
    used = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist()
    if VOID in used and not object_ids(pixels):
        note = "palette index 255 stands for void, but there is no other object: taken as object 1"
        return Labels((pixels == VOID).astype(np.uint8), [note])
    colors = np.array(image.getpalette("RGB") or [0], np.uint8)
    colors = np.pad(colors, (0, 768 - len(colors))).reshape(256, 3)
    black = [index for index in used if not colors[index].any()]
    if black and BACKGROUND in used and colors[BACKGROUND].any():
        return Labels(pixels, [f"palette index 0 is the background, though it is index {black[0]} that is black"])
    return Labels(pixels)


def _from_alpha(channels: Bytes, alpha: Bytes, where: str, lossy: bool) -> Labels:
    """Read an image (H, W, 1 or 3) with alpha (H, W): objects by colour where that is flat, else by alpha alone."""
    if alpha.min() == alpha.max():
        return _from_channels(channels, where, lossy)
    opaque = alpha > 127
    inside = channels[opaque]
    # One grey or black silhouette: its brightness cannot be meant as an id.
    if len(inside) and ((inside != inside[0]).any() or inside[0].min() != inside[0].max()):
        try:
            return _from_channels(np.where(opaque[..., None], channels, np.uint8(0)), where, lossy, opaque)
        except _PictureError:
            pass
    return Labels(opaque.astype(np.uint8), ["object 1 was taken from the alpha channel"])


def _from_channels(channels: Bytes, where: str, lossy: bool, opaque: Bools | None = None) -> Labels:
    """Read an image without alpha, (H, W, 1 or 3)."""
    gray = channels[..., :1]
    colored = channels.shape[2] == 3
    if colored and (channels != gray).any():
        flat = flatten(channels, known=RECOGNISED, where=opaque, lossy=lossy)
    else:
        flat = flatten(gray, where=opaque, lossy=lossy)
    if flat is None:
        raise _PictureError(
            f"{where} looks like a picture, not a mask; expected areas of flat colour on black, or object ids"
        )
    tolerance = _OFF if lossy or flat.moved else 0
    notes = [_snap_note(flat)] if flat.moved else []
    if flat.colors.shape[1] == 3:
        colors: list[Color] = [(int(red), int(green), int(blue)) for red, green, blue in flat.colors]
        ids = color_ids(colors, where, tolerance)
    else:
        values = _clean(flat.colors[:, 0], tolerance)
        colors = [(value, value, value) for value in values]
        ids, assumed = _gray_ids(values, colored)
        notes += assumed
    named = {number: color for number, color in zip(ids, colors, strict=True) if number} if colored else {}
    return Labels(np.array(ids, np.uint8)[flat.index], notes, named)


def _clean(values: Bytes, tolerance: int) -> list[int]:
    """Make nearly black values black and nearly white values white."""
    cleaned = [0 if value <= tolerance else 255 if value >= 255 - tolerance else int(value) for value in values]
    # Blurred or compressed white may be any light grey; exact ids were not blurred.
    bright = [value for value in cleaned if value]
    alone = tolerance > 0 and len(bright) == 1 and bright[0] >= 128
    return [255 if value and alone else value for value in cleaned]


def _gray_ids(values: Sequence[int], colored: bool) -> tuple[list[int], list[str]]:
    """Choose the ids for grey values, and say what was assumed.

    Args:
        values: 0 to 255.
        colored: whether the file could have held colours, so that greys of the palette are colours as well.
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
        return [numbers[value] for value in values], [f"evenly spread grey values became objects: {names}"]
    return list(values), ["grey values are object ids, and 255 is void, not an object"]


def _eight_bits(values: npt.NDArray[np.generic], where: str) -> Bytes:
    """Bring grey values of any depth to 0..255."""
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    if values.dtype == np.uint8:
        return values.astype(np.uint8)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any() or numbers.min() < 0:
        raise MaskError(f"{where} has fractions or negative numbers; expected ids from 0 to {MAX_OBJECTS}")
    high = numbers.max()
    if high == _FULL_16:
        # Beside ids the largest value is void; where others are large too, it is white.
        is_id = (numbers <= MAX_OBJECTS) | (numbers == _FULL_16)
        numbers = np.minimum(numbers, VOID) if is_id.all() else numbers // 256
    elif high > VOID:
        raise MaskError(f"{where} has the id {high:.0f}, and ids go up to {MAX_OBJECTS}; number the objects from 1")
    return numbers.astype(np.uint8)


def _snap_note(flat: Flat) -> str:
    kinds = f"{flat.between} in-between values" if flat.between > 1 else "an in-between value"
    return (
        f"{flat.moved} pixels of {kinds} (anti-aliased edges or compression) "
        f"were snapped to the nearest of {len(flat.colors)} labels"
    )
