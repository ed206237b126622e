"""Scores of one sequence of a dataset, from masks on the disk; one pair of masks is in memory at a time.

As `score`, but for every protocol: frames that count and objects that appear later are the dataset's business here,
and the values of single frames are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, read_mask
from vostrack.benchmark.metrics import contour, jumpcut_error, region, statistics
from vostrack.errors import DatasetError
from vostrack.files import shown


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one object in one sequence.

    Attributes:
        sequence: name of the sequence.
        object_id: id of the object; 1 in JumpCut, where all of the foreground counts.
        frames: number of scored frames.
        values: means and other statistics by name.
        curves: values of single frames: "frames", and "J", "F" or "error".
    """

    sequence: str
    object_id: int
    frames: int
    values: Mapping[str, float]
    curves: Mapping[str, list[Any]]

    @property
    def main(self) -> float:
        """The one figure for it: the mean of J and F, or the error rate."""
        return main_value(self.values)


@dataclass(slots=True)
class _Series:
    start: int
    frames: list[str] = field(default_factory=list)
    region: list[float] = field(default_factory=list)
    contour: list[float] = field(default_factory=list)


def given_objects(sequence: Sequence) -> dict[int, str]:
    """Ids of a sequence's objects, ascending, with the frame where each is given, which is where it first appears."""
    starts: dict[int, str] = {}
    for part in sequence.parts:
        for frame, files in part.prompts.items():
            for number in np.unique(read_labels(files, sequence.masks)):
                starts.setdefault(int(number), frame)
    starts.pop(0, None)
    return dict(sorted(starts.items()))


def score_sequence(sequence: Sequence, folder: Path, jump: bool = False) -> list[Row]:
    """Score masks.

    Args:
        sequence: with its truths.
        folder: holds FRAME.png for all frames that count.
        jump: score as JumpCut does.

    Returns:
        A row for each object that counts in at least one frame.

    Raises:
        DatasetError: a mask is missing, damaged, or of another size than the truth.
    """
    if not sequence.scored:
        return []
    if jump:
        return [_jump_row(sequence, folder)]
    order = {frame: position for position, frame in enumerate([*_before(sequence), *sequence.scored])}
    series = {number: _Series(order.get(frame, -1)) for number, frame in given_objects(sequence).items()}
    for frame in sequence.scored:
        found, wanted = _pair(sequence, folder, frame)
        for number, values in series.items():
            if order[frame] > values.start:
                masks = found == number, wanted == number
                values.frames.append(frame)
                values.region.append(region(*masks))
                values.contour.append(contour(*masks))
    return [_row(sequence.name, number, values) for number, values in series.items() if values.frames]


def totals(rows: Iterable[Row]) -> dict[str, float]:
    """Means of all values over objects (not over sequences), led by J&F where there are J and F."""
    values = [row.values for row in rows]
    if not values:
        return {}
    means = {key: float(np.mean([row[key] for row in values])) for key in values[0]}
    return {"J&F": main_value(means), **means} if "J_mean" in means else means


def main_value(values: Mapping[str, float]) -> float:
    """The mean of J and F, or the error rate."""
    return (values["J_mean"] + values["F_mean"]) / 2 if "J_mean" in values else values["error"]


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values for JSON, in which what is not a number is null."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _before(sequence: Sequence) -> list[str]:
    """Frames with given masks that are not scored, which lie before those that are."""
    return [frame for part in sequence.parts for frame in part.prompts if frame not in sequence.scored]


def _pair(sequence: Sequence, folder: Path, frame: str) -> tuple[Labels, Labels]:
    found = read_mask(folder / f"{frame}.png")
    wanted = read_labels(sequence.truths[frame], sequence.masks)
    if found.shape != wanted.shape:
        raise DatasetError(
            f"{shown(sequence.name)}, frame {frame}: result is {found.shape}, ground truth {wanted.shape} (H, W)"
        )
    return found, wanted


def _row(sequence: str, number: int, series: _Series) -> Row:
    values = {
        f"{letter}_{key}": value
        for letter, scores in (("J", series.region), ("F", series.contour))
        for key, value in asdict(statistics(scores)).items()
    }
    curves: dict[str, list[Any]] = {"frames": series.frames, "J": series.region, "F": series.contour}
    return Row(sequence, number, len(series.frames), values, curves)


def _jump_row(sequence: Sequence, folder: Path) -> Row:
    errors = []
    for frame in sequence.scored:
        found, wanted = _pair(sequence, folder, frame)
        try:
            errors.append(jumpcut_error([found > 0], [wanted > 0]))
        except ValueError as error:
            raise DatasetError(f"{shown(sequence.name)}, frame {frame}: {error}") from error
    curves: dict[str, list[Any]] = {"frames": list(sequence.scored), "error": errors}
    return Row(sequence.name, 1, len(errors), {"error": float(np.mean(errors))}, curves)
