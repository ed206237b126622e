"""The networks that the methods encode frames with; their parameter names are those of the shipped weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.nets.resnet import ResNet, ResNet18
from vostrack.nets.views import mean_over_views
from vostrack.ops.grid import resize


class StagedNet(nn.Module):
    """A network whose stages are matched.

    Attributes:
        stage_strides: pixels from cell to cell of each stage.
        trunk: gives the stages, where a network does not say otherwise.
    """

    stage_strides: ClassVar[tuple[int, ...]]
    trunk: ResNet

    def stages(self, image: Tensor, last: int) -> list[Tensor]:
        """Outputs (B, C, h, w) of the first `last` stages of an image (B, 3, H, W), normalised as for the weights."""
        return cast(list[Tensor], self.trunk(image, last))

    def chosen_stages(self, image: Tensor, numbers: Sequence[int], views: int = 1) -> list[tuple[Tensor, int]]:
        """Some of the stages, in 32 bits, each with its stride in pixels.

        Args:
            image: as for `stages`.
            numbers: of the stages, from 1.
            views: images that they are the mean over (`nets.views`).
        """
        strides = tuple(self.stage_strides[number - 1] for number in numbers)

        def chosen(seen: Tensor) -> list[Tensor]:
            stages = self.stages(seen, max(numbers))
            return [stages[number - 1] for number in numbers]

        return list(zip(mean_over_views(chosen, image, strides, views), strides, strict=True))

    def scales(
        self, image: Tensor, numbers: Sequence[int], fine: Sequence[int], views: int
    ) -> list[list[tuple[Tensor, int]]]:
        """What `chosen_stages` gives for an image and, if any are wanted, for the image at twice its size.

        Cells of the larger image lie half as far apart, and see half as far.

        Args:
            image: as for `stages`.
            numbers: stages of the image, from 1.
            fine: stages of the larger image; may be empty.
            views: as for `chosen_stages`.
        """
        found = [self.chosen_stages(image, numbers, views)]
        if fine:
            height, width = image.shape[-2:]
            # Corner pixels stay where they are, and with them the cells: pixel i becomes pixel 2 * i.
            larger = resize(image, (2 * height - 1, 2 * width - 1), corners=True)
            found.append([(stage, stride // 2) for stage, stride in self.chosen_stages(larger, fine, views)])
        return found


class AnchorsNet(StagedNet):
    """ResNet-18 at stride 8 with a projection head that only training uses.

    Paper: Araslanov et al. (2021), section 4, implementation details.
    """

    stage_strides = (4, 8, 8, 8)
    key_channels = 128

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.trunk = ResNet18(strides=(1, 2, 1, 1))
        width = self.trunk.widths[-1]
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, self.key_channels, 1),
        )

    def key(self, image: Tensor) -> Tensor:
        """Unit vectors (B, 128, h, w) of such an image, for training."""
        return F.normalize(self.head(self.trunk(image)[-1]), dim=1)


def _mast_trunk(depth: int) -> ResNet:
    """The first stages of the trunk of `MastNet`."""
    return ResNet18(widths=(64, 128, 256, 256)[:depth], strides=(1, 2, 1, 1)[:depth], pool=False)


class MastNet(StagedNet):
    """ResNet-18 variant at stride 4 (no pooling, 256 channels at most) and a projection to 64 channels.

    Paper: MAST (Lai et al., 2020), section 4.2; Zhu et al. (2020), section 4.1.
    """

    stride = 4
    stage_strides = (2, 4, 4, 4)
    key_channels = 64

    def __init__(self, depth: int = 4) -> None:
        """Random weights.

        Args:
            depth: stages of the trunk, from 2; the projection follows the last one. Two cost a fifth of all four.
        """
        super().__init__()
        self.depth = depth
        self.trunk = _mast_trunk(depth)
        self.head = nn.Conv2d(self.trunk.widths[-1], self.key_channels, 3, padding=1)

    def forward(self, lab: Tensor) -> Tensor:
        """Keys (B, 64, h, w) of an image (B, 3, H, W) in L*a*b* as `normalised_lab` gives it."""
        return cast(Tensor, self.head(self.trunk(lab, self.depth)[-1]))


class PartOfAnchorsNet(StagedNet):
    """The first three stages of `AnchorsNet`."""

    stage_strides = AnchorsNet.stage_strides[:3]

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.trunk = ResNet18(widths=(64, 128, 256), strides=(1, 2, 1))


class PartOfMastNet(StagedNet):
    """The first two stages of `MastNet`, which cost a fifth of all four."""

    stage_strides = MastNet.stage_strides[:2]

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.trunk = _mast_trunk(2)


class BestNet(nn.Module):
    """The stages of two networks that `best` matches; the stages after them, and heads, are left out.

    Attributes:
        anchors: learned to know things again; takes RGB as `normalised_rgb` gives it.
        mast: learned where things go from frame to frame, on a finer grid; takes L*a*b* as `normalised_lab` gives it.
    """

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.anchors = PartOfAnchorsNet()
        self.mast = PartOfMastNet()


class VideoMatchNet(StagedNet):
    """ResNet-18 at stride 8 without a head: its stages are what is matched.

    Paper: VideoMatch (Hu et al., 2018), section 4.1.
    Differs: 18 layers instead of 101.
    """

    stage_strides = (4, 8, 8, 8)

    def __init__(self, dilated: bool = False) -> None:
        """Random weights.

        Args:
            dilated: whether the 3x3 convolutions of stages 3 and 4 are dilated, which keeps the reach that they have in
                a ResNet of stride 32, as published. Weights that were trained without it need it to be off.
        """
        super().__init__()
        self.trunk = ResNet18(strides=(1, 2, 1, 1))
        if dilated:
            _dilate(self.trunk.get_submodule("layer3"), first=1, others=2)
            _dilate(self.trunk.get_submodule("layer4"), first=2, others=4)


def _dilate(stage: nn.Module, first: int, others: int) -> None:
    """Dilate the first 3x3 convolution of a stage, whose stride was taken away, and those after it."""
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d) and module.padding == (1, 1)]
    for index, convolution in enumerate(convolutions):
        dilation = others if index else first
        convolution.dilation = convolution.padding = (dilation, dilation)
