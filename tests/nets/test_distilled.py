"""The one network of `best`: its grid, its deviations, and that nothing changes when it is folded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vostrack.nets.distilled import CHANNELS, DistilledNet
from vostrack.nets.encoders import for_inference


def trained_like(seed: int = 0) -> DistilledNet:
    """A network whose every part matters, with statistics such as training leaves."""
    torch.manual_seed(seed)
    net = DistilledNet()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean = torch.randn_like(module.weight) / 4
            module.running_var = torch.rand_like(module.weight) + 0.5
    return net.eval()


def seen(height: int, width: int) -> Tensor:
    return torch.randn(1, 6, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 87), (66, 95), (5, 3)])
def test_cells_lie_4_pixels_apart(height: int, width: int) -> None:
    assert trained_like()(seen(height, width)).shape == (1, CHANNELS, -(-height // 4), -(-width // 4))


def test_cell_i_lies_on_pixel_4_i() -> None:
    """What moves by 16 pixels, a cell of the coarsest stage, moves by 4 cells."""
    net, image = trained_like(), seen(400, 32)
    moved = net(image[:, :, 16:])
    torch.testing.assert_close(moved[:, :, 40:50], net(image)[:, :, 44:54], atol=1e-4, rtol=1e-4)


def test_coordinates_have_the_deviation_that_is_told() -> None:
    net, image = trained_like(), seen(32, 32)
    plain = net(image)
    net.deviation[3] = 5.0
    assert torch.equal(net(image)[:, 3], 5 * plain[:, 3])
    assert torch.equal(net(image)[:, 4:], plain[:, 4:])


def test_folding_changes_nothing() -> None:
    net, image = trained_like(), seen(48, 64)
    expected = net(image)
    torch.testing.assert_close(for_inference(net)(image), expected, atol=1e-4, rtol=1e-4)
