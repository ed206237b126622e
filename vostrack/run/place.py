"""Where clips are, and where results go, and whether that is free. Imports no torch: a refusal takes no time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vostrack.errors import InputError, OutputError, OutputExistsError
from vostrack.files import nearest, shown

RESULTS = ("masks", "objects", "probs", "overlay.mp4", "summary.json", "confidence.csv")
"""What users find in an output folder, folders first."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)", re.DOTALL)

HIDDEN = ".vostrack"
MOVES = f"{HIDDEN}/moves.json"
RECORD, STATE = f"{HIDDEN}/run.json", f"{HIDDEN}/state.safetensors"
EXPORTS = f"{HIDDEN}/exports.json"
REQUEST = f"{HIDDEN}/request.json"
REVIEW, WORST = "review.html", f"{HIDDEN}/worst.jpg"


def default_folder(source: Path) -> Path:
    """`<clip>_vostrack` next to the clip."""
    source = Path(os.path.abspath(source))  # not resolved: the results of a link lie beside the link
    return source.with_name(f"{clip_name(source)}_vostrack")


def clip_name(source: Path) -> str:
    """What a clip is called: the name of a folder, and that of a file without its ending."""
    return source.name if source.is_dir() else source.stem


def held(path: Path) -> str:
    """What a folder holds of a run, its first result or an unfinished run; empty if there is nothing."""
    there = next((name for name in RESULTS if os.path.lexists(path / name)), "")
    return there or ("an unfinished run" if os.path.exists(path / STATE) else "")


def check_free(path: Path, overwrite: bool, resume: bool) -> None:
    """Raise `OutputExistsError` where a folder holds results that are neither to be replaced nor gone on with."""
    if os.path.exists(path / MOVES):  # versions are being exchanged: whoever has the lock finishes that first
        return
    ours, there = os.path.exists(path / RECORD), held(path)
    if there and not overwrite and not (resume and ours):
        what = "`resume=True` to go on, `overwrite=True` to start again" if ours else "`overwrite=True`"
        raise OutputExistsError(f"{shown(path)} holds {there} already: choose another `out`, or {what}")


def check_run(path: Path) -> None:
    """Raise `OutputError` where there is no output folder of a run."""
    if not path.exists():
        raise OutputError(f"cannot find {shown(path)}{nearest(path) or ': give the output folder of a run'}")
    if not (path / HIDDEN).is_dir():
        raise OutputError(f"{shown(path)} is not the output folder of a run: give the one that `segment` wrote")


def check_clip(source: Path) -> None:
    """Raise `InputError` where the clip of a run is not where it was."""
    if not source.exists():
        raise InputError(f"cannot find the clip {shown(source)}: say where it is with `clip`")


def address(path: str | Path) -> str | None:
    """The address that a path is, of which `Path` folds two slashes into one; None for a path of this machine.

    `s3://bucket/dog.mp4` is one. Those that name files here, or that stand in others, are none.
    """
    match = _ADDRESS.fullmatch(path.as_posix() if isinstance(path, Path) else path)
    if match is None or match[1] in ("file", "local") or "::" in match[2] or ".." in match[2].split("/"):
        return None
    return f"{match[1]}://{match[2]}"


def below(base: Path, path: str | Path) -> Path:
    """A path from a folder on, where it is neither absolute nor an address."""
    return Path(path) if address(path) else base / path
