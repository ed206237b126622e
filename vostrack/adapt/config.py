"""Settings of online adaptation, and what they cost.

Imports no torch, so that a command line can list them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from vostrack.config import with_options
from vostrack.errors import MethodError, unknown_name

ADAPTATIONS = ("clip", "live")

FEW_ITERATIONS = 100
"""Below this many steps the network was seen to make good masks worse."""


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of online adaptation.

    A step took 0.9 seconds of one core of an AMD EPYC server with the default settings and 6.2 with those of the paper,
    and half of that where the processor multiplies bfloat16 numbers. The sample takes (capacity + given masks) * 4 *
    size² bytes. Training needs up to 2.6 GB with the settings of the paper, for the whole process.

    Attributes:
        iterations: optimiser steps; in the live form, those after which it trains less often and at a constant rate.
        size: side of the square that frames are resized to, in pixels.
        batch: images a step.
        learning_rate: of Adam, at the start.
        decay_every: steps after which the rate is multiplied by `decay`.
        decay: in (0, 1].
        capacity: most frames with a predicted mask in the training sample.
        given_share: share of the draws that go to frames with a given mask; the others go to all frames alike.
        half_life: frames after a given mask at which a predicted one weighs half as much.
        least_weight: weight that no frame falls below, in (0, 1].
        jitter: brightness, contrast and saturation are multiplied by up to 1 ± this.
        hue: the hue is turned by up to this share of the circle.
        grey: share of the images that lose their colour.
        flip: share of the images that are mirrored.
        live_steps: live form: optimiser steps after a frame.
        live_every: live form: once `iterations` steps are done, only every so many frames are followed by steps.
        live_warm_up: live form: steps before the adapted masks replace those of the method.
        seed: of all randomness.
    """

    iterations: int = 200
    size: int = 256
    batch: int = 2
    learning_rate: float = 2e-4
    decay_every: int = 50
    decay: float = 0.5
    capacity: int = 64
    given_share: float = 0.25
    half_life: float = 50.0
    least_weight: float = 0.25
    jitter: float = 0.3
    hue: float = 0.05
    grey: float = 0.1
    flip: float = 0.5
    live_steps: int = 2
    live_every: int = 5
    live_warm_up: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        limits: dict[str, tuple[float, float]] = {
            "size": (64, 2048),
            "batch": (1, 256),
            "capacity": (1, 4096),
            **dict.fromkeys(("iterations", "decay_every", "live_every", "live_steps", "live_warm_up"), (1, inf)),
            **dict.fromkeys(("given_share", "jitter", "grey", "flip"), (0, 1)),
            "hue": (0, 0.5),
            "seed": (0, 2**63 - 1),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise MethodError(f"adaptation: {name} must be {_range(least, most)}, not {getattr(self, name)}")
        for name, most in (("learning_rate", inf), ("half_life", inf), ("decay", 1), ("least_weight", 1)):
            if not 0 < getattr(self, name) <= most or getattr(self, name) == inf:
                wanted = "above 0" if most == inf else f"above 0 and at most {most}"
                raise MethodError(f"adaptation: {name} must be {wanted}, not {getattr(self, name)}")


def _range(least: float, most: float) -> str:
    return f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"


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
    form: str | None, preset: str = "default", options: Mapping[str, str] | None = None
) -> AdaptConfig | None:
    """Settings of an adaptation; None where none is wanted.

    Args:
        form: "clip" for two passes, "live" for one that sees no future frames, or None.
        preset: named settings.
        options: settings to change, as text.

    Raises:
        MethodError: an unknown form, preset or option, a value out of range, or settings of no adaptation.
    """
    if form is None:
        if options or preset != "default":
            asked = ", ".join(options or ()) or f"the preset {preset}"
            raise MethodError(f"there is no adaptation to set {asked} of: ask for one (clip or live)")
        return None
    if form not in ADAPTATIONS:
        raise MethodError(unknown_name("adaptation", form, ADAPTATIONS))
    if preset not in PRESETS:
        raise MethodError(unknown_name("preset of the adaptation", preset, PRESETS))
    return with_options(PRESETS[preset], options or {}, "adaptation")
