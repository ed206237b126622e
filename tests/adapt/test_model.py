"""The appearance model: the same steps from the same state, growth, the learning rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.adapt.clips import CONFIG, moving_boxes, narrow_net
from vostrack.adapt.frames import TrainingFrames, extend, random_batch
from vostrack.adapt.model import AppearanceModel, ModelState, rate
from vostrack.errors import OutputError
from vostrack.ops.color import normalised_rgb
from vostrack.ops.losses import dice_loss, partial_cross_entropy
from vostrack.run.state import load_state, save_state

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_net(monkeypatch)


def training_frames(count: int = 4, late: int | None = None) -> TrainingFrames:
    found = TrainingFrames()
    for p in moving_boxes(count, late):
        found = extend(found, p, p.labels if p.frame.index in (0, late) else None, CONFIG)
    return found


def tensors(state: ModelState) -> list[torch.Tensor]:
    return [*state.parameters, *state.means, *state.squares, *state.buffers, state.generator]


def same(one: AppearanceModel, other: AppearanceModel) -> bool:
    pairs = zip(tensors(one.state), tensors(other.state), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one.steps == other.steps


def test_the_same_seed_learns_the_same_and_touches_no_other_randomness() -> None:
    before = torch.get_rng_state()
    one, other, third = (AppearanceModel(replace(CONFIG, seed=seed), 2, CPU) for seed in (0, 0, 1))
    for model in (one, other, third):
        for _ in range(3):
            model.step(training_frames())
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, other)
    assert not same(one, third)
    image = moving_boxes(1)[0].frame.image
    assert torch.equal(one.probs(image), other.probs(image))


@pytest.mark.parametrize("late", [None, 2])
def test_a_saved_model_goes_on_with_the_same_bits(late: int | None, tmp_path: Path) -> None:
    learned = training_frames(4, late)
    model = AppearanceModel(CONFIG, 2, CPU)
    model.step(replace(learned, ids=learned.ids[:1], given=learned.given[:1], predicted=()))
    if late:
        model.grow(3)
    model.step(learned)
    save_state(tmp_path / "state", model.state)
    state = load_state(tmp_path / "state", ModelState)
    restored = AppearanceModel(CONFIG, state.count, CPU, state)
    assert same(model, restored)
    for _ in range(2):
        assert model.step(learned) == restored.step(learned)
    assert same(model, restored)
    assert model.since_growth == restored.since_growth == (3 if late else 4)
    image = moving_boxes(1)[0].frame.image
    assert torch.equal(model.probs(image), restored.probs(image))


def test_the_state_of_another_network_is_refused() -> None:
    state = AppearanceModel(CONFIG, 2, CPU).state
    cut = replace(state, means=(*state.means[:-1], state.means[-1][:1]))
    for other in (cut, replace(state, buffers=state.buffers[1:])):
        with pytest.raises(OutputError, match="`overwrite=True`"):
            AppearanceModel(CONFIG, 2, CPU, other)
    with pytest.raises(OutputError, match="another one"):
        AppearanceModel(CONFIG, 3, CPU, state)


def test_it_learns_under_somebody_elses_no_grad_and_looking_changes_nothing() -> None:
    one, other = AppearanceModel(CONFIG, 2, CPU), AppearanceModel(CONFIG, 2, CPU)
    image = moving_boxes(1)[0].frame.image
    with torch.no_grad():
        first = one.step(training_frames())
        assert tuple(one.probs(image).shape) == (2, 64, 64)
        assert one.step(training_frames()) != first
        assert not torch.is_grad_enabled()
    other.step(training_frames())
    other.step(training_frames())
    assert same(one, other)


def test_a_step_is_one_of_adam_on_the_weighted_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vostrack.device.has_fast_bfloat16", lambda device: False)
    config = replace(CONFIG, half_life=2.0, given_share=0.0)
    model, twin = AppearanceModel(config, 2, CPU), AppearanceModel(config, 2, CPU)
    optimizer = torch.optim.Adam(twin.net.parameters(), config.learning_rate)
    twin.net.train()
    for _ in range(2):
        batch = random_batch(training_frames(), config, twin.generator)
        scores = twin.net(normalised_rgb(batch.images).to(memory_format=torch.channels_last))
        errors = partial_cross_entropy(scores, batch.allowed) + dice_loss(scores.softmax(1), batch.allowed)
        loss = (batch.weights[0] * errors[0] + batch.weights[1] * errors[1]) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model.step(training_frames()) == pytest.approx(float(loss.detach()), rel=1e-6)
    for ours, theirs in zip(model.net.parameters(), twin.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.is_contiguous(memory_format=torch.channels_last) or ours.dim() < 4


def test_bfloat16_learns_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for fast in (False, True):
        monkeypatch.setattr("vostrack.device.has_fast_bfloat16", lambda device, fast=fast: fast)
        model = AppearanceModel(replace(CONFIG, learning_rate=1e-3), 2, CPU)
        losses.append([model.step(training_frames()) for _ in range(5)])
        assert all(parameter.dtype == torch.float32 for parameter in model.net.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_growing_keeps_what_was_learned_and_starts_the_rate_again() -> None:
    model, learned = AppearanceModel(CONFIG, 2, CPU), training_frames(4, late=2)
    model.step(replace(learned, ids=learned.ids[:1], given=learned.given[:1], predicted=()))
    image = moving_boxes(1)[0].frame.image
    before, means = model.probs(image), [mean.clone() for mean in model.state.means]
    model.grow(3)
    after = model.probs(image)
    torch.testing.assert_close(after[:2] / after[:2].sum(0), before, atol=1e-5, rtol=1e-4)
    assert (model.count, model.steps, model.since_growth) == (3, 1, 0)
    for old, new in zip(means, model.state.means, strict=True):
        assert torch.equal(new[: len(old)], old)
    model.step(learned)
    assert float(model.state.means[-1][2].abs()) > 0


def test_the_learning_rate_falls_every_so_many_steps_and_then_stays() -> None:
    config = replace(CONFIG, iterations=200, learning_rate=1.0, decay_every=50, decay=0.5)
    expected = {0: 1, 49: 1, 50: 0.5, 99: 0.5, 100: 0.25, 150: 0.125, 199: 0.125, 200: 0.125, 9999: 0.125}
    assert {step: rate(step, config) for step in expected} == expected
