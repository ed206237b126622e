"""Features of a frame as the mean over the frame and its mirror images.

What a network says of a cell depends on which way things face, by chance of how it learned: the mean over mirror images
does not. Knows nothing of the network. Letters: B batch, C channels, H W image pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

VIEWS: dict[int, tuple[tuple[int, ...], ...]] = {1: (), 2: ((3,),), 4: ((3,), (2,), (2, 3))}
"""How many images the mean is over, and along which dimensions the others than the frame itself are mirrored."""


def mean_over_views(
    stages: Callable[[Tensor], list[Tensor]], image: Tensor, strides: tuple[int, ...], views: int
) -> list[Tensor]:
    """Outputs of a network for an image, each the mean over the image's views, in 32 bits.

    Cell i lies on pixel i * stride. From the other end it does so only where the side less one is a multiple of the
    stride: images are continued to such a side before they are mirrored.

    Args:
        stages: from an image (B, 3, H, W) to outputs (B, C, h, w), with h = ceil(H / stride) and w likewise.
        image: (B, 3, H, W).
        strides: pixels from cell to cell, of each output; each divides the largest.
        views: one of `VIEWS`.

    Returns:
        (B, C, h, w) for each output.
    """
    sums = [stage.float() for stage in stages(image)]
    for dims in VIEWS[views]:
        seen = stages(_continued(image, dims, max(strides)).flip(dims))
        sums = [
            total + stage.float().flip(dims)[..., : total.shape[2], : total.shape[3]]
            for total, stage in zip(sums, seen, strict=True)
        ]
    return [total / views for total in sums] if views > 1 else sums


def _continued(image: Tensor, dims: tuple[int, ...], stride: int) -> Tensor:
    """The image with its border repeated below and at the right, as far as mirroring along `dims` needs it."""
    below, right = ((1 - image.shape[dim]) % stride if dim in dims else 0 for dim in (2, 3))
    return F.pad(image, (0, right, 0, below), mode="replicate")
