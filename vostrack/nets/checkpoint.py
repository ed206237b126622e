"""Checkpoints of other packages: the only place that opens a `.pth`, and it takes nothing from one but tensors."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from vostrack.errors import WeightsError, damage_as
from vostrack.files import open_regular, shown

MOST_BYTES = 2 << 30
"""The largest checkpoint that is opened."""

_MOST_STRUCTURE = 4 << 20


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote of a network's `state_dict`, by name, on the CPU.

    Raises:
        WeightsError: it is missing, no such file, too large, or holds anything else.
    """

    def refusal(error: Exception) -> WeightsError:
        if isinstance(error, FileNotFoundError):
            return WeightsError(f"there are no weights at {shown(path)}: check the path")
        if isinstance(error, pickle.UnpicklingError):  # whose own text advises to trust the file
            return WeightsError(
                f"{shown(path)} is damaged, or holds more than tensors, which is not safe: get it from its authors"
            )
        short = shown(error)[:200] or type(error).__name__
        return WeightsError(
            f"{shown(path)} cannot be used ({short}): expected a file that torch.save wrote of a network's state_dict"
        )

    with damage_as(refusal):
        with open_regular(path) as file:
            _check_parts(file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensors that are refused below
                loaded = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            raise ValueError("it is not a network's tensors by name")
        for name, tensor in loaded.items():
            plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
            if not plain or tensor.is_quantized:
                raise ValueError(f"{name[:60]} is not a plain tensor")
    return dict(loaded)


def _check_parts(file: BinaryIO) -> None:
    """Raise `ValueError` where reading could take more memory than the file has bytes, or than is sensible."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed")
    if sum(part.file_size for part in parts) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 30} GiB")
    if any(part.file_size > _MOST_STRUCTURE for part in parts if part.filename.endswith(".pkl")):
        raise ValueError("its header is too large")
