"""Features of several stages of a network on one grid, and their projection to few channels.

Letters: B batch, C channels, h w feature cells.
Source: Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization" (2015), for concatenating
stages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.grid import to_pixels

_SHARE = 1e-6
_ROUNDING = 1e-12
"""Variance below this share of the largest, or below what rounding does to unit vectors, is noise."""


def hypercolumns(stages: Sequence[Tensor], strides: Sequence[int], stride: int, size: tuple[int, int]) -> Tensor:
    """Unit vectors of the stages on one grid, concatenated and scaled to unit length again.

    Args:
        stages: (B, C_i, h_i, w_i) each.
        strides: pixels from cell to cell of each; the grids start at pixel 0.
        stride: that of the result.
        size: (h, w) of the result.

    Returns:
        (B, sum of all C_i, h, w).
    """
    columns = [_regrid(F.normalize(x, dim=1), given, stride, size) for x, given in zip(stages, strides, strict=True)]
    return F.normalize(torch.cat(columns, 1), dim=1)


def _regrid(features: Tensor, stride: int, wanted: int, size: tuple[int, int]) -> Tensor:
    """Bring (B, C, h, w) from one stride to another, both grids starting at pixel 0."""
    if stride > wanted:
        return to_pixels(features.flatten(0, 1), stride // wanted, size).view(*features.shape[:2], *size)
    step = wanted // stride
    return features[:, :, ::step, ::step]


def principal_axes(features: Tensor, channels: int, whitening: float = 0.0) -> Tensor:
    """Axes along which the features of an image vary most, from their mean on.

    What all cells have in common says nothing about where they belong, but would dominate the cosine of any two; so
    would the few directions of the largest variance, such as light against dark, without whitening.

    Args:
        features: (C, h, w).
        channels: how many axes; 0, or as many as C, for none.
        whitening: coordinates are divided by their variance to the power of half of this: 0 keeps them, 1 whitens.

    Returns:
        (channels, C + 1): scaled orthogonal rows, with minus the mean's coordinate in the last column; or (0, C + 1).
    """
    count = len(features)
    if not 0 < channels < count:
        return features.new_zeros(0, count + 1)
    flat = features.flatten(1).double()
    mean = flat.mean(1, keepdim=True)
    covariance = (flat - mean) @ (flat - mean).T / flat.shape[1]
    variances, vectors = torch.linalg.eigh(covariance)
    # A blank image has directions without any variance: they must not become the loudest.
    smallest = (_SHARE * variances[-1]).clamp(min=_ROUNDING)
    axes = (vectors / variances.clamp(min=smallest) ** (whitening / 2)).T[-channels:]
    return torch.cat((axes, -axes @ mean), 1).to(features.dtype).contiguous()


def project(features: Tensor, axes: Tensor) -> Tensor:
    """Unit vectors (C', h, w) of features (C, h, w) along some axes; unchanged where there are none.

    Args:
        features: (C, h, w).
        axes: (C', C), or (C', C + 1) with what is added to each coordinate in the last column.
    """
    if not len(axes):
        return features
    projected = axes[:, : len(features)] @ features.flatten(1) + axes[:, len(features) :].sum(1, keepdim=True)
    return F.normalize(projected.view(-1, *features.shape[1:]), dim=0)
