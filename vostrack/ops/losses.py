"""Training losses as pure functions of features.

Knows nothing of networks, frames or optimisers. Letters: B clips, T frames, C channels, h w feature cells, G side of a
sampling grid. All features are unit vectors over C.
Sources: Araslanov et al., "Dense Unsupervised Learning for Video Segmentation" (2021), Eq. 1-6; Lai et al., MAST
(2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_grid(features: Tensor, cells: int, offset: Tensor) -> Tensor:
    """Features on a uniform grid of `cells` x `cells` points that is shifted as a whole.

    Args:
        features: (B, C, h, w) with h and w at least `cells`.
        cells: G, points a side.
        offset: (B, 2) in [0, 1): shift of the grid in units of its spacing, vertical and horizontal.

    Returns:
        (B, cells², C), row by row.

    Paper: Araslanov et al., section 3.3 (the operator G_N) and 3.5 (the grid has to be jittered).
    """
    batch, channels, height, width = features.shape
    steps = torch.arange(cells, device=features.device)
    y = ((steps + offset[:, :1]) * height / cells).long().clamp(max=height - 1)
    x = ((steps + offset[:, 1:]) * width / cells).long().clamp(max=width - 1)
    index = (y[:, :, None] * width + x[:, None, :]).view(batch, -1)
    flat = features.flatten(2).transpose(1, 2)
    return flat.gather(1, index[..., None].expand(-1, -1, channels))


def pseudo_labels(features: Tensor, anchors: Tensor) -> Tensor:
    """Index of the anchor of its own clip that each feature is most similar to.

    Args:
        features: (B, T, C, h, w) of the regularising view.
        anchors: (B, G², C).

    Returns:
        int64 (B, T, h, w), an index into all B * G² anchors.

    Paper: Araslanov et al., Eq. 2.
    """
    similarity = torch.einsum("btchw,bnc->btnhw", features, anchors)
    first = torch.arange(anchors.shape[0], device=anchors.device) * anchors.shape[1]
    return similarity.argmax(2) + first.view(-1, 1, 1, 1)


def self_training_loss(features: Tensor, anchors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between soft assignments to the anchors of all clips and pseudo labels.

    Args:
        features: (B, T, C, h, w) of the main view, aligned with `labels`; reference frames left out.
        anchors: (B, G², C).
        labels: int64 (B, T, h, w), from `pseudo_labels`.
        temperature: divides the cosine similarity.

    Returns:
        Mean over all cells, a scalar.

    Paper: Araslanov et al., Eq. 1 and 3.
    """
    flat = features.permute(0, 1, 3, 4, 2).flatten(0, 3)
    logits = flat @ anchors.flatten(0, 1).T / temperature
    return F.cross_entropy(logits, labels.flatten())


def cross_view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Contrast corresponding features of two views with all others in the batch.

    Args:
        first: (B, G², C), main view.
        second: (B, G², C), regularising view at the same places.
        temperature: divides the cosine similarity.

    Returns:
        Mean over the samples, a scalar.

    Paper: Araslanov et al., Eq. 4 and 5.
    Differs: the positive pair is part of the denominator (as in InfoNCE); Eq. 4 leaves it out, which makes the loss
        unbounded below.
    """
    logits = first.flatten(0, 1) @ second.flatten(0, 1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def photometric_loss(prediction: Tensor, target: Tensor, knee: float = 0.05) -> Tensor:
    """Huber loss between reconstructed and true colours.

    Args:
        prediction: any shape.
        target: the same shape.
        knee: where the loss turns from quadratic to linear, in colour units.

    Returns:
        Mean, a scalar, scaled so that its slope beyond the knee is 1 / knee.

    Paper: MAST, Eq. 3; knee and scale as in its published training.
    """
    return F.smooth_l1_loss(prediction / knee, target / knee)


def partial_cross_entropy(scores: Tensor, allowed: Tensor) -> Tensor:
    """Negative log of the probability that a pixel belongs to one of the channels that its label allows.

    One allowed channel is a plain label. Several say that it is one of them, without saying which. All of them is void:
    such pixels do not count.

    Args:
        scores: (B, K, H, W), before the softmax.
        allowed: bool (B, K, H, W), at least one channel at every pixel.

    Returns:
        (B,), the mean over the pixels of each image that are not void; 0 where all are.

    Paper: Zhu et al. (2020), appendix B, "pixel-wise cross entropy loss".
    """
    loss = scores.logsumexp(1) - scores.masked_fill(~allowed, -torch.inf).logsumexp(1)
    counted = ~allowed.all(1)
    return (loss * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)


def dice_loss(probs: Tensor, allowed: Tensor) -> Tensor:
    """One minus the soft Dice coefficient 2 Σ p g / (Σ p + Σ g) of predicted and labelled channels.

    A channel's sums run over the pixels whose label decides about it: those that allow no other channel, and those that
    do not allow this one.

    Args:
        probs: (B, K, H, W), after the softmax.
        allowed: bool (B, K, H, W), as for `partial_cross_entropy`.

    Returns:
        (B,), the mean over the channels that some pixel of the image is sure to belong to; 0 where there are none.

    Paper: Zhu et al. (2020), appendix B, "the Dice loss".
    Differs: An object that is absent from an image has no Dice coefficient, and is left to the cross-entropy.
    """
    sure = allowed.sum(1, keepdim=True) == 1
    label = allowed & sure
    overlap = (probs * label).sum((2, 3))
    total = (probs * (sure | ~allowed)).sum((2, 3)) + label.sum((2, 3))
    present = label.flatten(2).any(2)
    loss = torch.where(present, 1 - 2 * overlap / total.clamp(min=1), 0)
    return loss.sum(1) / present.sum(1).clamp(min=1)
