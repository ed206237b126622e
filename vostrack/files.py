"""The only place that writes result files: a file under its final name is complete, whatever happens meanwhile.

Everything goes to a temporary file in the same folder, is flushed to the disk and then renamed, so that a kill, a crash
or a full disk leaves at most a `.vostrack-*.part` behind. A lock keeps a second process out of an output folder;
whoever gets it clears these away. Knows nothing about masks or video.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import socket
import stat
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from vostrack.errors import InputError, InUseError, OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_MOST_BYTES = 64 << 20
LOCK_NAME = ".vostrack.lock"
_LONGEST = 400
_MOST_NAMES = 2000
# Deeper folders break programs that walk through them, also those that should delete them.
_MOST_PARTS = 200
_PREFIX, _SUFFIX = ".vostrack-", ".part"
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_ELSEWHERE = "choose another output folder"
_CAUSES = {
    errno.EACCES: f"no permission; change the permissions or {_ELSEWHERE}",
    errno.EPERM: f"no permission; change the permissions or {_ELSEWHERE}",
    errno.EROFS: f"the file system is read-only; {_ELSEWHERE}",
    errno.ENAMETOOLONG: "the name is too long for this file system; shorten the names or the path of the output folder",
    errno.ENOTDIR: f"a part of this path is a file, not a folder; {_ELSEWHERE}",
    errno.EEXIST: f"a file of this name is in the way; remove it or {_ELSEWHERE}",
    errno.EISDIR: f"a folder of this name is in the way; remove it or {_ELSEWHERE}",
    errno.ENOENT: "the folder does not exist or was removed meanwhile; create it and run again",
    errno.EFBIG: f"the file is larger than the file system or a limit (ulimit -f) allows; {_ELSEWHERE}",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or run fewer jobs at once",
}


def partial_name() -> str:
    """A new name for a file that is not finished yet."""
    return f"{_PREFIX}{secrets.token_hex(6)}{_SUFFIX}"


class PartialFile:
    """A file that is being written under a temporary name; as a context, commits or discards itself.

    Attributes:
        final: the name that it gets in the end.
        path: where to write; on the disk of the final file, so that the rename is atomic.
    """

    def __init__(self, final: Path, needed: int | None = None, path: Path | None = None) -> None:
        """Take the final name, in a folder that exists, and, where known, the size in bytes and where it is written."""
        self.final, self._needed = final, needed
        # A short name of our own: the final name may be as long as the file system allows.
        self.path = path or final.with_name(partial_name())

    def commit(self) -> None:
        """Flush the file to the disk and give it its final name, replacing what was there.

        Raises:
            OutputError: this failed; the temporary file is gone and the final name is as before.
        """
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.path, self.final)
        except OSError as error:
            raise self.failure(error) from error
        except BaseException:
            self.discard()
            raise
        _flush_folder(self.final.parent)

    def discard(self) -> None:
        """Delete the temporary file, if it is there."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.commit()
            return
        if isinstance(error, OSError):
            raise self.failure(error) from error
        self.discard()

    def failure(self, error: OSError) -> OutputError:
        """Discard the file and say why; measures it first, since what it took so far is needed at least."""
        needed = self._needed
        if needed is None:
            with contextlib.suppress(OSError):
                needed = self.path.stat().st_size
        self.discard()
        return output_error(error, self.final, needed)


def atomic_path(path: Path) -> PartialFile:
    """Give a temporary path to a `with` block; it becomes `path` when the block ends well, else it is deleted.

    Any `OSError` in the block or in the rename becomes an `OutputError`.
    """
    return PartialFile(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically.

    Raises:
        OutputError: it could not be written; `path` is as before.
    """
    # "x" refuses to follow a link that somebody planted under the temporary name.
    with PartialFile(path, len(data)) as partial, partial.open("xb") as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with the line ends of `text`; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; equal values give equal bytes; see `write_bytes`.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def make_folder(path: Path) -> None:
    """Create a folder and its parents; one that is there already is fine.

    Raises:
        OutputError: it cannot be created, or a file is in the way.
    """
    if len(path.parts) > _MOST_PARTS:
        raise OutputError(f"cannot write below {shown(path)[:60]} ...: the path has too many parts")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, path) from error


class OutputRoot:
    """A folder of results: every path below it that is written, appended to, deleted or read back goes through it.

    The folder itself may be a link, since its owner chose it. A link below it could lead to files of others, and a pipe
    or a device would keep whoever opens it waiting for ever; both are refused.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created yet."""
        self.path = path

    def at(self, name: str | Path) -> Path:
        """The path of a file or a folder below, which need not be there.

        Raises:
            OutputError: there is a link, a pipe or a device on the way.
        """
        path = self.path / name
        for part in (path, *path.parents):
            if part == self.path:
                break
            try:
                mode = os.lstat(part).st_mode
            except OSError:
                continue  # whoever opens it says why
            if stat.S_ISLNK(mode):
                raise OutputError(f"{shown(part)} is a link that may lead out of the output folder; remove it")
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OutputError(f"{shown(part)} is neither a file nor a folder; remove it")
        return path

    def new(self, name: str | Path, needed: int | None = None) -> PartialFile:
        """A file below to be written; creates its folder."""
        path = self.at(name)
        if not path.parent.is_dir():
            make_folder(path.parent)
        return PartialFile(path, needed)

    def write(self, name: str | Path, data: bytes) -> None:
        """Write a file below atomically; see `write_bytes`."""
        write_bytes(self.new(name).final, data)

    def write_json(self, name: str | Path, value: Any) -> None:
        """Write a JSON file below atomically; see `write_json`."""
        write_json(self.new(name).final, value)

    def append(self, name: str | Path, text: str) -> None:
        """Add text to a file below."""
        path = self.at(name)
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise output_error(error, path) from error

    def remove(self, name: str | Path) -> None:
        """Delete a file below, if it is there."""
        path = self.at(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(error, path) from error


def _remove_partials(folder: Path) -> None:
    """Delete what killed runs left in a folder and below it, but not through links or in folders with a lock.

    The partial files of a run that still works look the same, hence the lock. Raises `OutputError`.
    """
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not Path(parent, name, LOCK_NAME).exists()]
        for name in names:
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                try:
                    Path(parent, name).unlink()
                except OSError as error:
                    raise output_error(error, Path(parent, name)) from error


@contextlib.contextmanager
def lock_folder(path: Path, waits: bool = False) -> Iterator[bool]:
    """Keep other processes out of an output folder, which is created if need be, until the block ends.

    Files that a killed process has not finished, there and below, are deleted first. Where another process has the
    lock, it is an error, or one `waits`: use that only where nobody keeps it for long.
    The operating system drops the lock with the process, so that a killed run leaves a file behind but no lock.

    Yields:
        Whether there is a lock: a few network file systems have none, and there the users must take care themselves.

    Raises:
        InUseError: another process works in the folder.
        OutputError: the folder or the lock file cannot be created, or an unfinished file not be deleted.
    """
    make_folder(path)
    name = path / LOCK_NAME
    try:
        descriptor, locked = _acquire(name, waits)
    except OSError as error:
        raise output_error(error, name) from error
    try:
        if locked:
            _remove_partials(path)
        yield locked
    finally:
        if sys.platform == "win32":  # cannot delete an open file
            os.close(descriptor)
        # Deleted before the lock goes, or the file of the next owner could be hit.
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(descriptor)


def _acquire(name: Path, waits: bool) -> tuple[int, bool]:
    """Open and lock a lock file; returns its descriptor and whether it is locked."""
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, "it is not a regular file; delete it")
            locked = _try_lock(descriptor, name, waits)
            # The owner before us may have deleted the file after we opened it: then we hold a file without a name.
            if not locked or sys.platform == "win32" or _same_file(descriptor, name):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int, name: Path, waits: bool) -> bool:
    """Lock an open file or raise `InUseError`; False where the file system has no locks."""
    try:
        if sys.platform == "win32":
            # Windows also keeps others from reading a locked byte, so lock one behind the text.
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno not in _HELD:
            raise
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
        raise InUseError(
            f"the output folder {shown(name.parent)} is in use by {shown(owner)}: wait until that ends, or stop it"
        ) from None
    return True


def _same_file(descriptor: int, name: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    return False


def _flush_folder(path: Path) -> None:
    """Make a rename survive a power cut, where the system can; the file itself is complete in any case."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def sha256(path: Path) -> str:
    """Hash of a file as 64 hexadecimal digits, read piece by piece; raises `InputError` where it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {shown(path)}: {getattr(error, 'strerror', None) or error}") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, if it is one: a pipe or a device could keep the reader waiting for ever.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return open(descriptor, "rb")


def read_json(path: Path, kind: Any = Any, most: int = _MOST_BYTES) -> Any:
    """JSON of a declared shape, from a file that anyone may have written.

    Args:
        path: of the file.
        kind: what it must hold, as a type: `dict[str, int]`, `list[Entry]` with a dataclass, `str | None`, `Any`.
        most: bytes that it may have.

    Returns:
        A value of that type; dataclasses are built, and keys that one does not have are left out.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no regular file, too large, not UTF-8, not JSON, nested too deeply, or of another shape.
    """
    return _parsed(path, json.loads, kind, most)


def read_toml(path: Path, kind: Any = Any, most: int = _MOST_BYTES) -> Any:
    """TOML of a declared shape; see `read_json`."""
    return _parsed(path, tomllib.loads, kind, most)


def parse_json(text: str | bytes, kind: Any = Any) -> Any:
    """JSON of a declared shape from text; raises `ValueError` as `read_json` does."""
    return _of_shape(json.loads, text, kind)


def plain(value: Any) -> Any:
    """A value as JSON gives it back: with lists for tuples."""
    return json.loads(json.dumps(value))


def _parsed(path: Path, parse: Callable[[str], Any], kind: Any, most: int) -> Any:
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return _of_shape(parse, data, kind)


def _of_shape(parse: Callable[[str], Any], text: str | bytes, kind: Any) -> Any:
    try:
        return shaped(parse(text.decode() if isinstance(text, bytes) else text), kind)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shaped(value: Any, kind: Any, where: str = "it") -> Any:
    """A value that was read, checked against a type and, where that is a dataclass, built.

    Raises:
        ValueError: it is of another type, a number that is not finite, a whole number beyond 64 bits, or text that
            cannot be written as UTF-8.
    """
    if kind is Any:
        kind = dict[str, Any] if isinstance(value, dict) else list[Any] if isinstance(value, list) else type(value)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (option for option in inner if option is not type(None))
        return shaped(value, kind, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints, required = _declared(typing.cast(type, kind))
        if missing := [name for name in required if name not in value]:
            raise ValueError(f"{where} lacks {missing[0]!r}")
        build = typing.cast(Any, kind)
        return build(**{name: shaped(value[name], hints[name], name) for name in hints if name in value})
    if origin is dict and isinstance(value, dict):
        return {shaped(key, inner[0], "a key"): shaped(item, inner[1], shown(key)) for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        return origin(shaped(item, inner[0], f"an entry of {where}") for item in value)
    if kind is float and type(value) is int and abs(value) < 1 << 63:
        value = float(value)
    plain = origin or kind
    if dataclasses.is_dataclass(kind) or not isinstance(value, plain) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {type(value).__name__}, expected {getattr(kind, '__name__', kind)}")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError(f"{where} is a number of more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is not finite")
    if isinstance(value, str):
        value.encode(errors="surrogateescape")  # as in names of files; other lone surrogates could not be written again
    return value


@functools.cache
def _declared(kind: type) -> tuple[dict[str, Any], list[str]]:
    """Types of a dataclass's fields, and those without a default of either kind; found once, since that is slow."""
    return typing.get_type_hints(kind), [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory]


def output_error(error: OSError, path: Path, needed: int | None = None) -> OutputError:
    """The one-line `OutputError` for what the operating system said.

    Args:
        error: what it said.
        path: the file or folder that was to be written.
        needed: the size of the file in bytes, or what it has reached, where known.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
        sizes = [] if needed is None else [f"at least {needed:,} bytes needed"]
        with contextlib.suppress(OSError):
            sizes.append(f"{shutil.disk_usage(path.parent).free:,} bytes free")
        cause = f"{what} ({', '.join(sizes)}); free some space or {_ELSEWHERE}"
    else:
        cause = _CAUSES.get(error.errno or 0) or f"{error.strerror or error}; {_ELSEWHERE}"
    return OutputError(f"cannot write {shown(path)}: {cause}")


def shown(text: object) -> str:
    """A path or name for a message: `escaped`, and without its middle where it is very long."""
    words = str(text)
    return escaped(words if len(words) <= _LONGEST else f"{words[: _LONGEST // 2]} ... {words[-_LONGEST // 2 :]}")


def nearest(path: Path) -> str:
    """What a path that is not there may have meant, for a message; empty if nothing beside it has a similar name."""
    if os.path.lexists(path):
        return ""
    with contextlib.suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for _, entry in zip(range(_MOST_NAMES), entries, strict=False) if entry.name != path.name]
        for close in difflib.get_close_matches(path.name, names, n=1, cutoff=0.7):
            return f"; did you mean {shown(path.with_name(close))}?"
    return ""


def escaped(text: str) -> str:
    """Text on one line, in which control characters, which could steer a terminal, are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
