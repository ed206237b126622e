"""`rpm-net`: for each cell of a frame, a network points to its place in another frame, and the labels there are taken.

Paper: RPM-Net, Kim et al., "Robust Pixel-Level Matching Networks for Self-Supervised Video Object Segmentation" (2020).

Differs: the preset `paper` is the published procedure, on frames that keep their shape where the paper makes them
512 x 512, as `square` does: labels are carried from frame to frame, and the strongest of each cell is kept. What it
loses, it never finds again. The paper's masks are these strongest labels (Eq. 10). Here they are what is carried on,
and masks come from what was read (Eq. 8), enlarged before the strongest is taken: edges lie between cells, as they do
in no mask of the paper. In the preset `default` what the network points to is one candidate among others: the soft
matching of `videomatch` (`matching.matcher`), on the maps of the embedding module, compares it with the cells around
the same place in recent frames and with all of the given frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.config import setting
from vostrack.errors import MethodError
from vostrack.matching.matcher import MatchingState, SoftMatcher
from vostrack.matching.recent import log_prior
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods.base import Correspondences
from vostrack.methods.objectives.rpm_net import RpmNetObjective
from vostrack.nets.resnet import DEPTHS
from vostrack.nets.rpm_net import CHANNELS, RpmNet, receptive_field, warp
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import at_most, sample_cells, to_cells
from vostrack.ops.hypercolumns import cell_features
from vostrack.weights import Adopt

_MATCHING: dict[str, Callable[[int], RpmNet]] = {
    "deformable": RpmNet,
    **{f"conv{layers}": partial(RpmNet, deformable=False, layers=layers) for layers in (1, 3, 5)},
    **{f"dilated{rate}": partial(RpmNet, deformable=False, dilation=rate) for rate in (3, 6, 9)},
}


@dataclass(frozen=True)
class RpmConfig(SoftMatcherConfig, group="published parts"):
    """Settings of the propagation: those of `videomatch`, and one more."""

    stages: tuple[int, ...] = setting(
        (1, 2, 3, 4), "maps of the embedding module: stages 1, 2 and 3, and 4, its embeddings"
    )
    fine_stages: tuple[int, ...] = ()
    stride: int = setting(RpmNet.stride, choices=(RpmNet.stride,))
    views: int = 2
    square: int = setting(
        0,
        "square that frames are squeezed to; 0 keeps their shape",
        low=0,
        high=8192,
        unit="pixels",
    )
    pointed_only: bool = setting(
        False, "labels are read only where the network points; then only the edges' settings count"
    )

    def check(self) -> None:
        """One cell that is pointed to says nothing among all: it takes part where the best similarities count."""
        if not self.top_k and not self.pointed_only:
            raise MethodError(
                "top_k is 0, for all similarities, which leave out where the network points: "
                "set top_k to 1 or more, or pointed_only"
            )
        super().check()


@dataclass(frozen=True)
class RpmState:
    """What is known of a clip.

    Attributes:
        features: (C, h, w) of the last frame.
        labels: (K, h, w) of the last frame.
        matching: what is matched besides; None as published.
    """

    features: Tensor
    labels: Tensor
    matching: MatchingState | None


PAPER = RpmConfig(views=1, edge_radius=0, pointed_only=True)


class RpmNetMethod:
    """Label propagation along offsets that a network regresses."""

    name: ClassVar[str] = "rpm-net"
    paper: ClassVar[str] = "RPM-Net: Robust Pixel-Level Matching Networks (2020)"
    presets: ClassVar[Mapping[str, RpmConfig]] = {"default": RpmConfig(), "paper": PAPER}
    nets: ClassVar[Mapping[str, Callable[[], RpmNet]]] = {
        "default": RpmNet,
        **{f"resnet{depth}-{name}": partial(build, depth) for depth in DEPTHS for name, build in _MATCHING.items()},
    }
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[RpmNetObjective]] = RpmNetObjective
    state_type = RpmState

    def __init__(self, net: RpmNet, config: RpmConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or RpmConfig()
        self._matching = SoftMatcher(self.config)

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.net.stride

    def working_size(self, source: tuple[int, int], short_side: int | None) -> tuple[int, int]:
        """The square, if there is one; section 3.2 has 512 x 512."""
        side = self.config.square
        return (side, side) if side else at_most(source, short_side)

    def encode(self, image: Tensor) -> Tensor:
        """Embeddings (32, h, w), and what is matched (C, h, w): the chosen maps as unit vectors, and colours."""
        config, seen = self.config, normalised_rgb(image)[None]
        embeddings = self.net.embed(seen)[0]
        if config.pointed_only:
            return embeddings
        scales = self.net.scales(seen, config.stages, config.fine_stages, config.views, config.precision)
        return torch.cat((embeddings, cell_features(image, scales, self.stride, config.colour)))

    def begin(self, features: Tensor, labels: Tensor, state: RpmState | None = None) -> RpmState:
        """Take a frame whose labels were given; what was predicted before is dropped."""
        soft_labels = to_cells(labels, self.stride)
        if self.config.pointed_only:
            return RpmState(features, _strongest(soft_labels), None)
        matching = self._matching.begin(features[CHANNELS:], labels, state.matching if state else None)
        return RpmState(features, soft_labels, matching)

    def predict(self, state: RpmState, features: Tensor) -> Tensor:
        """Labels where the network points (Eq. 8), or of what is most similar, there and elsewhere."""
        offsets = self.net.match(state.features[None, :CHANNELS], features[None, :CHANNELS])
        if state.matching is None:
            return _completed(warp(state.labels[None], offsets)[0])
        last, query = (self._matching.query(state.matching, x[CHANNELS:]) for x in (state.features, features))
        key, labels = (warp(x[None].float(), offsets, border=True)[0] for x in (last, state.labels))
        pointed = (F.normalize(key, dim=0) * query).sum(0) + log_prior(labels, self.config.scale)
        return self._matching.labelled(state.matching, query, list(pointed.flatten(1)[:, :, None]))

    def hide(self, state: RpmState, channels: Sequence[int]) -> RpmState:
        """See `base.Hiding`."""
        matching = state.matching and self._matching.hide(state.matching, channels)
        return replace(state, matching=matching)

    def remember(self, state: RpmState, features: Tensor, probs: Tensor) -> RpmState:
        """Replace the last frame; as published, by the strongest label of each cell (Eq. 10)."""
        if state.matching is None:
            return RpmState(features, _strongest(probs), None)
        return RpmState(features, probs, self._matching.remember(state.matching, features[CHANNELS:], probs))

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """As `SoftMatcher.enlarge`."""
        return self._matching.enlarge(probs, image)

    def shrink(self, probs: Tensor) -> Tensor:
        """Average of the pixels around each cell."""
        return to_cells(probs, self.stride)

    def correspondences(self, reference: Tensor, target: Tensor, pixels: Tensor) -> Correspondences:
        """Sampling locations of the matching module: those of its last layer, seen through the layers before.

        Arguments as for `base.Inspectable`.

        Paper: RPM-Net, section 4.5 and figures 1 and 10.
        """
        both = torch.cat((reference[:CHANNELS], target[:CHANNELS]))
        cells = pixels.to(both) / self.stride
        offsets = self.net.match(reference[None, :CHANNELS], target[None, :CHANNELS])
        matched = cells + sample_cells(offsets, cells.T[None, :, :, None], border=True)[0, :, :, 0].T
        sampled = receptive_field(self.net.matching.taps(both[None]), cells)
        return Correspondences(
            tuple(self.stride * places for places in sampled), self.stride * matched, both, self.stride
        )


def _completed(labels: Tensor) -> Tensor:
    """Shares of labels (K, h, w) as probabilities; the strongest stays so, and where there is none it is background."""
    total = labels.sum(0)
    probs = labels / torch.where(total > 0, total, 1)
    probs[0] += total <= 0
    return probs


def _strongest(labels: Tensor) -> Tensor:
    """One-hot map of the strongest label (K, h, w); of equal ones, the lowest.

    Paper: RPM-Net, Eq. 10.
    """
    return F.one_hot(labels.argmax(0), len(labels)).permute(2, 0, 1).to(labels.dtype)
