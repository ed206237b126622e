"""Guided filtering: label probabilities that follow the edges of an image.

Letters: H, W pixels, K label channels, r radius in pixels.
Source: He, Sun, Tang, "Guided Image Filtering" (TPAMI 2013), Algorithm 1, with the luminance as the guide.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

_LUMINANCE = (0.299, 0.587, 0.114)  # of gamma-encoded RGB, ITU-R BT.601

_NOWHERE = 1e-3
"""Probability below which no label but the background's can come to be seen for all that filtering does."""


def guided_where_doubtful(probs: Tensor, image: Tensor, radius: int, epsilon: float) -> Tensor:
    """As `guided`, in the smallest rectangle outside of which all is background; elsewhere nothing is changed.

    Args:
        probs: (K, H, W), at least 0, summing to 1 over K; channel 0 is the background.
        image, radius, epsilon: as for `guided`.

    Returns:
        (K, H, W).
    """
    doubtful = probs[0] < 1 - _NOWHERE
    if not doubtful.any():
        return probs
    # Means over squares of means over squares: an object reaches two radii far, and so does the border of a rectangle.
    rows, columns = (_reach(doubtful.any(dim), 4 * radius) for dim in (1, 0))
    out = probs.clone()
    inner = (slice(None), rows, columns)
    out[inner] = guided(probs[inner], image[inner], radius, epsilon)
    return out


def _reach(there: Tensor, margin: int) -> slice:
    """From the first to the last place that is true, and some more."""
    places = there.nonzero()
    return slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1)


def guided(probs: Tensor, image: Tensor, radius: int, epsilon: float) -> Tensor:
    """Label probabilities that follow the edges of an image: locally each is a linear function of the luminance.

    Args:
        probs: (K, H, W), at least 0, summing to 1 over K.
        image: (3, H, W) in [0, 1].
        radius: r, half the side of the squares in which the functions are fitted.
        epsilon: variance of the luminance below which a square counts as flat; there the result is a mean.

    Returns:
        (K, H, W), at least 0, summing to 1 over K.

    Paper: He et al., Eq. 5, 6 and 8.
    """
    slope, offset = guided_fit(probs, image, radius, epsilon)
    # Sums over K are kept, for all that is done is linear in probs; values below 0 are not excluded.
    out = (slope * luminance(image) + offset).clamp(min=0)
    return out / out.sum(0, keepdim=True)


def guided_fit(probs: Tensor, image: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Slope and offset (K, H, W) of the functions of the luminance, for arguments of `guided`: means of all squares."""
    guide = luminance(image)[None]
    mean, mean_probs = _box(guide, radius), _box(probs, radius)
    variance = (_box(guide.square(), radius) - mean.square()).clamp(min=0)
    slope = (_box(guide * probs, radius) - mean * mean_probs) / (variance + epsilon)
    offset = mean_probs - slope * mean
    return _box(slope, radius), _box(offset, radius)


def luminance(image: Tensor) -> Tensor:
    """Luminance (H, W) of an image (3, H, W)."""
    return torch.einsum("chw,c->hw", image, image.new_tensor(_LUMINANCE))


def _box(x: Tensor, radius: int) -> Tensor:
    """Means over squares of 2r + 1, of what lies inside the image (any, H, W)."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _line_means(_line_means(x, radius, -2), radius, -1)
    side = 2 * radius + 1
    columns = avg_pool2d(x[None], (side, 1), 1, (radius, 0), count_include_pad=False)
    return avg_pool2d(columns, (1, side), 1, (0, radius), count_include_pad=False)[0]


def _line_means(x: Tensor, radius: int, dim: int) -> Tensor:
    """Means over lines of 2r + 1 of what lies inside: the same bits as those of pooling, in a fourth of its time."""
    length = x.shape[dim]
    sums, counts = torch.zeros_like(x), x.new_zeros(length)
    for shift in range(-min(radius, length - 1), min(radius, length - 1) + 1):
        to, size = max(0, -shift), length - abs(shift)
        sums.narrow(dim, to, size).add_(x.narrow(dim, to + shift, size))
        counts.narrow(0, to, size).add_(1)
    return sums.div_(counts[:, None] if dim == -2 else counts)
