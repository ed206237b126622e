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

from vostrack.config import Config, setting
from vostrack.errors import VostrackError

_FLOOR = 1e-5  # probabilities of 0 would be infinite energies that no neighbourhood could overrule


# The lattice counts in 16 bits: on frames of 8192 pixels, narrower kernels would overflow it.
@dataclass(frozen=True)
class CrfConfig(Config):
    """Settings of the dense CRF. Widths are standard deviations; pixels are those of the picture that is refined."""

    iterations: int = setting(2, "iterations of the mean field", low=1, high=100)
    size: int = setting(480, "short side at which larger frames are refined", low=16, high=8192, unit="pixels")
    gaussian_sxy: float = setting(3.0, "width of the kernel of positions", low=1, high=1000, unit="pixels")
    gaussian_compat: float = setting(3.0, "weight of that kernel; 0 leaves it out", low=0, high=1000)
    bilateral_sxy: float = setting(
        40.0, "spatial width of the kernel of positions and colours", low=2, high=1000, unit="pixels"
    )
    bilateral_srgb: float = setting(8.0, "colour width of that kernel", low=1, high=1000, unit="levels of 255")
    bilateral_compat: float = setting(5.0, "weight of that kernel; 0 leaves it out", low=0, high=1000)


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
