"""Training of `mast-mem`: a frame's colours are reconstructed from other frames through the affinity of their features.

Paper: MAST (Lai et al., 2020), section 3; Zhu et al. (2020), section 3.1-3.2, Eq. 1-8, and 4.1. What the papers leave
open (the knee of the Huber loss, how strong the colour jitter is, that the copied colours are free of it) is as in
MAST's and CorrFlow's published code. Channel dropout with p = 0.5 is read as there: exactly one of a and b is hidden,
each half of the time, and only it is reconstructed.

Differs: time is reversed half of the time, so that a frame is restored from later ones as well.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from math import pi

import torch
from torch import Tensor, nn

from vostrack.config import setting
from vostrack.errors import MethodError
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.nets.encoders import MastNet, MomentumNet
from vostrack.ops.color import drop_channel, jitter_lab, normalised_lab
from vostrack.ops.grid import to_cells, to_pixels
from vostrack.ops.losses import photometric_loss
from vostrack.ops.window import window_attention


@dataclass(frozen=True)
class MastRecipe(Recipe):
    """How a network is trained."""

    references: int = setting(1, "number of frames that a frame is restored from", low=1)
    momentum: float = setting(0.0, "how slowly a copy follows the network (m of Eq. 8); 0 for none", low=0, below=1)
    radius: int = setting(6, "half the side of a cell's window", low=1, unit="cells")
    jitter: float = setting(0.3, "share of the clips whose colours are changed", low=0, high=1)

    def check(self) -> None:
        """Two encoders need what trains the second one."""
        super().check()
        if self.net == "momentum" and not self.momentum:
            raise MethodError("momentum must be above 0 for the network `momentum`, whose second encoder is the copy")


# Zhu et al. give no rate for the pairs: 1e-3 is MAST's, with 12 of them a step. With 4 to 6 it did not lower the loss
# in 60 steps. Their 1e-4 with the momentum copy goes with large batches: with 4 clips the loss rose by some 4 % in 40
# steps, and with 3e-5 it did not.
_PAPER = MastRecipe(crop=384, batch=48, steps=120_000, learning_rate=1e-3, radius=12)
RECIPES = {
    "default": MastRecipe(crop=96),
    "shipped": MastRecipe(crop=96, steps=1243, jitter=0.0),
    "shallow": MastRecipe(net="shallow", crop=128, batch=8, steps=1200, radius=8, jitter=0.0),
    "paper": _PAPER,
    "momentum": MastRecipe(
        start="mast-mem", crop=96, batch=4, steps=1000, learning_rate=3e-5, references=3, momentum=0.999
    ),
    "momentum-paper": replace(
        _PAPER, net="momentum", after="paper", steps=10_000, learning_rate=1e-4, references=5, momentum=0.999
    ),
}


class QueryAndReferences(nn.Module):
    """The network for the query; for its references the network too, or a copy that slowly follows it.

    Parameters and buffers follow alike. In training both normalise with the statistics of their batches: were it that
    of the batch for one and averages for the other, features that match would not look alike.

    A `MomentumNet` has the copy in it, and its weights hold both. Without, the copy is used in training alone, and the
    method encodes all frames with the network that it follows, which it comes close to as the learning rate falls.

    Paper: Zhu et al. (2020), Eq. 5 and 8.
    """

    def __init__(self, net: MastNet, momentum: float) -> None:
        """Train `net` in place; the copy starts as it is, or as its second encoder is.

        Args:
            net: the network.
            momentum: m, in [0, 1); 0 for no copy.
        """
        super().__init__()
        self.net, self.momentum = net, momentum
        self.copy: MastNet | None = None
        if momentum:
            own = net.references if isinstance(net, MomentumNet) else deepcopy(net)
            self.copy = own.requires_grad_(False)
            for module in self.copy.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.0  # its running statistics follow the network's, not its own batches

    def forward(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Features of clips, with gradients through all of them, or where there is a copy through the query alone.

        Args:
            lab: (B, T, 3, S, S); the last frame is the query.

        Returns:
            Of the query (B, C, h, w) and of its references (B, T - 1, C, h, w).
        """
        if self.copy is None:
            features = self.net(lab.flatten(0, 1)).unflatten(0, lab.shape[:2])
            return features[:, -1], features[:, :-1]
        with torch.no_grad():
            references = self.copy(lab[:, :-1].flatten(0, 1))
        return self.net(lab[:, -1]), references.unflatten(0, (len(lab), -1))

    @torch.no_grad()
    def follow(self) -> None:
        """Take a step towards the network (Eq. 8), where there is a copy."""
        if self.copy is None:
            return
        leading = self.net.state_dict()
        for name, own in self.copy.state_dict().items():
            if own.is_floating_point():
                own.lerp_(leading[name], 1 - self.momentum)
            else:
                own.copy_(leading[name])


class MastObjective(Objective):
    """Reconstruction of a hidden colour channel: pairwise, or from several references that a momentum copy encodes."""

    recipes = RECIPES

    def __init__(self, net: MastNet, recipe: MastRecipe = RECIPES["default"]) -> None:
        """Train `net` in place, as the recipe says."""
        self.module: QueryAndReferences = QueryAndReferences(net, recipe.momentum)
        # The smallest crop is half of the short side: it is not enlarged.
        side = max(ClipSpec.short_side, 2 * recipe.crop)
        self.clips = ClipSpec(frames=recipe.references + 1, gap=3, crop=recipe.crop, short_side=side)
        self.learning_rate = recipe.learning_rate
        self._stride, self._radius, self._jitter = net.stride, recipe.radius, recipe.jitter

    def after_step(self) -> None:
        """Let the momentum copy follow."""
        self.module.follow()

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of restoring the last frame from the others, or the first one with the time reversed.

        Args:
            batch: frames (B, T, 3, S, S) in [0, 1].
            generator: on the CPU.

        Returns:
            "loss".

        Paper: Zhu et al. (2020), Eq. 1-3, 6 and 7.
        """
        frames = batch.frames.flip(1) if torch.rand((), generator=generator) < 0.5 else batch.frames
        hidden = 1 + int(torch.randint(2, (), generator=generator))
        strengths = jitter_strengths((len(frames), frames.shape[1]), self._jitter, generator).to(frames.device)
        # Where the network computes with fewer digits: too few for colours, and for scores that go into the hundreds.
        exact = torch.autocast(frames.device.type, enabled=False)
        with exact:
            lab = normalised_lab(frames)
            colours, seen = lab[:, :, hidden], drop_channel(jitter_lab(lab, strengths), hidden)
        query, references = self.module(seen)
        with exact:
            known = to_cells(colours[:, :-1].flatten(0, 1), self._stride)
            known = known.view(len(frames), -1, 1, *known.shape[1:])
            copied = window_attention(query.to(known), references.to(known), known, self._radius)
            restored = to_pixels(copied[:, 0], self._stride, (frames.shape[-2], frames.shape[-1]))
            return {"loss": photometric_loss(restored, colours[:, -1])}


def jitter_strengths(clips: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """Random strengths for `ops.color.jitter_lab`.

    Chance decides for a clip whether it is changed, and for each of its frames how much, as in CorrFlow's published
    code: features have to match in spite of it.

    Args:
        clips: (B, T).
        share: probability that a clip is changed.
        generator: on the CPU.

    Returns:
        (B, T, 4), on the CPU.
    """
    changed = torch.rand(clips[0], 1, 1, generator=generator) < share
    largest = torch.tensor([0.1, 0.1, 0.1, 0.1 * 2 * pi])
    amount = (2 * torch.rand(*clips, 4, generator=generator) - 1) * largest
    return torch.tensor([1.0, 1.0, 1.0, 0.0]) + amount * changed
