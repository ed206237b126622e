"""Gradients of a batch that is computed in parts, one after another or spread over processes, with the same result.

Each part has random numbers and batch statistics of its own. Gradients and losses are means over the parts, and so
are the running averages of batch normalisation, each part starting from the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vostrack.methods.base import Objective
from vostrack.train.data.batches import Crop, choose, cut
from vostrack.train.data.cache import FrameCache
from vostrack.train.parallel import Team
from vostrack.train.settings import PRECISIONS, TrainConfig


class MicroBatches:
    """Computes this process's micro_batches of each batch; the draws of all processes stay in step."""

    def __init__(
        self, objective: Objective, cache: FrameCache, config: TrainConfig, team: Team, scaler: torch.amp.GradScaler
    ) -> None:
        """Prepare.

        Args:
            objective: with its module on the team's device.
            cache: footage.
            config: batch, micro_batches and precision.
            team: among which micro_batches are divided.
            scaler: of the losses, for half precision.
        """
        self.objective, self.cache, self.config, self.team, self.scaler = objective, cache, config, team, scaler

    def gradients(self, generator: torch.Generator) -> dict[str, float]:
        """Give the module the gradients of a new batch.

        Args:
            generator: of the run; the same in all processes.

        Returns:
            This process's part of the losses, by name: over all processes they add up to the means.
        """
        micro_batches, module = self.config.micro_batches, self.objective.module
        cuts = choose(self.cache, self.objective.clips, self.config.batch, generator)
        generators = _generators(generator, micro_batches)
        module.zero_grad(set_to_none=True)
        if micro_batches == 1:
            return self._add(cuts, generator)
        statistics, losses = _Statistics(module), dict[str, float]()
        for share in range(self.team.rank, micro_batches, self.team.size):
            for name, loss in self._add(cuts[share::micro_batches], generators[share]).items():
                losses[name] = losses.get(name, 0.0) + loss
            statistics.collect()
        gradients = [_gradient(parameter) for parameter in module.parameters() if parameter.requires_grad]
        self.team.add_up([*gradients, *statistics.changes])
        statistics.apply(micro_batches)
        return losses

    def _add(self, cuts: Sequence[Crop], generator: torch.Generator) -> dict[str, float]:
        """Add a share's gradients to those that are there; gives its part of the losses."""
        device, precision, micro_batches = self.team.device, self.config.precision, self.config.micro_batches
        batch = cut(self.cache, self.objective.clips, cuts, device)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "32"):
            losses = self.objective.losses(batch, generator)
        torch.autograd.backward(self.scaler.scale(losses["loss"].float() / micro_batches))
        return {name: float(loss.detach()) / micro_batches for name, loss in losses.items()}


def _generators(generator: torch.Generator, micro_batches: int) -> Sequence[torch.Generator]:
    """Sources of randomness for the losses of each part."""
    if micro_batches == 1:
        return [generator]
    seeds = torch.randint(2**62, (micro_batches,), generator=generator)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Its gradient; zeros where no share of this process has given one, since another's may have."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class _Statistics:
    """What the micro_batches of a step change in a module's buffers, which are set back after each."""

    def __init__(self, module: nn.Module) -> None:
        self.buffers = [buffer for buffer in module.buffers() if buffer.dtype != torch.bool]
        self.start = [buffer.clone() for buffer in self.buffers]
        self.changes = [torch.zeros_like(buffer, dtype=torch.float32) for buffer in self.buffers]

    def collect(self) -> None:
        """Take what a share has changed, and undo it."""
        for change, buffer, start in zip(self.changes, self.buffers, self.start, strict=True):
            change += buffer - start
            buffer.copy_(start)

    def apply(self, micro_batches: int) -> None:
        """Make the mean change."""
        for change, buffer, start in zip(self.changes, self.buffers, self.start, strict=True):
            buffer.copy_(start + change / micro_batches)
