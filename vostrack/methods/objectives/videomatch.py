"""Training of `videomatch`: features of one frame must match the object and the background of another.

Paper: VideoMatch (Hu, Huang, Schwing, 2018), sections 3.2 and 4.1. What the paper leaves open: the weight of the
softmax is a constant, a step learns one random object of each clip, and crops whose template lacks object or
background do not count.

Differs: the recipe `paper` trains the published network and read-out (last stage, stride 8), but from random weights
unless others are given: the paper starts from semantic segmentation. Size of the crops and the batch are not stated.
The other recipes start from weights that were trained without labels, and train the read-out of the preset `default`
with the same loss besides, so that one set of weights serves both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vostrack.config import setting
from vostrack.errors import MethodError
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.encoders import VideoMatchNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import to_cells, to_pixels
from vostrack.ops.hypercolumns import hypercolumns
from vostrack.ops.matching import matching_difference, matching_loss
from vostrack.types import BACKGROUND, VOID

SHORT_SIDES = (240, 720)
"""Short side, in pixels, of frames that crops are cut from: DAVIS's 480, scaled by the published 0.5 to 1.5."""


@dataclass(frozen=True)
class Readout:
    """Which features are matched, and how; the attributes are those of `SoftMatcherConfig`."""

    stages: tuple[int, ...]
    stride: int
    scale: float
    top_k: int
    top_share: float


LAST = Readout((4,), 8, 20.0, 20, 0.0)
FINE = Readout((1, 2, 3), 4, 40.0, 3, 0.25)
READOUTS = {"last": LAST, "fine": FINE}


@dataclass(frozen=True)
class VideoMatchRecipe(Recipe):
    """How a network is trained."""

    readouts: tuple[str, ...] = setting(
        ("last", "fine"),
        "what is learned: last is the published read-out, fine that of the preset `default`",
        choices=tuple(READOUTS),
    )


_DEFAULT = VideoMatchRecipe(start="anchors", crop=256, batch=4, steps=1000, learning_rate=1e-5, schedule="poly")
RECIPES = {
    "default": _DEFAULT,
    "dilated": replace(_DEFAULT, net="dilated"),
    "paper": replace(_DEFAULT, net="resnet101-dilated", start="", readouts=("last",)),
}


class VideoMatchObjective(Objective):
    """Matching of pairs of frames, with labels."""

    recipes = RECIPES

    def __init__(self, net: VideoMatchNet, recipe: VideoMatchRecipe = _DEFAULT) -> None:
        """Train `net` in place, as the recipe says."""
        self.module: VideoMatchNet = net
        scale = (recipe.crop / SHORT_SIDES[1], recipe.crop / SHORT_SIDES[0])
        # Frames of a pair may lie anywhere in their sequence; the longest of DAVIS has 104.
        # Crops are cut from frames of 480p, as published: those of a scale above 1 alone are enlarged.
        self.clips = ClipSpec(frames=2, gap=100, crop=recipe.crop, scale=scale, labels=True, short_side=480)
        self.learning_rate = recipe.learning_rate
        self._started, self._readouts = bool(recipe.start), recipe.readouts

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam with the published weight decay."""
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate, weight_decay=5e-4)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of labelling one frame of each pair from the other; which from which is random.

        Args:
            batch: frames (B, 2, 3, S, S) in [0, 1], with labels (B, 2, S, S).
            generator: on the CPU.

        Returns:
            "loss", the mean of those of the recipe's read-outs, which go by their names.

        Raises:
            MethodError: the batch has no labels.
        """
        if batch.labels is None:
            raise MethodError("videomatch learns from masks: give `data` with masks beside the footage")
        if self._started:
            # Keep the normalisation statistics that training started from: a few crops a step say little about them.
            for part in self.module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        size = len(batch.frames)
        template = torch.randint(2, (size,), generator=generator)
        pairs = torch.stack((template, 1 - template), 1).to(batch.frames.device)
        row = torch.arange(size, device=batch.frames.device)[:, None]
        frames, labels = batch.frames[row, pairs], batch.labels[row, pairs]
        target = torch.stack([pair == _random_object(pair[0], generator) for pair in labels])
        known = labels != VOID
        stages = self.module.stages(normalised_rgb(frames.flatten(0, 1)), 4)
        losses = {}
        # Similarities close to 1 are told apart by digits that half precision does not have.
        with torch.autocast(frames.device.type, enabled=False):
            for name in self._readouts:
                readout = READOUTS[name]
                features = _features(stages, self.module.stage_strides, readout, frames.shape[-1])
                losses[name] = _pair_loss(features.view(size, 2, *features.shape[1:]), target, known, readout)
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}


def _random_object(labels: Tensor, generator: torch.Generator) -> int:
    """One of the objects of a label map (S, S); void, which is none, where there are none."""
    ids = [number for number in torch.unique(labels).tolist() if number not in (BACKGROUND, VOID)]
    return ids[int(torch.randint(len(ids), (), generator=generator))] if ids else VOID


def _features(stages: list[Tensor], strides: tuple[int, ...], readout: Readout, side: int) -> Tensor:
    """Unit vectors (B, C, h, w) of a read-out."""
    cells = -(-side // readout.stride)
    chosen = [(stages[stage - 1].float(), strides[stage - 1]) for stage in readout.stages]
    return hypercolumns(chosen, readout.stride, (cells, cells))


def _pair_loss(features: Tensor, target: Tensor, known: Tensor, readout: Readout) -> Tensor:
    """Mean loss of the pairs whose template has object and background.

    Args:
        features: (B, 2, C, h, w), the template first.
        target: bool (B, 2, S, S), where the object is.
        known: bool (B, 2, S, S), what is not void.
        readout: that the features are of.

    Returns:
        A scalar; 0 where no pair counts.
    """
    total, count = features.sum() * 0, 0
    for pair, object_, certain in zip(features, target, known, strict=True):
        soft_labels = to_cells(torch.stack((object_[0] & certain[0], certain[0])).float(), readout.stride).flatten(1)
        whole = soft_labels[1] == 1
        foreground, background = whole & (soft_labels[0] > 0.5), whole & (soft_labels[0] <= 0.5)
        if not foreground.any() or not background.any():
            continue
        keys, query = pair[0].flatten(1).T, pair[1].flatten(1).T
        odds = matching_difference(query, keys[foreground], keys[background], readout.top_k, readout.top_share)
        grid, size = pair.shape[2:], (target.shape[2], target.shape[3])
        pixels = to_pixels(readout.scale * odds.view(1, *grid), readout.stride, size)
        total, count = total + matching_loss(pixels[0], object_[1], certain[1]), count + 1
    return total / max(count, 1)
