"""Score folders of masks against folders of ground truth, as the official DAVIS evaluation does.

Both folders hold `SEQUENCE/FRAME.png`. The first and the last frame of a sequence are never scored; the truth of the
first one says which objects there are. One pair of masks is in memory at a time, whatever the length of a sequence.
Knows nothing about methods, videos or torch. Source: davis2017-evaluation (ac7c43f), semi-supervised task.

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
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets.mask_folders import Labels, list_folder, list_frames, read_mask
from vostrack.benchmark.metrics import Statistics, contour, is_binary, object_labels, region, statistics
from vostrack.errors import DatasetError, VostrackError, unknown_name
from vostrack.files import shown

Progress = Callable[[str, int, int], None]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Scores of one object in one sequence.

    Attributes:
        sequence: name of the sequence.
        object_id: id in the ground truth.
        frames: number of scored frames.
        region: statistics of J.
        contour: statistics of F.
    """

    sequence: str
    object_id: int
    frames: int
    region: Statistics
    contour: Statistics

    @property
    def name(self) -> str:
        """The official tables' name of an object, "dog_1"."""
        return f"{self.sequence}_{self.object_id}"

    def values(self) -> dict[str, float]:
        """J_mean, J_recall, J_decay, F_mean, F_recall and F_decay, in this order."""
        pairs = (("J", self.region), ("F", self.contour))
        return {f"{letter}_{key}": value for letter, stats in pairs for key, value in asdict(stats).items()}


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a set of sequences.

    Attributes:
        objects: all objects, in order of sequence and id; at least one.
        official_decay: decay was computed with the official code's overflow above 256 frames.
    """

    objects: tuple[ObjectScore, ...]
    official_decay: bool = False

    def total(self) -> dict[str, float]:
        """J&F and the means of all values over the objects (not over the sequences), without rounding."""
        rows = [score.values() for score in self.objects]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return {"J&F": (means["J_mean"] + means["F_mean"]) / 2, **means}

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; what is not a number becomes null."""
        objects = [
            {"object": score.name, "sequence": score.sequence, "id": score.object_id, "frames": score.frames}
            | _finite(score.values())
            for score in self.objects
        ]
        return {
            "format": "vostrack-scores-1",
            "official_decay": self.official_decay,
            "sequences": len({score.sequence for score in self.objects}),
            "total": _finite(self.total()),
            "objects": objects,
        }


@dataclass(slots=True)
class _Series:
    region: list[float] = field(default_factory=list)
    contour: list[float] = field(default_factory=list)
    seen: bool = False


class SequenceScorer:
    """Scores one sequence frame by frame; keeps one pair of label maps and two numbers a frame and object.

    A pair is scored when the next one comes, so that the last one never is.
    """

    def __init__(self, sequence: str, *, official_decay: bool = False) -> None:
        """Start a sequence.

        Args:
            sequence: its name, for scores and messages.
            official_decay: see `statistics`.
        """
        self._name = sequence
        self._official_decay = official_decay
        self._frames = 0
        self._binary = False
        self._objects: dict[int, _Series] = {}
        self._pending: tuple[str, Labels | None, Labels] | None = None

    def add(self, prediction: Labels | None, truth: Labels, frame: str | None = None) -> None:
        """Take the next frame; its arrays are kept until the next call and must not change before.

        Args:
            prediction: uint8 (H, W) label map; not looked at, and so may be None, for the first and the last frame.
            truth: uint8 (H, W) label map.
            frame: name for messages; its number, if not given.

        Raises:
            DatasetError: the first truth has no object, or the frame before this one cannot be scored.
        """
        if self._frames == 0:
            self._begin(truth)
        else:
            if self._pending is not None:
                self._score(*self._pending)
            self._pending = (str(self._frames) if frame is None else frame, prediction, truth)
        self._frames += 1

    def finish(self) -> list[ObjectScore]:
        """Scores of all objects, in order of their ids.

        Raises:
            DatasetError: there were fewer than three frames.
        """
        scored = self._frames - 2
        if scored < 1:
            raise DatasetError(
                f"{shown(self._name)}: expected 3 frames or more (two are not scored), found {self._frames}"
            )
        scores = []
        for object_id, series in self._objects.items():
            if series.seen:
                stats = [statistics(values, self._official_decay) for values in (series.region, series.contour)]
                scores.append(ObjectScore(self._name, object_id, scored, *stats))
        return scores

    def _begin(self, truth: Labels) -> None:
        self._binary = is_binary(truth)
        labels = object_labels(truth, self._binary)
        ids = range(1, int(labels.max(initial=0)) + 1)
        self._objects = {object_id: _Series(seen=bool((labels == object_id).any())) for object_id in ids}
        if not self._objects:
            raise DatasetError(f"{shown(self._name)}: no object in the ground truth of the first frame")

    def _score(self, frame: str, prediction: Labels | None, truth: Labels) -> None:
        where = shown(f"{self._name}, frame {frame}")
        if prediction is None:
            raise DatasetError(f"{where}: no result; only the first and the last frame may lack one")
        if prediction.shape != truth.shape:
            raise DatasetError(f"{where}: result is {prediction.shape}, ground truth {truth.shape} (height, width)")
        if self._binary and truth.any() and not is_binary(truth):
            raise DatasetError(f"{where}: expected only 0 and 255 in the ground truth, as in its first frame")
        wanted = object_labels(truth, self._binary)
        found = prediction
        if len(self._objects) == 1 and is_binary(prediction):
            found = object_labels(prediction, binary=True)
        if (highest := int(found.max(initial=0))) > len(self._objects):
            raise DatasetError(f"{where}: result has object {highest}, the first ground truth {len(self._objects)}")
        for object_id, series in self._objects.items():
            masks = found == object_id, wanted == object_id
            series.region.append(region(*masks))
            series.contour.append(contour(*masks))
            series.seen |= any(bool(mask.any()) for mask in masks)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a process needs to score a sequence; `frames` are file names in order."""

    sequence: str
    results: Path
    truth: Path
    frames: tuple[str, ...]
    official_decay: bool


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
        progress: called after each sequence with its name, the number of sequences done, and that of all.

    Raises:
        DatasetError: both folders are the same, or something in them is missing, damaged or does not fit.
        VostrackError: a process died.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    tasks = _plan(results, ground_truth, sequences, official_decay)
    scores = _run(tasks, min(jobs, len(tasks)), progress or (lambda sequence, done, count: None))
    return Scores(tuple(score for task in tasks for score in scores[task.sequence]), official_decay)


def _run(tasks: Sequence[_Task], jobs: int, report: Progress) -> dict[str, list[ObjectScore]]:
    scores: dict[str, list[ObjectScore]] = {}
    if jobs == 1:
        for task in tasks:
            scores[task.sequence] = _score_sequence(task)
            report(task.sequence, len(scores), len(tasks))
        return scores
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_leave_interrupts_to_parent) as pool:
        futures = {pool.submit(_score_sequence, task): task.sequence for task in tasks}
        try:
            for future in as_completed(futures):
                scores[futures[future]] = future.result()
                report(futures[future], len(scores), len(tasks))
        except BrokenProcessPool as error:
            raise VostrackError("a scoring process died, perhaps for lack of memory; use fewer jobs") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return scores


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score_sequence(task: _Task) -> list[ObjectScore]:
    scorer = SequenceScorer(task.sequence, official_decay=task.official_decay)
    for frame in task.frames:
        scored = frame not in (task.frames[0], task.frames[-1])
        scorer.add(read_mask(task.results / frame) if scored else None, read_mask(task.truth / frame), frame)
    return scorer.finish()


def _plan(results: Path, truth: Path, sequences: Sequence[str] | None, official_decay: bool) -> list[_Task]:
    """Check the layout of both folders, so that a gap shows before hours of work rather than after them."""
    known = [name for name in list_folder(truth) if list_frames(truth / name)]
    if not known:
        raise DatasetError(f"no ground truth in {shown(truth)}: expected folders of PNG files, SEQUENCE/00000.png")
    chosen = list(dict.fromkeys(known if sequences is None else sequences))
    for name in chosen:
        if name not in known:
            raise DatasetError(unknown_name("sequence", name, known))
    present = set(list_folder(results))
    if missing := [name for name in chosen if name not in present]:
        raise DatasetError(f"{shown(results)} lacks {_named(missing)} of {len(chosen)} sequences")
    tasks = [_Task(name, results / name, truth / name, list_frames(truth / name), official_decay) for name in chosen]
    for folder, other in [(results, truth), *((task.results, task.truth) for task in tasks)]:
        if os.path.samefile(folder, other):
            raise DatasetError(f"results and ground truth are the same folder, {shown(folder.resolve())}")
    for task in tasks:
        present = set(list_folder(task.results))
        if missing := [frame for frame in task.frames[1:-1] if frame not in present]:
            raise DatasetError(f"{shown(task.results)} lacks {_named(missing)} of {len(task.frames) - 2} scored frames")
    return tasks


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return shown(", ".join(names[:_NAMED])) + more


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
