"""What the soft matcher compares a cell with besides its sets: cells around the same place in recent frames.

Each of these belongs to each label to some degree, the probability that was predicted for it. Letters: C channels, h w
feature cells, N = h * w, T frames, K label channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.matching.memory import FrameBank
from vostrack.ops.affinity import largest
from vostrack.ops.window import Window, far_ring, in_parts, tiles


def recent_similarities(
    query: Tensor,
    bank: FrameBank,
    *,
    radius: int,
    reach: float,
    top_k: int,
    scale: float,
    wanted: Tensor | None = None,
) -> list[Tensor]:
    """The highest similarities with the cells of each label around the same place, plus what `log_prior` gives.

    Args:
        query: (h, w, C), unit vectors, contiguous.
        bank: frames with keys such as these, and their labels.
        radius: how far away, in cells.
        reach: share of the short side up to which fewer cells are searched beyond that (`ops.window.far_ring`).
        top_k: how many.
        scale: weight of the similarities.
        wanted: bool (K, h, w), which cells matter to which label; None for all.

    Returns:
        (N, L) for each of the K labels, L at least `top_k`; -inf where the grid holds fewer cells. Where a cell is not
        wanted for a label, it may be -inf too.
    """
    keys, values = bank.used_keys, bank.used_values
    priors = log_prior(values, scale)
    window = Window(radius, disk=True)
    every = torch.ones(values.shape[-1], *query.shape[:2], dtype=torch.bool, device=query.device)
    matter = (every if wanted is None else wanted).permute(1, 2, 0)
    found = [_best_of_each(query, matter, keys, priors, window, top_k)]
    ring, step = far_ring(window, reach, (query.shape[0], query.shape[1]))
    if not ring.is_empty:
        coarse, there = keys[::step, ::step].contiguous(), priors[::step, ::step]

        def search(part: Tensor, matter: Tensor) -> tuple[Tensor, ...]:
            return _best_of_each(part, matter, coarse, there, ring, top_k)

        found.append(in_parts((query, matter), step, search))
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)]


def log_prior(values: Tensor, scale: float) -> Tensor:
    """What is added to the similarity with a cell of label probability v: log(v) / scale, at most 0, elementwise.

    In a softmax of the weighted similarities the cell then weighs v times as much as one that is all of that label.

    Args:
        values: v, at least 0.
        scale: weight of the similarities.
    """
    return values.clamp(min=torch.finfo(values.dtype).tiny).log() / scale


def _best_of_each(
    query: Tensor, wanted: Tensor, keys: Tensor, priors: Tensor, window: Window, top_k: int
) -> tuple[Tensor, ...]:
    """(N, top_k) for each label, the highest similarities in a window plus numbers (h, w, T, K).

    `wanted` is bool (h, w, K).
    """
    height, width, _ = query.shape
    flat = priors.flatten(0, 2).T.contiguous()
    best = torch.full((len(flat), height, width, top_k), -torch.inf, device=query.device)
    for tile in tiles(query, keys, window, wanted.any(2)):
        count = min(top_k, tile.similarity.shape[1])
        for label in wanted[tile.place].flatten(0, 1).any(0).nonzero().flatten().tolist():
            similarity = largest(tile.similarity + flat[label, tile.index], count)[0]
            there = best[label][tile.place][..., :count]
            there.copy_(similarity.view_as(there))
    return best.flatten(1, 2).unbind()
