"""Only a window around the objects is described: of a matcher whose features are the colours of each cell."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vostrack.matching.matcher import MatchingState, SoftMatcher
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.ops.hypercolumns import colours
from vostrack.propagate import Gone, Propagator
from vostrack.types import Clip, Frame, LabelMap, Prediction

SIZE = (100, 330)
OBJECTS = {0: (30, 20, 3), 1: (50, 44, 9)}


class Colours(SoftMatcher):
    """Features that no receptive field is cut of; remembers how large the images were."""

    name: ClassVar[str] = "colours"
    net = nn.Identity()

    def __init__(self, **settings: Any) -> None:
        local = {"surround": 32, "background_update": False}
        super().__init__(SoftMatcherConfig(**{"axes": 0, "edge_radius": 0, **local, **settings}))
        self.seen: list[tuple[int, int]] = []

    def encode(self, image: Tensor) -> Tensor:
        self.seen.append((image.shape[1], image.shape[2]))
        return nn.functional.normalize(colours(image, self.stride) - 0.4, dim=0)


class Whole(Colours):
    def window(self, state: MatchingState, size: tuple[int, int]) -> None:
        return None


def moved(index: int) -> tuple[Tensor, LabelMap]:
    """Two objects that move right over a ground with texture."""
    ground = torch.randint(60, 150, (3, 25, 83), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image = ground.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : SIZE[0], : SIZE[1]].contiguous()
    pixels = torch.zeros(SIZE, dtype=torch.uint8)
    for channel, (top, left, number) in OBJECTS.items():
        place = (slice(top, top + 16), slice(left + 5 * index, left + 5 * index + 20))
        image[(slice(None), *place)] = 30
        image[channel][place], pixels[place] = 240, number
    return image, LabelMap(pixels, (3, 9))


def frames(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(index, Fraction(index, 25), moved(index)[0], str(index))


def run(method: Colours, given: tuple[int, ...] = (0,), count: int = 7) -> tuple[list[Prediction], Propagator]:
    engine = Propagator(method, keep_probs=True)
    return list(engine.run(Clip(frames(count), {index: moved(index)[1] for index in given}))), engine


@pytest.mark.parametrize("settings", [{}, {"stride": 8}, {"background_update": True, "foreground_threshold": 0.2}])
def test_a_window_gives_the_masks_that_the_whole_frame_does(settings: dict[str, Any]) -> None:
    part, whole = Colours(**settings), Whole(**settings)
    predictions = zip(run(part)[0], run(whole)[0], strict=True)
    for index, (one, other) in enumerate(predictions):
        assert torch.equal(one.labels.pixels, other.labels.pixels)
        assert one.probs is not None
        assert other.probs is not None
        torch.testing.assert_close(one.probs, other.probs, atol=2e-2, rtol=0)
        truth = moved(index)[1].pixels
        assert ((one.labels.pixels > 0) & (truth > 0)).sum() > 0.5 * (truth > 0).sum()
    assert set(whole.seen) == {SIZE}
    assert part.seen[0] == SIZE
    assert all(height == SIZE[0] and 100 < width < 230 for height, width in part.seen[1:])


def test_frames_with_a_mask_are_seen_whole() -> None:
    method = Colours()
    run(method, given=(0, 3))
    assert [size == SIZE for size in method.seen] == [True, False, False, False, True, False, False, False]


def test_outliers_come_from_what_was_seen() -> None:
    learning = {"background_update": True, "foreground_threshold": 0.2}
    methods = Colours(**learning), Colours(surround=0, **learning)
    parts, wholes = (run(method)[1].position.state.sets.background for method in methods)
    for part, whole in zip(parts, wholes, strict=True):
        assert part.filled == pytest.approx(whole.filled, rel=0.05)
        assert part.used.norm(dim=1).min() > 0.9, "cells that were not seen have no features"
        assert part.hits.sum() > 0


def test_the_same_is_said_of_a_frame_whether_its_mask_was_given_or_not() -> None:
    def said(given: tuple[int, ...]) -> list[Tensor]:
        found = list[Tensor]()
        engine = Propagator(Colours(), keep=lambda index, codes, ids, hidden: found.append(codes))
        list(engine.run(Clip(frames(4), {index: moved(index)[1] for index in given})))
        return found

    assert all(torch.equal(one, other) for one, other in zip(said((0,)), said((0, 3)), strict=True))


@pytest.mark.parametrize("settings", [{"surround": 0}, {"outlier_removal": False}, {"foreground_update": True}])
def test_what_reads_all_cells_takes_whole_frames(settings: dict[str, Any]) -> None:
    method = Colours(**settings)
    run(method, count=3)
    assert set(method.seen) == {SIZE}


def test_cells_that_were_not_seen_belong_to_no_label() -> None:
    method = Colours()
    state = run(method)[1].position.state
    columns = -(-method.seen[-1][1] // method.stride)
    there = state.recent.used_values.sum(3) > 0
    newest = there[:, :, (state.recent.oldest - 1) % state.recent.capacity]
    assert newest.any(0).sum() == columns
    assert torch.equal(newest, newest.any(0).expand_as(newest))
    torch.testing.assert_close(state.recent.used_values.sum(3), there.float())


def cost(mask: LabelMap, gone: Gone | None = None) -> tuple[int, list[Prediction]]:
    """Multiplications of a run over seven frames, and what it finds."""
    with FlopCounterMode(display=False) as counter:
        found = list(Propagator(Colours(), gone=gone).run(Clip(frames(7), {0: mask})))
    return counter.get_total_flops(), found


def test_an_object_that_is_gone_costs_nothing_and_comes_back() -> None:
    both = moved(0)[1]
    alone = LabelMap(torch.where(both.pixels == 3, 3, 0).to(torch.uint8), (3,))
    usual, least, without = (cost(*each)[0] for each in ((both,), (alone,), (both, {9: [(1, None)]})))
    assert without <= least < usual
    found = cost(both, {9: [(1, 3)]})[1]
    assert [bool((each.labels.pixels == 9).any()) for each in found[:5]] == [True, False, False, False, True]


def test_many_objects_share_what_is_encoded() -> None:
    pixels = moved(0)[1].pixels
    for number in range(1, 11):
        pixels[2 : 2 + 8, 30 * number : 30 * number + 8] = 100 + number
    method = Colours(surround=0)
    mask = LabelMap(pixels, (3, 9, *range(101, 111)))
    list(Propagator(method).run(Clip(frames(4), {0: mask})))
    assert method.seen == [SIZE] * 4
