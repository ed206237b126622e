"""How long, on how much and how precisely to train, and the learning rate that follows from it.

Knows nothing of what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vostrack.device import has_fast_bfloat16
from vostrack.errors import VostrackError, unknown_name

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done: (1 - done) ** 0.9,
}
"""Factors of the learning rate by the share of the run that is done, in [0, 1]."""

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

_WARM_UP = 20


@dataclass(frozen=True)
class TrainConfig:
    """How long, on how much and how precisely to train.

    Attributes:
        steps: optimiser steps of the whole run.
        batch: clips a step (B).
        schedule: how the learning rate falls; one of `SCHEDULES`.
        micro_batches: parts that a batch is computed in; divides `batch`, and is a multiple of the number of processes.
        seed: of all randomness.
        precision: of losses and gradients; one of `PRECISIONS`. Weights and their updates have 32 bits.
        compile: whether the module goes through `torch.compile`.
        evaluate_every: steps from one evaluation to the next, where there is something to evaluate on.
        patience: evaluations in a row without gain that end the run; None for never.
        max_minutes: training time after which the run ends early, over all resumed parts; the learning rate then
            follows whichever of steps and time is further on.
        save_minutes: time between checkpoints.
    """

    steps: int = 2000
    batch: int = 6
    schedule: str = "cosine"
    micro_batches: int = 1
    seed: int = 0
    precision: str = "32"
    compile: bool = False
    evaluate_every: int = 200
    patience: int | None = None
    max_minutes: float | None = None
    save_minutes: float = 2.0


def learning_rate(base: float, step: int, seconds: float, config: TrainConfig) -> float:
    """Rate of a step: a short linear warm-up, and the schedule.

    "cosine" is half a cosine down to a hundredth of `base`; "poly" is (1 - done)^0.9, taken anew at each step: clips
    that are drawn at random have no epochs.

    Args:
        base: the highest rate.
        step: steps done.
        seconds: time trained.
        config: gives the schedule, and the ends of both.
    """
    done = step / config.steps
    if config.max_minutes:
        done = max(done, seconds / (60 * config.max_minutes))
    return base * min(1.0, (step + 1) / _WARM_UP) * SCHEDULES[config.schedule](min(done, 1.0))


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
