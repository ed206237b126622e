"""A method that does all in one step of an object that changes, as the engines of others do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tests.fakes import FakeConfig
from vostrack.methods.base import Objective
from vostrack.ops.labels import correct, one_hot
from vostrack.types import LabelMap
from vostrack.weights import Adopt

NAME, PATH = "steps", "tests.steps:SteppingMethod"


class Engine:
    """Masks move to the right, a pixel a frame."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self.pixels = torch.zeros(0)
        self.frames = 0


class SteppingMethod:
    name: ClassVar[str] = NAME
    paper: ClassVar[str] = "none"
    presets: ClassVar[Mapping[str, FakeConfig]] = {"default": FakeConfig()}
    nets: ClassVar[Mapping[str, type[nn.Module]]] = {}
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[Objective] | None] = None
    state_type: ClassVar[type[Any]] = Engine

    def __init__(self, net: nn.Module, config: FakeConfig) -> None:
        self.net, self.config = net, config

    def step(self, image: Tensor, given: LabelMap | None, state: Any = None) -> tuple[Any, Tensor]:
        engine = state or Engine()
        if state is None:
            engine.pixels = torch.zeros(image.shape[1:], dtype=torch.uint8)
        engine.frames += 1
        engine.pixels = torch.roll(engine.pixels, 1, 1)
        if given is not None:
            engine.ids += tuple(number for number in given.ids if number not in engine.ids)
            engine.pixels = correct(engine.pixels, given.pixels, given.ids)
        return engine, one_hot(engine.pixels, engine.ids)
