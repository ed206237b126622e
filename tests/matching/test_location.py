"""Where objects can be, against distances in a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vostrack.matching.location import LastSeen, in_cells, masks_of

GRID = (12, 20)


def dot(y: int, x: int) -> Tensor:
    mask = torch.zeros(1, *GRID, dtype=torch.bool)
    mask[0, y, x] = True
    return mask


def beyond(y: int, x: int, radius: float) -> Tensor:
    return torch.tensor([[[math.dist((y, x), (i, j)) >= radius for j in range(GRID[1])] for i in range(GRID[0])]])


def test_what_is_out_of_sight_may_move_on_with_each_frame() -> None:
    nothing = torch.zeros(1, *GRID, dtype=torch.bool)
    places = LastSeen.of(dot(2, 3))
    assert torch.equal(places.outside(places.reach(80.0)), beyond(2, 3, 2))
    places = places.after(nothing).after(nothing)
    assert torch.equal(places.outside(places.reach(80.0)), beyond(2, 3, 6))
    assert torch.equal(places.after(dot(5, 9)).outside(torch.tensor([2.0])), beyond(5, 9, 2))
    assert LastSeen.of(nothing).outside(LastSeen.of(nothing).reach(80.0)).all()


def test_what_is_left_of_an_object_that_vanishes_is_not_where_it_is_unless_somebody_says_so() -> None:
    square = torch.zeros(1, *GRID, dtype=torch.bool)
    square[0, 4:8, 4:9] = True
    places = LastSeen.of(square)
    assert torch.equal(places.after(dot(1, 1)).seen, square)
    assert places.after(dot(1, 1)).age.tolist() == [2]
    two = dot(1, 1) | dot(1, 2)  # a tenth of the square
    assert torch.equal(places.after(two).seen, two)
    assert torch.equal(places.after(dot(1, 1), given=True).seen, dot(1, 1))


def test_new_objects_begin_where_they_are_given() -> None:
    places = LastSeen.of(dot(2, 3)).after(torch.cat((torch.zeros_like(dot(0, 0)), dot(8, 8))))
    assert places.age.tolist() == [2, 1]
    assert torch.equal(places.outside(places.reach(80.0)), torch.cat((beyond(2, 3, 4), beyond(8, 8, 2))))


def test_what_was_slow_lately_reaches_less_far_and_what_is_out_of_sight_does_not() -> None:
    nothing = torch.zeros(1, *GRID, dtype=torch.bool)
    places = LastSeen.of(dot(2, 3))
    assert places.reach(240.0, 2.0).tolist() == [6], "nothing is known of how it moves"
    places = places.after(dot(2, 5))  # two cells on: twice as far is four
    assert places.reach(240.0, 2.0).tolist() == [4]
    assert places.reach(240.0).tolist() == [6]
    assert places.reach(120.0, 2.0).tolist() == [3], "never more than the maximum"
    places = places.after(dot(2, 5))  # it stands still, and is believed to be calmer
    assert places.reach(240.0, 2.0).tolist() == pytest.approx([3.6])
    assert places.reach(240.0, 0.1).tolist() == [1], "40 pixels of 480 are one cell here"
    assert places.after(nothing).reach(240.0, 2.0).tolist() == [12]
    assert places.after(nothing).after(dot(2, 11)).reach(480.0, 2.0).tolist() == [6], "six cells in two frames"
    assert places.after(dot(2, 5), given=True).reach(240.0, 2.0).tolist() == [6]
    two = places.after(torch.cat((dot(2, 5), dot(9, 9))))
    assert two.reach(240.0, 2.0).tolist() == pytest.approx([3.24, 6]), "what is new is as unknown"


def test_lengths_are_a_share_of_the_short_side() -> None:
    assert in_cells(48.0, torch.Size((60, 107))) == 6
    assert in_cells(48.0, torch.Size((214, 120))) == 12


def test_masks_are_those_of_the_objects() -> None:
    hard_labels = torch.tensor([[0, 1], [2, 1]])
    assert masks_of(hard_labels, 4).tolist() == [
        [[False, True], [False, True]],
        [[False, False], [True, False]],
        [[False, False], [False, False]],
    ]


def test_the_window_is_around_all_that_can_be_reached() -> None:
    """Pixel by pixel: 32 of them beside what is reached, then on to a pixel that lies on a cell of every stage."""
    generator = torch.Generator().manual_seed(0)
    for stride in (4, 8):
        grid = (288 // stride, 512 // stride)
        for _ in range(12):
            places = LastSeen.of(torch.zeros(3, *grid, dtype=torch.bool))
            for _ in range(2):  # the third object is never seen
                at = torch.rand(2, 2, generator=generator) * torch.tensor([grid[0] // 3, grid[1] // 3])
                masks = torch.zeros(3, *grid, dtype=torch.bool)
                for number, (y, x) in enumerate(at.int().tolist()):
                    masks[number, y : y + 3, x : x + 2] = torch.rand((), generator=generator) < 0.8
                places = places.after(masks)
            reached = (~places.outside(places.reach(40.0))).any(0).nonzero().tolist()
            window = places.window(places.reach(40.0), stride, 32)
            if not reached:
                assert window is None
                continue
            expected = []
            for axis in (0, 1):
                first = min(cell[axis] for cell in reached) * stride - 32
                last = max(cell[axis] for cell in reached) * stride + 32
                start = max(pixel for pixel in range(-960, 960, 16) if pixel <= first)
                end = min(pixel for pixel in range(0, 960, 16) if pixel >= last)
                within = [cell for cell in range(grid[axis]) if start <= cell * stride <= end]
                expected.append(slice(within[0], within[-1] + 1))
            assert window == tuple(expected)


@pytest.mark.parametrize("far", [False, True])
def test_where_the_window_is_most_of_the_frame_there_is_none(far: bool) -> None:
    masks = torch.zeros(2, 120, 213, dtype=torch.bool)
    masks[0, 30:40, 10:20] = True
    masks[1, 80:90, 190 if far else 40] = True
    places = LastSeen.of(masks)
    assert (places.window(places.reach(100.0), 4, 32) is None) == far
    for _ in range(9):
        places = places.after(torch.zeros_like(masks))
    assert places.window(places.reach(100.0), 4, 32) is None, "what is lost can be anywhere"


def test_what_something_hides_may_come_out_further_on_until_it_is_seen_whole() -> None:
    square = torch.zeros(1, *GRID, dtype=torch.bool)
    square[0, 4:8, 4:9] = True
    half, more = square.clone(), square.clone()
    half[0, :, :7] = False
    more[0, :, :5] = False
    places = LastSeen.of(square).after(square)
    assert places.reach(240.0, 2.0).tolist() == [1], "it has not moved"
    places = places.after(half)
    assert places.reach(240.0, 2.0).tolist() == [6]
    assert places.after(more).reach(240.0, 2.0)[0] < 6
    assert places.after(half).reach(240.0, 2.0).tolist() == [6], "and it still is hidden"
