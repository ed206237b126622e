"""Dense CRF: labels move to the edges of the image, and what is too small to be believed goes.

A fully connected conditional random field over the pixels of one frame: each pair of pixels would rather have the same
label, the more so the closer they are, and the closer and the more alike in colour they are. Mean field inference by
pydensecrf2, in the extra `crf`. Knows nothing of video.

pydensecrf holds the interpreter's lock while it works: in a thread it would stop the model. So it gets an interpreter
of its own, which is fed raw arrays through its stdin and answers through its stdout; nothing is pickled. Unlike a
process of `multiprocessing` it does not import the caller's main module, so callers need no guard against that. It ends
when its stdin does, so that it outlives neither a run that fails nor one that is killed. It imports no torch.

Paper: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011).
    RPM-Net (2020) uses it in section 3.4, with two iterations (section 4.5).
Differs: RPM-Net gives neither its kernels nor its unary energies; the defaults are ours, found on sequences of
    DAVIS-2016's training split. Of hard labels the method's probabilities leave nothing to refine: `certainty` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from vostrack.config import Config, setting
from vostrack.errors import VostrackError

_SHAPE = struct.Struct("<3I")  # K, H, W
_START = (
    "import json, sys; sys.path[:], config = json.loads(sys.argv[1]);"
    "from vostrack.refine.crf import serve; serve(config)"
)


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
    certainty: float = setting(
        1.0,
        "share of each probability that is believed; below 1, sure labels can be overruled",
        above=0,
        high=1,
    )
    feedback: bool = setting(False, "the method goes on with the refined masks")


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

    Paper: Algorithm 1 with Potts compatibility. With a `certainty` below 1, hard labels have the unary energies that
        they have in the authors' example code: certainty for the label, the rest in equal parts for the others.
    Differs: Each kernel is normalised on both sides by the square roots of its sums, as in the authors' later code, and
        sums run over a permutohedral lattice, which approximates the kernels.
    """
    from pydensecrf.densecrf import DenseCRF2D

    count, height, width = probs.shape
    if config.certainty < 1 < count:
        probs = config.certainty * probs + np.float32((1 - config.certainty) / (count - 1)) * (1 - probs)
    field = DenseCRF2D(width, height, count)
    # Probabilities of 0 would be infinite energies that no neighbourhood could overrule.
    field.setUnaryEnergy(-np.log(np.maximum(probs, 1e-5, dtype=np.float32)).reshape(count, -1))
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


class CrfRefiner:
    """The dense CRF in a process of its own; a `Refiner`."""

    def __init__(self, config: CrfConfig) -> None:
        """Take the settings; raises `VostrackError` where pydensecrf is missing."""
        self.config = config
        self._package = installed()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """Short side at which it works, in pixels."""
        return self.config.size

    @property
    def feedback(self) -> bool:
        """Whether the method goes on with the refined masks."""
        return self.config.feedback

    def record(self) -> dict[str, Any]:
        """Name, package and settings."""
        return {"name": "crf", "package": self._package, **asdict(self.config)}

    def refine(self, image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Let the process infer one frame, and wait for it; see `infer`."""
        process = self._process
        assert process is not None, "enter the refiner first"
        assert process.stdin is not None
        assert process.stdout is not None
        if image.shape != (3, *probs.shape[1:]):  # the process would wait for the rest for ever
            raise ValueError(f"an image of shape {image.shape} does not fit probabilities of shape {probs.shape}")
        refined = np.empty(probs.shape, np.float32)
        try:
            process.stdin.write(_SHAPE.pack(*probs.shape))
            process.stdin.write(np.ascontiguousarray(image, np.uint8).data)
            process.stdin.write(np.ascontiguousarray(probs, np.float32).data)
            process.stdin.flush()
            if process.stdout.readinto(refined.data.cast("B")) < refined.nbytes:  # type: ignore[attr-defined]
                raise EOFError
        except (OSError, EOFError) as error:
            raise self._failure(process) from error
        return refined

    def _failure(self, process: subprocess.Popen[bytes]) -> VostrackError:
        """Why the process ended, in its own last words."""
        code = process.wait()
        assert self._said is not None
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"its process ended with code {code}"
        return VostrackError(f"the refinement crf failed ({reason}); if memory is short, lower its size or `size`")

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        # -P: no file of the current folder can pass for a module before the path is ours. A session of its own, so that
        # Ctrl-C reaches the caller alone, who may want the frame at hand.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps([[str(path) for path in sys.path], asdict(self.config)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not sent yet has no reader any more
                    if pipe is not None:
                        pipe.close()
            process.wait()
        if self._said is not None:
            self._said.close()


def serve(settings: dict[str, Any]) -> None:
    """In the process: infer what comes, until nothing comes any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the caller decides
    config = CrfConfig(**settings)
    source = sys.stdin.buffer
    # What a library prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while header := source.read(_SHAPE.size):
        count, height, width = _SHAPE.unpack(header)
        image = np.frombuffer(source.read(3 * height * width), np.uint8).reshape(3, height, width)
        probs = np.frombuffer(source.read(4 * count * height * width), np.float32).reshape(count, height, width)
        answers.write(infer(image, probs, config).data)
        answers.flush()
