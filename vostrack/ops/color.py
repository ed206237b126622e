"""Colour spaces and colour augmentation as pure functions on tensors.

Source: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*, D65, 2 degrees); MAST (Lai et al., 2020), section 3.3 for the scaling
of the channels and their dropout; Zhu et al. (2020), section 4.1 for colour jitter.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows X, Y, Z of linear sRGB, each divided by the white point's X, Y, Z, so that white maps to (1, 1, 1).
_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
_KNEE = 6 / 29


def rgb_to_lab(image: Tensor) -> Tensor:
    """Convert sRGB to CIE L*a*b*.

    Args:
        image: (..., 3, H, W) in [0, 1].

    Returns:
        (..., 3, H, W): L in [0, 100], a and b in about [-128, 127].
    """
    linear = torch.where(image > 0.04045, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4, image / 12.92)
    xyz = torch.einsum("ij,...jhw->...ihw", image.new_tensor(_XYZ), linear)
    f = torch.where(xyz > _KNEE**3, xyz.clamp(min=1e-12) ** (1 / 3), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = f.unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def normalised_lab(image: Tensor) -> Tensor:
    """L*a*b* scaled to about [-1, 1]: (L - 50) / 50, a / 127, b / 127.

    Args:
        image: sRGB (..., 3, H, W) in [0, 1].

    Returns:
        (..., 3, H, W).

    Paper: MAST, section 3.3.
    """
    return scaled_lab(rgb_to_lab(image))


def scaled_lab(lab: Tensor) -> Tensor:
    """`normalised_lab` of an image in L*a*b* (..., 3, H, W), as `rgb_to_lab` gives it."""
    scale = lab.new_tensor([50.0, 127.0, 127.0]).view(3, 1, 1)
    shift = lab.new_tensor([50.0, 0.0, 0.0]).view(3, 1, 1)
    return (lab - shift) / scale


def drop_channel(lab: Tensor, channel: int) -> Tensor:
    """Set one channel to zero and scale the others by 3/2, so that the expected magnitude stays.

    Args:
        lab: (..., 3, H, W).
        channel: 0, 1 or 2.

    Returns:
        (..., 3, H, W).
    """
    keep = lab.new_full((3, 1, 1), 1.5)
    keep[channel] = 0
    return lab * keep


def jitter_lab(lab: Tensor, strengths: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of images.

    Args:
        lab: (..., 3, H, W) as `normalised_lab` gives it.
        strengths: (..., 4) for each image: factors of the brightness, of the contrast around the image's mean and of
            the saturation, 1 for none; a turn of the hue in radians, 0 for none.

    Returns:
        (..., 3, H, W); colours may lie outside of sRGB.

    Paper: Zhu et al. (2020), section 4.1, which names colour jitter without saying what it is.
    Differs: from the usual jitter of RGB values, which it is close to: in L*a*b*, where the network sees the image,
        lightness and colour are apart, and each of the four is one line.
    """
    brightness, contrast, saturation, hue = strengths[..., None, None].unbind(-3)
    lightness, a, b = lab.unbind(-3)
    lightness = (lightness + 1) * brightness - 1
    mean = lightness.mean((-2, -1), keepdim=True)
    lightness = mean + contrast * (lightness - mean)
    along, across = saturation * hue.cos(), saturation * hue.sin()
    return torch.stack((lightness, along * a - across * b, across * a + along * b), dim=-3)


_RGB_MEAN = (0.485, 0.456, 0.406)
_RGB_STD = (0.229, 0.224, 0.225)


def normalised_rgb(image: Tensor) -> Tensor:
    """RGB shifted and scaled to zero mean and unit variance over natural images (the usual constants).

    Args:
        image: (..., 3, H, W) in [0, 1].
    """
    mean = image.new_tensor(_RGB_MEAN).view(3, 1, 1)
    return (image - mean) / image.new_tensor(_RGB_STD).view(3, 1, 1)
