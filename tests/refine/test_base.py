"""The stage that refines beside the model, with refiners that need no package."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vostrack.errors import VostrackError
from vostrack.refine.base import RefineFilter, working_size
from vostrack.types import Frame, LabelMap, Prediction

SIZE, SMALL = (12, 20), (6, 10)


class Swap:
    """Exchanges the two objects."""

    def __init__(self, size: int = 480) -> None:
        self.size, self.feedback = size, False
        self.seen: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        self.open = 0

    def record(self) -> dict[str, Any]:
        return {}

    def refine(self, image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append((image, probs))
        return probs[[0, 2, 1]]

    def __enter__(self) -> Self:
        self.open += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.open -= 1


class Slow(Swap):
    """Waits until it is told to go on, or is left."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def refine(self, image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.go.wait(20)
        return super().refine(image, probs)

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self.go.set()


def predictions(count: int, size: tuple[int, int] = SMALL, empty: int = 0) -> Iterator[Prediction]:
    """Random probabilities of two objects; the first `empty` frames have none."""
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        image = torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8)
        ids = (7, 3) if index >= empty else ()
        probs = torch.rand(len(ids) + 1, *size, generator=generator).softmax(0)
        labels = LabelMap(torch.full(SIZE, 3 if ids else 0, dtype=torch.uint8), ids)
        yield Prediction(Frame(index, Fraction(index), image, f"{index:05d}"), labels, probs)


def test_each_frame_is_refined_in_order_and_labels_are_those_of_the_refined_channels() -> None:
    refiner = Swap()
    given = list(predictions(9, SIZE))
    with RefineFilter(refiner, {}, keep_probs=True) as stage:
        refined = list(stage.run(iter(given)))
    assert [p.frame for p in refined] == [p.frame for p in given]
    for before, after in zip(given, refined, strict=True):
        assert before.probs is not None
        assert after.probs is not None
        assert torch.equal(after.probs, before.probs[[0, 2, 1]])
        wanted = torch.tensor([0, 7, 3], dtype=torch.uint8)[before.probs[[0, 2, 1]].argmax(0)]
        assert torch.equal(after.labels.pixels, wanted)
        assert after.labels.ids == (7, 3)
    assert stage.seconds > 0
    assert refiner.open == 0


def test_given_and_empty_frames_stay_as_they_are() -> None:
    refiner = Swap()
    given = list(predictions(6, SIZE, empty=2))
    with RefineFilter(refiner, {3: None, 5: None}, keep_probs=True) as stage:
        refined = list(stage.run(given))
    assert len(refiner.seen) == 2
    for index in (0, 1, 3, 5):
        assert torch.equal(refined[index].labels.pixels, given[index].labels.pixels)
        assert torch.equal(refined[index].probs, given[index].probs)  # type: ignore[arg-type]
    assert not torch.equal(refined[4].labels.pixels, given[4].labels.pixels)


def test_probabilities_are_kept_only_where_they_are_wanted() -> None:
    with RefineFilter(Swap(), {0: None}) as stage:
        assert [p.probs for p in stage.run(predictions(3))] == [None] * 3
    bare = [Prediction(p.frame, p.labels) for p in predictions(1)]
    with RefineFilter(Swap(), {}) as stage, pytest.raises(ValueError, match="carry probabilities"):
        list(stage.run(bare))


def test_frames_are_refined_at_the_sources_size() -> None:
    refiner = Swap()
    given = list(predictions(2))
    with RefineFilter(refiner, {1: None}, keep_probs=True) as stage:
        refined = list(stage.run(given))
    ((image, probs),) = refiner.seen
    assert np.array_equal(image, given[0].frame.image.numpy())
    assert probs.shape == (3, *SIZE)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)
    assert [tuple(p.probs.shape) for p in refined if p.probs is not None] == [(3, *SIZE)] * 2


def test_large_frames_are_refined_at_the_refiners_size() -> None:
    refiner = Swap(size=9)
    with RefineFilter(refiner, {}) as stage:
        (refined,) = stage.run(predictions(1))
    ((image, probs),) = refiner.seen
    assert image.shape == (3, 9, 15)
    assert image.dtype == np.uint8
    assert probs.shape == (3, 9, 15)
    assert refined.labels.size == SIZE
    plain = refined.frame.image.float().mean()
    assert abs(float(image.mean()) - float(plain)) < 3


@pytest.mark.parametrize(
    ("source", "predicted", "side", "wanted"),
    [
        ((480, 854), (240, 427), 480, (480, 854)),
        ((1080, 1920), (480, 853), 480, (480, 853)),
        ((1080, 1920), (480, 853), 720, (720, 1280)),
        ((1920, 1080), (427, 240), 480, (853, 480)),
        ((1080, 1920), (1080, 1920), 480, (1080, 1920)),
        ((100, 300), (100, 300), 480, (100, 300)),
        ((1080, 1920), (600, 1067), 480, (600, 1067)),
    ],
)
def test_the_size_is_the_sources_but_bounded(
    source: tuple[int, int], predicted: tuple[int, int], side: int, wanted: tuple[int, int]
) -> None:
    assert working_size(source, predicted, side) == wanted


def test_the_model_goes_on_meanwhile_but_not_without_bounds() -> None:
    made: list[int] = []
    refiner = Slow()

    def model() -> Iterator[Prediction]:
        for prediction in predictions(10):
            made.append(prediction.frame.index)
            if prediction.frame.index == 3:
                refiner.go.set()  # the fourth frame is made while the first one is still being refined
            yield prediction

    with RefineFilter(refiner, {}) as stage:
        refined = stage.run(model())
        assert next(refined).frame.index == 0
        assert made == [0, 1, 2, 3]
        assert [p.frame.index for p in refined] == list(range(1, 10))


def test_a_stage_gives_all_it_holds_when_it_is_fed_no_more_and_goes_on_later() -> None:
    given = predictions(7)
    with RefineFilter(Swap(), {}) as stage:
        first = list(stage.run(next(given) for _ in range(3)))
        assert [p.frame.index for p in first] == [0, 1, 2]
        assert [p.frame.index for p in stage.run(given)] == [3, 4, 5, 6]


def test_stages_follow_one_another() -> None:
    plain = list(predictions(5, SIZE))
    one, two = RefineFilter(Swap(), {}, keep_probs=True), RefineFilter(Swap(), {}, keep_probs=True)
    with one, two:
        twice = list(two.run(one.run(iter(plain))))
    for before, after in zip(plain, twice, strict=True):
        assert torch.equal(after.probs, before.probs)  # type: ignore[arg-type]


def test_an_error_of_the_refiner_comes_out_where_its_frame_would_have() -> None:
    class Broken(Swap):
        def refine(self, image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(self.seen) == 2:
                raise VostrackError("it broke")
            return super().refine(image, probs)

    refiner = Broken()
    got: list[int] = []
    with RefineFilter(refiner, {}) as stage, pytest.raises(VostrackError, match="it broke"):
        got.extend(prediction.frame.index for prediction in stage.run(predictions(9)))
    assert got == [0, 1]
    assert refiner.open == 0


def test_leaving_a_stage_ends_what_is_under_way() -> None:
    refiner = Slow()

    def stopped() -> Iterator[Prediction]:
        yield from predictions(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RefineFilter(refiner, {}) as stage:
        list(stage.run(stopped()))
    assert refiner.open == 0
    assert len(refiner.seen) <= 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vostrack-refiner")]
