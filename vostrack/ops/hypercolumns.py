"""Features of several stages of a network on one grid, and their projection to a few axes.

Letters: B batch, C channels, h w feature cells.
Source: Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization" (2015), for concatenating
stages; whitening by the within-class covariance is that of Fisher's linear discriminant analysis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.color import rgb_to_lab
from vostrack.ops.grid import cells, to_cells, to_pixels

Stage = tuple[Tensor, int]
"""Features (B, C, h, w) and their stride in pixels; the grids start at pixel 0."""

_PART = 4096
"""Cells that are looked at together."""

_SHARE = 1e-6
_ROUNDING = 1e-12
"""Variance below this share of the largest, or below what rounding does to unit vectors, is noise."""


def hypercolumns(stages: Sequence[Stage], stride: int, size: tuple[int, int]) -> Tensor:
    """Unit vectors of the stages on one grid, concatenated and scaled to unit length again.

    Args:
        stages: (B, C_i, h_i, w_i) each.
        stride: pixels from cell to cell of the result.
        size: (h, w) of the result.

    Returns:
        (B, sum of all C_i, h, w).
    """
    columns = [_unit_vectors(x, given, stride, size) for x, given in stages]
    return F.normalize(torch.cat(columns, 1), dim=1)


def cell_features(image: Tensor, nets: Iterable[Sequence[Stage]], stride: int, colour: float) -> Tensor:
    """Features of an image: hypercolumns of one or more networks, and the colours of the cells.

    Args:
        image: (3, H, W) in [0, 1].
        nets: of each network or scale, some stages (1, C_i, h_i, w_i) for this image.
        stride: pixels from cell to cell of the result.
        colour: weight of the colours beside the hypercolumns, which have length 1 for each of these; 0 leaves them out.

    Returns:
        (C, h, w): the channels of all stages, and 6 more with colours.
    """
    size = cells((image.shape[1], image.shape[2]), stride)
    parts = [hypercolumns(stages, stride, size)[0] for stages in nets]
    if colour:
        parts.append(colour * colours(image, stride))
    return torch.cat(parts)


def colours(image: Tensor, stride: int) -> Tensor:
    """Mean and standard deviation of L*a*b* / 100 around each cell.

    A network that is trained to know things again under another light loses what tells two things apart in one clip.

    Args:
        image: (3, H, W) in [0, 1].
        stride: pixels from cell to cell, even.

    Returns:
        (6, h, w).
    """
    return lab_colours(rgb_to_lab(image), stride)


def lab_colours(lab: Tensor, stride: int) -> Tensor:
    """`colours` of an image in L*a*b* (3, H, W), as `rgb_to_lab` gives it."""
    lab = lab / 100
    mean = to_cells(lab, stride)
    variance = to_cells(lab.square(), stride) - mean.square()
    return torch.cat((mean, variance.clamp(min=0).sqrt()))


def _unit_vectors(features: Tensor, stride: int, wanted: int, size: tuple[int, int]) -> Tensor:
    """Unit vectors of (B, C, h, w), brought from one stride to another, both grids starting at pixel 0."""
    if stride <= wanted:
        step = wanted // stride
        return F.normalize(features[:, :, ::step, ::step], dim=1)
    flat = F.normalize(features, dim=1).flatten(0, 1)
    return to_pixels(flat, stride // wanted, size).view(*features.shape[:2], *size)


def principal_axes(features: Tensor, count: int, whitening: float = 0.0, labels: Tensor | None = None) -> Tensor:
    """Axes along which the features of an image vary most, from their mean on.

    What all cells have in common says nothing about where they belong, but would dominate the cosine of any two; so
    would the few directions of the largest variance, such as light against dark, without whitening. Where labels are
    known, it is the variance among cells of one label that is evened out: what tells labels apart stays.

    Args:
        features: (C, h, w).
        count: how many axes at most; there are no more than directions in which the features vary. 0 for none.
        whitening: coordinates are divided by their variance to the power of half of this: 0 keeps them, 1 whitens.
        labels: (K, h, w), summing to 1 over K; without, all cells are of one label.

    Returns:
        (C', C + 1), C' at most `count`: scaled orthogonal rows, with minus the mean's coordinate in the last column;
        or (0, C + 1).
    """
    if not count:
        return features.new_zeros(0, len(features) + 1)
    rows = features.flatten(1).cpu()  # not every device has double
    mean, covariance, between = _moments(rows, None if labels is None else labels.flatten(1).to(rows))
    spread, directions = torch.linalg.eigh(covariance)
    # What does not vary here says nothing; whitened, it would drown all else in a frame where it does.
    varied = int((spread > _SHARE * spread[-1]).sum())
    basis = directions[:, -min(count, max(1, varied)) :]
    variances, turn = torch.linalg.eigh(basis.T @ (covariance - between) @ basis)
    # A blank image has directions without any variance: they must not become the loudest.
    smallest = (_SHARE * variances[-1]).clamp(min=_ROUNDING)
    axes = (basis @ turn / variances.clamp(min=smallest) ** (whitening / 2)).T
    return torch.cat((axes, -axes @ mean), 1).to(features).contiguous()


def _moments(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C, 1), covariance (C, C) and between-class covariance (C, C) of features (C, N), all in double.

    A part of the cells at a time: all of them in double would take more memory than anything else.

    Args:
        rows: (C, N).
        labels: (K, N), summing to 1 over K; without, nothing lies between classes.
    """
    count = rows.shape[1]
    totals = [part.sum(1, dtype=torch.float64) for part in torch.split(rows, _PART, 1)]
    mean = torch.stack(totals).sum(0)[:, None] / count
    products = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    labels = rows.new_ones(1, count) if labels is None else labels
    sums = rows.new_zeros(len(rows), len(labels), dtype=torch.float64)
    for part, shares in zip(torch.split(rows, _PART, 1), torch.split(labels, _PART, 1), strict=True):
        centred = part.double() - mean
        products.addmm_(centred, centred.T)
        sums.addmm_(centred, shares.double().T)
    fractions = labels.mean(1, dtype=torch.float64).clamp(min=_ROUNDING)
    sums /= count
    return mean, products / count, (sums / fractions) @ sums.T


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
