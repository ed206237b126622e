"""Soft matching of features with sets of features, and what VideoMatch does with the masks that come of it.

Knows nothing of frames or of where the sets come from. Letters: B batch, N query cells, M features of a set, C
channels, h w feature cells, O objects, K = O + 1 label channels with the background. Log-odds are log(y / (1 - y)) of a
probability y.
Source: Hu, Huang, Schwing, "VideoMatch: Matching based Video Object Segmentation" (2018), sections 3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.ops.affinity import best_similarities


def neighbours(top_k: int, top_share: float, foreground: int, background: int) -> int:
    """How many similarities count for sets of such sizes: `top_k`, but a share of the smaller set at most.

    The mean over all of a set is too strict (section 3.2), and so it is over most of a small one. Both sets take the
    same number, since the mean of few is higher than that of many.

    Args:
        top_k: K; 0 for all.
        top_share: the largest share of the smaller set; 0 for K of any set, as published.
        foreground: features of one set.
        background: features of the other set.
    """
    if not (top_k and top_share):
        return top_k
    return min(top_k, max(1, int(min(foreground, background) * top_share)))


def mean_of_best(parts: Sequence[Tensor], top_k: int) -> Tensor:
    """Mean of the `top_k` highest similarities with a set that was matched in parts.

    Args:
        parts: (N, L) of each part, from `best_similarities` with at least this `top_k`.
        top_k: at least 1; in a smaller set all count.

    Returns:
        (N,), -inf where the set is empty.
    """
    similarity = torch.cat(list(parts), 1)
    count = min(top_k, similarity.shape[1])
    if not count:
        return similarity.new_full((len(similarity),), -torch.inf)
    return similarity.topk(count, dim=1).values.mean(1)


def soft_matching(query: Tensor, keys: Tensor, top_k: int) -> Tensor:
    """The soft matching layer: how well each feature matches a set.

    Args:
        query: (N, C), unit vectors.
        keys: (M, C), unit vectors.
        top_k: similarities that count; 0 for all.

    Returns:
        (N,), in [-1, 1]; -inf where the set is empty.

    Paper: VideoMatch, section 3.2; all similarities, Figure 5(a).
    """
    if not top_k and len(keys):  # their mean is the similarity with the mean
        return (query @ keys.mean(0).to(query.dtype)).float()
    return mean_of_best([best_similarities(query, keys, top_k)], top_k)


def matching_difference(
    query: Tensor, foreground: Tensor, background: Tensor, top_k: int, top_share: float = 0.0
) -> Tensor:
    """Matching score (N,) of features (N, C) with the foreground minus that with the background, (M, C) each.

    `top_k` and `top_share` are those of `neighbours`.
    """
    count = neighbours(top_k, top_share, len(foreground), len(background))
    return soft_matching(query, foreground, count) - soft_matching(query, background, count)


def matching_loss(log_odds: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Two-way cross-entropy of foreground and background.

    Args:
        log_odds: difference of the weighted matching scores, any shape.
        target: bool, the same shape: what is foreground.
        known: bool, the same shape: what counts.

    Returns:
        Mean over what counts, a scalar; 0 if that is nothing.
    """
    losses = F.binary_cross_entropy_with_logits(log_odds, target.to(log_odds.dtype), reduction="none")
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


def fuse(log_odds: Tensor, threshold: float) -> Tensor:
    """Label probabilities from those of single objects.

    The strongest channel is the object with the highest probability, or the background where none reaches the
    threshold. With one object and a threshold of 0.5 the probabilities are those of the object.

    Args:
        log_odds: (O, h, w) of each object's foreground; -inf for one that cannot be there.
        threshold: c2 of the paper, in (0, 1).

    Returns:
        (K, h, w), summing to 1.

    Paper: VideoMatch, section 3.4.
    Differs: the paper only says which label wins; softmax over the log-odds gives the same winner, and probabilities.
    """
    background = log_odds.new_zeros(1, *log_odds.shape[1:])
    return torch.cat((background, log_odds - _logit(threshold))).softmax(0)


def unfuse(probs: Tensor, threshold: float) -> Tensor:
    """Log-odds (O, h, w) of each object from which `fuse` made such probabilities (K, h, w)."""
    smallest = torch.finfo(probs.dtype).tiny
    return probs[1:].log() - probs[:1].clamp(min=smallest).log() + _logit(threshold)


def _logit(probability: float) -> float:
    return log(probability / (1 - probability))


def surest_half(probs: Tensor, masks: Tensor) -> Tensor:
    """How sure masks are: mean probability of the surer half of the cells of each, whatever share its outline has.

    Args:
        probs: (O, N), of each object.
        masks: bool (O, N).

    Returns:
        (O,), 1 where a mask is empty.
    """
    means = [p[m].topk((int(m.sum()) + 1) // 2).values.mean() for p, m in zip(probs, masks, strict=True)]
    return torch.stack(means).nan_to_num(1.0) if means else probs.new_ones(0)


def squared_distance(masks: Tensor) -> Tensor:
    """Squared Euclidean distance of each cell to the nearest cell of a mask, centre to centre.

    Exact. Along rows by running maxima, then over all pairs of rows, one row at a time.

    Args:
        masks: bool (O, h, w).

    Returns:
        float32 (O, h, w) in cells², inf where a mask is empty.
    """
    _, height, width = masks.shape
    x = torch.arange(width, dtype=torch.float32, device=masks.device)
    left = torch.where(masks, x, -torch.inf).cummax(2).values
    right = torch.where(masks, x, torch.inf).flip(2).cummin(2).values.flip(2)
    along = torch.minimum(x - left, right - x).square()
    y = torch.arange(height, dtype=torch.float32, device=masks.device)
    nearest = torch.full_like(along, torch.inf)
    for row in range(height):
        nearest = torch.minimum(nearest, along[:, row, None] + (y - row).square()[:, None])
    return nearest


def extrude(masks: Tensor, radius: Tensor) -> Tensor:
    """Grow masks by a disk: cells whose distance to the mask is below a radius.

    Args:
        masks: bool (O, h, w).
        radius: (O,) of each, in cells.

    Returns:
        bool (O, h, w); nothing where the mask is empty.

    Paper: VideoMatch, section 3.3 (the hat on y).
    """
    return squared_distance(masks) < radius.square()[:, None, None]


def erode(masks: Tensor, radius: float) -> Tensor:
    """Shrink masks by a disk: cells that are further than a radius from every cell outside of the mask.

    What lies beyond the border of the image does not count as outside.

    Args:
        masks: bool (O, h, w).
        radius: in cells; 0 leaves the masks as they are.

    Returns:
        bool (O, h, w).

    Paper: VideoMatch, section 3.3 (the breve on y); it names neither shape nor size.
    """
    return masks & (squared_distance(~masks) > radius**2)
