"""The networks of RPM-Net: an embedding module, and a matching module that finds where each cell came from.

The embedding module is fully convolutional: a ResNet halves the image six times, and four up-convolutions, each of
which adds the features of its own resolution, lead back to stride 4. The convolutions of the matching module give a
field of offsets; the last, parameter-free deformable convolution (`warp`) reads any map of the reference frame there:
its colours in training, the maps of its objects in use.
Source: RPM-Net (Kim et al., "Robust Pixel-Level Matching Networks for Self-Supervised Video Object Segmentation",
2020), sections 3.2 and 3.3, table 1 of the supplement; Long et al., "Fully Convolutional Networks" (2015); Dai et al.,
"Deformable Convolutional Networks" (2017).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.nets.encoders import StagedNet
from vostrack.nets.resnet import ResNet
from vostrack.ops.grid import centres, sample_cells

CHANNELS = 32

# Gaussian, as published, and narrow: sampling starts out near each cell's own place.
_OFFSET_STD = 0.01

_WIDTHS = {1: (2,), 3: (32, 16, 2), 5: (32, 32, 16, 16, 2)}


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


class RpmNet(StagedNet):
    """Embedding and matching module. Its stages are the maps of the embedding module: `Fcn.maps`.

    Paper: RPM-Net, section 3.1 and figure 3.
    """

    stride = Fcn.stride
    stage_strides = (4, 8, 16, Fcn.stride)

    def __init__(self, depth: int = 18, deformable: bool = True, layers: int = 3, dilation: int = 1) -> None:
        """Random weights.

        Args:
            depth: layers of the embedding's ResNet, one of `resnet.DEPTHS`.
            deformable: whether the matching module samples where it likes, or on a fixed grid as in the ablation.
            layers: 3x3 convolutions of the matching module, 1, 3 or 5.
            dilation: cells between the taps of a fixed grid.
        """
        super().__init__()
        self.embedding = Fcn(depth)
        self.matching = Matching(deformable, layers, dilation)

    def embed(self, image: Tensor) -> Tensor:
        """Embeddings (B, 32, h, w) of an image (B, 3, H, W) normalised as `normalised_rgb` does."""
        return cast(Tensor, self.embedding(image))

    def stages(self, image: Tensor, last: int) -> list[Tensor]:
        """As in `StagedNet`; the image is normalised as for `embed`."""
        return self.embedding.maps(image, last)

    def match(self, reference: Tensor, target: Tensor) -> Tensor:
        """Offsets (B, 2, h, w), y then x in cells, from each cell of the target to its match in the reference.

        Args:
            reference: embeddings (B, 32, h, w).
            target: the same shape.

        Paper: RPM-Net, Eq. 5 and 6.
        """
        return cast(Tensor, self.matching(torch.cat((reference, target), 1)))


class Matching(nn.Module):
    """3x3 convolutions from two concatenated embeddings to offsets.

    Paper: RPM-Net, table 1, layers 106 to 108, and table 2 of the supplement for what it is compared with.
    Differs: No batch normalisation or ReLU follows the last layer, since offsets have a sign. Channels of the modules
        with one and five layers, which the paper does not state, are 2 and 32, 32, 16, 16, 2.
    """

    def __init__(self, deformable: bool = True, layers: int = 3, dilation: int = 1) -> None:
        """Random weights; arguments as for `RpmNet`."""
        super().__init__()
        widths = (2 * CHANNELS, *_WIDTHS[layers])
        self.layers = nn.ModuleList(
            _Layer(widths[i], widths[i + 1], deformable, dilation, last=i == layers - 1) for i in range(layers)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Offsets (B, 2, h, w) of concatenated embeddings (B, 64, h, w)."""
        for layer in self.layers:
            features = layer(features)
        return features

    def taps(self, features: Tensor) -> list[Tensor]:
        """Where each layer samples its input: (B, 9, 2, h, w) a layer, y then x in cells, relative to the cell."""
        taps = []
        for layer in self.layers:
            taps.append(cast(_Layer, layer).taps(features))
            features = layer(features)
        return taps


class _Layer(nn.Module):
    """One 3x3 convolution with what follows it."""

    def __init__(self, inputs: int, outputs: int, deformable: bool, dilation: int, last: bool) -> None:
        super().__init__()
        self.offset = nn.Conv2d(inputs, 18, 3, padding=1) if deformable else None
        conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=last)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        for module in (self.offset, conv if last else None):
            if module is not None and module.bias is not None:
                nn.init.normal_(module.weight, std=_OFFSET_STD)
                nn.init.zeros_(module.bias)
        # A child of its own, so that folding does not take the norm for that of `offset`.
        self.conv = nn.Sequential(conv, *([] if last else [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]))

    def forward(self, x: Tensor) -> Tensor:
        if self.offset is None:
            return cast(Tensor, self.conv(x))
        conv = cast(nn.Conv2d, self.conv[0])
        out = deform_conv(x, self.taps(x), conv.weight, conv.bias)
        for module in self.conv[1:]:
            out = module(out)
        return out

    def taps(self, x: Tensor) -> Tensor:
        """(B, 9, 2, h, w): see `Matching.taps`."""
        dilation = cast(nn.Conv2d, self.conv[0]).dilation[0]
        grid = (centres((3, 3), x.device).to(x.dtype) - 1) * dilation
        grid = grid.view(1, 9, 2, 1, 1).expand(len(x), -1, -1, *x.shape[-2:])
        return grid if self.offset is None else grid + self.offset(x).view(len(x), 9, 2, *x.shape[-2:])


def deform_conv(x: Tensor, taps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Deformable convolution: a weighted sum of what lies at each cell's taps.

    The formula of `torchvision.ops.deform_conv2d`, whose backward pass takes six times as long on a CPU.

    Args:
        x: (B, C, h, w).
        taps: (B, 9, 2, h, w), y then x in cells, relative to the cell.
        weight: (C', C, 3, 3).
        bias: (C',).

    Returns:
        (B, C', h, w).

    Paper: RPM-Net, Eq. 2 to 4; Dai et al. (2017), Eq. 2 to 4.
    """
    height, width = x.shape[-2:]
    # float: sums with integers would keep the half precision that training may run in, too coarse for places.
    own = centres((height, width), x.device).permute(2, 0, 1).float()
    places = (taps + own).transpose(1, 2).flatten(2, 3)
    columns = sample_cells(x, places).view(len(x), -1, height, width)
    return F.conv2d(columns, weight.flatten(1)[:, :, None, None], bias)


def warp(x: Tensor, offsets: Tensor, border: bool = False) -> Tensor:
    """Read a map at each cell's own place plus an offset, bilinearly.

    This is the last deformable convolution, 1x1 with fixed weights of 1.

    Args:
        x: (B, K, h, w).
        offsets: (B, 2, h, w), y then x, in cells.
        border: whether the map's border is continued outside; else it is zero there, as published.

    Returns:
        (B, K, h, w).

    Paper: RPM-Net, Eq. 2 to 4, 7 and 8.
    Differs: Each channel is read for itself; weights of 1 between all channels would add them up.
    """
    own = centres((x.shape[-2], x.shape[-1]), x.device).permute(2, 0, 1).float()
    return sample_cells(x, offsets + own, border)


def receptive_field(taps: list[Tensor], cells: Tensor) -> list[Tensor]:
    """The places whose features decide on the output of some cells.

    A tap between cells sees through the bilinear interpolation of the taps of the layer before.

    Args:
        taps: (1, 9, 2, h, w) a layer, first to last, from `Matching.taps`.
        cells: (N, 2), y then x.

    Returns:
        For each cell (P, 2) different places, y then x in cells: 9³ with three deformable layers.

    Paper: RPM-Net, section 4.5 ("sample locations"); Dai et al. (2017), figure 6.
    """
    fields = []
    for cell in cells:
        places = cell[None]
        for layer in reversed(taps):
            read = sample_cells(layer.flatten(1, 2), places.T[None, :, :, None], border=True)[0, :, :, 0]
            places = (places + read.view(9, 2, -1).permute(0, 2, 1)).flatten(0, 1).unique(dim=0)
        fields.append(places)
    return fields
