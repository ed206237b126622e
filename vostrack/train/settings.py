"""How a run trains, whatever its method, and the learning rate of a step.

Knows nothing of what is trained, and imports no torch, so that a command line can list the settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vostrack.config import Config, setting
from vostrack.methods.recipe import SCHEDULES, Recipe

WARM_UP = 20
"""Steps over which the learning rate rises."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a run trains, beside the recipe of its method. Weights and their updates have 32 bits."""

    seed: int = setting(0, "seed of all randomness")
    max_minutes: float | None = setting(
        None,
        "time limit, of which decoding takes half at most; the learning rate falls towards its end",
        above=0,
        unit="minutes",
    )
    clips: int | None = setting(None, "number of clips and images that are drawn at random from the footage", low=1)
    cache_size: float = setting(
        20.0,
        "most disk space for decoded frames; fewer are kept if all would take more",
        above=0,
        high=1_000_000,
        unit="GB",
    )
    evaluate_every: int = setting(200, "steps between evaluations, if there is footage for them", low=1)
    patience: int | None = setting(None, "evaluations in a row without gain after which the run ends", low=1)
    picture_minutes: float = setting(10.0, "time between pictures of predictions; 0 for none", low=0, unit="minutes")
    save_minutes: float = setting(2.0, "time between checkpoints", low=0, unit="minutes")
    precision: str = setting(
        "auto",
        "precision of losses and gradients; auto is bf16 where that is fast, else 32",
        choices=("auto", "32", "bf16", "16"),
    )
    micro_batches: int = setting(
        0, "parts that a batch is split into, a multiple of the number of processes; 0 for one a process", low=0
    )
    compile: bool = setting(False, "compile the network")


def learning_rate(base: float, schedule: str, step: int, done: float) -> float:
    """Rate of a step: a linear warm-up, and the schedule.

    "cosine" is half a cosine down to a hundredth of `base`; "poly" is (1 - done)^0.9, taken anew at each step: random
    clips have no epochs.

    Args:
        base: the highest rate.
        schedule: as recipes name it.
        step: steps done.
        done: share of the run that is done, in [0, 1].
    """
    return base * min(1.0, (step + 1) / WARM_UP) * SCHEDULES[schedule](done)


def share_done(recipe: Recipe, config: TrainConfig, step: int, seconds: float, decoding: float) -> float:
    """Share of the training that is done, in [0, 1]: of the steps, or of the minutes where these end it earlier.

    Args:
        recipe: gives the steps.
        config: gives the minutes.
        step: steps done.
        seconds: time of the run.
        decoding: what of it went before the training.
    """
    whole = 60 * (config.max_minutes or math.inf) - decoding
    return min(1.0, max(step / recipe.steps, (seconds - decoding) / whole if whole > 0 else 1.0))
