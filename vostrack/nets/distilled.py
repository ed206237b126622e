"""One small network for all that the two networks of `best` say of a frame, on one grid and in one pass.

It learns from them, and not from footage alone: its output are coordinates along the directions in which theirs vary
most (`methods.objectives.distil`). A twelfth of their work or so: 25 billion operations for a frame of 854x480.
Parameter names are those of the shipped weights. Letters: B batch, C channels, H W image pixels, h w cells.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.nets.resnet import BasicBlock
from vostrack.ops.grid import resize

CHANNELS = 160
"""Directions that are kept of 832: they hold 97 % of the variance."""

_WIDTHS = (32, 64, 128, 256)
_MERGED = 128


class DistilledNet(nn.Module):
    """Coordinates of each cell at stride 4, from stages at strides 4, 8 and 16 that are added up on the finest grid.

    Attributes:
        stride: pixels from cell to cell.
        coarsest: the same of the coarsest stage.
        deviation: (160,), of each coordinate over the footage that it was trained on; the network itself gives
            coordinates of deviation 1.
    """

    stride = 4
    coarsest = 16
    deviation: Tensor

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        half, fine, middle, coarse = _WIDTHS
        self.stem = nn.Sequential(*_halved(6, half), *_halved(half, fine))
        self.fine = BasicBlock(fine, fine)
        self.middle = nn.Sequential(*_halved(fine, middle), BasicBlock(middle, middle), BasicBlock(middle, middle))
        self.coarse = nn.Sequential(*_halved(middle, coarse), BasicBlock(coarse, coarse), BasicBlock(coarse, coarse))
        self.from_fine = nn.Conv2d(fine, _MERGED, 1)
        self.from_middle = nn.Conv2d(middle, _MERGED, 1)
        self.from_coarse = nn.Conv2d(coarse, _MERGED, 1)
        self.down = nn.Sequential(nn.BatchNorm2d(_MERGED), nn.ReLU(), nn.Conv2d(_MERGED, _MERGED, 1))
        self.out = nn.Sequential(nn.BatchNorm2d(_MERGED), nn.ReLU(), nn.Conv2d(_MERGED, CHANNELS, 1))
        self.skip = nn.Conv2d(fine, CHANNELS, 1)
        self.register_buffer("deviation", torch.ones(CHANNELS))

    def coordinates(self, seen: Tensor) -> Tensor:
        """Coordinates of deviation 1 (B, 160, h, w), h = ceil(H / 4), for images as `forward` sees them."""
        fine = self.fine(self.stem(seen.contiguous(memory_format=torch.channels_last)))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        merged = self.down(self.from_middle(middle) + _enlarged(self.from_coarse(coarse), middle))
        merged = self.from_fine(fine) + _enlarged(merged, fine)
        return cast(Tensor, self.out(merged) + self.skip(fine))

    def forward(self, seen: Tensor) -> Tensor:
        """Coordinates (B, 160, h, w), each with its deviation.

        Args:
            seen: (B, 6, H, W), what `normalised_rgb` and `normalised_lab` give.
        """
        return self.coordinates(seen) * self.deviation[:, None, None]


def _halved(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A convolution to half the side; cell i lies on pixel 2 * i."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) on a grid of twice as many cells, of which every second lies on one of these."""
    height, width = x.shape[2:]
    larger = resize(x, (2 * height - 1, 2 * width - 1), corners=True)
    below, right = like.shape[2] - larger.shape[2], like.shape[3] - larger.shape[3]
    return F.pad(larger, (0, right, 0, below), mode="replicate")
