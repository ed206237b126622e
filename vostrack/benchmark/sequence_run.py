"""One sequence with one variant: masks in the official layout, and a record by which a later run can trust them.

The record holds a hash of everything that decides the masks and the hash of every mask. It is written last, so that a
run which was killed leaves none; then, or if anything differs, the whole sequence is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from vostrack.adapt.adaptation import Adaptation, AdaptFilter
from vostrack.benchmark.datasets.layouts import Part, Sequence, read_labels
from vostrack.benchmark.sequence_scores import Row, score_sequence
from vostrack.benchmark.variants import Variant, load_variant, variant_adaptation, variant_refiner
from vostrack.errors import DatasetError, VostrackError
from vostrack.files import make_folder, sha256, shown, write_json
from vostrack.methods.base import Method
from vostrack.propagate import Propagator
from vostrack.refine.base import RefineFilter, through
from vostrack.types import Clip, LabelMap, Prediction
from vostrack.video.images import FolderStream
from vostrack.video.prefetch import Prefetch
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream
from vostrack.video.writer import FileWriter, ThreadedWriter, mask_files

RECORDS = ".vostrack"
MASKS = "Annotations"
PARTS = ("model", "adapt", "refine", "decode", "write")


@dataclass(frozen=True, slots=True)
class Task:
    """What a process needs to do a sequence.

    Attributes:
        sequence: of the dataset.
        variant: that follows its objects.
        settings: everything else that decides the masks.
        folder: where the variant's results lie.
        jump: whether to score as JumpCut does.
    """

    sequence: Sequence
    variant: Variant
    settings: Mapping[str, Any]
    folder: Path
    jump: bool

    @property
    def masks(self) -> Path:
        """Folder of the sequence's masks."""
        return self.folder / MASKS / self.sequence.name

    @property
    def record(self) -> Path:
        """File of the record."""
        return self.folder / RECORDS / f"{self.sequence.name}.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes:
        rows: scores, none where a server has the masks.
        frames: how many the method has seen.
        written: names of the frames that have masks.
        seconds: in all for each of `PARTS`, by the run that made the masks.
        again: whether the masks were there already and could be trusted.
    """

    rows: tuple[Row, ...]
    frames: int
    written: tuple[str, ...]
    seconds: Mapping[str, float]
    again: bool


def run_sequence(task: Task) -> Outcome:
    """Follow the objects of a sequence, unless its masks are there already, and score the masks.

    Raises:
        VostrackError: with the sequence's name.
    """
    try:
        key = _key(task)
        record = _trusted(task, key)
        again = record is not None
        if record is None:
            record = {"key": key, **_follow(task)}
            make_folder(task.record.parent)
            write_json(task.record, record)
        rows = score_sequence(task.sequence, task.masks, task.jump)
    except VostrackError as error:
        if task.sequence.name not in str(error):
            error.args = (f"sequence {shown(task.sequence.name)}: {error}",)
        raise
    return Outcome(tuple(rows), record["frames"], tuple(record["masks"]), record["seconds"], again)


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


def _trusted(task: Task, key: str) -> dict[str, Any] | None:
    """The record of the sequence, if it is of this task and every mask is as it was written."""
    try:
        record: dict[str, Any] = json.loads(task.record.read_text(encoding="utf-8"))
        if record["key"] != key or not record["masks"] or not isinstance(record["frames"], int):
            return None
        same = all(sha256(_inside(task.masks, name)) == digest for name, digest in record["masks"].items())
        return record if same and set(PARTS) <= record["seconds"].keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, VostrackError):
        return None


def _inside(folder: Path, frame: str) -> Path:
    if PurePath(frame).name != frame:
        raise ValueError("the record names a file elsewhere")
    return folder / f"{frame}.png"


def _follow(task: Task) -> dict[str, Any]:
    """Write the masks of all parts; the record of them."""
    method, weights = load_variant(task.variant, task.settings["device"])
    if asdict(weights) != task.settings["weights"]:
        raise VostrackError(f"the weights of {task.variant.text} changed while the benchmark ran: start it again")
    seconds = dict.fromkeys(PARTS, 0.0)
    written: list[str] = []
    frames = sum(_follow_part(task, part, method, seconds, written) for part in task.sequence.parts)
    if missing := [frame for frame in task.sequence.scored if frame not in written]:
        raise DatasetError(f"there is ground truth for frame {missing[0]}, but the clip has only {frames} frames")
    return {"frames": frames, "masks": {frame: sha256(task.masks / f"{frame}.png") for frame in written}} | {
        "seconds": {name: round(value, 4) for name, value in seconds.items()}
    }


def _follow_part(task: Task, part: Part, method: Method[Any], seconds: dict[str, float], written: list[str]) -> int:
    """Follow one part and count its frames; adds to seconds and to the names of written frames."""

    def render(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        for name, data in mask_files(prediction):
            yield f"{MASKS}/{task.sequence.name}/{PurePath(name).name}", data

    count = 0

    def scored(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        nonlocal count
        for prediction in predictions:
            count += 1
            if part.written is None or prediction.frame.name in part.written:
                yield prediction

    refiner, prompts = variant_refiner(task.variant), _prompts(task.sequence, part)
    refining = [RefineFilter(refiner, prompts)] if refiner else []
    with ThreadedWriter([FileWriter(task.folder, render)]) as writing, ExitStack() as entered:
        for stage in refining:
            entered.enter_context(stage)
        made = _predictions(task, part, method, prompts, refiner is not None, seconds)
        predictions = entered.enter_context(closing(made))
        for prediction in through(scored(predictions), refining):
            writing.write(prediction)
            written.append(prediction.frame.name)
    seconds["refine"] += sum(stage.seconds for stage in refining)
    seconds["write"] += writing.seconds
    return count


def _predictions(
    task: Task,
    part: Part,
    method: Method[Any],
    prompts: Mapping[int, LabelMap],
    probs: bool,
    seconds: dict[str, float],
) -> Generator[Prediction, None, None]:
    """Predictions of all frames of a part, adapted where the variant is; adds to seconds when they are through."""
    config, form, device = variant_adaptation(task.variant), task.variant.adapt, task.settings["device"]
    adaptation = Adaptation(prompts, config, device) if config else None
    engine = Propagator(method, task.settings["size"], device, keep_probs=probs and form != "clip")
    with Prefetch(_open(task.sequence, part)) as frames:
        predictions = _timed(engine.run(Clip(frames, prompts)), seconds, "model", frames)
        if adaptation is None:
            yield from predictions
        else:
            stage = AdaptFilter(adaptation.live if form == "live" else adaptation.watch)
            for prediction in stage.run(predictions):
                if form == "live":
                    yield prediction
            seconds["adapt"] += stage.seconds
    seconds["decode"] += frames.busy
    if adaptation is None or form == "live":
        return
    start = time.perf_counter()
    for _ in adaptation.train():
        pass
    seconds["adapt"] += time.perf_counter() - start
    with Prefetch(_open(task.sequence, part)) as frames:
        size = engine.working_size(frames.size) if probs else None
        yield from _timed((adaptation.apply(frame, size) for frame in frames), seconds, "adapt", frames)
    seconds["decode"] += frames.busy


def _timed(
    predictions: Iterator[Prediction], seconds: dict[str, float], name: str, frames: Prefetch
) -> Iterator[Prediction]:
    """The same; the time to make them, but for waiting for frames, is added to seconds."""
    start, waited = time.perf_counter(), 0.0
    for prediction in predictions:
        seconds[name] += time.perf_counter() - start - (frames.waited - waited)
        yield prediction
        start, waited = time.perf_counter(), frames.waited


def _open(sequence: Sequence, part: Part) -> ClipStream:
    return open_clip(sequence.source) if part.frames is None else FolderStream(sequence.source, set(part.frames))


def _prompts(sequence: Sequence, part: Part) -> dict[int, LabelMap]:
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
        raise DatasetError(f"the given mask of frame {next(iter(part.prompts))} has no object")
    return prompts
