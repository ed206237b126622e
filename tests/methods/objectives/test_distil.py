"""Training of `best` in one network: axes of what the teacher says and their deviations, and a loss that falls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vostrack.methods.base import Batch
from vostrack.methods.objectives.distil import RECIPES, DistilObjective, Student
from vostrack.nets.distilled import CHANNELS, DistilledNet

SIDE = 64


def answers(seed: int, count: int = 2) -> Tensor:
    """Of a teacher whose 200 numbers vary along 180 directions, in some far more than in others."""
    directions = torch.randn(200, 180, generator=torch.Generator().manual_seed(99)) * 0.97 ** torch.arange(180)
    given = torch.randn(count, 180, 24, 24, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("ck,bkhw->bchw", directions, given) + 2


def told(steps: int = 8) -> Student:
    student = Student(DistilledNet(), 200)
    for step in range(steps):
        student.observe(answers(step))
    return student


def batch(seed: int = 0, count: int = 2) -> Batch:
    coarse = torch.rand(count, 1, 3, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(seed))
    return Batch(coarse.repeat_interleave(4, 3).repeat_interleave(4, 4))


def objective(**changes: Any) -> DistilObjective:
    torch.manual_seed(0)
    return DistilObjective(DistilledNet(), replace(RECIPES["default"], crop=SIDE, **changes))


def test_targets_are_uncorrelated_and_have_deviation_1() -> None:
    student = told()
    targets = torch.cat([student.target(answers(step)) for step in range(8)]).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(targets.mean(0), torch.zeros(CHANNELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(targets.T @ targets / len(targets), torch.eye(CHANNELS), atol=5e-3, rtol=0)


def test_with_their_deviations_they_keep_what_the_teacher_finds_alike() -> None:
    student, said = told(), answers(3)
    coordinates = student.target(said) * student.net.deviation[:, None, None]
    flat, exact = (x.flatten(2)[0].T for x in (coordinates, said - student.mean[:, None, None]))
    found, expected = (normalize(x, dim=1) @ normalize(x, dim=1).T for x in (flat, exact))
    assert (found - expected).abs().max() < 0.02
    assert student.net.deviation.diff().max() <= 0, "the first axes vary most"


def test_small_deviations_count_less_but_not_as_little_as_they_are() -> None:
    student = told()
    weights, deviation = student.weights.flatten(), student.net.deviation
    assert weights.mean() == pytest.approx(1)
    torch.testing.assert_close(weights / weights[0], (deviation / deviation[0]) ** 0.3)


def test_a_run_that_goes_on_has_the_same_targets() -> None:
    student, again = told(), Student(DistilledNet(), 200)
    again.load_state_dict(student.state_dict())
    assert torch.equal(again.target(answers(1)), student.target(answers(1)))


def test_axes_are_looked_for_in_the_first_steps_alone() -> None:
    trained = objective(axes_steps=2)
    axes = []
    for step in range(4):
        trained.losses(batch(step), torch.Generator().manual_seed(step))
        axes.append(trained.module.target(trained.said(batch())))
    assert not torch.equal(axes[0], axes[1])
    assert torch.equal(axes[1], axes[3])
    assert float(trained.module.steps) == 2


def test_a_perfect_student_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = objective(axes_steps=1)
    trained.losses(batch(), torch.Generator())
    monkeypatch.setattr(trained.module.net, "coordinates", lambda seen: trained.module.target(trained.said(batch())))
    losses = trained.losses(batch(), torch.Generator())
    assert all(abs(float(loss)) < 1e-4 for loss in losses.values())


def test_the_loss_falls() -> None:
    trained = objective(axes_steps=1)
    optimizer, found = trained.optimizer(), []
    trained.module.train()
    for _ in range(12):
        losses = trained.losses(batch(), torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        found.append(float(losses["loss"].detach()))
    assert found[-1] < 0.8 * found[1]
