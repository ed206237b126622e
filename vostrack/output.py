"""The output folder of a run: what may be replaced, what can be resumed, and what is complete.

Beside the results lies a hidden folder with the record of what was asked for and, while a run is under way, its saved
state. Nothing is deleted that this program did not write.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vostrack.errors import InputError, OutputError, OutputExistsError
from vostrack.files import make_folder, output_error, remove_partials, shown, write_json
from vostrack.propagate import Progress
from vostrack.state import load_state, save_state
from vostrack.types import Frame, LabelMap, Prediction

_HIDDEN = ".vostrack"
_FOLDERS = ("masks", "objects", "probs", _HIDDEN)
_FILES = ("overlay.mp4", "summary.json")
_EDGE_BYTES = 1 << 20


class OutputFolder:
    """Where the results of one run go."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created yet."""
        self.path = path
        self._record = path / _HIDDEN / "run.json"
        self._state = path / _HIDDEN / "state.safetensors"

    def refuse_inputs(self, inputs: Sequence[Path]) -> None:
        """Raise `OutputError` where the results would go among the inputs, which must never be touched."""
        here = self.path.resolve()
        for path in inputs:
            source = path.resolve()
            if source == here or here in source.parents:
                raise OutputError(f"{shown(path)} lies in the output folder {shown(self.path)}: choose another --out")

    def prepare(self, record: Mapping[str, Any], overwrite: bool, resume: bool) -> dict[str, Any] | None:
        """Make the folder ready; call it under the folder's lock.

        Args:
            record: everything that decides what the results will be.
            overwrite: replace the results of an earlier run.
            resume: go on with an earlier run of the same record.

        Returns:
            The summary of a run that is complete already, else None.

        Raises:
            OutputExistsError: results are there and neither was asked for.
            OutputError: the earlier run had other inputs or settings, or the folder cannot be written.
        """
        remove_partials(self.path)
        there = [name for name in (*_FOLDERS, *_FILES) if (self.path / name).exists()]
        if resume and self._record.exists():
            self._check_same(record)
            if (self.path / "summary.json").exists():
                return self._finished()
            return None
        if there and not overwrite:
            what = "--resume to go on, --overwrite to start again" if self._record.exists() else "--overwrite"
            raise OutputExistsError(f"{shown(self.path)} holds {there[0]} already: choose another --out, or {what}")
        if there:
            self._clear()
        make_folder(self._record.parent)
        write_json(self._record, record)
        return None

    def load_progress(self, state_type: type[Any], device: torch.device) -> Progress:
        """Where the earlier run stopped; its beginning where it saved nothing."""
        if not self._state.exists():
            return Progress()
        saved = load_state(self._state, dataclasses.make_dataclass("Saved", _saved_fields(state_type), frozen=True))
        return Progress(to_device(saved.state, device), saved.ids, saved.next_frame)

    def save_progress(self, progress: Progress) -> None:
        """Save where a run stands; all results up to there must be on the disk."""
        save_state(self._state, progress)

    def read_prediction(self, frame: Frame, prompts: Mapping[int, LabelMap]) -> Prediction:
        """The result of a frame that an earlier run has done.

        Raises:
            OutputError: its mask is missing, damaged or of another size.
        """
        path = self.path / "masks" / f"{frame.name}.png"
        try:
            with Image.open(path, formats=["PNG"]) as image:
                if image.mode != "P" or (image.height, image.width) != tuple(frame.image.shape[1:]):
                    raise ValueError("another size or kind of image")
                pixels = np.array(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OutputError(
                f"cannot resume: {shown(path)} is damaged ({error}); start again with --overwrite"
            ) from error
        ids = dict.fromkeys(i for at, prompt in sorted(prompts.items()) if at <= frame.index for i in prompt.ids)
        return Prediction(frame, LabelMap(torch.from_numpy(pixels), tuple(ids)))

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, which marks the run as complete, and drop the saved state."""
        write_json(self.path / "summary.json", summary)
        self._state.unlink(missing_ok=True)

    def _check_same(self, record: Mapping[str, Any]) -> None:
        try:
            earlier = json.loads(self._record.read_text())
        except (OSError, ValueError) as error:
            raise OutputError(
                f"cannot resume: {shown(self._record)} is damaged; start again with --overwrite"
            ) from error
        # Through JSON once, so that tuples compare equal to the lists that they became.
        now = json.loads(json.dumps(record))
        differ = [key for key in sorted({*earlier, *now}) if earlier.get(key) != now.get(key)]
        if differ:
            raise OutputError(
                f"cannot resume in {shown(self.path)}: {', '.join(differ)} changed since: "
                "use --overwrite or another --out"
            )

    def _finished(self) -> dict[str, Any]:
        try:
            summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
            complete = len(list((self.path / "masks").glob("*.png"))) == summary["frames"]
        except (OSError, ValueError, KeyError):
            complete = False
        if not complete:
            raise OutputError(f"{shown(self.path)} says it is complete, but masks are missing: use --overwrite")
        return summary

    def _clear(self) -> None:
        """Remove an earlier run, if it is one of ours; single files of others are only replaced."""
        if not self._record.exists():
            return
        try:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                folder = self.path / name
                if folder.is_symlink():
                    folder.unlink()
                elif folder.exists():
                    shutil.rmtree(folder)
        except OSError as error:
            raise output_error(error, self.path) from error


def _saved_fields(state_type: type[Any]) -> list[tuple[str, Any]]:
    return [("state", state_type | None), ("ids", tuple[int, ...]), ("next_frame", int)]


def to_device(state: Any, device: torch.device) -> Any:
    """A state with all its tensors on a device."""
    if isinstance(state, torch.Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(to_device(item, device) for item in state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = dataclasses.fields(state)
        return dataclasses.replace(state, **{f.name: to_device(getattr(state, f.name), device) for f in fields})
    return state


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
