"""What `anchors` remembers and where it looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vostrack import device as precision
from vostrack.errors import MethodError
from vostrack.matching.memory import FrameBank
from vostrack.methods.anchors import PAPER, AnchorsConfig, AnchorsMethod
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.labels import one_hot

GRID = (12, 20)
STRIDE = 8


def method(**changes: Any) -> AnchorsMethod:
    config = replace(PAPER, corners=False, repeat_first=False, first_radius=3, radius=3, **changes)
    return AnchorsMethod(AnchorsNet(), config)


def test_the_preset_of_the_paper_has_its_settings() -> None:
    """Araslanov et al., section 4; the radius is that of Jabri et al., appendix C."""
    assert (PAPER.stages, PAPER.stride) == ((4,), 8)
    assert (PAPER.context, PAPER.spacing, PAPER.repeat_first) == (20, 1, True)
    assert (PAPER.top_k, PAPER.temperature) == (10, 0.05)
    assert (PAPER.radius, PAPER.reach, PAPER.first_radius, PAPER.first_reach) == (12, 0, 0, 0)
    net, image = AnchorsNet().eval(), torch.rand(3, 33, 49)
    with torch.no_grad():
        found, last = AnchorsMethod(net, PAPER).encode(image), net.trunk(normalised_rgb(image)[None])[-1]
    torch.testing.assert_close(found, normalize(last, dim=1)[0])


def features(shift: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.roll(normalize(torch.randn(16, *GRID, generator=generator), dim=0), shift, 2)


def box(left: int) -> Tensor:
    pixels = torch.zeros(GRID[0] * STRIDE, GRID[1] * STRIDE, dtype=torch.uint8)
    pixels[4 * STRIDE : 8 * STRIDE, left * STRIDE : (left + 4) * STRIDE] = 1
    return one_hot(pixels, (1,))


@pytest.mark.parametrize("spacing", [1, 2, 3])
def test_the_latest_frames_of_a_bank(spacing: int) -> None:
    one = torch.ones(1, 1, 1)
    bank = FrameBank.empty(7, one, one)
    for number in range(1, 20):
        bank = bank.add(number * one, number * one)
        expected = list(range(number, max(0, number - 7), -spacing))
        latest = bank.latest(spacing)
        assert sorted(latest.used_keys.flatten().tolist(), reverse=True) == expected
        assert torch.equal(latest.used_keys, latest.used_values)
        assert bank.filled == min(number, 7)


def test_what_moved_further_than_the_radius_is_found_in_the_ring_beyond() -> None:
    near, far = method(top_k=1), method(top_k=1, reach=1.0, first_reach=1.0)
    found = []
    for chosen in (near, far):
        state = chosen.begin(features(), box(4))
        found.append(chosen.predict(state, features(6))[1] > 0.2)  # a corner's cell has a quarter
    truth = box(10)[1, ::STRIDE, ::STRIDE] > 0
    assert torch.equal(found[1] & truth, truth)
    assert not (found[0] & truth).any()


def test_bfloat16_gives_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = []
    for fast in (False, True):
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device, fast=fast: fast)
        chosen = method(precision="auto")
        state = chosen.begin(features(), box(4))
        state = chosen.remember(state, features(1), chosen.predict(state, features(1)))
        assert state.recent.keys.dtype == (torch.bfloat16 if fast else torch.float32)
        probs.append(chosen.predict(state, features(2)))
    assert probs[1].dtype == torch.float32
    torch.testing.assert_close(probs[1], probs[0], atol=0.05, rtol=0)
    assert not torch.equal(probs[1], probs[0])


def test_a_state_goes_on_in_the_precision_that_it_was_started_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    chosen = method(precision="auto")
    state = chosen.begin(features(), box(4))
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: False)
    state = chosen.begin(features(1), box(5), state)
    assert state.given.keys.dtype == state.recent.keys.dtype == torch.bfloat16
    assert chosen.predict(state, features(1)).isfinite().all()


@pytest.mark.parametrize(
    "changes", [{"spacing": 0}, {"reach": -0.1}, {"first_reach": float("nan")}, {"precision": "16"}, {"context": 0}]
)
def test_settings_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(changes))):
        AnchorsConfig(**changes)
