"""A still image as a clip: a window that moves over it, seen through homographies.

The corners of the window go along straight lines at constant speed, each on its own, so that the image shifts, turns,
grows and tilts the way it does before a moving camera. They never leave the image: nothing has to be made up at the
borders.

Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 4.4. It speaks of "simple homography
transformations" and gives no ranges: those below are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vostrack.ops.grid import sample, similarity_grid

# Ranges of a view: side of the window as a share of the largest that fits, turn in radians, its centre as a share of
# what is free (horizontally, vertically), and eight moves of its corners as shares of its half sides.
_LOW = (0.65, -math.pi / 18, -1.0, -1.0, *(-0.08,) * 8)
_HIGH = (1.0, math.pi / 18, 1.0, 1.0, *(0.08,) * 8)
_STEP = 0.15
"""How far a view moves at most from one frame to the next, as a share of each range."""

_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def homography_clip(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """A clip of a still image under a random smooth motion.

    Args:
        image: float (3, H, W).
        frames: length of the clip (T), at least 1.
        generator: source of randomness, on the CPU.

    Returns:
        (T, 3, H, W) on the image's device, of values between those of the image. Each frame is a part of it, enlarged:
        the image should be larger than what is cut from the clip afterwards.
    """
    size = (image.shape[1], image.shape[2])
    homographies = square_to_quad(moving_corners(frames, size, generator))
    positions = project(homographies, size).to(image)
    return sample(image.expand(frames, -1, -1, -1), positions)


def moving_corners(frames: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Corners of the window in each frame.

    Args:
        frames: T.
        size: (H, W) of the image.
        generator: on the CPU.

    Returns:
        float64 (T, 4, 2), x then y in [-1, 1] over the image, clockwise from the top left.
    """
    first = torch.rand(len(_LOW), generator=generator, dtype=torch.float64)
    change = _STEP * (frames - 1) * (2 * torch.rand(len(_LOW), generator=generator, dtype=torch.float64) - 1)
    start, end = (_corners(shares, size) for shares in (first, (first + change).clamp(0, 1)))
    time = torch.linspace(0, 1, frames, dtype=torch.float64).view(-1, 1, 1)
    return torch.lerp(start, end, time)


def _corners(shares: Tensor, size: tuple[int, int]) -> Tensor:
    """Corners (4, 2) of one view, from shares (12,) in [0, 1] of the ranges."""
    low, high = shares.new_tensor((_LOW, _HIGH)).unbind()
    view = low + shares * (high - low)
    scale, turn, centre, moves = view[0], view[1], view[2:4], view[4:].view(4, 2)
    half = shares.new_tensor((size[1], size[0])) / 2
    rotation = torch.stack((turn.cos(), -turn.sin(), turn.sin(), turn.cos())).view(2, 2)
    quad = ((shares.new_tensor(_CORNERS) + moves) * half) @ rotation.T / half
    quad = quad * scale / quad.abs().max()
    return quad + centre * (1 - quad.abs().amax(0))


def square_to_quad(corners: Tensor) -> Tensor:
    """Homographies that take the corners of the square [-1, 1]² to given ones.

    Args:
        corners: (T, 4, 2), x then y, clockwise from the top left, convex.

    Returns:
        (T, 3, 3), the last entry being 1.
    """
    x, y = corners.new_tensor(_CORNERS).T.expand(len(corners), 2, 4).unbind(1)
    u, v = corners.unbind(2)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y), 2)
    rows_v = torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y), 2)
    solved = torch.linalg.solve(torch.cat((rows_u, rows_v), 1), torch.cat((u, v), 1))
    return torch.cat((solved, torch.ones_like(solved[:, :1])), 1).view(-1, 3, 3)


def project(homographies: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the pixels of a frame come from.

    Args:
        homographies: (T, 3, 3), from the frame to the image, both over [-1, 1]².
        size: (H, W) of the frame.

    Returns:
        (T, H, W, 2), positions for `ops.grid.sample`.
    """
    one = homographies.new_ones(1)
    plain = similarity_grid(one, one.new_zeros(1, 2), one, size)[0]
    points = torch.cat((plain, torch.ones_like(plain[..., :1])), 2)
    projected = torch.einsum("tij,hwj->thwi", homographies, points)
    return projected[..., :2] / projected[..., 2:]
