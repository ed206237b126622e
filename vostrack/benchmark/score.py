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

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets.mask_folders import Labels, list_folder, list_frames, named, read_mask
from vostrack.benchmark.metrics import is_binary, object_labels
from vostrack.benchmark.pool import Progress, run_all
from vostrack.benchmark.sequence_scores import ObjectScore, finite, score_frames, totals
from vostrack.errors import DatasetError, unknown_name
from vostrack.files import shown


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
    sequence: str, results: Path, truth: Path, frames: Sequence[str], official_decay: bool = False
) -> list[ObjectScore]:
    """Score one sequence; see `score_folders`.

    Args:
        sequence: its name.
        results: folder of its results.
        truth: folder of its ground truth.
        frames: names of the files, in order; three or more.
        official_decay: see `statistics`.

    Raises:
        DatasetError: something is missing, damaged or does not fit.
    """
    pairs = ((Path(frame).stem, read_mask(results / frame), read_mask(truth / frame)) for frame in frames[1:-1])
    return score_masks(sequence, read_mask(truth / frames[0]), pairs, official_decay)


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

    def checked() -> Iterator[tuple[str, range, Labels, Labels]]:
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
