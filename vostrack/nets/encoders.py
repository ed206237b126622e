"""The networks that the methods encode frames with, and how they are run: over mirror images, and folded for speed.

Parameter names are those of the shipped weights. Letters: B batch, C channels, H W image pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vostrack.device import autocast
from vostrack.nets.resnet import ResNet
from vostrack.ops.grid import resize

VIEWS: dict[int, tuple[tuple[int, ...], ...]] = {1: (), 2: ((3,),), 4: ((3,), (2,), (2, 3))}
"""How many images the mean is over, and along which dimensions the others than the frame itself are mirrored."""


class StagedNet(nn.Module):
    """A network whose stages are matched.

    Attributes:
        stage_strides: pixels from cell to cell of each stage.
        trunk: gives the stages, where a network does not say otherwise.
    """

    stage_strides: tuple[int, ...]
    trunk: ResNet

    def stages(self, image: Tensor, last: int) -> list[Tensor]:
        """Outputs (B, C, h, w) of the first `last` stages of an image (B, 3, H, W), normalised as for the weights."""
        return cast(list[Tensor], self.trunk(image, last))

    def chosen_stages(
        self, image: Tensor, numbers: Sequence[int], views: int = 1, precision: str = "32"
    ) -> list[tuple[Tensor, int]]:
        """Some of the stages, in 32 bits, each with its stride in pixels.

        Args:
            image: as for `stages`.
            numbers: of the stages, from 1.
            views: images that they are the mean over, one of `VIEWS`.
            precision: that the network computes in, as for `device.autocast`.
        """
        strides = tuple(self.stage_strides[number - 1] for number in numbers)

        def chosen(seen: Tensor) -> list[Tensor]:
            stages = self.stages(seen, max(numbers))
            return [stages[number - 1] for number in numbers]

        with autocast(precision, image.device):
            found = mean_over_views(chosen, image, strides, views)
        return list(zip(found, strides, strict=True))

    def scales(
        self, image: Tensor, numbers: Sequence[int], fine: Sequence[int], views: int, precision: str
    ) -> Iterator[list[tuple[Tensor, int]]]:
        """What `chosen_stages` gives for an image and, if any are wanted, for the image at twice its size.

        Cells of the larger image lie half as far apart, and see half as far. One after the other, since stages take
        much memory.

        Args:
            image: as for `stages`.
            numbers: stages of the image, from 1.
            fine: stages of the larger image; may be empty.
            views, precision: as for `chosen_stages`.
        """
        yield self.chosen_stages(image, numbers, views, precision)
        if fine:
            height, width = image.shape[-2:]
            # Corner pixels stay where they are, and with them the cells: pixel i becomes pixel 2 * i.
            larger = resize(image, (2 * height - 1, 2 * width - 1), corners=True)
            yield [(stage, stride // 2) for stage, stride in self.chosen_stages(larger, fine, views, precision)]


class AnchorsNet(StagedNet):
    """ResNet-18 at stride 8 with a projection head that only training uses.

    Paper: Araslanov et al. (2021), section 4, implementation details.
    """

    stage_strides = (4, 8, 8, 8)
    key_channels = 128

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.trunk = ResNet(strides=(1, 2, 1, 1))
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
    return ResNet(widths=(64, 128, 256, 256)[:depth], strides=(1, 2, 1, 1)[:depth], pool=False)


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


class MomentumNet(MastNet):
    """Two encoders of one kind: itself for the query, and another one for the frames that it attends to.

    Paper: Zhu et al. (2020), Eq. 5.

    Attributes:
        references: the other one.
    """

    def __init__(self, depth: int = 4) -> None:
        """Random weights, different ones; `depth` as for `MastNet`."""
        super().__init__(depth)
        self.references = MastNet(depth)


_REFERENCES = "references."


def both_encoders(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `MomentumNet` from those of a `MastNet`, which both encoders start as."""
    if any(name.startswith(_REFERENCES) for name in tensors):
        return dict(tensors)
    return {**tensors, **{_REFERENCES + name: tensor for name, tensor in tensors.items()}}


class FirstStages(StagedNet):
    """The first stages of another network, without what follows them."""

    def __init__(self, trunk: ResNet, stage_strides: tuple[int, ...]) -> None:
        """Take a trunk that ends after these stages, and the pixels from cell to cell of each."""
        super().__init__()
        self.trunk, self.stage_strides = trunk, stage_strides


class BestNet(nn.Module):
    """The stages of two networks that `best` matches; the stages after them, and heads, are left out.

    Attributes:
        anchors: learned to know things again; takes RGB as `normalised_rgb` gives it.
        mast: learned where things go from frame to frame, on a finer grid; takes L*a*b* as `normalised_lab` gives it.
    """

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.anchors = FirstStages(ResNet(widths=(64, 128, 256), strides=(1, 2, 1)), AnchorsNet.stage_strides[:3])
        self.mast = FirstStages(_mast_trunk(2), MastNet.stage_strides[:2])


class VideoMatchNet(StagedNet):
    """ResNet at stride 8 without a head: its stages are what is matched.

    Paper: VideoMatch (Hu et al., 2018), section 4.1: 101 layers, dilated.
    Differs: the shipped weights have 18 layers.
    """

    stage_strides = (4, 8, 8, 8)

    def __init__(self, dilated: bool = False, depth: int = 18) -> None:
        """Random weights.

        Args:
            dilated: whether the 3x3 convolutions of stages 3 and 4 are dilated, which keeps the reach that they have in
                a ResNet of stride 32, as published. Weights that were trained without it need it to be off.
            depth: layers, one of `resnet.DEPTHS`.
        """
        super().__init__()
        self.trunk = ResNet(depth, strides=(1, 2, 1, 1))
        if dilated:
            _dilate(self.trunk.get_submodule("layer3"), first=1, others=2)
            _dilate(self.trunk.get_submodule("layer4"), first=2, others=4)

    @property
    def last_block(self) -> nn.Module:
        """The last residual block, whose output is the last stage."""
        return cast(nn.Sequential, self.trunk.get_submodule("layer4"))[-1]

    def before_last(self, image: Tensor) -> Tensor:
        """What the last block takes (B, C, h, w), of an image as for `stages`."""
        last = cast(nn.Sequential, self.trunk.get_submodule("layer4"))
        return cast(Tensor, last[:-1](self.trunk(image, 3)[-1]))


def _dilate(stage: nn.Module, first: int, others: int) -> None:
    """Dilate the first 3x3 convolution of a stage, whose stride was taken away, and those after it."""
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d) and module.padding == (1, 1)]
    for index, convolution in enumerate(convolutions):
        dilation = others if index else first
        convolution.dilation = convolution.padding = (dilation, dilation)


def mean_over_views(
    stages: Callable[[Tensor], list[Tensor]], image: Tensor, strides: tuple[int, ...], views: int
) -> list[Tensor]:
    """Outputs of a network for an image, each the mean over the image's views, in 32 bits.

    What a network says of a cell depends on which way things face, by chance of how it learned: the mean over mirror
    images does not.

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
    means = [stage.to(torch.float32, copy=views > 1) for stage in stages(image)]
    for dims in VIEWS[views]:
        seen = stages(_continued(image, dims, max(strides)).flip(dims))
        for total, stage in zip(means, seen, strict=True):
            total.add_(stage.flip(dims)[..., : total.shape[2], : total.shape[3]])
    if views > 1:  # else they may be the network's own outputs
        for total in means:
            total.div_(views)
    return means


def _continued(image: Tensor, dims: tuple[int, ...], stride: int) -> Tensor:
    """The image with its border repeated below and at the right, as far as mirroring along `dims` needs it."""
    below, right = ((1 - image.shape[dim]) % stride if dim in dims else 0 for dim in (2, 3))
    return F.pad(image, (0, right, 0, below), mode="replicate")


def for_inference(net: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolutions before it, and lay weights out as the fast kernels want them.

    Args:
        net: with its final weights; changed in place. It cannot be trained or saved afterwards.

    Returns:
        The same network, in evaluation mode.
    """
    net.eval()
    for parent in list(net.modules()):
        for (name, child), (following, norm) in pairwise(list(parent.named_children())):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(child, norm))
                setattr(parent, following, nn.Identity())
    return net.requires_grad_(False).to(memory_format=torch.channels_last)


def trunk_tensors(tensors: Mapping[str, Tensor], stages: int = 4, prefix: str = "") -> dict[str, Tensor]:
    """What another network takes over of the tensors of one: those of its trunk's first stages, with a prefix."""
    beyond = tuple(f"trunk.layer{stage}." for stage in range(stages + 1, 5))
    trunk = {name: tensor for name, tensor in tensors.items() if name.startswith("trunk.")}
    return {prefix + name: tensor for name, tensor in trunk.items() if not name.startswith(beyond)}
