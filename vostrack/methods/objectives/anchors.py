"""Training of `anchors`: space-time self-training against anchors with cross-view consistency.

Paper: Araslanov et al. (2021), section 3.3, Eq. 1-6, section 4 for the settings and 4.3 with figure 3 for others. What
the paper leaves open (jitter of the whole grid, nearest sampling, the reference in the main branch, range of the zoom,
distance of the frames, momenta of the optimisers and their weight decay) is as in its published code.

Differs: the losses are means over the features, not sums (Eq. 3 and 5), as in that code; the rate falls as the recipe
says instead of in steps, and is the same for all parameters; the views are cut where the last cells are centred, so
that cells of both lie on the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vostrack.config import setting
from vostrack.errors import MethodError
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import sample, similarity_grid
from vostrack.ops.losses import cross_view_loss, pseudo_labels, sample_grid, self_training_loss

STRIDE = 8

_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class AnchorsRecipe(Recipe):
    """How a network is trained."""

    crop: int = setting(128)
    frames: int = setting(5, "frames of a clip (T of Fig. 3)", low=1)
    gap: int = setting(4, "most frames from one to the next, of ten a second", low=1, unit="frames")
    source_gap: int = setting(
        0,
        "source frames from one to the next; 0 uses `gap`",
        low=0,
        high=1000,
        unit="frames",
    )
    anchor_grid: int = setting(8, "anchors along each side of a frame (N)", low=1)
    view_grid: int = setting(4, "cells along each side compared across views (M)", low=1)
    cross_view: float = setting(0.1, "weight of that comparison (λ of Eq. 6)", low=0)
    temperature: float = setting(0.05, "divides the similarities (τ of Eq. 1 and 4)", above=0)
    aligned: bool = setting(True, "cells of both views lie on the same pixels")
    optimizer: str = setting("adam", "optimiser", choices=("adam", "sgd"))
    smallest: float = setting(0.5, "side of the smallest crop, as a share of the short side", above=0, high=1)

    def check(self) -> None:
        """No grid is finer than the cells."""
        super().check()
        finest = max(self.anchor_grid, self.view_grid)
        if self.crop < STRIDE * finest:
            raise MethodError(f"crop must be at least {STRIDE * finest} for a grid of {finest}, not {self.crop}")


# The paper scales the short side to between 256 and 320 pixels and cuts 256 of them; its steps are those of Table 3.
# Gaps are those of its published code (configs/*.yaml): 2 for YouTube-VOS, 10 for Kinetics, TrackingNet and OxUvA.
_PAPER = AnchorsRecipe(crop=256, batch=16, steps=100_000, learning_rate=1e-4, smallest=0.8, source_gap=2)
RECIPES = {
    "default": AnchorsRecipe(),
    # The steps of both runs of docs/weights.md: a thousand more brought nothing.
    "shipped": AnchorsRecipe(steps=1267, aligned=False),
    "paper": _PAPER,
    "paper-sgd": replace(_PAPER, source_gap=10, steps=300_000, learning_rate=1e-3, optimizer="sgd"),
}


class AnchorsObjective(Objective):
    """Space-time self-training against anchors with cross-view consistency.

    Paper: Araslanov et al. (2021), Eq. 1-6, section 3.3.
    """

    recipes = RECIPES

    def __init__(self, net: AnchorsNet, recipe: AnchorsRecipe = RECIPES["default"]) -> None:
        """Train `net` in place, as the recipe says."""
        self.module: AnchorsNet = net
        scale = recipe.smallest, 1.0
        self.clips = ClipSpec(recipe.frames, recipe.gap, recipe.crop, scale, source_gap=recipe.source_gap)
        self.learning_rate = recipe.learning_rate
        self._recipe = recipe

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam or SGD, with the published momenta and weight decay."""
        parameters, rate = self.module.parameters(), self.learning_rate
        if self._recipe.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=_WEIGHT_DECAY)
        return torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), weight_decay=_WEIGHT_DECAY)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Both losses; each clip's frames are brought into a random order, and the first is its reference.

        Args:
            batch: frames (B, T, 3, S, S) in [0, 1].
            generator: on the CPU.

        Returns:
            "loss", "self_training" (Eq. 3) and "cross_view" (Eq. 5).
        """
        recipe, (size, count) = self._recipe, batch.frames.shape[:2]
        order = torch.rand(size, count, generator=generator).argsort(1).to(batch.frames.device)
        frames = batch.frames[torch.arange(size)[:, None].to(order), order]
        frames = up_to_last_cells(frames) if recipe.aligned else frames
        view = View.random(size, generator, recipe.aligned).to(frames.device)
        seen = view.of(frames)
        main = self._keys(torch.cat((frames, seen[:, :1]), 1))
        reference, others, mirror = main[:, 0], main[:, 1:count], main[:, count]

        offset = torch.rand(size, 2, generator=generator).to(frames.device)
        anchors, self_training = sample_grid(reference, recipe.anchor_grid, offset), main.new_zeros(())
        if count > 1:  # of one frame, which is the reference, Eq. 3 is a sum over nothing
            with torch.no_grad():
                labels = pseudo_labels(self._keys(seen[:, 1:]), anchors.detach())
            self_training = self_training_loss(view.of_cells(others), anchors, labels, recipe.temperature)

        offset = torch.rand(size, 2, generator=generator).to(frames.device)
        moved = sample_grid(view.of_cells(reference[:, None])[:, 0], recipe.view_grid, offset)
        cross_view = cross_view_loss(moved, sample_grid(mirror, recipe.view_grid, offset), recipe.temperature)
        loss = self_training + recipe.cross_view * cross_view
        return {"loss": loss, "self_training": self_training, "cross_view": cross_view}

    def _keys(self, frames: Tensor) -> Tensor:
        keys = self.module.key(normalised_rgb(frames.flatten(0, 1)))
        return keys.view(*frames.shape[:2], *keys.shape[1:])


def up_to_last_cells(frames: Tensor) -> Tensor:
    """Frames (..., S, S) without what lies beyond the centres of the last cells: (..., S', S'), S' = S - 7.

    Cell i is centred on pixel 8 * i: the corner cells then lie on the corner pixels, in every mirror image too.
    """
    side = STRIDE * (frames.shape[-1] // STRIDE - 1) + 1
    return frames[..., :side, :side]


@dataclass(frozen=True)
class View:
    """A zoom with shift and mirroring for each clip: what the second view shows of it.

    Attributes:
        scale: (B,) side of what it shows, as a share of the frame's.
        shift: (B, 2) centre of that, x then y, in [-1, 1].
        flip: (B,) -1 where it is mirrored, else 1.
        aligned: whether corner cells lie on corner pixels, of which `up_to_last_cells` takes care; else cells are taken
            for areas of 8 pixels.
    """

    scale: Tensor
    shift: Tensor
    flip: Tensor
    aligned: bool = True

    @classmethod
    def random(cls, clips: int, generator: torch.Generator, aligned: bool = True) -> Self:
        """One for each of so many clips, with a zoom of 1 to 2, mirrored half of the time; on the CPU."""
        scale = 0.5 + 0.5 * torch.rand(clips, generator=generator)
        shift = (2 * torch.rand(clips, 2, generator=generator) - 1) * (1 - scale)[:, None]
        flip = 1 - 2 * torch.randint(2, (clips,), generator=generator).float()
        return cls(scale, shift, flip, aligned)

    def to(self, device: torch.device) -> View:
        """The same on a device."""
        return View(self.scale.to(device), self.shift.to(device), self.flip.to(device), self.aligned)

    def of(self, frames: Tensor, mode: str = "bilinear") -> Tensor:
        """What it shows of frames (B, T, C, H, W), of their size."""
        size = (frames.shape[-2], frames.shape[-1])
        grid = similarity_grid(self.scale, self.shift, self.flip, size, self.aligned)
        return sample(frames.flatten(1, 2), grid, mode, self.aligned).view_as(frames)

    def of_cells(self, features: Tensor) -> Tensor:
        """What it shows of features (B, T, C, h, w): those of the nearest cells, so that they stay unit vectors."""
        return self.of(features, "nearest")
