"""`anchors`: dense features trained against anchors; labels follow their nearest neighbours in feature space.

Paper: Araslanov, Schaub-Meyer, Roth, "Dense Unsupervised Learning for Video Segmentation" (NeurIPS 2021). Its label
propagation is that of Jabri et al. (`methods.neighbours`).

Differs: the preset `paper` is the published procedure (last stage, stride 8, copies of the first frame fill the context
until enough frames have passed). The preset `default` uses early and middle stages and the cells' colours on a grid of
stride 4, projected to the 128 principal axes of the first frame, which are centred and whitened within each object, no
repeated frames, every second of the last frames, a wider search among fewer cells where cells are far, and a grid that
lies where the convolutions centre it: docs/ablations.md has what these are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vostrack.methods.anchors_training import RECIPES, AnchorsObjective
from vostrack.methods.base import Recipe
from vostrack.methods.neighbours import NeighbourConfig, NeighbourMethod
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.hypercolumns import describe
from vostrack.ops.precision import quick_convolutions
from vostrack.weights import Adopt


@dataclass(frozen=True)
class AnchorsConfig(NeighbourConfig):
    """Settings of the features and the propagation, as `NeighbourConfig` lists them."""


PAPER = AnchorsConfig(
    stages=(4,),
    stride=8,
    colour=0,
    channels=0,
    context=20,
    spacing=1,
    repeat_first=True,
    radius=12,
    reach=0,
    first_radius=0,
    first_reach=0,
    precision="32",
    corners=True,
)


class AnchorsMethod(NeighbourMethod):
    """Label propagation by nearest neighbours among dense features."""

    name: ClassVar[str] = "anchors"
    paper: ClassVar[str] = "Dense Unsupervised Learning for Video Segmentation (2021)"
    presets: ClassVar[Mapping[str, AnchorsConfig]] = {"default": AnchorsConfig(), "paper": PAPER}
    nets: ClassVar[Mapping[str, Callable[[], AnchorsNet]]] = {"default": AnchorsNet}
    recipes: ClassVar[Mapping[str, Recipe]] = RECIPES
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    build_objective: ClassVar[type[AnchorsObjective]] = AnchorsObjective

    def __init__(self, net: AnchorsNet, config: AnchorsConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or self.presets["default"]

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages, concatenated, and colours (C, h, w)."""
        config = self.config
        with quick_convolutions(config.precision, image.device):
            stages = self.net.chosen_stages(normalised_rgb(image)[None], config.stages)
        return describe(image, [stages], config.stride, config.colour)
