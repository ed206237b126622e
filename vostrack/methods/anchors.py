"""`anchors`: dense features trained against anchors; labels follow their nearest neighbours in feature space.

Paper: Araslanov, Schaub-Meyer, Roth, "Dense Unsupervised Learning for Video Segmentation" (NeurIPS 2021). Its label
propagation is that of Jabri et al. ("Space-Time Correspondence as a Contrastive Random Walk", 2020, appendix C).

Each cell of a frame looks for the `top_k` most similar cells in the first frame and, within a radius, in some of the
last frames; a softmax over these weighs their labels, which stay soft when they are fed back.

Differs: the preset `paper` is the published procedure (last stage, stride 8, copies of the first frame fill the context
until enough frames have passed). The preset `default` uses early and middle stages and the cells' colours on a grid of
stride 4, projected to the 128 principal axes of the first frame, which are centred and whitened within each object, no
repeated frames, every second of the last frames, a wider search among fewer cells where cells are far, and a grid that
lies where the convolutions centre it: docs/ablations.md has what these are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from vostrack.config import setting
from vostrack.device import working_type
from vostrack.matching.memory import FrameBank, with_new_objects
from vostrack.matching.settings import GridConfig, RecentConfig
from vostrack.methods.objectives.anchors import AnchorsObjective
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.affinity import best_keys, weighted_readout
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import cells, resize, size_of, to_cells, to_pixels
from vostrack.ops.hypercolumns import cell_features, principal_axes, project
from vostrack.ops.window import Window, best_beyond, best_in_window, far_ring
from vostrack.weights import Adopt


@dataclass(frozen=True)
class AnchorsConfig(RecentConfig, GridConfig, group="matching"):
    """Settings of the features and the propagation."""

    context: int = setting(4, "recent frames to search", low=1)
    repeat_first: bool = setting(False, "copies of the first frame fill the memory at first", group="published parts")
    first_radius: int = setting(24, "radius for given frames; 0 searches them whole", low=0, unit="cells")
    first_reach: float = setting(0.6, "reach for given frames", low=0, high=4)
    top_k: int = setting(10, "most similar cells that vote", low=1)
    temperature: float = setting(0.05, "divides the similarities; small is sharp", above=0)
    corners: bool = setting(False, "corner cells lie on corner pixels", group="published parts")


PAPER = AnchorsConfig(
    stages=(4,),
    stride=8,
    colour=0,
    axes=0,
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


@dataclass(frozen=True)
class AnchorsState:
    """What is known of a clip.

    Attributes:
        axes: (C', C + 1) projection of the features, or (0, C + 1) for none (`ops.hypercolumns.project`).
        given: frames whose masks were given.
        recent: the last frames.
    """

    axes: Tensor
    given: FrameBank
    recent: FrameBank


class AnchorsMethod:
    """Label propagation by nearest neighbours among dense features."""

    name: ClassVar[str] = "anchors"
    paper: ClassVar[str] = "Dense Unsupervised Learning for Video Segmentation (2021)"
    presets: ClassVar[Mapping[str, AnchorsConfig]] = {"default": AnchorsConfig(), "paper": PAPER}
    nets: ClassVar[Mapping[str, Callable[[], AnchorsNet]]] = {"default": AnchorsNet}
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[AnchorsObjective]] = AnchorsObjective
    state_type = AnchorsState

    def __init__(self, net: AnchorsNet, config: AnchorsConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or self.presets["default"]

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.config.stride

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages, concatenated, and colours (C, h, w)."""
        config = self.config
        stages = self.net.chosen_stages(normalised_rgb(image)[None], config.stages, precision=config.precision)
        return cell_features(image, [stages], config.stride, config.colour)

    def begin(self, features: Tensor, labels: Tensor, state: AnchorsState | None = None) -> AnchorsState:
        """Pin a frame whose labels were given and start the recent frames from it; predicted ones are dropped."""
        values = self.shrink(labels)
        if state is None:
            axes = principal_axes(features, self.config.axes, self.config.whitening, values)
            key = project(features, axes)
            key = key.to(working_type(self.config.precision, key.device))
            given = FrameBank.empty(1, key, values)
        else:
            axes = state.axes
            key = project(features, axes).to(state.given.keys.dtype)
            given = self._propagated_back(state.given, key, values).grown()
        recent = FrameBank.empty((self.config.context - 1) * self.config.spacing + 1, key, values)
        for _ in range(self.config.context if self.config.repeat_first else 1):
            recent = recent.add(key, values)
        return AnchorsState(axes, given.add(key, values), recent)

    def predict(self, state: AnchorsState, features: Tensor) -> Tensor:
        """Labels of the most similar cells, weighted (Araslanov et al., section 4)."""
        config = self.config
        query = project(features, state.axes).permute(1, 2, 0).contiguous().to(state.given.keys.dtype)
        recent = state.recent.latest(config.spacing), config.radius, config.reach
        given = state.given, config.first_radius, config.first_reach
        probs = weighted_readout(*self._candidates(query, recent, given), config.top_k, config.temperature)
        return probs.T.reshape(-1, *features.shape[1:])

    def remember(self, state: AnchorsState, features: Tensor, probs: Tensor) -> AnchorsState:
        """Store the frame with its soft labels in place of the oldest recent one."""
        key = project(features, state.axes).to(state.given.keys.dtype)
        return replace(state, recent=state.recent.add(key, probs))

    def forgets(self, state: AnchorsState, ahead: int | None) -> bool:
        """See `base.Forgetting`."""
        return ahead is None or ahead > state.recent.capacity

    def passed(self, state: AnchorsState, probs: Tensor) -> AnchorsState:
        """See `base.Forgetting`."""
        return replace(state, recent=state.recent.passed())

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels."""
        if self.config.corners:
            return resize(probs[None], size_of(image), corners=True)[0]
        return to_pixels(probs, self.stride, size_of(image))

    def _propagated_back(self, bank: FrameBank, key: Tensor, values: Tensor) -> FrameBank:
        """The given frames with the objects that first appear in another one."""
        known = bank.values.shape[3]
        bank = bank.with_channels(len(values))
        if known == len(values):
            return bank
        source = FrameBank.empty(1, key, values).add(key, values)
        for slot in range(bank.filled):
            query = bank.keys[:, :, slot].contiguous()
            candidates = self._candidates(query, (source, self.config.first_radius, self.config.first_reach))
            probs = weighted_readout(*candidates, self.config.top_k, self.config.temperature)
            found = probs.view(*query.shape[:2], -1)
            bank.values[:, :, slot] = with_new_objects(bank.values[:, :, slot, :known], found)
        return bank

    def shrink(self, probs: Tensor) -> Tensor:
        """Average of the pixels around each cell; as published, bilinear."""
        if self.config.corners:
            return resize(probs[None], cells(size_of(probs), self.stride), corners=True)[0]
        return to_cells(probs, self.stride)

    def _candidates(self, query: Tensor, *banks: tuple[FrameBank, int, float]) -> tuple[Tensor, Tensor]:
        """Similarities (N, L) and label values (N, L, K) of the best keys, and of more that do not count.

        Of each bank those within a radius (0: anywhere), and within a reach those that are better than all these.
        """
        top_k, size, parts = self.config.top_k, query.shape[:2], []
        for bank, radius, _ in banks:
            if radius:
                found = best_in_window(query, bank.used_keys, Window(radius, disk=True), top_k)
            else:
                found = best_keys(query.flatten(0, 1), bank.used_keys.flatten(0, 2), top_k)
            parts.append((bank, *found))
        for bank, radius, reach in banks:
            ring, step = far_ring(Window(radius, disk=True), reach, (size[0], size[1]))
            if radius and not ring.is_empty:
                known = torch.cat([similarity for _, similarity, _ in parts], 1)
                floor = known.topk(top_k, dim=1).values[:, -1].view(size)
                parts.append((bank, *best_beyond(query, bank.used_keys, ring, step, top_k, floor)))
        values = [bank.used_values.flatten(0, 2)[index] for bank, _, index in parts]
        return torch.cat([similarity for _, similarity, _ in parts], 1), torch.cat(values, 1)
