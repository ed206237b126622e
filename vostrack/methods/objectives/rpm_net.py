"""Training of `rpm-net`: a frame's colours are put together from another frame's, read where the network points.

Paper: RPM-Net (Kim et al., 2020), sections 3.3, 3.4 and 4.1, Eq. 5 to 7 and 9.

Differs: the recipe `paper` has the published settings, but for the batch, which is not stated, and the rate, which
falls with each step. The recipe `default` learns within an hour on a CPU: Adam, small crops that may be mirrored,
frames that are one or two tenths of a second apart, of which either may be the target, a random zoom and shift of each
frame as of a camera that shakes, Eq. 9 on blurred colours as well, since the gradient of bilinear sampling reaches no
further than a cell, and offsets that are kept smooth where the image is, since nothing else says what they should be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.config import setting
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.rpm_net import RpmNet, warp
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import sample, similarity_grid, to_cells


@dataclass(frozen=True)
class RpmRecipe(Recipe):
    """How the network is trained."""

    learning_rate: float = 1e-3
    optimizer: str = setting("adam", "optimiser", choices=("adam", "sgd"))
    blur: tuple[int, ...] = setting((0, 1, 3), "radii of blurs before colours are compared", low=0, unit="cells")
    shake: float = setting(0.15, "maximum share of its side by which a frame is cropped", low=0, below=1)
    smooth: float = setting(0.2, "weight of the roughness of the offsets", low=0)
    gap: int = setting(
        0,
        "source frames from reference to target; 0 takes one or two of ten a second",
        low=0,
        high=1000,
        unit="frames",
    )
    both_ways: bool = setting(True, "the later frame may be the reference too")
    whole: bool = setting(False, "the whole frame is squeezed instead of cropped, and not mirrored")


_PUBLISHED = RpmRecipe(blur=(0,), shake=0.0, smooth=0.0, gap=5, both_ways=False, whole=True)
RECIPES = {
    "default": RpmRecipe(),
    "shipped": RpmRecipe(steps=2400),
    # 100 epochs of 3501 videos.
    "paper": replace(
        _PUBLISHED, net="resnet101-deformable", crop=512, batch=4, steps=87525, schedule="poly", optimizer="sgd"
    ),
}


class RpmNetObjective(Objective):
    """Reconstruction of a frame's colours from another frame."""

    recipes = RECIPES

    def __init__(self, net: RpmNet, recipe: RpmRecipe = RECIPES["default"]) -> None:
        """Train `net` in place, as the recipe says."""
        self.module: RpmNet = net
        self.recipe = recipe
        self.clips = ClipSpec(frames=2, gap=2, crop=recipe.crop, source_gap=recipe.gap, whole=recipe.whole)
        self.learning_rate = recipe.learning_rate

    def optimizer(self) -> torch.optim.Optimizer:
        """What the recipe names."""
        if self.recipe.optimizer == "adam":
            return super().optimizer()
        return torch.optim.SGD(self.module.parameters(), lr=self.learning_rate, momentum=0.9, weight_decay=5e-4)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of reconstructing one frame of each pair from the other: the later one, or either by chance.

        Args:
            batch: frames (B, 2, 3, S, S) in [0, 1].
            generator: on the CPU.

        Returns:
            "loss"; "colour", Eq. 9 alone; "unmoved", what Eq. 9 gives where all offsets are 0. Colours are those that
            the network sees, of unit variance: the paper does not say, and its learning rate suits this scale.
        """
        turned = self.recipe.both_ways and torch.rand((), generator=generator) < 0.5
        frames = batch.frames.flip(1) if turned else batch.frames
        if self.recipe.shake:
            frames = shaken(frames, self.recipe.shake, generator)
        first, second = normalised_rgb(frames).unbind(1)
        embeddings = self.module.embed(torch.cat((first, second)))
        # Where the network computes with fewer digits: too few for positions once they are added to those of the cells.
        offsets = self.module.match(*embeddings.chunk(2)).float()
        reference, target = (to_cells(x.flatten(0, 1), self.module.stride) for x in (first, second))
        reference, target = (x.view(-1, 3, *x.shape[1:]) for x in (reference, target))
        by_blur = [
            colour_loss(warp(_blurred(reference, radius), offsets), _blurred(target, radius))
            for radius in self.recipe.blur
        ]
        with torch.no_grad():
            colour = colour_loss(warp(reference, offsets), target)
            unmoved = colour_loss(reference, target)
        loss = torch.stack(by_blur).sum() + self.recipe.smooth * roughness(offsets, target)
        return {"loss": loss, "colour": colour, "unmoved": unmoved}


def colour_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of colours (B, 3, h, w), mean over the cells.

    Paper: RPM-Net, Eq. 9.
    """
    return (prediction - target).square().sum(1).mean()


def roughness(offsets: Tensor, image: Tensor) -> Tensor:
    """How much neighbouring offsets differ, where the image does not.

    Args:
        offsets: (B, 2, h, w), in cells.
        image: (B, 3, h, w), normalised as `normalised_rgb` does.

    Returns:
        A scalar, in cells: the mean length of differences, each times exp(-2.2 |difference of colours|).
    """
    total = offsets.new_zeros(())
    for dim in (-2, -1):
        edge = image.diff(dim=dim).abs().mean(1)
        step = (offsets.diff(dim=dim).square().sum(1) + 1e-3).sqrt()  # with a gradient where nothing differs
        total = total + ((-2.2 * edge).exp() * step).mean()
    return total


def _blurred(x: Tensor, radius: int) -> Tensor:
    """Mean over boxes of 2 * radius + 1 cells a side, as far as they are inside."""
    return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False) if radius else x


def shaken(frames: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each frame of (B, T, 3, S, S) through a window of its own."""
    count = frames.shape[0] * frames.shape[1]
    scale = 1 - strength * torch.rand(count, generator=generator)
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None]
    scale, shift = scale.to(frames.device), shift.to(frames.device)
    grid = similarity_grid(scale, shift, torch.ones_like(scale), (frames.shape[-2], frames.shape[-1]))
    return sample(frames.flatten(0, 1), grid).view_as(frames)
