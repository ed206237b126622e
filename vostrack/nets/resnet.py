"""The convolutional trunk that all encoders share: a ResNet whose depth, widths and strides are arguments.

Built from torchvision's blocks, with torchvision's parameter names, so that a state dict of its ResNet-18, 34, 50 or
101 fits as it is.
Source: He et al., "Deep Residual Learning for Image Recognition" (2016), table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}

DEPTHS = tuple(_BLOCKS)
"""Layers that a ResNet may have."""


class ResNet(nn.Module):
    """ResNet without its classifier; gives the output of every stage that is asked for.

    Attributes:
        widths: channels that each stage gives out.
    """

    def __init__(
        self,
        depth: int = 18,
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[int] = (1, 2, 1, 1),
        pool: bool = True,
        stem: int = 64,
    ) -> None:
        """Build the trunk with random weights (He initialisation).

        Args:
            depth: layers, one of `DEPTHS`.
            widths: channels of the 3x3 convolutions of each stage, four at most; bottlenecks give out four times as
                many.
            strides: stride of the first block of each stage; the product, times 2 for the first convolution and 2 for
                the pooling, is the output stride.
            pool: whether a 3x3 max-pooling of stride 2 follows the first convolution.
            stem: channels of the first convolution.
        """
        super().__init__()
        block, counts = _BLOCKS[depth]
        self.widths = tuple(width * block.expansion for width in widths)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        inputs = (stem, *self.widths)
        for stage, (width, stride, count) in enumerate(zip(widths, strides, counts[: len(widths)], strict=True), 1):
            self.add_module(f"layer{stage}", _stage(block, inputs[stage - 1], width, stride, count))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, image: Tensor) -> Tensor:
        """First convolution and pooling (B, stem, h, w) of an image (B, 3, H, W), normalised as the weights expect."""
        return cast(Tensor, self.maxpool(self.relu(self.bn1(self.conv1(image)))))

    def forward(self, image: Tensor, stages: int = 4) -> list[Tensor]:
        """Features of the first `stages` stages.

        Args:
            image: (B, 3, H, W), normalised as the weights expect.
            stages: how many stages to run, from 1.

        Returns:
            One (B, C, h, w) per stage.
        """
        return self.stages(self.stem(image), stages)

    def stages(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        """The same from what `stem` gives."""
        features: list[Tensor] = []
        for stage in range(1, stages + 1):
            x = cast(Tensor, self.get_submodule(f"layer{stage}")(x))
            features.append(x)
        return features


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, width: int, stride: int, count: int) -> nn.Sequential:
    shortcut, outputs = None, width * block.expansion
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    first = block(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, width) for _ in range(count - 1)))
