"""`nearest-colour`: a cell takes the labels of nearby cells with a similar patch of colour.

Each cell looks in the given frames and in the last frame, within a radius, for the `top_k` most similar cells; a
softmax over these weighs their labels. The example of docs/adding-a-method.md, after no paper.

Left out on purpose: when an object joins at a later frame, the earlier given frames still say "background" where it
was, although nobody said so. `anchors` and `mast-mem` relabel those frames backwards, with `with_new_objects` in
`matching/memory.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.config import Config, setting
from vostrack.matching.memory import FrameBank
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.ops.affinity import weighted_readout
from vostrack.ops.color import normalised_lab
from vostrack.ops.grid import size_of, to_cells, to_pixels
from vostrack.ops.losses import cross_view_loss, sample_grid
from vostrack.ops.window import Window, best_in_window
from vostrack.weights import Adopt


@dataclass(frozen=True)
class ColourConfig(Config, group="matching"):
    """Settings of the propagation."""

    radius: int = setting(8, "distance along each axis up to which cells are searched", low=1, unit="cells")
    top_k: int = setting(5, "number of most similar cells that vote", low=1)
    temperature: float = setting(0.05, "divides the similarities; small is sharp", above=0)


class ColourNet(nn.Module):
    """One convolution: unit vectors that describe the colours around a cell."""

    stride = 4

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.filters = nn.Conv2d(3, 32, 7, stride=self.stride, padding=3, bias=False)

    def forward(self, lab: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 32, h, w)."""
        return F.normalize(self.filters(lab), dim=1)


@dataclass(frozen=True)
class ColourState:
    """What is known of a clip: the frames whose masks were given, and the last frame."""

    given: FrameBank
    last: FrameBank


class ColourObjective(Objective):
    """The same place in two neighbouring frames should look alike, and unlike other places."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"default": Recipe(learning_rate=1e-3)}

    def __init__(self, net: ColourNet, recipe: Recipe) -> None:
        """Train `net` in place."""
        self.module = net
        self.clips = ClipSpec(frames=2, gap=1, crop=recipe.crop)
        self.learning_rate = recipe.learning_rate

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast the cells of a pair of frames (B, 2, 3, S, S)."""
        frames = batch.frames
        offset = torch.rand(len(frames), 2, generator=generator).to(frames.device)
        first, second = (sample_grid(self.module(normalised_lab(frames[:, t])), 4, offset) for t in (0, 1))
        return {"loss": cross_view_loss(first, second, 0.1)}


class ColourMethod:
    """Label propagation by similar patches of colour."""

    name: ClassVar[str] = "nearest-colour"
    paper: ClassVar[str] = "none: the example of docs/adding-a-method.md"
    presets: ClassVar[Mapping[str, ColourConfig]] = {"default": ColourConfig()}
    nets: ClassVar[Mapping[str, type[ColourNet]]] = {"default": ColourNet}
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[ColourObjective]] = ColourObjective
    state_type = ColourState
    stride = ColourNet.stride

    def __init__(self, net: ColourNet, config: ColourConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net = net
        self.config = config or ColourConfig()

    def encode(self, image: Tensor) -> Tensor:
        """Unit vectors (32, h, w)."""
        features: Tensor = self.net(normalised_lab(image)[None])[0]
        return features

    def begin(self, features: Tensor, labels: Tensor, state: ColourState | None = None) -> ColourState:
        """Pin a frame whose labels were given; it is also the last frame."""
        values = to_cells(labels, self.stride)
        if state is None:
            given = FrameBank.empty(1, features, values)
        else:
            given = state.given.with_channels(len(values)).grown()
        last = FrameBank.empty(1, features, values).add(features, values)
        return ColourState(given.add(features, values), last)

    def predict(self, state: ColourState, features: Tensor) -> Tensor:
        """Labels of the most similar cells nearby, weighted."""
        query = features.permute(1, 2, 0).contiguous()
        found = [self._candidates(query, bank) for bank in (state.given, state.last)]
        similarity, values = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        probs = weighted_readout(similarity, values, self.config.top_k, self.config.temperature)
        return probs.T.reshape(-1, *features.shape[1:])

    def remember(self, state: ColourState, features: Tensor, probs: Tensor) -> ColourState:
        """Replace the last frame."""
        return replace(state, last=state.last.add(features, probs))

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear: cell i is centred on pixel i * stride."""
        return to_pixels(probs, self.stride, size_of(image))

    def _candidates(self, query: Tensor, bank: FrameBank) -> tuple[Tensor, Tensor]:
        window = Window(self.config.radius)
        similarity, index = best_in_window(query, bank.used_keys, window, self.config.top_k)
        return similarity, bank.used_values.flatten(0, 2)[index]
