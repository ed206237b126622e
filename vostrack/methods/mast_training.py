"""Training of `mast-mem`: a frame's colours are reconstructed from another frame through the affinity of their
features.

Paper: MAST (Lai et al., 2020), section 3; Zhu et al. (2020), section 3.1, Eq. 1-3. What the papers leave open
(exactly one of the two colour channels is hidden and only it is reconstructed; the knee of the Huber loss) is as in
MAST's published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vostrack.methods.base import ClipSpec
from vostrack.nets.encoders import MastNet
from vostrack.ops.attention import window_attention
from vostrack.ops.color import drop_channel, normalised_lab
from vostrack.ops.grid import to_cells, to_pixels
from vostrack.ops.losses import photometric_loss

RADIUS = 6


class MastObjective:
    """Pairwise reconstruction of a hidden colour channel."""

    def __init__(self, net: MastNet, crop: int = 128, learning_rate: float | None = None) -> None:
        """Train `net` in place.

        Args:
            net: the network.
            crop: side of the training crops in pixels, a multiple of 32.
            learning_rate: of Adam. MAST's is 1e-3 with 12 pairs a step; with 4 to 6 pairs that did not lower the loss
                in 60 steps, and the default did.
        """
        self.module = net
        self.clips = ClipSpec(frames=2, gap=3, crop=crop)
        self.learning_rate = 3e-4 if learning_rate is None else learning_rate

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam without weight decay."""
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate)

    def after_step(self) -> None:
        """Nothing follows a step."""

    def losses(self, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of reconstructing the later frame from the earlier one or the other way round.

        Args:
            frames: (B, 2, 3, S, S) in [0, 1].
            generator: on the CPU.

        Returns:
            "loss".
        """
        if torch.rand((), generator=generator) < 0.5:
            frames = frames.flip(1)
        lab = normalised_lab(frames)
        hidden = 1 + int(torch.randint(2, (), generator=generator))
        keys = self.module(drop_channel(lab, hidden).flatten(0, 1))
        keys = keys.view(*frames.shape[:2], *keys.shape[1:])
        colours = lab[:, :, hidden]
        known = to_cells(colours[:, 0], self.module.stride)
        copied = window_attention(keys[:, 1], keys[:, :1], known[:, None, None], RADIUS)
        restored = to_pixels(copied[:, 0], self.module.stride, (frames.shape[-2], frames.shape[-1]))
        return {"loss": photometric_loss(restored, colours[:, 1])}
