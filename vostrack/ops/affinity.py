"""Affinity between cells and the labels that it carries over, for any set of keys.

Letters: N query cells or rows, M memory cells, C channels, K label channels, L values of a row. A similarity is the dot
product of features (the cosine where they are unit vectors).
Source: Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk" (2020), appendix C; used as it is by
Araslanov et al. (2021), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_QUICK = 64
"""Values for each one wanted from which on `torch.topk` keeps a heap, which is several times as fast as to select."""

_LEAST, _MOST = 4, 16
"""Values of a group at least, below which groups save nothing, and at most."""

CPU_CHUNK_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 28
"""Similarities that are held at a time: few enough for the caches of a CPU, many enough to keep a GPU busy."""


def best_keys(query: Tensor, keys: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The most similar keys of each query, among all; in chunks, so that memory stays bounded.

    Args:
        query: (N, C); products are computed in its precision.
        keys: (M, C); M may be 0.
        top_k: how many; fewer where M is smaller.

    Returns:
        Similarities, float32, the highest first, and indices, both (N, min(top_k, M)).
    """
    parts = [largest(columns.T, min(top_k, len(keys))) for columns in _products(query, keys)]
    return torch.cat([similarity for similarity, _ in parts]), torch.cat([index for _, index in parts])


def best_similarities(query: Tensor, keys: Tensor, top_k: int) -> Tensor:
    """The similarities that `best_keys` finds, in less time."""
    return torch.cat([highest(columns, min(top_k, len(keys))) for columns in _products(query, keys)])


def _products(query: Tensor, keys: Tensor) -> Iterator[Tensor]:
    """Similarities float32 (M, some) of keys (M, C) with a part of the queries (N, C) at a time."""
    room = CPU_CHUNK_BYTES if query.device.type == "cpu" else _CHUNK_BYTES
    keys = keys.to(query.dtype)
    for chunk in torch.split(query, max(1, room // (4 * max(1, len(keys))))):
        yield (keys @ chunk.T).float()


def weighted_readout(similarity: Tensor, values: Tensor, top_k: int, temperature: float) -> Tensor:
    """Convex combination of the values of the `top_k` most similar candidates.

    Args:
        similarity: (N, L), candidates of each query; -inf marks one that does not exist.
        values: (N, L, K), their values.
        top_k: candidates that count, at least 1.
        temperature: divides the similarity before the softmax over the survivors.

    Returns:
        (N, K).
    """
    best = similarity.topk(min(top_k, similarity.shape[1]), dim=1)
    weights = torch.softmax(best.values / temperature, dim=1)
    chosen = values.gather(1, best.indices[..., None].expand(-1, -1, values.shape[-1]))
    return torch.einsum("nl,nlk->nk", weights, chosen)


def largest(values: Tensor, count: int, floor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest values of each row and where they are, the largest first, as `torch.topk` finds them.

    The `count` largest values lie in the `count` groups whose own largest values are the largest: only these are
    sorted, where `torch.topk` looks at all and costs as much as the products. Exact; among equal values, others may be
    chosen than by `torch.topk`, but always the same ones.

    Args:
        values: (N, L); quickest where its transpose is contiguous, since the groups of many rows are then looked
            through at once.
        count: how many, at most L.
        floor: (N,); rows without a value above it get -inf and 0. None where all rows matter.

    Returns:
        Values and int64 indices, both (N, count).
    """
    if floor is not None:
        above = (values.amax(1) > floor).nonzero().flatten()
        found = values.new_full((len(values), count), -torch.inf), above.new_zeros(len(values), count)
        if len(above):
            found[0][above], found[1][above] = largest(values.T.index_select(1, above).T, count)
        return found
    candidates, best = _candidates(values.T, count)
    highest, place = candidates.T.topk(count, dim=1)
    if best is None:
        return highest, place
    side = _group(values.shape[1], count)
    own = (place // side).clamp(max=count)
    group = torch.cat((best, best.new_full((len(best), 1), values.shape[1] // side)), 1).gather(1, own)
    return highest, (group - own) * side + place


def highest(columns: Tensor, count: int) -> Tensor:
    """The largest values (N, count) that `largest` finds, of contiguous columns (L, N)."""
    return _candidates(columns, count)[0].T.topk(count, dim=1).values


def _candidates(columns: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
    """Rows (any, N) of columns (L, N) that hold the largest of each, and the groups (N, count) that they begin with.

    All rows, and None, where these are few.
    """
    side = _group(len(columns), count)
    if side < _LEAST:
        return columns, None
    groups = len(columns) // side
    grouped = columns[: groups * side].view(groups, side, -1)
    best = grouped.amax(1).T.topk(count, dim=1).indices
    chosen = grouped.gather(0, best.T[:, None].expand(-1, side, -1)).flatten(0, 1)
    return torch.cat((chosen, columns[groups * side :])), best


def _group(length: int, count: int) -> int:
    """Values of a group, of so many values, where `count` are wanted."""
    return min(_MOST, length // (_QUICK * count)) if count else 0
