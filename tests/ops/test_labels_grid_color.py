"""Label maps, grids and colours: round trips and definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from vostrack.ops.color import drop_channel, jitter_lab, normalised_lab, rgb_to_lab
from vostrack.ops.grid import cells, sample, similarity_grid, to_cells, to_pixels
from vostrack.ops.labels import add_channels, correct, harden, one_hot, strongest, without_void


def test_a_cell_belongs_wholly_to_the_label_of_most_of_it_and_no_object_is_lost() -> None:
    labels = torch.tensor([[[0.9, 0.4, 0.3]], [[0.1, 0.6, 0.3]], [[0.0, 0.0, 0.4]], [[0.0, 0.0, 0.0]]])
    assert harden(labels).tolist() == [[0, 1, 2]]
    thin = torch.tensor([[[0.9, 0.8, 0.7]], [[0.1, 0.2, 0.3]]])
    assert harden(thin).tolist() == [[0, 0, 1]]


@given(ids=st.lists(st.integers(1, 254), min_size=1, max_size=5, unique=True), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_labels_survive_the_way_to_channels_and_back(ids: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor([0, *ids], dtype=torch.uint8)
    pixels = table[torch.randint(len(table), (7, 9), generator=generator)]
    channels = one_hot(pixels, ids)
    assert channels.sum(0).eq(1).all()
    assert torch.equal(strongest(channels, ids, (7, 9)), pixels)


def test_enlarging_channel_by_channel_equals_enlarging_all() -> None:
    probs = torch.rand(4, 6, 5).softmax(0)
    full = torch.nn.functional.interpolate(probs[None], (13, 17), mode="bilinear", align_corners=False)[0]
    ids = (9, 3, 200)
    expected = torch.tensor([0, *ids], dtype=torch.uint8)[full.argmax(0)]
    assert torch.equal(strongest(probs, ids, (13, 17)), expected)


def test_void_belongs_to_no_channel_and_counts_as_background() -> None:
    pixels = torch.tensor([[255, 1, 0]], dtype=torch.uint8)
    assert one_hot(pixels, (1,))[:, 0, 0].tolist() == [0, 0]
    assert without_void(pixels).tolist() == [[0, 1, 0]]


def test_a_correction_changes_only_what_it_speaks_about() -> None:
    predicted = torch.tensor([[1, 1, 2, 2, 0, 1]], dtype=torch.uint8)
    given_mask = torch.tensor([[0, 1, 0, 1, 3, 255]], dtype=torch.uint8)
    # Object 1 shrinks and takes a pixel of 2; 3 is new; 2 is not spoken about; void keeps what was there.
    assert correct(predicted, given_mask, (1, 3)).tolist() == [[0, 1, 2, 1, 3, 1]]


def test_channels_are_only_appended() -> None:
    probs = torch.rand(2, 3, 3)
    grown = add_channels(probs, 4)
    assert torch.equal(grown[:2], probs)
    assert grown.shape == (4, 3, 3)
    assert not grown[2:].any()


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 24), (33, 41), (480, 854)])
def test_a_ramp_keeps_its_place_between_pixels_and_cells(stride: int, size: tuple[int, int]) -> None:
    ramp = torch.arange(size[1], dtype=torch.float32).expand(1, *size)
    small = to_cells(ramp, stride)
    assert tuple(small.shape[1:]) == cells(size, stride)
    exact = torch.arange(small.shape[2]) * stride
    inner = slice(1, -2)
    torch.testing.assert_close(small[0, 0, inner], exact[inner].float())
    large = to_pixels(exact.float().expand(1, *small.shape[1:]).contiguous(), stride, size)
    assert tuple(large.shape[1:]) == size
    reach = stride * (small.shape[2] - 1) + 1
    torch.testing.assert_close(large[0, 0, :reach], ramp[0, 0, :reach])


def test_cells_lie_where_strided_convolutions_centre_them() -> None:
    from vostrack.nets.resnet import ResNet

    torch.manual_seed(0)
    net = ResNet().eval().double()
    image = torch.zeros(1, 3, 129, 129, dtype=torch.float64, requires_grad=True)
    net(image + torch.rand_like(image), stages=1)[0][0, :, 16, 16].sum().backward()
    assert image.grad is not None
    weight = image.grad[0].abs().sum(0)
    rows = weight.sum(1)
    centre = float((rows * torch.arange(129)).sum() / rows.sum())
    assert abs(centre - 16 * 4) < 1.5


def test_nearest_sampling_of_the_identity_view_changes_nothing() -> None:
    features = torch.rand(2, 3, 8, 8)
    grid = similarity_grid(torch.ones(2), torch.zeros(2, 2), torch.ones(2), (8, 8))
    assert torch.equal(sample(features, grid, "nearest"), features)
    flipped = similarity_grid(torch.ones(2), torch.zeros(2, 2), -torch.ones(2), (8, 8))
    assert torch.equal(sample(features, flipped, "nearest"), features.flip(-1))


def test_an_image_and_its_features_are_moved_alike() -> None:
    """The view of a feature map is the feature map of the view, up to half a cell."""
    image = torch.rand(1, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    args = torch.tensor([0.5]), torch.tensor([[0.25, -0.5]]), torch.tensor([-1.0])
    view = sample(image, similarity_grid(*args, (64, 64)))
    coarse = sample(image[:, :, ::8, ::8], similarity_grid(*args, (8, 8)), "nearest")
    torch.testing.assert_close(view[:, :, 4::8, 4::8].mean(), coarse.mean(), atol=0.05, rtol=0.1)
    assert (view[:, :, 4::8, 4::8] - coarse).abs().mean() < 0.02


COLOURS = [
    (0.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (0.01, 0.02, 0.03),
    (0.5, 0.4, 0.3),
]


@pytest.mark.parametrize("colour", COLOURS)
def test_lab_equals_its_definition(colour: tuple[float, float, float]) -> None:
    image = torch.tensor(colour).view(3, 1, 1)
    expected = torch.tensor(naive.srgb_to_lab(colour))
    torch.testing.assert_close(rgb_to_lab(image).flatten(), expected, atol=2e-3, rtol=1e-4)


def test_lab_of_red_is_the_published_value() -> None:
    red = rgb_to_lab(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).flatten()
    torch.testing.assert_close(red, torch.tensor([53.2408, 80.0925, 67.2032]), atol=0.02, rtol=0)


def test_a_dropped_channel_is_gone_and_the_others_make_up_for_it() -> None:
    lab = normalised_lab(torch.rand(2, 3, 4, 4))
    dropped = drop_channel(lab, 1)
    assert not dropped[:, 1].any()
    torch.testing.assert_close(dropped[:, [0, 2]], lab[:, [0, 2]] * 1.5)
    assert lab.abs().max() <= 1.1


def test_jitter_equals_its_definition_image_by_image() -> None:
    generator = torch.Generator().manual_seed(0)
    lab = torch.rand(2, 3, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 - 1
    strengths = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64) + 0.5
    expected = torch.empty_like(lab)
    for b in range(2):
        for t in range(3):
            brightness, contrast, saturation, hue = strengths[b, t].tolist()
            bright = [[(float(value) + 1) * brightness - 1 for value in row] for row in lab[b, t, 0]]
            mean = sum(map(sum, bright)) / 20
            for y in range(4):
                for x in range(5):
                    colour = complex(float(lab[b, t, 1, y, x]), float(lab[b, t, 2, y, x]))
                    turned = saturation * colour * complex(math.cos(hue), math.sin(hue))
                    lightness = mean + contrast * (bright[y][x] - mean)
                    expected[b, t, :, y, x] = torch.tensor([lightness, turned.real, turned.imag])
    torch.testing.assert_close(jitter_lab(lab, strengths), expected)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(2, 3, 4)
    torch.testing.assert_close(jitter_lab(lab, neutral), lab)
