"""A click that proposes a region: patches of one colour, joined to those that are like what was clicked.

Paper: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012, for the patches.
Differs: they are found on a small image, and pixels of the frame are given to the nearest patch once at the end;
patches that fall apart stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vostrack.ops.color import rgb_to_lab

Floats = npt.NDArray[np.float32]

_SMALL, _PATCHES, _ROUNDS = 240, 700, 5
_COLOUR, _PLACE, _BORDER, _CERTAIN, _TOGETHER = 18.0, 0.25, 0.5, 6.0, 1.5
"""Colours and places (as a share of the short side) that count as near; how much farther the border is than a click;
how certain a patch can be; how much neighbours count."""

_COMPACT = 12.0
"""How much place counts beside colour, as m in the paper."""


@dataclass(frozen=True)
class Patches:
    """A frame cut into patches.

    Attributes:
        of: number of the patch of each pixel, (H, W).
        centres: colour (L, a, b) and place (row, column) of each, (N, 5).
        near: for each patch, its neighbours and how alike they are, from 0 to 1.
    """

    of: npt.NDArray[np.int32]
    centres: Floats
    near: Sequence[Sequence[tuple[int, float]]]


def patches(image: npt.NDArray[np.uint8]) -> Patches:
    """Cut a frame, uint8 (H, W, 3), into some hundred patches of similar colours."""
    height, width = image.shape[:2]
    scale = min(1.0, _SMALL / min(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX))
    lab = _lab(small)
    step = max(2.0, float(np.sqrt(lab.shape[0] * lab.shape[1] / _PATCHES)))
    rows, columns = (np.arange(step / 2, length, step) for length in size)
    y, x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    centres = np.column_stack((lab[y.astype(int), x.astype(int)], y, x)).astype(np.float32)
    for _ in range(_ROUNDS):
        nearest = _assigned(lab, centres, step)
        counts = np.bincount(nearest.ravel(), minlength=len(centres)).astype(np.float32)
        grid = np.indices(size, dtype=np.float32)
        for channel, values in enumerate((*np.moveaxis(lab, 2, 0), *grid)):
            sums = np.bincount(nearest.ravel(), values.ravel(), len(centres))
            centres[:, channel] = np.where(counts > 0, sums / np.maximum(counts, 1), centres[:, channel])
    large = centres * np.asarray([1, 1, 1, height / size[0], width / size[1]], np.float32)
    of = _assigned(_lab(image), large, step * height / size[0])
    return Patches(of, large, _neighbours(of, centres[:, :3]))


def region(
    cut: Patches, wanted: Sequence[tuple[int, int]], unwanted: Sequence[tuple[int, int]]
) -> npt.NDArray[np.bool_]:
    """What a person means by clicks, bool (H, W).

    A patch is wanted if it is nearer, in colour and place, to a wanted click than to an unwanted one or to the border
    of the frame; neighbours of one colour are kept together (iterated conditional modes).

    Args:
        cut: the frame.
        wanted: row and column of clicks on the region, at least one.
        unwanted: of clicks beside it.
    """
    height, width = cut.of.shape
    ours, theirs = ([int(cut.of[place]) for place in places] for places in (wanted, unwanted))
    border = np.unique(np.concatenate((cut.of[0], cut.of[-1], cut.of[:, 0], cut.of[:, -1])))
    border = border[~np.isin(border, ours)]
    scale = np.asarray([*[1 / _COLOUR] * 3, *[1 / (_PLACE * min(height, width))] * 2], np.float32)
    places = cut.centres * scale
    near = _nearest(places, ours)
    far = np.minimum(_nearest(places, theirs), _nearest(places, border.tolist()) + _BORDER)
    gain = np.clip(far - near, -_CERTAIN, _CERTAIN)
    gain[theirs], gain[ours] = -np.inf, np.inf
    inside = gain > 0
    for _ in range(_ROUNDS):
        for patch, others in enumerate(cut.near):
            votes = sum(alike if inside[other] else -alike for other, alike in others)
            inside[patch] = gain[patch] + _TOGETHER * votes > 0
    return np.asarray(inside[cut.of])


def _nearest(places: Floats, seeds: Sequence[int]) -> Floats:
    """Distance of each patch to the nearest of some, squared; infinite where there is none."""
    if not seeds:
        return np.full(len(places), np.inf, np.float32)
    return np.asarray(((places[:, None] - places[list(seeds)][None]) ** 2).sum(2).min(1))


def _assigned(lab: Floats, centres: Floats, step: float) -> npt.NDArray[np.int32]:
    """The nearest centre of each pixel, by colour and place, among those in reach."""
    height, width = lab.shape[:2]
    best = np.full((height, width), np.inf, np.float32)
    nearest = np.zeros((height, width), np.int32)
    for number, (light, green, blue, y, x) in enumerate(centres):
        top, left = max(0, int(y - 2 * step)), max(0, int(x - 2 * step))
        box = slice(top, int(y + 2 * step) + 1), slice(left, int(x + 2 * step) + 1)
        part = lab[box]
        rows = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None]
        columns = np.arange(left, left + part.shape[1], dtype=np.float32)
        colour = (part[..., 0] - light) ** 2 + (part[..., 1] - green) ** 2 + (part[..., 2] - blue) ** 2
        distance = colour + (_COMPACT / step) ** 2 * ((rows - y) ** 2 + (columns - x) ** 2)
        nearer = distance < best[box]
        best[box][nearer] = distance[nearer]
        nearest[box][nearer] = number
    return nearest


def _neighbours(of: npt.NDArray[np.int32], colors: Floats) -> list[list[tuple[int, float]]]:
    pairs = np.concatenate(
        [np.column_stack((one.ravel(), two.ravel())) for one, two in ((of[1:], of[:-1]), (of[:, 1:], of[:, :-1]))]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    near: list[list[tuple[int, float]]] = [[] for _ in colors]
    for one, two in pairs.tolist():
        alike = float(np.exp(-np.sum((colors[one] - colors[two]) ** 2) / (2 * _COLOUR**2)))
        near[one].append((two, alike))
        near[two].append((one, alike))
    return near


def _lab(image: npt.NDArray[np.uint8]) -> Floats:
    """CIELAB, (H, W, 3)."""
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return np.ascontiguousarray(rgb_to_lab(planes).permute(1, 2, 0).numpy())
