"""The memory of `mast-mem`: which frames it holds, labels that are fed back, and the contract under these settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import naive
from tests.contract import Contract
from vostrack.errors import MethodError, WeightsError
from vostrack.methods import configure, load_method
from vostrack.methods.base import in_parts
from vostrack.methods.mast_mem import MastConfig, MastMethod, MastState, spacing
from vostrack.nets.encoders import MastNet, MomentumNet
from vostrack.ops.color import normalised_lab
from vostrack.weights import find, load, save_weights

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


def test_the_preset_of_the_paper_has_its_settings() -> None:
    """Windows of 25 x 25 cells (appendix B), keys of the head, scores as they are (Eq. 7), far frames as in MAST."""
    paper = MastMethod.presets["paper"]
    assert (2 * paper.radius + 1, paper.reach, paper.temperature) == (25, 0, 1)
    assert (paper.far, paper.far_step, paper.far_dilation) == (15, 15, 4)
    assert not paper.soft
    net, image = MastNet().eval(), torch.rand(3, 20, 28)
    torch.testing.assert_close(MastMethod(net, paper).encode(image), net(normalised_lab(image)[None])[0])


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


Cell = tuple[int, int]


def square(centre: tuple[int, int], radius: int, step: int, grid: Cell) -> list[Cell]:
    """Cells of a window whose taps lie so many cells apart; those outside the image are left out."""
    taps = range(-radius, radius + 1)
    places = [(centre[0] + step * y, centre[1] + step * x) for y in taps for x in taps]
    return [(y, x) for y, x in places if 0 <= y < grid[0] and 0 <= x < grid[1]]


def naive_readout(query: torch.Tensor, memory: dict[int, tuple[torch.Tensor, torch.Tensor]], now: int) -> torch.Tensor:
    """Labels (K, h, w) of frame `now`: Zhu et al., Eq. 6 and 7, over all frames of the memory in one softmax.

    Frames that are at most 4 back are searched in a window of 5 x 5 cells. In others it is placed where MAST, Eq. 8,
    expects the match: the mean place under a softmax over 5 x 5 taps that lie d cells apart, d being 2 from an age of
    5 on and 3 from an age of 6 on. Features are (C, h, w), labels (h, w).
    """
    grid = (query.shape[1], query.shape[2])
    read = torch.zeros(3, *grid, dtype=torch.float64)
    for y in range(grid[0]):
        for x in range(grid[1]):
            scores: dict[Any, float] = {}
            for number, (key, _) in memory.items():

                def dot(cell: Cell, key: torch.Tensor = key, y: int = y, x: int = x) -> float:
                    return float(query[:, y, x].double() @ key[:, cell[0], cell[1]].double())

                centre = (y, x)
                if now - number > 4:
                    found = naive.softmax({at: dot(at) for at in square(centre, 2, 3 if now - number > 5 else 2, grid)})
                    mean = [sum(weight * at[axis] for at, weight in found.items()) for axis in (0, 1)]
                    centre = (math.floor(mean[0] + 0.5), math.floor(mean[1] + 0.5))
                scores |= {(number, at): dot(at) for at in square(centre, 2, 1, grid)}
            for (number, at), weight in naive.softmax(scores).items():
                read[int(memory[number][1][at]), y, x] += weight
    return read


@pytest.mark.parametrize(("seed", "objects"), [(0, 10), (1, 10), (2, 1)])
def test_the_readout_of_near_and_far_frames_equals_the_formula(seed: int, objects: int) -> None:
    """The published settings with smaller windows: of 9 frames, two are far, at two dilations, and two are near.

    Objects are anywhere, or in the first columns alone, where most cells read nothing but background.
    """
    grid, generator = (7, 10), torch.Generator().manual_seed(seed)
    config = replace(
        MastMethod.presets["paper"], first=(0, 4), recent=(1, 3), radius=2, far=4, far_step=3, far_dilation=3
    )
    method = MastMethod(blind(), config)
    features = 1.5 * torch.randn(10, 4, *grid, generator=generator)
    given = torch.randint(3, (28, 40), generator=generator)
    given[:, 4 * objects :] = 0
    state = method.begin(features[0], torch.nn.functional.one_hot(given, 3).permute(2, 0, 1).float())
    labels = {0: given[::4, ::4]}
    for number in range(1, 9):
        probs = torch.rand(3, *grid, generator=generator).softmax(0)
        probs[0, :, objects:] = 1
        labels[number] = probs.argmax(0)
        state = method.remember(state, features[number], probs)
    assert [entry.number for entry in method.select(state)] == [0, 4, 6, 8]
    memory = {number: (features[number], labels[number]) for number in (0, 4, 6, 8)}
    expected = naive_readout(features[9], memory, 9)
    torch.testing.assert_close(method.predict(state, features[9]).double(), expected, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def two_encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[MomentumNet, Path]:
    torch.manual_seed(0)
    net = MomentumNet().eval()
    path = tmp_path_factory.mktemp("weights") / "both.safetensors"
    save_weights(net, "mast-mem", path, {}, "momentum")
    load(net, "mast-mem", path)  # in half precision, as it is saved
    return net, path


def test_queries_and_references_have_their_own_encoders(two_encoders: tuple[MomentumNet, Path]) -> None:
    """Zhu et al., Eq. 5 to 7, from a file with both."""
    net, path = two_encoders
    method = in_parts(load_method("mast-mem", preset="paper", weights=path)[0])
    first, second = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.nn.functional.one_hot(torch.arange(12 * 16).view(12, 16) % 3, 3).permute(2, 0, 1).float()
    state = method.begin(method.encode(first), labels)
    found = method.predict(state, method.encode(second))
    query, key = net(normalised_lab(second)[None])[0], net.references(normalised_lab(first)[None])[0]
    keys, values = key.permute(1, 2, 0)[:, :, None], labels[:, ::4, ::4].permute(1, 2, 0)[:, :, None]
    expected = naive.attention(query.permute(1, 2, 0), keys, values, radius=12).permute(2, 0, 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_two_encoders_work_with_what_the_default_adds(two_encoders: tuple[MomentumNet, Path]) -> None:
    method = in_parts(load_method("mast-mem", weights=two_encoders[1])[0])
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 24, 32)
    labels[1, 8:, :16] = 1
    labels[0] = 1 - labels[1]
    state = method.begin(method.encode(image), labels)
    found = method.predict(state, method.encode(image))
    assert found.shape == (2, 6, 8)
    torch.testing.assert_close(found.sum(0), torch.ones(6, 8))


def test_two_encoders_start_from_weights_of_one(tmp_path: Path) -> None:
    one, both = MastNet(), MomentumNet()
    load(one, "mast-mem", find("mast-mem"), MastMethod.adopts)
    load(both, "mast-mem", find("mast-mem"), MastMethod.adopts)
    for name, value in one.state_dict().items():
        assert torch.equal(both.state_dict()[name], value)
        assert torch.equal(both.references.state_dict()[name], value)
    save_weights(MastNet(depth=2), "mast-mem", tmp_path / "shallow.safetensors", {}, "shallow")
    with pytest.raises(WeightsError, match="names differ"):
        load(both, "mast-mem", tmp_path / "shallow.safetensors", MastMethod.adopts)
