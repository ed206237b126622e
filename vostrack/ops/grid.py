"""Coordinates: padding to a multiple, resizing, and normalised sampling positions.

The only place that spells `align_corners`. Two conventions are in use: *pixel areas* (False), where resizing keeps the
image's outer edges in place, and *corner centres* (True), where it keeps the centres of the corner pixels in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_most(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """A size (H, W) shrunk, where need be, to a short side of `short_side` pixels; None leaves it as it is."""
    if short_side is None or min(size) <= short_side:
        return size
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def resize(x: Tensor, size: tuple[int, int], corners: bool = False, antialias: bool = False) -> Tensor:
    """Bilinear resizing.

    Args:
        x: float (B, C, H, W).
        size: (H', W').
        corners: keep the centres of the corner pixels in place instead of the image's edges.
        antialias: low-pass before shrinking; not together with `corners`.

    Returns:
        (B, C, H', W').
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=corners, antialias=antialias)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image, uint8 (3, H, W), at another size, usually a smaller one; contiguous."""
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    return resize(image[None].float(), size, antialias=True)[0].round().clamp(0, 255).byte()


def similarity_grid(scale: Tensor, shift: Tensor, flip: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    """Sampling positions of a zoom with shift and horizontal flip.

    Args:
        scale: (B,) side of the visible window as a share of the image, in (0, 1].
        shift: (B, 2) centre of the window, x then y, in [-1, 1]; the window stays inside where |shift| <= 1 - scale.
        flip: (B,) -1 to flip, +1 not to.
        size: (h, w) of the output.
        corners: whether -1 and 1 are the centres of the corner pixels instead of the image's edges.

    Returns:
        (B, h, w, 2) positions for `sample`, in [-1, 1].
    """
    theta = scale.new_zeros(len(scale), 2, 3)
    theta[:, 0, 0] = scale * flip
    theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    return F.affine_grid(theta, [len(scale), 1, *size], align_corners=corners)


def sample(x: Tensor, positions: Tensor, mode: str = "bilinear", corners: bool = False) -> Tensor:
    """Read x at normalised positions.

    Args:
        x: (B, C, H, W).
        positions: (B, h, w, 2), x then y, in [-1, 1].
        mode: "bilinear" or "nearest".
        corners: as of the positions.

    Returns:
        (B, C, h, w); the border is repeated outside.
    """
    return F.grid_sample(x, positions, mode=mode, padding_mode="border", align_corners=corners)


def sample_cells(x: Tensor, positions: Tensor, border: bool = False) -> Tensor:
    """Read x at positions in cells, cell i being centred on i.

    Args:
        x: (B, C, h, w).
        positions: (B, 2, h', w'), y then x.
        border: whether the border is continued outside; else x is zero there.

    Returns:
        (B, C, h', w').
    """
    size = positions.new_tensor(x.shape[-2:]).view(2, 1, 1)
    normalised = ((2 * positions + 1) / size - 1).flip(1).permute(0, 2, 3, 1)
    mode = "border" if border else "zeros"
    return F.grid_sample(x, normalised, mode="bilinear", padding_mode=mode, align_corners=False)


def centres(size: tuple[int, int], device: torch.device) -> Tensor:
    """Integer coordinates (h, w, 2), y then x, of all cells."""
    y, x = torch.meshgrid(*(torch.arange(side, device=device) for side in size), indexing="ij")
    return torch.stack((y, x), dim=-1)


def size_of(image: Tensor) -> tuple[int, int]:
    """(H, W) of an image or of anything else (C, H, W)."""
    return image.shape[1], image.shape[2]


def cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(h, w) of the feature grid of an image: one cell for each started stride."""
    return -(-size[0] // stride), -(-size[1] // stride)


def to_cells(x: Tensor, stride: int) -> Tensor:
    """Average of the pixels around each cell, cell i being centred on pixel i * stride.

    That is where the receptive fields of strided convolutions with symmetric padding are centred.

    Args:
        x: (K, H, W).
        stride: even.

    Returns:
        (K, h, w).
    """
    return F.avg_pool2d(x[None], stride + 1, stride, stride // 2, count_include_pad=False)[0]


def to_pixels(x: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation between cells, cell i being centred on pixel i * stride; the last cell is continued.

    Args:
        x: (K, h, w).
        stride: even.
        size: (H, W) with h = ceil(H / stride), w = ceil(W / stride).

    Returns:
        (K, H, W).
    """
    height, width = x.shape[1:]
    inner = (stride * (height - 1) + 1, stride * (width - 1) + 1)
    fine = resize(x[None], inner, corners=True)
    pad = (0, size[1] - inner[1], 0, size[0] - inner[0])
    return F.pad(fine, pad, mode="replicate")[0]
