"""Probabilities in eight bits: what a run keeps of a frame, and what its method goes on with.

Codes from `_SMALL` on are evenly spaced up to 1. Below, where even steps would round to nothing, codes are spaced by
powers of e: a method may still tell what it only just left out from what it removed (`matching.matcher`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_STEP, _LEAST = 5, -65
"""Logarithms of small probabilities: width of a step, and below which nothing is left. Steps end at multiples."""

_SMALL = 13
"""Codes for nothing and for what is less than half an even step."""


def to_codes(probs: Tensor) -> Tensor:
    """Probabilities in [0, 1], any shape, to uint8 codes of the same shape; 0 and 1 are exact."""
    return torch.bucketize(probs.float().contiguous(), _edges().to(probs.device), right=True).to(torch.uint8)


def from_codes(codes: Tensor) -> Tensor:
    """Probabilities float32 (K, h, w) that sum to 1 over K, from codes uint8 (K, h, w) of such."""
    probs = _values().to(codes.device)[codes.int()]
    return probs / probs.sum(0)


@cache
def _values() -> Tensor:
    """What each of the 256 codes stands for; 0 for the first."""
    small = torch.arange(_SMALL - 1, dtype=torch.float64) * _STEP + _LEAST + _STEP / 2
    even = torch.arange(1, 257 - _SMALL, dtype=torch.float64) / (256 - _SMALL)
    return torch.cat((torch.zeros(1, dtype=torch.float64), small.exp(), even)).float()


@cache
def _edges() -> Tensor:
    """The least probability of each code from 1 on."""
    small = torch.arange(_SMALL - 1, dtype=torch.float64) * _STEP + _LEAST
    even = (torch.arange(1, 257 - _SMALL, dtype=torch.float64) - 0.5) / (256 - _SMALL)
    return torch.cat((small.exp(), even)).float()
