"""Where a run stands, on the disk: the checkpoint from which it resumes exactly, and the lines of its metrics.

Knows nothing of how the tensors in a checkpoint came about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vostrack.errors import InputError
from vostrack.files import atomic_path, output_error, shown

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from JSON, with lists for tuples."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    return values


def save_checkpoint(folder: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: of the run.
        settings: what must not change when it is resumed.
        state: tensors, numbers and nested dictionaries of them.

    Raises:
        OutputError: it could not be written.
    """
    with atomic_path(folder / CHECKPOINT) as path:
        torch.save({"settings": plain(settings), **state}, path)


def load_checkpoint(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state that `save_checkpoint` was given, on the CPU, or None where there is none. Runs no code of the file.

    Raises:
        InputError: it was made with other settings, or is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before, now = state.pop("settings"), plain(settings)
        differ = ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))
    except Exception as error:  # torch.load raises whatever a damaged file provokes
        raise unusable(folder, error) from error
    if differ:
        raise InputError(f"{shown(path)} was made with other settings ({differ}): use the same ones, or another --out")
    return state


def unusable(folder: Path, error: Exception) -> InputError:
    """What to raise where a checkpoint cannot be used."""
    path = shown(folder / CHECKPOINT)
    return InputError(f"cannot resume from {path} ({type(error).__name__}): delete it or use another --out")


def append_metrics(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the metrics; it says its "step".

    Raises:
        OutputError: it could not be written.
    """
    path = folder / METRICS
    try:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise output_error(error, path) from error


def trim_metrics(folder: Path, step: int) -> None:
    """Drop the lines of steps that a killed run made after its last checkpoint: they are made again."""
    path = folder / METRICS
    if not path.exists():
        return
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in path.read_text().splitlines() if _step(line) <= step))


def _step(line: str) -> float:
    """The step of a line; that of a line which was cut off is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
