"""The training loop: one generator that draws clips, steps, and saves checkpoints that resume exactly.

Knows nothing of what it trains (`methods.base.Objective`) nor of terminals: progress bars and logs belong to the
caller, who gets a report for each step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vostrack.errors import OutputError
from vostrack.methods.base import Objective
from vostrack.train.checkpoint import append_metrics, load_checkpoint, save_checkpoint, trim_metrics, unusable
from vostrack.train.data.cache import FrameCache
from vostrack.train.gradients import MicroBatches
from vostrack.train.parallel import Team
from vostrack.train.settings import TrainConfig, learning_rate


@dataclass(frozen=True)
class StepReport:
    """What one step did: number from 1, seconds trained so far, learning rate, losses by name."""

    step: int
    seconds: float
    learning_rate: float
    losses: dict[str, float]


@dataclass(frozen=True)
class EvaluationReport:
    """How good the network is after a step: score of each held-out clip, their mean, and whether it is the best yet."""

    step: int
    seconds: float
    held_out: dict[str, float]
    mean: float
    best: bool


Report = StepReport | EvaluationReport


@dataclass(frozen=True)
class LoopPosition:
    """Where a run stands.

    Attributes:
        step: steps done.
        seconds: time trained, in all parts of the run.
        evaluated: step of the last evaluation; -1 before the first.
        best: highest mean score of an evaluation.
        stale: evaluations since then.
    """

    step: int = 0
    seconds: float = 0.0
    evaluated: int = -1
    best: float = -math.inf
    stale: int = 0


def train(
    objective: Objective,
    cache: FrameCache,
    config: TrainConfig,
    folder: Path,
    team: Team,
    evaluate: Callable[[], dict[str, float]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Generator[Report]:
    """Train until steps, minutes or patience are used up; goes on from the checkpoint in `folder` if there is one.

    Closing the generator (Ctrl-C in the caller) saves a checkpoint first.

    Args:
        objective: what to train; its module is moved to the team's device and trained in place.
        cache: footage.
        config: length, batch, seed.
        folder: for `checkpoint.pt` and `metrics.jsonl`; must exist.
        team: the processes that train; all of them call this.
        evaluate: scores of the network as it stands, by clip; the same in all processes.
        settings: whatever else must not change between the parts of a run.

    Yields:
        A report after each step, and one after each evaluation: before the first step, then as `config` says, and
        at the end. What the caller does with that of a best network is done before the next checkpoint.

    Raises:
        InputError: the checkpoint belongs to another run (other settings) or is damaged.
        OutputError: the loss is not finite any more, or the folder cannot be written.
    """
    trainer = _Trainer(objective, cache, config, team)
    identity = _identity(objective, config) | dict(settings or {})
    trainer.resume(folder, identity)
    if team.leads:
        trim_metrics(folder, trainer.position.step)
    whole, saved = True, time.monotonic()
    try:
        while True:
            if evaluate is not None and trainer.evaluation_is_due():
                evaluation = trainer.evaluated(evaluate())
                if team.leads:
                    append_metrics(folder, asdict(evaluation))
                yield evaluation
                saved = -math.inf
            if trainer.is_over():
                return
            if team.leads and time.monotonic() - saved > 60 * config.save_minutes:
                save_checkpoint(folder, identity, trainer.state())
                saved = time.monotonic()
            whole = False
            report = trainer.step()
            if team.leads:
                append_metrics(folder, asdict(report))
            whole = True
            yield report
    finally:
        # After an error in the middle of a step, the weights are of no step: the last checkpoint counts.
        if whole and team.leads:
            save_checkpoint(folder, identity, trainer.state())
        objective.module.eval()


def _identity(objective: Objective, config: TrainConfig) -> dict[str, Any]:
    """The settings that must not change between the parts of a run; its limits may."""
    return {
        "objective": type(objective).__name__,
        "learning_rate": objective.learning_rate,
        **asdict(objective.clips),
        **asdict(replace(config, max_minutes=None, save_minutes=0, patience=None)),
    }


class _Trainer:
    """What a run is made of, and one step of it."""

    def __init__(self, objective: Objective, cache: FrameCache, config: TrainConfig, team: Team) -> None:
        self.objective, self.config, self.team = objective, config, team
        self.module = objective.module.to(team.device).to(memory_format=torch.channels_last).train()
        if config.compile:
            _compile(self.module)
        self.optimizer = objective.optimizer()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=config.precision == "16")
        self.micro_batches = MicroBatches(objective, cache, config, team, self.scaler)
        self.position, self.clock = LoopPosition(), time.monotonic()

    def state(self) -> dict[str, Any]:
        """All that decides how the run goes on."""
        return {
            "position": asdict(self.position),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
        }

    def resume(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, if there is one."""
        state = load_checkpoint(folder, identity)
        if state is None:
            return
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.generator.set_state(state["generator"])
            self.position = LoopPosition(**state["position"])
        except Exception as error:  # these raise whatever does not fit
            raise unusable(folder, error) from error

    def is_over(self) -> bool:
        """Whether steps, minutes or patience are used up."""
        config, position = self.config, self.position
        late = config.max_minutes is not None and position.seconds >= 60 * config.max_minutes
        stale = config.patience is not None and position.stale >= config.patience
        return position.step >= config.steps or late or stale

    def evaluation_is_due(self) -> bool:
        """Whether the network should be evaluated as it stands."""
        position = self.position
        due = position.step % self.config.evaluate_every == 0 or self.is_over()
        return due and position.evaluated != position.step

    def evaluated(self, scores: dict[str, float]) -> EvaluationReport:
        """Take the scores of an evaluation."""
        position = self.position
        mean = sum(scores.values()) / len(scores)
        best = mean > position.best
        self.position = replace(
            position,
            evaluated=position.step,
            best=max(mean, position.best),
            stale=0 if best else position.stale + 1,
        )
        return EvaluationReport(position.step, position.seconds, scores, mean, best)

    def step(self) -> StepReport:
        """Make a step."""
        rate = learning_rate(self.objective.learning_rate, self.position.step, self.position.seconds, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self.micro_batches.gradients(self.generator)
        now = time.monotonic()
        # Rates and ends depend on the time, which must be the same for all: that of the leading process.
        elapsed, self.clock = (now - self.clock) * self.team.leads, now
        elapsed, *means = self.team.totals([elapsed, *losses.values()])
        losses = dict(zip(losses, means, strict=True))
        step, seconds = self.position.step + 1, self.position.seconds + elapsed
        if not all(map(math.isfinite, means)):
            raise OutputError(f"the loss is not finite at step {step} ({losses}): train again with a lower --lr")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step()
        self.position = replace(self.position, step=step, seconds=seconds)
        return StepReport(step, seconds, rate, losses)


def _compile(module: nn.Module) -> None:
    """Have the module and its parts compiled where they are called first: objectives may call either."""
    for part in (module, *module.children()):
        part.compile()
