"""The memory of `mast-mem`: which frames it holds, labels that are fed back, and the contract under these settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.contract import Contract
from vostrack.errors import MethodError
from vostrack.methods import configure, load_method
from vostrack.methods.mast_mem import MastConfig, MastMethod, MastState, spacing

GRID = (3, 4)


class Blind:
    """A net that is never asked."""

    stride = 4
    depth = 4


def blind() -> Any:
    """It stands in for a `MastNet`."""
    return Blind()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def method() -> MastMethod:
    loaded = load_method("mast-mem", settings={"soft": True, "spread": 3})[0]
    assert isinstance(loaded, MastMethod)
    return loaded


class TestSoftLabelsAndASpreadMemory(Contract):
    # The state of a spread memory shrinks now and then; that it is bounded is tested below.
    test_the_state_does_not_grow: Any = None


def probabilities(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(channels, *GRID, generator=torch.Generator().manual_seed(seed)).mul(4).softmax(0)


def after(config: MastConfig, frames: int) -> tuple[MastMethod, MastState]:
    """A method that has seen so many frames, the first of them given."""
    method = MastMethod(blind(), config)
    labels = torch.zeros(3, 12, 16)
    labels[0] = 1
    state = method.begin(torch.zeros(2, *GRID), labels)
    for number in range(1, frames):
        state = method.remember(state, torch.zeros(2, *GRID), probabilities(number))
    return method, state


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({}, [0, 5, 35, 37, 39]),
        ({"first": (), "recent": (1,)}, [39]),
        ({"first": (0,), "recent": (1, 3)}, [0, 37, 39]),
        ({"spread": 64}, list(range(40))),
        ({"spread": 5, "first": (0,), "recent": (1,)}, [0, 8, 16, 24, 32, 39]),
    ],
)
def test_the_memory_holds_the_frames_of_its_settings(settings: dict[str, Any], numbers: list[int]) -> None:
    """Among them those of Zhu et al., Table 2: 5, 1, 3 and all earlier frames."""
    method, state = after(configure("mast-mem", settings=settings), 40)
    assert [entry.number for entry in method.select(state)] == numbers


def test_stages_that_the_network_does_not_have_are_refused() -> None:
    shallow = MastMethod.nets["shallow"]()
    assert MastMethod(shallow, MastConfig()).encode(torch.rand(3, 16, 24)).shape == (64 + 128 + 6, 4, 6)
    with pytest.raises(MethodError, match="this network has 2 stages"):
        MastMethod(shallow, MastConfig(stages=(1, 2, 3)))


def test_a_spread_memory_is_bounded_even_and_whole_while_there_is_room() -> None:
    for room in (1, 2, 3, 7):
        for count in range(1, 100):
            step = spacing(count, room)
            held = len(range(0, count, step))
            assert held <= room
            assert step == 1 or len(range(0, count, step // 2)) > room
    method = MastMethod(blind(), MastConfig(spread=4))
    _, state = after(method.config, 1)
    for number in range(1, 70):
        state = method.remember(state, torch.zeros(2, *GRID), probabilities(number))
        assert [entry.number for entry in state.spread] == list(range(0, number + 1, spacing(number + 1, 4)))


def test_a_given_mask_drops_frames_whose_labels_were_predicted() -> None:
    method, state = after(MastConfig(spread=8), 6)
    state = method.begin(torch.zeros(2, *GRID), torch.ones(1, 12, 16).expand(3, -1, -1) / 3, state)
    assert [entry.number for entry in method.select(state)] == [0, 5, 6]


@pytest.mark.parametrize("soft", [False, True])
def test_labels_are_stored_in_bytes(soft: bool) -> None:
    method, state = after(MastConfig(soft=soft), 1)
    probs = probabilities(1)
    stored = method.remember(state, torch.zeros(2, *GRID), probs).recent[-1].labels
    assert stored.dtype == torch.uint8
    found = stored.permute(2, 0, 1) / 255
    if soft:
        torch.testing.assert_close(found, probs, atol=0.5 / 255 + 1e-6, rtol=0)
    else:
        strongest = [[int(probs[:, y, x].argmax()) for x in range(GRID[1])] for y in range(GRID[0])]
        assert found.argmax(0).tolist() == strongest
        assert torch.equal(found.sum(0), torch.ones(GRID))


def test_soft_labels_are_read_as_they_were_predicted() -> None:
    """With one frame in memory and keys that single out a cell, the readout is that cell's stored labels."""
    config = replace(configure("mast-mem", settings={"first": (), "recent": (1,), "axes": 0}), soft=True)
    method, state = after(config, 1)
    features = 100 * torch.eye(12).view(12, *GRID)
    probs = probabilities(5)
    read = method.predict(method.remember(state, features, probs), features)
    torch.testing.assert_close(read, probs, atol=0.01, rtol=0)


@pytest.mark.parametrize(("reach", "share"), [(0.0, 0.0), (0.5, 1.0)])
def test_the_ring_around_the_window_finds_what_moved_out_of_it(reach: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(32, 20, 24, generator=generator), dim=0)
    labels = torch.zeros(2, 80, 96)
    labels[1, 32:48, 32:48] = 1
    labels[0] = 1 - labels[1]
    method = MastMethod(blind(), MastConfig(axes=0, radius=3, reach=reach))
    state = method.begin(features, labels)
    found = method.predict(state, torch.roll(features, (0, 8), (1, 2)))
    assert (found.argmax(0)[9:11, 17:19] == 1).float().mean() == share


@pytest.mark.parametrize("change", [{"reach": -0.1}, {"spread": -1}, {"first": (), "recent": (2, 3)}, {"recent": ()}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=list(change)[-1]):
        MastConfig(**change)
