"""Every recipe of every registered method: it learns a fixed batch, gradients reach all it trains, runs resume."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from vostrack.methods import METHODS, build_net, method_class, training_recipe
from vostrack.methods.base import Batch

OBJECTIVES = {name: known for name in METHODS if (known := method_class(name).objective)}
RECIPES = [(name, recipe) for name, known in OBJECTIVES.items() for recipe in known.recipes]
SMALL = {"crop": 64, "batch": 2, "steps": 1, "learning_rate": 3e-4, "schedule": "cosine"}
# Those that do not differ in size and rate alone.
DISTINCT = list({(name, training_recipe(name, recipe, SMALL)): (name, recipe) for name, recipe in RECIPES}.values())
# The quick tests take the first one of each method.
FIRST = {name: (name, recipe) for name, recipe in reversed(DISTINCT)}.values()
PARAMS = [pytest.param(pair, id="-".join(pair), marks=() if pair in FIRST else pytest.mark.slow) for pair in DISTINCT]


@dataclass(frozen=True)
class First:
    """What the first step of an objective gives; `untouched` is the same before that step."""

    objective: Any
    untouched: Any
    loss: float


@pytest.fixture(scope="module", params=PARAMS)
def first(request: pytest.FixtureRequest) -> First:
    method, name = request.param
    recipe = training_recipe(method, name, SMALL)
    torch.manual_seed(0)
    objective = OBJECTIVES[method](build_net(method, recipe.net), recipe)
    objective.module.train()
    untouched = copy.deepcopy(objective)
    value = loss(objective)
    value.backward()
    return First(objective, untouched, float(value.detach()))


@pytest.fixture
def objective(first: First) -> Any:
    return copy.deepcopy(first.untouched)


def batch(objective: Any) -> Batch:
    """Two clips of blocks that drift, some of which are objects."""
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(2, 3, 20, 20, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = torch.zeros(2, 80, 80, dtype=torch.uint8)
    labels[:, 16:48, 8:40] = torch.tensor([1, 3], dtype=torch.uint8).view(2, 1, 1)
    frames, masks = (
        torch.stack([torch.roll(x, t, -1)[..., :64, :64] for t in range(objective.clips.frames)], 1)
        for x in (base, labels)
    )
    return Batch(frames, masks if objective.clips.labels else None)


def losses(objective: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    parts: dict[str, torch.Tensor] = objective.losses(batch(objective), torch.Generator().manual_seed(seed))
    return parts


def loss(objective: Any, seed: int = 0) -> torch.Tensor:
    return losses(objective, seed)["loss"]


@pytest.mark.parametrize(("method", "name"), RECIPES, ids=map("-".join, RECIPES))
def test_recipes_can_be_trained(method: str, name: str) -> None:
    recipe = training_recipe(method, name)
    assert recipe.net in method_class(method).nets
    assert recipe.crop % 32 == 0
    assert min(recipe.batch, recipe.steps) >= 1
    assert recipe.learning_rate > 0


def test_gradients_reach_every_parameter_that_is_trained(first: First) -> None:
    objective = first.objective
    trained = {id(p) for group in objective.optimizer().param_groups for p in group["params"]}
    silent = [
        name
        for name, p in objective.module.named_parameters()
        if p.requires_grad and (id(p) not in trained or p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert not silent


@pytest.mark.slow
def test_the_loss_of_a_fixed_batch_falls(objective: Any) -> None:
    optimizer = objective.optimizer()
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        value = loss(objective)
        losses.append(float(value.detach()))
        if losses[-1] < 0.95 * losses[0]:
            return
        value.backward()
        optimizer.step()
        objective.after_step()
    pytest.fail(f"it stays where it was: {losses}")


def test_losses_are_random_only_through_the_generator(first: First, objective: Any) -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        assert float(loss(objective)) == pytest.approx(first.loss, rel=1e-5)
        parts = [torch.stack(list(losses(objective, seed).values())) for seed in (0, 1, 2, 3)]
        change = max(float((part / parts[0] - 1).abs().max()) for part in parts)
        assert change > 1e-3 or (change == 0 and getattr(first.objective.recipe, "whole", False)), (
            "of all recipes only the published one of rpm-net, which takes whole frames, draws nothing"
        )
    # A run that resumes restores the generator alone.
    assert torch.equal(torch.get_rng_state(), before)


def test_losses_can_be_computed_in_bfloat16(first: First, objective: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss(objective)
    rough.float().backward()
    assert float(rough.detach()) == pytest.approx(first.loss, rel=0.2)
