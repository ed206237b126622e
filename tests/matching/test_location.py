"""Where objects can be, against distances in a plain loop."""

from __future__ import annotations

import math

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
    assert torch.equal(places.outside(80.0), beyond(2, 3, 2))
    places = places.after(nothing).after(nothing)
    assert torch.equal(places.outside(80.0), beyond(2, 3, 6))
    assert torch.equal(places.after(dot(5, 9)).outside(80.0), beyond(5, 9, 2))
    assert LastSeen.of(nothing).outside(80.0).all()


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
    assert torch.equal(places.outside(80.0), torch.cat((beyond(2, 3, 4), beyond(8, 8, 2))))


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
