"""The output folder of a run: what may be replaced, what can be resumed, and what is complete.

Beside the results lies a hidden folder with the record of what was asked for, the names of the frames that have files
and, while a run is under way, its saved state. Nothing is deleted that this program did not write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np
import torch

from vostrack.adapt.adaptation import AdaptState
from vostrack.device import to_device
from vostrack.errors import ChangedError, InputError, OutputError
from vostrack.files import (
    OutputRoot,
    open_regular,
    output_error,
    parse_json,
    read_json,
    shaped,
    shown,
)
from vostrack.methods import Direction
from vostrack.propagate import EnginePosition, known_ids
from vostrack.run.confidence import CSV, Row, csv_text
from vostrack.run.kept import COMPLETE, STALE
from vostrack.run.pipeline import changes
from vostrack.run.place import EXPORTS, HIDDEN, RECORD, REQUEST, RESULTS, STATE, check_free, check_run, held
from vostrack.run.signs import SIGNS, FrameSigns, read_signs
from vostrack.run.state import load_state, save_state
from vostrack.run.steps import forget_steps
from vostrack.types import MAX_OBJECTS, Frame, LabelMap, Prediction
from vostrack.video.palette import read_ids
from vostrack.video.series import ENDINGS, FILM_ENDINGS, VIDEO_ENDINGS

T = TypeVar("T")

_FILES = {*ENDINGS, *FILM_ENDINGS, *VIDEO_ENDINGS, ".gif", ".json", ".npz", ".zip"}
_EDGE_BYTES = 1 << 20
_FRAMES, _SECOND = f"{HIDDEN}/frames.jsonl", f"{HIDDEN}/second_pass.json"
_BACK, _CELLS = f"{HIDDEN}/backwards.safetensors", f"{HIDDEN}/cells"
_GIVEN = f"{HIDDEN}/given"
_SUMMARY = "summary.json"
_REMADE = "mend it, or remove it and resume the run to have it made again"
_START = "start again with `overwrite=True`"


@dataclasses.dataclass(frozen=True)
class _Earlier:
    """What must be known of the record of an earlier run to clear it away."""

    outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Second:
    next_frame: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class _Seconds:
    decode: float
    model: float
    adapt: float
    refine: float
    write: float
    total: float


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What must be in a summary that is given again."""

    frames: int
    out: str
    method: str
    preset: str
    outputs: list[str]
    objects: dict[str, dict[str, Any]]
    seconds_per_frame: _Seconds
    peak_rss_mb: float | None
    warnings: list[Any] = dataclasses.field(default_factory=list)
    notes: list[Any] = dataclasses.field(default_factory=list)
    exports: dict[str, str] = dataclasses.field(default_factory=dict)


class OutputFolder:
    """Where the results of one run go.

    Attributes:
        resumes: whether `prepare` found an unfinished run to go on with.
        refills: whether `prepare` found a complete run that lacks files: it is done again from its start, nothing is
            saved on the way, and what is there, which somebody may have retouched, is kept.
    """

    def __init__(
        self,
        path: Path,
        masks: Mapping[int, LabelMap] | None = None,
        given: Mapping[int, object] | None = None,
        direction: Direction = Direction.FORWARD,
    ) -> None:
        """Name the folder, and the masks of the run by frame, also as they were given; nothing is created yet."""
        self.path, self.resumes, self.refills = path, False, False
        self._masks, self._given, self._direction = masks or {}, given or {}, direction
        self._root = OutputRoot(path)
        self._run, self._two_passes, self._first = "", False, 0

    @property
    def cells(self) -> Path:
        """The folder where what passes say of cells is kept."""
        return self.path / _CELLS

    def check_place(self, inputs: Sequence[Path]) -> None:
        """Raise `OutputError` where the results would go among the inputs, or into a file."""
        if self.path.suffix.lower() in _FILES and not self.path.is_dir():
            raise OutputError(
                f"{shown(self.path)} looks like a file, and results are a folder of masks and an overlay: "
                f"give a folder as `out`, such as {shown(self.path.stem)}"
            )
        here = self.path.resolve()
        for path in inputs:
            source = path.resolve()
            if source == here or here in source.parents:
                raise OutputError(f"{shown(path)} lies in the output folder {shown(self.path)}: choose another `out`")

    def prepare(self, record: Mapping[str, Any], overwrite: bool, resume: bool) -> dict[str, Any] | None:
        """Make the folder ready; call it under the folder's lock.

        Args:
            record: everything that decides what the results will be, as JSON holds it (lists, no tuples).
            overwrite: replace the results of an earlier run.
            resume: go on with an earlier run of the same record.

        Returns:
            The summary of a run that is complete already, else None, also where it lacks files (`refills`).

        Raises:
            OutputExistsError: results are there and neither was asked for.
            OutputError: the earlier run had other inputs or settings, or the folder cannot be written or used: a link
                or a pipe is where a file of ours should be.
        """
        self._run = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        self._first = (record.get("range") or [0])[0]
        self._two_passes = (record.get("adapt") or {}).get("form") == "clip"
        for name in (*RESULTS, RECORD, EXPORTS, _FRAMES, SIGNS, STATE, _SECOND, _BACK, _CELLS, _GIVEN, REQUEST):
            self._root.at(name)  # fails now, where it does, and not after something was replaced
        for name in self._object_folders():
            self._root.at(name)  # fails now, where it does, and not after something was replaced
        ours = (self.path / RECORD).exists()
        if resume and ours:
            self._check_same(record)
            self.resumes = not (self.path / _SUMMARY).exists()
            return None if self.resumes else self._finished(record)
        check_free(self.path, overwrite, resume)
        if ours or held(self.path):
            self._clear()
        self._root.write_json(RECORD, record)
        return None

    def load_position(self, state_type: type[Any], device: torch.device) -> tuple[EnginePosition, AdaptState | None]:
        """Where the earlier run and its adaptation, if it has one, stopped; their beginning where it saved nothing.

        Raises:
            OutputError: what it saved is damaged, or of another run.
        """
        most = sys.maxsize if self._two_passes else len(self.frame_names())
        return self._load(STATE, state_type, device, most)

    def load_backwards(self, state_type: type[Any], device: torch.device) -> EnginePosition:
        """Where the earlier run stopped on its way back; its beginning where it saved nothing. Raises as above."""
        return self._load(_BACK, state_type, device, max(self._masks) + 1 - self._first)[0]

    def _load(
        self, name: str, state_type: type[Any], device: torch.device, most: int
    ) -> tuple[EnginePosition, AdaptState | None]:
        path = self._root.at(name)
        if self.refills or not path.exists():
            return EnginePosition(), None
        saved = load_state(path, _saved_type(state_type), self._run)
        if len(set(saved.ids)) < len(saved.ids) or not {*saved.ids} <= {*range(1, MAX_OBJECTS + 1)}:
            raise _damaged(path, "its ids are none")
        if not 0 <= saved.done <= most:
            raise _damaged(path, f"it says that {saved.done} frames are done, and there are {most}")
        return EnginePosition(to_device(saved.state, device), saved.ids, saved.done), saved.adapt

    def save_position(self, position: EnginePosition, adapt: AdaptState | None = None) -> None:
        """Save where a run and its adaptation stand; all results up to there must be on the disk."""
        self._save(STATE, position, adapt)

    def save_backwards(self, position: EnginePosition | None) -> None:
        """Save where a run stands on its way back; None where that has come to its end."""
        if position is None:
            self._root.remove(_BACK)
        else:
            self._save(_BACK, position, None)

    def _save(self, name: str, position: EnginePosition, adapt: AdaptState | None) -> None:
        if self.refills:
            return
        saved = {"state": position.state, "ids": position.ids, "done": position.done, "adapt": adapt}
        save_state(self._root.at(name), _saved_type(type(position.state))(**saved), self._run)

    def load_second_pass(self) -> int:
        """The first frame that the second pass of an earlier run has not done.

        Raises:
            OutputError: the file is damaged, or of another run.
        """
        path = self._root.at(_SECOND)
        if self.refills:
            return 0
        try:
            saved: _Second = read_json(path, _Second)
            if saved.sha256 != self._second_digest(saved.next_frame):
                raise ValueError("it was changed, or is of another run")
            if not 0 <= saved.next_frame <= len(self.frame_names()):
                raise ValueError("it names a frame that is not done")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        return saved.next_frame

    def save_second_pass(self, next_frame: int) -> None:
        """Save where the second pass stands; all its results up to there must be on the disk."""
        if not self.refills:
            self._root.write_json(_SECOND, {"next_frame": next_frame, "sha256": self._second_digest(next_frame)})

    def _second_digest(self, next_frame: int) -> str:
        return hashlib.sha256(f"{self._run} {next_frame}".encode()).hexdigest()

    def announce(self, frame: Frame) -> None:
        """Record that files for a frame come next: a run that overwrites removes these and nobody else's."""
        # The line break comes first, so that a line which a kill or a full disk cut off harms no other.
        self._root.append(_FRAMES, f"\n{json.dumps(frame.name)}")

    def read_prediction(self, frame: Frame) -> Prediction:
        """The result of a frame that an earlier run has done.

        Raises:
            OutputError: its mask is missing, damaged or of another size.
        """
        path = self._root.at(f"masks/{frame.name}.png")
        ids = known_ids(self._masks, frame.index, self._direction)
        try:
            pixels = read_ids(path)
            if pixels.shape != tuple(frame.image.shape[1:]):
                raise ValueError("it has another size than it had")
            if not {0, *ids} >= set(np.unique(pixels).tolist()):
                raise ValueError("it holds other objects")
        except (OSError, ValueError, InputError) as error:
            complete = (self.path / _SUMMARY).exists()
            fix = "remove it to have it made again" if self.refills else _REMADE if complete else _START
            what = "cannot resume: " if self.resumes else ""
            raise OutputError(f"{what}{shown(path)} is damaged ({shown(error)}); {fix}") from error
        return Prediction(frame, LabelMap(torch.from_numpy(pixels), ids))

    def as_kept(self, prediction: Prediction) -> Prediction:
        """A prediction; in a refill with the mask that is on the disk, where it is, since that one stays.

        Raises:
            OutputError: as `read_prediction`.
        """
        frame = prediction.frame
        if not self.refills or not self._root.at(f"masks/{frame.name}.png").exists():
            return prediction
        return dataclasses.replace(prediction, labels=self.read_prediction(frame).labels)

    @property
    def prompts(self) -> Mapping[int, LabelMap]:
        """The masks of the run, by frame."""
        return self._masks

    def signs(self) -> list[FrameSigns]:
        """What was measured of each frame; raises `OutputError`."""
        return read_signs(self._root)

    def write_confidence(self, rows: Iterable[Row]) -> None:
        """Write `confidence.csv`."""
        self._root.write(CSV, csv_text(rows).encode())

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, which marks the run as complete, and drop the saved state."""
        self._root.write_json(_SUMMARY, summary)
        self._forget()

    def keep_request(self, request: Mapping[str, Any], given: Mapping[int, bytes]) -> None:
        """Keep what was asked for, as JSON, and the given masks by frame, as PNG."""
        for index, data in given.items():
            self._root.write(f"{_GIVEN}/{index:05d}.png", data)
        self._root.write_json(REQUEST, request)

    def has_request(self) -> bool:
        """Whether something was kept by `keep_request`."""
        return self._root.at(REQUEST).is_file()

    def read_request(self, kind: type[T]) -> tuple[T, Callable[[int], Path]]:
        """What `keep_request` kept, as a type, and where the masks of frames lie.

        Raises:
            OutputError: nothing was, or it is damaged.
        """
        check_run(self.path)
        path = self._root.at(REQUEST)
        try:
            return read_json(path, kind), lambda index: self._root.at(f"{_GIVEN}/{index:05d}.png")
        except (OSError, ValueError) as error:
            raise OutputError(f"{shown(self.path)} is no run that can be gone on with: {shown(error)}") from error

    def forget_cells(self) -> None:
        """Drop what was kept of cells."""
        for name in self._cell_files():
            self._root.remove(name)
        for folder in (*(f"{_CELLS}/{direction}" for direction in Direction), _CELLS):
            with contextlib.suppress(OSError):  # others have files there
                self._root.at(folder).rmdir()

    def _cell_files(self) -> list[str]:
        """What was kept of cells, below the output folder."""
        return self._numbered(f"{_CELLS}/{Direction.FORWARD}", f"{_CELLS}/{Direction.BACKWARD}")

    def _numbered(self, *folders: str) -> list[str]:
        """The images in folders of ours whose names are numbers of frames, below the output folder."""
        names = list[str]()
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                there = os.listdir(self._root.at(folder))
                ours = rf"[0-9]{{5,}}\.png|{COMPLETE}|{STALE}"
                names += [f"{folder}/{name}" for name in there if re.fullmatch(ours, name)]
        return names

    def _forget(self) -> None:
        """Drop where a run stands."""
        for name in (STATE, _SECOND, _BACK):
            self._root.remove(name)

    def told(self, name: str, kind: Any = Any) -> dict[str, Any]:
        """What a JSON file below says, which must fit a type; raises `OutputError` where it is damaged."""
        try:
            shaped(value := dict(read_json(self._root.at(name), dict[str, Any])), kind)
            return value
        except (OSError, ValueError) as error:
            raise _damaged(self.path / name, error) from error

    def threads(self) -> int | None:
        """How many threads PyTorch had in this run; None where that is not known, or more than this machine has."""
        try:
            known = self.told(RECORD).get("threads")
        except OutputError:
            return None
        return known if type(known) is int and 1 <= known <= (os.cpu_count() or 1) else None

    def summary(self) -> dict[str, Any]:
        """What is said of a complete run; raises `OutputError` where that is damaged."""
        return self.told(_SUMMARY, _Summary)

    def _check_same(self, record: Mapping[str, Any]) -> None:
        if differ := re.sub(r"\bmasks\.(\d+)", self._mask_name, changes(self.told(RECORD), record)):
            raise ChangedError(
                f"cannot resume in {shown(self.path)}, since this changed: {differ}; "
                "use `overwrite=True` or another `out`",
                differ,
                is_complete=(self.path / _SUMMARY).exists(),
            )

    def _mask_name(self, match: re.Match[str]) -> str:
        """The mask of a frame, for a message, from its name in the record."""
        given = self._given.get(int(match[1]))
        path = f" ({shown(given)})" if isinstance(given, str | PurePath) else ""
        return f"the mask of frame {match[1]}{path}"

    def frame_names(self) -> list[str]:
        """Names of all frames that were announced, in order."""
        names, path = dict[str, None](), self._root.at(_FRAMES)
        try:
            with open_regular(path) as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        name = parse_json(line, str)
                        if PurePath(name).name == name and "\0" not in name:
                            names[name] = None
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        return list(names)

    def _object_folders(self) -> list[str]:
        """Folders of single objects, below the output folder."""
        objects = self._root.at("objects")
        try:
            names = os.listdir(objects)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise output_error(error, objects) from error
        return [f"objects/{name}" for name in names if name.isdecimal()]

    def _frame_files(self) -> Iterator[str]:
        """All files that there may be for the frames that were announced, below the output folder."""
        names = self.frame_names()
        endings = {"masks": "png", "probs": "npz"} | dict.fromkeys(self._object_folders(), "png")
        for folder, ending in endings.items():
            if (self.path / folder).is_dir():
                yield from (f"{folder}/{name}.{ending}" for name in names)

    def _finished(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The summary of a complete run, or None where files are missing."""
        names, summary = self.frame_names(), self.summary()
        if len(names) != summary["frames"]:
            raise _damaged(self.path / _SUMMARY, "it counts other frames than there are")
        self.refills = not all(self._root.at(name).is_file() for name in self._results(names, record["outputs"]))
        if self.refills:
            return None
        self._forget()  # a run that was killed right after its last file did not
        return summary

    def _results(self, names: Sequence[str], outputs: Sequence[str]) -> Iterator[str]:
        """All files that a complete run has written, below the output folder."""
        yield from [CSV, *(["overlay.mp4"] if "overlay" in outputs else [])]
        for index, name in enumerate(names, self._first):
            yield f"masks/{name}.png"
            yield from [f"probs/{name}.npz"] if "probs" in outputs else []
            if "objects" in outputs:
                yield from (f"objects/{number}/{name}.png" for number in known_ids(self._masks, index, self._direction))

    def _clear(self) -> None:
        """Remove the files of an earlier run and no others; its record goes last, so that a kill does no harm."""
        forget_steps(self.path)  # first: an earlier version must not come back in the place of the run that starts now
        # The summary goes in any case: it would say that the run which starts now is complete.
        # Where the second pass stands means nothing without the state behind it, so that one goes later.
        gone = [_SUMMARY, CSV, SIGNS, EXPORTS, _SECOND, STATE, _BACK]
        with contextlib.suppress(OSError, ValueError):
            if "overlay" in read_json(self.path / RECORD, _Earlier).outputs:
                gone.append("overlay.mp4")
        gone += (*self._frame_files(), *self._cell_files(), *self._numbered(_GIVEN), REQUEST, _FRAMES, RECORD)
        for name in gone:
            self._root.at(name)  # all are looked at before the first one goes
        for name in gone:
            self._root.remove(name)
        for folder in (*self._object_folders(), *RESULTS[:3], _GIVEN):
            with contextlib.suppress(OSError):  # others have files there
                (self.path / folder).rmdir()
        self.forget_cells()


def _damaged(path: Path, why: object, fix: str = _START) -> OutputError:
    return OutputError(f"cannot resume: {shown(path)} is damaged ({shown(why)}); {fix}")


def _saved_type(state_type: type[Any]) -> Any:
    """What is saved of a run with a method whose state has a type."""
    state: Any = state_type | None
    fields = [("state", state), ("ids", tuple[int, ...]), ("done", int), ("adapt", AdaptState | None)]
    return dataclasses.make_dataclass("Saved", fields, frozen=True)


def fingerprint(source: Path) -> dict[str, Any]:
    """What a clip is recognised by: name, size, and a hash of both ends of the file or of the names in the folder."""
    hashed = hashlib.sha256()
    try:
        if source.is_dir():
            files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
            for path in files:
                hashed.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            return {"name": source.name, "files": len(files), "sha256": hashed.hexdigest()}
        size = source.stat().st_size
        with source.open("rb") as file:
            hashed.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            hashed.update(file.read(_EDGE_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {shown(source)}: {error.strerror}") from error
    return {"name": source.name, "bytes": size, "sha256_of_ends": hashed.hexdigest()}


def digest(labels: LabelMap) -> str:
    """Hash of a label map."""
    return hashlib.sha256(bytes(labels.ids) + labels.pixels.contiguous().numpy().tobytes()).hexdigest()
