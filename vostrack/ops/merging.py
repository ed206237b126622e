"""Probabilities of two passes over a clip, one from each side, made one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def arranged(probs: Tensor, ids: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Probabilities (K, h, w), whose channels belong to some ids, with the channels of others (K', h, w).

    An object that was not followed has none; all that were must be among those that are wanted.
    """
    channels = probs.new_zeros(len(wanted) + 1, *probs.shape[1:])
    channels[0] = probs[0]
    for channel, number in enumerate(ids, 1):
        channels[wanted.index(number) + 1] = probs[channel]
    return channels


def merge(forward: Tensor, backward: Tensor, weights: Tensor) -> Tensor:
    """The mean of two predictions, weighted by how near each is to a given mask and by how sure it is.

    Args:
        forward, backward: (K, h, w), each summing to 1 over K.
        weights: (O,), O = K - 1, in [0, 1]: how much `forward` counts for each object; 1 or 0 where only one knows it.

    Returns:
        (K, h, w), summing to 1 over K. Each object is taken by itself, and the background is what they leave.
    """
    ours, theirs = weights.to(forward)[:, None, None], 1 - weights.to(forward)[:, None, None]
    one, other = ours * _sureness(forward[1:]), theirs * _sureness(backward[1:])
    objects = (one * forward[1:] + other * backward[1:]) / (one + other)
    probs = torch.cat((1 - objects.sum(0, keepdim=True), objects)).clamp(min=0)
    return probs / probs.sum(0)


def overlap(one: Tensor, other: Tensor, channel: int) -> float:
    """How well two predictions (K, h, w) agree on a channel: the IoU of its likely cells; 1 where neither has one."""
    ours, theirs = one[channel] > 0.5, other[channel] > 0.5
    either = int((ours | theirs).sum())
    return int((ours & theirs).sum()) / either if either else 1.0


def _sureness(probs: Tensor) -> Tensor:
    """In (0, 1]: 1 where a probability is 0 or 1, least where it is one half."""
    return (2 * probs - 1).abs().clamp(min=0.1)
