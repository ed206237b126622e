"""`best`: the parts of the other methods that measured best together.

What it is made of: stages of the networks of `anchors` and of `mast-mem` side by side, each the mean over the frame and
its mirror image, and two of the frame at twice its size beside them; the matching of `videomatch`, which asks of each
label by itself how well a cell matches it, in the first frame and in recent ones that are spaced as those of `mast-mem`
are; then the labels are brought from cells to pixels along the edges of the image.
docs/ablations.md has what each of these is worth, and what was left out.

No paper of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from vostrack.config import setting
from vostrack.device import autocast
from vostrack.matching.matcher import SoftMatcher
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.nets.encoders import BestNet, trunk_tensors
from vostrack.ops.color import normalised_lab, normalised_rgb
from vostrack.ops.hypercolumns import cell_features
from vostrack.weights import Adopt


@dataclass(frozen=True)
class BestConfig(SoftMatcherConfig, group="features"):
    """Settings of the propagation: those of `videomatch`, and one more."""

    stages: tuple[int, ...] = setting((1, 2, 3), "stages of the anchors network to take", choices=(1, 2, 3))
    fine_stages: tuple[int, ...] = setting((1, 2), choices=(1, 2, 3))
    views: int = 2
    mast_stages: tuple[int, ...] = setting(
        (1, 2), "stages of the mast-mem network to take beside these; empty for none", choices=(1, 2), empty=True
    )


class BestMethod(SoftMatcher):
    """Soft matching of features of two networks; masks follow the edges of the image."""

    name: ClassVar[str] = "best"
    paper: ClassVar[str] = "none; the parts of the others that measured best together"
    presets: ClassVar[Mapping[str, BestConfig]] = {"default": BestConfig()}
    nets: ClassVar[Mapping[str, Callable[[], BestNet]]] = {"default": BestNet}
    adopts: ClassVar[Mapping[str, Adopt]] = {
        "anchors": partial(trunk_tensors, stages=3, prefix="anchors."),
        "mast-mem": partial(trunk_tensors, stages=2, prefix="mast."),
    }
    objective: ClassVar[None] = None
    config: BestConfig

    def __init__(self, net: BestNet, config: BestConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        super().__init__(config or self.presets["default"])
        self.net = net

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages of each network, concatenated, and colours (C, h, w)."""
        # Colours are computed outside, where no rounding to bfloat16 reaches them.
        config, rgb, lab = self.config, normalised_rgb(image)[None], normalised_lab(image)[None]
        with autocast(config.precision, image.device):
            nets = self.net.anchors.scales(rgb, config.stages, config.fine_stages, config.views)
            if config.mast_stages:
                nets.append(self.net.mast.chosen_stages(lab, config.mast_stages, config.views))
        return cell_features(image, nets, config.stride, config.colour)
