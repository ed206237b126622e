"""Choosing a device, what it computes quickly, and moving a state to it."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import torch

from vostrack.errors import VostrackError, unknown_name

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


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context in which networks compute in bfloat16 where one of `PRECISIONS` and the device say so."""
    wanted = working_type(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted == torch.bfloat16)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        VostrackError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    have = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, colon, number = name.partition(":")
    if kind not in have or (colon and not number.isdecimal()):
        raise VostrackError(unknown_name("device", name, ("auto", *have)))
    if int(number or 0) >= have[kind]:
        raise VostrackError(f"device {name!r} is not available on this machine: use `device=cpu`")
    return torch.device(name)


def to_device(state: Any, device: torch.device) -> Any:
    """A state with all its tensors on a device."""
    if isinstance(state, torch.Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(to_device(item, device) for item in state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = dataclasses.fields(state)
        return dataclasses.replace(state, **{f.name: to_device(getattr(state, f.name), device) for f in fields})
    return state
