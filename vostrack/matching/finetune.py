"""Fine-tuning of a projection of features on a frame whose labels were given.

Paper: VideoMatch (Hu, Huang, Schwing, 2018), section 4.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.ops.hypercolumns import project
from vostrack.ops.matching import matching_difference, matching_loss

_BLOCK = 4
_QUERIES = 512


def fine_tune(
    features: Tensor, hard_labels: Tensor, projection: Tensor, *, steps: int, rate: float, scale: float, top_k: int
) -> Tensor:
    """Train a projection of features on one frame whose labels were given.

    Each step picks squares of cells at random, which serve as templates for the others: cells never match themselves.

    Args:
        features: (C, h, w) of the frame.
        hard_labels: int64 (h, w), the label channel of each cell.
        projection: (C', C + 1) to start from, or (0, C + 1) for the identity.
        steps: of Adam.
        rate: its learning rate.
        scale: weight of the similarities in the softmax.
        top_k: similarities that count.

    Returns:
        (C', C + 1), or (C, C).

    Paper: VideoMatch, section 4.4 (OURS-FT).
    Differs: the paper trains the whole network, which here belongs to all clips; this trains a linear map after it.
    """
    generator = torch.Generator().manual_seed(0)
    start = projection if len(projection) else torch.eye(len(features), device=features.device)
    with torch.enable_grad():
        weight = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([weight], lr=rate)
        for _ in range(steps):
            loss = held_out_loss(features, hard_labels, weight, generator, scale, top_k)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return weight.detach()


def held_out_loss(
    features: Tensor, hard_labels: Tensor, projection: Tensor, generator: torch.Generator, scale: float, top_k: int
) -> Tensor:
    """Loss of labelling some squares of a frame from its other squares.

    Args:
        features: (C, h, w).
        hard_labels: int64 (h, w).
        projection: (C', C + 1) or (C, C), as for `project`.
        generator: on the CPU.
        scale: of the similarities.
        top_k: similarities that count.

    Returns:
        A scalar, the mean over the objects that lie in both parts.
    """
    keys = project(features, projection).flatten(1).T
    flat = hard_labels.flatten()
    given = _squares(hard_labels.shape, generator).to(flat.device).flatten()
    order = torch.randperm(len(flat), generator=generator).to(flat.device)
    losses = [projection.sum() * 0]
    for number in range(1, int(flat.max()) + 1):
        own = flat == number
        template = own & given, ~own & given
        asked = torch.cat([order[(part & ~given)[order]][:_QUERIES] for part in (own, ~own)])
        if template[0].any() and template[1].any() and own[asked].any():
            odds = scale * matching_difference(keys[asked], keys[template[0]], keys[template[1]], top_k)
            losses.append(matching_loss(odds, own[asked], torch.ones_like(own[asked])))
    return torch.stack(losses).sum() / max(len(losses) - 1, 1)


def _squares(size: torch.Size, generator: torch.Generator) -> Tensor:
    """bool (h, w): about half of the squares of a grid that is shifted at random."""
    rows, columns = (-(-side // _BLOCK) + 1 for side in size)
    coarse = torch.rand(rows, columns, generator=generator) < 0.5
    fine = coarse.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)
    top, left = torch.randint(_BLOCK, (2,), generator=generator).tolist()
    return fine[top : top + size[0], left : left + size[1]]
