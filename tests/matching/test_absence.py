"""An object that left leaves no ghost, and is found again where it looks as it was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods import configure
from vostrack.methods.videomatch import VideoMatchMethod
from vostrack.nets.encoders import VideoMatchNet
from vostrack.ops.matching import surest_half

GRID = (8, 12)
STRIDE = 4
CONFIG = SoftMatcherConfig(axes=0, context=0, top_k=1, scale=20.0, max_displacement=1e4, absence=0.9, likeness=0.8)
OBJECT, BACKGROUND, OTHER = (torch.eye(6)[i] for i in range(3))
DOUBTFUL = 0.62 * OBJECT + 0.55 * BACKGROUND + 0.56 * torch.eye(6)[4]
"""A little more like the object than like the background: probability 0.8."""
SIMILAR = 0.4 * OBJECT + 0.1 * BACKGROUND + 0.911 * torch.eye(6)[5]
"""Like the object rather than the background, and not very like it."""


def method(**changes: Any) -> VideoMatchMethod:
    return VideoMatchMethod(VideoMatchNet(), replace(CONFIG, **changes))


def frame(*things: tuple[Tensor, int]) -> Tensor:
    """Features (6, h, w): things 3 cells wide that begin in some column, before the background."""
    grid = BACKGROUND[:, None, None].repeat(1, *GRID)
    for looks, left in things:
        grid[:, 2:6, max(0, left) : max(0, left + 3)] = looks[:, None, None]
    return grid


def labels(*lefts: int) -> Tensor:
    """One-hot (K, H, W) of such things."""
    pixels = torch.zeros(STRIDE * GRID[0], STRIDE * GRID[1], dtype=torch.int64)
    for number, left in enumerate(lefts, 1):
        pixels[6:22, STRIDE * left - 2 : STRIDE * left + 10] = number  # a cell lies in the middle of its pixels
    return one_hot(pixels, len(lefts) + 1).permute(2, 0, 1).float()


def seen(chosen: VideoMatchMethod, state: Any, features: Tensor) -> list[int]:
    """How many cells each object has in a frame, none where it is out of sight."""
    probs = chosen.predict(state, features)
    found = torch.bincount(probs.argmax(0).flatten(), minlength=len(probs))[1:]
    return list(torch.where(chosen.hidden(state, features, probs), 0, found).tolist())


def followed(chosen: VideoMatchMethod, given: Tensor, frames: list[Tensor]) -> list[list[int]]:
    """The same in all frames after the first, whose labels are given."""
    state, found = chosen.begin(frames[0], given), []
    for features in frames[1:]:
        found.append(seen(chosen, state, features))
        state = chosen.remember(state, features, chosen.predict(state, features))
    return found


HERE, NOTHING = frame((OBJECT, 4)), frame()


@pytest.mark.parametrize(("absence", "ghost"), [(0.9, 0), (0.0, 12)])
def test_what_is_left_behind_is_not_the_object_and_what_comes_back_is(absence: float, ghost: int) -> None:
    frames = [HERE, frame((OBJECT, 5)), *[frame((DOUBTFUL, 5))] * 4, frame((OBJECT, 6)), frame((OBJECT, 5))]
    found = followed(method(absence=absence), labels(4), frames)
    assert found == [[12], *[[ghost]] * 4, [12], [12]]


def test_an_object_leaves_over_the_border_and_comes_back() -> None:
    out = [frame((OBJECT, left)) for left in (4, 2, 0, -1, -2, -3)]
    assert followed(method(), labels(4), [*out, NOTHING, *out[::-1]]) == [
        [size] for size in (12, 12, 8, 4, 0, 0, 0, 4, 8, 12, 12, 12)
    ]


def test_how_alike_it_must_be_is_a_setting() -> None:
    frames = [HERE, frame((DOUBTFUL, 5))]
    assert followed(method(likeness=0.65), labels(4), frames) == [[0]]
    assert followed(method(likeness=0.6), labels(4), frames) == [[12]]


def test_an_object_that_stays_in_sight_may_change_its_looks() -> None:
    assert followed(method(), labels(4), [HERE, frame((SIMILAR, 5)), frame((SIMILAR, 6))]) == [[12], [12]]


def test_one_object_leaves_and_another_stays() -> None:
    given = labels(1, 8)
    frames = [frame((OBJECT, 1), (OTHER, 8)), *[frame((DOUBTFUL, 1), (OTHER, 8))] * 2]
    assert followed(method(), given, frames) == [[0, 12]] * 2
    assert followed(method(absence=0.0), given, frames) == [[12, 12]] * 2


def test_any_given_frame_says_how_it_looks_and_one_without_it_says_nothing() -> None:
    chosen, doubtful, nothing = method(absence=0.99), frame((DOUBTFUL, 5)), torch.zeros(32, 48, dtype=torch.int64)
    state = chosen.begin(HERE, labels(4))
    state = chosen.begin(NOTHING, one_hot(nothing, 2).permute(2, 0, 1).float(), state)
    assert seen(chosen, state, doubtful) == [0]
    state = chosen.begin(doubtful, labels(5), state)
    assert seen(chosen, state, doubtful) == [12]


def test_the_surer_half_of_a_mask_is_what_counts() -> None:
    probs = torch.tensor([[0.9, 0.6, 0.8, 1.0], [0.5, 0.7, 0.2, 0.1], [0.3, 0.3, 0.3, 0.3]])
    masks = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(surest_half(probs, masks), torch.tensor([0.85, 0.7, 1.0]))
    assert surest_half(probs[:0], masks[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["videomatch", "rpm-net"])
def test_published_presets_do_without(name: str) -> None:
    assert configure(name, "paper").absence == 0
