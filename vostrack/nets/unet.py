"""U-Net with a ResNet-18 as its contracting half: an image in, the score of each label channel at each pixel out.

Knows nothing of what it is trained on. Its random weights come from a generator, so that nobody else's are disturbed.
Source: Ronneberger et al., "U-Net" (2015), figure 1; Zhu et al., "Self-supervised Video Object Segmentation" (2020),
appendix A, which asks for "a standard U-Net structure with ResNet-18 as the backbone encoder" and says no more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.nets.resnet import ResNet
from vostrack.ops.grid import cells
from vostrack.ops.labels import add_channels

STRIDE = 32

WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the expanding half, at strides 16, 8, 4, 2 and 1."""


class UNet(nn.Module):
    """Scores of label channels.

    The contracting half halves the resolution five times. The expanding half doubles it five times, joins the features
    of the same resolution, and convolves twice.

    Differs: from Ronneberger et al., convolutions are padded, so that nothing is cropped, and batch normalisation
        follows each. Features are repeated instead of up-convolved; that has no weights of its own and, unlike bilinear
        interpolation, adds up gradients in a fixed order on every device. The last stage has nothing to join, since
        the first convolution of a ResNet halves the resolution already.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        """Random weights (He initialisation).

        Args:
            count: K, label channels.
            generator: the only source of randomness, on the CPU.
        """
        super().__init__()
        with torch.device("meta"):  # where the layers' own initialisation takes no random numbers
            self.trunk = ResNet(strides=(1, 2, 2, 2))
            below = (self.trunk.widths[-1], *WIDTHS)
            beside = (*self.trunk.widths[-2::-1], self.trunk.conv1.out_channels, 0)
            self.up = nn.ModuleList(
                _Expand(inputs + joined, width) for (inputs, width), joined in zip(pairwise(below), beside, strict=True)
            )
            self.head = nn.Conv2d(WIDTHS[-1], count, 1)
        self.to_empty(device="cpu")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        """Scores before the softmax.

        Args:
            image: (B, 3, H, W) of any size, normalised as `normalised_rgb` does it. Training a single image needs a
                side above 32 pixels, since one value a channel cannot be normalised.

        Returns:
            (B, K, H, W).
        """
        height, width = image.shape[-2:]
        rows, columns = cells((height, width), STRIDE)
        padding = (0, columns * STRIDE - width, 0, rows * STRIDE - height)
        trunk = self.trunk
        first = trunk.relu(trunk.bn1(trunk.conv1(F.pad(image, padding, mode="replicate"))))
        *joined, x = [first, *trunk.stages(trunk.maxpool(first))]
        for up, beside in zip(self.up, [*reversed(joined), None], strict=True):
            x = up(x, beside)
        return cast(Tensor, self.head(x))[..., :height, :width]

    def grow(self, count: int) -> None:
        """Append label channels that score 0 everywhere; the scores of the others stay as they are.

        Args:
            count: K' >= K.
        """
        self.head.out_channels = count
        for name in ("weight", "bias"):
            grown = add_channels(self.head.get_parameter(name).detach(), count)
            self.head.register_parameter(name, nn.Parameter(grown))


class _Expand(nn.Module):
    """One step of the expanding half."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(inputs, width), _convolution(width, width)

    def forward(self, x: Tensor, beside: Tensor | None) -> Tensor:
        """(B, C, h, w) and, where there are any, features (B, C', 2h, 2w) to join -> (B, width, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if beside is not None:
            x = torch.cat((x, beside), 1)
        return cast(Tensor, self.second(self.first(x)))


def _convolution(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )
