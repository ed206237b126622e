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
from typing import ClassVar

from torch import Tensor

from vostrack.device import autocast
from vostrack.errors import MethodError
from vostrack.matching.matcher import SoftMatching
from vostrack.matching.settings import VideoMatchConfig
from vostrack.methods.base import Objective, Recipe
from vostrack.nets.encoders import BestNet
from vostrack.ops.color import normalised_lab, normalised_rgb
from vostrack.ops.hypercolumns import cell_features
from vostrack.weights import Adopt


@dataclass(frozen=True)
class BestConfig(VideoMatchConfig):
    """Settings of the propagation: those of `videomatch`, and one more.

    Attributes:
        stages: of the network of `anchors`, 1 to 3.
        fine_stages: of the same.
        views: of both networks.
        mast_stages: stages of the network of `mast-mem` beside them, 1 and 2; empty to leave it out.
    """

    views: int = 2
    mast_stages: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        if not set(self.stages) <= {1, 2, 3}:
            raise MethodError(f"stages must be among 1, 2, 3, not {self.stages}")
        if not set(self.fine_stages) <= {1, 2, 3}:
            raise MethodError(f"fine_stages must be among 1, 2, 3, not {self.fine_stages}")
        super().__post_init__()
        if not set(self.mast_stages) <= {1, 2}:
            raise MethodError(f"mast_stages must be among 1, 2, not {self.mast_stages}")


def _part(prefix: str, stages: int) -> Adopt:
    """What takes the first stages of a trunk for one of the two networks."""

    def adopt(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        beyond = tuple(f"trunk.layer{stage}." for stage in range(stages + 1, 5))
        trunk = {name: tensor for name, tensor in tensors.items() if name.startswith("trunk.")}
        return {f"{prefix}.{name}": tensor for name, tensor in trunk.items() if not name.startswith(beyond)}

    return adopt


class BestMethod(SoftMatching):
    """Soft matching of features of two networks, drawn along the edges of the image."""

    name: ClassVar[str] = "best"
    paper: ClassVar[str] = "none: the parts that measured best together"
    presets: ClassVar[Mapping[str, BestConfig]] = {"default": BestConfig()}
    nets: ClassVar[Mapping[str, Callable[[], BestNet]]] = {"default": BestNet}
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    adopts: ClassVar[Mapping[str, Adopt]] = {"anchors": _part("anchors", 3), "mast-mem": _part("mast", 2)}
    config: BestConfig

    def __init__(self, net: BestNet, config: BestConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        super().__init__(config or self.presets["default"])
        self.net = net

    @staticmethod
    def build_objective(net: BestNet, recipe: Recipe) -> Objective:
        """There is none: the networks are trained for the methods that they come from.

        Raises:
            MethodError: always.
        """
        raise MethodError("best has no objective of its own")

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages of each network, concatenated, and colours (C, h, w)."""
        # Colours are computed outside, where no rounding to bfloat16 reaches them.
        config, rgb, lab = self.config, normalised_rgb(image)[None], normalised_lab(image)[None]
        with autocast(config.precision, image.device):
            nets = self.net.anchors.scales(rgb, config.stages, config.fine_stages, config.views)
            if config.mast_stages:
                nets.append(self.net.mast.chosen_stages(lab, config.mast_stages, config.views))
        return cell_features(image, nets, config.stride, config.colour)
