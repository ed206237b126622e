"""The plain reference of the speed comparison gives the same labels as the fast propagation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vostrack.benchmark.speed import compare
from vostrack.methods.anchors import PAPER, AnchorsConfig

CLOSE = replace(AnchorsConfig(), axes=0, radius=3, reach=0.35, first_radius=5, first_reach=0.6, precision="32")


@pytest.mark.parametrize(("config", "size"), [(PAPER, (96, 120)), (CLOSE, (96, 120)), (CLOSE, (372, 380))])
def test_both_ways_give_the_same_labels(config: AnchorsConfig, size: tuple[int, int]) -> None:
    result = compare(config, channels=16, size=size, repeats=1, device=torch.device("cpu"))
    assert result.equal == 1.0
    assert result.frames == config.context + 1
    assert result.ratio > 0
