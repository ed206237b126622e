"""Training of `anchors`: space-time self-training against anchors with cross-view consistency.

Paper: Araslanov et al. (2021), section 3.3, Eq. 1-6. What the paper leaves open (jitter of the whole grid, nearest
sampling, the reference in the main branch, momenta of Adam) is as in its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.methods.base import ClipSpec
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import sample, similarity_grid
from vostrack.ops.losses import cross_view_loss, pseudo_labels, sample_grid, self_training_loss

STRIDE = 8
TEMPERATURE = 0.05
ANCHOR_GRID = 8
VIEW_GRID = 4
CROSS_VIEW_WEIGHT = 0.1


class AnchorsObjective:
    """Space-time self-training against anchors with cross-view consistency.

    Paper: Araslanov et al. (2021), Eq. 1-6, section 3.3.
    """

    def __init__(self, net: AnchorsNet, crop: int = 128, learning_rate: float | None = None) -> None:
        """Train `net` in place.

        Args:
            net: the network.
            crop: side of the training crops in pixels, a multiple of 64.
            learning_rate: of Adam; the default suits short runs, the paper's is 1e-4 at 16 clips of 256-pixel crops.
        """
        self.module: AnchorsNet = net
        self.clips = ClipSpec(frames=5, gap=4, crop=crop)
        self.learning_rate = 3e-4 if learning_rate is None else learning_rate

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam with the published momenta and weight decay."""
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate, betas=(0.5, 0.999), weight_decay=5e-4)

    def after_step(self) -> None:
        """Nothing follows a step."""

    def losses(self, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Both losses; the order of the frames is drawn at random, so that any frame may be the reference.

        Args:
            frames: (B, T, 3, S, S) in [0, 1].
            generator: on the CPU.

        Returns:
            "loss", "self_training" (Eq. 3) and "cross_view" (Eq. 5).
        """
        batch, count = frames.shape[:2]
        frames = frames[:, torch.randperm(count, generator=generator)]
        view, grid = _random_view(frames, generator)
        main = self._keys(torch.cat((frames, view[:, :1]), 1))
        with torch.no_grad():
            regular = self._keys(view[:, 1:])
        reference, others, mirror = main[:, 0], main[:, 1:count], main[:, count]

        anchors = sample_grid(reference, ANCHOR_GRID, torch.rand(batch, 2, generator=generator).to(frames.device))
        labels = pseudo_labels(regular, anchors.detach())
        self_training = self_training_loss(_warp(others, grid), anchors, labels, TEMPERATURE)

        offset = torch.rand(batch, 2, generator=generator).to(frames.device)
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
