"""Training of `videomatch` on pairs of frames, fine-tuning on a first frame, and weights of another method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.models import resnet101

from vostrack.errors import MethodError
from vostrack.matching.finetune import fine_tune, held_out_loss
from vostrack.methods.base import Batch
from vostrack.methods.objectives.videomatch import (
    FINE,
    LAST,
    RECIPES,
    Readout,
    VideoMatchObjective,
)
from vostrack.methods.videomatch import PAPER, VideoMatchMethod
from vostrack.nets.encoders import AnchorsNet, VideoMatchNet, for_inference
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import to_cells, to_pixels
from vostrack.ops.hypercolumns import hypercolumns, project
from vostrack.ops.labels import harden

SIDE = 64


def objective(name: str = "default") -> VideoMatchObjective:
    torch.manual_seed(0)
    net = VideoMatchMethod.nets[RECIPES[name].net]()
    built = VideoMatchObjective(net, replace(RECIPES[name], crop=SIDE))
    built.module.train()
    return built


def pair(labels: Tensor) -> Batch:
    """One clip of two frames with labels (2, S, S)."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 2, 3, 16, 16, generator=generator).repeat_interleave(4, 3).repeat_interleave(4, 4)
    return Batch(frames, labels[None].to(torch.uint8))


def box(value: int, shift: int = 0) -> Tensor:
    pixels = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    pixels[8:40, 8 + shift : 40 + shift] = value
    return pixels


def losses(trained: VideoMatchObjective, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    return trained.losses(batch, torch.Generator().manual_seed(seed))


def naive_loss(net: VideoMatchNet, batch: Batch, template: int, readout: Readout) -> float:
    """Cross-entropy of the upsampled two-way softmax, pixel by pixel."""
    assert batch.labels is not None
    labels, frames = batch.labels[0], normalised_rgb(batch.frames[0])
    with torch.no_grad():
        stages = net.eval().stages(frames, 4)
        cells = (SIDE // readout.stride,) * 2
        chosen = [(stages[i - 1], net.stage_strides[i - 1]) for i in readout.stages]
        features = hypercolumns(chosen, readout.stride, cells).double()
    soft = to_cells((labels[template] == 1)[None].float(), readout.stride)[0].flatten()
    void = to_cells((labels[template] == 255)[None].float(), readout.stride)[0].flatten() > 0
    keys = features[template].flatten(1).T
    front, back = keys[(soft > 0.5) & ~void], keys[(soft <= 0.5) & ~void]
    limit = max(1, min(len(front), len(back)) // 4) if readout is FINE else None
    count = min(readout.top_k, limit or readout.top_k)
    scores = []
    for part in (front, back):
        best = (features[1 - template].flatten(1).T @ part.T).sort(dim=1, descending=True).values[:, :count]
        scores.append(to_pixels(best.mean(1).view(1, *cells), readout.stride, (SIDE, SIDE))[0])
    total, pixels = 0.0, 0
    for a, b, label in zip(
        *(score.flatten().tolist() for score in scores), labels[1 - template].flatten(), strict=True
    ):
        if int(label) != 255:
            probability = 1 / (1 + math.exp(readout.scale * (b - a)))
            total -= math.log(probability if int(label) == 1 else 1 - probability)
            pixels += 1
    return total / pixels


def test_loss_equals_the_equations_and_leaves_void_out() -> None:
    labels = torch.stack((box(1), box(1, 12)))
    labels[:, :, :6] = 255
    trained, batch = objective(), pair(labels)
    with torch.no_grad():
        found = [losses(trained, batch, seed) for seed in range(6)]
    for name, readout in (("last", LAST), ("fine", FINE)):
        expected = sorted(naive_loss(trained.module, batch, template, readout) for template in (0, 1))
        values = sorted({round(float(loss[name]), 6) for loss in found})
        assert values == pytest.approx(expected, rel=1e-3)
    assert float(found[0]["loss"]) == pytest.approx(float(found[0]["last"] + found[0]["fine"]) / 2)


def test_an_object_is_drawn_and_the_others_are_background() -> None:
    labels = torch.stack((box(1), box(1, 12)))
    labels[:, 44:60, 44:60] = 9
    trained = objective()
    with torch.no_grad():
        both = {round(float(losses(trained, pair(labels), seed)["last"]), 5) for seed in range(12)}
        alone = [
            {round(float(losses(trained, pair(torch.where(labels == n, 1, 0)), s)["last"]), 5) for s in range(6)}
            for n in (1, 9)
        ]
    assert both == alone[0] | alone[1]
    assert len(both) == 4


@pytest.mark.parametrize("value", [0, 255])
def test_pairs_without_an_object_or_without_background_teach_nothing(value: int) -> None:
    trained = objective()
    for labels in (torch.full((2, SIDE, SIDE), value), torch.ones(2, SIDE, SIDE)):
        loss = losses(trained, pair(labels))["loss"]
        loss.backward()
        assert float(loss.detach()) == 0
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in trained.module.parameters())


def test_an_object_that_has_left_is_learned_to_be_absent() -> None:
    trained = objective()
    values = [float(losses(trained, pair(torch.stack((box(1), box(0)))), seed)["loss"].detach()) for seed in range(6)]
    assert min(values) == 0  # the frame without it was the template
    assert max(values) > 0


def test_batches_without_labels_are_refused() -> None:
    with pytest.raises(MethodError, match="learns from masks"):
        losses(objective(), Batch(torch.rand(1, 2, 3, SIDE, SIDE)))


def test_settings_are_the_published_ones() -> None:
    trained = VideoMatchObjective(VideoMatchNet())
    (group,) = trained.optimizer().param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-5, 5e-4)
    assert (trained.clips.frames, trained.clips.labels) == (2, True)
    low, high = trained.clips.scale
    # At a scale of 1 the crop is cut from a frame whose short side has 480 pixels.
    assert (256 / low / 480, 256 / high / 480) == pytest.approx((1.5, 0.5))
    assert trained.clips.short_side == 480
    published = RECIPES["paper"]
    assert (published.net, published.readouts, published.steps) == ("resnet101-dilated", ("last",), 1000)


def test_statistics_stay_where_training_starts_from_weights() -> None:
    trained = objective()
    before = {name: t.clone() for name, t in trained.module.named_buffers()}
    losses(trained, pair(torch.stack((box(1), box(1, 12)))))
    assert all(torch.equal(before[name], t) for name, t in trained.module.named_buffers())
    fresh = VideoMatchObjective(trained.module, replace(RECIPES["default"], crop=SIDE, start=""))
    fresh.module.train()
    losses(fresh, pair(torch.stack((box(1), box(1, 12)))))
    assert any(not torch.equal(before[name], t) for name, t in trained.module.named_buffers())


# --- networks ---


@pytest.mark.parametrize("name", ["default", "dilated"])
def test_weights_of_anchors_fill_the_network(name: str) -> None:
    torch.manual_seed(0)
    source, net = AnchorsNet().eval(), VideoMatchMethod.nets[name]()
    net.load_state_dict(dict(VideoMatchMethod.adopts["anchors"](source.state_dict())))
    image = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        theirs, ours = source.stages(image, 4), net.eval().stages(image, 4)
    assert [stage.shape for stage in ours] == [stage.shape for stage in theirs]
    assert [torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True, True, *[name == "default"] * 2]


def test_the_published_network_is_a_dilated_resnet_101() -> None:
    """Torchvision's with dilation in place of strides has the same last stage, at stride 8, with the same weights."""
    net = VideoMatchMethod.nets["resnet101-dilated"]().eval()
    theirs = resnet101(replace_stride_with_dilation=[False, True, True]).eval()
    theirs.load_state_dict(net.trunk.state_dict(), strict=False)
    image = torch.rand(1, 3, 33, 49, generator=torch.Generator().manual_seed(0))
    layers = list(theirs.children())[:-2]
    with torch.no_grad():
        expected = nn.Sequential(*layers)(image)
        found = net.stages(image, 4)[-1]
    assert found.shape == (1, 2048, 5, 7)
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_ten_steps_of_the_published_recipe_lower_the_loss() -> None:
    trained, batch = objective("paper"), pair(torch.stack((box(1), box(1, 12))))
    trained.learning_rate = 1e-4  # with the published one, and random weights, ten steps change little
    optimizer, values = trained.optimizer(), []
    for _ in range(10):
        found = losses(trained, batch)
        assert set(found) == {"loss", "last"}
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        values.append(float(found["loss"].detach()))
    assert values[-1] < values[0]


def test_dilation_follows_the_strides_that_were_taken_away() -> None:
    trunk = VideoMatchMethod.nets["dilated"]().trunk
    stages: list[list[Any]] = [list(trunk.get_submodule(f"layer{stage}").modules()) for stage in (1, 2, 3, 4)]
    found = [[module.dilation[0] for module in stage if _is_wide(module)] for stage in stages]
    assert found == [[1] * 4, [1] * 4, [1, 2, 2, 2], [2, 4, 4, 4]]


def _is_wide(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


# --- fine-tuning on the first frame ---


def scene() -> tuple[Tensor, Tensor]:
    """Features in which few of many channels tell two objects from the background, and hard labels."""
    generator = torch.Generator().manual_seed(0)
    hard_labels = torch.zeros(20, 24, dtype=torch.int64)
    hard_labels[3:15, 2:12], hard_labels[6:18, 14:22] = 1, 2
    means = torch.randn(3, 4, generator=generator)
    telling = means[hard_labels].permute(2, 0, 1)
    return normalize(torch.cat((telling, 2 * torch.randn(20, 20, 24, generator=generator))), dim=0), hard_labels


def held_out(grid: Tensor, hard_labels: Tensor, scale: float = 10.0, top_k: int = 5, top_share: float = 0.25) -> float:
    generators = (torch.Generator().manual_seed(seed) for seed in range(9, 19))
    values = [held_out_loss(grid, hard_labels, each, scale, top_k, top_share) for each in generators]
    return float(torch.stack(values).mean())


@pytest.mark.parametrize("axes", [24, 12])
def test_fine_tuning_lowers_the_loss_of_squares_that_are_held_out(axes: int) -> None:
    features, hard_labels = scene()
    start = torch.eye(24)[:axes]
    settings: dict[str, Any] = {"steps": 15, "rate": 0.02, "scale": 10.0, "top_k": 5, "top_share": 0.25}

    def describe(weights: Sequence[Tensor]) -> Tensor:
        return project(features, weights[0])

    with torch.no_grad():
        before = torch.get_rng_state()
        (tuned,), (again,) = (fine_tune(describe, [start], hard_labels, **settings) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert tuned.shape == (axes, 24)
        assert not tuned.requires_grad
        assert torch.equal(tuned, again)
        plain = held_out(project(features, start), hard_labels)
        assert held_out(project(features, tuned), hard_labels) < 0.9 * plain


def test_fine_tuning_without_objects_changes_nothing() -> None:
    features, _ = scene()
    nothing, start = torch.zeros(20, 24, dtype=torch.int64), torch.eye(24)
    (tuned,) = fine_tune(
        lambda weights: project(features, weights[0]), [start], nothing, steps=2, rate=0.1, scale=1.0, top_k=5
    )
    assert torch.equal(tuned, start)


def test_the_last_block_is_fitted_to_the_clip() -> None:
    """OURS-FT: the weights of the network's end are those of the clip, and the network stays as it is."""
    torch.manual_seed(0)
    net = cast(VideoMatchNet, for_inference(VideoMatchNet()))
    shape = 64, 80
    hard = torch.zeros(shape, dtype=torch.int64)
    hard[16:48, 16:56] = 1
    given = nn.functional.one_hot(hard, 2).permute(2, 0, 1).float()
    noise = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    image = 0.5 * noise + 0.2 * given[1]
    plain = VideoMatchMethod(net, PAPER)
    tuned = [
        VideoMatchMethod(net, replace(PAPER, finetune_part="block", finetune_steps=steps, finetune_rate=1e-3))
        for steps in (0, 5)
    ]
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    with torch.no_grad():
        features = plain.encode(image)
        states = [method.begin(method.encode(image), given) for method in tuned]
        grids = [m.described(m.encode(image), s.block) for m, s in zip(tuned, states, strict=True)]
        torch.testing.assert_close(grids[0], features)
        expected = plain.predict(plain.begin(features, given), features)
        torch.testing.assert_close(tuned[0].predict(states[0], tuned[0].encode(image)), expected, atol=1e-4, rtol=1e-4)
        hard_labels = harden(to_cells(given, 8))
        after, start = (held_out(grid, hard_labels, PAPER.scale, PAPER.top_k, 0) for grid in reversed(grids))
        assert after < 0.7 * start
        again = tuned[1].begin(tuned[1].encode(image), given, states[1])
    assert again.block is states[1].block
    assert all(torch.equal(before[name], weight) for name, weight in net.state_dict().items())


@pytest.mark.parametrize("changes", [{"stages": (3,)}, {"colour": 1.0}, {"views": 2}, {"stride": 4}])
def test_only_the_last_stage_by_itself_is_fitted_by_its_last_block(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=r"finetune_part is 'block'.*stages=\(4,\)"):
        replace(PAPER, finetune_part="block", **changes)


def test_the_tuned_projection_belongs_to_the_clip() -> None:
    features, hard_labels = scene()
    given = (
        nn.functional.one_hot(hard_labels, 3).permute(2, 0, 1).float().repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    method = VideoMatchMethod(VideoMatchNet(), replace(PAPER, finetune_steps=15, finetune_rate=0.02, top_k=5))
    with torch.no_grad():
        state = method.begin(features, given)
        assert state.projection.shape == (24, 24)
        assert method.begin(features, given, state).projection is state.projection
        found = method.predict(state, features).argmax(0)
        assert (found == hard_labels).float().mean() > 0.9
