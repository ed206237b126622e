"""Networks: shapes at odd sizes, torchvision's names, folding that changes nothing, the mean over mirror images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vostrack.nets.encoders import VIEWS, AnchorsNet, MastNet, StagedNet, for_inference, mean_over_views
from vostrack.nets.resnet import ResNet


def lively(net: nn.Module) -> Any:
    """Running statistics that are not the default ones."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert tensor is not None
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return net.eval()


def test_a_torchvision_resnet18_fits_and_gives_the_same_features() -> None:
    torch.manual_seed(0)
    theirs = lively(torchvision.models.resnet18(weights=None))
    ours = ResNet(strides=(1, 2, 2, 2)).eval()
    ours.load_state_dict({name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")})
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
        torch.testing.assert_close(ours(image)[-1], expected)


@pytest.mark.parametrize("size", [(1, 1), (37, 51), (64, 64)])
def test_every_started_stride_has_a_cell(size: tuple[int, int]) -> None:
    with torch.no_grad():
        stages = AnchorsNet().eval().stages(torch.rand(1, 3, *size), 4)
        for stage, stride in zip(stages, AnchorsNet.stage_strides, strict=True):
            assert tuple(stage.shape[2:]) == (-(-size[0] // stride), -(-size[1] // stride))
        for depth in (2, 4):
            keys = MastNet(depth).eval()(torch.rand(1, 3, *size))
            assert tuple(keys.shape) == (1, 64, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize(
    ("build", "stages"),
    [
        # Araslanov et al., section 4: a ResNet-18 of stride 8, without the strides of its last two blocks.
        (AnchorsNet, [(64, 4), (128, 8), (256, 8), (512, 8)]),
        # Zhu et al., appendix A, and MAST: fewer channels and strides, features at a quarter of the image.
        (MastNet, [(64, 2), (128, 4), (256, 4), (256, 4)]),
    ],
)
def test_stages_have_the_channels_and_strides_of_the_papers(
    build: type[StagedNet], stages: list[tuple[int, int]]
) -> None:
    with torch.no_grad():
        found = build().eval().stages(torch.rand(1, 3, 32, 64), 4)
    assert [tuple(stage.shape[1:]) for stage in found] == [(width, 32 // at, 64 // at) for width, at in stages]


def test_keys_for_training_are_unit_vectors() -> None:
    """Araslanov et al., section 3.3."""
    with torch.no_grad():
        keys = AnchorsNet().eval().key(torch.rand(2, 3, 40, 48))
    assert tuple(keys.shape) == (2, 128, 5, 6)
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(2, 5, 6))


def test_a_shallow_trunk_is_the_beginning_of_a_whole_one() -> None:
    torch.manual_seed(0)
    whole, shallow = MastNet().eval(), MastNet(depth=2).eval()
    kept = {name for name in whole.state_dict() if not name.startswith(("trunk.layer3.", "trunk.layer4."))}
    assert shallow.state_dict().keys() == kept
    shallow.trunk.load_state_dict({name: whole.trunk.state_dict()[name] for name in shallow.trunk.state_dict()})
    image = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        for ours, expected in zip(shallow.stages(image, 2), whole.stages(image, 2), strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("build", [AnchorsNet, MastNet])
def test_folding_changes_the_speed_and_not_the_features(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = lively(build())
    image = torch.rand(1, 3, 41, 53)

    def features() -> torch.Tensor:
        return net.stages(image, 4)[-1] if isinstance(net, AnchorsNet) else net(image)

    with torch.no_grad():
        before = features()
        for_inference(net)
        torch.testing.assert_close(features(), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.trunk.modules())


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
    layer: Any = net.layers[0]
    weight, bias = layer.weight, layer.bias
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


def test_both_scales_have_the_precision_asked_for_and_are_given_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vostrack.device.has_fast_bfloat16", lambda device: True)
    seen: list[torch.dtype] = []
    net = AnchorsNet().eval()
    net.trunk.register_forward_hook(lambda module, args, stages: seen.append(stages[0].dtype))
    with torch.no_grad():
        scales = list(net.scales(torch.rand(1, 3, 32, 48), (1,), (1,), 1, "auto"))
    assert seen == [torch.bfloat16] * 2
    assert [stage.dtype for scale in scales for stage, _ in scale] == [torch.float32] * 2


def test_a_scale_is_computed_when_it_is_asked_for() -> None:
    seen: list[tuple[int, ...]] = []
    net = AnchorsNet().eval()
    net.trunk.register_forward_hook(lambda module, args, stages: seen.append(tuple(args[0].shape[2:])))
    with torch.no_grad():
        scales = net.scales(torch.rand(1, 3, 32, 48), (1,), (1,), 1, "32")
        next(scales)
        assert seen == [(32, 48)]
        next(scales)
    assert seen == [(32, 48), (63, 95)]
