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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vostrack.adapt.adaptation import AdaptState
from vostrack.device import to_device
from vostrack.errors import InputError, OutputError, OutputExistsError
from vostrack.files import make_folder, output_error, remove_partials, shown, write_json
from vostrack.propagate import EnginePosition, known_ids
from vostrack.run.state import load_state, save_state
from vostrack.types import Frame, LabelMap, Prediction

_RESULTS = ("masks", "objects", "probs", "overlay.mp4", "summary.json")
_EDGE_BYTES = 1 << 20


class OutputFolder:
    """Where the results of one run go."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created yet."""
        self.path = path
        self._hidden = path / ".vostrack"
        self._record = self._hidden / "run.json"
        self._frames = self._hidden / "frames.jsonl"
        self._state = self._hidden / "state.safetensors"
        self._second_pass = self._hidden / "second_pass.json"

    def refuse_inputs(self, inputs: Sequence[Path]) -> None:
        """Raise `OutputError` where the results would go among the inputs, which must never be touched."""
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
            The summary of a run that is complete already, else None.

        Raises:
            OutputExistsError: results are there and neither was asked for.
            OutputError: the earlier run had other inputs or settings, or the folder cannot be written.
        """
        remove_partials(self.path)
        ours = self._record.exists()
        if resume and ours:
            self._check_same(record)
            return self._finished() if (self.path / "summary.json").exists() else None
        there = [name for name in _RESULTS if os.path.lexists(self.path / name)]
        if not there and self._state.exists():
            there = ["an unfinished run"]
        if there and not overwrite:
            what = "`resume=True` to go on, `overwrite=True` to start again" if ours else "`overwrite=True`"
            raise OutputExistsError(f"{shown(self.path)} holds {there[0]} already: choose another `out`, or {what}")
        if ours or there:
            self._clear()
        make_folder(self._hidden)
        write_json(self._record, record)
        return None

    def load_position(self, state_type: type[Any], device: torch.device) -> tuple[EnginePosition, AdaptState | None]:
        """Where the earlier run and its adaptation, if it has one, stopped; their beginning where it saved nothing."""
        if not self._state.exists():
            return EnginePosition(), None
        saved = load_state(self._state, _saved_type(state_type))
        return EnginePosition(to_device(saved.state, device), saved.ids, saved.next_frame), saved.adapt

    def save_position(self, position: EnginePosition, adapt: AdaptState | None = None) -> None:
        """Save where a run and its adaptation stand; all results up to there must be on the disk."""
        saved = {"state": position.state, "ids": position.ids, "next_frame": position.next_frame, "adapt": adapt}
        save_state(self._state, _saved_type(type(position.state))(**saved))

    def load_second_pass(self) -> int:
        """The first frame that the second pass of an earlier run has not done.

        Raises:
            OutputError: the file is damaged.
        """
        try:
            saved = json.loads(self._second_pass.read_text(encoding="utf-8"))
            if not isinstance(saved, dict) or type(saved.get("next_frame")) is not int or saved["next_frame"] < 0:
                raise ValueError("it names no frame")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise OutputError(
                f"cannot resume: {shown(self._second_pass)} is damaged ({error}); start again with `overwrite=True`"
            ) from error
        return int(saved["next_frame"])

    def save_second_pass(self, next_frame: int) -> None:
        """Save where the second pass stands; all its results up to there must be on the disk."""
        write_json(self._second_pass, {"next_frame": next_frame})

    def announce(self, frame: Frame) -> None:
        """Record that files for a frame come next: a run that overwrites removes these and nobody else's."""
        try:
            with self._frames.open("a", encoding="utf-8") as file:
                # The line break comes first, so that a line which a kill or a full disk cut off harms no other.
                file.write(f"\n{json.dumps(frame.name)}")
        except OSError as error:
            raise output_error(error, self._frames) from error

    def read_prediction(self, frame: Frame, prompts: Mapping[int, LabelMap]) -> Prediction:
        """The result of a frame that an earlier run has done.

        Raises:
            OutputError: its mask is missing, damaged or of another size.
        """
        path = self.path / "masks" / f"{frame.name}.png"
        ids = known_ids(prompts, frame.index)
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()  # the checksums, which reading alone does not look at; it closes the image
            with Image.open(path, formats=["PNG"]) as image:
                if image.mode != "P" or (image.height, image.width) != tuple(frame.image.shape[1:]):
                    raise ValueError("another size or kind of image")
                pixels = np.array(image)
            if not {0, *ids} >= set(np.unique(pixels).tolist()):
                raise ValueError("it holds other objects")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OutputError(
                f"cannot resume: {shown(path)} is damaged ({error}); start again with `overwrite=True`"
            ) from error
        return Prediction(frame, LabelMap(torch.from_numpy(pixels), ids))

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, which marks the run as complete, and drop the saved state."""
        write_json(self.path / "summary.json", summary)
        self._forget()

    def _forget(self) -> None:
        """Drop where a run stands."""
        for path in (self._state, self._second_pass):
            path.unlink(missing_ok=True)

    def _check_same(self, record: Mapping[str, Any]) -> None:
        earlier = self._earlier()
        if not earlier:
            raise OutputError(f"cannot resume: {shown(self._record)} is damaged; start again with `overwrite=True`")
        differ = [key for key in sorted({*earlier, *record}) if earlier.get(key) != record.get(key)]
        if differ:
            raise OutputError(
                f"cannot resume in {shown(self.path)}: {', '.join(differ)} changed since: "
                "use `overwrite=True` or another `out`"
            )

    def _earlier(self) -> dict[str, Any]:
        """The record of the earlier run; empty where it is damaged."""
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(self._record.read_text(encoding="utf-8"))
            return record if isinstance(record, dict) else {}
        return {}

    def _frame_names(self) -> set[str]:
        """Names of all frames that were announced."""
        names = set()
        with contextlib.suppress(FileNotFoundError):
            for line in self._frames.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    name = json.loads(line)
                    if isinstance(name, str) and Path(name).name == name:
                        names.add(name)
        return names

    def _frame_files(self) -> Iterator[Path]:
        """All files that there may be for the frames that were announced."""
        names = self._frame_names()
        objects = self.path / "objects"
        kinds = {self.path / "masks": "png", self.path / "probs": "npz"}
        if objects.is_dir() and not objects.is_symlink():
            kinds |= {folder: "png" for folder in objects.iterdir() if folder.name.isdecimal()}
        for folder, ending in kinds.items():
            if folder.is_dir() and not folder.is_symlink():
                yield from (folder / f"{name}.{ending}" for name in names)

    def _finished(self) -> dict[str, Any]:
        names = self._frame_names()
        try:
            summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
            complete = len(names) == summary["frames"]
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        complete = complete and all((self.path / "masks" / f"{name}.png").is_file() for name in names)
        if not complete:
            raise OutputError(f"{shown(self.path)} says it is complete, but masks are missing: use `overwrite=True`")
        self._forget()  # a run that was killed right after its last file did not
        return summary

    def _clear(self) -> None:
        """Remove the files of an earlier run and no others; its record goes last, so that a kill does no harm."""
        # The summary goes in any case: it would say that the run which starts now is complete.
        # Where the second pass stands means nothing without the state behind it, so that one goes later.
        gone = [self.path / "summary.json", self._second_pass, self._state]
        if "overlay" in self._earlier().get("outputs", ()):
            gone.append(self.path / "overlay.mp4")
        try:
            for path in (*gone, *self._frame_files(), self._frames, self._record):
                path.unlink(missing_ok=True)
            for folder in (*(self.path / "objects").glob("*/"), *(self.path / name for name in _RESULTS[:3])):
                with contextlib.suppress(OSError):  # others have files there, or it is a link
                    folder.rmdir()
        except OSError as error:
            raise output_error(error, self.path) from error


def _saved_type(state_type: type[Any]) -> Any:
    """What is saved of a run with a method whose state has a type."""
    state: Any = state_type | None
    fields = [("state", state), ("ids", tuple[int, ...]), ("next_frame", int), ("adapt", AdaptState | None)]
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
