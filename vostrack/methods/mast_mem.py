"""`mast-mem`: labels are copied along a restricted affinity to a small memory of frames.

Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 3, on top of MAST (Lai, Lu, Xie, "MAST: A
Memory-Augmented Self-Supervised Tracker", CVPR 2020), whose network, memory of five frames and two-stage search for
distant frames it takes over.

Each cell attends to a window in every frame of the memory, all in one softmax. Frames that lie far back are first
searched coarsely with a dilated window; the fine window is then placed around the expected match.

Differs: from MAST's published code, whose bugs are not repeated: each distant frame uses its own offsets (the code uses
those of the last one for all), coordinates keep one convention, cells outside the image get no weight, and labels are
taken where the grid is centred. The offset is rounded to whole cells, so that hard labels are not blurred by sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from vostrack.errors import MethodError
from vostrack.methods.mast_training import MastObjective
from vostrack.nets.encoders import MastNet
from vostrack.ops.color import normalised_lab
from vostrack.ops.grid import to_pixels
from vostrack.ops.search import attend_around, coarse_positions
from vostrack.ops.window import Window, attend_window, join_attention


@dataclass(frozen=True)
class MastConfig:
    """Settings of the propagation.

    Attributes:
        first: frames that stay in memory for good, counted from the first mask; given later masks stay as well.
        recent: recent frames in memory, counted back from the frame to predict, in ascending order.
        radius: of the window, in cells; the window is 2 * radius + 1 on a side.
        far: frames more than this many frames back are searched in two stages.
        far_step: dilation of the coarse search grows by one every so many frames.
        far_dilation: largest dilation.
        temperature: divides the dot product of features.
    """

    first: tuple[int, ...] = (0, 5)
    recent: tuple[int, ...] = (1, 3, 5)
    radius: int = 12
    far: int = 15
    far_step: int = 15
    far_dilation: int = 4
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        if not self.recent or min(self.recent) < 1:
            raise MethodError(f"mast-mem: recent must list frames back, from 1, not {self.recent}")
        if any(index < 0 for index in self.first):
            raise MethodError(f"mast-mem: first must list frames from 0, not {self.first}")
        if min(self.radius, self.far, self.far_step, self.far_dilation) < 1 or not 0 < self.temperature < inf:
            raise MethodError("mast-mem: radius, far, far_step, far_dilation and temperature must be above 0")


@dataclass(frozen=True)
class Memorised:
    """A frame in memory: its number since the first mask, keys (h, w, C) and channels uint8 (h, w)."""

    number: int
    key: Tensor
    channels: Tensor


@dataclass(frozen=True)
class MastState:
    """What is known of a clip.

    Attributes:
        count: K, label channels.
        next: number of the next frame, from 0 at the first mask.
        pinned: frames that stay.
        recent: the last frames, oldest first.
    """

    count: int
    next: int
    pinned: tuple[Memorised, ...]
    recent: tuple[Memorised, ...]


class MastMethod:
    """Label propagation by attention to windows in a memory of frames."""

    name: ClassVar[str] = "mast-mem"
    paper: ClassVar[str] = "Self-supervised Video Object Segmentation (2020), on MAST (2020)"
    presets: ClassVar[Mapping[str, MastConfig]] = {"default": MastConfig()}
    build_net: ClassVar[type[MastNet]] = MastNet
    build_objective: ClassVar[type[MastObjective]] = MastObjective
    state_type = MastState

    def __init__(self, net: MastNet, config: MastConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or MastConfig()

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.net.stride

    def encode(self, image: Tensor) -> Tensor:
        """Keys (64, h, w)."""
        keys: Tensor = self.net(normalised_lab(image)[None])[0]
        return keys

    def begin(self, features: Tensor, labels: Tensor, state: MastState | None = None) -> MastState:
        """Pin a frame whose labels were given and forget the recent ones, whose labels were only predicted."""
        state = state or MastState(len(labels), 0, (), ())
        channels = labels[:, :: self.stride, :: self.stride].argmax(0).to(torch.uint8)
        given = Memorised(state.next, _keys(features), channels)
        pinned = tuple(self._with_new_objects(entry, given, state.count, len(labels)) for entry in state.pinned)
        state = replace(state, count=len(labels), pinned=(*pinned, given), recent=())
        return self._advance(state, given)

    def _with_new_objects(self, entry: Memorised, given: Memorised, known: int, count: int) -> Memorised:
        """A pinned frame with the objects that first appear in a later given one, found by propagating backwards.

        Nobody said that these objects were absent before; without this their cells would vote for the background.
        """
        if known == count:
            return entry
        readout = join_attention(
            [self._attend(entry.key / self.config.temperature, given, given.number - entry.number, count)]
        )
        found = readout.argmax(1).view_as(entry.channels).to(torch.uint8)
        return replace(entry, channels=torch.where(found >= known, found, entry.channels))

    def predict(self, state: MastState, features: Tensor) -> Tensor:
        """Labels read from the memory (Zhu et al., Eq. 6-7)."""
        query = _keys(features) / self.config.temperature
        memory = self.select(state)
        near = [entry for entry in memory if state.next - entry.number <= self.config.far]
        parts = []
        if near:
            keys = torch.stack([entry.key for entry in near], 2)
            values = torch.stack([_one_hot(entry, state.count) for entry in near], 2)
            parts.append(attend_window(query, keys, values, Window(self.config.radius)))
        for entry in memory:
            if state.next - entry.number > self.config.far:
                parts.append(self._attend(query, entry, state.next - entry.number, state.count))
        return join_attention(parts).T.reshape(-1, *features.shape[1:])

    def remember(self, state: MastState, features: Tensor, probs: Tensor) -> MastState:
        """Store the frame with its hard labels."""
        entry = Memorised(state.next, _keys(features), probs.argmax(0).to(torch.uint8))
        if entry.number in self.config.first:
            state = replace(state, pinned=(*state.pinned, entry))
        return self._advance(state, entry)

    def enlarge(self, probs: Tensor, size: tuple[int, int]) -> Tensor:
        """Bilinear from cells to pixels."""
        return to_pixels(probs, self.stride, size)

    def select(self, state: MastState) -> list[Memorised]:
        """The frames to attend to for the next one: pinned ones and those at the configured distances, each once."""
        wanted = {state.next - back for back in self.config.recent}
        chosen = {entry.number: entry for entry in state.recent if entry.number in wanted}
        chosen.update((entry.number, entry) for entry in state.pinned)
        return [chosen[number] for number in sorted(chosen)]

    def _advance(self, state: MastState, entry: Memorised) -> MastState:
        recent = (*state.recent, entry)[-max(self.config.recent) :]
        return replace(state, next=state.next + 1, recent=recent)

    def _attend(self, query: Tensor, entry: Memorised, age: int, count: int) -> tuple[Tensor, Tensor]:
        """Attention to one frame that lies `age` frames away; in two stages if that is far (MAST, section 3.4)."""
        config = self.config
        if age <= config.far:
            values = _one_hot(entry, count)[:, :, None]
            return attend_window(query, entry.key[:, :, None], values, Window(config.radius))
        dilation = min(config.far_dilation, age // config.far_step + 1)
        centre = coarse_positions(query, entry.key, config.radius, dilation).round().long()
        return attend_around(query, entry.key, _one_hot(entry, count), centre, config.radius)


def _keys(features: Tensor) -> Tensor:
    """(C, h, w) -> (h, w, C), contiguous."""
    return features.permute(1, 2, 0).contiguous()


def _one_hot(entry: Memorised, count: int) -> Tensor:
    """(h, w, K) of the frame's hard labels."""
    return torch.nn.functional.one_hot(entry.channels.long(), count).to(entry.key.dtype)
