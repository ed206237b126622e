"""`rpm-net`: equations 8 and 10 and what is pointed to as naive loops, what offsets do to masks, what is explained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.fixed_net import FixedNet
from tests.naive import sample_at, warped
from vostrack.errors import MethodError
from vostrack.matching.matcher import SoftMatcher
from vostrack.methods.rpm_net import PAPER, RpmConfig, RpmNetMethod, RpmState
from vostrack.nets.rpm_net import RpmNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import to_cells, to_pixels
from vostrack.ops.guided import guided
from vostrack.ops.hypercolumns import colours
from vostrack.propagate import Propagator
from vostrack.types import Clip, Frame, LabelMap
from vostrack.weights import save_weights


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


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
    features = torch.zeros(32, *size)
    state = RpmState(features, maps, None)
    found = paper.remember(state, features, paper.predict(state, features)).labels

    values = warped(maps[None], offsets[None])[0]
    for i in range(size[0]):
        for j in range(size[1]):
            best = max(range(3), key=lambda c: (round(float(values[c, i, j]), 6), -c))
            assert found[:, i, j].tolist() == [float(c == best) for c in range(3)], (i, j)
    assert found[0, 0, 0] == 1
    assert found[1, 5, 2] == 1


def test_a_prediction_is_what_is_read_before_the_strongest_label_is_taken() -> None:
    size = (6, 8)
    generator = torch.Generator().manual_seed(0)
    offsets = 2 * torch.randn(2, *size, generator=generator)
    maps = nn.functional.one_hot(torch.randint(0, 3, size, generator=generator), 3).permute(2, 0, 1).float()
    features = torch.zeros(32, *size)
    found = method(PAPER, offsets).predict(RpmState(features, maps, None), features)

    read = warped(maps[None], offsets[None])[0]
    for i in range(size[0]):
        for j in range(size[1]):
            known = float(read[:, i, j].sum())  # what lies outside of the frame has no label
            wanted = [float(v) / known for v in read[:, i, j]] if known else [1.0, 0.0, 0.0]
            assert found[:, i, j].tolist() == pytest.approx(wanted, abs=1e-5), (i, j)
    assert (found.amax(0) < 0.9).any()


def test_offsets_of_zero_give_the_mask_back() -> None:
    image, labels = scene(0)
    still = method(PAPER, (0, 0))
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


def test_frames_are_squeezed_to_the_square_and_masks_have_the_size_of_the_frames() -> None:
    seen: list[tuple[int, ...]] = []

    class Seeing(FixedNet):
        def embed(self, image: Tensor) -> Tensor:
            seen.append(tuple(image.shape))
            return super().embed(image)

    square = RpmNetMethod(Seeing((0, 0)), replace(PAPER, square=64))  # type: ignore[arg-type]
    mask = torch.zeros(48, 96, dtype=torch.uint8)
    mask[12:36, 24:72] = 5
    frames = [Frame(i, Fraction(i), torch.zeros(3, 48, 96, dtype=torch.uint8), str(i)) for i in range(3)]
    found = list(Propagator(square, 32).run(Clip(frames, {0: LabelMap(mask, (5,))})))
    assert set(seen) == {(1, 3, 64, 64)}
    for prediction in found:
        assert prediction.labels.size == (48, 96)
        assert (prediction.labels.pixels == mask).float().mean() > 0.94
    assert RpmNetMethod(FixedNet((0, 0)), PAPER).working_size((48, 96), 24) == (24, 48)  # type: ignore[arg-type]


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
    assert states[0].matching is None


GRID = (6, 9)
MATCHED = RpmConfig(axes=0, radius=1, reach=0, context=1, top_k=2, scale=10.0, precision="32")


def features(seed: int) -> Tensor:
    """Embeddings as `FixedNet` gives them, and unit vectors that are matched (32 + 5, h, w)."""
    vectors = torch.randn(5, *GRID, generator=torch.Generator().manual_seed(seed))
    return torch.cat((torch.zeros(32, *GRID), nn.functional.normalize(vectors, dim=0)))


def given(objects: int = 2) -> Tensor:
    """One-hot labels (K, H, W): a row of squares."""
    pixels = torch.zeros(24, 36, dtype=torch.int64)
    for number in range(1, objects + 1):
        pixels[6:18, 10 * number - 8 : 10 * number] = number
    return nn.functional.one_hot(pixels, objects + 1).permute(2, 0, 1).float()


def test_what_is_pointed_to_is_matched_as_the_formula_says() -> None:
    offset = (0.4, -1.7)
    pointing = method(MATCHED, offset)
    probs = torch.rand(3, *GRID, generator=torch.Generator().manual_seed(5)).softmax(0)
    state = pointing.remember(pointing.begin(features(0), given()), features(1), probs)
    last, target = features(1)[32:], features(2)[32:]

    similarities = torch.empty(3, *GRID)
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            place = (min(max(i + offset[0], 0.0), GRID[0] - 1.0), min(max(j + offset[1], 0.0), GRID[1] - 1.0))
            key = sample_at(last, *place)
            alike = float(key @ target[:, i, j].double()) / float(key.norm())
            for label, value in enumerate(sample_at(probs, *place)):
                similarities[label, i, j] = alike + math.log(float(value)) / 10
    matching = state.matching
    assert matching is not None
    soft = SoftMatcher(MATCHED)
    expected = soft.labelled(matching, target, list(similarities.flatten(1)[:, :, None]))
    torch.testing.assert_close(pointing.predict(state, features(2)), expected, atol=1e-5, rtol=0)
    assert (expected - soft.predict(matching, target)).abs().max() > 0.01


@pytest.mark.parametrize("context", [0, 1])
def test_what_the_window_does_not_reach_is_found_where_the_network_points(context: int) -> None:
    start, last, target = features(0), features(1), features(2)
    # In the last frame the object has taken on a look of its own, at (2, 7); in the next one that is five cells away.
    probs = torch.zeros(3, *GRID)
    probs[0] = 1
    probs[:, 2, 7] = torch.tensor([0.0, 1.0, 0.0])
    target[32:, 2, 2] = last[32:, 2, 7]
    found = []
    for offset in ((0, 5), (0, 0)):
        pointing = method(replace(MATCHED, context=context, top_k=1, scale=40.0, max_displacement=1e4), offset)
        state = pointing.remember(pointing.begin(start, given()), last, probs)
        found.append(float(pointing.predict(state, target)[1, 2, 2]))
    assert found[0] > 0.5 > found[1]


def test_a_later_mask_joins_the_first_one() -> None:
    still = method(MATCHED, (0, 0))
    state = still.begin(features(1), given(3), still.begin(features(0), given(2)))
    assert state.matching is not None
    assert [len(template.counts) for template in state.matching.sets.templates] == [3, 4]
    assert torch.equal(state.features, features(1))
    assert state.labels.shape == (4, *GRID)


def test_masks_follow_the_edges_by_default_and_not_as_published() -> None:
    image = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(0))
    probs = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(1)).softmax(0)
    plain = to_pixels(probs, 4, (24, 36))
    assert torch.equal(method(PAPER, (0, 0)).enlarge(probs, image), plain)
    assert torch.equal(method(RpmConfig(), (0, 0)).enlarge(probs, image), guided(plain, image, 1, 0.01**2))


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"stride": 8}, "stride"),
        ({"stages": (5,)}, "stages"),
        ({"top_k": 0, "context": 0}, "top_k is 0, .* pointed_only"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(MethodError, match=wrong):
        RpmConfig(**changes)


def test_what_is_matched_are_the_chosen_maps_and_colours_beside_the_embeddings() -> None:
    torch.manual_seed(0)
    net = RpmNet().eval()
    image = torch.rand(3, 45, 64)
    found = RpmNetMethod(net, RpmConfig(stages=(1, 4), views=1, precision="32")).encode(image)
    seen = normalised_rgb(image)[None]
    stem, embeddings = net.embedding.trunk.stem(seen)[0], net.embed(seen)[0]
    torch.testing.assert_close(found[:32], embeddings)
    unit = [nn.functional.normalize(x, dim=0) / 2**0.5 for x in (stem, embeddings)]
    torch.testing.assert_close(found[32:], torch.cat((*unit, 3 * colours(image, 4))))


# --- networks ---


@pytest.mark.slow
def test_every_pair_of_embedding_and_matching_module_has_a_name() -> None:
    kinds = ("deformable", "conv1", "conv3", "conv5", "dilated3", "dilated6", "dilated9")
    pairs = {f"resnet{depth}-{kind}" for depth in (18, 34, 50, 101) for kind in kinds}
    assert set(RpmNetMethod.nets) == {"default", *pairs}
    with torch.device("meta"):
        nets: dict[str, Any] = {name: build() for name, build in RpmNetMethod.nets.items()}
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


# --- correspondences ---


def test_a_fixed_grid_samples_its_receptive_field() -> None:
    torch.manual_seed(0)
    method = RpmNetMethod(RpmNet(deformable=False).eval())
    features = [method.encode(torch.rand(3, 60, 60)) for _ in range(2)]
    found = method.correspondences(features[0], features[1], torch.tensor([[28.0, 32.0], [0.0, 4.0]]))
    for place, (y, x) in zip(found.sampled, ((28, 32), (0, 4)), strict=True):
        wanted = torch.tensor([(y + 4 * i, x + 4 * j) for i in range(-3, 4) for j in range(-3, 4)]).float()
        torch.testing.assert_close(place, wanted)
    assert tuple(found.features.shape) == (64, 15, 15)


def test_deformable_layers_are_followed_tap_by_tap() -> None:
    torch.manual_seed(0)
    net: Any = RpmNet().eval()
    for layer in net.matching.layers:
        layer.offset.weight.data.normal_(std=0.05)
    method = RpmNetMethod(net)
    first, second = (method.encode(torch.rand(3, 40, 48)) for _ in range(2))
    found = method.correspondences(first, second, torch.tensor([[20.0, 24.0]]))

    def at(field: Tensor, y: float, x: float) -> Tensor:
        y, x = min(max(y, 0.0), field.shape[1] - 1.0), min(max(x, 0.0), field.shape[2] - 1.0)
        top, left = min(int(y), field.shape[1] - 2), min(int(x), field.shape[2] - 2)
        wy, wx = y - top, x - left
        rows = [(1 - wx) * field[:, r, left] + wx * field[:, r, left + 1] for r in (top, top + 1)]
        return (1 - wy) * rows[0] + wy * rows[1]

    taps = net.matching.taps(torch.cat((first[:32], second[:32]))[None])
    places = [(5.0, 6.0)]
    for tap in reversed(taps):
        reads = [(p, at(tap[0].flatten(0, 1), *p).view(9, 2)) for p in places]
        places = [(p[0] + float(o[0]), p[1] + float(o[1])) for p, read in reads for o in read]
    assert len(places) == 9**3
    sampled, wanted = found.sampled[0], 4 * torch.tensor(places)
    assert sampled.shape == wanted.shape
    distance = (sampled[:, None] - wanted[None]).norm(dim=2)
    assert distance.min(1).values.max() < 1e-3
    assert distance.min(0).values.max() < 1e-3
    offset = net.match(first[None, :32], second[None, :32])[0, :, 5, 6]
    torch.testing.assert_close(found.matched[0], 4 * (torch.tensor([5.0, 6.0]) + offset), atol=1e-3, rtol=1e-3)
