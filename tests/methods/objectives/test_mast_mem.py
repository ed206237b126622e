"""Training of `mast-mem`: the loss against loops, the momentum copy against its closed form, the recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import naive
from vostrack.errors import MethodError
from vostrack.methods.base import Batch
from vostrack.methods.mast_mem import MastMethod
from vostrack.methods.objectives.mast_mem import RECIPES, MastObjective, QueryAndReferences, jitter_strengths
from vostrack.nets.encoders import MastNet, MomentumNet

STRIDE, SIDE = 4, 16
SMALL = replace(RECIPES["momentum"], references=3, radius=1)


class Tiny(nn.Module):
    """A net of stride 4 with 2 channels, and with batch normalisation if asked for."""

    stride = STRIDE

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5, STRIDE, padding=2)
        self.norm: nn.Module = nn.BatchNorm2d(2) if norm else nn.Identity()

    def forward(self, lab: Tensor) -> Tensor:
        return self.norm(4 * self.conv(lab))


def tiny(norm: bool = False) -> Any:
    """It stands in for a `MastNet`."""
    return Tiny(norm)


def reference_copy(objective: MastObjective) -> nn.Module:
    """The network of the reference frames."""
    copy = objective.module.copy
    assert copy is not None
    return copy


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(frames: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(2, frames, 3, SIDE, SIDE, generator=seeded(0), dtype=dtype)


def drift(net: nn.Module, seed: int) -> None:
    """Change all parameters and buffers, as a step of training would."""
    for value in net.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.randn(value.shape, generator=seeded(seed), dtype=value.dtype)
        else:
            value += 1


def naive_lab(image: Tensor) -> Tensor:
    """(3, S, S) in [0, 1] to L*a*b* in about [-1, 1], pixel by pixel."""
    out = torch.empty_like(image)
    for y in range(SIDE):
        for x in range(SIDE):
            lightness, a, b = naive.srgb_to_lab(tuple(image[:, y, x].tolist()))
            out[:, y, x] = torch.tensor([(lightness - 50) / 50, a / 127, b / 127])
    return out


def naive_input(lab: Tensor, strengths: Tensor, hidden: int) -> Tensor:
    """What the encoder sees of a frame: jittered, without the hidden channel."""
    brightness, contrast, saturation, hue = strengths.tolist()
    bright = (lab[0] + 1) * brightness - 1
    a, b = lab[1], lab[2]
    turned = [
        saturation * (math.cos(hue) * a - math.sin(hue) * b),
        saturation * (math.sin(hue) * a + math.cos(hue) * b),
    ]
    seen = [bright.mean() + contrast * (bright - bright.mean()), *turned]
    return torch.stack([1.5 * channel * (i != hidden) for i, channel in enumerate(seen)])


def naive_cell(colour: Tensor, y: int, x: int) -> float:
    """Mean of the pixels around a cell, those of the image that lie at most half a stride away."""
    near = [
        float(colour[v, u])
        for v in range(STRIDE * y - 2, STRIDE * y + 3)
        for u in range(STRIDE * x - 2, STRIDE * x + 3)
        if 0 <= v < SIDE and 0 <= u < SIDE
    ]
    return sum(near) / len(near)


def naive_pixel(cells: Tensor, y: int, x: int) -> float:
    """Bilinear between cells that are centred on every fourth pixel; the last cell is continued."""
    last = len(cells) - 1
    rows, columns = min(y / STRIDE, last), min(x / STRIDE, last)
    top, left = min(int(rows), last - 1), min(int(columns), last - 1)
    return sum(
        (1 - abs(rows - i)) * (1 - abs(columns - j)) * float(cells[i, j])
        for i in (top, top + 1)
        for j in (left, left + 1)
    )


def naive_loss(query_net: nn.Module, reference_net: nn.Module, frames: Tensor, radius: int, seed: int) -> float:
    """Zhu et al., Eq. 5-7 and the Huber loss by loops, random numbers in the order of the objective."""
    generator, (size, count) = seeded(seed), frames.shape[:2]
    reverse = float(torch.rand((), generator=generator)) < 0.5
    hidden = 1 + int(torch.randint(2, (), generator=generator))
    strengths = jitter_strengths((size, count), RECIPES["momentum"].jitter, generator)
    terms = []
    for b in range(size):
        lab = [naive_lab(frames[b, count - 1 - t if reverse else t]) for t in range(count)]
        seen = [naive_input(lab[t], strengths[b, t], hidden) for t in range(count)]
        query = query_net(seen[-1][None])[0].permute(1, 2, 0)
        keys = torch.stack([reference_net(image[None])[0].permute(1, 2, 0) for image in seen[:-1]], 2)
        side = len(query)
        values = torch.tensor(
            [[[[naive_cell(one[hidden], y, x)] for one in lab[:-1]] for x in range(side)] for y in range(side)]
        )
        copied = naive.attention(query, keys, values, radius)[..., 0]
        for y in range(SIDE):
            for x in range(SIDE):
                error = abs(naive_pixel(copied, y, x) - float(lab[-1][hidden, y, x])) / 0.05
                terms.append(0.5 * error**2 if error < 1 else error - 0.5)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_restoring_from_several_references_equals_the_formula(seed: int) -> None:
    torch.manual_seed(seed)
    objective = MastObjective(tiny().double(), SMALL)
    copy = reference_copy(objective)
    drift(copy, 7)
    expected = naive_loss(objective.module.net, copy, clips(4), SMALL.radius, seed)
    assert float(objective.losses(Batch(clips(4)), seeded(seed))["loss"]) == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_restoring_a_frame_from_another_equals_the_formula() -> None:
    torch.manual_seed(0)
    net = tiny().double()
    objective = MastObjective(net, replace(RECIPES["default"], radius=1))
    expected = naive_loss(net, net, clips(2), 1, 4)
    assert float(objective.losses(Batch(clips(2)), seeded(4))["loss"]) == pytest.approx(expected, rel=1e-6)


class Exact(Tiny):
    """A net that computes with all digits whatever it is told."""

    def forward(self, lab: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(lab)


@torch.no_grad()
def test_fewer_digits_are_for_the_network_alone() -> None:
    torch.manual_seed(0)
    net: Any = Exact()
    objective, frames = MastObjective(net, SMALL), Batch(clips(4, torch.float32))
    expected = objective.losses(frames, seeded(0))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(objective.losses(frames, seeded(0))["loss"], expected)


@pytest.mark.parametrize("momentum", [0.9, 0.999])
def test_the_copy_is_the_exponential_average_of_parameters_and_buffers(momentum: float) -> None:
    net = tiny(norm=True)
    objective = MastObjective(net, replace(SMALL, momentum=momentum))
    states = [{name: value.double().clone() for name, value in net.state_dict().items()}]
    for step in range(12):
        drift(net, step)
        objective.after_step()
        states.append({name: value.double().clone() for name, value in net.state_dict().items()})
    copy = reference_copy(objective).state_dict()
    assert set(copy) == {
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    for name, value in copy.items():
        if name.endswith("tracked"):
            assert int(value) == 12
            continue
        expected = momentum**12 * states[0][name]
        for step, state in enumerate(states[1:], 1):
            expected = expected + (1 - momentum) * momentum ** (12 - step) * state[name]
        torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-5)


def test_only_the_network_learns_and_only_the_references_pass_through_the_copy() -> None:
    torch.manual_seed(0)
    net = tiny(norm=True)
    objective = MastObjective(net, SMALL)
    objective.module.train()
    before = {
        name: value.clone() for name, value in reference_copy(objective).state_dict().items() if "tracked" not in name
    }
    optimizer = objective.optimizer()
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in net.parameters()]
    shapes = []
    reference_copy(objective).register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    net.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    objective.losses(Batch(clips(4, torch.float32)), seeded(0))["loss"].backward()
    assert shapes == [(6, 3, SIDE, SIDE), (2, 3, SIDE, SIDE)]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert all(p.grad is None for p in reference_copy(objective).parameters())
    optimizer.step()
    for name, value in before.items():
        assert torch.equal(reference_copy(objective).state_dict()[name], value), name


def test_the_copy_starts_as_the_network_and_sees_like_it() -> None:
    """Nothing is gained or lost at the first step: query and references are encoded alike."""
    torch.manual_seed(0)
    pair = QueryAndReferences(tiny(norm=True), 0.999).train()
    still = clips(1, torch.float32).expand(-1, 3, -1, -1, -1)
    query, references = pair(still)
    torch.testing.assert_close(references, query[:, None].expand_as(references), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_goes_on_with_the_same_numbers() -> None:
    torch.manual_seed(0)
    first, frames = MastObjective(tiny(norm=True), SMALL), Batch(clips(4, torch.float32))
    drift(reference_copy(first), 1)
    second = MastObjective(tiny(norm=True), SMALL)
    second.module.load_state_dict(first.module.state_dict())
    for objective in (first, second):
        objective.module.train()
        optimizer = objective.optimizer()
        objective.losses(frames, seeded(2))["loss"].backward()
        optimizer.step()
        objective.after_step()
    for one, other in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_jitter_changes_the_asked_share_of_clips_and_each_frame_in_its_own_way() -> None:
    strengths = jitter_strengths((2000, 3), 0.3, seeded(0))
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    changed = (strengths != neutral).any(2)
    assert torch.equal(changed.any(1), changed.all(1))
    assert 0.26 < float(changed[:, 0].float().mean()) < 0.34
    assert not torch.equal(strengths[changed][0], strengths[changed][1])
    furthest = (strengths - neutral).abs().amax((0, 1))
    torch.testing.assert_close(furthest, torch.tensor([0.1, 0.1, 0.1, 0.2 * math.pi]), atol=0, rtol=0.02)
    assert torch.equal(jitter_strengths((4, 2), 0.0, seeded(0)), neutral.expand(4, 2, 4))


def test_recipes_hold_the_settings_of_the_paper() -> None:
    pairs, memory = RECIPES["paper"], RECIPES["momentum-paper"]
    sides = [MastObjective(MastNet(2), RECIPES[name]).clips.short_side for name in ("default", "paper")]
    assert sides == [224, 2 * 384]  # crops from half of the short side on are not enlarged
    for recipe in (pairs, memory):
        assert (recipe.crop, recipe.batch, recipe.radius, recipe.jitter) == (384, 48, 12, 0.3)
    assert (pairs.references, pairs.momentum, pairs.steps, pairs.start) == (1, 0.0, 120_000, "")
    assert (memory.references, memory.momentum, memory.steps) == (5, 0.999, 10_000)
    assert memory.learning_rate == 1e-4
    # From the weights of the pairs, not from those of other recipes; both encoders are kept (Eq. 5).
    assert (memory.after, memory.start, memory.net) == ("paper", "", "momentum")
    for name in ("momentum", "momentum-paper"):
        spec = MastObjective(MastMethod.nets[RECIPES[name].net](), RECIPES[name]).clips
        assert spec.frames == RECIPES[name].references + 1
    assert isinstance(MastObjective(MastNet(), memory).optimizer(), torch.optim.Adam)


def test_the_second_encoder_of_a_network_is_the_copy() -> None:
    """Eq. 5 and 8: θ_r follows θ_q, learns nothing itself, and stays in what is saved."""
    torch.manual_seed(0)
    net = MomentumNet(depth=2)
    objective = MastObjective(net, replace(RECIPES["momentum-paper"], references=1, radius=1, momentum=0.75))
    assert reference_copy(objective) is net.references
    own, learned = (dict(part.named_parameters()) for part in (net.references, MastNet(depth=2)))
    assert own.keys() == learned.keys()
    trained = {id(p) for group in objective.optimizer().param_groups for p in group["params"]}
    assert trained == {id(p) for name, p in net.named_parameters() if not name.startswith("references.")}
    before = {name: value.detach().clone() for name, value in own.items()}
    objective.after_step()
    for name, value in net.references.named_parameters():
        expected = 0.75 * before[name] + 0.25 * net.get_parameter(name)
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)


def test_two_encoders_without_a_momentum_are_refused() -> None:
    with pytest.raises(MethodError, match="momentum must be above 0"):
        replace(RECIPES["default"], net="momentum")


def test_the_shallow_recipe_trains_all_of_its_network() -> None:
    recipe = RECIPES["shallow"]
    net = MastMethod.nets[recipe.net]()
    objective = MastObjective(net, recipe)
    frames = torch.rand(1, objective.clips.frames, 3, 64, 64, generator=seeded(0))
    objective.losses(Batch(frames), seeded(1))["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


@pytest.mark.parametrize("change", [{"momentum": 1.0}, {"momentum": -0.1}, {"references": 0}, {"jitter": 1.5}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(change))):
        replace(RECIPES["default"], **change)
