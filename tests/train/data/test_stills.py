"""A still image set in motion: views through homographies, equal to their definition, smooth and without borders."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vostrack.train.data.stills import homography_clip, moving_corners, project, square_to_quad

SIZES = [(32, 32), (27, 48), (48, 27), (9, 40)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(size: tuple[int, int]) -> Tensor:
    """An image whose two channels are the coordinates of its pixels, x then y, in [-1, 1] over pixel areas."""
    height, width = size
    y = ((torch.arange(height, dtype=torch.float64) + 0.5) * 2 / height - 1)[:, None].expand(size)
    x = ((torch.arange(width, dtype=torch.float64) + 0.5) * 2 / width - 1)[None].expand(size)
    return torch.stack((x, y, torch.zeros_like(x)))


def heckbert(corners: Tensor) -> list[list[float]]:
    """The homography from the unit square (clockwise from the top left) to a quadrilateral, in closed form."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners.tolist()
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    det = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / det, (dx1 * dy3 - dx3 * dy1) / det
    return [
        [x1 - x0 + g * x1, x3 - x0 + h * x3, x0],
        [y1 - y0 + g * y1, y3 - y0 + h * y3, y0],
        [g, h, 1.0],
    ]


def naive_view(image: Tensor, corners: Tensor) -> Tensor:
    """Each pixel through the closed form, then the four pixels around it, by loops."""
    height, width = image.shape[1:]
    matrix, out = heckbert(corners), torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            point = ((column + 0.5) / width, (row + 0.5) / height, 1.0)
            u, v, w = (sum(a * b for a, b in zip(line, point, strict=True)) for line in matrix)
            x, y = (u / w + 1) * width / 2 - 0.5, (v / w + 1) * height / 2 - 0.5
            left, top = int(x // 1), int(y // 1)
            for i, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
                for j, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
                    inside = image[:, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
                    out[:, row, column] += weight_y * weight_x * inside
    return out


@pytest.mark.parametrize("size", [(7, 12), (10, 6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_frames_equal_the_definition(size: tuple[int, int], seed: int) -> None:
    image = torch.rand(3, *size, generator=seeded(9), dtype=torch.float64)
    corners = moving_corners(3, size, seeded(seed))
    expected = torch.stack([naive_view(image, frame) for frame in corners])
    torch.testing.assert_close(homography_clip(image, 3, seeded(seed)), expected, atol=1e-10, rtol=0)


def test_corners_go_to_corners_and_lines_stay_lines() -> None:
    corners = moving_corners(4, (30, 50), seeded(3))
    square = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=torch.float64)
    found = torch.einsum("tij,nj->tni", square_to_quad(corners), square)
    torch.testing.assert_close(found[..., :2] / found[..., 2:], corners)
    row = project(square_to_quad(corners), (5, 9))[:, 2]
    along, ahead = row[:, 1:-1] - row[:, :1], row[:, 2:] - row[:, :1]
    cross = along[..., 0] * ahead[..., 1] - along[..., 1] * ahead[..., 0]
    torch.testing.assert_close(cross, torch.zeros_like(cross), atol=1e-12, rtol=0)


@given(seed=st.integers(0, 10**6), size=st.sampled_from(SIZES), frames=st.integers(1, 40))
@settings(max_examples=60)
def test_windows_stay_inside_move_steadily_and_are_convex(seed: int, size: tuple[int, int], frames: int) -> None:
    corners = moving_corners(frames, size, seeded(seed))
    assert corners.shape == (frames, 4, 2)
    assert corners.abs().max() <= 1 + 1e-12
    steps = corners.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    sides = corners.roll(-1, 1) - corners
    following = sides.roll(-1, 1)
    assert (sides[..., 0] * following[..., 1] - sides[..., 1] * following[..., 0]).min() > 0


def test_a_step_is_small_however_long_the_clip() -> None:
    for seed in range(30):
        steps = [moving_corners(frames, (36, 64), seeded(seed)).diff(dim=0).abs().max() for frames in (2, 6, 30)]
        assert max(steps) < 0.35
    assert max(steps) > 0


@pytest.mark.parametrize("size", SIZES)
def test_nothing_but_the_image_is_seen(size: tuple[int, int]) -> None:
    """A constant image stays constant: nowhere does a border shine in."""
    clip = homography_clip(torch.full((3, *size), 0.7), 5, seeded(4))
    torch.testing.assert_close(clip, torch.full((5, 3, *size), 0.7))
    assert homography_clip(places(size), 5, seeded(4)).abs().max() < 1


def test_neighbouring_frames_differ_a_little_and_distant_ones_more() -> None:
    near, far = [], []
    for seed in range(20):
        moved = homography_clip(places((32, 32)), 6, seeded(seed))[:, :2]
        near.append((moved[1] - moved[0]).norm(dim=0).mean())
        far.append((moved[5] - moved[0]).norm(dim=0).mean())
    assert 0.005 < float(torch.stack(near).mean()) < 0.1
    assert float(torch.stack(far).mean()) > 3 * float(torch.stack(near).mean())


def test_the_generator_alone_decides() -> None:
    image = torch.rand(3, 12, 16)
    first, again, other = (homography_clip(image, 4, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == image.dtype
    assert homography_clip(image, 1, seeded(1)).shape == (1, 3, 12, 16)
