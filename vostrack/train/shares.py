"""Gradients of a batch that is computed in shares, one after another or spread over processes, with the same result.

Each share has random numbers and batch statistics of its own. Gradients and losses are means over the shares, and so
are the running averages of batch normalisation, each share starting from the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vostrack.methods.base import Objective
from vostrack.train.cache import FrameCache
from vostrack.train.draw import Cut, choose, cut
from vostrack.train.parallel import Team
from vostrack.train.settings import PRECISIONS, TrainConfig


class Shares:
    """Computes this process's shares of each batch; the draws of all processes stay in step."""

    def __init__(
        self, objective: Objective, cache: FrameCache, config: TrainConfig, team: Team, scaler: torch.amp.GradScaler
    ) -> None:
        """Prepare.

        Args:
            objective: with its module on the team's device.
            cache: footage.
            config: batch, shares and precision.
            team: among which shares are divided.
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
        shares, module = self.config.shares, self.objective.module
        cuts = choose(self.cache, self.objective.clips, self.config.batch, generator)
        generators = _generators(generator, shares)
        module.zero_grad(set_to_none=True)
        if shares == 1:
            return self._add(cuts, generator)
        statistics, losses = _Statistics(module), dict[str, float]()
        for share in range(self.team.rank, shares, self.team.size):
            for name, loss in self._add(cuts[share::shares], generators[share]).items():
                losses[name] = losses.get(name, 0.0) + loss
            statistics.collect()
        gradients = [_gradient(parameter) for parameter in module.parameters() if parameter.requires_grad]
        self.team.add_up([*gradients, *statistics.changes])
        statistics.apply(shares)
        return losses

    def _add(self, cuts: Sequence[Cut], generator: torch.Generator) -> dict[str, float]:
        """Add a share's gradients to those that are there; gives its part of the losses."""
        device, precision, shares = self.team.device, self.config.precision, self.config.shares
        batch = cut(self.cache, self.objective.clips, cuts, device)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "32"):
            losses = self.objective.losses(batch, generator)
        torch.autograd.backward(self.scaler.scale(losses["loss"].float() / shares))
        return {name: float(loss.detach()) / shares for name, loss in losses.items()}


def _generators(generator: torch.Generator, shares: int) -> Sequence[torch.Generator]:
    """Sources of randomness for the losses of each share."""
    if shares == 1:
        return [generator]
    seeds = torch.randint(2**62, (shares,), generator=generator)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Its gradient; zeros where no share of this process has given one, since another's may have."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class _Statistics:
    """What the shares of a step change in a module's buffers, which are set back after each."""

    def __init__(self, module: nn.Module) -> None:
        self.buffers = [buffer for buffer in module.buffers() if buffer.dtype != torch.bool]
        self.start = [buffer.clone() for buffer in self.buffers]
        self.changes = [torch.zeros_like(buffer, dtype=torch.float32) for buffer in self.buffers]

    def collect(self) -> None:
        """Take what a share has changed, and undo it."""
        for change, buffer, start in zip(self.changes, self.buffers, self.start, strict=True):
            change += buffer - start
            buffer.copy_(start)

    def apply(self, shares: int) -> None:
        """Make the mean change."""
        for change, buffer, start in zip(self.changes, self.buffers, self.start, strict=True):
            buffer.copy_(start + change / shares)
