"""From a picture of a mask to its flat colours: undoes anti-aliased edges and the noise of lossy formats.

A drawn mask consists of few colours that cover solid areas. Pixels between two areas are often blends of both, and a
JPEG adds noise around; taken literally, each such value would be an object of its own. Here the solid values are kept
and the others are snapped to them. Knows nothing of files and ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Index = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

# More values than this without a solid area, or more values at all, are not objects but soft edges, noise or a photo.
_MOST_LOOSE, _MOST_VALUES = 16, 128
# A noisy image with more solid values than this, or with less of its area solid, is a picture; a grey one with less
# of its area of exactly the solid values is a matte.
_MOST_KEPT, _LEAST_SOLID, _LEAST_EXACT = 32, 0.5, 0.75
# A colour image is a photo on a ground if more of what is not ground has other colours: 0.01 to 0.14 in soft
# masks, up to 0.42 in small ones enlarged with overshoot, 0.19 to 0.97 and mostly over 0.45 in cutouts of DAVIS.
_MOST_STRAY, _MOST_STRAY_LOSSY = 0.45, 0.75
# Levels: noise stays below `_NEAR` of its colour, within `_LOSSY_NEAR` in a coarse JPEG, and mostly within `_SAME`. A
# blend lies within `_ASIDE` of the line between two colours that are `_APART` from each other, and `_LIFT` away from
# the darker, as small numbers may be ids.
_SAME, _NEAR, _LOSSY_NEAR, _ASIDE, _APART, _LIFT = 6, 32, 48, 12, 32, 16
_LOSSY_SAME, _PLAINLY_ASIDE = 16, 3
# Noise leaves few uniform areas, but areas that are uniform in steps of `_BIN` levels, with 0, 64, 128, 192 as centres.
_BIN = 32
# Pixels: an area of one step that is a colour, and one of exactly one value that is no accident.
_LEAST_CALM, _BROAD = 9, 25
# An area of so much of the frame is seen by who looks at it.
_PLAIN = 0.005
# Pixels: soft edges are no wider than this to either side.
_FAR = 16
# A 5x5 window without its centre, nearest first.
_AROUND = sorted(((y, x) for y in range(-2, 3) for x in range(-2, 3) if y or x), key=lambda p: p[0] ** 2 + p[1] ** 2)


@dataclass(frozen=True, slots=True)
class Flat:
    """An image as areas of few colours.

    Attributes:
        index: (H, W), positions in `colors`.
        colors: uint8 (N, C), N >= 1.
        moved: how many pixels were snapped.
        between: how many different values they had.
        faded: (M, C), other colours, of areas that are even and yet were taken for soft edges.
    """

    index: Index
    colors: Bytes
    moved: int = 0
    between: int = 0
    faded: Bytes | None = None


@dataclass(frozen=True, slots=True)
class _Values:
    """The different values of an image: colors int64 (N, C), and how often each occurs.

    Attributes:
        count: in all pixels.
        solid: in areas of exactly this value.
        calm: in areas of about this value.
    """

    colors: Ints
    count: Ints
    solid: Ints
    calm: Ints


def flatten(
    image: Bytes, *, known: Bytes | None = None, where: Bools | None = None, lossy: bool = False
) -> Flat | None:
    """Split an image into flat colours; one that has no blends and no noise is taken as it is.

    Args:
        image: uint8 (H, W, C), C is 1 or 3.
        known: (M, C) colours that stand for objects in any case; an image of these alone is taken as it is.
        where: (H, W), the pixels that matter for telling a mask from a picture; all by default.
        lossy: whether the file format adds noise.

    Returns:
        The areas, or None where no clear majority of the pixels lies in areas of few colours: a photo.
    """
    packed, values = _split(image)
    if len(values) > np.iinfo(np.uint16).max:
        return None
    table = np.zeros(256 ** image.shape[2], np.uint16)  # a table is several times faster than sorting the pixels
    table[values] = np.arange(len(values))
    index = table[packed]
    colors = np.stack([values >> 8 * channel & 255 for channel in range(image.shape[2])], axis=1)
    exact = Flat(index, colors.astype(np.uint8))
    if len(values) <= 2 or (known is not None and np.isin(values, _split(known[None])[1]).all()):
        return exact
    areas = interior(index)
    found = _count(index, colors, areas)
    noisy = len(values) > _MOST_VALUES or (found.solid == 0).sum() > _MOST_LOOSE or (lossy and not found.solid.all())
    if not noisy and not _has_blends(found):
        return exact
    # What lies outside of `where` is no picture, but its colours are colours: without them it would fall to objects.
    if noisy and (areas if where is None else areas[where]).mean() < _LEAST_SOLID:
        return None
    kept = _strong(found, lossy) if noisy else np.flatnonzero(found.solid)
    if len(kept) == 0 or (noisy and (len(kept) > _MOST_KEPT or _is_cutout(found, kept, lossy))):
        return None
    kept = kept if len(kept) > 1 else _with_stroke(found, int(kept[0]))
    flat = _snap(index, found, kept)
    return flat if lossy else _without_rims(flat, index, found, kept, areas)


def interior(labels: Index) -> Bools:
    """Mark the pixels whose 3x3 neighbourhood is uniform; (H, W) to (H, W). Outside the border lies the border."""
    padded = np.pad(labels, 1, mode="edge")
    level = (padded[:, 1:-1] == padded[:, :-2]) & (padded[:, 1:-1] == padded[:, 2:])
    upright = (padded[1:-1, 1:-1] == padded[:-2, 1:-1]) & (padded[1:-1, 1:-1] == padded[2:, 1:-1])
    return np.asarray(level[:-2] & level[1:-1] & level[2:] & upright)


def grown(part: Bools) -> Bools:
    """A part (H, W) and the pixels around it."""
    level = part.copy()
    level[:, 1:] |= part[:, :-1]
    level[:, :-1] |= part[:, 1:]
    around = level.copy()
    around[1:] |= level[:-1]
    around[:-1] |= level[1:]
    return around


def _split(image: Bytes) -> tuple[Index, Ints]:
    """Pack the channels (H, W, C) into one number a pixel (H, W), first channel lowest; also the different numbers."""
    packed = np.zeros(image.shape[:2], np.int32)
    for channel in range(image.shape[2]):
        packed |= image[..., channel].astype(np.int32) << 8 * channel
    present = np.zeros(256 ** image.shape[2], np.bool_)
    present[packed] = True
    return packed, np.flatnonzero(present)


def _bins(colors: Ints) -> Ints:
    """Number the steps of `_BIN` levels that colours (N, C) lie in."""
    steps = (colors + _BIN // 2) // _BIN
    return steps @ (16 ** np.arange(colors.shape[1]))


def _count(index: Index, colors: Ints, areas: Bools) -> _Values:
    """Count the pixels of each colour (N, C) of an index map (H, W), and those inside areas of one or about one."""
    # A colour at the edge of a step, such as the black of television, is calm in steps that are shifted.
    calm = interior(_bins(colors).astype(np.int16)[index]) | interior(_bins(colors + _BIN // 2).astype(np.int16)[index])
    counts = (np.bincount(part, minlength=len(colors)) for part in (index.ravel(), index[areas], index[calm]))
    return _Values(colors, *counts)


def _is_cutout(found: _Values, kept: Ints, lossy: bool) -> bool:
    """Whether a noisy image is a flat ground with a photo on it: many pixels are neither of the colours nor blends.

    In grey everything is a blend, so there it is a gradient that covers most of the frame.
    """
    colors = found.colors[kept]
    distance = np.abs(found.colors[:, None] - colors).max(2)
    if found.colors.shape[1] == 1:
        return bool(found.count[distance.min(1) >= _NEAR].sum() > found.count.sum() / 2)
    fits = distance.min(1) <= (_LOSSY_SAME if lossy else _SAME)
    nearest = distance.argmin(1)
    ground = fits & (nearest == np.bincount(nearest, found.count).argmax())
    if not lossy:  # there, blends have noise of their own
        for place, color in enumerate(colors):
            for other in colors[:place]:
                fits |= _is_blend(found.colors, color, other, _PLAINLY_ASIDE)
    most = _MOST_STRAY_LOSSY if lossy else _MOST_STRAY
    return bool(found.count[~fits].sum() > most * found.count[~ground].sum())


def _is_blend(color: Ints, one: Ints, other: Ints, most_aside: int = _ASIDE, lift: int = _LIFT) -> Bools:
    """Whether a color (..., C) lies between two others (..., C) that are well apart, and not just at one of them."""
    dark = np.where(one.sum(-1, keepdims=True) <= other.sum(-1, keepdims=True), one, other)
    line = one + other - 2 * dark
    offset = color - dark
    place = (offset * line).sum(-1) / np.maximum((line * line).sum(-1), 1)
    aside = np.abs(offset - place[..., None] * line).max(-1)
    apart = (np.abs(line).max(-1) >= _APART) & (np.abs(offset).max(-1) >= lift)
    return np.asarray(apart & (place > 0) & (place < 1) & (aside <= most_aside))


def _has_blends(found: _Values) -> bool:
    """Whether the few values without a solid area are blends of those with one, and not thin objects."""
    loose = found.colors[found.solid == 0]
    largest = np.argsort(-found.solid, kind="stable")[:_MOST_KEPT]
    solid = found.colors[largest[found.solid[largest] > 0]]
    blends = _is_blend(loose[:, None, None], solid[:, None], solid).any((1, 2)).sum()
    # Between black and white alone a single grey is a soft edge; between other values it may be an object.
    binary = len(solid) == 2 and sorted(solid.min(-1)) == sorted(solid.max(-1)) == [0, 255]
    needed = 1 if binary else 3
    if len(solid) == 1:
        # Thin strokes on a background: how the farthest colour fades into it.
        farthest = loose[np.abs(loose - solid[0]).max(1).argmax()]
        blends, needed = _is_blend(loose, solid[0], farthest).sum(), 6
    return bool(blends >= needed)


def _with_stroke(found: _Values, ground: int) -> Ints:
    """Add to the only solid value that of thin strokes on it: the farthest among the frequent ones that stand out."""
    away = np.abs(found.colors - found.colors[ground]).max(1)
    frequency = np.where(away >= 2 * _APART, found.count, 0)
    if not frequency.any():
        return np.array([ground])
    return np.array([ground, np.where(2 * frequency >= frequency.max(), away, -1).argmax()])


def _strong(found: _Values, lossy: bool) -> Ints:
    """Choose the values of a noisy image that are colours of their own, those with large areas first."""
    bins = _bins(found.colors)
    # Blends and noise make no large area of exactly one value, except in the middle of a wide feathered edge.
    broad = (found.solid >= _BROAD) & (2 * found.solid >= found.count)
    kept: list[int] = []
    left = np.ones(len(bins), np.bool_)
    while len(kept) <= _MOST_KEPT:
        areas = np.bincount(bins, np.where(left, found.calm, 0))
        if areas.max() < _LEAST_CALM:
            break
        value = int(np.where(left & (bins == areas.argmax()), found.count, -1).argmax())
        color = found.colors[value]
        away = np.abs(found.colors - color).max(1)
        left &= (away > _LOSSY_NEAR) if lossy else (away >= _NEAR) | (broad & (away > _SAME))
        for other in kept:
            left &= broad | ~_is_blend(found.colors, color, found.colors[other])
        kept.append(value)
    gray = found.colors.shape[1] == 1
    if gray and kept and found.count[kept].sum() < _LEAST_EXACT * found.count.sum():
        # A matte, with wide soft edges: nothing between its extremes is an object.
        kept = [min(kept), max(kept)][: len(kept)]
    return np.array(kept, np.int64)


def _snap(index: Index, found: _Values, kept: Ints) -> Flat:
    """Give every pixel one of the kept values: at an edge the nearer in colour of those around it, else of all."""
    distance = ((found.colors[:, None] - found.colors[kept]) ** 2).sum(2)
    nearest = distance.argmin(1)
    sure = np.abs(found.colors - found.colors[kept[nearest]]).max(1) < _NEAR
    labels = np.where(sure, nearest, -1).astype(np.int16)[index]
    height, width = labels.shape
    rows, columns = np.nonzero(labels < 0)
    values = index[rows, columns]
    # Without this, the edge between red and green would become a seam of olive where olive is an object too.
    first = np.full(len(rows), -1, np.int16)
    best, choice, several = np.full(len(rows), np.inf), first.copy(), np.zeros(len(rows), np.bool_)
    for down, right in _AROUND:
        label = labels[np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
        there = label >= 0
        away = np.where(there, distance[values, label], np.inf)
        choice = np.where(away < best, label, choice)
        best = np.minimum(best, away)
        several |= there & (first >= 0) & (label != first)
        first = np.where(first < 0, label, first)
    labels[rows, columns] = np.where(several, choice, nearest[values])
    away = np.abs(found.colors[:, None] - found.colors[kept]).max(2).min(1)
    areas = (found.solid >= _PLAIN * index.size) & (2 * found.solid >= found.count) & (away >= _NEAR)
    return Flat(
        labels,
        found.colors[kept].astype(np.uint8),
        faded=found.colors[areas].astype(np.uint8),
        moved=int(index.size - found.count[kept].sum()),
        between=len(found.colors) - len(kept),
    )


def _without_rims(flat: Flat, index: Index, found: _Values, kept: Ints, areas: Bools) -> Flat:
    """Undo rims: where a soft edge between two colours passes a third, which lies farther off than both.

    Args:
        flat: what the image (H, W) was snapped to.
        index: its values.
        found: what they are.
        kept: those that it was snapped to.
        areas: (H, W), where they are solid.
    """
    if len(kept) < 3:
        return flat
    colors, exact = found.colors[kept], index == kept[flat.index]
    solid = np.where(areas & exact, flat.index, -1)
    rows, columns = np.nonzero(~exact)
    values, labels = found.colors[index[rows, columns]], flat.index[rows, columns]
    away = np.stack([_distance(solid == place)[rows, columns] for place in range(len(colors))])
    pair = away.argsort(axis=0, kind="stable")[:2]
    farther = np.take_along_axis(away, pair, 0).max(0)
    is_rim = (away[labels, np.arange(len(labels))] > farther) & np.isin(labels, solid)
    is_rim &= _is_blend(values, colors[pair[0]], colors[pair[1]], lift=1)
    nearer = ((values - colors[pair]) ** 2).sum(-1).argmin(0)
    mended = flat.index.copy()
    mended[rows[is_rim], columns[is_rim]] = np.take_along_axis(pair, nearer[None], 0)[0, is_rim]
    return replace(flat, index=mended)


def _distance(part: Bools) -> npt.NDArray[np.uint8]:
    """How far each pixel (H, W) is from a part, in pixels, along rows, columns and diagonals; `_FAR` at most."""
    away, near = np.full(part.shape, _FAR, np.uint8), part
    for _ in range(_FAR):
        away -= near
        near = grown(near)
    return away
