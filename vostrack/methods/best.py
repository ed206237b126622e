"""`best`: the parts of the other methods that measured best together.

What it is made of: the network and the dense features of `anchors`, its vote of the most similar cells, and a memory of
frames that are spaced as those of `mast-mem` are; then the labels are brought from cells to pixels along the edges of
the image (`ops.guided`). docs/ablations.md has what each of these is worth, and what was left out.

No paper of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vostrack.errors import MethodError
from vostrack.methods.anchors import AnchorsConfig, AnchorsMethod
from vostrack.ops.grid import size_of
from vostrack.ops.guided import guided
from vostrack.weights import Adopt

_SHORT_SIDE = 480
"""The edges' radius is in pixels of a frame with this short side."""


@dataclass(frozen=True)
class BestConfig(AnchorsConfig):
    """Settings of the propagation: those of `anchors`, and two of the edges.

    Attributes:
        edge_radius: half the side of the squares in which labels follow the luminance, in pixels of a frame whose short
            side has 480; 0 leaves the edges alone.
        edge_contrast: standard deviation of the luminance, as a share of white, below which a square counts as flat.
    """

    edge_radius: int = 4
    edge_contrast: float = 0.01

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        super().__post_init__()
        if not 0 <= self.edge_radius <= 64:
            raise MethodError(f"best: edge_radius must be from 0 to 64, not {self.edge_radius}")
        if not 0 < self.edge_contrast <= 1:
            raise MethodError(f"best: edge_contrast must be above 0 and at most 1, not {self.edge_contrast}")


def _same(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return tensors


class BestMethod(AnchorsMethod):
    """Label propagation by nearest neighbours among dense features, along the edges of the image."""

    name: ClassVar[str] = "best"
    paper: ClassVar[str] = "none: the parts that measured best together"
    presets: ClassVar[Mapping[str, BestConfig]] = {"default": BestConfig()}
    adopts: ClassVar[Mapping[str, Adopt]] = {"anchors": _same}
    config: BestConfig

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels, then along the edges of the image (He et al., "Guided Image Filtering")."""
        pixels, config = super().enlarge(probs, image), self.config
        if not config.edge_radius:
            return pixels
        radius = max(1, round(config.edge_radius * min(size_of(image)) / _SHORT_SIDE))
        return guided(pixels, image, radius, config.edge_contrast**2)
