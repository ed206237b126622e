"""`copy`: the last given mask, whatever comes."""

from __future__ import annotations

from fractions import Fraction

import torch

from vostrack.methods import load_method
from vostrack.propagate import Propagator
from vostrack.types import Clip, Frame, LabelMap


def test_every_frame_gets_the_last_mask_that_was_given() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = [
        Frame(i, Fraction(i), torch.randint(0, 256, (3, 17, 23), generator=generator, dtype=torch.uint8), f"{i:05d}")
        for i in range(5)
    ]
    first, later = (torch.zeros(17, 23, dtype=torch.uint8) for _ in range(2))
    first[2:9, 3:11], later[10:15, 12:20] = 7, 3
    prompts = {0: LabelMap(first, (7,)), 3: LabelMap(later, (3,))}
    found = [p.labels.pixels for p in Propagator(load_method("copy")[0], None).run(Clip(frames, prompts))]
    for pixels in found[:3]:
        assert torch.equal(pixels, first)
    for pixels in found[3:]:
        assert torch.equal(pixels, first + later)
