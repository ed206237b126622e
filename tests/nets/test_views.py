"""The mean over views: features of a mirrored image are the mirrored features, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vostrack.nets.views import VIEWS, mean_over_views

STRIDES = (2, 4)


class Net(nn.Module):
    """Two convolutions of stride 2 whose filters face somewhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 7, 3, 2, 1)])

    def stages(self, image: Tensor) -> list[Tensor]:
        first = self.layers[0](image)
        return [first, self.layers[1](first)]


def picture(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", VIEWS[4], ids=str)
def test_what_is_mirrored_has_mirrored_features(dims: tuple[int, ...]) -> None:
    image, net = picture(21, 33), Net()  # one more than a multiple of the strides
    with torch.no_grad():
        plain, mirrored = (mean_over_views(net.stages, x, STRIDES, 4) for x in (image, image.flip(dims)))
        single = net.stages(image)
    for one, other, alone in zip(plain, mirrored, single, strict=True):
        torch.testing.assert_close(other, one.flip(dims), atol=1e-6, rtol=0)
        assert (one - alone).abs().max() > 0.01


@pytest.mark.parametrize("size", [(21, 33), (20, 30), (22, 32), (23, 31)], ids=str)
@pytest.mark.parametrize("stride", [2, 8])
def test_cells_of_all_views_lie_on_one_another(size: tuple[int, int], stride: int) -> None:
    """Far from the border, the mean over views is that of convolutions with the mean of the mirrored filters."""
    image, net = picture(*size), Net()
    weight, bias = net.layers[0].weight, net.layers[0].bias
    mean = torch.stack([weight, *(weight.flip(dims) for dims in VIEWS[4])]).mean(0)
    with torch.no_grad():
        expected = nn.functional.conv2d(image, mean, bias, 2, 1)
        found = mean_over_views(lambda x: net.stages(x)[:1], image, (stride,), 4)[0]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., :-1, :-1], expected[..., :-1, :-1], atol=1e-6, rtol=0)


def test_an_output_that_is_asked_for_twice_is_the_same_twice() -> None:
    image, net = picture(20, 30), Net()
    with torch.no_grad():
        once = mean_over_views(lambda x: net.stages(x)[:1], image, (2,), 2)
        twice = mean_over_views(lambda x: net.stages(x)[:1] * 2, image, (2, 2), 2)
    assert all(torch.equal(found, once[0]) for found in twice)


def test_one_view_is_the_image_itself() -> None:
    image, net = picture(20, 30), Net()
    with torch.no_grad():
        for found, expected in zip(mean_over_views(net.stages, image, STRIDES, 1), net.stages(image), strict=True):
            assert torch.equal(found, expected)
