"""Settings of online adaptation, and what they cost.

Imports no torch, so that a command line can list them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vostrack.config import Config, changed, setting
from vostrack.errors import MethodError, unknown_name

ADAPTATIONS = ("clip", "live")

FEW_ITERATIONS = 100
"""Below this many steps the network was seen to make good masks worse."""


@dataclass(frozen=True)
class AdaptConfig(Config):
    """Settings of online adaptation.

    A step took 0.9 seconds of one core of an AMD EPYC server with the default settings and 6.2 with those of the paper,
    and half of that where the processor multiplies bfloat16 numbers. The training frames take (capacity + given masks)
    * 4 * size² bytes. Training needs up to 2.6 GB with the settings of the paper, for the whole process.
    """

    iterations: int = setting(200, "optimiser steps; live: steps after which training becomes rarer", low=1)
    size: int = setting(256, "side of training squares", low=64, high=2048, unit="pixels")
    batch: int = setting(2, "images in a step", low=1, high=256)
    learning_rate: float = setting(2e-4, "initial learning rate of Adam", above=0)
    decay_every: int = setting(50, "steps after which the learning rate falls by a factor", low=1)
    decay: float = setting(0.5, "that factor", above=0, high=1)
    capacity: int = setting(64, "most training frames with predicted masks", low=1, high=4096)
    given_share: float = setting(0.25, "share of images with given masks", low=0, high=1)
    half_life: float = setting(50.0, "frames after which a predicted mask weighs half", above=0)
    least_weight: float = setting(0.25, "minimum weight of a frame", above=0, high=1)
    jitter: float = setting(0.3, "maximum change of brightness, contrast and saturation", low=0, high=1)
    hue: float = setting(0.05, "maximum change of hue, as a share of the circle", low=0, high=0.5)
    grey: float = setting(0.1, "share of images turned grey", low=0, high=1)
    flip: float = setting(0.5, "share of images mirrored", low=0, high=1)
    live_steps: int = setting(2, "live: optimiser steps after a frame", low=1)
    live_every: int = setting(5, "live: frames between trainings after `iterations`", low=1)
    live_warm_up: int = setting(100, "live: steps before the network's masks are used", low=1)
    seed: int = setting(0, "seed of all randomness", low=0)


PRESETS: Mapping[str, AdaptConfig] = {
    "default": AdaptConfig(),
    "paper": AdaptConfig(size=480, batch=4, capacity=128, given_share=0.0),
}
"""Settings by name.

Paper: Zhu et al. (2020), section 4.1 and appendix B: 480 x 480, Adam at 2e-4 decaying every 50 steps, 200 iterations,
jitter, grey and flip, early frames weighted more.
Differs: The paper does not state the batch, the factor of the decay, the strengths of the augmentation and the weights;
they are ours in both presets.
"""


def adaptation_config(
    form: str | None, preset: str = "default", settings: Mapping[str, Any] | None = None
) -> AdaptConfig | None:
    """Settings of an adaptation; None where none is wanted.

    Args:
        form: "clip" for two passes, "live" for one that sees no future frames, or None.
        preset: named settings.
        settings: settings to change, by name.

    Raises:
        MethodError: an unknown form, preset or setting, a value out of range, or settings of no adaptation.
    """
    if form is None:
        if settings or preset != "default":
            given = ", ".join(settings or ()) or f"the preset {preset}"
            raise MethodError(f"no adaptation was chosen for {given}: choose clip or live")
        return None
    if form not in ADAPTATIONS:
        raise MethodError(unknown_name("adaptation", form, ADAPTATIONS))
    if preset not in PRESETS:
        raise MethodError(unknown_name("preset of the adaptation", preset, PRESETS))
    return changed(PRESETS[preset], settings or {}, "adaptation")
