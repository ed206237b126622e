"""The frames that adaptation learns from: which ones stay, what their labels allow, how a batch is chosen."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapt.clips import CONFIG, box, frame, prediction
from vostrack.adapt.config import PRESETS, AdaptConfig
from vostrack.adapt.frames import (
    LabelledFrame,
    TrainingFrames,
    allowed_channels,
    extend,
    random_batch,
    recolour,
    square,
    weight,
)
from vostrack.errors import MethodError
from vostrack.types import LabelMap, Prediction

PLAIN = replace(CONFIG, jitter=0.0, hue=0.0, grey=0.0, flip=0.0)


def collected(count: int, prompts: dict[int, LabelMap], config: AdaptConfig = CONFIG) -> TrainingFrames:
    frames = TrainingFrames()
    for index in range(count):
        frames = extend(frames, prediction(index, torch.zeros(8, 8), (5,)), prompts.get(index), config)
    return frames


def mask(pixels: torch.Tensor, *ids: int) -> LabelMap:
    return LabelMap(pixels.to(torch.uint8), ids)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 9), st.sets(st.integers(1, 59), max_size=3))
def test_kept_frames_are_spread_evenly_and_given_ones_stay(count: int, capacity: int, later: set[int]) -> None:
    config = replace(CONFIG, capacity=capacity)
    named = {index: mask(torch.zeros(8, 8), 5) for index in (0, *later) if index < count}
    pictures = [prediction(0, torch.zeros(2, 2), (5,)).frame.image] * count
    frames = TrainingFrames()
    for index in range(count):
        predicted = Prediction(frame(index, pictures[index]), mask(torch.zeros(2, 2), 5))
        given_mask = mask(torch.zeros(2, 2), 5) if index in named else None
        frames = extend(frames, predicted, given_mask, config)
    others = [index for index in range(count) if index not in named]
    spacing = 1
    while len(others[::spacing]) > capacity:
        spacing *= 2
    assert [pair.index for pair in frames.predicted] == others[::spacing]
    assert [pair.index for pair in frames.given] == sorted(named)
    for pair in (*frames.given, *frames.predicted):
        assert pair.age == pair.index - max(index for index in named if index <= pair.index)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (300, 500)])
def test_memory_depends_on_neither_the_length_nor_the_size_of_the_source(size: tuple[int, int]) -> None:
    config, frames = replace(CONFIG, capacity=4), TrainingFrames()
    for index in range(40):
        given_mask = mask(torch.zeros(size), 5) if index in (0, 9) else None
        frames = extend(frames, prediction(index, torch.zeros(size), (5,)), given_mask, config)
    pairs = (*frames.given, *frames.predicted)
    stored = sum(t.untyped_storage().nbytes() for pair in pairs for t in (pair.image, pair.labels))
    assert stored <= (config.capacity + 2) * 4 * config.size**2


def test_frames_before_the_first_mask_are_left_out() -> None:
    frames = extend(TrainingFrames(), prediction(0, torch.zeros(8, 8), ()), None, CONFIG)
    assert frames == TrainingFrames()


def test_the_frame_is_stretched_to_the_training_size_with_its_labels() -> None:
    labels = box((32, 128), 0, 64, 64, 5)
    image = torch.where(labels > 0, 255, 0).to(torch.uint8).expand(3, 32, 128)
    frames = extend(TrainingFrames(), prediction(0, labels, (5,), image), mask(labels, 5), CONFIG)
    (pair,) = frames.given
    assert torch.equal(pair.labels, box((64, 64), 0, 32, 64, 5))
    inner = [column for column in range(64) if column not in (31, 32)]
    assert torch.equal(pair.image[:, :, inner] > 127, (pair.labels > 0).expand(3, 64, 64)[:, :, inner])
    assert float(square(image, 64).max()) == 1


def test_nothing_is_learned_where_a_given_mask_is_void() -> None:
    drawn = box((64, 64), 0, 0, 8, 5)
    drawn[40:] = 255
    filled = torch.where(drawn == 255, 0, drawn)
    (pair,) = extend(TrainingFrames(), prediction(0, filled, (5,)), mask(drawn, 5), CONFIG).given
    assert torch.equal(pair.labels, drawn)


def test_labels_allow_later_objects_in_the_background_and_everything_where_they_are_void() -> None:
    labels = torch.tensor([[0, 7, 3, 255]], dtype=torch.uint8)
    expected = {
        2: [{0, 2, 3}, {1}, {2}, {0, 1, 2, 3}],  # ids 3 and 9 were named after this frame
        3: [{0, 3}, {1}, {2}, {0, 1, 2, 3}],
        4: [{0}, {1}, {2}, {0, 1, 2, 3}],
    }
    for known, sets in expected.items():
        allowed = allowed_channels(LabelledFrame(0, 0, known, torch.zeros(3, 1, 4), labels), (7, 3, 9))
        assert [{k for k in range(4) if allowed[k, 0, x]} for x in range(4)] == sets


def test_weights_halve_with_the_age_of_the_mask_down_to_the_least() -> None:
    config = replace(CONFIG, half_life=10.0, least_weight=0.2)
    for age, expected in ((0, 1.0), (5, 2**-0.5), (10, 0.5), (20, 0.25), (30, 0.2), (100_000, 0.2)):
        pair = LabelledFrame(age, age, 2, torch.zeros(1), torch.zeros(1))
        assert weight(pair, config) == pytest.approx(expected, rel=1e-12)
    batch = random_batch(collected(30, {0: mask(torch.zeros(8, 8), 5)}), replace(config, batch=50), torch.Generator())
    assert {round(w, 4) for w in batch.weights.tolist()} <= {round(max(0.2, 0.5 ** (a / 10)), 4) for a in range(30)}
    assert float(batch.weights.min()) < 0.3


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_asked_share_of_a_batch_goes_to_given_frames(share: float) -> None:
    frames = collected(21, {0: mask(torch.zeros(8, 8), 5)})
    config = replace(PLAIN, batch=250, given_share=share, size=64, half_life=1.0, least_weight=0.01)
    batch = random_batch(frames, config, torch.Generator().manual_seed(0))
    given = (batch.weights == 1).float().mean().item()
    assert given == pytest.approx(share + (1 - share) / 21, abs=0.08)


def test_a_batch_is_decided_by_the_generator() -> None:
    frames = collected(5, {0: mask(torch.zeros(8, 8), 5)})
    one, same, other = (random_batch(frames, CONFIG, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    for field in fields(one):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name))
    assert not torch.equal(one.images, other.images)


def test_labels_are_mirrored_with_their_image() -> None:
    labels = box((64, 64), 3, 5, 20, 5)
    image = torch.where(labels > 0, 255, 0).to(torch.uint8).expand(3, 64, 64)
    frames = extend(TrainingFrames(), prediction(0, labels, (5,), image), mask(labels, 5), CONFIG)
    batch = random_batch(frames, replace(PLAIN, flip=0.5, batch=12), torch.Generator().manual_seed(0))
    assert torch.equal(batch.images[:, 0] > 0.5, batch.allowed[:, 1])
    assert torch.equal(batch.allowed[:, 0], ~batch.allowed[:, 1])
    assert {bool(one[1, 3, 5]) for one in batch.allowed} == {True, False}


def test_colours_stay_in_range_and_may_be_lost() -> None:
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    strong = replace(CONFIG, jitter=1.0, hue=0.5, grey=0.5)
    for low in (0.0, 0.5, 0.999):
        changed = recolour(image, [low] * 4 + [0.9], strong)
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
        grey = recolour(image, [low] * 4 + [0.1], strong)
        torch.testing.assert_close(grey[0], grey[1])
        torch.testing.assert_close(grey[0], grey[2])
    torch.testing.assert_close(recolour(image, [0.5] * 5, CONFIG), image, atol=1e-5, rtol=0)
    brighter = recolour(image, [1.0, 0.5, 0.5, 0.5, 0.9], replace(strong, jitter=0.2))
    torch.testing.assert_close(brighter, (1.2 * image).clamp(max=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 0},
        {"size": 63},
        {"size": 4096},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"learning_rate": float("nan")},
        {"decay_every": 0},
        {"decay": 1.1},
        {"capacity": 0},
        {"given_share": -0.1},
        {"half_life": float("nan")},
        {"least_weight": 0.0},
        {"jitter": 1.1},
        {"hue": 0.6},
        {"grey": float("nan")},
        {"flip": 2.0},
        {"live_every": 0},
        {"live_steps": 0},
        {"live_warm_up": 0},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(MethodError, match=f"{name} must be .*, not {value}"):
        replace(PRESETS["default"], **changes)  # type: ignore[arg-type]


def test_the_preset_of_the_paper_has_its_settings() -> None:
    paper = PRESETS["paper"]
    assert (paper.size, paper.iterations, paper.learning_rate, paper.decay_every) == (480, 200, 2e-4, 50)
    assert min(paper.jitter, paper.grey, paper.flip) > 0  # section 4.1 names all three
