"""The training loop: one generator that draws clips, steps, and saves checkpoints that resume exactly.

Knows nothing of what it trains (`methods.base.Objective`) nor of terminals: progress bars and logs belong to the
caller, who gets a report for each step. Besides the checkpoint it writes `metrics.jsonl`, a line for each step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vostrack.errors import InputError, OutputError
from vostrack.files import atomic_path
from vostrack.methods.base import Objective
from vostrack.train.data import FrameCache, draw_clips

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"

_WARM_UP = 20


@dataclass(frozen=True)
class TrainConfig:
    """How long and on how much to train.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate falls along half a cosine to a hundredth.
        batch: clips a step (B).
        seed: of all randomness.
        max_minutes: training time after which the run ends early, over all resumed parts; the learning rate then
            follows whichever of steps and time is further on.
        save_minutes: time between checkpoints.
    """

    steps: int = 2000
    batch: int = 8
    seed: int = 0
    max_minutes: float | None = None
    save_minutes: float = 2.0


@dataclass(frozen=True)
class StepReport:
    """What one step did: number from 1, seconds trained so far, learning rate, losses by name."""

    step: int
    seconds: float
    learning_rate: float
    losses: dict[str, float]


def train(
    objective: Objective, cache: FrameCache, config: TrainConfig, folder: Path, device: torch.device
) -> Generator[StepReport]:
    """Train until the steps or the minutes are used up; goes on from the checkpoint in `folder` if there is one.

    Closing the generator (Ctrl-C in the caller) saves a checkpoint first.

    Args:
        objective: what to train; its module is moved to `device` and trained in place.
        cache: footage.
        config: length, batch, seed.
        folder: for `checkpoint.pt` and `metrics.jsonl`; must exist.
        device: where to train.

    Yields:
        A report after each step.

    Raises:
        InputError: the checkpoint belongs to another run (other settings) or is damaged.
        OutputError: the loss is not finite any more, or the folder cannot be written.
    """
    module = objective.module.to(device).to(memory_format=torch.channels_last).train()
    optimizer = objective.optimizer()
    generator = torch.Generator().manual_seed(config.seed)
    step, seconds = 0, 0.0
    if (folder / CHECKPOINT).exists():
        step, seconds = _load(folder, objective, optimizer, generator, config)
    _trim_metrics(folder / METRICS, step)
    saved = clock = time.monotonic()
    try:
        while step < config.steps and not _out_of_time(config, seconds):
            rate = learning_rate(objective.learning_rate, step, seconds, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            clips = draw_clips(cache, objective.clips, config.batch, generator, device)
            losses = objective.losses(clips, generator)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses["loss"])
            optimizer.step()
            objective.after_step()
            step += 1
            now = time.monotonic()
            seconds, clock = seconds + now - clock, now
            report = StepReport(step, seconds, rate, _finite(losses, step))
            _append(folder / METRICS, report)
            if now - saved > 60 * config.save_minutes:
                _save(folder, objective, optimizer, generator, config, step, seconds)
                saved = now
            yield report
    finally:
        _save(folder, objective, optimizer, generator, config, step, seconds)
        module.eval()


def learning_rate(base: float, step: int, seconds: float, config: TrainConfig) -> float:
    """Rate of a step: a short linear warm-up, then half a cosine down to a hundredth of `base`.

    Args:
        base: the highest rate.
        step: steps done.
        seconds: time trained.
        config: gives the ends of both.
    """
    done = step / config.steps
    if config.max_minutes:
        done = max(done, seconds / (60 * config.max_minutes))
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return base * min(1.0, (step + 1) / _WARM_UP) * (0.01 + 0.99 * cosine)


def _out_of_time(config: TrainConfig, seconds: float) -> bool:
    return config.max_minutes is not None and seconds >= 60 * config.max_minutes


def _finite(losses: dict[str, Tensor], step: int) -> dict[str, float]:
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not all(map(math.isfinite, values.values())):
        raise OutputError(f"the loss is not finite at step {step} ({values}): resume with a lower --lr")
    return values


def _identity(objective: Objective, config: TrainConfig) -> dict[str, Any]:
    """The settings that must not change between the parts of a run; limits of time may."""
    return {
        "objective": type(objective).__name__,
        "learning_rate": objective.learning_rate,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(objective.clips).items()},
        **asdict(replace(config, max_minutes=None, save_minutes=0)),
    }


def _save(
    folder: Path,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
    step: int,
    seconds: float,
) -> None:
    state = {
        "config": _identity(objective, config),
        "step": step,
        "seconds": seconds,
        "module": objective.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    with atomic_path(folder / CHECKPOINT) as path:
        torch.save(state, path)


def _load(
    folder: Path,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
) -> tuple[int, float]:
    path = folder / CHECKPOINT
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        now = _identity(objective, config)
        if state["config"] != now:
            differ = ", ".join(key for key in now if state["config"].get(key) != now[key])
            raise InputError(f"{path} was made with other settings ({differ}): use the same ones, or another --out")
        objective.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        return int(state["step"]), float(state["seconds"])
    except InputError:
        raise
    except Exception as error:  # torch.load raises whatever a damaged file provokes
        raise InputError(
            f"cannot resume from {path} ({type(error).__name__}): delete it or use another --out"
        ) from error


def _trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of steps that a killed run made after its last checkpoint: they are made again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()[:step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines))


def _append(path: Path, report: StepReport) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(report)) + "\n")
