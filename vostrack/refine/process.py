"""The process in which the dense CRF runs, from both ends.

pydensecrf holds the interpreter's lock while it works: in a thread it would stop the model. So it gets an interpreter
of its own, which is fed raw arrays through its stdin and answers through its stdout; nothing is pickled. Unlike a
process of `multiprocessing` it does not import the caller's main module, so callers need no guard against that. It ends
when its stdin does, so that it outlives neither a run that fails nor one that is killed.
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
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from vostrack.errors import VostrackError
from vostrack.refine.crf import CrfConfig, infer, installed

_SHAPE = struct.Struct("<3I")  # K, H, W
_START = (
    "import json, sys; sys.path[:], config = json.loads(sys.argv[1]);"
    "from vostrack.refine.process import serve; serve(config)"
)


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
        return VostrackError(f"the refinement crf failed ({reason}); if memory is short, lower its size or --size")

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        channels, height, width = _SHAPE.unpack(header)
        image = np.frombuffer(source.read(3 * height * width), np.uint8).reshape(3, height, width)
        probs = np.frombuffer(source.read(4 * channels * height * width), np.float32).reshape(channels, height, width)
        answers.write(infer(image, probs, config).data)
        answers.flush()
