"""`rpm-net`: equation 10 and the choice of places as naive loops, what offsets do to masks, what is explained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.naive import softmax
from tests.nets.test_deform import naive_sample, naive_value
from vostrack.errors import MethodError
from vostrack.methods.rpm_net import Given, RpmConfig, RpmNetMethod, RpmState, _readings
from vostrack.nets.deform import RpmNet
from vostrack.ops.grid import to_cells
from vostrack.weights import save_weights


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


PAPER = RpmConfig(carry="labels")


class FixedNet(nn.Module):
    """Points to the same places whatever it sees."""

    stride = 4

    def __init__(self, offsets: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.offsets = torch.as_tensor(offsets, dtype=torch.float32)

    def embed(self, image: Tensor) -> Tensor:
        height, width = (-(-side // 4) for side in image.shape[2:])
        return torch.zeros(len(image), 32, height, width)

    def match(self, reference: Tensor, target: Tensor) -> Tensor:
        field = self.offsets.view(2, *(self.offsets.shape[1:] or (1, 1)))
        return field.expand(len(reference), 2, *target.shape[2:])


def method(config: RpmConfig, offsets: Tensor | Sequence[float]) -> RpmNetMethod:
    return RpmNetMethod(FixedNet(offsets), config)  # type: ignore[arg-type]


def scene(seed: int, size: tuple[int, int] = (21, 30)) -> tuple[Tensor, Tensor]:
    """An image, and one-hot labels of two objects on its cells."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 3, (-(-size[0] // 4), -(-size[1] // 4)), generator=generator)
    whole = pixels.repeat_interleave(4, 0).repeat_interleave(4, 1).roll((-2, -2), (0, 1))[: size[0], : size[1]]
    return torch.rand(3, *size, generator=generator), nn.functional.one_hot(whole, 3).permute(2, 0, 1).float()


# --- propagation ---


def test_the_strongest_label_counts_and_of_equal_ones_the_lowest() -> None:
    size = (6, 8)
    generator = torch.Generator().manual_seed(0)
    offsets = 2 * torch.randn(2, *size, generator=generator)
    offsets[:, 0, 0] = torch.tensor([-3.0, 0.0])  # outside of the image there is nothing
    offsets[:, 5, 2] = torch.tensor([0.0, 0.5])  # half of one object, half of the other
    maps = nn.functional.one_hot(torch.randint(0, 3, size, generator=generator), 3).permute(2, 0, 1).float()
    maps[:, 5, 2], maps[:, 5, 3] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])

    paper = method(PAPER, offsets)
    features = torch.zeros(35, *size)
    found = paper.predict(RpmState(features, maps, ()), features)

    values = naive_sample(maps[None], offsets[None])[0]
    for i in range(size[0]):
        for j in range(size[1]):
            best = max(range(3), key=lambda c: (round(float(values[c, i, j]), 6), -c))
            assert found[:, i, j].tolist() == [float(c == best) for c in range(3)], (i, j)
    assert found[0, 0, 0] == 1
    assert found[1, 5, 2] == 1


@pytest.mark.parametrize("config", [PAPER, RpmConfig()], ids=["paper", "default"])
def test_offsets_of_zero_give_the_mask_back(config: RpmConfig) -> None:
    image, labels = scene(0)
    still = method(config, (0, 0))
    features = still.encode(image)
    state = still.begin(features, labels)
    kept = state.labels
    for _ in range(4):
        probs = still.predict(state, features)
        torch.testing.assert_close(probs, kept, atol=1e-5, rtol=0)
        state = still.remember(state, features, probs)
    assert torch.equal(kept.argmax(0), to_cells(labels, 4).argmax(0))


def test_a_constant_offset_shifts_the_mask() -> None:
    image, labels = scene(0)
    moving = method(PAPER, (0, 2))
    features = moving.encode(image)
    state = moving.begin(features, labels)
    probs = moving.predict(state, features)
    torch.testing.assert_close(probs[:, :, :-2], state.labels[:, :, 2:], atol=1e-5, rtol=0)
    assert probs[:, :, -2:].tolist() == torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 6, 2).tolist()


def test_published_propagation_knows_nothing_but_the_frame_before() -> None:
    torch.manual_seed(0)
    paper = RpmNetMethod(RpmNet().eval(), PAPER)
    (image, labels), (other, _), (last, _) = (scene(seed) for seed in range(3))
    states = []
    for first in (image, other):
        state = paper.begin(paper.encode(first), labels)
        states.append(paper.remember(state, paper.encode(last), state.labels))
    features = paper.encode(scene(3)[0])
    assert torch.equal(paper.predict(states[0], features), paper.predict(states[1], features))
    assert states[0].given == ()


def panorama(left: int) -> Tensor:
    """Features of a view of a scene of random colours, 5 x 8 cells; embeddings as `FixedNet` gives them."""
    colours = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(0))
    return torch.cat((torch.zeros(32, 5, 8), colours[:, :, left : left + 8]))


def places(state: RpmState) -> Tensor:
    (entry,) = state.given
    return entry.places


def own(left: int = 0) -> Tensor:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(8.0) + left, indexing="ij")
    return torch.stack((y, x))


INNER = (slice(None), slice(None), slice(2, 4))  # cells that see the first view, and so do their neighbours


def begun(offsets: Sequence[float], **changes: Any) -> tuple[RpmNetMethod, RpmState]:
    anchored = method(RpmConfig(**changes), offsets)
    labels = torch.zeros(3, 20, 32)
    labels[0], labels[1, :, 12:24] = 1, 1
    labels[0] -= labels[1]
    return anchored, anchored.begin(panorama(10), labels)


def test_places_are_carried_where_the_last_frame_matches() -> None:
    anchored, state = begun((0, 1))
    for step in (1, 2):
        state = anchored.remember(state, panorama(10 + step), torch.zeros(3, 5, 8))
    # Two steps of one cell, of which the network sees each; matched anew it would be off by one.
    torch.testing.assert_close(places(state)[INNER], own(2)[INNER], atol=1e-3, rtol=0)


def test_places_are_corrected_where_the_given_frame_matches_better() -> None:
    anchored, state = begun((0, 1))
    # A step of two cells, of which the network sees one: matching anew finds the other.
    state = anchored.remember(state, panorama(12), torch.zeros(3, 5, 8))
    torch.testing.assert_close(places(state)[INNER], own(2)[INNER], atol=1e-3, rtol=0)


def test_what_was_lost_is_found_again_by_matching_the_given_frame_directly() -> None:
    anchored, state = begun((0, 1))
    away = panorama(30)
    for _ in range(5):
        state = anchored.remember(state, away, torch.zeros(3, 5, 8))
    assert (places(state) - own()).abs().max() > 2
    probs = anchored.predict(state, panorama(11))
    torch.testing.assert_close(probs[INNER], state.given[0].labels[:, :, 3:5], atol=1e-3, rtol=0)
    far, state = begun((0, 1), margin=5.0)
    for _ in range(5):
        state = far.remember(state, away, torch.zeros(3, 5, 8))
    assert (far.predict(state, panorama(11))[INNER] - probs[INNER]).abs().max() > 0.5


def test_places_count_by_how_well_their_colours_agree() -> None:
    size, temperature, margin = (3, 4), 0.05, 0.2
    generator = torch.Generator().manual_seed(0)
    offset = torch.tensor([0.4, -0.7])
    memory = torch.rand(2, 35, *size, generator=generator)
    maps = torch.rand(2, 3, *size, generator=generator).softmax(1)
    start = 2 * torch.rand(2, 2, *size, generator=generator)
    target = torch.rand(35, *size, generator=generator)
    anchored = method(RpmConfig(temperature=temperature, margin=margin), offset)
    given = tuple(Given(memory[g], maps[g], start[g]) for g in range(2))
    found = anchored.predict(RpmState(torch.zeros(35, *size), maps[0], given), target)

    def read(x: Tensor, y: float, u: float) -> Tensor:
        return naive_value(x, min(max(y, 0.0), size[0] - 1.0), min(max(u, 0.0), size[1] - 1.0))

    cells = [(i, j) for i in range(size[0]) for j in range(size[1])]
    values, errors = [], []
    for g in range(2):
        step = {c: (c[0] + float(offset[0]), c[1] + float(offset[1])) for c in cells}
        carried = {c: read(start[g], *step[c]) for c in cells}
        field = torch.stack([carried[c] for c in cells], 1).view(2, *size)
        again = {c: read(field, *step[c]) for c in cells}
        candidates = [carried, again, {c: torch.tensor(step[c], dtype=torch.float64) for c in cells}]
        colours = [{c: read(memory[g, 32:], *map(float, places[c])) for c in cells} for places in candidates]
        wrong = [{c: float((there[c] - target[32:, *c]).square().sum()) for c in cells} for there in colours]
        near = {c: [d for d in cells if max(abs(c[0] - d[0]), abs(c[1] - d[1])) <= 2] for c in cells}
        wrong = [{c: sum(w[d] for d in near[c]) / len(near[c]) for c in cells} for w in wrong]
        wrong[2] = {c: w + margin for c, w in wrong[2].items()}
        weights = {c: softmax({(n,): -w[c] / temperature for n, w in enumerate(wrong)}) for c in cells}
        place = {c: sum((weights[c][n,] * candidates[n][c] for n in range(3)), torch.zeros(2)) for c in cells}
        values.append({c: read(maps[g], *map(float, place[c])) for c in cells})
        errors.append({c: sum(weights[c][n,] * wrong[n][c] for n in range(3)) for c in cells})
    for c in cells:
        votes = softmax({(g,): -errors[g][c] / temperature for g in range(2)})
        expected = votes[0,] * values[0][c] + votes[1,] * values[1][c]
        torch.testing.assert_close(found[:, *c].double(), expected, atol=1e-4, rtol=1e-4)


def test_a_later_mask_joins_the_first_one_and_starts_where_it_is() -> None:
    anchored, state = begun((0, 0))
    labels = torch.zeros(4, 20, 32)
    labels[0] = 1
    state = anchored.begin(panorama(12), labels, state)
    assert [len(entry.labels) for entry in state.given] == [3, 4]
    assert torch.equal(state.given[1].places, own())
    assert torch.equal(state.features, panorama(12))


def test_frames_from_before_an_object_joined_take_the_word_of_later_ones() -> None:
    early = torch.tensor([0.3, 0.7]).view(2, 1, 1).expand(2, 1, 1)
    late = torch.tensor([0.1, 0.5, 0.4]).view(3, 1, 1)
    nowhere = torch.zeros(2, 1, 1)
    found = _readings((Given(torch.zeros(35, 1, 1), early, nowhere), Given(torch.zeros(35, 1, 1), late, nowhere)))
    torch.testing.assert_close(found[0].flatten(), torch.tensor([0.3 * 0.6, 0.7 * 0.6, 0.4]))
    torch.testing.assert_close(found[1].flatten(), torch.tensor([0.1, 0.5, 0.4]))


@pytest.mark.parametrize("changes", [{"carry": "all"}, {"temperature": 0.0}, {"temperature": math.nan}, {"margin": -1}])
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="rpm-net"):
        RpmConfig(**changes)


# --- networks ---


def test_every_pair_of_embedding_and_matching_module_has_a_name() -> None:
    kinds = ("deformable", "conv1", "conv3", "conv5", "dilated3", "dilated6", "dilated9")
    pairs = {f"resnet{depth}-{kind}" for depth in (18, 34, 50, 101) for kind in kinds}
    assert set(RpmNetMethod.nets) == {"default", *pairs}
    with torch.device("meta"):
        nets = {name: build() for name, build in RpmNetMethod.nets.items()}
    described = {
        name: (
            sum(p.numel() for p in net.embedding.parameters()),
            [(layer.offset is not None, layer.conv[0].dilation[0]) for layer in net.matching.layers],
        )
        for name, net in nets.items()
    }
    assert described["default"] == described["resnet18-deformable"]
    for kind, layers in zip(
        kinds,
        ([(True, 1)] * 3, [(False, 1)], [(False, 1)] * 3, [(False, 1)] * 5, *([(False, d)] * 3 for d in (3, 6, 9))),
        strict=True,
    ):
        assert described[f"resnet50-{kind}"][1] == layers
    sizes = [described[f"resnet{depth}-conv3"][0] for depth in (18, 34, 50, 101)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_the_shipped_network_fits_into_25_mebibytes(tmp_path: Any) -> None:
    save_weights(RpmNet(), "rpm-net", tmp_path / "w.safetensors", {})
    assert (tmp_path / "w.safetensors").stat().st_size <= 25 * 2**20


# --- explanation ---


def test_a_fixed_grid_is_explained_by_its_receptive_field() -> None:
    torch.manual_seed(0)
    explained = RpmNetMethod(RpmNet(deformable=False).eval())
    features = [explained.encode(torch.rand(3, 60, 60)) for _ in range(2)]
    told = explained.explain(features[0], features[1], torch.tensor([[28.0, 32.0], [0.0, 4.0]]))
    for place, (y, x) in zip(told.sampled, ((28, 32), (0, 4)), strict=True):
        wanted = torch.tensor([(y + 4 * i, x + 4 * j) for i in range(-3, 4) for j in range(-3, 4)]).float()
        torch.testing.assert_close(place, wanted)
    assert tuple(told.features.shape) == (64, 15, 15)


def test_deformable_layers_are_explained_tap_by_tap() -> None:
    torch.manual_seed(0)
    net = RpmNet().eval()
    for layer in net.matching.layers:
        layer.offset.weight.data.normal_(std=0.05)
    explained = RpmNetMethod(net)
    first, second = (explained.encode(torch.rand(3, 40, 48)) for _ in range(2))
    told = explained.explain(first, second, torch.tensor([[20.0, 24.0]]))

    def at(field: Tensor, y: float, x: float) -> Tensor:
        y, x = min(max(y, 0.0), field.shape[1] - 1.0), min(max(x, 0.0), field.shape[2] - 1.0)
        top, left = min(int(y), field.shape[1] - 2), min(int(x), field.shape[2] - 2)
        wy, wx = y - top, x - left
        rows = [(1 - wx) * field[:, r, left] + wx * field[:, r, left + 1] for r in (top, top + 1)]
        return (1 - wy) * rows[0] + wy * rows[1]

    taps = net.matching.taps(torch.cat((first[:32], second[:32]))[None])
    places = [(5.0, 6.0)]
    for layer in reversed(taps):
        reads = [(p, at(layer[0].flatten(0, 1), *p).view(9, 2)) for p in places]
        places = [(p[0] + float(o[0]), p[1] + float(o[1])) for p, read in reads for o in read]
    assert len(places) == 9**3
    found, wanted = told.sampled[0], 4 * torch.tensor(places)
    assert found.shape == wanted.shape
    distance = (found[:, None] - wanted[None]).norm(dim=2)
    assert distance.min(1).values.max() < 1e-3
    assert distance.min(0).values.max() < 1e-3
    offset = net.match(first[None, :32], second[None, :32])[0, :, 5, 6]
    torch.testing.assert_close(told.matched[0], 4 * (torch.tensor([5.0, 6.0]) + offset), atol=1e-3, rtol=1e-3)
