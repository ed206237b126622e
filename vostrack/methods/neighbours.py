"""Labels follow their nearest neighbours in feature space: what `anchors` propagates with.

Source: Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk" (2020), appendix C, whose procedure
Araslanov et al. (2021) take over.

Each cell of a frame looks for the `top_k` most similar cells in the first frame and, within a radius, in some of the
last frames; a softmax over these weighs their labels, which stay soft when they are fed back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from vostrack.errors import MethodError
from vostrack.memory import FrameBank
from vostrack.ops.affinity import best_keys, weighted_readout
from vostrack.ops.grid import resize, size_of, to_cells, to_pixels
from vostrack.ops.hypercolumns import principal_axes, project
from vostrack.ops.precision import PRECISIONS, working_type
from vostrack.ops.window import Window, best_beyond, best_in_window, far_ring


@dataclass(frozen=True)
class NeighbourConfig:
    """Settings of the features and the propagation.

    Attributes:
        stages: stages of the trunk, 1 to 4, whose unit vectors are concatenated.
        stride: pixels from cell to cell, 4 or 8.
        colour: weight of the cells' colours beside the stages; 0 leaves them out.
        channels: principal axes of the first frame that are kept; 0 keeps the features as they are.
        whitening: how far the axes' variances are evened out, from 0 (not at all) to 1 (fully).
        context: recent frames that are searched, at least 1.
        spacing: frames from one of these to the next; the last frame is always one.
        repeat_first: whether copies of the first frame fill the context until enough frames have passed.
        radius: recent frames are searched at a Euclidean distance below this, in cells.
        reach: fewer cells, a grid of some 60 on the short side, are searched from there on up to this share of the
            short side; 0 for none.
        first_radius: `radius` for given frames; 0 searches all of them.
        first_reach: `reach` for given frames.
        top_k: neighbours that vote.
        temperature: divides the cosine similarity.
        precision: "auto" to compute features and similarities in bfloat16 where the device is quick at it, or "32".
        corners: whether corner cells lie on corner pixels, as published, instead of on every stride-th pixel.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    stride: int = 4
    colour: float = 3.0
    channels: int = 128
    whitening: float = 0.7
    context: int = 4
    spacing: int = 2
    repeat_first: bool = False
    radius: int = 12
    reach: float = 0.2
    first_radius: int = 24
    first_reach: float = 0.6
    top_k: int = 10
    temperature: float = 0.05
    precision: str = "auto"
    corners: bool = False

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        if not self.stages or not set(self.stages) <= {1, 2, 3, 4}:
            raise MethodError(f"stages must be among 1, 2, 3, 4, not {self.stages}")
        if self.stride not in (4, 8):
            raise MethodError(f"stride must be 4 or 8, not {self.stride}")
        if min(self.context, self.spacing, self.radius, self.top_k) < 1:
            raise MethodError("context, spacing, radius and top_k must be at least 1")
        if min(self.channels, self.first_radius) < 0:
            raise MethodError("channels and first_radius must be at least 0")
        if not (0 <= self.reach <= 4 and 0 <= self.first_reach <= 4):
            raise MethodError("reach and first_reach must be from 0 to 4")
        if not 0 <= self.whitening <= 1 or not 0 <= self.colour < inf:
            raise MethodError("whitening must be from 0 to 1, and colour at least 0")
        if not 0 < self.temperature < inf:
            raise MethodError(f"temperature must be above 0, not {self.temperature}")
        if self.precision not in PRECISIONS:
            raise MethodError(f"precision must be auto or 32, not {self.precision!r}")


@dataclass(frozen=True)
class NeighbourState:
    """What is known of a clip.

    Attributes:
        axes: (C', C + 1) projection of the features, or (0, C + 1) for none (`ops.hypercolumns.project`).
        given: frames whose masks were given.
        recent: the last frames.
    """

    axes: Tensor
    given: FrameBank
    recent: FrameBank


class NeighbourMethod:
    """Propagation by nearest neighbours; what the features are is said by who inherits it."""

    state_type = NeighbourState
    config: NeighbourConfig

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.config.stride

    def begin(self, features: Tensor, labels: Tensor, state: NeighbourState | None = None) -> NeighbourState:
        """Pin a frame whose labels were given and start the recent frames from it; predicted ones are dropped."""
        values = self._to_cells(labels, (features.shape[1], features.shape[2]))
        if state is None:
            axes = principal_axes(features, self.config.channels, self.config.whitening, values)
            key = project(features, axes)
            key = key.to(working_type(self.config.precision, key.device))
            given = FrameBank.empty(1, key, values)
        else:
            axes = state.axes
            key = project(features, axes).to(state.given.keys.dtype)
            given = self._with_new_objects(state.given, key, values).grown()
        recent = FrameBank.empty((self.config.context - 1) * self.config.spacing + 1, key, values)
        for _ in range(self.config.context if self.config.repeat_first else 1):
            recent = recent.add(key, values)
        return NeighbourState(axes, given.add(key, values), recent)

    def predict(self, state: NeighbourState, features: Tensor) -> Tensor:
        """Labels of the most similar cells, weighted (Araslanov et al., section 4)."""
        config = self.config
        query = project(features, state.axes).permute(1, 2, 0).contiguous().to(state.given.keys.dtype)
        recent = state.recent.latest(config.spacing)
        parts = [
            self._candidates(query, recent, config.radius, config.reach),
            self._candidates(query, state.given, config.first_radius, config.first_reach),
        ]
        similarity = torch.cat([part[0] for part in parts], 1)
        values = torch.cat([part[1] for part in parts], 1)
        probs = weighted_readout(similarity, values, config.top_k, config.temperature)
        return probs.T.reshape(-1, *features.shape[1:])

    def remember(self, state: NeighbourState, features: Tensor, probs: Tensor) -> NeighbourState:
        """Store the frame with its soft labels in place of the oldest recent one."""
        key = project(features, state.axes).to(state.given.keys.dtype)
        return replace(state, recent=state.recent.add(key, probs))

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels."""
        if self.config.corners:
            return resize(probs[None], size_of(image), corners=True)[0]
        return to_pixels(probs, self.stride, size_of(image))

    def _with_new_objects(self, bank: FrameBank, key: Tensor, values: Tensor) -> FrameBank:
        """The given frames with the objects that first appear in another frame, found by propagating backwards.

        Nobody said that these objects were absent before; without this their cells would vote for the background.
        """
        known = bank.values.shape[3]
        bank = bank.with_channels(len(values))
        if known == len(values):
            return bank
        source = FrameBank.empty(1, key, values).add(key, values)
        for slot in range(bank.filled):
            query = bank.keys[:, :, slot].contiguous()
            candidates = self._candidates(query, source, self.config.first_radius, self.config.first_reach)
            probs = weighted_readout(*candidates, self.config.top_k, self.config.temperature)
            new = probs[:, known:].view(*query.shape[:2], -1)
            bank.values[:, :, slot] *= 1 - new.sum(2, keepdim=True)
            bank.values[:, :, slot, known:] += new
        return bank

    def _to_cells(self, labels: Tensor, size: tuple[int, int]) -> Tensor:
        if self.config.corners:
            return resize(labels[None], size, corners=True)[0]
        return to_cells(labels, self.stride)

    def _candidates(self, query: Tensor, bank: FrameBank, radius: int, reach: float) -> tuple[Tensor, Tensor]:
        """Similarities (N, J) and label values (N, J, K) of the best keys of a bank within a radius (0: anywhere)."""
        keys, values, top_k = bank.used_keys, bank.used_values.flatten(0, 2), self.config.top_k
        if not radius:
            similarity, index = best_keys(query.flatten(0, 1), keys.flatten(0, 2), top_k)
            return similarity, values[index]
        window = Window(radius, disk=True)
        similarity, index = best_in_window(query, keys, window, top_k)
        ring, step = far_ring(window, reach, (query.shape[0], query.shape[1]))
        if not ring.is_empty:
            beyond, there = best_beyond(query, keys, ring, step, top_k)
            similarity, index = torch.cat((similarity, beyond), 1), torch.cat((index, there), 1)
        return similarity, values[index]
