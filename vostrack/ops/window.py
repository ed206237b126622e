"""Affinity and readout restricted to a window around each cell: the hot path of propagation.

The peers form the affinity of all pairs of cells and then mask what lies outside the window, which is some ten times
the arithmetic. Here queries are cut into square tiles; the keys that a tile can reach form a block, so that each tile
is one dense matrix product, and only the corners of the block are masked.
Exact: equal to dense-and-mask up to float order.

In distant frames a coarse search finds where to look (`coarse_positions`), and a window around that place is read
(`attend_around`). Training has an attention of its own that gradients flow through (`window_attention`).

Source: MAST (Lai et al., 2020), section 3.4, for the search from coarse to fine.
Letters: B batch, C channels, h w feature cells, N = h * w, T memory frames, K label or value channels, R radius in
cells, S side of a tile, Q queries of a tile, L keys in its reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.affinity import largest
from vostrack.ops.grid import centres

_SIDE = 8
"""S in training; else `tile_side` says it."""

_FAR_ROWS = 60
"""Where cells are far, the search is among those of a grid of about so many rows (or columns of an upright clip)."""

_BEYOND = 1 << 62
"""More than the square of any distance, and a number that tensors have."""


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
            return (distance < min(self.radius**2, _BEYOND)) & (distance >= self.inner**2)
        distance = torch.maximum(dy.abs(), dx.abs())
        return (distance <= self.radius) & (distance >= self.inner)


Place = tuple[slice, slice]
"""Rows and columns of a tile."""


@dataclass(frozen=True)
class Tile:
    """Similarities of a square of queries to all keys in reach.

    Attributes:
        place: rows and columns of the queries.
        reach: rows and columns of the keys, which are all of these in all frames.
        similarity: float32 (Q, L), -inf outside the window; its transpose is contiguous.
    """

    place: Place
    reach: Place
    similarity: Tensor


def tile_side(device: torch.device) -> int:
    """A side S that suits a device: small blocks waste less on a CPU, large ones need fewer launches on a GPU."""
    return 8 if device.type == "cpu" else 32


def tiles(query: Tensor, keys: Tensor, window: Window, wanted: Tensor | None = None) -> Iterator[Tile]:
    """Similarities inside the window, tile by tile.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        window: which cells count.
        wanted: bool (h, w), queries that matter; None for all.

    Yields:
        Tiles that together hold every query that is wanted once, and others beside these.
    """
    height, width, frames, _ = keys.shape
    side = tile_side(query.device)
    # No further than the grid: a radius may be larger than all of it.
    up, across = min(window.span, height - 1), min(window.span, width - 1)
    barrier = _barrier(window, side, (up, across), frames, query.device)
    for rows, columns in _wanted_squares((height, width), side, wanted):
        top, left = rows.start, columns.start
        reach_rows = slice(max(0, top - up), min(height, rows.stop + up))
        reach_columns = slice(max(0, left - across), min(width, columns.stop + across))
        queries = query[rows, columns].flatten(0, 1)
        similarity = (keys[reach_rows, reach_columns].flatten(0, 2) @ queries.T).float()
        y, x = reach_rows.start - top + up, reach_columns.start - left + across
        reach = (reach_rows.stop - reach_rows.start, reach_columns.stop - reach_columns.start)
        inside = barrier[y : y + reach[0], x * frames : (x + reach[1]) * frames]
        inside = inside[:, :, : rows.stop - top, : columns.stop - left]
        similarity.view(inside.shape).add_(inside)
        yield Tile((rows, columns), (reach_rows, reach_columns), similarity.T)


def _squares(size: Sequence[int], side: int) -> Iterator[Place]:
    """Cut a grid of some size (h, w) into tiles."""
    height, width = size
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _wanted_squares(size: Sequence[int], side: int, wanted: Tensor | None) -> Iterator[Place]:
    """The tiles that hold a cell that is wanted."""
    if wanted is None:
        return _squares(size, side)
    # One look at all tiles: on a GPU each would have to be waited for.
    held = F.max_pool2d(wanted[None].float(), side, ceil_mode=True).flatten().tolist()
    return compress(_squares(size, side), held)


def _join_tiles(
    whole: tuple[Tensor, Tensor], parts: Iterable[tuple[Place, tuple[Tensor, Tensor]]]
) -> tuple[Tensor, Tensor]:
    """Two results (h * w, ...) in whose grids (h, w, ...) those for the queries of each tile, (Q, ...), are put."""
    for place, results in parts:
        for grid, result in zip(whole, results, strict=True):
            grid[place] = result.view_as(grid[place])
    return whole[0].flatten(0, 1), whole[1].flatten(0, 1)


def _barrier(window: Window, side: int, span: tuple[int, int], frames: int, device: torch.device) -> Tensor:
    """Block against tile, (S + 2 * span, (S + 2 * span) * T, S, S): 0, or -inf where they are too far apart.

    At the border of the grid a part of it is used. Adding it is many times faster than filling under a boolean mask.
    """
    place = torch.arange(side, device=device)
    dy, dx = (torch.arange(side + 2 * reach, device=device)[:, None] - reach - place for reach in span)
    inside = window.contains(dy[:, None, :, None], dx[None, :, None, :])
    barrier = torch.zeros(inside.shape, device=device).masked_fill_(~inside, -torch.inf)
    return barrier.repeat_interleave(frames, dim=1)


def best_in_window(
    query: Tensor, keys: Tensor, window: Window, top_k: int, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most similar keys inside the window, over all frames jointly.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        window: which cells count.
        top_k: how many.
        floor: (h, w), below what similarity a query needs none; None for all.

    Returns:
        Similarities and indices into the memory flattened over (h, w, T), both (h * w, top_k). Where the window holds
        fewer keys, or nothing above the floor, the similarity is -inf.
    """
    flat = torch.arange(keys[..., 0].numel(), device=keys.device).view(keys.shape[:3])

    def best(tile: Tile) -> tuple[Tensor, Tensor]:
        count = min(top_k, tile.similarity.shape[1])
        least = None if floor is None else floor[tile.place].flatten()
        similarity, place = largest(tile.similarity, count, least)
        missing = (0, top_k - place.shape[1])
        return F.pad(similarity, missing, value=-torch.inf), F.pad(flat[tile.reach].flatten()[place], missing)

    whole = query.new_empty(*query.shape[:2], top_k, dtype=torch.float32), flat.new_empty(*query.shape[:2], top_k)
    return _join_tiles(whole, ((tile.place, best(tile)) for tile in tiles(query, keys, window)))


def best_beyond(
    query: Tensor, keys: Tensor, window: Window, step: int, top_k: int, floor: Tensor
) -> tuple[Tensor, Tensor]:
    """The most similar among every `step`-th key of every `step`-th row, inside a window that may be a wide ring.

    Far from a cell few keys are enough to find out where its match is, at 1 / step² of the products.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C).
        window: which cells count, in units of `step` cells. The cells that are looked at are those of row and column
            0, step, 2 * step and so on; a query at (y, x) counts as one at (y // step, x // step) of these.
        step: from key to key, at least 1.
        top_k: how many.
        floor: as for `best_in_window`.

    Returns:
        As `best_in_window`.
    """
    height, width, frames, _ = keys.shape
    coarse = keys[::step, ::step].contiguous()
    place = torch.arange(height * width * frames, device=keys.device).view(height, width, frames)
    place = place[::step, ::step].flatten()

    def search(part: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        return best_in_window(part, coarse, window, top_k, least)

    similarity, found = in_parts((query, floor), step, search)
    return similarity, place[found]


def in_parts(grids: Sequence[Tensor], step: int, search: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Results of a search for queries, made for those whose places agree modulo `step` each.

    There are as many of these as of every `step`-th cell of every `step`-th row; what is beyond the border is padding.

    Args:
        grids: (h, w, C) or (h, w) each, the queries and what else is known of each of them.
        step: at least 1.
        search: from such grids (h', w', ...) to results, (h' * w', L) or (h' * w',) each.

    Returns:
        (h * w, L) of each result.
    """
    height, width = grids[0].shape[:2]
    rows, columns = -(-height // step), -(-width // step)
    missing = (0, columns * step - width, 0, rows * step - height)
    padded = [F.pad(grid, (0, 0) * (grid.ndim - 2) + missing) for grid in grids]
    places = [(slice(y, None, step), slice(x, None, step)) for y in range(step) for x in range(step)]
    parts = [search(*(grid[place].contiguous() for grid in padded)) for place in places]

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


def attend_window(
    query: Tensor, keys: Tensor, values: Tensor, window: Window, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention over all keys inside the window and all frames jointly.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C), contiguous.
        values: (h, w, T, K).
        window: which cells count; it must hold at least the cell itself.
        wanted: bool (h, w), queries that matter; None for all.

    Returns:
        The readout (h * w, K) and the log of the softmax's denominator (h * w,), by which readouts over disjoint sets
        of keys can be joined (`join_attention`); zeros for queries in tiles where none matters.
    """
    found = (
        (tile.place, attend(tile.similarity, values[tile.reach].flatten(0, 2)))
        for tile in tiles(query, keys, window, wanted)
    )
    return _join_tiles(_unread(query, values), found)


def _unread(query: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros in the place of the readout (h, w, K) and its log denominator (h, w)."""
    return values.new_zeros(*query.shape[:2], values.shape[-1]), values.new_zeros(query.shape[:2])


def attend_beyond(
    query: Tensor, keys: Tensor, values: Tensor, window: Window, step: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention to every `step`-th key of every `step`-th row, inside a window that may be a wide ring.

    Args:
        query: (h, w, C), contiguous.
        keys: (h, w, T, C).
        values: (h, w, T, K).
        window: as for `best_beyond`.
        step: from key to key, at least 1.
        wanted: as for `attend_window`.

    Returns:
        As `attend_window`; where the window holds no key the readout is 0 and the log of the denominator -inf.
    """
    coarse, labels = keys[::step, ::step].contiguous(), values[::step, ::step]
    grids = (query,) if wanted is None else (query, wanted)

    def attended(part: Tensor, cells: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return attend_window(part, coarse, labels, window, cells)

    readout, log_sum = in_parts(grids, step, attended)
    return readout.nan_to_num(nan=0.0), log_sum.squeeze(1).nan_to_num(nan=-torch.inf)


def attend(similarity: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention for similarities that are known.

    Args:
        similarity: (Q, L), -inf for keys that do not count; each row has one at least that does. Quickest where its
            transpose is contiguous.
        values: (L, K).

    Returns:
        The readout (Q, K) and the log of the softmax's denominator (Q,).
    """
    columns = similarity.T
    weights = columns.softmax(0)
    # The largest weight is exp(largest - log_sum). logsumexp would take ten times as long as the softmax.
    log_sum = columns.amax(0) - weights.amax(0).log()
    return (values.T @ weights).T, log_sum


def join_attention(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Joint softmax attention from parts over disjoint sets of keys.

    Args:
        parts: readout (N, K) and log denominator (N,) of each.

    Returns:
        (N, K).
    """
    weights = torch.softmax(torch.stack([log_sum for _, log_sum in parts]), dim=0)
    return torch.einsum("pn,pnk->nk", weights, torch.stack([readout for readout, _ in parts]))


def coarse_positions(query: Tensor, key: Tensor, radius: int, dilation: int, wanted: Tensor | None = None) -> Tensor:
    """Where in another frame the match of each cell is expected (soft-argmax over a dilated window).

    Taps lie `dilation` cells apart, so that cells whose coordinates agree modulo `dilation` only ever meet each other:
    each of these sub-grids is searched as a dense window of its own.

    Args:
        query: (h, w, C).
        key: (h, w, C).
        radius: R, in taps; the reach is R * dilation cells.
        dilation: cells from tap to tap, at least 1.
        wanted: as for `attend_window`.

    Returns:
        (h, w, 2), y then x, in cells.

    Paper: MAST, Eq. 8.
    """
    height, width, _ = query.shape
    where = centres((height, width), query.device).to(query.dtype)
    found = torch.empty_like(where)
    for y in range(min(dilation, height)):
        for x in range(min(dilation, width)):
            grid = (slice(y, None, dilation), slice(x, None, dilation))
            keys, values = key[grid].contiguous()[:, :, None], where[grid][:, :, None]
            cells = None if wanted is None else wanted[grid]
            expected, _ = attend_window(query[grid].contiguous(), keys, values, Window(radius), cells)
            found[grid] = expected.view(where[grid].shape)
    return found


def attend_around(
    query: Tensor, key: Tensor, value: Tensor, centre: Tensor, radius: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention of each cell to a square window around a place of its own.

    Neighbouring cells look at neighbouring places: the queries of a tile share one block of keys that covers all their
    windows, and what lies outside a query's own window is masked.

    Args:
        query: (h, w, C).
        key: (h, w, C), contiguous.
        value: (h, w, K).
        centre: int64 (h, w, 2), y then x, inside the grid.
        radius: R, in cells.
        wanted: as for `attend_window`.

    Returns:
        As `attend_window`.
    """

    def read(place: Place) -> tuple[Tensor, Tensor]:
        there = centre[place].flatten(0, 1)
        first, last = there.amin(0).tolist(), there.amax(0).tolist()
        rows, columns = (slice(max(0, a - radius), b + radius + 1) for a, b in zip(first, last, strict=True))
        block = key[rows, columns]
        scores = block.flatten(0, 1) @ query[place].flatten(0, 1).T
        y = torch.arange(rows.start, rows.start + block.shape[0], device=key.device)
        x = torch.arange(columns.start, columns.start + block.shape[1], device=key.device)
        near_y, near_x = ((at[:, None] - along).abs() <= radius for at, along in zip((y, x), there.T, strict=True))
        far = ~(near_y[:, None] & near_x).flatten(0, 1)
        return attend(scores.masked_fill_(far, -torch.inf).T, value[rows, columns].flatten(0, 1))

    places = _wanted_squares(query.shape[:2], tile_side(query.device), wanted)
    return _join_tiles(_unread(query, value), ((place, read(place)) for place in places))


def window_attention(query: Tensor, keys: Tensor, values: Tensor, radius: int) -> Tensor:
    """Softmax attention of each cell to a square window of each memory frame, jointly over all frames, for training.

    Forms the windows with one `unfold` per frame, which suits small crops and large batches; `attend_window` suits one
    large frame and never copies the whole memory.

    Args:
        query: (B, C, h, w).
        keys: (B, T, C, h, w).
        values: (B, T, K, h, w).
        radius: R, in cells; the window is 2R + 1 on a side.

    Returns:
        (B, K, h, w), differentiable in all inputs.

    Paper: MAST, Eq. 1-2; Zhu et al. (2020), Eq. 6-7.
    Differs: cells outside the image get no weight; the published code gives each the weight exp(0).
    """
    batch, frames = keys.shape[:2]
    height, width = query.shape[-2:]
    pad = (0, -width % _SIDE, 0, -height % _SIDE)
    padded = F.pad(query, pad)
    q = _blocks(padded, 0)
    k = _blocks(F.pad(keys.flatten(0, 1), pad), radius)
    k = k.view(batch, frames, *k.shape[1:])
    v = _blocks(F.pad(values.flatten(0, 1), pad), radius)
    v = v.view(batch, frames, *v.shape[1:])
    exists = _blocks(F.pad(query.new_ones(1, 1, height, width), pad), radius) > 0
    allowed = _reach(radius, query.device) & exists
    scores = torch.einsum("bncq,btnck->bnqtk", q, k)
    scores = scores.masked_fill(~allowed[:, :, :, None, :], -torch.inf)
    # Queries in the padding may have no key at all; their rows are cut off below.
    weights = scores.flatten(3).softmax(-1).nan_to_num(0.0).view_as(scores)
    out = torch.einsum("bnqtk,btnck->bncq", weights, v)
    return _untile(out, *padded.shape[-2:])[..., :height, :width]


def _reach(radius: int, device: torch.device) -> Tensor:
    """bool (S², (S + 2R)²): which cells of a block each cell of its tile may look at."""
    block = torch.arange(_SIDE + 2 * radius, device=device) - radius
    offset = block[None, :] - torch.arange(_SIDE, device=device)[:, None]
    return Window(radius).contains(offset[:, None, :, None], offset[None, :, None, :]).reshape(_SIDE**2, -1)


def _blocks(x: Tensor, radius: int) -> Tensor:
    """(B, C, h, w), sides multiples of S -> (B, tiles, C, (S + 2R)²); cells outside x are zero."""
    window = _SIDE + 2 * radius
    columns = F.unfold(x, window, padding=radius, stride=_SIDE)
    return columns.view(*x.shape[:2], window * window, -1).permute(0, 3, 1, 2)


def _untile(x: Tensor, height: int, width: int) -> Tensor:
    """(B, tiles, K, S²) -> (B, K, h, w)."""
    batch, _, channels, _ = x.shape
    grid = x.view(batch, height // _SIDE, width // _SIDE, channels, _SIDE, _SIDE)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)
