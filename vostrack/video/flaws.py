"""What in a mask looks like an accident: thin objects, rims, specks, and outlines that are not filled.

All is left as it is, and said. Knows nothing of files and colours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vostrack.notes import Code, Note
from vostrack.types import BACKGROUND, VOID
from vostrack.video.mask_labels import object_ids, thin_ids
from vostrack.video.snap import Bools, Bytes, grown, interior

# Pixels of rims, and their share of edges: of edges in real masks it is up to 0.05, in smoothed ones over 0.2.
_LEAST_RIM, _RIM_SHARE = 16, 0.15
# The same of pixels that none of the four beside them is like.
_LEAST_SPECKS, _SPECK_SHARE = 16, 0.02
# An outline encloses so many times its own pixels, and is thinner than twice so many pixels.
_OUTLINE, _LINE = 2, 4


def notes(pixels: Bytes) -> list[Note]:
    """What looks like an accident in ids (H, W), one line each."""
    return _thin_note(pixels) + _rim_note(pixels) + _speck_note(pixels) + _outline_note(pixels)


def _thin_note(pixels: Bytes) -> list[Note]:
    """Point out objects that look like the soft edges of others."""
    many, thin = len(object_ids(pixels)), len(thin_ids(pixels))
    if many < 8 or 2 * thin <= many:
        return []
    text = f"{thin} of {many} objects are nowhere 3 pixels wide; if these are soft edges, draw without smoothing"
    return [Note(Code.MASK_THIN, text)]


def _rim_note(pixels: Bytes) -> list[Note]:
    """Point out rims of other ids around objects, as a mask of ids has them that was smoothed or resized smoothly."""
    inner = interior(pixels)
    rows, columns = np.nonzero(~inner)
    padded = np.pad(pixels, 1, mode="edge").astype(np.int16)
    around = np.stack([padded[rows + down, columns + right] for down in range(3) for right in range(3)])
    low, high = around.min(0), np.where(around == VOID, BACKGROUND, around).max(0)
    is_rim = (low < pixels[rows, columns]) & (pixels[rows, columns] < high) & ~grown(inner)[rows, columns]
    count = int(is_rim.sum())
    if count < _LEAST_RIM or count < _RIM_SHARE * (high - low > 1).sum():
        return []
    text = (
        f"{count} pixels at edges have an id between those on both sides: if the mask of ids was smoothed, or resized "
        "with smoothing, do it again without (nearest pixel)"
    )
    return [Note(Code.MASK_RIM, text)]


def _speck_note(pixels: Bytes) -> list[Note]:
    """Point out pixels that stand alone, as where shades became black and white dots."""
    level, upright = pixels[:, 1:] == pixels[:, :-1], pixels[1:] == pixels[:-1]
    like = np.zeros(pixels.shape, np.bool_)
    like[:, 1:] |= level
    like[:, :-1] |= level
    like[1:] |= upright
    like[:-1] |= upright
    alone, is_ground = ~like, pixels == BACKGROUND
    # Thin diagonal lines are made of such pixels too, but leave none of the background.
    count = min(int((alone & is_ground).sum()), int((alone & ~is_ground).sum()))
    if count < max(_LEAST_SPECKS, _SPECK_SHARE * (~is_ground).sum()):
        return []
    return [Note(Code.MASK_SPECKS, f"{alone.sum()} pixels stand alone: if the mask was dithered, save it without")]


def _outline_note(pixels: Bytes) -> list[Note]:
    """Point out objects that are drawn as an outline alone."""
    thick, notes = interior(pixels), []
    for _ in range(_LINE - 1):
        thick = ~grown(~thick)
    thin = sorted(set(object_ids(pixels)) - set(object_ids(pixels[thick])))
    for number, box in zip(thin, _boxes(pixels, thin), strict=True):
        part = pixels[box] == number
        inside = int((_enclosed(part) & (pixels[box] == BACKGROUND)).sum())
        if inside > _OUTLINE * part.sum():
            text = f"object {number} is an outline around {inside} pixels of background; fill it if they belong to it"
            notes.append(Note(Code.MASK_OUTLINE, text))
    return notes


def _boxes(pixels: Bytes, ids: list[int]) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of some objects, which are there, in ascending order."""
    rows, columns = np.nonzero(np.isin(pixels, ids))
    labels = pixels[rows, columns]
    order, ends = labels.argsort(kind="stable"), np.bincount(labels, minlength=256).cumsum()[ids]
    for mine in np.split(order, ends[:-1]) if ids else ():
        y, x = rows[mine], columns[mine]
        yield slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)


def _enclosed(part: Bools) -> Bools:
    """The pixels with some of a part (H, W) to their left and right, and above and below."""
    across, down = np.logical_or.accumulate, (slice(None, None, -1), slice(None))
    sides = across(part, 1) & across(part[:, ::-1], 1)[:, ::-1]
    return np.asarray(sides & across(part, 0) & across(part[down], 0)[down])
