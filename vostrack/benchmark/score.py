"""Scores of objects, frame by frame, and their means; one pair of masks is in memory at a time.

`score_sequence` follows the rules of any dataset: which frames count, and objects that appear later. `score_folders`
scores folders of `SEQUENCE/FRAME.png` as the official DAVIS evaluation does: the first and the last frame of a sequence
are never scored; the truth of the first one says which objects there are. Knows nothing about methods and videos.
Source: davis2017-evaluation (ac7c43f), semi-supervised task.

Differs:
    - An id below the highest one of the first frame that no scored frame and not the first one holds, in truth or
      result, is no object; the official code would give it full marks. In DAVIS ids have no gaps.
    - 0/255 masks are read: 255 is object 1 all through a sequence whose first truth holds nothing but 0 and 255, and in
      a result for a sequence of one object. Elsewhere 255 is void in a truth, which scores as background, and an error
      in a result.
    - What is missing or does not fit is an error; the official code ends with exit code 0. Results are never cached.
    - `Rules` can score objects that appear later, and leave void pixels out, as other datasets have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vostrack.benchmark.datasets import layouts
from vostrack.benchmark.datasets.mask_folders import Labels, named, read_mask
from vostrack.benchmark.metrics import VOID, contour, is_binary, jumpcut_error, object_labels, region, statistics
from vostrack.benchmark.overlap import Overlap, said
from vostrack.benchmark.pool import run_all
from vostrack.benchmark.result_folders import FolderPair, find_pairs, is_run, unscored
from vostrack.errors import DatasetError, NoObjectError
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks, checked_callbacks

FramePair = tuple[str, Iterable[int], Labels, Labels]
"""A frame: its name, the objects that count in it, and two label maps, uint8 (H, W): result and truth."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """Scores of one object in one sequence.

    Attributes:
        object_id: id in the ground truth; 1 in JumpCut, where all of the foreground counts.
        values: J_mean, J_recall, J_decay, F_mean, F_recall and F_decay, in this order, or the error rates.
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
class Rules:
    """What `score_folders` does otherwise than the official DAVIS evaluation; by default nothing.

    Attributes:
        official_decay: keep the official code's overflow above 256 frames; see `statistics`.
        late_objects: score objects that the first ground truth lacks, behind the frame where they first appear.
        ignore_void: leave out pixels that are void (255) in the ground truth, which else are background.
    """

    official_decay: bool = False
    late_objects: bool = False
    ignore_void: bool = False


OFFICIAL = Rules()


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a set of sequences.

    Attributes:
        objects: all objects, in order of sequence and id; at least one.
        rules: by which they were scored.
        notes: what was not scored, and why, one line each.
    """

    objects: tuple[ObjectScore, ...]
    rules: Rules = OFFICIAL
    notes: tuple[Note, ...] = ()

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
            **asdict(self.rules),
            "notes": list(self.notes),
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
    frames = read_frames(sequence, folder)
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
    rules: Rules = OFFICIAL,
    callbacks: Callbacks | None = None,
) -> Scores:
    """Score all sequences of a folder. One that has no object is left out, with a note.

    Args:
        results: folder of `SEQUENCE/FRAME.png` or of runs, `SEQUENCE_vostrack/masks`; of one sequence also its masks
            or its run. The first and last frame are not read; files that the ground truth does not have are ignored.
        ground_truth: folder of `SEQUENCE/FRAME.png`, or of the frames of one sequence, which may be sparse.
        sequences: which to score, in this order; all of the ground truth, by name, if not given.
        jobs: number of processes. They are spawned: with more than one, call this under `if __name__ == "__main__"`.
        rules: what is scored otherwise than by the official code.
        callbacks: what is called on the way; progress counts sequences.

    Raises:
        DatasetError: both folders are the same, or something in them is missing, damaged or does not fit.
        NoObjectError: no sequence has an object.
        VostrackError: there are fewer jobs than one, or a process died.
    """
    callbacks = checked_callbacks(callbacks)
    found = find_pairs(results, ground_truth, sequences)
    scored = run_all([partial(score_folder, each, rules) for each in found], jobs, callbacks)
    scores = Scores(
        tuple(chain.from_iterable(rows for rows, _ in scored)),
        rules,
        tuple(chain(unscored(results, found) if sequences is None else (), *(notes for _, notes in scored))),
    )
    if not scores.objects:
        more = f", and so is none of {len(found) - 1} more" if found[1:] else ""
        raise NoObjectError(scores.notes[0] + more)
    for note in scores.notes:
        callbacks.note(note)
    return scores


def score_folder(pair: FolderPair, rules: Rules = OFFICIAL) -> tuple[list[ObjectScore], list[Note]]:
    """Score the folders of one sequence, as `score_folders` does: its objects, and notes of what is not scored."""
    notes: list[Note] = []
    first, *others = pair.files.items()
    masks = (
        (Path(true).stem, read_mask(pair.results / found), read_mask(pair.truth / true)) for true, found in others[:-1]
    )
    try:
        return score_masks(pair.name, read_mask(pair.truth / first[0]), masks, rules, notes.append), notes
    except NoObjectError as error:
        return [], [Note(Code.SEQUENCE_NOT_SCORED, str(error))]
    except DatasetError as error:
        if not is_run(pair.truth):
            raise
        raise DatasetError(
            f"{error}; the ground truth, {shown(pair.truth)}, is of a run: give results first"
        ) from error


def score_masks(
    sequence: str,
    first: Labels,
    pairs: Iterable[tuple[str, Labels, Labels]],
    rules: Rules = OFFICIAL,
    note: Callable[[Note], None] = lambda note: None,
) -> list[ObjectScore]:
    """Score one sequence of label maps, uint8 (H, W).

    Args:
        sequence: its name.
        first: ground truth of its first frame.
        pairs: of each scored frame its name, result and ground truth. The first and the last frame are none of them.
        rules: what is scored otherwise than by the official code.
        note: called with what is not scored, and why, one line.

    Raises:
        DatasetError: a pair does not fit.
        NoObjectError: the first truth has no object; with late objects, no truth has one.
    """
    objects = _Objects(shown(sequence), first, rules)
    scores = score_frames(sequence, (objects.checked(*pair) for pair in pairs), rules.official_decay)
    used = objects.used()
    scores = [score for score in scores if score.object_id in used]
    for each in objects.overlap.notes(shown(sequence), [score.object_id for score in scores], objects.true):
        note(each)
    if late := [str(number) for number in sorted(objects.true - {score.object_id for score in scores})]:
        hint = "" if rules.late_objects else "; the rules can be told to score late objects"
        text = f"{shown(sequence)}: not scored, since they appear too late: {named(late)}{hint}"
        note(Note(Code.OBJECTS_NOT_SCORED, text))
    return scores


class _Objects:
    """The objects of a sequence: which count in a frame, by the rules, and which turned up at all.

    Attributes:
        true: ids in the ground truth, so far.
        overlap: of result and truth, so far.
    """

    def __init__(self, sequence: str, first: Labels, rules: Rules) -> None:
        self._sequence, self._rules = sequence, rules
        self._binary = is_binary(first)
        self.true = _ids(object_labels(first, self._binary))
        self._counting = sorted(self.true) if rules.late_objects else list(range(1, max(self.true, default=0) + 1))
        self._first = frozenset(self._counting)
        self._found: dict[int, str] = {}
        self.overlap = Overlap()
        if not self._counting and not rules.late_objects:
            raise NoObjectError(f"{sequence}: no object in the ground truth of the first frame, so it is not scored")

    def checked(self, frame: str, result: Labels, truth: Labels) -> FramePair:
        """A frame with the objects that count in it; raises `DatasetError` where result and truth do not fit."""
        where = f"{self._sequence}, frame {shown(frame)}"
        check_size(where, result, truth)
        if not self.true:
            self._binary = is_binary(truth)
        if self._binary and truth.any() and not is_binary(truth):
            raise DatasetError(f"{where}: expected only 0 and 255 in the ground truth, as in its first frame")
        if self._rules.ignore_void and not self._binary:
            result, truth = without_void(result, truth)
        wanted = object_labels(truth, self._binary)
        true, counting = self.true | _ids(wanted), list(self._counting)
        alone = true if self._rules.late_objects else self._first
        found = object_labels(result, binary=True) if alone == {1} and is_binary(result) else result
        for number in _ids(found):
            self._found.setdefault(number, where)
        self.overlap.add(found, wanted)
        if self._rules.late_objects:
            self._counting += sorted(true - self.true)
        self.true = true
        return frame, counting, found, wanted

    def used(self) -> frozenset[int]:
        """Ids that are in a truth or a result; to be called behind the last frame, since ids may come late."""
        for number, where in self._found.items():
            if number not in self.true | self._first:
                ids = named([str(number) for number in sorted(self.true)])
                fix = (
                    "for a single object, results hold 0 and 1, or 0 and 255"
                    if self.true <= {1}
                    else "objects need the ids of the ground truth"
                )
                same = said(self.overlap.pairs())
                raise DatasetError(
                    f"{where}: result has object {number}, the ground truth only {ids or 'background'}; {fix}"
                    + (f" (by their places, {same})" if same else "")
                )
        if not self.true:
            raise NoObjectError(f"{self._sequence}: no object in the ground truth, so it is not scored")
        return self.true | self._found.keys()


def _ids(labels: Labels) -> frozenset[int]:
    return frozenset(np.unique(labels).tolist()) - {0}


def check_size(where: str, result: Labels, truth: Labels) -> None:
    """Raise `DatasetError` where two label maps differ in size."""
    if result.shape != truth.shape:
        raise DatasetError(f"{where}: result is {result.shape}, ground truth {truth.shape} (height, width)")


def without_void(result: Labels, truth: Labels) -> tuple[Labels, Labels]:
    """Result and truth with background where the truth is void: such pixels count neither as hit nor as miss."""
    void = truth == VOID
    return np.where(void, np.uint8(0), result), np.where(void, np.uint8(0), truth)


def read_frames(sequence: layouts.Sequence, folder: Path) -> Iterator[FramePair]:
    """The frames that count, for `score_frames`. An object counts behind the frame where it is given."""
    given = _given_objects(sequence) if sequence.scored else {}
    counting = [number for number, frame in given.items() if frame not in sequence.scored]
    for frame in sequence.scored:
        counting = [number for number in counting if sequence.ends.get(number) != frame]
        result = read_mask(folder / f"{frame}.png")
        truth = layouts.read_labels(sequence.truths[frame], sequence.masks, keep_void=sequence.ignore_void)
        check_size(shown(f"{sequence.name}, frame {frame}"), result, truth)
        if sequence.ignore_void:
            result, truth = without_void(result, truth)
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
    literal = []
    for frame, _, result, truth in frames:
        try:
            error, relative_to_result = jumpcut_error(result, truth)
        except ValueError as problem:
            raise DatasetError(f"{shown(sequence)}, frame {frame}: {problem}") from problem
        curves["frames"].append(frame)
        curves["error"].append(error)
        literal.append(relative_to_result)
    if not literal:
        return []
    values = {"error": float(np.mean(curves["error"])), "error_of_result": float(np.mean(literal))}
    return [ObjectScore(sequence, 1, values, curves)]
