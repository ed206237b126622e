"""Networks: shapes at odd sizes, torchvision's names, folding that changes nothing."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from vostrack.nets.encoders import AnchorsNet, MastNet
from vostrack.nets.fusion import for_inference
from vostrack.nets.resnet import ResNet18


def lively(net: nn.Module) -> nn.Module:
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
    ours = ResNet18(strides=(1, 2, 2, 2)).eval()
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
