"""`mast-mem`: labels are copied along a restricted affinity to a small memory of frames.

Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 3, on top of MAST (Lai, Lu, Xie, "MAST: A
Memory-Augmented Self-Supervised Tracker", CVPR 2020), whose network, memory of five frames and coarse-to-fine search
for distant frames it takes over.

Each cell attends to a window in every frame of the memory, all in one softmax. Frames that lie far back are first
searched coarsely with a dilated window; the fine window is then placed around the expected match.

Differs: the preset `default` attends with two stages of the trunk and the cells' colours instead of the head's keys,
projected to axes of the first frame (`ops.hypercolumns`); its labels are soft, and in frames that are not far it also
attends to a coarse ring around the window, which at 480p is too narrow for what moves fast. `paper` is as published.
With two encoders, frames given earlier are searched for late objects with their features as references.
From MAST's published code, whose bugs are not repeated: each distant frame uses its own offsets (the code uses those of
the last one for all), coordinates keep one convention, cells outside the image get no weight, and labels are taken
where the grid is centred. The offset is rounded to whole cells, so that hard labels are not blurred by sampling.
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
from vostrack.matching.memory import with_new_objects
from vostrack.matching.settings import FeatureConfig, SearchConfig
from vostrack.methods.objectives.mast_mem import MastObjective
from vostrack.nets.encoders import MastNet, MomentumNet, both_encoders
from vostrack.ops.color import normalised_lab
from vostrack.ops.grid import size_of, to_cells, to_pixels
from vostrack.ops.hypercolumns import cell_features, principal_axes, project
from vostrack.ops.labels import add_channels
from vostrack.ops.window import (
    Window,
    attend_around,
    attend_beyond,
    attend_window,
    coarse_positions,
    far_ring,
    join_attention,
)
from vostrack.weights import Adopt


@dataclass(frozen=True)
class MastConfig(SearchConfig, FeatureConfig, group="memory"):
    """Settings of the features, the memory and the propagation."""

    stages: tuple[int, ...] = setting((1, 2), "stages of the network to match; empty for its head", empty=True)
    first: tuple[int, ...] = setting(
        (0, 5),
        "frames that stay, counted from the first mask; if empty, no given mask stays",
        low=0,
        empty=True,
    )
    recent: tuple[int, ...] = setting((1, 3, 5), "recent frames, counted back, ascending", low=1)
    spread: int = setting(0, "further frames, evenly spaced", low=0)
    soft: bool = setting(True, "labels are fed back as probabilities")
    radius: int = setting(12, "half the side of a cell's window in each frame")
    far: int = setting(15, "age above which frames are searched coarsely first", low=1, unit="frames", group="matching")
    far_step: int = setting(
        15,
        "increase in age that raises the dilation of that search by one",
        low=1,
        unit="frames",
        group="matching",
    )
    far_dilation: int = setting(4, "its maximum dilation", low=1, unit="cells", group="matching")
    temperature: float = setting(0.03, "divides the similarities; small is sharp", above=0, group="matching")

    def check(self) -> None:
        """Something must be in memory."""
        if not self.first and 1 not in self.recent:
            raise MethodError(f"recent must hold 1 where first is empty, not be {self.recent}")


PAPER = MastConfig(stages=(), colour=0, axes=0, soft=False, reach=0, temperature=1.0, precision="32")


@dataclass(frozen=True)
class Memorised:
    """A frame in memory: its number since the first mask, keys (h, w, C) and labels uint8 (h, w, K), 255 for 1."""

    number: int
    key: Tensor
    labels: Tensor


@dataclass(frozen=True)
class MastState:
    """What is known of a clip.

    Attributes:
        axes: (C', C + 1) projection of the features, or (0, C + 1) for none (`ops.hypercolumns.project`).
        count: K, label channels.
        next: number of the next frame, from 0 at the first mask.
        pinned: frames that stay.
        recent: the last frames, oldest first.
        spread: evenly spaced frames, oldest first.
    """

    axes: Tensor
    count: int
    next: int
    pinned: tuple[Memorised, ...]
    recent: tuple[Memorised, ...]
    spread: tuple[Memorised, ...]


class MastMethod:
    """Label propagation by attention to windows in a memory of frames."""

    name: ClassVar[str] = "mast-mem"
    paper: ClassVar[str] = "Self-supervised Video Object Segmentation (2020), on MAST (2020)"
    presets: ClassVar[Mapping[str, MastConfig]] = {"default": MastConfig(), "paper": PAPER}
    nets: ClassVar[Mapping[str, Callable[[], MastNet]]] = {
        "default": MastNet,
        "shallow": partial(MastNet, depth=2),
        "momentum": MomentumNet,
    }
    adopts: ClassVar[Mapping[str, Adopt]] = {"mast-mem": both_encoders}
    objective: ClassVar[type[MastObjective]] = MastObjective
    state_type = MastState

    def __init__(self, net: MastNet, config: MastConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or MastConfig()
        if max(self.config.stages, default=0) > net.depth:
            raise MethodError(
                f"mast-mem: this network has {net.depth} stages, so stages cannot be {self.config.stages}"
            )

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.net.stride

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors of the chosen stages, concatenated, and colours (C, h, w); or the head's keys (64, h, w).

        Of a network with two encoders, those of the one for queries, then those of the one for references.
        """
        if isinstance(self.net, MomentumNet):
            return torch.cat((self._encoded(self.net, image), self._encoded(self.net.references, image)))
        return self._encoded(self.net, image)

    def _encoded(self, net: MastNet, image: Tensor) -> Tensor:
        """What one encoder says of an image."""
        config, lab = self.config, normalised_lab(image)[None]
        if not config.stages:
            keys: Tensor = net(lab)[0]
            return keys
        stages = net.chosen_stages(lab, config.stages, precision=config.precision)
        return cell_features(image, [stages], self.stride, config.colour)

    def begin(self, features: Tensor, labels: Tensor, state: MastState | None = None) -> MastState:
        """Pin a frame whose labels were given and forget those whose labels were only predicted."""
        cells = to_cells(labels, self.stride) if self.config.soft else labels[:, :: self.stride, :: self.stride]
        _, references = self._parts(features)
        if state is None:
            axes = principal_axes(references, self.config.axes, self.config.whitening, cells)
            state = MastState(axes, len(labels), 0, (), (), ())
        given = Memorised(state.next, _keys(references, state), _stored(cells, self.config.soft))
        pinned = tuple(self._propagated_back(entry, given, state.count, len(labels)) for entry in state.pinned)
        state = replace(state, count=len(labels), pinned=(*pinned, given), recent=(), spread=())
        return self._advance(state, given)

    def _propagated_back(self, entry: Memorised, given: Memorised, known: int, count: int) -> Memorised:
        """A pinned frame with the objects that first appear in a later given one."""
        if known == count:
            return entry
        found = self._read(entry.key, entry.number, [given], count)
        kept = replace(entry, labels=_stored(found, self.config.soft))
        labels = with_new_objects(_values(entry, known), _values(kept, count))
        return replace(entry, labels=_stored(labels.permute(2, 0, 1), soft=True))

    def predict(self, state: MastState, features: Tensor) -> Tensor:
        """Labels read from the memory (Zhu et al., Eq. 5-7)."""
        queries, _ = self._parts(features)
        return self._read(_keys(queries, state), state.next, self.select(state), state.count)

    def remember(self, state: MastState, features: Tensor, probs: Tensor) -> MastState:
        """Store the frame with its labels."""
        _, references = self._parts(features)
        entry = Memorised(state.next, _keys(references, state), _stored(probs, self.config.soft))
        if entry.number in self.config.first:
            state = replace(state, pinned=(*state.pinned, entry))
        return self._advance(state, entry)

    def forgets(self, state: MastState, ahead: int | None) -> bool:
        """See `base.Forgetting`."""
        config, number = self.config, state.next
        if ahead is None:
            return number not in config.first
        is_spread = bool(config.spread) and number % spacing(number + ahead, config.spread) == 0
        return ahead > max(config.recent) and number not in config.first and not is_spread

    def passed(self, state: MastState, probs: Tensor) -> MastState:
        """See `base.Forgetting`."""
        return self._advance(state, replace(state.pinned[0], number=state.next))

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels."""
        return to_pixels(probs, self.stride, size_of(image))

    def shrink(self, probs: Tensor) -> Tensor:
        """Average of the pixels around each cell."""
        return to_cells(probs, self.stride)

    def select(self, state: MastState) -> list[Memorised]:
        """The frames to attend to for the next one, each once: those at the configured distances, spread and pinned."""
        wanted = {state.next - back for back in self.config.recent}
        recent = (entry for entry in state.recent if entry.number in wanted)
        pinned = state.pinned if self.config.first else ()
        chosen = {entry.number: entry for entry in (*recent, *state.spread, *pinned)}
        return [chosen[number] for number in sorted(chosen)]

    def _parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a frame as a query, and as a reference; the same where there is one encoder."""
        two = isinstance(self.net, MomentumNet)
        return (features.chunk(2)[0], features.chunk(2)[1]) if two else (features, features)

    def _advance(self, state: MastState, entry: Memorised) -> MastState:
        count, room = state.next + 1, self.config.spread
        recent = (*state.recent, entry)[-max(self.config.recent) :]
        spread = tuple(kept for kept in (*state.spread, entry) if room and kept.number % spacing(count, room) == 0)
        return replace(state, next=count, recent=recent, spread=spread)

    def _read(self, key: Tensor, number: int, memory: Sequence[Memorised], count: int) -> Tensor:
        """Labels (K, h, w) that the frame of some number, with keys (h, w, C), reads from others; K = `count`.

        A cell that reads nothing but background is background: it need not be matched.
        """
        query, radius = key / self.config.temperature, self.config.radius
        ring, step = far_ring(Window(radius), self.config.reach, (key.shape[0], key.shape[1]))
        near_reach = radius if ring.is_empty else (ring.radius + 1) * step
        dilations = [self._dilation(abs(number - entry.number)) for entry in memory]
        reaches = [(dilation + 1) * radius if dilation else near_reach for dilation in dilations]
        wanted = torch.stack([_around(x.labels, reach) for x, reach in zip(memory, reaches, strict=True)]).any(0)
        near = [entry for entry, dilation in zip(memory, dilations, strict=True) if not dilation]
        parts = self._attend_near(query, near, count, wanted) if near else []
        for entry, dilation in zip(memory, dilations, strict=True):
            if dilation:
                parts.append(self._attend_far(query, entry, dilation, count, wanted))
        labels = join_attention(parts).T.reshape(count, *key.shape[:2])
        background = F.one_hot(torch.tensor(0, device=key.device), count).to(labels)[:, None, None]
        return torch.where(wanted, labels, background)

    def _attend_near(
        self, query: Tensor, memory: Sequence[Memorised], count: int, wanted: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Attention to windows in frames that are not far, and to a ring of fewer cells around them."""
        keys = torch.stack([entry.key for entry in memory], 2)
        values = torch.stack([_values(entry, count) for entry in memory], 2)
        window = Window(self.config.radius)
        parts = [attend_window(query, keys, values, window, wanted)]
        ring, step = far_ring(window, self.config.reach, (query.shape[0], query.shape[1]))
        if not ring.is_empty:
            parts.append(attend_beyond(query, keys, values, ring, step, wanted))
        return parts

    def _dilation(self, age: int) -> int:
        """Cells from tap to tap of the coarse search in a frame that lies so far away; 0 where there is none."""
        config = self.config
        return 0 if age <= config.far else min(config.far_dilation, age // config.far_step + 1)

    def _attend_far(
        self, query: Tensor, entry: Memorised, dilation: int, count: int, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention to one frame that is searched coarse to fine (MAST, section 3.4)."""
        radius = self.config.radius
        centre = coarse_positions(query, entry.key, radius, dilation, wanted).round().long()
        return attend_around(query, entry.key, _values(entry, count), centre, radius, wanted)


def _around(labels: Tensor, reach: int) -> Tensor:
    """bool (h, w): no further along an axis than so many cells from one that is not all background in (h, w, K)."""
    there = labels[..., 1:].any(2)[None].float()
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        there = F.max_pool2d(there, kernel, 1, padding)
    return there[0] > 0


def spacing(count: int, room: int) -> int:
    """The smallest power of 2 such that of `count` frames, every so many-th taken from the first, `room` suffice."""
    return 1 << (-(-count // room) - 1).bit_length()


def _keys(features: Tensor, state: MastState) -> Tensor:
    """(C, h, w) -> (h, w, C'), projected, contiguous."""
    return project(features, state.axes).permute(1, 2, 0).contiguous()


def _stored(probs: Tensor, soft: bool) -> Tensor:
    """(K, h, w) -> uint8 (h, w, K): probabilities in steps of 1/255, or 255 for the strongest channel alone."""
    if soft:
        return (255 * probs).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return (255 * F.one_hot(probs.argmax(0), len(probs))).to(torch.uint8)


def _values(entry: Memorised, count: int) -> Tensor:
    """Labels of a frame, (h, w, K) with K = `count`, summing to 1: rounding has moved the sum."""
    values = add_channels(entry.labels, count, dim=2).to(entry.key.dtype)
    return values / values.sum(2, keepdim=True)
