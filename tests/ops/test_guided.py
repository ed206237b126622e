"""The guided filter equals its definition, and does what it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vostrack.ops.guided import guided, guided_fit, guided_where_doubtful, luminance


def naive(probs: Tensor, image: Tensor, radius: int, epsilon: float) -> Tensor:
    """He et al., Eq. 5, 6 and 8, square by square, in float64; before values below 0 are cut off."""
    guide = (image.double() * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(0)
    probs = probs.double()
    height, width = guide.shape

    def square(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    slope, offset = torch.zeros_like(probs), torch.zeros_like(probs)
    for y in range(height):
        for x in range(width):
            inside = square(y, x)
            g = guide[inside]
            for k in range(len(probs)):
                p = probs[k][inside]
                slope[k, y, x] = ((g * p).mean() - g.mean() * p.mean()) / ((g - g.mean()).square().mean() + epsilon)
                offset[k, y, x] = p.mean() - slope[k, y, x] * g.mean()
    out = torch.zeros_like(probs)
    for y in range(height):
        for x in range(width):
            inside = square(y, x)
            for k in range(len(probs)):
                out[k, y, x] = slope[k][inside].mean() * guide[y, x] + offset[k][inside].mean()
    return out


@pytest.mark.parametrize(("size", "radius"), [((7, 9), 2), ((5, 4), 1), ((3, 3), 4)])
def test_it_equals_the_definition(size: tuple[int, int], radius: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *size, generator=generator)
    probs = torch.rand(3, *size, generator=generator).softmax(0)
    expected = naive(probs, image, radius, 0.01).clamp(min=0)
    expected /= expected.sum(0)
    torch.testing.assert_close(guided(probs, image, radius, 0.01).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "radius"), [((23, 31), 2), ((60, 7), 8), ((1, 5), 3)])
def test_means_are_those_of_pooling_to_the_bit(size: tuple[int, int], radius: int) -> None:
    image, probs = torch.rand(3, *size), torch.rand(2, *size)
    guide, side = luminance(image)[None], 2 * radius + 1

    def mean(x: Tensor) -> Tensor:
        rows = avg_pool2d(x[None], (side, 1), 1, (radius, 0), count_include_pad=False)
        return avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)[0]

    variance = (mean(guide.square()) - mean(guide).square()).clamp(min=0)
    slope = (mean(guide * probs) - mean(guide) * mean(probs)) / (variance + 0.01)
    found = guided_fit(probs, image, radius, 0.01)
    assert torch.equal(found[0], mean(slope))
    assert torch.equal(found[1], mean(mean(probs) - slope * mean(guide)))


def test_labels_move_to_the_edge_of_the_image() -> None:
    image = torch.zeros(3, 24, 40)
    image[:, :, 20:] = 1.0
    object_ = torch.zeros(24, 40)
    object_[:, 18:] = 1.0  # two pixels too wide
    out = guided(torch.stack((1 - object_, object_)), image, 8, 1e-3)
    assert (out[1, :, 20:] > 0.5).all()
    assert (out[1, :, :20] < 0.5).all()
    torch.testing.assert_close(out.sum(0), torch.ones(24, 40))


def test_an_image_without_edges_gives_a_mean() -> None:
    probs = torch.zeros(2, 9, 9)
    probs[1, 4, 4] = 1.0
    probs[0] = 1 - probs[1]
    out = guided(probs, torch.full((3, 9, 9), 0.5), 1, 1e-3)
    assert out[1, 4, 4] == pytest.approx(1 / 9, abs=1e-5)  # the mean over 9 squares of means over 9 pixels: 9 / 81
    assert out[1, 4, 6] == pytest.approx(3 / 81, abs=1e-5)
    assert out[1, 0, 0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "place", [(slice(20, 31), slice(30, 44)), (slice(0, 3), slice(68, 70)), (slice(0, 0), slice(0, 0))]
)
def test_what_is_background_all_around_need_not_be_filtered(place: tuple[slice, slice]) -> None:
    """An object inside, one in a corner, and none."""
    generator = torch.Generator().manual_seed(2)
    image, object_ = torch.rand(3, 50, 70, generator=generator), torch.zeros(50, 70)
    object_[place] = torch.rand(object_[place].shape, generator=generator)
    probs = torch.stack((1 - object_, object_))
    torch.testing.assert_close(guided_where_doubtful(probs, image, 3, 1e-3), guided(probs, image, 3, 1e-3))
