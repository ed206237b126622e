"""`videomatch`: cells are matched with what is known of an object and of its background.

Paper: Hu, Huang, Schwing, "VideoMatch: Matching based Video Object Segmentation" (ECCV 2018).

Each cell of a frame is compared with the cells of the object and with those of the background in the given frame; the
mean of its K highest similarities with either goes into a two-way softmax. What is far from the object's last place is
removed. Sure cells of the object and removed ones are added to the two sets.

Differs: the preset `paper` has the published settings; the shipped weights are of a smaller network, and fine-tuning is
that of its last block, since a frame is encoded once and for all clips alike. `default` matches early and middle stages
and the cells' colours on a grid of stride 4, two stages of the frame at twice its size beside them, projected to the
principal axes of the first frame; masks follow the edges of the image (`ops.guided`); it matches cells
around the same place in recent frames as well (`matching.recent`) instead of adding sure cells to the
foreground, and objects are no background to each other, but compete. Outliers are removed and masks eroded on the grid
of cells; an object that is out of sight may move on with each frame; by default small sets take a smaller K; the sets
are bounded; a later mask is one more template, and added features are dropped then, since they come from predictions
that the mask may correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from vostrack.matching.matcher import SoftMatcher
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods.objectives.videomatch import LAST, VideoMatchObjective
from vostrack.nets.encoders import VideoMatchNet, trunk_tensors
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import size_of, to_pixels
from vostrack.ops.hypercolumns import cell_features
from vostrack.weights import Adopt

PAPER = SoftMatcherConfig(
    stages=LAST.stages,
    fine_stages=(),
    stride=LAST.stride,
    colour=0,
    axes=0,
    scale=LAST.scale,
    top_k=LAST.top_k,
    top_share=LAST.top_share,
    template=0,
    context=0,
    others_are_background=True,
    background_update=True,
    foreground_update=True,
    foreground_threshold=0.4,
    edge_radius=0,
    precision="32",
)


class VideoMatchMethod(SoftMatcher):
    """Soft matching with the foreground and the background of each object."""

    name: ClassVar[str] = "videomatch"
    paper: ClassVar[str] = "VideoMatch: Matching based Video Object Segmentation (2018)"
    presets: ClassVar[Mapping[str, SoftMatcherConfig]] = {"default": SoftMatcherConfig(), "paper": PAPER}
    nets: ClassVar[Mapping[str, Callable[[], VideoMatchNet]]] = {
        "default": VideoMatchNet,
        "dilated": partial(VideoMatchNet, dilated=True),
        "resnet101-dilated": partial(VideoMatchNet, dilated=True, depth=101),
    }
    adopts: ClassVar[Mapping[str, Adopt]] = {"anchors": trunk_tensors}
    objective: ClassVar[type[VideoMatchObjective]] = VideoMatchObjective

    def __init__(self, net: VideoMatchNet, config: SoftMatcherConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        super().__init__(config or SoftMatcherConfig())
        self.net = net

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages at each scale, concatenated, and colours (C, h, w).

        Where the last block is fitted to each clip, what it takes: `described` runs it with the clip's weights.
        """
        config, seen = self.config, normalised_rgb(image)[None]
        if config.finetune_part == "block":
            return self.net.before_last(seen)[0]
        scales = self.net.scales(seen, config.stages, config.fine_stages, config.views, config.precision)
        return cell_features(image, scales, config.stride, config.colour)

    def block(self) -> tuple[Tensor, ...]:
        """Weights of the last block, where it is fitted to each clip."""
        if self.config.finetune_part != "block":
            return ()
        return tuple(w.detach().clone(memory_format=torch.contiguous_format) for w in self.net.last_block.parameters())

    def described(self, features: Tensor, block: Sequence[Tensor]) -> Tensor:
        """As for `SoftMatcher`; unit vectors of what the last block makes of them, if it has weights of the clip."""
        if not block:
            return features
        names = (name for name, _ in self.net.last_block.named_parameters())
        found: Tensor = functional_call(self.net.last_block, dict(zip(names, block, strict=True)), (features[None],))
        return F.normalize(found, dim=1)[0]

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels; without `edge_radius` of the weighted matching scores, then softmax.

        The logarithms of a cell's probabilities are its weighted scores less one number for all channels. Interpolation
        keeps it one number for all, and the softmax drops it: scores are enlarged first, as published.
        """
        if self.config.edge_radius:
            return super().enlarge(probs, image)
        smallest = torch.finfo(probs.dtype).tiny
        return to_pixels(probs.clamp(min=smallest).log(), self.stride, size_of(image)).softmax(0)
