"""`rpm-net`: for each cell of a frame, a network points to its place in another frame, and the labels there are taken.

Paper: RPM-Net, Kim et al., "Robust Pixel-Level Matching Networks for Self-Supervised Video Object Segmentation" (2020).

Differs: the preset `paper` is the published procedure, on frames that keep their shape where the paper makes them
512 x 512: labels are carried from frame to frame, and the strongest of each cell is kept. What it loses, it never finds
again. The preset `default` carries places instead: where in the given frame each cell has come from. They are matched
anew to the given frame itself, and labels are read there, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.errors import MethodError
from vostrack.methods.base import Recipe
from vostrack.methods.explanation import Explanation
from vostrack.methods.rpm_training import RECIPES, RpmNetObjective
from vostrack.nets.deform import RpmNet, receptive_field, sample
from vostrack.nets.fcn import CHANNELS
from vostrack.nets.resnet import DEPTHS
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import centres, sample_cells, size_of, to_cells, to_pixels
from vostrack.weights import Adopt

_MATCHING: dict[str, Callable[[int], RpmNet]] = {
    "deformable": RpmNet,
    **{f"conv{layers}": partial(RpmNet, deformable=False, layers=layers) for layers in (1, 3, 5)},
    **{f"dilated{rate}": partial(RpmNet, deformable=False, dilation=rate) for rate in (3, 6, 9)},
}


_REACH = 2
"""Cells around each whose colours are compared as well: one may agree by chance."""


@dataclass(frozen=True)
class RpmConfig:
    """Settings of the propagation.

    Attributes:
        carry: what goes from frame to frame: "labels", as published, or "places" in the given frames.
        temperature: of the softmax over places that a cell may have come from; divides the squared difference of
            colours, in [0, 3].
        margin: how much smaller that difference must be for a place that was matched directly to the given frame,
            against places that were carried along.
    """

    carry: str = "places"
    temperature: float = 3e-4
    margin: float = 0.03

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        if self.carry not in ("labels", "places"):
            raise MethodError(f"rpm-net: carry must be labels or places, not {self.carry!r}")
        if not 0 < self.temperature < inf or not self.margin >= 0:
            raise MethodError("rpm-net: temperature must be above 0 and margin at least 0")


@dataclass(frozen=True)
class Given:
    """A frame whose labels were given.

    Attributes:
        features: (C, h, w).
        labels: (K, h, w), of the objects that were known then.
        places: (2, h, w), where in this frame each cell of the last frame has come from; y then x, in cells.
    """

    features: Tensor
    labels: Tensor
    places: Tensor


@dataclass(frozen=True)
class RpmState:
    """What is known of a clip.

    Attributes:
        features: (C, h, w) of the last frame.
        labels: (K, h, w) of the last frame.
        given: frames whose labels were given, where places are carried.
    """

    features: Tensor
    labels: Tensor
    given: tuple[Given, ...]


class RpmNetMethod:
    """Label propagation along offsets that a network regresses."""

    name: ClassVar[str] = "rpm-net"
    paper: ClassVar[str] = "RPM-Net: Robust Pixel-Level Matching Networks (2020)"
    presets: ClassVar[Mapping[str, RpmConfig]] = {"default": RpmConfig(), "paper": RpmConfig(carry="labels")}
    nets: ClassVar[Mapping[str, Callable[[], RpmNet]]] = {
        "default": RpmNet,
        **{f"resnet{depth}-{name}": partial(build, depth) for depth in DEPTHS for name, build in _MATCHING.items()},
    }
    recipes: ClassVar[Mapping[str, Recipe]] = RECIPES
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    build_objective: ClassVar[type[RpmNetObjective]] = RpmNetObjective
    state_type = RpmState

    def __init__(self, net: RpmNet, config: RpmConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or RpmConfig()

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.net.stride

    def encode(self, image: Tensor) -> Tensor:
        """Embeddings, and the colours of the cells: (32 + 3, h, w)."""
        embeddings = self.net.embed(normalised_rgb(image)[None])[0]
        return torch.cat((embeddings, to_cells(image, self.stride)))

    def begin(self, features: Tensor, labels: Tensor, state: RpmState | None = None) -> RpmState:
        """Take a frame whose labels were given; what was predicted for it is dropped."""
        values = to_cells(labels, self.stride)
        if self.config.carry == "labels":
            return RpmState(features, _strongest(values), ())
        own = centres((features.shape[1], features.shape[2]), features.device).permute(2, 0, 1).to(features)
        earlier = self._moved(state, features)[0] if state is not None else ()
        return RpmState(features, values, (*earlier, Given(features, values, own)))

    def predict(self, state: RpmState, features: Tensor) -> Tensor:
        """Labels read from the last frame (Eq. 8 and 10), or at the places in the given frames."""
        if not state.given:
            return _strongest(sample(state.labels[None], self._match(state.features[None], features))[0])
        given, wrong = self._moved(state, features)
        weights = torch.softmax(-wrong / self.config.temperature, 0)
        return (weights * _readings(given)).sum(0)

    def remember(self, state: RpmState, features: Tensor, probs: Tensor) -> RpmState:
        """Replace the last frame.

        The places are found once more: `predict` has nowhere to leave them.
        """
        given = self._moved(state, features)[0] if state.given else ()
        return RpmState(features, probs, given)

    def _match(self, reference: Tensor, target: Tensor) -> Tensor:
        """Offsets (B, 2, h, w) from a target (C, h, w) to references (B, C, h, w), of which the embeddings count."""
        embeddings = target[None, :CHANNELS].expand(len(reference), -1, -1, -1)
        return self.net.match(reference[:, :CHANNELS], embeddings)

    def _moved(self, state: RpmState, features: Tensor) -> tuple[tuple[Given, ...], Tensor]:
        """The given frames with the places that cells of a new frame have come from.

        Three are compared by their colours: the place of the cell that the last frame is matched at; the same,
        corrected by matching the given frame anew, as seen from there; and where the given frame itself is matched,
        which finds again what was lost.

        Args:
            state: of the clip so far, with G given frames.
            features: (C, h, w) of the new frame.

        Returns:
            The frames, and how much the colours there differ (G, 1, h, w).
        """
        memory = torch.stack([entry.features for entry in state.given])
        places = torch.stack([entry.places for entry in state.given])
        offsets = self._match(state.features[None], features).expand(len(memory), -1, -1, -1)
        carried = sample(places, offsets, border=True)
        again = sample(carried, self._match(sample_cells(memory, carried, border=True), features), border=True)
        own = centres((features.shape[1], features.shape[2]), features.device).permute(2, 0, 1)
        direct = own + self._match(memory, features)
        candidates = torch.stack((carried, again, direct))
        wrong = torch.stack([_difference(memory, features, places) for places in candidates])
        wrong[2] += self.config.margin
        weights = torch.softmax(-wrong / self.config.temperature, 0)
        found = (weights * candidates).sum(0)
        given = tuple(replace(entry, places=places) for entry, places in zip(state.given, found, strict=True))
        return given, (weights * wrong).sum(0)

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels."""
        return to_pixels(probs, self.stride, size_of(image))

    def explain(self, reference: Tensor, target: Tensor, pixels: Tensor) -> Explanation:
        """Sampling locations of the matching module: those of its last layer, seen through the layers before.

        Arguments as for `explanation.Explains`.

        Paper: RPM-Net, section 4.5 and figures 1 and 10.
        """
        both = torch.cat((reference[:CHANNELS], target[:CHANNELS]))
        cells = pixels.to(both) / self.stride
        offsets = self.net.match(reference[None, :CHANNELS], target[None, :CHANNELS])
        matched = cells + sample_cells(offsets, cells.T[None, :, :, None], border=True)[0, :, :, 0].T
        sampled = receptive_field(self.net.matching.taps(both[None]), cells)
        return Explanation(tuple(self.stride * places for places in sampled), self.stride * matched, both, self.stride)


def _difference(memory: Tensor, features: Tensor, places: Tensor) -> Tensor:
    """How much colours differ from those at places in other frames, mean of the squares over squares of cells.

    Args:
        memory: features (B, C, h, w) of the other frames.
        features: (C, h, w).
        places: (B, 2, h, w).

    Returns:
        (B, 1, h, w), in [0, 3].
    """
    there = sample_cells(memory[:, CHANNELS:], places, border=True)
    wrong = (there - features[CHANNELS:]).square().sum(1, keepdim=True)
    return F.avg_pool2d(wrong, 2 * _REACH + 1, 1, _REACH, count_include_pad=False)


def _readings(given: tuple[Given, ...]) -> Tensor:
    """Labels (G, K, h, w) read at the places in each given frame.

    A frame says nothing about objects that joined later: there, the word of the last given frame counts, which knows
    all of them.
    """
    read = [sample_cells(entry.labels[None], entry.places[None], border=True)[0] for entry in given]
    new = [read[-1][len(labels) :] for labels in read]
    return torch.stack(
        [torch.cat((labels * (1 - later.sum(0)), later)) for labels, later in zip(read, new, strict=True)]
    )


def _strongest(labels: Tensor) -> Tensor:
    """One-hot map of the strongest label (K, h, w); of equal ones, the lowest.

    Paper: RPM-Net, Eq. 10.
    """
    return F.one_hot(labels.argmax(0), len(labels)).permute(2, 0, 1).to(labels.dtype)
