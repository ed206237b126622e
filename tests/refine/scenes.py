"""A small scene with noisy labels, and what its tests need installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

needs_package = pytest.mark.needs("pydensecrf", "crf")


def scene(seed: int = 0, noise: float = 0.25) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Three areas of different colours; image, probabilities of noisy labels, true labels."""
    random = np.random.default_rng(seed)
    true = np.zeros((11, 13), np.int64)
    true[:, 7:] = 1
    true[6:, 9:] = 2
    colors = np.array([[60, 60, 60], [200, 90, 120], [90, 180, 60]])
    image = colors[true].transpose(2, 0, 1) + random.integers(-8, 9, (3, *true.shape))
    said = np.where(random.random(true.shape) < noise, random.integers(0, 3, true.shape), true)
    return image.astype(np.uint8), soft(said, 3, 0.6), true


def soft(labels: NDArray[Any], count: int, certainty: float) -> NDArray[np.float32]:
    """Probabilities that give a label a certainty and share the rest."""
    rest = (1 - certainty) / (count - 1)
    return np.stack([np.where(labels == k, certainty, rest) for k in range(count)]).astype(np.float32)
