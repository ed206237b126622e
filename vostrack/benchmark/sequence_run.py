"""One sequence with one variant: masks in the official layout, and a record by which a later run can trust them.

The record holds a hash of everything that decides the masks and the hash of every mask. It is written last, so that a
run which was killed leaves none; then, or if anything differs, the whole sequence is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from vostrack.benchmark.datasets.layouts import Part, Sequence, read_labels
from vostrack.benchmark.score import ObjectScore, score_sequence
from vostrack.errors import DatasetError, NoObjectError, VostrackError
from vostrack.files import OutputRoot, read_json, sha256, shown
from vostrack.notes import Code, Note
from vostrack.run.passes import PARTS, Passes
from vostrack.run.pipeline import Pipeline, PipelineConfig, load_pipeline
from vostrack.types import LabelMap, Prediction
from vostrack.video.images import FolderStream
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream
from vostrack.video.writer import FileWriter, ThreadedWriter, mask_files

RECORDS = ".vostrack"
MASKS = "Annotations"


@dataclass(frozen=True, slots=True)
class Task:
    """What a process needs to do a sequence.

    Attributes:
        settings: everything that decides the masks.
        folder: where the results of the variant lie, of whose name it is.
        jump: whether to score as JumpCut does.
    """

    sequence: Sequence
    pipeline: PipelineConfig
    settings: Mapping[str, Any]
    folder: Path
    jump: bool

    @property
    def masks(self) -> Path:
        """Folder of the sequence's masks."""
        return self.folder / MASKS / self.sequence.name

    @property
    def root(self) -> OutputRoot:
        """The folder of all variants."""
        return OutputRoot(self.folder.parent)

    @property
    def record(self) -> Path:
        """File of the record, below the root."""
        return Path(self.folder.name, RECORDS, f"{self.sequence.name}.json")


@dataclass(frozen=True)
class _Record:
    """What is kept of a sequence: its key, how many frames were seen, hashes of masks by frame, and seconds."""

    key: str
    frames: int
    masks: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes:
        rows: scores, none where a server has the masks.
        frames: how many the method has seen.
        written: names of the frames that have masks.
        seconds: in all for each of `PARTS`, by the run that made the masks.
        again: whether the masks were there already and could be trusted.
        note: why there are no masks, if so.
    """

    rows: tuple[ObjectScore, ...]
    frames: int
    written: tuple[str, ...]
    seconds: Mapping[str, float]
    again: bool
    note: Note | None = None


def run_sequence(task: Task) -> Outcome:
    """Follow the objects of a sequence, unless its masks are there already, and score the masks.

    A sequence without any object in its given masks is left out, with a note.

    Raises:
        VostrackError: with the sequence's name.
    """
    try:
        key = _key(task)
        record = _trusted(task, key)
        again = record is not None
        if record is None:
            record = _follow(task, key)
            task.root.write_json(task.record, asdict(record))
        rows = score_sequence(task.sequence, task.masks, task.jump)
    except NoObjectError as error:
        note = Note(Code.SEQUENCE_NOT_SCORED, f"{shown(task.sequence.name)} is left out: {error}")
        return Outcome((), 0, (), dict.fromkeys(PARTS, 0.0), False, note)
    except VostrackError as error:
        if task.sequence.name not in str(error):
            error.args = (f"sequence {shown(task.sequence.name)}: {error}",)
        raise
    return Outcome(tuple(rows), record.frames, tuple(record.masks), record.seconds, again)


def _key(task: Task) -> str:
    """Hash of all that decides the masks: settings, given masks, and the names and sizes of the frames."""
    sequence, hashed = task.sequence, hashlib.sha256()
    hashed.update(json.dumps([sequence.name, task.settings], sort_keys=True).encode())
    for part in sequence.parts:
        hashed.update(repr((part.frames, part.written, sequence.masks)).encode())
        for frame, files in part.prompts.items():
            hashed.update(repr((frame, [sha256(file) for file in files])).encode())
    sources = sorted(sequence.source.iterdir()) if sequence.source.is_dir() else [sequence.source]
    hashed.update(repr([(path.name, path.stat().st_size) for path in sources]).encode())
    return hashed.hexdigest()


def _trusted(task: Task, key: str) -> _Record | None:
    """The record of the sequence, if it is of this task and every mask is as it was written."""
    path = task.root.at(task.record)
    try:
        record: _Record = read_json(path, _Record)
        if record.key != key or not record.masks or record.frames < len(record.masks):
            return None
        if any(PurePath(frame).name != frame for frame in record.masks):
            return None  # it names a file elsewhere
        same = all(sha256(task.masks / f"{frame}.png") == digest for frame, digest in record.masks.items())
        return record if same and set(PARTS) <= record.seconds.keys() else None
    except (OSError, ValueError, VostrackError):
        return None


def _follow(task: Task, key: str) -> _Record:
    """Write the masks of all parts; the record of them."""
    pipeline = loaded(task.pipeline)
    if asdict(pipeline.weights) != task.settings["weights"]:
        raise VostrackError(f"the weights of {task.folder.name} changed while the benchmark ran: start it again")

    def render(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        for name, data in mask_files(prediction):
            yield f"{task.folder.name}/{MASKS}/{task.sequence.name}/{PurePath(name).name}", data

    seconds = dict.fromkeys(PARTS, 0.0)
    frames, written = 0, list[str]()
    for part in task.sequence.parts:
        prompts = given_masks(task.sequence, part)
        opened = partial(open_frames, task.sequence, part.frames)
        with opened() as stream, ThreadedWriter([FileWriter(task.root.path, render)]) as writing:
            passes = Passes(pipeline, prompts, stream, opened, only=part.written)
            with closing(passes.run()) as predictions:
                for prediction in predictions:
                    writing.write(prediction)
                    written.append(prediction.frame.name)
        passes.seconds["write"] += writing.seconds
        frames += passes.frames
        seconds = {name: value + passes.seconds[name] for name, value in seconds.items()}
    if missing := [frame for frame in task.sequence.scored if frame not in written]:
        raise DatasetError(f"there is ground truth for frame {missing[0]}, but the clip has only {frames} frames")
    return _Record(
        key,
        frames,
        {frame: sha256(task.masks / f"{frame}.png") for frame in written},
        {name: round(value, 4) for name, value in seconds.items()},
    )


@lru_cache(maxsize=1)
def loaded(config: PipelineConfig) -> Pipeline:
    """A pipeline, ready to run, which serves many sequences; `cache_clear` it when its weights may have changed."""
    return load_pipeline(config)


def open_frames(sequence: Sequence, frames: Iterable[str] | None) -> ClipStream:
    """Open the frames of these names, of a folder of images; all, of a video."""
    if frames is None or not sequence.source.is_dir():
        return open_clip(sequence.source)
    return FolderStream(sequence.source, set(frames))


def given_masks(sequence: Sequence, part: Part) -> dict[int, LabelMap]:
    """Given masks by index. An object is given once: the protocols do not let a later mask correct an earlier one."""
    prompts: dict[int, LabelMap] = {}
    known: set[int] = {0}
    for frame, files in part.prompts.items():
        labels = read_labels(files, sequence.masks)
        ids = tuple(int(number) for number in np.unique(labels) if number not in known)
        known |= set(ids)
        if ids:
            index = int(frame) if part.frames is None else part.frames.index(frame)
            pixels = np.where(np.isin(labels, ids), labels, np.uint8(0))
            prompts[index] = LabelMap(torch.from_numpy(pixels), ids)
    if not prompts:
        raise NoObjectError(f"the given mask of frame {next(iter(part.prompts))} has no object")
    return prompts
