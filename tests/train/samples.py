"""Footage on the disk and an objective in a few lines: they carry the tests of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tests.fakes import FakeMethod
from vostrack.methods.base import Batch, ClipSpec, Objective
from vostrack.methods.recipe import Recipe
from vostrack.train.data.cache import FrameCache
from vostrack.train.loop import train
from vostrack.train.parallel import ProcessGroup
from vostrack.train.reports import StepReport
from vostrack.train.settings import TrainConfig

CPU = torch.device("cpu")
ALONE = ProcessGroup(CPU)


class Mean(Objective):
    """Learns the mean colour of clips; has batch statistics, a momentum copy and randomness, as real ones do."""

    learning_rate = 0.1
    clips = ClipSpec(frames=2, gap=2, crop=8)

    def __init__(self, offset: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
        for parameter in self.module.parameters():
            parameter.data = torch.rand(parameter.shape, generator=generator)
        self.module.get_submodule("2").requires_grad_(False)
        self.offset = offset

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.rand(len(batch.frames), 1, 3, 1, 1, generator=generator)
        wanted = (batch.frames + 0.1 * noise).flatten(0, 1)
        loss = (self.module(wanted) - batch.frames.flatten(0, 1)).square().mean() + self.offset
        return {"loss": loss, "noise": noise.mean()}

    def after_step(self) -> None:
        first, _, copy = self.module.children()
        with torch.no_grad():
            copy.weight.lerp_(first.weight, 0.1)  # type: ignore[operator, arg-type]


def write_image(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def write_footage(root: Path) -> Path:
    """Two folders of frames: brightness that grows with time, and noise."""
    generator = np.random.default_rng(0)
    for index in range(6):
        write_image(root / "a" / f"{index}.png", np.full((20, 30, 3), 30 * index))
        write_image(root / "b" / f"{index}.png", generator.integers(0, 255, (24, 18, 3)))
    return root


def write_labelled(root: Path, count: int = 6, value: int = 255, names: tuple[str, ...] = ("one", "two")) -> Path:
    """Sequences laid out as DAVIS: on the object, pixels are (200, y, x); elsewhere (0, y, x)."""
    y, x = np.mgrid[:40, :60]
    for name in names:
        for index in range(count):
            labels = ((abs(y - 20) < 9) & (abs(x - 15 - 4 * index) < 9)) * value
            pixels = np.stack((200 * (labels > 0), y, x), -1)
            write_image(root / "JPEGImages" / "480p" / name / f"{index:05d}.png", pixels)
            write_image(root / "Annotations" / "480p" / name / f"{index:05d}.png", labels)
    return root


def run(
    objective: Any,
    cache: FrameCache,
    folder: Path,
    recipe: Recipe,
    config: Mapping[str, Any] | None = None,
    stop: int | None = None,
    group: ProcessGroup = ALONE,
    **more: Any,
) -> list[float]:
    """Train with 32 bits unless the settings of the run say otherwise, up to a step; gives the losses."""
    folder.mkdir(exist_ok=True)
    full = TrainConfig(**{"precision": "32", **(config or {})})
    reports, losses = train(objective, recipe, cache, full, folder, group, **more), []
    for report in reports:
        if isinstance(report, StepReport):
            losses.append(report.losses["loss"])
            if report.step == stop:
                reports.close()
                break
    return losses


@dataclass(frozen=True)
class TinyRecipe(Recipe):
    crop: int = 32
    batch: int = 2
    steps: int = 4
    masks: bool = False
    target: float = 1.0


class TinyObjective(Objective):
    """Takes the method's only parameter to a target, step by step; brightness adds noise."""

    recipes: ClassVar[Mapping[str, TinyRecipe]] = {
        "default": TinyRecipe(),
        "masks": TinyRecipe(masks=True),
        "spoil": TinyRecipe(target=-60.0, learning_rate=4.0, steps=30),
    }
    source_gap = 0

    def __init__(self, net: nn.Module, recipe: TinyRecipe) -> None:
        self.module, self.recipe, self.learning_rate = net, recipe, recipe.learning_rate
        gap = self.source_gap
        self.clips = ClipSpec(frames=2, gap=2, crop=recipe.crop, labels=recipe.masks, source_gap=gap)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert (batch.labels is not None) == self.recipe.masks
        noise = batch.frames.mean() * torch.rand((), generator=generator)
        return {"loss": (self.module.get_parameter("scale") - self.recipe.target - 0.01 * noise).square().mean()}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.module.parameters(), lr=self.learning_rate)


class TinyMethod(FakeMethod):
    """The method that follows colours, with something to train: below zero, its scale turns it upside down."""

    name: ClassVar[str] = "tiny"
    objective: ClassVar[type[Objective] | None] = TinyObjective
