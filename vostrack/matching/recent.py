"""What the soft matcher compares a cell with besides its sets: cells around the same place in recent frames.

Each of these belongs to each label to some degree, the probability that was predicted for it. Letters: C channels, h w
feature cells, N = h * w, T frames, K label channels.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        (n, L) for each of the K labels, of the n cells that matter to it in the order of the grid; L is at least
        `top_k`. -inf where the grid holds fewer cells.
    """
    keys, values = bank.used_keys, bank.used_values
    priors = log_prior(values, scale)
    window = Window(radius, disk=True)
    every = torch.ones(values.shape[-1], *query.shape[:2], dtype=torch.bool, device=query.device)
    matter = every if wanted is None else wanted
    places = [cells.flatten().nonzero().flatten() for cells in matter]
    ring, step = far_ring(window, reach, (query.shape[0], query.shape[1]))
    width = top_k if ring.is_empty else 2 * top_k
    found = [torch.full((len(cells), width), -torch.inf, device=query.device) for cells in places]
    grid = torch.arange(every[0].numel(), device=query.device).view_as(every[0])
    queries = query, matter.permute(1, 2, 0), grid
    _fill([best[:, :top_k] for best in found], places, keys, priors, window, *queries)
    if not ring.is_empty:
        coarse, there = keys[::step, ::step].contiguous(), priors[::step, ::step]

        def search(*part: Tensor) -> tuple[Tensor, ...]:
            _fill([best[:, top_k:] for best in found], places, coarse, there, ring, *part)
            return ()

        in_parts(queries, step, search)
    return found


def log_prior(values: Tensor, scale: float) -> Tensor:
    """What is added to the similarity with a cell of label probability v: log(v) / scale, at most 0, elementwise.

    In a softmax of the weighted similarities the cell then weighs v times as much as one that is all of that label.

    Args:
        values: v, at least 0.
        scale: weight of the similarities.
    """
    return values.clamp(min=torch.finfo(values.dtype).tiny).log() / scale


def _fill(
    found: Sequence[Tensor],
    places: Sequence[Tensor],
    keys: Tensor,
    priors: Tensor,
    window: Window,
    query: Tensor,
    wanted: Tensor,
    grid: Tensor,
) -> None:
    """Put the highest similarities in a window, plus numbers (h, w, T, K), into (n, top_k) for each label.

    Rows are the cells of `places`, int64 (n,), ascending; `grid` (h, w) says which cell a query is, and `wanted`
    (h, w, K) whether it matters to a label.
    """
    flat = priors.flatten(0, 2).T.contiguous()
    for tile in tiles(query, keys, window, wanted.any(2)):
        count = min(found[0].shape[1], tile.similarity.shape[1])
        matter, cells = wanted[tile.place].flatten(0, 1), grid[tile.place].flatten()
        for label in matter.any(0).nonzero().flatten().tolist():
            similarity = largest(tile.similarity + flat[label, tile.index], count)[0]
            chosen = matter[:, label].nonzero().flatten()
            found[label][torch.searchsorted(places[label], cells[chosen]), :count] = similarity[chosen]
