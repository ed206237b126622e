"""`copy`: the last given mask, whatever comes."""

from __future__ import annotations

from fractions import Fraction

import torch

from vostrack.methods import load_method
from vostrack.methods.base import in_parts
from vostrack.ops.labels import one_hot
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


def test_its_state_is_a_byte_a_pixel_however_many_objects_there_are() -> None:
    ids = tuple(range(1, 255))
    pixels = torch.arange(255, dtype=torch.uint8).reshape(15, 17)
    method, image = in_parts(load_method("copy")[0]), torch.zeros(3, 15, 17)
    state = method.begin(image, one_hot(pixels, ids))
    assert state.labels.nbytes == 15 * 17
    assert torch.equal(method.predict(state, image), one_hot(pixels, ids))
