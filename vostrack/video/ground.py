"""What the background of a mask is where it is not plainly black, and masks that have none.

A ground that is followed as an object gives a plausible result that is wrong everywhere. So a mask without a background
is refused unless the caller says what is meant. Knows nothing of files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vostrack.errors import MaskError
from vostrack.types import BACKGROUND, VOID
from vostrack.video.snap import Bools, Bytes, Index, Ints

Color = tuple[int, int, int]

# Shares of frame and border. Of the objects of DAVIS, none has more than 0.73 of the frame, 0.54 of the border, or 1.03
# of both together; 99 of 100 backgrounds have more than 1.5 of both.
_MOST_OF_BOTH, _NEARLY_ALL = 1.4, 0.9
# Levels: a ground up to here is nearly black, if it is this much darker than the rest.
_NEARLY_BLACK, _CONTRAST = 16, 64
# Two labels that change places along the border so often are a pattern, not a ground and an object.
_PATTERN_CHANGES, _PATTERN_LEAST = 8, 0.2
# Black and white of television, and how far they may be off.
_DARK, _LIGHT, _OFF = 16, 235, 6
# A colour that the caller names may differ by this much from that in the file.
_MEANT = 12


@dataclass(frozen=True, slots=True)
class Reading:
    """How masks are to be read.

    Attributes:
        resize_mask: whether a mask of another size and the same shape is scaled.
        background: what is background beside transparent pixels: a colour (R, G, B) of 0 to 255, or one grey value,
            palette index or value of an array; None for 0, black or what is clearly meant.
        invert_mask: whether object and background of masks with one object change places.
        no_background: whether objects may fill the frame; then no ground is guessed.

    Raises:
        MaskError: a value of the wrong kind or out of range.
    """

    resize_mask: bool = False
    background: int | Color | None = None
    invert_mask: bool = False
    no_background: bool = False

    def __post_init__(self) -> None:
        """Refuse other types."""
        for name in ("resize_mask", "invert_mask", "no_background"):
            if not isinstance(getattr(self, name), bool):
                raise MaskError(f"{name} must be True or False, not {getattr(self, name)!r}")
        given = self.background
        levels = given if isinstance(given, tuple) and len(given) == 3 else (given,)
        whole = all(isinstance(level, int) and not isinstance(level, bool) and 0 <= level <= 255 for level in levels)
        if given is not None and not whole:
            raise MaskError(f"background must be a number from 0 to 255 or three of them (R, G, B), not {given!r}")

    @property
    def is_value(self) -> bool:
        """Whether the background is a value, not a colour."""
        return isinstance(self.background, int)

    @property
    def color(self) -> Color | None:
        """The background as a colour."""
        return (self.background,) * 3 if isinstance(self.background, int) else self.background

    def record(self) -> dict[str, Any]:
        """The attributes as JSON holds them."""
        background = list(self.background) if isinstance(self.background, tuple) else self.background
        return {**dataclasses.asdict(self), "background": background}


def fills(part: Bools) -> bool:
    """Whether a part (H, W) of a frame covers most of it and its border, or nearly all of either: as backgrounds do."""
    frame, border = float(part.mean()), border_share(part)
    return frame + border > _MOST_OF_BOTH or max(frame, border) > _NEARLY_ALL


def border_share(part: Bools) -> float:
    """How much of the border of the frame a part (H, W) covers, 0 to 1."""
    return float(_border(part).mean())


def _border(image: NDArray[Any]) -> NDArray[Any]:
    """The pixels of the border of an image (H, W), once around."""
    return np.concatenate([image[0], image[1:-1, -1], image[-1, ::-1], image[-2:0:-1, 0]])


def named_ground(
    colors: Sequence[Color], reading: Reading, where: str, names: Sequence[str], exact: bool = True
) -> int | None:
    """Position of the colour that the caller names as background; None if there is no such wish.

    Args:
        colors: of an image; of ids, grey values.
        reading: with the wish.
        where: the mask, as it is named in messages.
        names: of the colours.
        exact: whether values are those that were drawn, so that the next one may be another id.

    Raises:
        MaskError: no colour is near it.
    """
    if reading.color is None:
        return None
    away = np.abs(np.array(colors, np.int64) - reading.color).max(axis=1)
    if away.min() > (0 if exact and reading.is_value else _MEANT):
        raise MaskError(f"{where} has nothing of the background {reading.background}; it has {', '.join(names[:8])}")
    return int(away.argmin())


def dark_ground(index: Index, colors: Sequence[Color], black: int) -> int | None:
    """Position of a colour that is nearly black and clearly the ground, where nothing is black.

    Args:
        index: (H, W), positions in `colors`.
        colors: of an image.
        black: up to this level a colour is black.
    """
    levels = [max(color) for color in colors]
    darkest = int(np.argmin(levels))
    others = levels[:darkest] + levels[darkest + 1 :]
    if not others or not black < levels[darkest] <= _NEARLY_BLACK:
        return None
    part = index == darkest
    stands_out = min(others) - levels[darkest] >= _CONTRAST and border_share(part) > 1 / 2
    return darkest if stands_out or fills(part) else None


def full_range(values: Ints) -> Ints:
    """Grey values of television, 16 to 235, as 0 to 255; others as they are."""
    low, high = values.min(), values.max()
    if abs(low - _DARK) > _OFF or abs(high - _LIGHT) > _OFF:
        return values
    return np.asarray(np.rint((values - low) * (255 / (high - low))).astype(np.int64))


def inverted(pixels: Bytes, where: str) -> Bytes:
    """Exchange background and object; void stays.

    Raises:
        MaskError: there are several objects.
    """
    ids = set(np.unique(pixels).tolist()) - {BACKGROUND, VOID}
    if len(ids) > 1:
        raise MaskError(
            f"{where} has {len(ids)} objects, and only one can be inverted: name the ground by `background`"
        )
    return np.where(pixels == VOID, pixels, pixels == BACKGROUND).astype(np.uint8)


def check_ground(pixels: Bytes, names: Mapping[int, str], where: str, is_inverted: bool = False) -> None:
    """Refuse a mask without a background.

    Args:
        pixels: (H, W), ids.
        names: what each id was drawn in, as `Reading.background` names it; by default the id itself.
        where: the mask, as it is named in messages.
        is_inverted: whether object and background have changed places.

    Raises:
        MaskError: no pixel is background, or an object `fills` the frame.
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    present = np.flatnonzero(counts).tolist()
    shares = {number: border_share(pixels == number) for number in present}
    ground = next((number for number in present if number % VOID and fills(pixels == number)), None)
    if not any(number % VOID for number in present) or (ground is None and counts[BACKGROUND]):
        return
    if ground is None:
        ground = max(present, key=lambda number: (shares[number], counts[number]))
    name = names.get(ground, str(ground))
    part = f"{100 * counts[ground] / pixels.size:.0f}% of the frame and {100 * shares[ground]:.0f}% of its border"
    said = f"{where} has no background: {name} covers {part}"
    if _is_pattern(pixels, shares):
        raise MaskError(
            f"{where} has a chequered ground, which some programs save in place of transparency: save it again with a "
            "transparent or a black background"
        )
    if is_inverted:
        raise MaskError(f"{where} has no background once it is inverted: leave `invert_mask=True` out")
    if present == [ground]:
        raise MaskError(f"{said}; paint the background black, or use `no_background=True` if an object fills the frame")
    fix = "`invert_mask=True`" if set(present) - {ground, VOID} == {BACKGROUND} else f"`background={name}`"
    raise MaskError(f"{said}; if that is the background, use {fix}, if it is an object, `no_background=True`")


def _is_pattern(pixels: Bytes, shares: Mapping[int, float]) -> bool:
    """Whether two labels take turns along the border of a frame (H, W); `shares` are those of the border, by label."""
    pair = sorted(shares, key=lambda number: shares[number])[-2:]
    turns = _border(pixels)
    changes = int(np.count_nonzero(np.diff(turns[np.isin(turns, pair)])))
    return min(shares[number] for number in pair) > _PATTERN_LEAST and changes > _PATTERN_CHANGES
