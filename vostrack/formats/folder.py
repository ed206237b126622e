"""A folder that is written as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vostrack.errors import OutputExistsError
from vostrack.files import PartialFile, make_folder, output_error, read_json, shown, write_json

_MADE = ".vostrack-export.json"
"""The names of all files that were written to a folder, which alone may be replaced."""


@contextlib.contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder to a `with` block; it becomes `path` when the block ends well, else it is deleted.

    Args:
        path: that the folder gets in the end.
        overwrite: whether a folder that was made in this way is replaced; one in which others have files never is.

    Raises:
        OutputExistsError: something is there already.
        OutputError: the folder cannot be written.
    """
    _check(path, overwrite)
    make_folder(path.parent)
    partial, old = PartialFile(path).path, PartialFile(path).path
    try:
        make_folder(partial)
        yield partial
        write_json(partial / _MADE, _files_below(partial))
        _check(path, overwrite)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def _check(path: Path, overwrite: bool) -> None:
    """Raise as `atomic_folder` does where something is at `path` already that must not be replaced."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputExistsError(f"{shown(path)} is there already: choose another `out`, or `overwrite=True`")
    try:
        made = read_json(path / _MADE, list[str])
    except (OSError, ValueError):
        made = []
    if path.is_symlink() or not path.is_dir() or set(_files_below(path)) - {*made, _MADE}:
        raise OutputExistsError(f"{shown(path)} holds other files than an earlier export: choose another `out`")


def _files_below(folder: Path) -> list[str]:
    """All that is in a folder and below it but for folders, by path."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not _is_folder(path))


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()
