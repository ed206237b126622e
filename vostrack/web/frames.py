"""Frames of a clip in any order: JPEGs in a temporary folder, of all frames or, in a long clip, of those near the last
one that was asked for. A thread decodes ahead, and again where a frame is asked for that is not there any more.
"""

from __future__ import annotations

import bisect
import io
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from PIL import Image

from vostrack.errors import InputError, OutputError, VostrackError
from vostrack.files import LOCK_NAME, lock_folder
from vostrack.types import Frame
from vostrack.video.stream import ClipStream

_QUALITY, _MOST_BYTES, _PREFIX = 92, 2 << 30, "vostrack-frames-"


class FrameCache:
    """The frames of a clip as JPEGs, at the size of the clip. Neither memory nor disk grow with the length of the clip.

    Attributes:
        size: (H, W) of the frames.
        fps: frames a second, or None where the clip has no rate.
        count: how many frames there are, once all were decoded; before that, what the clip says, or None.
        ready: how many were decoded.
        error: why no more can be decoded, or "".
    """

    def __init__(self, open_stream: Callable[[], ClipStream], room: int | None = None) -> None:
        """Open a clip, and begin to decode it. What pages that were killed have left is deleted.

        Args:
            open_stream: opens it from its start, each time anew.
            room: bytes on disk that may be used; by default 2 GiB, or half of what is free if that is less.

        Raises:
            InputError: it cannot be opened.
        """
        stream = open_stream()
        self.size, self.fps, self.count, self.ready, self.error = stream.size, stream.fps, stream.count, 0, ""
        _clear_away()
        self._open, self._folder, self._lock = open_stream, tempfile.TemporaryDirectory(prefix=_PREFIX), ExitStack()
        self._lock.enter_context(lock_folder(Path(self._folder.name), waits=True))
        self._room = room if room is not None else min(_MOST_BYTES, shutil.disk_usage(self._folder.name).free // 2)
        self._names: list[str] = []
        self._kept: list[int] = []
        self._bytes: dict[int, int] = {}
        self._asked, self._near, self._used = set[int](), 0, 0
        self._news, self._closed, self._is_read = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._decode, args=(stream,), name="vostrack-frames", daemon=True)
        self._thread.start()

    def jpeg(self, index: int, seconds: float = 60) -> bytes:
        """A frame, waited for if need be.

        Raises:
            InputError: there is no such frame, or it cannot be decoded in so many seconds.
        """
        with self._news:
            self._near = index
            self._asked.add(index)
            self._news.notify_all()
            self._news.wait_for(lambda: index in self._bytes or self._closed or self._is_out_of(index), seconds)
            self._asked.discard(index)
            if index not in self._bytes:
                raise InputError(self.error or f"there is no frame {index}, or it takes too long: wait and try again")
            return self._path(index).read_bytes()

    def name(self, index: int, seconds: float = 60) -> str:
        """What files of a frame are called, which is waited for; errors as for `jpeg`."""
        with self._news:
            self._news.wait_for(lambda: index < self.ready or self._is_read or self._closed, seconds)
            if not 0 <= index < self.ready:
                raise InputError(self.error or f"there is no frame {index}")
            return self._names[index]

    def close(self) -> None:
        """Stop decoding, and delete what was kept; may be called more than once."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._thread.join()
        self._lock.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_out_of(self, index: int) -> bool:
        """Whether a frame will not come: it is asked for no more."""
        return index not in self._asked or (self._is_read and not 0 <= index < self.ready)

    def _missing(self) -> set[int]:
        return self._asked - self._bytes.keys()

    def _path(self, index: int) -> Path:
        return Path(self._folder.name) / f"{index:06d}.jpg"

    def _decode(self, first: ClipStream) -> None:
        """Read the clip to its end, and again whenever a frame is asked for that is not kept."""
        stream: ClipStream | None = first
        start, due = 0, set[int]()
        while True:
            ended, error = self._read(stream, start)
            with self._news:
                self.error = error or self.error
                if ended and not self._is_read and not self._closed:
                    self._is_read, self.count = True, self.ready
                if ended:
                    self._asked -= due - self._bytes.keys()  # they could not be had
                self._news.notify_all()
                if ended:
                    self._news.wait_for(lambda: self._closed or self._missing())
                if self._closed:
                    return
                due = self._missing()
                start = max(0, min(due, default=self.ready) - self._reach())
            stream = None

    def _read(self, stream: ClipStream | None, start: int) -> tuple[bool, str]:
        """Take frames as long as that is of use; whether that was to the end, and why the clip broke off."""
        try:
            with stream or self._open() as clip:
                clip.images_from = start
                for index, frame in enumerate(clip):
                    if not self._goes_on(max(index, start)):
                        return False, ""
                    if index >= start:
                        self._take(index, frame)
        except (VostrackError, OSError) as caught:
            return True, str(caught)
        return True, ""

    def _goes_on(self, index: int) -> bool:
        """Whether a frame is of use: waits as long as it is too far ahead of what is looked at."""
        with self._news:
            if self._is_read:
                self._news.wait_for(lambda: self._closed or self._missing() or self._is_near(index))
            return not self._closed and not any(each < index for each in self._missing())

    def _is_near(self, index: int) -> bool:
        """Whether there is room for a frame, or it is nearer to the one that is looked at than others are."""
        typical = self._used / max(len(self._kept), 1)
        return self._used + typical <= self._room or abs(index - self._near) <= self._reach()

    def _reach(self) -> int:
        """How far kept frames lie from the one that is looked at, if the room is full."""
        return int(self._room * len(self._kept) / (2 * self._used)) if self._used else 0

    def _take(self, index: int, frame: Frame) -> None:
        with self._news:
            wanted = index not in self._bytes and (index in self._asked or self._is_near(index))
        buffer = io.BytesIO()
        if wanted:
            Image.fromarray(frame.image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=_QUALITY)
        with self._news:
            if wanted:
                self._keep(index, buffer.getvalue())
            if index == self.ready:
                self._names.append(frame.name)
                self.ready += 1
            self._news.notify_all()

    def _keep(self, index: int, data: bytes) -> None:
        """Write a frame in the place of those that are farthest away."""
        while True:
            while self._kept and self._used + len(data) > self._room:
                self._drop()
            try:
                self._path(index).write_bytes(data)
                break
            except OSError:
                self._path(index).unlink(missing_ok=True)
                if not self._kept:
                    raise
                self._room = self._used  # the disk is full
        bisect.insort(self._kept, index)
        self._bytes[index] = len(data)
        self._used += len(data)

    def _drop(self) -> None:
        """Delete the kept frame that is farthest from the one that is looked at."""
        last = abs(self._kept[-1] - self._near) > abs(self._kept[0] - self._near)
        index = self._kept.pop(-1 if last else 0)
        self._used -= self._bytes.pop(index)
        self._path(index).unlink(missing_ok=True)


def _clear_away() -> None:
    """Delete folders of frames that are ours, and that nobody has locked any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, OutputError):
            found = folder.lstat()  # others may have put a link there
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == getattr(os, "getuid", lambda: 0)()
            if not is_ours or not (folder / LOCK_NAME).exists():  # without a lock, it is being made
                continue
            with lock_folder(folder) as is_locked:
                for path in folder.glob("*.jpg") if is_locked else ():
                    path.unlink()
            folder.rmdir()
