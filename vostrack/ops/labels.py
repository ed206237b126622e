"""Between label maps (object ids) and channels: the only place that converts.

Channel 0 is the background, channel k belongs to `ids[k - 1]` (see `types`). Void (255) belongs to no channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.types import BACKGROUND, VOID


def one_hot(pixels: Tensor, ids: Sequence[int]) -> Tensor:
    """Channels of a label map.

    Args:
        pixels: uint8 (H, W) of ids.
        ids: object ids in channel order; pixels of other ids belong to no channel.

    Returns:
        float32 (K, H, W) with K = len(ids) + 1.
    """
    by_channel = torch.tensor([BACKGROUND, *ids], dtype=pixels.dtype, device=pixels.device)
    return (pixels[None] == by_channel[:, None, None]).float()


def harden(labels: Tensor) -> Tensor:
    """Hard labels: the channel that has most of each cell; every object that is there gets one cell at least.

    Args:
        labels: (K, h, w), soft: how much of each cell belongs to each channel.

    Returns:
        int64 (h, w). An object that has most of no cell gets the one that it has most of.
    """
    hard = labels.argmax(0)
    for channel in range(1, len(labels)):
        if labels[channel].any() and not (hard == channel).any():
            hard.view(-1)[labels[channel].argmax()] = channel
    return hard


def resize_labels(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resizing of a label map, uint8 (H, W) -> (H', W')."""
    if tuple(pixels.shape) == tuple(size):
        return pixels
    return F.interpolate(pixels[None, None], size, mode="nearest-exact")[0, 0]


def strongest(probs: Tensor, ids: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Label map of the most probable channel at another resolution.

    One channel is enlarged at a time, so that memory is that of two maps however many objects there are. Ties go to the
    lower channel.

    Args:
        probs: (K, h, w) over whole pixels of some resolution.
        ids: object ids in channel order (K - 1 of them).
        size: (H, W) of the result.

    Returns:
        uint8 (H, W) of ids, on the CPU.
    """
    best = _enlarge(probs[:1], size)
    label = torch.full(size, BACKGROUND, dtype=torch.uint8, device=probs.device)
    for channel, object_id in enumerate(ids, 1):
        value = _enlarge(probs[channel : channel + 1], size)
        wins = value > best
        label[wins] = object_id
        best = torch.where(wins, value, best)
    return label.cpu()


def _enlarge(channel: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(channel.shape[1:]) == tuple(size):
        return channel[0]
    return F.interpolate(channel[None], size, mode="bilinear", align_corners=False)[0, 0]


def correct(pixels: Tensor, given: Tensor, ids: Sequence[int]) -> Tensor:
    """Replace what a given mask speaks about and keep the rest.

    The objects in `ids` become exactly what `given` says; where it is void they keep their predicted pixels. Background
    in `given` says nothing about other objects.

    Args:
        pixels: uint8 (H, W), predicted label map.
        given: uint8 (H, W), the mask that a person gave for this frame.
        ids: the object ids that it speaks about.

    Returns:
        uint8 (H, W).
    """
    spoken = torch.isin(pixels, torch.tensor(list(ids), dtype=pixels.dtype, device=pixels.device))
    known = given != VOID
    cleared = torch.where(spoken & known, BACKGROUND, pixels)
    return torch.where(known & (given != BACKGROUND), given, cleared).to(torch.uint8)


def without_void(pixels: Tensor) -> Tensor:
    """Label map with void counted as background."""
    return torch.where(pixels == VOID, BACKGROUND, pixels).to(torch.uint8)


def add_channels(probs: Tensor, count: int, dim: int = 0) -> Tensor:
    """Append empty channels for objects that appeared later.

    Args:
        probs: any shape with K channels along `dim`.
        count: K' >= K.
        dim: the channel dimension.
    """
    missing = count - probs.shape[dim]
    if not missing:
        return probs
    shape = list(probs.shape)
    shape[dim] = missing
    return torch.cat((probs, probs.new_zeros(shape)), dim)
