"""What a device computes quickly."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

PRECISIONS = ("auto", "32")
"""bfloat16 where the device is quick at it, or 32 bits everywhere."""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers itself: products then take about half the time."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def working_type(precision: str, device: torch.device) -> torch.dtype:
    """What one of `PRECISIONS` means on a device."""
    return torch.bfloat16 if precision == "auto" and has_fast_bfloat16(device) else torch.float32


def quick_convolutions(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context in which networks compute in bfloat16 where one of `PRECISIONS` and the device say so."""
    wanted = working_type(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted == torch.bfloat16)
