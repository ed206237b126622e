"""How a network is trained, as far as its method decides: the settings of a recipe.

Imports no torch, so that a command line can list them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vostrack.config import Config, setting
from vostrack.errors import MethodError

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done: (1 - done) ** 0.9,
}
"""Factors of the learning rate by the share of the run that is done, in [0, 1]."""


@dataclass(frozen=True)
class Recipe(Config):
    """How a network is trained. An objective's recipes may be of a subclass with settings of its own."""

    net: str = setting("default", "name of the network")
    start: str = setting("", "first weights, by name or file; empty for random ones")
    after: str = setting("", "recipe that these weights must come from")
    crop: int = setting(128, "side of the square crops, a multiple of 32", low=32, high=1024, unit="pixels")
    batch: int = setting(6, "clips in a step", low=1)
    steps: int = setting(2000, "optimiser steps", low=1)
    learning_rate: float = setting(3e-4, "initial learning rate", above=0)
    schedule: str = setting("cosine", "how the learning rate falls", choices=tuple(SCHEDULES))

    def check(self) -> None:
        """Crops fill whole cells at every stride of a network."""
        if self.crop % 32:
            raise MethodError(f"crop must be a multiple of 32, not {self.crop}")
