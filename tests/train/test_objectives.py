"""Every registered method's objective: it learns a fixed batch, and gradients reach all parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vostrack.methods import METHODS, method_class


@pytest.fixture(params=METHODS)
def objective(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    factory = method_class(request.param)
    return factory.build_objective(factory.build_net().train(), 64, None)


def batch(objective: Any) -> torch.Tensor:
    """Two clips of blocks that drift."""
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(2, 3, 20, 20, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    frames = [torch.roll(base, t, 3)[:, :, :64, :64] for t in range(objective.clips.frames)]
    return torch.stack(frames, 1)


def test_gradients_reach_every_parameter(objective: Any) -> None:
    objective.losses(batch(objective), torch.Generator().manual_seed(0))["loss"].backward()
    silent = [name for name, p in objective.module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.slow
def test_the_loss_of_a_fixed_batch_falls(objective: Any) -> None:
    frames, optimizer = batch(objective), objective.optimizer()

    def loss() -> torch.Tensor:
        return objective.losses(frames, torch.Generator().manual_seed(0))["loss"]

    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert min(losses[1:]) < 0.9 * losses[0]


def test_losses_are_random_only_through_the_generator(objective: Any) -> None:
    frames = batch(objective)
    values = [
        float(objective.losses(frames, torch.Generator().manual_seed(seed))["loss"].detach())
        for seed in (1, 1, 2, 3, 4)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert max(values) > 1.001 * min(values)
