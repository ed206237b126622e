"""The plain reference of the speed comparison gives the same labels as the fast propagation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vostrack.benchmark.dense import compare
from vostrack.methods.anchors import PAPER, AnchorsConfig

CLOSE = replace(AnchorsConfig(), axes=0, radius=3, reach=0.35, first_radius=5, first_reach=0.6, precision="32")
COARSE = replace(CLOSE, context=1)
# 90 rows of cells are the fewest of which every second one is searched in the distance.
LARGE = pytest.param(COARSE, (360, 360), marks=pytest.mark.slow)


@pytest.mark.parametrize(("config", "size"), [(PAPER, (96, 120)), (CLOSE, (96, 120)), LARGE])
def test_both_ways_give_the_same_labels(config: AnchorsConfig, size: tuple[int, int]) -> None:
    result = compare(config, channels=16, size=size, repeats=1, device=torch.device("cpu"))
    assert result.equal == 1.0
    assert result.frames == config.context + 1
    assert result.ratio > 0
