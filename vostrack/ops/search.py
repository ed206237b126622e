"""Two-stage attention to distant frames: a coarse search finds where to look, a window around that place is read.

Source: MAST (Lai et al., 2020), section 3.4. Letters: C channels, h w feature cells, N = h * w, K label channels,
R radius in cells, P = 2R + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.ops.grid import centres
from vostrack.ops.window import Window, attend, attend_window, tile_side


def coarse_positions(query: Tensor, key: Tensor, radius: int, dilation: int) -> Tensor:
    """Where in another frame the match of each cell is expected (soft-argmax over a dilated window).

    Taps lie `dilation` cells apart, so that cells whose coordinates agree modulo `dilation` only ever meet each other:
    each of these sub-grids is searched as a dense window of its own.

    Args:
        query: (h, w, C).
        key: (h, w, C).
        radius: R, in taps; the reach is R * dilation cells.
        dilation: cells from tap to tap, at least 1.

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
            expected, _ = attend_window(query[grid].contiguous(), keys, values, Window(radius))
            found[grid] = expected.view(where[grid].shape)
    return found


def attend_around(query: Tensor, key: Tensor, value: Tensor, centre: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Softmax attention of each cell to a square window around a place of its own.

    Neighbouring cells look at neighbouring places: the queries of a tile share one block of keys that covers all their
    windows, and what lies outside a query's own window is masked.

    Args:
        query: (h, w, C).
        key: (h, w, C), contiguous.
        value: (h, w, K).
        centre: int64 (h, w, 2), y then x, inside the grid.
        radius: R, in cells.

    Returns:
        The readout (N, K) and the log of the softmax's denominator (N,), for `window.join_attention`.
    """
    height, width, _ = key.shape
    side = tile_side(query.device)
    out = query.new_empty(height, width, value.shape[-1])
    log_sum = query.new_empty(height, width)
    for top in range(0, height, side):
        for left in range(0, width, side):
            tile = (slice(top, top + side), slice(left, left + side))
            places = centre[tile].flatten(0, 1)
            first, last = places.amin(0).tolist(), places.amax(0).tolist()
            rows, columns = (slice(max(0, a - radius), b + radius + 1) for a, b in zip(first, last, strict=True))
            scores = query[tile].flatten(0, 1) @ key[rows, columns].flatten(0, 1).T
            shape = key[rows, columns].shape[:2]
            y = torch.arange(rows.start, rows.start + shape[0], device=key.device)
            x = torch.arange(columns.start, columns.start + shape[1], device=key.device)
            near_y, near_x = (y - places[:, :1]).abs() <= radius, (x - places[:, 1:]).abs() <= radius
            far = ~(near_y[:, :, None] & near_x[:, None, :]).flatten(1)
            readout, total = attend(scores.masked_fill_(far, -torch.inf), value[rows, columns].flatten(0, 1))
            tile_shape = out[tile].shape
            out[tile] = readout.view(tile_shape)
            log_sum[tile] = total.view(tile_shape[:2])
    return out.flatten(0, 1), log_sum.flatten()
