"""Online adaptation in both forms: it learns, never looks ahead, resumes with the same bytes, and nothing trips it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.adapt.clips import CONFIG, box, frame, moving_boxes, narrow_net, prediction, spoiled
from vostrack.adapt.adaptation import Adaptation, AdaptFilter, AdaptState, known_channels
from vostrack.adapt.config import AdaptConfig
from vostrack.methods import Direction
from vostrack.propagate import known_ids
from vostrack.run.filters import Filter
from vostrack.run.state import load_state, save_state
from vostrack.types import LabelMap, Prediction


@pytest.fixture(autouse=True)
def small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_net(monkeypatch)


def overlap(found: Sequence[Prediction], truth: Sequence[Prediction], object_id: int = 200) -> float:
    """Mean J of an object, without the first frame."""
    scores = []
    for one, other in zip(found[1:], truth[1:], strict=True):
        a, b = one.labels.pixels == object_id, other.labels.pixels == object_id
        scores.append(float((a & b).sum() / (a | b).sum()))
    return sum(scores) / len(scores)


def first_masks(clip: Sequence[Prediction], *at: int) -> dict[int, LabelMap]:
    return {index: clip[index].labels for index in at}


def two_passes(
    clip: Sequence[Prediction],
    prompts: dict[int, LabelMap],
    config: AdaptConfig = CONFIG,
    probs_size: tuple[int, int] | None = None,
) -> list[Prediction]:
    adaptation = Adaptation(prompts, config)
    assert all(adaptation.watch(p) is p for p in clip)
    assert len(list(adaptation.train())) == adaptation.steps == config.iterations
    return [adaptation.apply(p.frame, probs_size) for p in clip]


def one_pass(
    clip: Iterable[Prediction], prompts: dict[int, LabelMap], config: AdaptConfig = CONFIG
) -> list[Prediction]:
    return list(AdaptFilter(Adaptation(prompts, config).live).run(clip))


def saved(adaptation: Adaptation, path: Path) -> Adaptation:
    """The same adaptation after it went through a file."""
    save_state(path, adaptation.state)
    return Adaptation(adaptation.prompts, adaptation.config, state=load_state(path, AdaptState))


def equal(one: Sequence[Prediction], other: Sequence[Prediction]) -> bool:
    def same(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b if a is None or b is None else torch.equal(a, b)

    return len(one) == len(other) and all(
        a.labels.ids == b.labels.ids and torch.equal(a.labels.pixels, b.labels.pixels) and same(a.probs, b.probs)
        for a, b in zip(one, other, strict=True)
    )


# --- what it is for ---


def test_adapted_masks_are_better_than_the_ones_they_were_learned_from() -> None:
    truth = moving_boxes(12)
    noisy = spoiled(truth)
    config = replace(CONFIG, iterations=40, learning_rate=4e-3, decay_every=15)
    adapted = two_passes(noisy, first_masks(truth, 0), config)
    before, after = overlap(noisy, truth), overlap(adapted, truth)
    assert before < 0.8
    assert after > before + 0.1, (before, after)


def test_the_live_form_gets_better_than_the_method_as_well() -> None:
    truth = moving_boxes(16)
    noisy = spoiled(truth)
    config = replace(CONFIG, iterations=40, learning_rate=4e-3, decay_every=15, live_steps=4, live_warm_up=36)
    adapted = one_pass(noisy, first_masks(truth, 0), config)
    assert equal(adapted[:8], noisy[:8])
    assert overlap(adapted[8:], truth[8:]) > overlap(noisy[8:], truth[8:]) + 0.1


# --- the same bytes ---


def test_two_runs_are_equal_bit_by_bit() -> None:
    clip, prompts = moving_boxes(5), first_masks(moving_boxes(5), 0)
    assert equal(two_passes(clip, prompts, probs_size=(24, 32)), two_passes(clip, prompts, probs_size=(24, 32)))


@pytest.mark.parametrize("late", [None, 3])
def test_two_passes_that_were_interrupted_anywhere_give_the_same(late: int | None, tmp_path: Path) -> None:
    clip = moving_boxes(6, late)
    prompts = first_masks(clip, *((0,) if late is None else (0, late)))
    whole = two_passes(clip, prompts)
    adaptation = Adaptation(prompts, CONFIG)
    for p in clip:
        adaptation.watch(p)
        adaptation = saved(adaptation, tmp_path / "state")
    while adaptation.steps < CONFIG.iterations:
        next(adaptation.train())
        adaptation = saved(adaptation, tmp_path / "state")
    assert list(adaptation.train()) == []
    parts = []
    for p in clip:
        parts.append(adaptation.apply(p.frame))
        adaptation = saved(adaptation, tmp_path / "state")
    assert equal(parts, whole)


def test_a_live_run_that_was_interrupted_anywhere_gives_the_same(tmp_path: Path) -> None:
    clip = moving_boxes(10, late=5)
    prompts = first_masks(clip, 0, 5)
    whole, parts = one_pass(clip, prompts), []
    adaptation = Adaptation(prompts, CONFIG)
    for p in clip:
        parts.append(adaptation.live(p))
        adaptation = saved(adaptation, tmp_path / "state")
    assert equal(parts, whole)


def test_the_live_form_never_looks_ahead() -> None:
    clip = moving_boxes(8)
    other = [*clip[:5], *moving_boxes(8, seed=1)[5:]]
    one, changed = (one_pass(c, first_masks(clip, 0)) for c in (clip, other))
    assert equal(one[:5], changed[:5])
    assert not equal(one[5:], changed[5:])
    read: list[int] = []
    stage: Filter = AdaptFilter(Adaptation(first_masks(clip, 0), CONFIG).live)
    with stage:
        for index, p in enumerate(stage.run(read.append(p.frame.index) or p for p in clip)):
            assert p.frame.index == index == read[-1]
    assert stage.seconds > 0


# --- objects ---


def test_objects_appear_with_their_mask_and_given_objects_are_what_it_says() -> None:
    clip = moving_boxes(7, late=4)
    prompts = {0: clip[0].labels, 4: LabelMap(torch.where(clip[4].labels.pixels == 3, 3, 0).to(torch.uint8), (3,))}
    for found in (two_passes(clip, prompts), one_pass(clip, prompts)):
        assert [p.labels.ids for p in found] == [(200,)] * 4 + [(200, 3)] * 3
        assert all(set(p.labels.pixels.unique().tolist()) <= {0, *p.labels.ids} for p in found)
        assert torch.equal(found[0].labels.pixels, clip[0].labels.pixels)
        assert torch.equal(found[4].labels.pixels == 3, clip[4].labels.pixels == 3)


def test_a_new_object_is_learned_before_live_masks_replace_those_of_the_method() -> None:
    clip = moving_boxes(10, late=5)
    adaptation = Adaptation(first_masks(clip, 0, 5), CONFIG)
    from_method = [adaptation.live(p) is p for p in clip]
    assert from_method == [True, True, False, False, False, True, True, False, False, False]


def test_after_the_last_iteration_the_live_form_trains_only_now_and_then() -> None:
    clip = moving_boxes(12)
    adaptation = Adaptation(first_masks(clip, 0), replace(CONFIG, live_every=4))
    steps = [adaptation.live(p) and adaptation.steps for p in clip]
    assert steps == [1, 2, 3, 4, 5, 5, 5, 5, 6, 6, 6, 6]


def test_a_correction_keeps_what_it_does_not_speak_about() -> None:
    clip = moving_boxes(6, late=0)
    correction = box((48, 64), 0, 0, 6, 3)
    correction[10:] = 255
    prompts = {0: clip[0].labels, 3: LabelMap(correction, (3,))}
    without = two_passes(clip, first_masks(clip, 0))
    found = two_passes(clip, prompts)[3].labels.pixels
    assert torch.equal(found[:10] == 3, correction[:10] == 3)
    assert 255 not in found
    assert without[3].labels.ids == (200, 3)


def test_known_ids_are_those_that_the_masks_so_far_name_in_their_order() -> None:
    nothing = torch.zeros(1, 1, dtype=torch.uint8)
    prompts = {4: LabelMap(nothing, (7, 9)), 0: LabelMap(nothing, (9, 2)), 6: LabelMap(nothing, (1,))}
    forward = [known_ids(prompts, index, Direction.FORWARD) for index in (0, 3, 4, 6)]
    assert forward == [(9, 2), (9, 2), (9, 2, 7), (9, 2, 7, 1)]
    backward = [known_ids(prompts, index, Direction.BACKWARD) for index in (7, 5, 4, 0)]
    assert backward == [(), (1,), (1, 7, 9), (1, 7, 9, 2)]
    assert known_ids(prompts, 3, Direction.BOTH) == (9, 2, 7, 1)


def test_later_channels_are_background_until_their_object_is_named() -> None:
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]
    assert known_channels(probs, 2).flatten().tolist() == pytest.approx([0.8, 0.2])
    assert known_channels(probs, 4).flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_probabilities_come_at_the_asked_size() -> None:
    clip = moving_boxes(5)
    carried = [replace(p, probs=torch.rand(2, 24, 32)) for p in clip]
    for found in (
        two_passes(clip, first_masks(clip, 0), probs_size=(24, 32)),
        one_pass(carried, first_masks(clip, 0))[3:],
    ):
        for p in found:
            assert p.probs is not None
            assert tuple(p.probs.shape) == (2, 24, 32)
            torch.testing.assert_close(p.probs.sum(0), torch.ones(24, 32))
            if p.frame.index == 0:
                assert set(p.probs.unique().tolist()) == {0, 1}


# --- odd clips ---


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (2, 90)])
@pytest.mark.parametrize("count", [1, 5])
def test_tiny_frames_single_frames_and_single_pixels_do_no_harm(size: tuple[int, int], count: int) -> None:
    clip = [prediction(index, box(size, 0, 0, 1, 9), (9,)) for index in range(count)]
    prompts = first_masks(clip, 0)
    for found in (two_passes(clip, prompts, probs_size=size), one_pass(clip, prompts)):
        assert [p.labels.size for p in found] == [size] * count
        assert torch.equal(found[0].labels.pixels, clip[0].labels.pixels)


def test_blank_frames_and_objects_that_vanish_do_no_harm() -> None:
    clip = [prediction(index, box((20, 20), 0, 0, 10 if index < 2 else 0, 9), (9, 4)) for index in range(6)]
    clip[3:5] = [replace(p, frame=frame(p.frame.index, torch.zeros_like(p.frame.image))) for p in clip[3:5]]
    prompts = first_masks(clip, 0)
    for found in (two_passes(clip, prompts), one_pass(clip, prompts)):
        assert [p.labels.ids for p in found] == [(9, 4)] * 6
        assert all(set(p.labels.pixels.unique().tolist()) <= {0, 9, 4} for p in found)


def test_frames_before_the_first_mask_stay_empty() -> None:
    blank = [prediction(index, torch.zeros(48, 64), ()) for index in range(2)]
    later = [replace(p, frame=replace(p.frame, index=p.frame.index + 2)) for p in moving_boxes(4)]
    clip, prompts = [*blank, *later], {2: later[0].labels}
    for found in (two_passes(clip, prompts, probs_size=(12, 16)), one_pass(clip, prompts)):
        assert [p.labels.ids for p in found] == [(), (), (200,), (200,), (200,), (200,)]
        assert not found[1].labels.pixels.any()
    assert list(Adaptation(prompts, CONFIG).train()) == []


def test_a_given_mask_that_is_all_void_teaches_nothing_and_does_no_harm() -> None:
    clip = [prediction(index, torch.zeros(16, 16), (9,)) for index in range(3)]
    prompts = {0: LabelMap(torch.full((16, 16), 255, dtype=torch.uint8), (9,))}
    adaptation = Adaptation(prompts, CONFIG)
    adaptation.watch(clip[0])
    assert list(adaptation.train()) == [0.0] * CONFIG.iterations
    assert [adaptation.apply(p.frame).labels.size for p in clip] == [(16, 16)] * 3
