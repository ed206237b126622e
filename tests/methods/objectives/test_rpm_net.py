"""Training of `rpm-net`: equation 9 as naive loops, what the recipes do, a fixed batch that is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.fixed_net import FixedNet
from tests.naive import warped
from tests.train.samples import write_image
from vostrack.errors import MethodError
from vostrack.methods.base import Batch
from vostrack.methods.objectives import rpm_net as rpm_training
from vostrack.methods.objectives.rpm_net import RECIPES, RpmNetObjective, RpmRecipe, colour_loss, roughness
from vostrack.nets.rpm_net import RpmNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import to_cells
from vostrack.train.data.batches import choose, cut
from vostrack.train.data.cache import build_cache
from vostrack.train.data.footage import find_footage


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_the_loss_of_colours_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.rand(2, 2, 3, 4, 5, generator=generator)
    total = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                total += sum((float(predicted[b, c, y, x]) - float(true[b, c, y, x])) ** 2 for c in range(3))
    assert float(colour_loss(predicted, true)) == pytest.approx(total / (2 * 4 * 5), rel=1e-5)


def test_roughness_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(1, 2, 3, 4, generator=generator)
    image = torch.randn(1, 3, 3, 4, generator=generator)
    total = 0.0
    for dy, dx in ((1, 0), (0, 1)):
        values = []
        for y in range(3 - dy):
            for x in range(4 - dx):
                step = offsets[0, :, y + dy, x + dx] - offsets[0, :, y, x]
                edge = (image[0, :, y + dy, x + dx] - image[0, :, y, x]).abs().mean()
                values.append(math.exp(-2.2 * float(edge)) * math.sqrt(float(step.square().sum()) + 1e-3))
        total += sum(values) / len(values)
    assert float(roughness(offsets, image)) == pytest.approx(total, rel=1e-5)


def objective(recipe: RpmRecipe, offsets: Sequence[float]) -> RpmNetObjective:
    return RpmNetObjective(FixedNet(offsets), recipe)  # type: ignore[arg-type]


def test_a_frame_is_put_together_from_the_other_one() -> None:
    frames = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = objective(RpmRecipe(blur=(0,), shake=0, smooth=0), (0.5, -1.25))
    for seed in range(4):
        losses = plain.losses(Batch(frames), torch.Generator().manual_seed(seed))
        flipped = bool(torch.rand((), generator=torch.Generator().manual_seed(seed)) < 0.5)
        cells = [torch.stack([to_cells(f, 4) for f in normalised_rgb(frames[:, t])]) for t in (0, 1)]
        reference, target = cells[::-1] if flipped else cells
        offsets = torch.tensor([0.5, -1.25]).view(1, 2, 1, 1).expand(2, 2, 8, 8)
        wanted = (warped(reference, offsets) - target).square().sum(1).mean()
        assert float(losses["loss"]) == pytest.approx(float(wanted), rel=1e-4)
        assert float(losses["colour"]) == pytest.approx(float(wanted), rel=1e-4)
        assert float(losses["unmoved"]) == pytest.approx(float((reference - target).square().sum(1).mean()), rel=1e-4)


def test_blur_and_smoothness_are_added() -> None:
    frames = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def loss(**changes: Any) -> float:
        plain: dict[str, Any] = {"blur": (0,), "shake": 0, "smooth": 0}
        recipe = RpmRecipe(**plain | changes)
        offsets = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1))
        return float(RpmNetObjective(FixedNet(offsets), recipe).losses(Batch(frames), torch.Generator())["loss"])  # type: ignore[arg-type]

    assert loss(blur=(0, 2)) == pytest.approx(loss() + loss(blur=(2,)), rel=1e-5)
    assert loss(blur=(2,)) < loss()
    assert loss(smooth=2.0) - loss() == pytest.approx(2 * (loss(smooth=1.0) - loss()), rel=1e-3)
    assert loss(smooth=1.0) > loss()


def test_shaken_frames_are_windows_of_the_frames() -> None:
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    frames = torch.stack((ramp, ramp.mT)).expand(4, 2, 3, 64, 64).contiguous()
    windows = rpm_training.shaken(frames, 0.25, torch.Generator().manual_seed(0))
    assert windows.shape == frames.shape
    spans = [float(f[0, 20].max() - f[0, 20].min()) for f in windows[:, 0]]
    assert min(spans) >= 0.74
    assert max(spans) <= 1
    assert len({round(span, 3) for span in spans}) == 4


def test_the_published_recipe_has_the_published_settings() -> None:
    paper = RECIPES["paper"]
    assert (paper.crop, paper.learning_rate, paper.schedule, paper.start) == (512, 1e-3, "poly", "")
    assert (paper.net, paper.blur, paper.shake, paper.smooth) == ("resnet101-deformable", (0,), 0, 0)
    trained = RpmNetObjective(RpmNet(), paper)
    optimizer = trained.optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]) == (0.9, 5e-4)
    assert trained.learning_rate == 1e-3
    assert paper.steps * paper.batch == 100 * 3501  # epochs of so many videos
    # Section 4.1: frames t-5 and t; section 3.2: resized to 512 x 512.
    assert (trained.clips.frames, trained.clips.source_gap) == (2, 5)
    assert (trained.clips.whole, trained.clips.crop) == (True, 512)


def test_in_the_published_recipe_frame_t_is_put_together_from_an_earlier_one() -> None:
    frames = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    paper = objective(replace(RECIPES["paper"], net="default"), (0.5, -1.25))
    reference, target = (torch.stack([to_cells(f, 4) for f in normalised_rgb(frames[:, t])]) for t in (0, 1))
    offsets = torch.tensor([0.5, -1.25]).view(1, 2, 1, 1).expand(2, 2, 8, 8)
    wanted = float((warped(reference, offsets) - target).square().sum(1).mean())
    for seed in range(4):
        losses = paper.losses(Batch(frames), torch.Generator().manual_seed(seed))
        assert float(losses["loss"]) == pytest.approx(wanted, rel=1e-4)


def test_five_frames_are_five_images_of_a_folder(tmp_path: Path) -> None:
    for index in range(12):
        write_image(tmp_path / "data" / "a" / f"{index:05d}.png", np.full((20, 30, 3), 20 * index))
    (source,) = find_footage([tmp_path / "data"])
    cache = build_cache([replace(source, all_frames=True)], tmp_path / "cache")
    spec = objective(replace(RECIPES["paper"], net="default", crop=32), (0, 0)).clips
    generator = torch.Generator().manual_seed(0)
    for clip in cut(cache, spec, choose(cache, spec, 8, generator), torch.device("cpu")).frames:
        first, last = (255 * clip[t].mean() / 20 for t in (0, 1))
        assert float(last - first) == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize("changes", [{"optimizer": "lamb"}, {"blur": ()}, {"blur": (-1,)}, {"shake": 1.0}])
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(changes))):
        RpmRecipe(**changes)


def test_training_lowers_the_loss_of_a_fixed_batch_and_moves_every_parameter() -> None:
    torch.manual_seed(0)
    trained = RpmNetObjective(RpmNet().train(), RpmRecipe(crop=64))
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(2, 3, 20, 20, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    batch = Batch(torch.stack((base[..., :64, :64], base[..., :64, 2:66]), 1))
    before = {name: p.clone() for name, p in trained.module.named_parameters()}
    optimizer, losses = trained.optimizer(), []
    with torch.enable_grad():
        for _ in range(8):
            optimizer.zero_grad()
            loss = trained.losses(batch, torch.Generator().manual_seed(0))["loss"]
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert [name for name, p in trained.module.named_parameters() if torch.equal(p, before[name])] == []
