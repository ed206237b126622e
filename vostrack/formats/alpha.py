"""How much of each pixel an object covers: soft edges, from what a run said of cells and the edges of the image.

This sharpens and softens the edge of a mask; it is no matting, which would find hair and glass.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.formats import ExportOptions
from vostrack.ops.grid import resize, size_of
from vostrack.ops.guided import guided_fit, luminance
from vostrack.types import Prediction

_SHORT_SIDE, _RADIUS = 360, 2
"""The size at which edges are fitted, and how far from the edge of a mask pixels are soft, at that size."""

_CONTRAST = 0.05
"""Differences of luminance that count as an edge, on a scale from 0 to 1."""

_STEEP, _STEEPER = 3.0, 1.5
"""How much steeper edges are made before and after the fit, so that they are soft over a few pixels alone."""


def alpha(prediction: Prediction, ids: Collection[int], options: ExportOptions) -> npt.NDArray[np.float32]:
    """What objects cover together, float32 (H, W) in [0, 1].

    Args:
        prediction: of a frame.
        ids: of the objects.
        options: whether edges are soft, how far they move and how far they are blurred.
    """
    wanted = np.zeros(256, np.bool_)
    wanted[list(ids)] = True
    hard = torch.from_numpy(wanted[prediction.mask])
    covered = hard.float() if options.hard or not hard.any() else _soft(prediction, ids, hard)
    return np.asarray(_blurred(_grown(covered, options.grow), options.feather).numpy(), np.float32)


def in_bits(covered: npt.NDArray[np.float32], bits: int) -> npt.NDArray[Any]:
    """What is covered as uint8 or uint16, by the number of bits; their largest value is 1."""
    most = (1 << bits) - 1
    return np.rint(covered * most).astype(np.uint8 if bits == 8 else np.uint16)


def _soft(prediction: Prediction, ids: Collection[int], hard: Tensor) -> Tensor:
    """Soft edges of a mask, bool (H, W), that is not empty.

    What the run said holds where it agrees with the mask, which may have been given or retouched; elsewhere the mask
    does. Near its edge, what comes of that is a local linear function of the luminance, fitted at a smaller size and
    read at that of the image (He & Sun, "Fast Guided Filter", 2015, Algorithm 2).
    """
    short, (height, width) = min(hard.shape), hard.shape
    scale = min(1.0, _SHORT_SIDE / short)
    margin = int(np.ceil(4 * _RADIUS / scale)) + 1
    rows, columns = (_reach(hard.any(dim), margin) for dim in (1, 0))
    inside, image = hard[rows, columns].float(), prediction.frame.image[:, rows, columns].float() / 255
    size = max(1, round(inside.shape[0] * scale)), max(1, round(inside.shape[1] * scale))
    share = _shrunk(inside[None], size)[0]
    said = share
    if prediction.probs is not None:
        wanted = [probs for probs, number in zip(prediction.probs[1:], prediction.ids, strict=True) if number in ids]
        ours = sum(wanted[1:], start=wanted[0]) if wanted else torch.zeros_like(prediction.probs[0])
        ours = resize(ours[None, None], (height, width))[0, :, rows, columns]
        ours = _steeper(_shrunk(ours, size)[0], _STEEP)
        said = torch.where((ours > 0.5) == (share > 0.5), ours, share)
    fit = guided_fit(said[None], _shrunk(image, size), _RADIUS, _CONTRAST**2)
    slope, offset = resize(torch.cat(fit)[None], size_of(image))[0]
    eroded = _grown(share, -_RADIUS)
    body = _grown(eroded, 2 * _RADIUS)  # with its rim, whose corners would stand out as dots
    maps = torch.stack((_grown(share, _RADIUS) - eroded > 0, body > 0.5)).float()
    near, thick = F.interpolate(maps[None], inside.shape, mode="nearest-exact")[0] > 0
    soft = torch.where(near, _steeper(slope * luminance(image) + offset, _STEEPER), inside)
    covered = torch.zeros(height, width)
    covered[rows, columns] = torch.where(thick, soft, torch.maximum(soft, inside))  # what is thin must not vanish
    return covered


def _reach(there: Tensor, margin: int) -> slice:
    """From the first to the last place that is true, and some more."""
    places = there.nonzero()
    return slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1)


def _shrunk(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (C, H, W) at a smaller size."""
    return resize(x[None], size, antialias=True)[0].clamp(0, 1)


def _steeper(covered: Tensor, times: float) -> Tensor:
    """What is covered, with steeper edges: one half stays where it is."""
    return ((covered - 0.5) * times + 0.5).clamp(0, 1)


def _grown(covered: Tensor, pixels: int) -> Tensor:
    """What is covered (H, W), moved out by a number of pixels, or in: squares and crosses by turns, nearly a disc."""
    if pixels < 0:
        return 1 - _grown(1 - covered, -pixels)
    for step in range(pixels):
        wide, high = _widened(covered, 1), _widened(covered, 0)
        covered = _widened(wide, 0) if step % 2 else torch.maximum(wide, high)
    return covered


def _widened(covered: Tensor, dim: int) -> Tensor:
    """The largest of each pixel and its two neighbours in a dimension."""
    most, inner = covered.clone(), covered.shape[dim] - 1
    for to, start in ((0, 1), (1, 0)):
        part = most.narrow(dim, to, inner)
        torch.maximum(part, covered.narrow(dim, start, inner), out=part)
    return most


def _blurred(covered: Tensor, sigma: float) -> Tensor:
    """What is covered (H, W), blurred by a Gaussian of a standard deviation in pixels."""
    if not sigma:
        return covered
    reach = int(np.ceil(3 * sigma))
    weights = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    weights /= weights.sum()
    x = F.pad(covered[None, None], (0, 0, reach, reach), mode="replicate")
    x = F.conv2d(x, weights.view(1, 1, -1, 1))
    x = F.pad(x, (reach, reach, 0, 0), mode="replicate")
    return F.conv2d(x, weights.view(1, 1, 1, -1))[0, 0].clamp(0, 1)
