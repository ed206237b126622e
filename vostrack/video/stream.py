"""What every opened clip has in common: it is read once, perhaps ahead, it is closed, and it never holds too much.

Knows nothing of containers or image files; `container.VideoStream` and the streams of `images` fill it in.
"""

from __future__ import annotations

import errno
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from threading import Lock
from typing import TYPE_CHECKING, Self

from vostrack.errors import InputError
from vostrack.notes import Note
from vostrack.types import Frame, FrameStream

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 8192 * 8192
"""Frames with more pixels are refused: a header of a few bytes must not decide how much memory is taken."""

_MOST_STRETCH = 0.02
"""Beyond this share, resizing would stretch objects."""

NOMINAL_RATE = Fraction(24)
"""Frames a second where a source has no rate of its own, such as a folder of images."""


def no_image() -> Tensor:
    """What stands for an image that is not needed; uint8 (3, 0, 0)."""
    import torch  # here, and where images are made: headers of thousands of clips are read without it

    return torch.empty(3, 0, 0, dtype=torch.uint8)


def file_names(stream: FrameStream) -> Sequence[str]:
    """Names of the files that the frames of a stream are, in order; none where they are not in files of their own."""
    return stream.files if isinstance(stream, ClipStream) else ()


class ClipStream(ABC):
    """Frames of a clip, read once from first to last; implements the `FrameStream` protocol.

    Its attributes are those of `FrameStream`; `notes` may grow until the last frame was read. A subclass sets `size`,
    `stored_size`, `fps` and `count` when it opens its source, and adds to `notes`.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    fps: Fraction | None
    count: int | None
    seconds: float | None = None
    """How long the clip claims to be, if it does."""
    timed = True
    """Whether its frames have times of their own."""
    files: Sequence[str] = ()
    """Names of the files that its frames are, in order; none where they are all in one."""
    images_from: int = 0
    """Number of the first frame whose image is needed; those before come with `no_image`, and cost less."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[Note] = []
        self._started = False
        self._closed = False
        # Closing a container under a running decoder is a crash of the interpreter, so the two take turns.
        self._turn = Lock()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order of presentation.

        Raises:
            InputError: the source breaks off, a frame cannot be decoded, or its size changes.
            RuntimeError: the clip was iterated before, or it is closed.
        """
        self._check_open()
        if self._started:
            raise RuntimeError(f"the clip {self.name!r} was read already; open it again to read it again")
        self._started = True
        return self._in_turn(self._frames())

    def close(self) -> None:
        """Release the source; may be called more than once and from any thread."""
        with self._turn:
            if not self._closed:
                self._closed = True
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Yield the frames; called at most once."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of files and decoders; called at most once."""

    def _in_turn(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        while True:
            with self._turn:
                self._check_open()
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"the clip {self.name!r} is closed")


class Prefetch:
    """A stream read ahead by a thread; a `FrameStream` itself.

    An error of the source is raised where the frame would have come; closing stops the thread, wherever it is.

    Attributes:
        first: number of the first frame, once that was given.
        busy: seconds that the source took to give its frames.
        waited: seconds that the reader of this stream had to wait for frames.
    """

    def __init__(self, stream: FrameStream, depth: int = 4) -> None:
        """Take over a stream; closing this closes it.

        Args:
            stream: not yet iterated.
            depth: frames that are kept ready, at most; 0 to read without a thread.
        """
        self.name, self.size, self.stored_size = stream.name, stream.size, stream.stored_size
        self.fps, self.count, self.notes = stream.fps, stream.count, stream.notes
        self.first, self.busy, self.waited = 0, 0.0, 0.0
        self._stream = stream
        self._depth = depth
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vostrack-reader")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order, until this is closed; raises what the source raises."""
        frames = iter(self._stream)
        ahead: deque[Future[Frame | None]] = deque()
        begun = False
        while not self._closed:
            # One more than are kept ready: the one that is taken next.
            while self._depth and len(ahead) <= self._depth:
                ahead.append(self._pool.submit(self._read, frames))
            start = time.perf_counter()
            frame = ahead.popleft().result() if ahead else self._read(frames)
            self.waited += time.perf_counter() - start
            if frame is None:
                return
            if not begun:
                self.first, begun = frame.index, True
            yield frame

    def _read(self, frames: Iterator[Frame]) -> Frame | None:
        start = time.perf_counter()
        frame = next(frames, None)
        self.busy += time.perf_counter() - start
        return frame

    def close(self) -> None:
        """Stop reading ahead and release the source; may be called more than once."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def size_text(size: tuple[int, int]) -> str:
    """A size (H, W) as people write it: width first."""
    height, width = size
    return f"{width}x{height}"


def is_stretched(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one of two sizes (H, W) cannot be resized to the other without stretching what it shows."""
    return abs(size[1] * other[0] / max(size[0] * other[1], 1) - 1) > _MOST_STRETCH


def check_size(size: tuple[int, int], where: str) -> None:
    """Refuse a frame that is empty or larger than `MAX_PIXELS`, before memory is taken for it.

    Args:
        size: (H, W) that a header or a decoder claims.
        where: the source, as it is named in the message.

    Raises:
        InputError: the size is out of bounds.
    """
    height, width = size
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(
            f"{where} has frames of {size_text(size)}, and 1 to {MAX_PIXELS} pixels are accepted; scale it down first"
        )


def first_line(error: Exception) -> str:
    """Why a library gave up, without the numbers and paths that it adds."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())


def reason(error: Exception, fix: str = "get an undamaged copy, or convert it first") -> str:
    """Why a file cannot be read and what to do; that is `fix`, unless the fault does not lie in the file.

    Args:
        error: what a library or the system raised.
        fix: what mends the file.
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit (ulimit -n) or run fewer jobs at once"
    return f"{first_line(error)}; {fix}"
