"""Scores of the objects of a sequence, frame by frame, and their means; one pair of masks is in memory at a time.

`score_sequence` follows the rules of any dataset: which frames count, and objects that appear later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, read_mask
from vostrack.benchmark.metrics import contour, jumpcut_error, region, statistics
from vostrack.errors import DatasetError
from vostrack.files import shown


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Scores of one object in one sequence.

    Attributes:
        sequence: name of the sequence.
        object_id: id in the ground truth; 1 in JumpCut, where all of the foreground counts.
        values: J_mean, J_recall, J_decay, F_mean, F_recall and F_decay, in this order, or the error rate.
        curves: values of single frames: "frames", which are their names, and "J" and "F", or "error".
    """

    sequence: str
    object_id: int
    values: Mapping[str, float]
    curves: Mapping[str, list[Any]]

    @property
    def name(self) -> str:
        """The official tables' name of an object, "dog_1"."""
        return f"{self.sequence}_{self.object_id}"

    @property
    def frames(self) -> int:
        """How many frames were scored."""
        return len(self.curves["frames"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, without those of single frames."""
        about = {"object": self.name, "sequence": self.sequence, "id": self.object_id, "frames": self.frames}
        return about | finite(self.values)


def score_sequence(sequence: Sequence, folder: Path, jump: bool = False) -> list[ObjectScore]:
    """Score masks.

    Args:
        sequence: with its truths.
        folder: holds FRAME.png for all frames that count.
        jump: score as JumpCut does.

    Returns:
        Scores of each object that counts in at least one frame.

    Raises:
        DatasetError: a mask is missing, damaged, or of another size than the truth.
    """
    frames = _read_frames(sequence, folder)
    return _jump_scores(sequence.name, frames) if jump else score_frames(sequence.name, frames)


def score_frames(
    sequence: str, frames: Iterable[tuple[str, Iterable[int], Labels, Labels]], official_decay: bool = False
) -> list[ObjectScore]:
    """J and F of all objects, in order of their ids.

    Args:
        sequence: its name.
        frames: of each its name, the objects that count in it, and two label maps, uint8 (H, W): result and truth.
        official_decay: see `statistics`.
    """
    found: dict[int, dict[str, list[Any]]] = {}
    for frame, ids, result, truth in frames:
        for number in ids:
            curves = found.setdefault(number, {"frames": [], "J": [], "F": []})
            masks = result == number, truth == number
            for key, value in (("frames", frame), ("J", region(*masks)), ("F", contour(*masks))):
                curves[key].append(value)
    scores = []
    for number, curves in sorted(found.items()):
        stats = {letter: asdict(statistics(curves[letter], official_decay)) for letter in "JF"}
        values = {f"{letter}_{key}": value for letter in "JF" for key, value in stats[letter].items()}
        scores.append(ObjectScore(sequence, number, values, curves))
    return scores


def totals(scores: Iterable[ObjectScore]) -> dict[str, float]:
    """Means of all values over objects (not over sequences), led by J&F where there are J and F; not rounded."""
    values = [score.values for score in scores]
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


def _read_frames(sequence: Sequence, folder: Path) -> Iterator[tuple[str, list[int], Labels, Labels]]:
    """The frames that count, for `score_frames`. An object counts behind the frame where it is given."""
    given = _given_objects(sequence) if sequence.scored else {}
    counting = [number for number, frame in given.items() if frame not in sequence.scored]
    for frame in sequence.scored:
        result = read_mask(folder / f"{frame}.png")
        truth = read_labels(sequence.truths[frame], sequence.masks)
        if result.shape != truth.shape:
            where = shown(f"{sequence.name}, frame {frame}")
            raise DatasetError(f"{where}: result is {result.shape}, ground truth {truth.shape} (height, width)")
        yield frame, counting, result, truth
        counting += [number for number, first in given.items() if first == frame]


def _given_objects(sequence: Sequence) -> dict[int, str]:
    """Ids of a sequence's objects with the frame where each is given, which is where it first appears."""
    starts: dict[int, str] = {}
    for part in sequence.parts:
        for frame, files in part.prompts.items():
            for number in np.unique(read_labels(files, sequence.masks)):
                starts.setdefault(int(number), frame)
    starts.pop(0, None)
    return starts


def _jump_scores(sequence: str, frames: Iterable[tuple[str, Iterable[int], Labels, Labels]]) -> list[ObjectScore]:
    curves: dict[str, list[Any]] = {"frames": [], "error": []}
    for frame, _, result, truth in frames:
        try:
            curves["error"].append(jumpcut_error(result, truth))
        except ValueError as error:
            raise DatasetError(f"{shown(sequence)}, frame {frame}: {error}") from error
        curves["frames"].append(frame)
    return [ObjectScore(sequence, 1, {"error": float(np.mean(curves["error"]))}, curves)] if curves["frames"] else []
