"""RPM-Net: the paper's layer table at any size and depth, its equations as naive loops, torchvision's convolution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from tests.naive import sample_at, warped
from vostrack.methods.rpm_net import RpmNetMethod
from vostrack.nets.encoders import for_inference
from vostrack.nets.resnet import DEPTHS, ResNet
from vostrack.nets.rpm_net import CHANNELS, Fcn, Matching, RpmNet, deform_conv, receptive_field, warp
from vostrack.ops.grid import sample_cells

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


SIZES = [(1, 1), (1, 6), (5, 7)]


def naive_deform_conv(x: Tensor, taps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Eq. 2, taps (B, 9, 2, h, w) being p_n + Δp_n."""
    out = bias.double().view(1, -1, 1, 1).repeat(len(x), 1, *x.shape[2:])
    for b in range(len(x)):
        for n in range(9):
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    value = sample_at(x[b], i + float(taps[b, n, 0, i, j]), j + float(taps[b, n, 1, i, j]))
                    out[b, :, i, j] += weight[:, :, n // 3, n % 3].double() @ value
    return out


@pytest.mark.parametrize("size", SIZES)
def test_sampling_equals_the_formula(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator)
    offsets = 2.5 * torch.randn(2, 2, *size, generator=generator)
    expected = warped(x, offsets)
    torch.testing.assert_close(warp(x, offsets).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warp(x.double(), offsets.double()), expected, atol=1e-12, rtol=1e-9)
    theirs = deform_conv2d(x, offsets, torch.ones(3, 1, 1, 1))
    torch.testing.assert_close(warp(x, offsets), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_deformable_convolution_equals_the_formula_and_torchvision(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator)
    offsets = 1.5 * torch.randn(2, 18, *size, generator=generator)
    weight, bias = torch.randn(3, 4, 3, 3, generator=generator), torch.randn(3, generator=generator)
    regular = torch.tensor([(n // 3 - 1, n % 3 - 1) for n in range(9)]).view(1, 9, 2, 1, 1)
    taps = offsets.unflatten(1, (9, 2)) + regular
    found = deform_conv(x, taps, weight, bias)
    torch.testing.assert_close(found.double(), naive_deform_conv(x, taps, weight, bias), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, deform_conv2d(x, offsets, weight, bias, padding=1), atol=1e-4, rtol=1e-4)


def test_gradients_equal_those_of_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(1, 18, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    regular = torch.tensor([(n // 3 - 1, n % 3 - 1) for n in range(9)]).view(1, 9, 2, 1, 1)
    ours = deform_conv(x, offsets.unflatten(1, (9, 2)) + regular, weight, None)
    theirs = deform_conv2d(x, offsets, weight, padding=1)
    wanted = torch.autograd.grad(theirs.square().sum(), (x, offsets, weight))
    found = torch.autograd.grad(ours.square().sum(), (x, offsets, weight))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(-3, 3), st.integers(-3, 3), st.booleans())
def test_a_constant_offset_shifts_the_map(height: int, width: int, dy: int, dx: int, border: bool) -> None:
    x = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([dy, dx]).float().view(1, 2, 1, 1).expand(1, 2, height, width)
    rows, columns = torch.arange(height) + dy, torch.arange(width) + dx
    shifted = x[:, :, rows.clamp(0, height - 1)][:, :, :, columns.clamp(0, width - 1)]
    if not border:
        known = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        shifted = shifted * known
    torch.testing.assert_close(warp(x, offsets, border), shifted, atol=1e-5, rtol=0)


def test_positions_of_a_map_may_be_on_another_grid() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    positions = torch.tensor([[0.0, 1.5, 2.0], [3.0, 0.5, 9.0]]).view(1, 2, 1, 3)
    assert sample_cells(x, positions).flatten().tolist() == pytest.approx([3.0, 6.5, 0.0], abs=1e-5)
    assert sample_cells(x, positions, border=True).flatten().tolist() == pytest.approx([3.0, 6.5, 11.0], abs=1e-5)


CONFIGS = [(True, 3, 1), (False, 1, 1), (False, 3, 1), (False, 5, 1), (False, 3, 3), (False, 3, 6), (False, 3, 9)]


@pytest.mark.parametrize(("deformable", "layers", "dilation"), CONFIGS)
def test_every_matching_module_gives_offsets_and_passes_gradients(deformable: bool, layers: int, dilation: int) -> None:
    torch.manual_seed(0)
    module = Matching(deformable, layers, dilation)
    features = torch.randn(2, 64, 9, 11, requires_grad=True)
    offsets = module(features)
    assert tuple(offsets.shape) == (2, 2, 9, 11)
    offsets.square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert features.grad is not None


# Figure 7 of the paper prints these beside conv-1, -3, -5 and dilation-3, -6, -9.
FIELDS = [(1, 1, 3), (3, 1, 7), (5, 1, 11), (3, 3, 19), (3, 6, 37), (3, 9, 55)]


@pytest.mark.parametrize(("layers", "dilation", "field"), FIELDS)
def test_receptive_fields_of_the_ablation_are_the_published_ones(layers: int, dilation: int, field: int) -> None:
    torch.manual_seed(0)
    module = Matching(False, layers, dilation).eval().double()
    side, cell = field + 2, (field + 1) // 2  # one cell around what is seen, on each side
    features = torch.randn(1, 64, side, side, dtype=torch.float64, requires_grad=True)
    module(features)[0, :, cell, cell].sum().backward()
    assert features.grad is not None
    rows, columns = features.grad.abs().sum((0, 1)).nonzero().unbind(1)
    sampled = receptive_field(module.taps(features.detach()), torch.tensor([[cell, cell]]).double())[0]
    for places in (rows, columns, sampled[:, 0], sampled[:, 1]):
        assert (float(places.min()), float(places.max())) == (1, field)


def test_the_modules_of_the_ablation_have_the_layers_of_its_table() -> None:
    # Kernel size, dilation rate and number of layers, as table 2 of the supplement lists them.
    table = {
        "deformable": (3, 1, 3),
        "conv1": (3, 1, 1),
        "conv3": (3, 1, 3),
        "conv5": (3, 1, 5),
        "dilated3": (3, 3, 3),
        "dilated6": (3, 6, 3),
        "dilated9": (3, 9, 3),
    }
    for kind, (kernel, rate, count) in table.items():
        with torch.device("meta"):
            layers: Any = RpmNetMethod.nets[f"resnet18-{kind}"]().matching.layers
        assert len(layers) == count
        for layer in layers:
            assert (layer.conv[0].kernel_size, layer.conv[0].dilation) == ((kernel, kernel), (rate, rate))
            assert (layer.offset is not None) == (kind == "deformable")


def test_taps_are_what_the_layers_sample() -> None:
    torch.manual_seed(0)
    module: Any = Matching().eval()
    for layer in module.layers:
        layer.offset.weight.data.normal_(std=0.2)
    x = features = torch.randn(1, 64, 6, 5)
    with torch.no_grad():
        taps = module.taps(features)
        for layer, places in zip(module.layers, taps, strict=True):
            conv = layer.conv[0]
            x = deform_conv2d(x, layer.offset(x), conv.weight, conv.bias, padding=1)
            regular = torch.tensor([(n // 3 - 1, n % 3 - 1) for n in range(9)]).view(1, 9, 2, 1, 1)
            assert (places - regular).abs().max() > 0.1
            if layer is not module.layers[-1]:
                x = x / math.sqrt(1 + 1e-5)
                x = x.relu()
        torch.testing.assert_close(module(features), x, atol=1e-4, rtol=1e-3)


def test_channels_are_those_of_the_table() -> None:
    layers: list[Any] = list(Matching().layers)
    widths = [(layer.conv[0].in_channels, layer.conv[0].out_channels) for layer in layers]
    assert widths == [(64, 32), (32, 16), (16, 2)]
    assert {layer.offset.out_channels for layer in layers} == {18}


def test_weights_are_drawn_from_gaussian_distributions() -> None:
    """Section 4.1. The fourth moment of unit deviates is 3; of PyTorch's uniform ones it would be 1.8."""
    torch.manual_seed(0)
    kernels = {name: weight for name, weight in RpmNet().named_parameters() if weight.dim() == 4}
    assert kernels.keys() >= {"embedding.up.0.conv.weight", "matching.layers.0.offset.weight"}
    for name, weight in kernels.items():
        moment = ((weight - weight.mean()) / weight.std()).pow(4).mean()
        assert weight.numel() < 2000 or 2.6 < moment < 3.4, name


def test_matching_starts_near_each_cells_own_place() -> None:
    torch.manual_seed(0)
    net = RpmNet()
    with torch.no_grad():
        first, second = net.embed(torch.randn(2, 3, 64, 64)).split(1)
        assert net.match(first, second).abs().max() < 1


@pytest.mark.parametrize("deformable", [True, False])
def test_folding_changes_the_speed_and_not_the_offsets(deformable: bool) -> None:
    torch.manual_seed(0)
    net = RpmNet(deformable=deformable).train()
    with torch.no_grad():
        for _ in range(3):  # gives the normalisations statistics of their own
            net.match(*net.embed(torch.randn(4, 3, 64, 64)).split(2))
        net.eval()
        images = torch.randn(2, 3, 45, 51)
        embeddings = net.embed(images)
        before = net.match(*embeddings.split(1))
        for_inference(net)
        torch.testing.assert_close(net.embed(images), embeddings, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(net.match(*embeddings.split(1)), before, rtol=1e-3, atol=1e-4)


def test_places_are_exact_in_half_precision() -> None:
    x = torch.arange(400.0).view(1, 1, 1, 400).expand(1, 1, 2, 400)
    offsets = torch.zeros(1, 2, 2, 400, dtype=torch.bfloat16)
    torch.testing.assert_close(warp(x, offsets), x, atol=1e-3, rtol=1e-5)
