"""What is written as a whole, or not at all: a file, or a folder, which can be gone on with after a kill.

All is written to a hidden folder beside it, whose name follows from its own. So whoever writes the same thing again
finds what a killed process has left there, and a lock, which goes with its process, keeps two from writing it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vostrack.errors import Cancelled, OutputExistsError
from vostrack.files import (
    LOCK_NAME,
    OutputRoot,
    PartialFile,
    lock_folder,
    make_folder,
    output_error,
    plain,
    read_json,
    shown,
    write_json,
)
from vostrack.notes import Code, Note
from vostrack.types import Prediction

MADE = ".vostrack-export.json"
"""The names of all files that were written to a folder, which alone may be replaced."""

_RECORD, _DONE, _NEW, _OLD = "record.json", "done", "new", "old"


class Stage:
    """Where something is written before it gets its name; a `video.writer.Writer`, which counts frames.

    Attributes:
        path: what is to be written; a folder is there.
        done: frames that an earlier process has written, all their files complete.
        notes: what became of what it left, where it cannot be gone on with.
    """

    def __init__(self, place: Path, final: Path, is_folder: bool, keeps: bool) -> None:
        """Name the hidden folder and what is written; `keeps` as for `staged`."""
        self.path, self.done, self.notes = place / _NEW / final.name, 0, list[Note]()
        self._root, self._final, self._is_folder, self._keeps = OutputRoot(place), final, is_folder, keeps

    def begin(self, record: Mapping[str, Any], overwrite: bool, resume: bool) -> None:
        """Find out what is there; raises as `staged`."""
        old = self._root.at(_OLD)
        if os.path.lexists(old) and not os.path.lexists(self._final):
            old.rename(self._final)
        if os.path.lexists(self._final) and not os.path.lexists(self.path):
            self.clear()  # a kill came right after it got its name
        check_free(self._final, self._is_folder, overwrite)
        earlier = self._root.at(_RECORD).is_file()
        if resume and earlier and self._keeps and self._is_of(record):
            with contextlib.suppress(FileNotFoundError):
                self.done = self._root.at(_DONE).stat().st_size
            return
        if resume and earlier:
            why = "it was of other masks or settings" if self._keeps else "such a file cannot be gone on with"
            self.notes.append(Note(Code.RUN_ANEW, f"the export starts at the first frame: {why}"))
        self.clear()
        self._root.write_json(_RECORD, record)
        make_folder(self.path if self._is_folder else self.path.parent)

    def _is_of(self, record: Mapping[str, Any]) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return (
                bool(read_json(self._root.at(_RECORD)) == plain(record))
                and self._root.at(f"{_NEW}/{self.path.name}").is_dir()
            )
        return False

    def write(self, prediction: Prediction) -> None:
        """Count a frame all of whose files are complete."""
        self._root.append(_DONE, ".")

    def finish(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""

    def put(self, overwrite: bool) -> None:
        """Give what was written its name; raises as `staged`."""
        check_free(self._final, self._is_folder, overwrite)
        if not self._is_folder:
            PartialFile(self._final, path=self.path).commit()
            return
        (self.path / MADE).unlink(missing_ok=True)  # of a process that was killed right after it
        write_json(self.path / MADE, _files_below(self.path))
        if self._final.exists():
            self._final.rename(self._root.at(_OLD))
        self.path.rename(self._final)

    def leave(self, error: BaseException | None) -> None:
        """Drop all, unless a person has stopped what can be gone on with."""
        old = self._root.at(_OLD)
        if old.exists() and not self._final.exists():
            old.rename(self._final)
        if not (self._keeps and (isinstance(error, Cancelled) or not isinstance(error, Exception | None))):
            self.clear()

    def clear(self) -> None:
        """Drop all that is there."""
        for entry in list(self._root.path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK_NAME:
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(
    path: Path,
    is_folder: bool,
    record: Mapping[str, Any],
    *,
    keeps: bool = False,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Stage]:
    """Give a stage to a `with` block; what is on it gets the name `path` when the block ends well, else it is dropped.

    Args:
        path: the name.
        is_folder: whether a folder is written.
        record: all that decides what is written.
        keeps: whether what a kill or a stop has left can be gone on with, frame by frame.
        overwrite: whether what is there is replaced; a folder in which others have files never is.
        resume: whether to go on with what is left of the same record.

    Raises:
        OutputExistsError: something is there already, or another process writes it.
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    place = _place(path)
    try:
        with ExitStack() as lock:
            try:
                lock.enter_context(lock_folder(place))
            except OutputExistsError:
                raise OutputExistsError(
                    f"another process is writing {shown(path)}: wait until it ends, or choose another `out`"
                ) from None
            stage, failure = Stage(place, path, is_folder, keeps), None
            stage.begin(record, overwrite, resume)
            try:
                yield stage
                stage.put(overwrite)
            except BaseException as error:
                failure = error
                raise
            finally:
                stage.leave(failure)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):  # not empty where something was kept
            place.rmdir()


def drop_rest(path: Path) -> None:
    """Drop what a process has left that was killed right after something got its name; raises `OutputError`."""
    if _place(path).is_dir():
        with contextlib.suppress(OutputExistsError), staged(path, True, {}):
            pass


def _place(path: Path) -> Path:
    """The hidden folder where something is written that gets a name."""
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return OutputRoot(path.parent).at(f".vostrack-{name}.part")


def check_free(path: Path, is_folder: bool, overwrite: bool) -> None:
    """Raise `OutputExistsError` where something is at a path already that must not be replaced."""
    if not os.path.lexists(path) or (is_folder and _is_folder(path) and not _files_below(path)):
        return
    if reason := _foreign(path, is_folder):
        raise OutputExistsError(f"{shown(path)} {reason}: choose another `out`, or move it away")
    if not overwrite:
        fix = "choose another `out`, move it away, or `overwrite=True`"
        raise OutputExistsError(f"{shown(path)} is there already: {fix}")


def _foreign(path: Path, is_folder: bool) -> str:
    """Why what is at a path is not what an earlier export has left there; "" where it is."""
    if not is_folder:
        return "is there already, and is not a file" if path.is_symlink() or not path.is_file() else ""
    if not _is_folder(path):
        return "is there already, and is not a folder"
    try:
        made, ended = read_json(path / MADE, list[str]), (path / MADE).stat().st_mtime_ns
    except (OSError, ValueError):
        made, ended = [], 0
    there = _files_below(path)
    if others := sorted(set(there) - {*made, MADE}):
        return f"holds files that no export wrote, such as {shown(others[0])}"
    changed = next((name for name in there if (path / name).lstat().st_mtime_ns > ended), "")  # the record came last
    return f"was changed after it was exported ({shown(changed)})" if changed else ""


def remove(path: Path) -> None:
    """Delete a file or a folder that `check_free` says may be replaced; raises `OutputError`."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, path) from error


def _files_below(folder: Path) -> list[str]:
    """All that is in a folder and below it but for folders, by path."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not _is_folder(path))


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()
