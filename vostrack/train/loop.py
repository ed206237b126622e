"""The training loop: one generator that chooses clips, steps, and saves checkpoints that resume exactly, and metrics.

Knows nothing of what it trains (`methods.base.Objective`) nor of terminals: progress bars and logs belong to the
caller, who gets a report for each step.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vostrack.device import autocast, choose_precision
from vostrack.errors import InputError, OutputError, damage_as
from vostrack.files import OutputRoot, open_regular, parse_json, plain, shaped, shown
from vostrack.methods.base import Objective
from vostrack.methods.recipe import Recipe
from vostrack.train.data.batches import Crop, choose, cut
from vostrack.train.data.cache import FrameCache
from vostrack.train.parallel import ProcessGroup
from vostrack.train.reports import EvaluationReport, Report, StepReport
from vostrack.train.settings import TrainConfig, learning_rate, share_done

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class LoopPosition:
    """Where a run stands.

    Attributes:
        step: steps done.
        seconds: time of the run, in all its parts.
        decoding: what of it went into decoding.
        evaluated: step of the last evaluation; -1 before the first.
        best: highest mean score of an evaluation.
        stale: evaluations since then.
        first: mean score before the first step; 0 until it is known.
    """

    step: int = 0
    seconds: float = 0.0
    decoding: float = 0.0
    evaluated: int = -1
    best: float = -math.inf
    stale: int = 0
    first: float = 0.0


def settled(config: TrainConfig, group: ProcessGroup) -> TrainConfig:
    """Settings with those filled in that depend on the device and the number of processes."""
    precision = choose_precision(config.precision, group.device)
    return replace(config, precision=precision, micro_batches=config.micro_batches or group.size)


def _position(told: dict[str, Any]) -> LoopPosition:
    """A position that was saved; raises `ValueError` or `TypeError` for what none can be."""
    # Before the first evaluation the best score is an infinity, which no file of ours holds otherwise.
    best = told.pop("best")
    position: LoopPosition = replace(shaped(told, LoopPosition), best=best)
    least = min(position.step, position.stale, position.seconds, position.decoding)
    if type(best) is not float or math.isnan(best) or least < 0:
        raise ValueError("it is no position of a run")
    return position


def train(
    objective: Objective,
    recipe: Recipe,
    cache: FrameCache,
    config: TrainConfig,
    folder: Path,
    group: ProcessGroup,
    evaluate: Callable[[], dict[str, float]] | None = None,
    settings: Mapping[str, Any] | None = None,
    decoding: float = 0.0,
) -> Generator[Report]:
    """Train until steps, minutes or patience are used up; goes on from the checkpoint in `folder` if there is one.

    Closing the generator (Ctrl-C in the caller) saves a checkpoint first.

    Args:
        objective: what to train; its module is moved to the group's device and trained in place.
        recipe: length and batch; the objective has what else it says.
        cache: footage.
        config: how to train.
        folder: for `checkpoint.pt` and `metrics.jsonl`; must exist.
        group: the processes that train; all of them call this.
        evaluate: scores of the network as it stands, by clip; the same in all processes.
        settings: whatever else must not change between the parts of a run.
        decoding: seconds that this part of the run has taken already; they count in its minutes.

    Yields:
        A report after each step, and one after each evaluation: before the first step, then as `config` says, and
        at the end. What the caller does with that of a best network is done before the next checkpoint.

    Raises:
        InputError: the checkpoint belongs to another run (other settings) or is damaged.
        OutputError: the loss is not finite any more, or the folder cannot be written.
    """
    config = settled(config, group)
    trainer = _Trainer(objective, recipe, cache, config, group)
    files = _RunFiles(folder, _identity(objective, recipe, config) | dict(settings or {}), group.leads)
    files.load(trainer.restore)
    before = trainer.position
    trainer.position = replace(before, seconds=before.seconds + decoding, decoding=before.decoding + decoding)
    files.trim_metrics(before)
    whole, saved = True, time.monotonic()
    try:
        while True:
            if evaluate is not None and trainer.evaluation_is_due():
                position, evaluation = trainer.position, trainer.evaluated(evaluate())
                try:
                    files.append_metrics(asdict(evaluation))
                    yield evaluation
                except BaseException:  # it, and the best network, may not be kept yet: it is made again
                    trainer.position = position
                    raise
                saved = -math.inf
            if trainer.is_over():
                return
            if time.monotonic() - saved > 60 * config.save_minutes:
                files.save(trainer.state())
                saved = time.monotonic()
            whole = False
            report = trainer.step()
            files.append_metrics(asdict(report))
            whole = True
            yield report
    finally:
        # After an error in the middle of a step, the weights are of no step: the last checkpoint counts.
        if whole:
            files.save(trainer.state())
        objective.module.eval()


def _identity(objective: Objective, recipe: Recipe, config: TrainConfig) -> dict[str, Any]:
    """The settings that must not change between the parts of a run; its limits may."""
    return {
        "objective": type(objective).__name__,
        **asdict(recipe),
        **asdict(objective.clips),
        **{name: getattr(config, name) for name in ("seed", "precision", "micro_batches", "compile", "evaluate_every")},
    }


class _Trainer:
    """What a run is made of, and one step of it.

    A batch is computed in `micro_batches` parts, one after another or spread over processes, with the same result. Each
    has random numbers and batch statistics of its own. Gradients and losses are means over the parts, and so are the
    running averages of batch normalisation, each part starting from the same ones.
    """

    def __init__(
        self, objective: Objective, recipe: Recipe, cache: FrameCache, config: TrainConfig, group: ProcessGroup
    ) -> None:
        self.objective, self.recipe, self.cache, self.config, self.group = objective, recipe, cache, config, group
        self.module = objective.module.to(group.device).to(memory_format=torch.channels_last).train()
        if config.compile:
            for part in (self.module, *self.module.children()):  # compiled when first called: objectives call either
                part.compile()
        self.optimizer = objective.optimizer()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=config.precision == "16")
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

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(state["module"])
        if not all(isinstance(x, Tensor | None) for row in state["optimizer"]["state"].values() for x in row.values()):
            raise TypeError("what the optimizer keeps are tensors")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["generator"])
        self.position = _position(state["position"])

    @property
    def done(self) -> float:
        """Share of the training that is done."""
        position = self.position
        return share_done(self.recipe, self.config, position.step, position.seconds, position.decoding)

    def is_over(self) -> bool:
        """Whether steps, minutes or patience are used up."""
        config, position = self.config, self.position
        late = config.max_minutes is not None and position.seconds >= 60 * config.max_minutes
        stale = config.patience is not None and position.stale >= config.patience
        return position.step >= self.recipe.steps or late or stale

    def evaluation_is_due(self) -> bool:
        """Whether the network should be evaluated as it stands."""
        due = self.position.step % self.config.evaluate_every == 0 or self.is_over()
        return due and self.position.evaluated != self.position.step

    def evaluated(self, scores: dict[str, float]) -> EvaluationReport:
        """Take the scores of an evaluation."""
        position = self.position
        mean = sum(scores.values()) / len(scores)
        best = mean > position.best
        stale = 0 if best else position.stale + 1
        first = mean if position.step == 0 else position.first
        self.position = replace(
            position, evaluated=position.step, best=max(mean, position.best), stale=stale, first=first
        )
        return EvaluationReport(position.step, position.seconds, self.done, scores, mean, best, first)

    def step(self) -> StepReport:
        """Make a step."""
        position = self.position
        rate = learning_rate(self.objective.learning_rate, self.recipe.schedule, position.step, self.done)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        losses = self._gradients()
        now = time.monotonic()
        # Rates and ends depend on the time, which must be the same for all: that of the leading process.
        elapsed, self.clock = (now - self.clock) * self.group.leads, now
        elapsed, *means = self.group.totals([elapsed, *losses.values()])
        losses = dict(zip(losses, means, strict=True))
        step, seconds = position.step + 1, position.seconds + elapsed
        if not all(map(math.isfinite, means)):
            raise OutputError(f"the loss is not finite at step {step} ({losses}): train again with a lower `lr`")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step()
        self.position = replace(position, step=step, seconds=seconds)
        return StepReport(step, seconds, self.done, rate, losses)

    def _gradients(self) -> dict[str, float]:
        """Give the module the gradients of a new batch; all processes choose the same one.

        Returns:
            This process's part of the losses, by name: over all processes they add up to the means.
        """
        micro_batches = self.config.micro_batches
        crops = choose(self.cache, self.objective.clips, self.recipe.batch, self.generator)
        self.module.zero_grad(set_to_none=True)
        if micro_batches == 1:
            return self._add_gradients(crops, self.generator)
        seeds = torch.randint(2**62, (micro_batches,), generator=self.generator).tolist()
        statistics, losses = _Statistics(self.module), dict[str, float]()
        for part in range(self.group.rank, micro_batches, self.group.size):
            generator = torch.Generator().manual_seed(seeds[part])
            for name, loss in self._add_gradients(crops[part::micro_batches], generator).items():
                losses[name] = losses.get(name, 0.0) + loss
            statistics.collect()
        gradients = []
        for parameter in (each for each in self.module.parameters() if each.requires_grad):
            if parameter.grad is None:  # here; in another process there may be one
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self.group.add_up([*gradients, *statistics.changes])
        statistics.apply(micro_batches)
        return losses

    def _add_gradients(self, crops: Sequence[Crop], generator: torch.Generator) -> dict[str, float]:
        """Add the gradients of one part of a batch to those that are there; gives its part of the losses."""
        device, config = self.group.device, self.config
        batch = cut(self.cache, self.objective.clips, crops, device)
        with autocast(config.precision, device):
            losses = self.objective.losses(batch, generator)
        torch.autograd.backward(self.scaler.scale(losses["loss"].float() / config.micro_batches))
        return {name: float(loss.detach()) / config.micro_batches for name, loss in losses.items()}


class _Statistics:
    """What the parts of a batch change in a module's buffers, which are set back after each."""

    def __init__(self, module: nn.Module) -> None:
        buffers = [buffer for buffer in module.buffers() if buffer.dtype != torch.bool]
        self.changes = [torch.zeros_like(buffer, dtype=torch.float32) for buffer in buffers]
        self.rows = [(change, each, each.clone()) for change, each in zip(self.changes, buffers, strict=True)]

    def collect(self) -> None:
        """Take what a part has changed, and undo it."""
        for change, buffer, start in self.rows:
            change += buffer - start
            buffer.copy_(start)

    def apply(self, micro_batches: int) -> None:
        """Make the mean change."""
        for change, buffer, start in self.rows:
            buffer.copy_(start + change / micro_batches)


class _RunFiles:
    """The checkpoint and the metrics of a run; only the leading process writes them."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], leads: bool) -> None:
        """Name the files of a run; nothing is read or written yet.

        Args:
            folder: of the run; must exist.
            settings: what must not change when it is resumed.
            leads: whether this process writes.
        """
        self._root, self._leads = OutputRoot(folder), leads
        self._settings: dict[str, Any] = plain(settings)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers and nested dictionaries of them, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        if self._leads:
            buffer = io.BytesIO()  # torch has an error of its own for a full disk, which does not say so
            torch.save({"settings": self._settings, **state}, buffer)
            self._root.write(CHECKPOINT, buffer.getvalue())

    def load(self, restore: Callable[[dict[str, Any]], None]) -> None:
        """Have a state restored that was saved, on the CPU, if there is one. Runs no code of the file.

        Raises:
            InputError: it was made with other settings, is damaged, or does not fit.
        """
        checkpoint = self._root.at(CHECKPOINT)
        if not checkpoint.exists():
            return
        path, now = shown(checkpoint), self._settings

        def refusal(error: Exception) -> InputError:
            return InputError(f"cannot resume from {path} ({type(error).__name__}): delete it or use another `out`")

        with damage_as(refusal):  # or does not fit
            with open_regular(checkpoint) as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
            before = state.pop("settings")
            differ = ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))
            if not differ:
                restore(state)
        if differ:
            raise InputError(
                f"{path} was made with other settings ({shown(differ[:200])}): use the same ones, or another `out`"
            )

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add a line to the metrics; it says its "step".

        Raises:
            OutputError: it could not be written.
        """
        if self._leads:
            self._root.append(METRICS, json.dumps(line) + "\n")

    def trim_metrics(self, position: LoopPosition) -> None:
        """Drop the lines of what a killed run did after its last checkpoint: steps and evaluations are made again."""
        if not self._leads or not (path := self._root.at(METRICS)).exists():
            return
        try:
            with open_regular(path) as file:
                kept = [line.rstrip(b"\r\n") + b"\n" for line in file if _is_before(line, position)]
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot go on with {shown(path)}: {shown(error)}; choose another `out`") from error
        self._root.write(METRICS, b"".join(kept))


@dataclass(frozen=True)
class _Line:
    step: int
    held_out: dict[str, Any] | None = None


def _is_before(line: bytes, position: LoopPosition) -> bool:
    """Whether a line is of a step or an evaluation up to a position; one that was cut off is of none."""
    try:
        told: _Line = parse_json(line, _Line)
    except ValueError:
        return False
    return told.step <= (position.step if told.held_out is None else position.evaluated)
