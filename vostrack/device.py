"""Choosing a device, what it computes quickly, and moving a state to it."""

from __future__ import annotations

import dataclasses
import platform
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any

import torch

from vostrack.errors import MethodError, VostrackError, unknown_name

_TYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers itself: products then take about half the time."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of a name: "auto" is "bf16" where the device is quick at it, and else "32"."""
    return name if name != "auto" else "bf16" if has_fast_bfloat16(device) else "32"


def working_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of numbers that a precision, as for `choose_precision`, means on a device."""
    return _TYPES[choose_precision(precision, device)]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context in which networks compute in that type."""
    wanted = working_type(precision, device)
    return torch.autocast(device.type, wanted, enabled=wanted != torch.float32)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        MethodError: an unknown device.
        VostrackError: one that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    have = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, colon, number = name.partition(":")
    if kind == "gpu":
        raise MethodError(f"unknown device {name!r}; did you mean 'cuda'? (choose from: {', '.join(('auto', *have))})")
    if kind not in have or (colon and not (number.isdecimal() and len(number) < 4)):
        raise MethodError(unknown_name("device", name, ("auto", *have)))
    if int(number or 0) >= have[kind]:
        raise VostrackError(f"device {name!r} is not available on this machine: use `device=cpu`")
    return torch.device(name)


@cache
def processor(device: torch.device) -> str:
    """The kind of processor that a device is: another kind may round otherwise."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    with suppress(OSError, ValueError), open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else f"{name}, {device.type}"


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
