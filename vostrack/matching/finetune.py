"""Fine-tuning of what describes cells on a frame whose labels were given.

Paper: VideoMatch (Hu, Huang, Schwing, 2018), section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vostrack.ops.matching import matching_difference, matching_loss

_BLOCK = 4
_QUERIES = 512

Describe = Callable[[Sequence[Tensor]], Tensor]
"""From weights to unit vectors (C, h, w) of the cells of a frame."""


def fine_tune(
    describe: Describe,
    start: Sequence[Tensor],
    hard_labels: Tensor,
    *,
    steps: int,
    rate: float,
    scale: float,
    top_k: int,
    top_share: float = 0.0,
) -> tuple[Tensor, ...]:
    """Train weights on one frame whose labels were given.

    Each step picks squares of cells at random, which serve as templates for the others: cells never match themselves.

    Args:
        describe: what the weights are of.
        start: weights to start from.
        hard_labels: int64 (h, w), the label channel of each cell.
        steps: of Adam.
        rate: its learning rate.
        scale: weight of the similarities in the softmax.
        top_k: similarities that count.
        top_share: as for `ops.matching.neighbours`.

    Returns:
        The weights, as many and as large as those at the start.

    Paper: VideoMatch, section 4.4 (OURS-FT).
    Differs: the paper trains the whole network, and does not say on which pairs; here it is what follows the features
        that the network gives, so that no frame is encoded twice.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        weights = [weight.clone().requires_grad_() for weight in start]
        optimizer = torch.optim.Adam(weights, lr=rate)
        for _ in range(steps):
            loss = held_out_loss(describe(weights), hard_labels, generator, scale, top_k, top_share)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return tuple(weight.detach() for weight in weights)


def held_out_loss(
    grid: Tensor, hard_labels: Tensor, generator: torch.Generator, scale: float, top_k: int, top_share: float = 0.0
) -> Tensor:
    """Loss of labelling some squares of a frame from its other squares.

    Args:
        grid: unit vectors (C, h, w).
        hard_labels: int64 (h, w).
        generator: on the CPU.
        scale: of the similarities.
        top_k: similarities that count.
        top_share: as for `ops.matching.neighbours`.

    Returns:
        A scalar, the mean over the objects that lie in both parts.
    """
    keys, flat = grid.flatten(1).T, hard_labels.flatten()
    given = _squares(hard_labels.shape, generator).to(flat.device).flatten()
    order = torch.randperm(len(flat), generator=generator).to(flat.device)
    losses = [grid.sum() * 0]
    for number in range(1, int(flat.max()) + 1):
        own = flat == number
        template = own & given, ~own & given
        asked = torch.cat([order[(part & ~given)[order]][:_QUERIES] for part in (own, ~own)])
        if template[0].any() and template[1].any() and own[asked].any():
            odds = scale * matching_difference(keys[asked], keys[template[0]], keys[template[1]], top_k, top_share)
            losses.append(matching_loss(odds, own[asked], torch.ones_like(own[asked])))
    return torch.stack(losses).sum() / max(len(losses) - 1, 1)


def _squares(size: torch.Size, generator: torch.Generator) -> Tensor:
    """bool (h, w): about half of the squares of a grid that is shifted at random."""
    rows, columns = (-(-side // _BLOCK) + 1 for side in size)
    coarse = torch.rand(rows, columns, generator=generator) < 0.5
    fine = coarse.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)
    top, left = torch.randint(_BLOCK, (2,), generator=generator).tolist()
    return fine[top : top + size[0], left : left + size[1]]
