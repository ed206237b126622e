from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.fakes import IDS, SIZE, FakeConfig, fake_method, pictures, truth
from tests.steps import SteppingMethod
from vostrack.errors import MaskError
from vostrack.propagate import Propagator, check_prompts
from vostrack.types import Clip, Frame, LabelMap, Prediction


def frames(count: int, first: int = 0, scale: int = 1) -> Iterator[Frame]:
    for index, picture in enumerate(pictures(count)):
        image = torch.from_numpy(picture).permute(2, 0, 1).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        if index >= first:
            yield Frame(index, Fraction(index, 25), image, f"{index:05d}")


def labels(index: int = 0, ids: tuple[int, ...] = IDS, scale: int = 1) -> LabelMap:
    pixels = torch.from_numpy(truth(index, ids))
    return LabelMap(pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1), ids)


def run(clip: Clip, **settings: object) -> list[Prediction]:
    return list(Propagator(fake_method(), **settings).run(clip))  # type: ignore[arg-type]


def overlap(prediction: Prediction, object_id: int, scale: int = 1) -> float:
    found = prediction.labels.pixels.numpy() == object_id
    true = np.kron(truth(prediction.frame.index) == object_id, np.ones((scale, scale), bool))
    return float((found & true).sum() / (found | true).sum())


def test_the_first_frame_is_given_back_exactly_and_the_others_follow_the_objects() -> None:
    out = run(Clip(frames(10), {0: labels()}))
    assert torch.equal(out[0].labels.pixels, labels().pixels)
    assert [prediction.frame.index for prediction in out] == list(range(10))
    for prediction in out:
        assert prediction.labels.ids == IDS
        assert prediction.labels.pixels.dtype == torch.uint8
        assert min(overlap(prediction, object_id) for object_id in IDS) > 0.7


def test_frames_before_the_first_mask_are_empty() -> None:
    out = run(Clip(frames(5), {3: labels(3)}), keep_probs=True)
    for prediction in out[:3]:
        assert prediction.labels.ids == ()
        assert prediction.labels.size == SIZE
        assert not prediction.labels.pixels.any()
        assert prediction.probs is not None
        assert torch.equal(prediction.probs, torch.ones(1, *SIZE))
    assert torch.equal(out[3].labels.pixels, labels(3).pixels)
    assert out[4].labels.ids == IDS


def test_an_object_that_comes_later_gets_the_last_channel_and_keeps_its_id() -> None:
    first = LabelMap(torch.where(labels().pixels == 200, 200, 0).to(torch.uint8), (200,))
    late = LabelMap(torch.where(labels(4).pixels == 3, 3, 0).to(torch.uint8), (3,))
    out = run(Clip(frames(8), {0: first, 4: late}), keep_probs=True)
    assert [prediction.labels.ids for prediction in out] == [(200,)] * 4 + [(200, 3)] * 4
    assert [len(prediction.probs) for prediction in out if prediction.probs is not None] == [2] * 4 + [3] * 4
    assert torch.equal(out[4].labels.pixels == 3, labels(4).pixels == 3)
    assert overlap(out[4], 200) > 0.7, "the mask says nothing about object 200"
    assert min(overlap(out[7], object_id) for object_id in IDS) > 0.7


def test_a_correction_changes_its_frame_and_what_follows() -> None:
    wrong = LabelMap(torch.where(labels().pixels == 3, 200, 0).to(torch.uint8), (200,))
    plain = run(Clip(frames(8), {0: wrong}))
    out = run(Clip(frames(8), {0: wrong, 4: labels(4)}))
    assert torch.equal(out[4].labels.pixels, labels(4).pixels)
    assert overlap(plain[7], 200) < 0.1
    assert overlap(out[7], 200) > 0.7


def test_void_is_background_at_first_and_keeps_the_prediction_later() -> None:
    pixels = labels().pixels.clone()
    pixels[40:, :] = 255
    first = run(Clip(frames(1), {0: LabelMap(pixels, IDS)}))[0].labels.pixels
    assert not first[40:].any()
    unknown = torch.full(SIZE, 255, dtype=torch.uint8)
    plain = run(Clip(frames(5), {0: labels()}))
    out = run(Clip(frames(5), {0: labels(), 4: LabelMap(unknown, IDS)}))
    assert torch.equal(out[4].labels.pixels, plain[4].labels.pixels)


@pytest.mark.parametrize("index", [5, 99])
def test_a_mask_behind_the_end_is_refused(index: int) -> None:
    with pytest.raises(MaskError, match=rf"mask for frame {index}, but the clip ends with frame 4"):
        run(Clip(frames(5), {0: labels(), index: labels()}))
    with pytest.raises(MaskError, match=f"frame {index}"):
        check_prompts({0: labels(), index: labels()}, 5)


def test_masks_that_cannot_be_are_refused() -> None:
    with pytest.raises(MaskError, match="no mask was given"):
        run(Clip(frames(2)))
    with pytest.raises(MaskError, match="frame -1"):
        run(Clip(frames(2), {-1: labels()}))
    with pytest.raises(MaskError, match=r"frame 0 has size \[96, 128\], but the frame has \[48, 64\]"):
        run(Clip(frames(2), {0: labels(scale=2)}))


@pytest.mark.parametrize(("size", "expected"), [(48, (48, 64)), (None, (144, 192)), (500, (144, 192))])
def test_the_working_size_is_limited_and_results_have_the_size_of_the_source(
    size: int | None, expected: tuple[int, int]
) -> None:
    method = fake_method()
    seen = []
    encode = method.encode

    def spy(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape[1:]))
        return encode(image)

    method.encode = spy  # type: ignore[method-assign]
    clip = Clip(frames(4, scale=3), {0: labels(scale=3)})
    out = list(Propagator(method, size, keep_probs=True).run(clip))
    assert set(seen) == {expected}
    assert len(seen) == 4, "each frame is encoded once"
    for prediction in out:
        assert prediction.labels.size == (144, 192)
        assert prediction.probs is not None
        assert tuple(prediction.probs.shape) == (3, *expected)
        assert overlap(prediction, 3, 3) > 0.7


def test_probabilities_come_only_when_they_are_asked_for() -> None:
    assert all(prediction.probs is None for prediction in run(Clip(frames(3), {0: labels()})))
    for prediction in run(Clip(frames(3), {0: labels()}), keep_probs=True):
        assert prediction.probs is not None
        torch.testing.assert_close(prediction.probs.sum(0), torch.ones(SIZE))


def test_memory_does_not_hold_the_clip() -> None:
    images: list[weakref.ref[Tensor]] = []

    def watched() -> Iterator[Frame]:
        for frame in frames(12):
            images.append(weakref.ref(frame.image))
            yield frame

    for prediction in Propagator(fake_method()).run(Clip(watched(), {0: labels()})):
        del prediction
        assert sum(image() is not None for image in images) <= 2


def test_a_run_can_be_stopped_early_and_goes_on_from_its_progress() -> None:
    whole = run(Clip(frames(9), {0: labels()}))
    engine = Propagator(fake_method())
    predictions = engine.run(Clip(frames(9), {0: labels()}))
    for _ in range(4):
        next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    assert engine.position.done == 4
    rest = run(Clip(frames(9, first=4), {0: labels()}), position=engine.position)
    assert [prediction.frame.index for prediction in rest] == [4, 5, 6, 7, 8]
    for one, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(one.labels.pixels, other.labels.pixels)


def test_no_gradients_are_kept_and_the_callers_mode_is_left_alone() -> None:
    for prediction in Propagator(fake_method(), keep_probs=True).run(Clip(frames(3), {0: labels()})):
        assert torch.is_grad_enabled()
        assert prediction.probs is not None
        assert not prediction.probs.requires_grad
        assert not prediction.probs.is_inference()


# Methods that do all in one step.


def stepping(clip: Clip, **settings: Any) -> list[Prediction]:
    return list(Propagator(SteppingMethod(nn.Identity(), FakeConfig()), **settings).run(clip))


def test_a_method_that_does_all_in_one_step_sees_each_frame_once_from_the_first_mask_on() -> None:
    propagator = Propagator(SteppingMethod(nn.Identity(), FakeConfig()), keep_probs=True)
    out = list(propagator.run(Clip(frames(8), {2: labels(), 5: labels(0, (7,))})))
    assert [prediction.labels.ids for prediction in out] == [()] * 2 + [IDS] * 3 + [(*IDS, 7)] * 3
    assert propagator.position.state.frames == 6
    assert torch.equal(out[4].labels.pixels, torch.roll(labels().pixels, 2, 1))
    assert all(x.probs is not None and x.probs.argmax(0).any() == x.labels.pixels.any() for x in out)


def test_it_gets_masks_at_the_working_size_and_what_they_say_holds_at_the_size_of_the_clip() -> None:
    out = stepping(Clip(frames(4, scale=2), {0: labels(scale=2), 2: labels(3, (200,), scale=2)}), size=SIZE[0])
    assert torch.equal(out[0].labels.pixels, labels(scale=2).pixels)
    said = labels(3, (200,), scale=2).pixels == 200
    assert torch.equal(out[2].labels.pixels == 200, said)
    assert (out[2].labels.pixels == 3).any()
    assert out[3].labels.pixels.shape == said.shape


def test_it_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(MaskError, match=r"the mask for frame 1 has size"):
        stepping(Clip(frames(3), {0: labels(), 1: labels(scale=2)}))
