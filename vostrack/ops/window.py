"""Affinity and readout restricted to a window around each cell: the hot path of propagation.

The peers form the affinity of all pairs of cells and then mask what lies outside the window, which is some ten times
the arithmetic. Here queries are cut into square tiles; the keys that a tile can reach form a block, so that each tile
is one dense matrix product, and only the corners of the block are masked.
Exact: equal to dense-and-mask up to float order.

Letters: C channels, h w feature cells, T memory frames, K label channels, R radius in cells, S side of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.topk import largest

_FAR_ROWS = 60
"""Where cells are far, the search is among those of a grid of about so many rows (or columns of an upright clip)."""


@dataclass(frozen=True)
class Window:
    """Which cells around a cell count.

    Attributes:
        radius: R, in cells.
        disk: Euclidean distance below R if true, else max(|dy|, |dx|) at most R.
        inner: cells at a distance below this, of the same kind, do not count.
    """

    radius: int
    disk: bool = False
    inner: float = 0.0

    @property
    def span(self) -> int:
        """Largest distance along an axis."""
        return self.radius - 1 if self.disk else self.radius

    @property
    def is_empty(self) -> bool:
        """Whether nothing along an axis counts."""
        return self.span < self.inner

    def contains(self, dy: Tensor, dx: Tensor) -> Tensor:
        """Whether an offset lies in the window, elementwise."""
        if self.disk:
            distance = dy.square() + dx.square()
            return (distance < self.radius**2) & (distance >= self.inner**2)
        distance = torch.maximum(dy.abs(), dx.abs())
        return (distance <= self.radius) & (distance >= self.inner)


@dataclass(frozen=True)
class Tile:
    """Similarities of a square of queries to all keys in reach.

    Attributes:
        rows: rows of the queries.
        columns: columns of the queries.
        similarity: float32 (Q, J), -inf outside the window.
        index: int64 (J,), of the keys in the memory flattened over (h, w, T).
    """

    rows: slice
    columns: slice
    similarity: Tensor
    index: Tensor


def tile_side(device: torch.device) -> int:
    """A side S that suits a device: small blocks waste less on a CPU, large ones need fewer launches on a GPU."""
    return 8 if device.type == "cpu" else 32


def tiles(query: Tensor, keys: Tensor, window: Window) -> Iterator[Tile]:
    """Similarities inside the window, tile by tile.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        window: which cells count.

    Yields:
        Tiles that together hold every query once.
    """
    height, width, frames, _ = keys.shape
    side = tile_side(query.device)
    # No further than the grid: a radius may be larger than all of it.
    up, across = min(window.span, height - 1), min(window.span, width - 1)
    flat = torch.arange(height * width * frames, device=query.device).view(height, width, frames)
    barrier = _barrier(window, side, (up, across), frames, query.device)
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows = slice(top, min(top + side, height))
            columns = slice(left, min(left + side, width))
            reach_rows = slice(max(0, top - up), min(height, rows.stop + up))
            reach_columns = slice(max(0, left - across), min(width, columns.stop + across))
            queries = query[rows, columns].flatten(0, 1)
            similarity = (queries @ keys[reach_rows, reach_columns].flatten(0, 2).T).float()
            y, x = reach_rows.start - top + up, reach_columns.start - left + across
            reach = (reach_rows.stop - reach_rows.start, reach_columns.stop - reach_columns.start)
            inside = barrier[: rows.stop - top, : columns.stop - left, y : y + reach[0]]
            similarity.view(*inside.shape[:3], -1).add_(inside[..., x * frames : (x + reach[1]) * frames])
            yield Tile(rows, columns, similarity, flat[reach_rows, reach_columns].flatten())


def _barrier(window: Window, side: int, span: tuple[int, int], frames: int, device: torch.device) -> Tensor:
    """Tile against block, (S, S, S + 2 * span, (S + 2 * span) * T): 0, or -inf where they are too far apart.

    At the border of the grid a part of it is used. Adding it is many times faster than filling under a boolean mask.
    """
    place = torch.arange(side, device=device)[:, None]
    dy, dx = (torch.arange(side + 2 * reach, device=device) - reach - place for reach in span)
    inside = window.contains(dy[:, None, :, None], dx[None, :, None, :])
    barrier = torch.zeros(inside.shape, device=device).masked_fill_(~inside, -torch.inf)
    return barrier.repeat_interleave(frames, dim=3)


def best_in_window(query: Tensor, keys: Tensor, window: Window, top_k: int) -> tuple[Tensor, Tensor]:
    """The most similar keys inside the window, over all frames jointly.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        window: which cells count.
        top_k: how many.

    Returns:
        Similarities and indices into the memory flattened over (h, w, T), both (h * w, top_k). Where the window holds
        fewer keys the similarity is -inf.
    """
    height, width, _ = query.shape
    best = torch.full((height, width, top_k), -torch.inf, device=query.device)
    index = torch.zeros(height, width, top_k, dtype=torch.int64, device=query.device)
    for tile in tiles(query, keys, window):
        count = min(top_k, tile.similarity.shape[1])
        similarity, place = largest(tile.similarity, count)
        shape = (*best[tile.rows, tile.columns].shape[:2], count)
        best[tile.rows, tile.columns, :count] = similarity.view(shape)
        index[tile.rows, tile.columns, :count] = tile.index[place].view(shape)
    return best.flatten(0, 1), index.flatten(0, 1)


def best_beyond(query: Tensor, keys: Tensor, window: Window, step: int, top_k: int) -> tuple[Tensor, Tensor]:
    """The most similar among every `step`-th key of every `step`-th row, inside a window that may be a wide ring.

    Far from a cell few keys are enough to find out where its match is, at 1 / step² of the products.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C).
        window: which cells count, in units of `step` cells. The cells that are looked at are those of row and column
            0, step, 2 * step and so on; a query at (y, x) counts as one at (y // step, x // step) of these.
        step: from key to key, at least 1.
        top_k: how many.

    Returns:
        As `best_in_window`.
    """
    height, width, frames, _ = keys.shape
    coarse = keys[::step, ::step].contiguous()
    place = torch.arange(height * width * frames, device=keys.device).view(height, width, frames)
    place = place[::step, ::step].flatten()
    similarity, found = in_parts(query, step, lambda part: best_in_window(part, coarse, window, top_k))
    return similarity, place[found]


def in_parts(query: Tensor, step: int, search: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Results of a search for queries, made for those whose places agree modulo `step` each.

    There are as many of these as of every `step`-th cell of every `step`-th row; what is beyond the border is padding.

    Args:
        query: (h, w, C).
        step: at least 1.
        search: from queries (h', w', C) to results, (h' * w', J) or (h' * w',) each.

    Returns:
        (h * w, J) of each result.
    """
    height, width, _ = query.shape
    rows, columns = -(-height // step), -(-width // step)
    padded = F.pad(query, (0, 0, 0, columns * step - width, 0, rows * step - height))
    parts = [search(padded[y::step, x::step].contiguous()) for y in range(step) for x in range(step)]

    def whole(results: list[Tensor]) -> Tensor:
        grid = torch.stack(results).view(step, step, rows, columns, -1).permute(2, 0, 3, 1, 4)
        return grid.reshape(rows * step, columns * step, -1)[:height, :width].flatten(0, 1)

    return tuple(whole(list(results)) for results in zip(*parts, strict=True))


def far_ring(window: Window, reach: float, grid: tuple[int, int]) -> tuple[Window, int]:
    """What is searched beyond a window: no cell that lies within it, and about as many at any size of the frame.

    Args:
        window: a disk or a square.
        reach: as a share of the grid's short side.
        grid: (h, w).

    Returns:
        A ring of the same kind, and the cells from one that is looked at to the next, which are the ring's unit. The
        ring may be empty.
    """
    step = max(1, round(min(grid) / _FAR_ROWS))
    # A query counts as lying up to step - 1 cells further up and left than it does (`best_beyond`). A distance that is
    # the radius lies within a square but not within a disk.
    beyond = (step - 1) * 2**0.5 if window.disk else step
    return Window(round(reach * min(grid) / step), window.disk, (window.radius + beyond) / step), step


def attend_window(query: Tensor, keys: Tensor, values: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Softmax attention over all keys inside the window and all frames jointly.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        values: (h, w, T, K).
        window: which cells count; it must hold at least the cell itself.

    Returns:
        The readout (h * w, K) and the log of the softmax's denominator (h * w,), by which readouts over disjoint sets
        of keys can be joined (`join_attention`).
    """
    height, width, _ = query.shape
    channels = values.shape[-1]
    flat = values.reshape(-1, channels)
    out = flat.new_empty(height, width, channels)
    log_sum = flat.new_empty(height, width)
    for tile in tiles(query, keys, window):
        readout, total = attend(tile.similarity, flat[tile.index])
        shape = out[tile.rows, tile.columns].shape
        out[tile.rows, tile.columns] = readout.view(shape)
        log_sum[tile.rows, tile.columns] = total.view(shape[:2])
    return out.flatten(0, 1), log_sum.flatten()


def attend_beyond(query: Tensor, keys: Tensor, values: Tensor, window: Window, step: int) -> tuple[Tensor, Tensor]:
    """Softmax attention to every `step`-th key of every `step`-th row, inside a window that may be a wide ring.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C).
        values: (h, w, T, K).
        window: as for `best_beyond`.
        step: from key to key, at least 1.

    Returns:
        As `attend_window`; where the window holds no key the readout is 0 and the log of the denominator -inf.
    """
    coarse, labels = keys[::step, ::step].contiguous(), values[::step, ::step]
    readout, log_sum = in_parts(query, step, lambda part: attend_window(part, coarse, labels, window))
    return readout.nan_to_num(nan=0.0), log_sum.squeeze(1).nan_to_num(nan=-torch.inf)


def attend(similarity: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention for similarities that are known.

    Args:
        similarity: (Q, J), -inf for keys that do not count; each row has one at least that does.
        values: (J, K).

    Returns:
        The readout (Q, K) and the log of the softmax's denominator (Q,).
    """
    weights = similarity.softmax(1)
    # The largest weight is exp(largest - log_sum). logsumexp would take ten times as long as the softmax.
    log_sum = similarity.amax(1) - weights.amax(1).log()
    return weights @ values, log_sum


def join_attention(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Joint softmax attention from parts over disjoint sets of keys.

    Args:
        parts: readout (N, K) and log denominator (N,) of each.

    Returns:
        (N, K).
    """
    weights = torch.softmax(torch.stack([log_sum for _, log_sum in parts]), dim=0)
    return torch.einsum("pn,pnk->nk", weights, torch.stack([readout for readout, _ in parts]))
