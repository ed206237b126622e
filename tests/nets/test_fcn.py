"""The embedding module: resolutions and channels of the paper's layer table, at any size, for every depth."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vostrack.nets.deform import RpmNet
from vostrack.nets.fcn import CHANNELS, Fcn
from vostrack.nets.resnet import DEPTHS, ResNet

# Layers of the table: channels with bottlenecks, channels with basic blocks, and the stride.
TABLE = {
    "trunk.conv1": (32, 32, 2),
    "trunk.maxpool": (32, 32, 4),
    "trunk.layer1": (256, 64, 8),
    "trunk.layer2": (512, 128, 16),
    "trunk.layer3": (1024, 256, 32),
    "trunk.layer4": (2048, 512, 64),
    "up.0": (1024, 256, 32),
    "up.1": (512, 128, 16),
    "up.2": (256, 64, 8),
    "up.3": (32, 32, 4),
}


def shapes(net: nn.Module, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in net.named_modules():
        if name in TABLE:
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: tuple(out.shape)}))
    with torch.no_grad():
        net.eval()(torch.empty(1, 3, *size, device="meta"))
    return seen


def shapeless(depth: int) -> Fcn:
    """A network of tensors without values: their shapes are all that the table is about."""
    with torch.device("meta"):
        return Fcn(depth)


def test_maps_are_those_of_the_table_and_the_embeddings_and_the_first_of_them_need_no_more() -> None:
    torch.manual_seed(0)
    net, image = Fcn(18).eval(), torch.rand(1, 3, 45, 70)
    with torch.no_grad():
        maps = net.maps(image)
        assert torch.equal(maps[3], net(image))
        for count in (1, 2, 3):
            assert all(torch.equal(*pair) for pair in zip(net.maps(image, count), maps[:count], strict=True))
    for found, stride in zip(maps, RpmNet.stage_strides, strict=True):
        assert found.shape[2:] == (-(-45 // stride), -(-70 // stride))


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_layers_are_those_of_the_table(depth: int) -> None:
    size = (64, 128)
    expected = {
        name: (1, wide if depth >= 50 else narrow, size[0] // stride, size[1] // stride)
        for name, (wide, narrow, stride) in TABLE.items()
    }
    assert shapes(shapeless(depth), size) == expected


@pytest.mark.parametrize(("depth", "blocks"), [(18, 8), (34, 16), (50, 16), (101, 33)])
def test_the_stages_have_as_many_blocks_as_the_table_says(depth: int, blocks: int) -> None:
    trunk = shapeless(depth).trunk
    assert sum(len(getattr(trunk, f"layer{stage}")) for stage in range(1, 5)) == blocks


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (37, 51), (65, 63)])
def test_every_started_stride_has_a_cell(size: tuple[int, int]) -> None:
    seen = shapes(shapeless(18), size)
    for name, (_, channels, stride) in TABLE.items():
        assert seen[name] == (1, channels, -(-size[0] // stride), -(-size[1] // stride)), name


def test_cells_lie_on_every_fourth_pixel() -> None:
    # A picture that is mirrored around the pixel of a cell has embeddings that are mirrored around this cell.
    torch.manual_seed(0)
    net = Fcn(18).double().eval()
    symmetric_weights(net)
    half = torch.rand(1, 3, 128, 64, dtype=torch.float64)
    image = torch.cat((half, torch.rand(1, 3, 128, 1, dtype=torch.float64), half.flip(3)), 3)
    with torch.no_grad():
        cells: Tensor = net(image)
    assert tuple(cells.shape) == (1, CHANNELS, 32, 33)
    torch.testing.assert_close(cells, cells.flip(3))
    assert cells.std() > 0


def symmetric_weights(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(3)) / 2


def test_embeddings_have_a_sign() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        cells = Fcn(18)(torch.randn(2, 3, 64, 64))
    assert (cells < 0).float().mean() > 0.1
    assert (cells > 0).float().mean() > 0.1


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    net = Fcn(18)
    net(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_torchvision_resnet_fits_and_gives_the_same_features(depth: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    ours = ResNet(depth, strides=(1, 2, 2, 2)).eval()
    ours.load_state_dict({name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")})
    image = torch.rand(1, 3, 33, 40)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for stage, found in enumerate(ours(image), 1):
            x = getattr(theirs, f"layer{stage}")(x)
            torch.testing.assert_close(found, x)
            assert found.shape[1] == ours.widths[stage - 1]
