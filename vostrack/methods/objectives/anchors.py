"""Training of `anchors`: space-time self-training against anchors with cross-view consistency.

Paper: Araslanov et al. (2021), section 3.3, Eq. 1-6, and section 4 for the settings. What the paper leaves open (jitter
of the whole grid, nearest sampling, the reference in the main branch, range of the zoom, momenta of the optimisers and
their weight decay) is as in its published code.

Differs: the losses are means over the features, not sums (Eq. 3 and 5), as in that code; the rate falls as the recipe
says instead of in steps, and is the same for all parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vostrack.config import setting
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import sample, similarity_grid
from vostrack.ops.losses import cross_view_loss, pseudo_labels, sample_grid, self_training_loss

STRIDE = 8
TEMPERATURE = 0.05
ANCHOR_GRID = 8
VIEW_GRID = 4
CROSS_VIEW_WEIGHT = 0.1

_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class AnchorsRecipe(Recipe):
    """How a network is trained."""

    crop: int = setting(128, low=STRIDE * ANCHOR_GRID)
    optimizer: str = setting("adam", "optimiser", choices=("adam", "sgd"))
    smallest: float = setting(0.5, "side of the smallest crop, as a share of the short side", above=0, high=1)


# The paper scales the short side to between 256 and 320 pixels and cuts 256 of them; its steps are those of Table 3.
RECIPES = {
    "default": AnchorsRecipe(),
    # The steps of both runs of docs/weights.md: a thousand more brought nothing.
    "shipped": AnchorsRecipe(steps=1267),
    "paper": AnchorsRecipe(crop=256, batch=16, steps=100_000, learning_rate=1e-4, smallest=0.8),
    "paper-sgd": AnchorsRecipe(crop=256, batch=16, steps=300_000, learning_rate=1e-3, smallest=0.8, optimizer="sgd"),
}


class AnchorsObjective(Objective):
    """Space-time self-training against anchors with cross-view consistency.

    Paper: Araslanov et al. (2021), Eq. 1-6, section 3.3.
    """

    recipes = RECIPES

    def __init__(self, net: AnchorsNet, recipe: AnchorsRecipe = RECIPES["default"]) -> None:
        """Train `net` in place, as the recipe says."""
        self.module: AnchorsNet = net
        self.clips = ClipSpec(frames=5, gap=4, crop=recipe.crop, scale=(recipe.smallest, 1.0))
        self.learning_rate = recipe.learning_rate
        self._optimizer = recipe.optimizer

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam or SGD, with the published momenta and weight decay."""
        parameters, rate = self.module.parameters(), self.learning_rate
        if self._optimizer == "sgd":
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
        size, count = batch.frames.shape[:2]
        order = torch.rand(size, count, generator=generator).argsort(1).to(batch.frames.device)
        frames = batch.frames[torch.arange(size)[:, None].to(order), order]
        view, grid = _random_view(frames, generator)
        main = self._keys(torch.cat((frames, view[:, :1]), 1))
        with torch.no_grad():
            regular = self._keys(view[:, 1:])
        reference, others, mirror = main[:, 0], main[:, 1:count], main[:, count]

        anchors = sample_grid(reference, ANCHOR_GRID, torch.rand(size, 2, generator=generator).to(frames.device))
        labels = pseudo_labels(regular, anchors.detach())
        self_training = self_training_loss(_warp(others, grid), anchors, labels, TEMPERATURE)

        offset = torch.rand(size, 2, generator=generator).to(frames.device)
        aligned = sample_grid(_warp(reference[:, None], grid)[:, 0], VIEW_GRID, offset)
        cross_view = cross_view_loss(aligned, sample_grid(mirror, VIEW_GRID, offset), TEMPERATURE)
        loss = self_training + CROSS_VIEW_WEIGHT * cross_view
        return {"loss": loss, "self_training": self_training, "cross_view": cross_view}

    def _keys(self, frames: Tensor) -> Tensor:
        keys = self.module.key(normalised_rgb(frames.flatten(0, 1)))
        return keys.view(*frames.shape[:2], *keys.shape[1:])


def _random_view(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The frames under one random similarity per clip, and the sampling positions on the feature grid.

    Args:
        frames: (B, T, 3, S, S).
        generator: on the CPU.

    Returns:
        (B, T, 3, S, S), and (B, S/8, S/8, 2).
    """
    batch, side = len(frames), frames.shape[-1]
    scale = 0.5 + 0.5 * torch.rand(batch, generator=generator)
    shift = (2 * torch.rand(batch, 2, generator=generator) - 1) * (1 - scale)[:, None]
    flip = 1 - 2 * torch.randint(2, (batch,), generator=generator).float()
    scale, shift, flip = (x.to(frames.device) for x in (scale, shift, flip))
    view = sample(frames.flatten(1, 2), similarity_grid(scale, shift, flip, (side, side)))
    cells = side // STRIDE
    return view.view_as(frames), similarity_grid(scale, shift, flip, (cells, cells))


def _warp(features: Tensor, grid: Tensor) -> Tensor:
    """Bring features (B, T, C, h, w) into the other view; nearest, so that they stay unit vectors."""
    return sample(features.flatten(1, 2), grid, mode="nearest").view(*features.shape[:3], *grid.shape[1:3])
