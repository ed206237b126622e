"""Training of `best` in one network: it learns to say in one pass what the two networks say in several.

What the two say of a cell is 832 numbers, most of which repeat each other. The network gives coordinates along their
principal axes over the footage, found in the first steps. Axes of a small variance matter too, since matching whitens
them in part (`whitening` of the method): coordinates are divided by their deviation and weighted by its power
1 - `whitening`. Two losses say how far the coordinates lie apart and at what angle; the third compares what counts in
the end, to which other cells a cell is similar.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), for learning from a network's answers;
Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019), for comparing similarities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vostrack.config import setting
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.distilled import CHANNELS, DistilledNet
from vostrack.ops.color import normalised_lab, normalised_rgb

if TYPE_CHECKING:
    from vostrack.methods.best import BestMethod

_POWER = 1 - SoftMatcherConfig.whitening
"""What is left of a deviation when the method has whitened."""

_QUERIES = 128
"""Cells of a crop whose similarities are compared."""


@dataclass(frozen=True)
class DistilRecipe(Recipe):
    """How the network is trained."""

    net: str = setting("distilled")
    crop: int = setting(160)
    steps: int = setting(12_000)
    learning_rate: float = setting(1.5e-3)
    teacher: str = setting("best", "weights of the two networks, by name or file")
    axes_steps: int = setting(60, "first steps, in which the principal axes are found", low=1)
    similarity: float = setting(0.2, "weight of the loss on similarities between cells", low=0)


RECIPES = {"default": DistilRecipe(), "distil": DistilRecipe()}


class DistilObjective(Objective):
    """Coordinates of what the teacher says, their angle, and the similarities that follow."""

    recipes = RECIPES
    module: Student

    def __init__(self, net: DistilledNet, recipe: DistilRecipe = RECIPES["default"]) -> None:
        """Train `net` in place, as the recipe says; its teacher is loaded.

        Raises:
            WeightsError: the teacher's weights are missing or damaged.
        """
        from vostrack.methods import load_method

        teacher, _ = load_method("best", weights=recipe.teacher)
        self._teacher = cast("BestMethod", teacher)
        said = self._teacher.describe(torch.zeros(1, 3, recipe.crop, recipe.crop))
        self.module = Student(net, said.shape[1])
        self.clips = ClipSpec(frames=1, gap=1, crop=recipe.crop, scale=(0.33, 0.6), short_side=480)
        self.learning_rate = recipe.learning_rate
        self._recipe = recipe

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.module.net.parameters(), self.learning_rate, weight_decay=1e-2)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """How far the network is from its teacher.

        Args:
            batch: frames (B, 1, 3, S, S) in [0, 1].
            generator: chooses the cells whose similarities are compared.

        Returns:
            "loss", "distance", "angle" and "similarity".
        """
        images = batch.frames[:, 0]
        seen = torch.cat((normalised_rgb(images), normalised_lab(images)), 1)
        found = self.module.net.coordinates(seen).float()
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            said = self.said(batch)
            if self.module.steps < self._recipe.axes_steps:
                self.module.observe(said)
            target = self.module.target(said)
        found, target = found * self.module.weights, target * self.module.weights
        distance = (found - target).square().mean()
        angle = 1 - F.cosine_similarity(found, target, dim=1).mean()
        queries = torch.randint(found[0, 0].numel(), (_QUERIES,), generator=generator).to(found.device)
        similarity = _divergence(found, target, queries)
        loss = distance + angle + self._recipe.similarity * similarity
        return {"loss": loss, "distance": distance, "angle": angle, "similarity": similarity}

    def said(self, batch: Batch) -> Tensor:
        """What the teacher says of a batch (B, C, h, w)."""
        images = batch.frames[:, 0]
        self._teacher.net.to(images.device)
        return self._teacher.describe(images)


class Student(nn.Module):
    """The network, and what is known of how its teacher's answers vary.

    Attributes:
        net: what is trained.
        steps: how many steps were looked at.
        mean: (C,) of what the teacher says.
        products: (C, C), mean of its products.
    """

    steps: Tensor
    mean: Tensor
    products: Tensor

    def __init__(self, net: DistilledNet, channels: int) -> None:
        """A network whose teacher says so many numbers of a cell."""
        super().__init__()
        self.net = net
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("products", torch.zeros(channels, channels))
        self._axes: tuple[float, Tensor] | None = None

    def observe(self, said: Tensor) -> None:
        """Look at answers (B, C, h, w) of another step."""
        rows = said.movedim(1, -1).flatten(0, 2)
        self.steps += 1
        self.mean += (rows.mean(0) - self.mean) / self.steps
        self.products += (rows.T @ rows / len(rows) - self.products) / self.steps

    def target(self, said: Tensor) -> Tensor:
        """Coordinates of deviation 1 (B, 160, h, w) of answers (B, C, h, w)."""
        axes = self._found_axes()
        return torch.einsum("kc,bchw->bkhw", axes, said - self.mean[:, None, None])

    def _found_axes(self) -> Tensor:
        """Principal axes (160, C) of what was looked at, each divided by its deviation."""
        seen = float(self.steps)
        if self._axes is None or self._axes[0] != seen:
            products, mean = self.products.cpu().double(), self.mean.cpu().double()
            variances, directions = torch.linalg.eigh(products - mean[:, None] * mean)
            deviation = variances[-CHANNELS:].flip(0).clamp(min=1e-12).sqrt()
            axes = directions[:, -CHANNELS:].flip(1)
            # Either way along an axis would do: while more is looked at, it must stay the same.
            axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
            self.net.deviation.copy_(deviation)
            self._axes = seen, (axes / deviation).T.to(self.mean)
        return self._axes[1]

    @property
    def weights(self) -> Tensor:
        """(160, 1, 1), what each coordinate counts; 1 on average."""
        powers = self.net.deviation**_POWER
        return (powers / powers.mean())[:, None, None]


def _divergence(found: Tensor, target: Tensor, queries: Tensor) -> Tensor:
    """How far the similarities of some cells to all others are from what they should be: a mean of divergences.

    Args:
        found: (B, K, h, w).
        target: the same.
        queries: int64 (Q,), cells of the flattened grid.
    """

    def rows(x: Tensor) -> Tensor:
        cells = F.normalize(x, dim=1).flatten(2)
        return (SoftMatcherConfig.scale * cells[:, :, queries].transpose(1, 2) @ cells).log_softmax(2)

    divergence = F.kl_div(rows(found), rows(target), log_target=True, reduction="sum")
    return divergence / (len(found) * len(queries))
