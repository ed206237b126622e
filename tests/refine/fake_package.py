"""A pydensecrf that does as it is told: what the process of the refinement may meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class DenseCRF2D:
    def __init__(self, width: int, height: int, count: int) -> None:
        self.energies = np.zeros((count, height * width))

    def setUnaryEnergy(self, energies: np.ndarray) -> None:
        self.energies = energies

    def addPairwiseGaussian(self, **settings: object) -> None:
        pass

    def addPairwiseBilateral(self, rgbim: np.ndarray, **settings: object) -> None:
        Path(__file__).with_name("pid").write_text(str(os.getpid()))
        order = os.environ.get("FAKE_CRF", "")
        if order == "fail":
            raise ValueError("it went\nwrong")
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "hang":
            time.sleep(600)
        if order == "print":
            print("x" * 100_000)
            subprocess.run([sys.executable, "-c", "print('x' * 100_000)"], check=True)

    def inference(self, iterations: int) -> np.ndarray:
        """The channels the other way round, in the order of memory that the real one has."""
        weights = np.exp(-self.energies)[::-1]
        return np.asfortranarray(weights / weights.sum(0))
