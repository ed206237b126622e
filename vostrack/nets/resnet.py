"""The convolutional trunk that all encoders share: a ResNet whose depth, widths and strides are arguments.

Its parameters have torchvision's names, so that a state dict of its ResNet-18, 34, 50 or 101 fits as it is. Importing
torchvision takes as long as importing torch, for it brings a compiler along.
Source: He et al., "Deep Residual Learning for Image Recognition" (2016), table 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn


class Block(nn.Module, ABC):
    """Convolutions with batch normalisation, beside a shortcut.

    Attributes:
        expansion: output channels for each of the 3x3 convolution.
    """

    expansion: int
    relu: nn.ReLU

    def __init__(self, inputs: int, width: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        """Random weights.

        Args:
            inputs: channels.
            width: channels of the 3x3 convolutions.
            stride: of the first of these.
            downsample: brings the shortcut to the output's size; None where it has it.
        """
        super().__init__()
        self._build(inputs, width, stride)
        self.downsample = downsample

    @abstractmethod
    def _build(self, inputs: int, width: int, stride: int) -> None:
        """Make the layers."""

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, `inputs`, h, w) to (B, `expansion` * `width`, h', w')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.residual(x)
        out += shortcut
        return cast(Tensor, self.relu(out))


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def _build(self, inputs: int, width: int, stride: int) -> None:
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        """See `Block`."""
        return cast(Tensor, self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Bottleneck(Block):
    """A 3x3 convolution between two 1x1 ones."""

    expansion = 4

    def _build(self, inputs: int, width: int, stride: int) -> None:
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, self.expansion * width, 1)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.relu = nn.ReLU(inplace=True)

    def residual(self, x: Tensor) -> Tensor:
        """See `Block`."""
        inner = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return cast(Tensor, self.bn3(self.conv3(inner)))


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)


_BLOCKS: dict[int, tuple[type[Block], tuple[int, ...]]] = {
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


def _stage(block: type[Block], inputs: int, width: int, stride: int, count: int) -> nn.Sequential:
    shortcut, outputs = None, width * block.expansion
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    first = block(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, width) for _ in range(count - 1)))
