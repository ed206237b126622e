"""The embedding module of RPM-Net: a ResNet that halves the image six times, and four up-convolutions back to stride 4.

A fully convolutional network in which every up-convolution adds the features of its own resolution. Knows nothing of
matching.
Source: RPM-Net (Kim et al., "Robust Pixel-Level Matching Networks for Self-Supervised Video Object Segmentation",
2020), section 3.2 and table 1 of the supplement; Long et al., "Fully Convolutional Networks" (2015).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.nets.resnet import ResNet

CHANNELS = 32


class Fcn(nn.Module):
    """Embeddings of 32 channels at stride 4.

    Paper: RPM-Net, supplement, table 1, layers 1 to 105.
    Differs: The table halves the resolution in the first stage as well, where a ResNet does not (its layers 3 to 11
        give H/8, so the last ones H/64). That is kept, since only so do four up-convolutions of stride 2 end at H/4
        and find features of their own size to add. "Layers 11-23" are 12 to 23, as the count says, and 102 to 105 add
        the earlier layer to their own output. With basic blocks (18 and 34 layers, which the table does not spell
        out) the stages have 64 to 512 channels, and the up-convolutions 256, 128, 64 and 32. Batch normalisation
        follows every up-convolution and a ReLU every sum, but for the last: embeddings have a sign. Sides need not be
        multiples of 64; every resolution is rounded up.
    """

    stride = 4

    def __init__(self, depth: int) -> None:
        """Random weights: Gaussian, of He's deviations; the paper states none.

        Args:
            depth: layers of the ResNet, one of `resnet.DEPTHS`.
        """
        super().__init__()
        self.trunk = ResNet(depth, strides=(2, 2, 2, 2), stem=CHANNELS)
        widths = pairwise((*self.trunk.widths[::-1], CHANNELS))
        self.up = nn.ModuleList(_UpConvolution(inputs, outputs) for inputs, outputs in widths)

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, 32, h, w), h = ceil(H / 4), of an image (B, 3, H, W) normalised as `normalised_rgb` does."""
        return self.maps(image)[-1]

    def maps(self, image: Tensor, last: int = 4) -> list[Tensor]:
        """The first `last` of: the ResNet's features at strides 4, 8 and 16, and the embeddings."""
        first = self.trunk.stem(image)
        if last < 4:
            return [first, *self.trunk.stages(first, last - 1)]
        *skips, x = [first, *self.trunk.stages(first)]
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(F.relu(x), skip)
        return [*skips[:3], x]


class _UpConvolution(nn.Module):
    """Transposed 3x3 convolution of stride 2, then the sum with features of the finer resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        # An output sums over 9 / 4 of the taps on average.
        nn.init.normal_(self.conv.weight, std=(2 / (inputs * 9 / 4)) ** 0.5)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x, output_size=list(skip.shape[-2:])))) + skip
