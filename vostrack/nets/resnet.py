"""The convolutional trunk that all encoders share: a ResNet of basic blocks whose strides are arguments.

Built from torchvision's `BasicBlock`, with torchvision's parameter names, so that a ResNet-18 state dict fits as it is.
Source: He et al., "Deep Residual Learning for Image Recognition" (2016), table 1, 18 layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

_BLOCKS = 2


class ResNet18(nn.Module):
    """ResNet-18 without its classifier; gives the output of every stage that is asked for.

    Attributes:
        widths: channels of the four stages.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[int] = (1, 2, 1, 1),
        pool: bool = True,
    ) -> None:
        """Build the trunk with random weights (He initialisation).

        Args:
            widths: channels of the four stages.
            strides: stride of the first block of each stage; the product, times 2 for the first convolution and 2 for
                the pooling, is the output stride.
            pool: whether a 3x3 max-pooling of stride 2 follows the first convolution.
        """
        super().__init__()
        self.widths = tuple(widths)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        inputs = (64, *self.widths)
        for stage, (width, stride) in enumerate(zip(self.widths, strides, strict=True), 1):
            self.add_module(f"layer{stage}", _stage(inputs[stage - 1], width, stride))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor, stages: int = 4) -> list[Tensor]:
        """Features of the first `stages` stages.

        Args:
            image: (B, 3, H, W), normalised as the weights expect.
            stages: how many stages to run, 1 to 4.

        Returns:
            One (B, C, h, w) per stage.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        features: list[Tensor] = []
        for stage in range(1, stages + 1):
            x = cast(Tensor, self.get_submodule(f"layer{stage}")(x))
            features.append(x)
        return features


def _stage(inputs: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != width:
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(_BLOCKS - 1)))
