"""Training of `anchors`: the whole objective against loops over Eq. 1-6, the order of frames, the recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vostrack.errors import MethodError
from vostrack.methods.base import Batch
from vostrack.methods.objectives.anchors import RECIPES, AnchorsObjective
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import sample, similarity_grid

STRIDE, TAU, SIDE = 8, 0.05, 64
CELLS = SIDE // STRIDE


class Tiny(nn.Module):
    """A net with keys of 3 channels; batch normalisation is left out, so that each frame is encoded on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, STRIDE, STRIDE)

    def key(self, image: Tensor) -> Tensor:
        return normalize(self.conv(image), dim=1)


def tiny() -> Any:
    """It stands in for an `AnchorsNet`."""
    return Tiny()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(count: int = 2, frames: int = 3, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, frames, 3, 16, 16, generator=seeded(seed))
    return coarse.repeat_interleave(4, 3).repeat_interleave(4, 4)


def objective() -> AnchorsObjective:
    torch.manual_seed(0)
    return AnchorsObjective(tiny(), replace(RECIPES["default"], crop=SIDE))


def grid_cells(side: int, offset: Tensor) -> list[tuple[int, int]]:
    """Cells of a jittered grid, row by row."""
    at = [[int((i + float(move)) * CELLS / side) for i in range(side)] for move in offset]
    return [(y, x) for y in at[0] for x in at[1]]


def source(cell: int, scale: float, shift: float, flip: float) -> int:
    """The cell of the main view that a cell of the other view shows, along one axis."""
    place = ((cell + 0.5) * 2 / CELLS - 1) * scale * flip + shift
    return math.floor((place + 1) * CELLS / 2)


def log_share(key: Tensor, others: list[Tensor], wanted: int) -> float:
    """Log of the softmax over cosine similarities."""
    e = [math.exp(float(key.double() @ other.double()) / TAU) for other in others]
    return math.log(e[wanted] / sum(e))


def naive_losses(net: AnchorsNet, frames: Tensor, seed: int) -> tuple[float, float]:
    """Eq. 3 and 5 by loops, with the random numbers in the order of the objective."""
    generator, size, count = seeded(seed), len(frames), frames.shape[1]
    order = torch.rand(size, count, generator=generator).argsort(1).tolist()
    scale = (0.5 + 0.5 * torch.rand(size, generator=generator)).tolist()
    free = 2 * torch.rand(size, 2, generator=generator) - 1
    shift = [[float(s) * (1 - scale[b]) for s in free[b]] for b in range(size)]
    flip = [1.0 - 2.0 * int(f) for f in torch.randint(2, (size,), generator=generator)]
    at_anchors, at_views = (torch.rand(size, 2, generator=generator) for _ in range(2))
    main, other, anchors, r, r_hat = [], [], [], [], []
    for b in range(size):
        clip = torch.stack([frames[b, i] for i in order[b]])
        zoom, move, mirror = (torch.tensor([x]) for x in (scale[b], shift[b], flip[b]))
        view = sample(clip.flatten(0, 1)[None], similarity_grid(zoom, move, mirror, (SIDE, SIDE))).view_as(clip)
        keys, moved = net.key(normalised_rgb(clip)), net.key(normalised_rgb(view))
        aligned = torch.empty_like(keys)
        for y in range(CELLS):
            for x in range(CELLS):
                v, u = source(y, scale[b], shift[b][1], 1), source(x, scale[b], shift[b][0], flip[b])
                aligned[:, :, y, x] = keys[:, :, v, u]
        main.append(aligned)
        other.append(moved)
        anchors += [keys[0, :, y, x] for y, x in grid_cells(8, at_anchors[b])]
        r += [aligned[0, :, y, x] for y, x in grid_cells(4, at_views[b])]
        r_hat += [moved[0, :, y, x] for y, x in grid_cells(4, at_views[b])]
    terms = []
    for b in range(size):
        for t in range(1, count):
            for y in range(CELLS):
                for x in range(CELLS):
                    own = [float(other[b][t, :, y, x] @ q) for q in anchors[64 * b : 64 * b + 64]]
                    terms.append(-log_share(main[b][t, :, y, x], anchors, 64 * b + own.index(max(own))))
    crossed = [-log_share(key, r_hat, i) for i, key in enumerate(r)]
    return sum(terms) / len(terms), sum(crossed) / len(crossed)


@torch.no_grad()
def test_losses_equal_equations_1_to_6() -> None:
    trained, frames = objective(), clips()
    found = trained.losses(Batch(frames), seeded(5))
    self_training, cross_view = naive_losses(trained.module, frames, 5)
    assert float(found["self_training"]) == pytest.approx(self_training, rel=1e-4)
    assert float(found["cross_view"]) == pytest.approx(cross_view, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(self_training + 0.1 * cross_view, rel=1e-4)


def reference(seed: int, clip: int, frames: int = 3) -> int:
    """Which frame of a clip the objective makes the reference: the order is the first that it draws."""
    return int(torch.rand(2, frames, generator=seeded(seed)).argsort(1)[clip, 0])


@torch.no_grad()
def test_the_order_of_frames_in_time_does_not_matter() -> None:
    """Swapping the frames that are not the reference changes nothing; making another one the reference does."""
    trained, frames, seed = objective(), clips(), 3
    value = float(trained.losses(Batch(frames), seeded(seed))["loss"])
    swapped, moved = frames.clone(), frames.clone()
    for b in range(2):
        first = reference(seed, b)
        one, two = (t for t in range(3) if t != first)
        swapped[b, one], swapped[b, two] = frames[b, two], frames[b, one]
        moved[b, one], moved[b, first] = frames[b, first], frames[b, one]
    assert float(trained.losses(Batch(swapped), seeded(seed))["loss"]) == pytest.approx(value, rel=1e-5)
    assert float(trained.losses(Batch(moved), seeded(seed))["loss"]) != pytest.approx(value, rel=1e-3)


class Watching(Tiny):
    """Keeps what it is asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def key(self, image: Tensor) -> Tensor:
        self.images.append(image)
        return torch.ones(len(image), 1, CELLS, CELLS)


@torch.no_grad()
def test_every_frame_is_the_reference_equally_often_and_each_clip_has_its_own() -> None:
    frames, counts = clips(), torch.zeros(3, 3)
    plain = normalised_rgb(frames)
    for seed in range(180):
        net: Any = Watching()
        AnchorsObjective(net, replace(RECIPES["default"], crop=SIDE)).losses(Batch(frames), seeded(seed))
        ordered = net.images[0].view(2, 4, 3, SIDE, SIDE)
        first, second = (next(t for t in range(3) if torch.equal(ordered[b, 0], plain[b, t])) for b in range(2))
        counts[first, second] += 1
    assert counts.min() > 6
    assert counts.max() < 38


def test_recipes_hold_the_settings_of_the_paper() -> None:
    adam, sgd = RECIPES["paper"], RECIPES["paper-sgd"]
    for recipe in (adam, sgd):
        assert (recipe.crop, recipe.batch, recipe.smallest) == (256, 16, 256 / 320)
    first, second = (AnchorsObjective(tiny(), recipe).optimizer() for recipe in (adam, sgd))
    assert isinstance(first, torch.optim.Adam)
    assert isinstance(second, torch.optim.SGD)
    assert first.defaults["lr"] == 1e-4
    assert second.defaults["lr"] == 1e-3
    assert second.defaults["momentum"] == 0.9
    assert first.defaults["weight_decay"] == second.defaults["weight_decay"] == 5e-4
    spec = AnchorsObjective(tiny(), adam).clips
    assert (spec.frames, spec.crop, spec.scale) == (5, 256, (0.8, 1.0))


@pytest.mark.parametrize("change", [{"optimizer": "adams"}, {"smallest": 0.0}, {"crop": 56}, {"crop": 100}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(change))):
        replace(RECIPES["default"], **change)
