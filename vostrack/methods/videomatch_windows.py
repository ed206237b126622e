"""What a cell of `videomatch` is matched with besides its sets: cells around the same place in recent frames.

Each of these belongs to each label to some degree, the probability that was predicted for it. Letters: C channels, h w
feature cells, N = h * w, T frames, K label channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.memory import FrameBank
from vostrack.ops.window import Window, best_beyond, best_in_window, far_ring


def recent_similarities(
    query: Tensor, bank: FrameBank, *, radius: int, reach: float, top_k: int, scale: float
) -> list[Tensor]:
    """The highest similarities with the cells of each label around the same place.

    A cell of label probability v has its similarity lowered by log(1 / v) / scale: in a softmax of the weighted
    similarities it weighs v times as much as one that is all of that label.

    Args:
        query: (h, w, C), unit vectors, contiguous.
        bank: frames with keys such as these, and their labels.
        radius: how far away, in cells.
        reach: share of the short side up to which fewer cells are searched beyond that (`ops.window.far_ring`).
        top_k: how many.
        scale: weight of the similarities.

    Returns:
        (N, J) for each of the K labels, J at least `top_k`; -inf where the grid holds fewer cells.
    """
    keys, values = bank.used_keys, bank.used_values
    window = Window(radius, disk=True)
    ring, step = far_ring(window, reach, (query.shape[0], query.shape[1]))
    lowered = (values.clamp(min=torch.finfo(values.dtype).tiny).log() / scale).to(keys.dtype)
    # The degree is one more channel, so that one product gives the similarity and what it is lowered by.
    asked, known = torch.cat((query, torch.ones_like(query[..., :1])), -1), torch.cat((keys, lowered[..., :1]), -1)
    found = []
    for channel in range(values.shape[-1]):
        known[..., -1] = lowered[..., channel]
        parts = [best_in_window(asked, known, window, top_k)[0]]
        if not ring.is_empty:
            parts.append(best_beyond(asked, known, ring, step, top_k)[0])
        found.append(torch.cat(parts, 1))
    return found
