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
from vostrack.methods.objectives.anchors import RECIPES, AnchorsObjective, View, up_to_last_cells
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb

STRIDE, TAU, SIDE = 8, 0.05, 64
CELLS = SIDE // STRIDE


class Tiny(nn.Module):
    """A net with keys of 3 channels; batch normalisation is left out, so that each frame is encoded on its own.

    Cell i is centred on pixel 8 * i, as by the strided convolutions of a ResNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, STRIDE + 1, STRIDE, padding=STRIDE // 2)

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


def objective(**changes: Any) -> AnchorsObjective:
    torch.manual_seed(0)
    return AnchorsObjective(tiny(), replace(RECIPES["default"], crop=SIDE, **changes))


def grid_cells(side: int, offset: Tensor) -> list[tuple[int, int]]:
    """Cells of a jittered grid, row by row."""
    at = [[int((i + float(move)) * CELLS / side) for i in range(side)] for move in offset]
    return [(y, x) for y in at[0] for x in at[1]]


def source(at: float, scale: float, shift: float, flip: float, side: int, aligned: bool) -> float:
    """The pixel of a frame of some side that a pixel of the view shows, along one axis."""
    if aligned:  # -1 and 1 are the centres of the first and the last pixel
        middle = (side - 1) / 2
        return middle + flip * scale * (at - middle) + shift * middle
    return side / 2 + flip * scale * (at + 0.5 - side / 2) + shift * side / 2 - 0.5  # and here the edges of the frame


def source_cell(cell: int, scale: float, shift: float, flip: float, aligned: bool) -> int:
    """The cell of the main view that a cell of the other view shows, along one axis."""
    if aligned:
        pixel = source(STRIDE * cell, scale, shift, flip, STRIDE * (CELLS - 1) + 1, aligned)
        return round(pixel / STRIDE)
    return round(source(cell, scale, shift, flip, CELLS, aligned))


def log_share(key: Tensor, others: list[Tensor], wanted: int) -> float:
    """Log of the softmax over cosine similarities."""
    e = [math.exp(float(key.double() @ other.double()) / TAU) for other in others]
    return math.log(e[wanted] / sum(e))


def naive_view(frame: Tensor, scale: float, shift: list[float], flip: float, aligned: bool) -> Tensor:
    """A frame (3, S, S) under a similarity, pixel by pixel, bilinear; the border is repeated."""
    side = frame.shape[-1]

    def weights(shifted: float, mirror: float) -> Tensor:
        """(S, S), of the pixels along one axis for each pixel of the view."""
        table = torch.zeros(side, side)
        for at in range(side):
            place = min(max(source(at, scale, shifted, mirror, side, aligned), 0), side - 1)
            low = min(int(place), side - 2)
            table[at, low], table[at, low + 1] = 1 - (place - low), place - low
        return table

    return weights(shift[1], 1) @ frame @ weights(shift[0], flip).T


def naive_losses(net: AnchorsNet, frames: Tensor, seed: int, n: int, m: int, aligned: bool) -> tuple[float, float]:
    """Eq. 3 and 5 by loops, with the random numbers in the order of the objective."""
    generator, size, count = seeded(seed), len(frames), frames.shape[1]
    order = torch.rand(size, count, generator=generator).argsort(1).tolist()
    scale = (0.5 + 0.5 * torch.rand(size, generator=generator)).tolist()
    free = 2 * torch.rand(size, 2, generator=generator) - 1
    shift = [[float(s) * (1 - scale[b]) for s in free[b]] for b in range(size)]
    flip = [1.0 - 2.0 * int(f) for f in torch.randint(2, (size,), generator=generator)]
    at_anchors, at_views = (torch.rand(size, 2, generator=generator) for _ in range(2))
    side = STRIDE * (CELLS - 1) + 1 if aligned else SIDE
    main, other, anchors, r, r_hat = [], [], [], [], []
    for b in range(size):
        clip = torch.stack([frames[b, i, :, :side, :side] for i in order[b]])
        view = torch.stack([naive_view(frame, scale[b], shift[b], flip[b], aligned) for frame in clip])
        keys, moved = net.key(normalised_rgb(clip)), net.key(normalised_rgb(view))
        shown = torch.empty_like(keys)
        for y in range(CELLS):
            for x in range(CELLS):
                v = source_cell(y, scale[b], shift[b][1], 1, aligned)
                u = source_cell(x, scale[b], shift[b][0], flip[b], aligned)
                shown[:, :, y, x] = keys[:, :, v, u]
        main.append(shown)
        other.append(moved)
        anchors += [keys[0, :, y, x] for y, x in grid_cells(n, at_anchors[b])]
        r += [shown[0, :, y, x] for y, x in grid_cells(m, at_views[b])]
        r_hat += [moved[0, :, y, x] for y, x in grid_cells(m, at_views[b])]
    terms = []
    for b in range(size):
        for t in range(1, count):
            for y in range(CELLS):
                for x in range(CELLS):
                    own = [float(other[b][t, :, y, x] @ q) for q in anchors[n * n * b : n * n * (b + 1)]]
                    terms.append(-log_share(main[b][t, :, y, x], anchors, n * n * b + own.index(max(own))))
    crossed = [-log_share(key, r_hat, i) for i, key in enumerate(r)]
    return sum(terms) / max(1, len(terms)), sum(crossed) / len(crossed)


@pytest.mark.parametrize(
    ("frames", "n", "m", "weight", "aligned"),
    [(2, 8, 4, 0.1, True), (3, 4, 4, 0.1, False), (3, 4, 8, 1.0, True), (1, 4, 2, 0.0, True)],
)
@torch.no_grad()
def test_losses_equal_equations_1_to_6(frames: int, n: int, m: int, weight: float, aligned: bool) -> None:
    """Also where T, N, M and λ are others, as in Fig. 3: of one frame, Eq. 3 is a sum over nothing."""
    trained = objective(frames=frames, anchor_grid=n, view_grid=m, cross_view=weight, aligned=aligned)
    batch = clips(frames=frames)
    found = trained.losses(Batch(batch), seeded(5))
    self_training, cross_view = naive_losses(trained.module, batch, 5, n, m, aligned)
    assert float(found["self_training"]) == pytest.approx(self_training, rel=1e-4)
    assert float(found["cross_view"]) == pytest.approx(cross_view, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(self_training + weight * cross_view, rel=1e-4)


def test_one_frame_a_clip_can_be_learned_from() -> None:
    trained = objective(frames=1)
    trained.losses(Batch(clips(frames=1)), seeded(0))["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained.module.parameters())


def places(side: int = SIDE) -> Tensor:
    """A frame (1, 1, 2, S, S) that says of each pixel where it is: y, then x."""
    return torch.stack(torch.meshgrid(*2 * [torch.arange(float(side))], indexing="ij"))[None, None]


def how_far(view: View, frames: Tensor) -> Tensor:
    """Distance in pixels, along each axis, of the pixel that a view's cell lies on and the one of what is aligned."""
    cells = frames[..., ::STRIDE, ::STRIDE]
    return (view.of(frames)[..., ::STRIDE, ::STRIDE] - view.of_cells(cells)).abs()


def test_cells_of_a_mirrored_view_look_at_the_same_pixels() -> None:
    one, none, mirrored = torch.ones(1), torch.zeros(1, 2), -torch.ones(1)
    frames = up_to_last_cells(places())
    assert frames.shape[-2:] == (SIDE - 7, SIDE - 7)
    for flip in (one, mirrored):
        assert float(how_far(View(one, none, flip), frames).max()) < 1e-4
    off = how_far(View(one, none, mirrored, aligned=False), places())
    torch.testing.assert_close(off[0, 0, 1], torch.full((CELLS, CELLS), 7.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_cells_of_any_view_look_at_the_nearest_pixels_that_there_are(seed: int) -> None:
    view = View.random(16, seeded(seed))
    assert {-1.0, 1.0} == set(view.flip.tolist())
    frames = up_to_last_cells(places()).expand(16, -1, -1, -1, -1)
    assert float(how_far(view, frames).max()) <= STRIDE / 2 + 1e-3


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
    assert float(trained.losses(Batch(moved), seeded(seed))["loss"]) != pytest.approx(value, rel=1e-4)


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
    plain = normalised_rgb(up_to_last_cells(frames))
    for seed in range(180):
        net: Any = Watching()
        AnchorsObjective(net, replace(RECIPES["default"], crop=SIDE)).losses(Batch(frames), seeded(seed))
        ordered = net.images[0].view(2, 4, *plain.shape[2:])
        first, second = (next(t for t in range(3) if torch.equal(ordered[b, 0], plain[b, t])) for b in range(2))
        counts[first, second] += 1
    assert counts.min() > 6
    assert counts.max() < 38


def test_recipes_hold_the_settings_of_the_paper() -> None:
    adam, sgd = RECIPES["paper"], RECIPES["paper-sgd"]
    for recipe in (adam, sgd):
        assert (recipe.crop, recipe.batch, recipe.smallest) == (256, 16, 256 / 320)
        # Section 4.3, the centre of Fig. 3, and the temperature of section 4.
        assert (recipe.frames, recipe.anchor_grid, recipe.view_grid) == (5, 8, 4)
        assert (recipe.cross_view, recipe.temperature) == (0.1, 0.05)
    first, second = (AnchorsObjective(tiny(), recipe).optimizer() for recipe in (adam, sgd))
    assert isinstance(first, torch.optim.Adam)
    assert isinstance(second, torch.optim.SGD)
    assert first.defaults["lr"] == 1e-4
    assert second.defaults["lr"] == 1e-3
    assert second.defaults["momentum"] == 0.9
    assert first.defaults["weight_decay"] == second.defaults["weight_decay"] == 5e-4
    for recipe, gap in ((adam, 2), (sgd, 10)):  # those of the published code
        spec = AnchorsObjective(tiny(), recipe).clips
        assert (spec.frames, spec.source_gap, spec.crop, spec.scale) == (5, gap, 256, (0.8, 1.0))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adams"},
        {"smallest": 0.0},
        {"crop": 56},
        {"crop": 100},
        {"frames": 0},
        {"view_grid": 0},
        {"cross_view": -0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(change))):
        replace(RECIPES["default"], **change)


@pytest.mark.parametrize("name", ["anchor_grid", "view_grid"])
def test_a_grid_finer_than_the_cells_is_refused(name: str) -> None:
    changes: dict[str, Any] = {name: 17}
    with pytest.raises(MethodError, match="at least 136 for a grid of 17"):
        replace(RECIPES["default"], **changes)
