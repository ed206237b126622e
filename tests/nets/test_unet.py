"""U-Net: shapes at any size, ResNet-18 inside, weights from a generator, gradients, growth."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from vostrack.nets.unet import STRIDE, UNet


def build(count: int = 3, seed: int = 0) -> UNet:
    return UNet(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (37, 51), (64, 32)])
def test_every_pixel_has_a_score_for_each_channel(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert tuple(build(4).eval()(torch.rand(2, 3, *size)).shape) == (2, 4, *size)


def test_a_size_that_does_not_fit_is_continued_at_the_border_and_cropped() -> None:
    net, image = build().eval(), torch.rand(1, 3, 37, 51, generator=torch.Generator().manual_seed(1))
    rows = torch.arange(2 * STRIDE).clamp(max=36)
    columns = torch.arange(2 * STRIDE).clamp(max=50)
    with torch.no_grad():
        assert torch.equal(net(image), net(image[:, :, rows][..., columns])[..., :37, :51])


def test_the_contracting_half_is_torchvisions_resnet18_at_stride_32() -> None:
    trunk = build().trunk.eval()
    with torch.random.fork_rng():
        theirs = torchvision.models.resnet18(weights=None).eval()
    trunk.load_state_dict({name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
        torch.testing.assert_close(trunk(image)[-1], expected)
    assert tuple(expected.shape[-2:]) == (64 // STRIDE, 64 // STRIDE)


def test_what_the_contracting_half_had_is_joined_at_each_resolution() -> None:
    net, seen = build().eval(), list[torch.Tensor]()
    for up in net.up:
        up.get_submodule("first").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trunk, image = net.trunk, torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        net(image)
        first = trunk.relu(trunk.bn1(trunk.conv1(image)))
        *stages, _ = trunk(image)
    for joined, beside in zip(seen, [*reversed([first, *stages])], strict=False):
        assert torch.equal(joined[:, -beside.shape[1] :], beside)
    assert len(seen) == 5


def test_weights_come_from_the_generator_and_from_nowhere_else() -> None:
    before = torch.get_rng_state()
    one, same, other = build(seed=1).state_dict(), build(seed=1).state_dict(), build(seed=2).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["trunk.conv1.weight"], other["trunk.conv1.weight"])
    for name, tensor in one.items():
        if tensor.dim() == 4 and tensor.numel() > 5000:
            assert float(tensor.std()) == pytest.approx((2 / tensor[0].numel()) ** 0.5, rel=0.05), name


def test_gradients_reach_every_parameter() -> None:
    net = build().train()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(net(image), torch.arange(64).expand(2, 64, 64) % 3).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_growing_adds_channels_that_score_nothing_yet() -> None:
    net, image = build(2).eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = net(image)
        net.grow(4)
        after = net(image)
    torch.testing.assert_close(after[:, :2], before)
    assert torch.equal(after[:, 2:], torch.zeros(1, 2, 32, 32))
    net.train()(torch.rand(2, 3, 64, 64))[:, 3].sum().backward()
    assert net.head.weight.grad is not None
    assert float(net.head.weight.grad[3].abs().sum()) > 0
