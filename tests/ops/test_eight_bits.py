from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vostrack.ops.eight_bits import from_codes, to_codes
from vostrack.ops.matching import fuse, unfuse


def test_every_code_comes_back_and_they_rise() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    other = torch.full_like(codes, 255)
    values = from_codes(torch.stack((codes, other))[:, None])[0, 0]
    assert values[0] == 0
    assert values[-1] == 0.5
    assert (values.diff() > 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_probabilities_are_kept_to_a_two_hundredth_and_sum_to_one(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = (6 * torch.randn(count, 7, 5, generator=generator)).softmax(0)
    kept = from_codes(to_codes(probs))
    torch.testing.assert_close(kept.sum(0), torch.ones(7, 5))
    assert (kept - probs).abs().max() < count / 200
    assert ((probs == 0) | (probs == 1) | (kept > 0)).all(), "what is possible stays so"


def test_what_is_sure_stays_exact() -> None:
    hard = torch.eye(3)[:, torch.tensor([[0, 1], [2, 2]])]
    assert torch.equal(from_codes(to_codes(hard)), hard)


def test_what_was_removed_is_told_from_what_was_not_there() -> None:
    log_odds = torch.tensor([[[-60.0, -41.0, -39.5, -21.0, -19.0, 0.0, 19.0]]])
    kept = unfuse(from_codes(to_codes(fuse(log_odds, 0.5))), 0.5)
    assert ((kept >= -40) == (log_odds >= -40)).all()
    assert ((kept >= -20) == (log_odds >= -20)).all()
