"""Object stores and other remote files, through fsspec: what is there, fetched or sent, file by file.

An address is kept as a `Path`, which folds its two slashes into one; only `address` makes it whole again. Names are
those of others: nothing is matched as a pattern, and nothing is written out of the folder that it is fetched to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vostrack.errors import InputError, OutputError, VostrackError, damage_as
from vostrack.files import OutputRoot, shown
from vostrack.run.place import address

_AT_ONCE, _MOST_ASKED, _MOST_FILES = 8, 32, 1_000_000


class Remote:
    """A file or a folder in a store.

    Attributes:
        address: of it.
    """

    def __init__(self, path: Path | str) -> None:
        """Take an address, also as a path.

        Raises:
            VostrackError: fsspec, or its package for this kind of store, is missing.
        """
        self.address = address(path) or str(path)
        try:
            from fsspec.core import url_to_fs

            self._store, self._name = url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise VostrackError(
                f"cannot reach {shown(self.address)} ({shown(error)}): pip install 'vostrack[cloud]', or the package "
                "of fsspec for this kind of store"
            ) from error

    def fingerprint(self) -> str:
        """Tells a file, or the files of a folder, from others; raises `InputError` where there is nothing."""
        with self._reading():
            info = self._store.info(self._name)
            files = self._files() if info["type"] == "directory" else {"": info}
        return repr([(name, each.get("size"), _tag(each)) for name, each in sorted(files.items())])

    def fetch(self, to: Path, most: int) -> int:
        """Copy a file, or the files of a folder, to a path.

        Args:
            to: where to, new.
            most: bytes that there is room for.

        Returns:
            How many bytes it has.

        Raises:
            InputError: it is not there, cannot be read, or has more.
        """
        with self._reading():
            info = self._store.info(self._name)
            is_folder = info["type"] == "directory"
            files = self._files() if is_folder else {"": info}
            size = sum(int(each.get("size") or 0) for each in files.values())
            if size > most:
                raise InputError(f"{shown(self.address)} has {size:,} bytes, and scratch has room for {most:,}")
            root = OutputRoot(to if is_folder else to.parent)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda name: self._get(root, name, to.name), files))
        return size

    def _get(self, root: OutputRoot, name: str, own: str) -> None:
        with root.new(name or own) as partial:
            self._store.get_file(f"{self._name}/{name}" if name else self._name, str(partial))

    def read(self, name: str) -> bytes | None:
        """The content of a file below, or None where there is none."""
        with self._reading():
            try:
                return bytes(self._store.cat_file(f"{self._name}/{name}"))
            except FileNotFoundError:
                return None

    def names(self, deep: bool = False) -> list[str]:
        """Files in this folder, and below it if deep; none where it is not there."""
        with self._reading():
            return sorted(self._files(deep)) if self._store.exists(self._name) else []

    def write(self, name: str, data: bytes) -> None:
        """Write a file below; raises `OutputError`."""
        with self._writing():
            self._store.pipe_file(f"{self._name}/{name}", data)

    def exists(self) -> bool:
        """Whether there is a file or a folder; raises `InputError` where that cannot be told."""
        with self._reading():
            return bool(self._store.exists(self._name))

    def send(self, path: Path, ours: Collection[str] = (), first: str | None = None, last: str | None = None) -> None:
        """Copy a file, or the files of a folder, to this address.

        Args:
            path: on this machine.
            ours: names of files and folders in a folder in which nothing but what is sent stays.
            first: name of the file of a folder that is sent first, as it tells which files are ours.
            last: name of the file of a folder that is sent last: while it is missing, they are not complete.

        Raises:
            OutputError: one cannot be written.
        """
        names = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
        with self._writing():
            if path.is_file():
                self._store.put_file(str(path), self._name)
                return
            there = self._files(deep=True) if self._store.exists(self._name) else {}
            for name in sorted(there, key=lambda name: name != last):
                if name == last or (name not in names and not {name, name.partition("/")[0]}.isdisjoint(ours)):
                    self._store.rm_file(f"{self._name}/{name}")
            if first is not None:
                self._put(path, first)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda name: self._put(path, name), sorted(names - {first, last})))
            if last is not None:
                self._put(path, last)

    def _put(self, folder: Path, name: str) -> None:
        self._store.put_file(str(folder / name), f"{self._name}/{name}")

    def _files(self, deep: bool = False) -> dict[str, Any]:
        """What a store says of files in a folder, and below it if deep, by name from there; raises `InputError`."""
        prefix, files = f"{self._name.rstrip('/')}/", dict[str, Any]()
        for each in self._store.find(self._name, maxdepth=None if deep else 1, detail=True).values():
            name = str(each["name"]).removeprefix(prefix)
            if each["type"] != "file" or name in ("", each["name"]):
                continue
            if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in name.split("/")):
                raise InputError(f"{shown(self.address)} holds {shown(name)!r}, which is no name for a file: rename it")
            files[name] = each
            if len(files) > _MOST_FILES:
                raise InputError(f"{shown(self.address)} holds more than {_MOST_FILES:,} files")
        return files

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._store.invalidate_cache()  # of listings, which may be as old as the process

        def refusal(error: Exception) -> InputError:
            if isinstance(error, FileNotFoundError):
                return InputError(f"there is nothing at {shown(self.address)}: check the address")
            return InputError(f"cannot read {shown(self.address)}: {shown(' '.join(str(error).split()))}")

        with damage_as(refusal, VostrackError):  # each store has errors of its own
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        def refusal(error: Exception) -> OutputError:
            return OutputError(f"cannot write {shown(self.address)}: {shown(' '.join(str(error).split()))}")

        with damage_as(refusal, VostrackError):
            yield


def _tag(info: dict[str, Any]) -> str:
    """What changes with a file, as stores call it."""
    return str(next((info[name] for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if name in info), ""))


def faults(paths: Collection[Path]) -> dict[Path, str]:
    """Why files or folders in stores cannot be read, or ""; many are asked for at a time."""

    def fault(path: Path) -> str:
        try:
            Remote(path).fingerprint()
        except VostrackError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_MOST_ASKED) as pool:
        return dict(zip(paths, pool.map(fault, paths), strict=True))
