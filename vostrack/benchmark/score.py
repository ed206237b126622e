"""Scores of objects, frame by frame, and their means; one pair of masks is in memory at a time.

`score_sequence` follows the rules of any dataset: which frames count, and objects that appear later. `score_folders`
scores folders of `SEQUENCE/FRAME.png` as the official DAVIS evaluation does: the first and the last frame of a sequence
are never scored; the truth of the first one says which objects there are. Knows nothing about methods, videos or torch.
Source: davis2017-evaluation (ac7c43f), semi-supervised task.

Differs:
    - An id below the highest one of the first frame that no scored frame and not the first one holds, in truth or
      result, is no object; the official code would give it full marks. In DAVIS ids have no gaps.
    - 0/255 masks are read: 255 is object 1 all through a sequence whose first truth holds nothing but 0 and 255, and in
      a result for a sequence of one object. Elsewhere 255 is void in a truth, which scores as background, and an error
      in a result.
    - What is missing or does not fit is an error; the official code ends with exit code 0. Results are never cached.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets import layouts
from vostrack.benchmark.datasets.mask_folders import Labels, list_folder, list_frames, named, read_mask
from vostrack.benchmark.metrics import contour, is_binary, jumpcut_error, object_labels, region, statistics
from vostrack.benchmark.pool import Progress, run_all
from vostrack.errors import DatasetError, unknown_name
from vostrack.files import shown

FramePair = tuple[str, Iterable[int], Labels, Labels]
"""A frame: its name, the objects that count in it, and two label maps, uint8 (H, W): result and truth."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Scores of one object in one sequence.

    Attributes:
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


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a set of sequences.

    Attributes:
        objects: all objects, in order of sequence and id; at least one.
        official_decay: decay was computed with the official code's overflow above 256 frames.
    """

    objects: tuple[ObjectScore, ...]
    official_decay: bool = False

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return len({score.sequence for score in self.objects})

    def total(self) -> dict[str, float]:
        """J&F and the means of all values over the objects (not over the sequences), without rounding."""
        return totals(self.objects)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; what is not a number becomes null."""
        return {
            "format": "vostrack-scores-1",
            "official_decay": self.official_decay,
            "sequences": self.sequences,
            "total": finite(self.total()),
            "objects": [score.to_json() for score in self.objects],
        }


def score_sequence(sequence: layouts.Sequence, folder: Path, jump: bool = False) -> list[ObjectScore]:
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


def score_frames(sequence: str, frames: Iterable[FramePair], official_decay: bool = False) -> list[ObjectScore]:
    """J and F of all objects, in order of their ids; see `statistics` for the decay."""
    found: dict[int, dict[str, list[Any]]] = {}
    for frame, ids, result, truth in frames:
        for number in ids:
            curves = found.setdefault(number, {"frames": [], "J": [], "F": []})
            masks = result == number, truth == number
            for key, value in (("frames", frame), ("J", region(*masks)), ("F", contour(*masks))):
                curves[key].append(value)
    scores = []
    for number, curves in sorted(found.items()):
        stats = {letter: statistics(curves[letter], official_decay) for letter in "JF"}
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


def score_folders(
    results: Path,
    ground_truth: Path,
    *,
    sequences: Sequence[str] | None = None,
    jobs: int = 1,
    official_decay: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Score all sequences of a folder.

    Args:
        results: folder of `SEQUENCE/FRAME.png`. The first and last frame of a sequence are not read; files that the
            ground truth does not have are ignored.
        ground_truth: folder of `SEQUENCE/FRAME.png`; its frames may be sparse.
        sequences: which to score, in this order; all of the ground truth, by name, if not given.
        jobs: number of processes. They are spawned: with more than one, call this under `if __name__ == "__main__"`.
        official_decay: see `statistics`.
        progress: called after each sequence with the number of sequences done, and that of all.

    Raises:
        DatasetError: both folders are the same, or something in them is missing, damaged or does not fit.
        VostrackError: a process died.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    frames = _check_layout(results, ground_truth, sequences)
    tasks = [
        partial(score_folder, name, results / name, ground_truth / name, files, official_decay)
        for name, files in frames.items()
    ]
    scores = run_all(tasks, jobs, progress or (lambda done, total: None))
    return Scores(tuple(chain.from_iterable(scores)), official_decay)


def score_folder(
    sequence: str, results: Path, truth: Path, files: Sequence[str], official_decay: bool = False
) -> list[ObjectScore]:
    """Score the folders of one sequence, as `score_folders` does; `files` are the names of three or more, in order."""
    pairs = ((Path(file).stem, read_mask(results / file), read_mask(truth / file)) for file in files[1:-1])
    return score_masks(sequence, read_mask(truth / files[0]), pairs, official_decay)


def score_masks(
    sequence: str, first: Labels, pairs: Iterable[tuple[str, Labels, Labels]], official_decay: bool = False
) -> list[ObjectScore]:
    """Score one sequence of label maps, uint8 (H, W).

    Args:
        sequence: its name.
        first: ground truth of its first frame.
        pairs: of each scored frame its name, result and ground truth. The first and the last frame are none of them.
        official_decay: see `statistics`.

    Raises:
        DatasetError: the first truth has no object, or a pair does not fit.
    """
    binary = is_binary(first)
    labels = object_labels(first, binary)
    objects = range(1, int(labels.max(initial=0)) + 1)
    if not objects:
        raise DatasetError(f"{shown(sequence)}: no object in the ground truth of the first frame")
    seen = set(np.unique(labels).tolist())

    def checked() -> Iterator[FramePair]:
        for frame, result, truth in pairs:
            where = shown(f"{sequence}, frame {frame}")
            if result.shape != truth.shape:
                raise DatasetError(f"{where}: result is {result.shape}, ground truth {truth.shape} (height, width)")
            if binary and truth.any() and not is_binary(truth):
                raise DatasetError(f"{where}: expected only 0 and 255 in the ground truth, as in its first frame")
            wanted = object_labels(truth, binary)
            found = object_labels(result, binary=True) if len(objects) == 1 and is_binary(result) else result
            if (highest := int(found.max(initial=0))) > len(objects):
                raise DatasetError(f"{where}: result has object {highest}, the first ground truth {len(objects)}")
            seen.update(np.unique(wanted).tolist(), np.unique(found).tolist())
            yield frame, objects, found, wanted

    return [score for score in score_frames(sequence, checked(), official_decay) if score.object_id in seen]


def _check_layout(results: Path, truth: Path, sequences: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Files of each sequence; checks both folders, so that a gap shows before hours of work rather than after them."""
    known = [name for name in list_folder(truth) if list_frames(truth / name)]
    if not known:
        raise DatasetError(f"no ground truth in {shown(truth)}: expected folders of PNG files, SEQUENCE/00000.png")
    chosen = list(dict.fromkeys(known if sequences is None else sequences))
    for name in chosen:
        if name not in known:
            raise DatasetError(unknown_name("sequence", name, known))
    present = set(list_folder(results))
    if missing := [name for name in chosen if name not in present]:
        raise DatasetError(f"{shown(results)} lacks {named(missing)} of {len(chosen)} sequences")
    for folder, other in [(results, truth), *((results / name, truth / name) for name in chosen)]:
        if os.path.samefile(folder, other):
            raise DatasetError(f"results and ground truth are the same folder, {shown(folder.resolve())}")
    frames = {name: list_frames(truth / name) for name in chosen}
    for name, files in frames.items():
        if len(files) < 3:
            raise DatasetError(f"{shown(name)}: expected 3 frames or more (two are not scored), found {len(files)}")
        present = set(list_folder(results / name))
        if missing := [file for file in files[1:-1] if file not in present]:
            raise DatasetError(f"{shown(results / name)} lacks {named(missing)} of {len(files) - 2} scored frames")
    return frames


def _read_frames(sequence: layouts.Sequence, folder: Path) -> Iterator[FramePair]:
    """The frames that count, for `score_frames`. An object counts behind the frame where it is given."""
    given = _given_objects(sequence) if sequence.scored else {}
    counting = [number for number, frame in given.items() if frame not in sequence.scored]
    for frame in sequence.scored:
        result = read_mask(folder / f"{frame}.png")
        truth = layouts.read_labels(sequence.truths[frame], sequence.masks)
        if result.shape != truth.shape:
            where = shown(f"{sequence.name}, frame {frame}")
            raise DatasetError(f"{where}: result is {result.shape}, ground truth {truth.shape} (height, width)")
        yield frame, counting, result, truth
        counting += [number for number, first in given.items() if first == frame]


def _given_objects(sequence: layouts.Sequence) -> dict[int, str]:
    """Ids of a sequence's objects with the frame where each is given, which is where it first appears."""
    starts: dict[int, str] = {}
    for part in sequence.parts:
        for frame, files in part.prompts.items():
            for number in np.unique(layouts.read_labels(files, sequence.masks)):
                starts.setdefault(int(number), frame)
    starts.pop(0, None)
    return starts


def _jump_scores(sequence: str, frames: Iterable[FramePair]) -> list[ObjectScore]:
    curves: dict[str, list[Any]] = {"frames": [], "error": []}
    for frame, _, result, truth in frames:
        try:
            curves["error"].append(jumpcut_error(result, truth))
        except ValueError as error:
            raise DatasetError(f"{shown(sequence)}, frame {frame}: {error}") from error
        curves["frames"].append(frame)
    return [ObjectScore(sequence, 1, {"error": float(np.mean(curves["error"]))}, curves)] if curves["frames"] else []
