"""One clip of many: what is wanted of it, and what came of it. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vostrack import __version__
from vostrack.batch.remote import Remote
from vostrack.errors import Cancelled, ChangedError, InputError, exit_code, one_line
from vostrack.files import OutputRoot, read_json, shown
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks
from vostrack.run.place import REQUEST, address

if TYPE_CHECKING:
    from vostrack.batch.away import Scratch
    from vostrack.run.pipeline import Pipeline, PipelineConfig

_LONGEST = 500


@dataclass(frozen=True)
class Task:
    """A clip that is to be followed.

    Attributes:
        clip: a video file or a folder of images.
        masks: by frame, as `vostrack.segment` takes them; paths.
        name: of its folder below that of all results, unique: "dog", "day 1/dog".
        arguments: all else of `vostrack.segment`, by name, but `out`, `overwrite`, `resume`, `callbacks` and `load`.
        row: what the plan says of it, by column.
        frames: how many it has, where its header says.
        where: in the plan it stands, for messages.
    """

    clip: Path
    masks: Mapping[Any, Path]
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    frames: int | None = None
    where: str = ""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The clip and its masks."""
        return (self.clip, *self.masks.values())

    def key(self) -> str:
        """A hash of what is wanted, and of which files; results with another one are out of date."""
        stats = list[object]()
        for path in self.inputs:
            try:
                if address(path):
                    stats.append(Remote(path).fingerprint())
                    continue
                for each in (path, *(sorted(path.iterdir()) if path.is_dir() else ())):
                    info = os.stat(each)
                    stats.append((each.name, info.st_size, info.st_mtime_ns))
            except (OSError, InputError):
                stats.append((0, 0))
        wanted = self.row or {"clip": self.clip, "masks": self.masks, **self.arguments}
        text = repr((__version__, sorted((name, str(value)) for name, value in wanted.items()), stats))
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


class Status(StrEnum):
    """How a clip ended."""

    DONE = "done"
    FAILED = "failed"
    KEPT = "kept"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Result:
    """What came of a clip.

    Attributes:
        name: of its folder below that of all results.
        clip: its path.
        status: how it ended, a `Status`. Stopped ones can be resumed; kept ones have complete results of other inputs
            or settings, which stay as they are.
        key: of the task.
        frames: how many were followed.
        seconds: from start to end, of the last attempt.
        objects: how many were followed.
        warnings: code and text of each.
        confidence: the lowest of all frames and objects, or None.
        error: class of the error, or "".
        message: what it says, in one line.
        exit_code: that `vostrack segment` would have had.
        attempts: how often it was begun in this batch; 0 where it was done before.
        worker: which process of which machine worked on it.
        ended: when, in seconds since 1970.
        row: what the plan says of it, by column.
    """

    name: str
    clip: str
    status: str
    key: str
    frames: int = 0
    seconds: float = 0.0
    objects: int = 0
    warnings: list[dict[str, str]] = field(default_factory=list)
    confidence: float | None = None
    error: str = ""
    message: str = ""
    exit_code: int = 0
    attempts: int = 1
    worker: str = ""
    ended: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse another status, as a file may have it; raises `ValueError`."""
        Status(self.status)


def run_one(
    task: Task,
    out: str | Path,
    *,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    load: Callable[[PipelineConfig], Pipeline] | None = None,
    scratch: Scratch | None = None,
) -> Result:
    """Follow one clip, or go on with it; what is wrong with it is a result, not an error.

    For a scheduler of one's own: arguments and result can be pickled, and nothing is kept between calls but what `load`
    keeps.

    Args:
        task: the clip.
        out: folder of all results.
        overwrite: whether earlier results of the clip are replaced; else they are gone on with.
        callbacks: what is called on the way.
        load: makes the method ready, a `vostrack.Pipelines()` to load its weights once for many clips; None loads them.
        scratch: where a clip lies meanwhile that is in an object store; None for the cache of the user.

    Returns:
        How it ended. A clip whose results are there already is done.
    """
    from vostrack.batch.away import Scratch, is_away, run_away
    from vostrack.run.export import Exports
    from vostrack.run.pipeline import load_pipeline
    from vostrack.run.review import draw_worst
    from vostrack.run.segment import segment

    if is_away(task, Path(out)):
        where = scratch or Scratch()
        return run_away(task, Path(out), overwrite=overwrite, callbacks=callbacks, load=load, scratch=where)
    start, folder = time.monotonic(), Path(out, task.name)
    try:
        anew = overwrite or _elsewhere(task, folder, callbacks or Callbacks())
        if anew and not overwrite:  # nobody asked for it: of what lies beside its folder, only its own exports go
            Exports(task.arguments.get("exports", ()), folder).check((), overwrite=False, resume=True)
        summary = segment(
            task.clip,
            task.masks,
            folder,
            **task.arguments,
            overwrite=anew,
            resume=not anew,
            callbacks=callbacks,
            load=load or load_pipeline,
        )
    except Cancelled:
        return _result(task, Status.STOPPED, start)
    except ChangedError as error:
        return _kept(task, error, start) if error.is_complete else failed(task, error, start)
    except Exception as error:  # whatever it is, the other clips go on
        return failed(task, error, start)
    with suppress(Exception):  # a picture for the report is not worth a clip
        draw_worst(folder)
    return _result(task, Status.DONE, start, **of_summary(summary))


def of_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a result takes over of the summary of its run."""
    objects = summary["objects"]
    low = [each["lowest_confidence"] for each in objects.values() if each.get("lowest_confidence") is not None]
    return {
        "frames": summary["frames"],
        "objects": len(objects),
        "warnings": summary["warnings"],
        "confidence": min(low, default=None),
    }


def failed(task: Task, error: Exception, start: float) -> Result:
    """The result of a clip with which something is wrong, begun at a time of `time.monotonic`."""
    message = one_line(error)[:_LONGEST]
    name, code = type(error).__name__, exit_code(error)
    return _result(task, Status.FAILED, start, error=name, message=message, exit_code=code)


def _kept(task: Task, error: ChangedError, start: float) -> Result:
    """The result of a clip that has complete results of other inputs or settings."""
    fix = "remove its folder and exports beside it to have it made again, or overwrite all clips"
    message = f"its results stay, though this changed: {error.changes}; {fix}"
    return replace(failed(task, error, start), status=Status.KEPT, message=message)


def _result(task: Task, status: Status, start: float, **more: Any) -> Result:
    told: dict[str, Any] = {
        "clip": address(task.clip) or str(task.clip),
        "seconds": round(time.monotonic() - start, 3),
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "ended": round(time.time(), 3),
        "row": dict(task.row),
    }
    return Result(name=task.name, status=status, key=task.key(), **told, **more)


@dataclass(frozen=True)
class _Begun:
    """What must be known of an unfinished run."""

    processor: str = ""


def _elsewhere(task: Task, folder: Path, callbacks: Callbacks) -> bool:
    """Whether a clip is half done by another kind of processor, whose masks would differ from those made here."""
    from vostrack.device import choose_device, processor

    root = OutputRoot(folder)
    try:
        if root.at("summary.json").exists():
            return False
        begun = read_json(root.at(REQUEST), _Begun).processor
    except (OSError, ValueError):
        return False  # nothing was begun, or `segment` says what is wrong
    here = processor(choose_device(str(task.arguments.get("device", "auto"))))
    if begun in ("", here):
        return False
    callbacks.note(Note(Code.BATCH_AGAIN, f"it was begun on {shown(begun)} and is done anew on {here}"))
    return True
