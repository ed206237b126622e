"""`best`: the parts of the other methods that measured best together.

What it is made of: stages of the networks of `anchors` and of `mast-mem` side by side, each the mean over the frame and
its mirror image, and two of the frame at twice its size beside them, or one small network that learned to say the same
in a single pass; the matching of `videomatch`, which asks of each label by itself how well a cell matches it, in the
first frame and in recent ones that are spaced as those of `mast-mem` are; then the labels are brought from cells to
pixels along the edges of the image.
docs/ablations.md has what each of these is worth, and what was left out.

No paper of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vostrack.config import setting
from vostrack.device import autocast
from vostrack.errors import MethodError
from vostrack.matching.matcher import SoftMatcher
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods.objectives.distil import DistilObjective
from vostrack.nets.distilled import DistilledNet
from vostrack.nets.encoders import BestNet, mean_over_views, trunk_tensors
from vostrack.ops.color import normalised_lab, normalised_rgb, rgb_to_lab, scaled_lab
from vostrack.ops.grid import cells
from vostrack.ops.hypercolumns import Stage, hypercolumns, lab_colours
from vostrack.weights import Adopt

TWO, ONE = "default", "distilled"
"""Networks that features may come from, by the names of their architectures."""


@dataclass(frozen=True)
class BestConfig(SoftMatcherConfig, group="features"):
    """Settings of the propagation: those of `videomatch`, and a few more."""

    network: str = setting(
        TWO,
        f"without named weights, {TWO} has two networks, {ONE} one that learned from them",
        choices=(TWO, ONE),
    )
    stages: tuple[int, ...] = setting((1, 2, 3), "stages of the network of anchors", choices=(1, 2, 3))
    fine_stages: tuple[int, ...] = setting(
        (1, 2),
        "stages of the network of anchors for the frame at twice its size; empty for none",
        choices=(1, 2, 3),
    )
    views: int = 2
    mast_stages: tuple[int, ...] = setting(
        (1, 2), "stages of the network of mast-mem; empty for none", choices=(1, 2), empty=True
    )


# Without outliers in the background, what no object can have reached need not be matched. What one network learned of
# the directions that vary least is uncertain: fewer of them count, and less.
PRESETS = {
    "default": BestConfig(),
    "accurate": BestConfig(),
    "balanced": BestConfig(agility=2.0, surround=64),
    "fast": BestConfig(
        network=ONE,
        views=1,
        axes=64,
        whitening=0.6,
        template_share=0.26,
        agility=2.0,
        absence=0.92,
        background_update=False,
    ),
}


class BestMethod(SoftMatcher):
    """Soft matching of features of one network or of two; masks follow the edges of the image."""

    name: ClassVar[str] = "best"
    paper: ClassVar[str] = "none; the parts of the others that measured best together"
    presets: ClassVar[Mapping[str, BestConfig]] = PRESETS
    nets: ClassVar[Mapping[str, Callable[[], BestNet | DistilledNet]]] = {TWO: BestNet, ONE: DistilledNet}
    adopts: ClassVar[Mapping[str, Adopt]] = {
        "anchors": partial(trunk_tensors, stages=3, prefix="anchors."),
        "mast-mem": partial(trunk_tensors, stages=2, prefix="mast."),
    }
    objective: ClassVar[type[DistilObjective]] = DistilObjective
    config: BestConfig

    def __init__(self, net: BestNet | DistilledNet, config: BestConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        super().__init__(config or self.presets["default"])
        self.net = net
        if isinstance(net, DistilledNet):
            _refuse_stages(self.config)

    def encode(self, image: Tensor) -> Tensor:
        """What the network or the networks say of each cell, and its colours (C, h, w)."""
        config, lab = self.config, rgb_to_lab(image)
        # Colours are converted outside of the network, where no rounding to bfloat16 reaches them.
        said = self._describe(normalised_rgb(image)[None], scaled_lab(lab)[None])
        if config.colour:
            own = config.colour * lab_colours(lab, config.stride)[None]
            said.append(own.contiguous(memory_format=torch.channels_last))
        return torch.cat(said, 1)[0]

    def describe(self, images: Tensor) -> Tensor:
        """What the network or the networks say of each cell (B, C, h, w) of images (B, 3, H, W) in [0, 1].

        Of the two networks these are hypercolumns of unit length side by side: one of `anchors`, one of `anchors` for
        the frame at twice its size, one of `mast-mem`.
        """
        return torch.cat(self._describe(normalised_rgb(images), normalised_lab(images)), 1)

    def _describe(self, rgb: Tensor, lab: Tensor) -> list[Tensor]:
        """The same of images (B, 3, H, W) whose colours are converted, in parts."""
        config = self.config
        if isinstance(self.net, DistilledNet):
            step, net, both = config.stride // self.net.stride, self.net, torch.cat((rgb, lab), 1)
            with autocast(config.precision, rgb.device):
                (said,) = mean_over_views(lambda seen: [net(seen)], both, (net.coarsest,), config.views)
            return [said[:, :, ::step, ::step]]
        size = cells((rgb.shape[2], rgb.shape[3]), config.stride)
        return [hypercolumns(stages, config.stride, size) for stages in _stages(self.net, config, rgb, lab)]


def _stages(net: BestNet, config: BestConfig, rgb: Tensor, lab: Tensor) -> Iterator[Sequence[Stage]]:
    """The stages of the two networks, one scale of one network after the other."""
    yield from net.anchors.scales(rgb, config.stages, config.fine_stages, config.views, config.precision)
    if config.mast_stages:
        yield net.mast.chosen_stages(lab, config.mast_stages, config.views, config.precision)


def _refuse_stages(config: BestConfig) -> None:
    """One network has no stages to choose from: a choice must not be passed over."""
    for name in ("stages", "fine_stages", "mast_stages"):
        if getattr(config, name) != getattr(PRESETS["default"], name):
            raise MethodError(
                f"{name} chooses stages of two networks, and these weights are of one: use `weights=best`"
            )
