"""What the soft matcher compares a cell with besides its sets: cells around the same place in recent frames.

Each of these belongs to each label to some degree, the probability that was predicted for it. Letters: C channels, h w
feature cells, N = h * w, T frames, K label channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vostrack.matching.memory import FrameBank
from vostrack.ops.affinity import highest
from vostrack.ops.window import Window, far_ring, in_parts, tiles

_SILENT = -1.0
"""Prior from which a cell has no voice: were it alike, it would count for less than one that is not alike at all."""


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
    keys, priors = bank.used_keys, log_prior(bank.used_values.permute(3, 0, 1, 2).contiguous(), scale)
    window = Window(radius, disk=True)
    every = torch.ones(len(priors), *query.shape[:2], dtype=torch.bool, device=query.device)
    matter = every if wanted is None else wanted
    rows = matter * matter.flatten(1).cumsum(1, dtype=torch.int32).view_as(matter)
    ring, step = far_ring(window, reach, (query.shape[0], query.shape[1]))
    width = top_k if ring.is_empty else 2 * top_k
    # What is found for cells that do not matter goes into the row 0.
    found = [torch.full((1 + int(row.max()), width), -torch.inf, device=query.device) for row in rows]
    queries = query, rows.permute(1, 2, 0)
    _fill([best[:, :top_k] for best in found], keys, priors, window, *queries)
    if not ring.is_empty:
        coarse, there = keys[::step, ::step].contiguous(), priors[:, ::step, ::step].contiguous()

        def search(*part: Tensor) -> tuple[Tensor, ...]:
            _fill([best[:, top_k:] for best in found], coarse, there, ring, *part)
            return ()

        in_parts(queries, step, search)
    return [best[1:] for best in found]


def log_prior(values: Tensor, scale: float) -> Tensor:
    """What is added to the similarity with a cell of label probability v: log(v) / scale, at most 0, elementwise.

    In a softmax of the weighted similarities the cell then weighs v times as much as one that is all of that label.

    Args:
        values: v, at least 0.
        scale: weight of the similarities.
    """
    return values.clamp(min=torch.finfo(values.dtype).tiny).log() / scale


def _fill(found: Sequence[Tensor], keys: Tensor, priors: Tensor, window: Window, query: Tensor, rows: Tensor) -> None:
    """Put the highest similarities in a window, plus priors (K, h, w, T), into (any, top_k) for each label.

    `rows` (h, w, K) says which row of these a query has for each label, 0 where the label does not matter.
    """
    boxes = _boxes(priors.amax(3) > _SILENT)
    for tile in tiles(query, keys, window, rows.any(2)):
        own, (reach_rows, reach_columns) = rows[tile.place].flatten(0, 1), tile.reach
        for label in own.any(0).nonzero().flatten().tolist():
            top, bottom, left, right = boxes[label]
            top, bottom = max(top, reach_rows.start), min(bottom, reach_rows.stop)
            if top >= bottom or max(left, reach_columns.start) >= min(right, reach_columns.stop):
                continue
            prior = priors[label, top:bottom, reach_columns].flatten()
            start = (top - reach_rows.start) * (len(prior) // (bottom - top))
            similarity = tile.similarity.T[start : start + len(prior)] + prior[:, None]
            count = min(found[label].shape[1], len(prior))
            found[label][own[:, label], :count] = highest(similarity, count)


def _boxes(there: Tensor) -> list[tuple[int, int, int, int]]:
    """First row, end of rows, first column and end of columns of what is true in each of bool (K, h, w); else 0."""
    ends = []
    for side in (there.any(2), there.any(1)):
        last = side.shape[1] - side.flip(1).int().argmax(1)
        ends += [side.int().argmax(1), torch.where(side.any(1), last, 0)]
    return list(zip(*(end.tolist() for end in ends), strict=True))
