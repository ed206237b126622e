"""Windowed attention that gradients flow through, for training.

Forms the windows with one `unfold` per frame, which suits small crops and large batches; inference uses `window`, which
suits one large frame and never copies the whole memory. A test holds both to the same naive formula.

Letters: B batch, C channels, h w feature cells, T memory frames, K value channels, R radius in cells, S side of a tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.window import Window

_SIDE = 8


def window_attention(query: Tensor, keys: Tensor, values: Tensor, radius: int) -> Tensor:
    """Softmax attention of each cell to a square window of each memory frame, jointly over all frames.

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
    return Window(radius).contains(offset[:, None, :, None], offset[None, :, None, :]).reshape(_SIDE * _SIDE, -1)


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
