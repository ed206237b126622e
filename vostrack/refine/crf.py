"""Dense CRF: labels move to the edges of the image, and what is too small to be believed goes.

A fully connected conditional random field over the pixels of one frame: each pair of pixels would rather have the same
label, the more so the closer they are, and the closer and the more alike in colour they are. Mean field inference by
pydensecrf2, in the extra `crf`. Knows nothing of video, and imports no torch, for it runs in a process without it.

Paper: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011).
    RPM-Net (2020) uses it in section 3.4, with two iterations (section 4.5).
Differs: RPM-Net does not give its kernels; the defaults are ours, found on sequences of DAVIS-2016's training split.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from vostrack.errors import MethodError, VostrackError

_FLOOR = 1e-5  # probabilities of 0 would be infinite energies that no neighbourhood could overrule


@dataclass(frozen=True)
class CrfConfig:
    """Settings of the dense CRF. Widths are standard deviations; pixels are those of the picture that is refined.

    Attributes:
        iterations: of the mean field, from 1 to 100.
        size: short side at which a frame is refined, in pixels, from 16 to 8192; never more than the source has, and
            never less than the method worked at.
        gaussian_sxy: width of the kernel that sees positions alone, in pixels, from 1 to 1000.
        gaussian_compat: its weight, from 0 to 1000; 0 leaves it out.
        bilateral_sxy: width in space of the kernel that sees positions and colours, in pixels, from 2 to 1000.
        bilateral_srgb: its width in colour, in levels of 255, from 1 to 1000.
        bilateral_compat: its weight, from 0 to 1000; 0 leaves it out.
    """

    iterations: int = 2
    size: int = 480
    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 40.0
    bilateral_srgb: float = 8.0
    bilateral_compat: float = 5.0

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        # The lattice counts in 16 bits: on frames of 8192 pixels, narrower kernels would overflow it.
        limits = {
            "iterations": (1, 100),
            "size": (16, 8192),
            "gaussian_sxy": (1, 1000),
            "gaussian_compat": (0, 1000),
            "bilateral_sxy": (2, 1000),
            "bilateral_srgb": (1, 1000),
            "bilateral_compat": (0, 1000),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise MethodError(f"crf: {name} must be from {least} to {most}, not {value}")


def installed() -> str:
    """Name and version of the package that does the inference.

    Raises:
        VostrackError: it is not there.
    """
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as error:
        raise VostrackError(
            f"the refinement crf needs pydensecrf2, which cannot be imported ({error}): pip install 'vostrack[crf]'"
        ) from error
    for name in ("pydensecrf2", "pydensecrf"):  # the fork and what it was forked from have the same interface
        with contextlib.suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "pydensecrf"


def infer(image: NDArray[np.uint8], probs: NDArray[np.float32], config: CrfConfig) -> NDArray[np.float32]:
    """Mean field of the dense CRF whose unary energies are the negative logarithms of probabilities.

    Args:
        image: (3, H, W), RGB.
        probs: (K, H, W), in [0, 1].
        config: settings.

    Returns:
        (K, H, W), at least 0, summing to 1 over K.

    Paper: Algorithm 1 with Potts compatibility.
    Differs: Each kernel is normalised on both sides by the square roots of its sums, as in the authors' later code, and
        sums run over a permutohedral lattice, which approximates the kernels.
    """
    from pydensecrf.densecrf import DenseCRF2D

    channels, height, width = probs.shape
    field = DenseCRF2D(width, height, channels)
    field.setUnaryEnergy(-np.log(np.maximum(probs, _FLOOR, dtype=np.float32)).reshape(channels, -1))
    if config.gaussian_compat:
        field.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    if config.bilateral_compat:
        field.addPairwiseBilateral(
            sxy=config.bilateral_sxy,
            srgb=config.bilateral_srgb,
            rgbim=image.transpose(1, 2, 0).copy(),  # it wants memory of its own, in that order
            compat=config.bilateral_compat,
        )
    # A copy, since the result lies in memory that goes with the field.
    return np.array(field.inference(config.iterations), np.float32, order="C").reshape(probs.shape)
