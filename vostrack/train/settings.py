"""How long, on how much and how precisely to train, and the learning rate that follows from it.

Knows nothing of what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vostrack.config import Config, setting
from vostrack.device import has_fast_bfloat16
from vostrack.errors import VostrackError, unknown_name

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done: (1 - done) ** 0.9,
}
"""Factors of the learning rate by the share of the run that is done, in [0, 1]."""

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class TrainConfig(Config):
    """How long, on how much and how precisely to train. Weights and their updates have 32 bits."""

    steps: int = setting(2000, "optimiser steps of the whole run", low=1)
    batch: int = setting(6, "clips in a step (B)", low=1)
    schedule: str = setting("cosine", "curve along which the learning rate falls", choices=tuple(SCHEDULES))
    micro_batches: int = setting(1, "parts that a batch is computed in, a multiple of the number of processes", low=1)
    seed: int = setting(0, "seed of all randomness")
    precision: str = setting("32", "bits of losses and gradients", choices=tuple(PRECISIONS))
    compile: bool = setting(False, "whether the module goes through torch.compile")
    evaluate_every: int = setting(200, "steps from one evaluation to the next, if there is footage for it", low=1)
    patience: int | None = setting(None, "evaluations in a row without gain that end the run; None for never", low=1)
    max_minutes: float | None = setting(None, "training time after which the run ends early", above=0, unit="minutes")
    save_minutes: float = setting(2.0, "time between checkpoints", low=0, unit="minutes")


def learning_rate(base: float, step: int, seconds: float, config: TrainConfig) -> float:
    """Rate of a step: a linear warm-up of 20 steps, and the schedule.

    "cosine" is half a cosine down to a hundredth of `base`; "poly" is (1 - done)^0.9, taken anew at each step: random
    clips have no epochs.

    Args:
        base: the highest rate.
        step: steps done.
        seconds: time trained.
        config: gives the schedule, and the ends of both.
    """
    return base * min(1.0, (step + 1) / 20) * SCHEDULES[config.schedule](share_done(config, step, seconds))


def share_done(config: TrainConfig, step: int, seconds: float) -> float:
    """Share of the run that is done, in [0, 1]: of the steps, or of the minutes where these end it earlier."""
    minutes = config.max_minutes
    return min(1.0, max(step / config.steps, seconds / (60 * minutes) if minutes else 0.0))


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of a name; "auto" takes bfloat16 on devices that are quick at it, and else 32 bits.

    Raises:
        VostrackError: an unknown precision.
    """
    if name == "auto":
        return "bf16" if has_fast_bfloat16(device) else "32"
    if name not in PRECISIONS:
        raise VostrackError(unknown_name("precision", name, ("auto", *PRECISIONS)))
    return name
