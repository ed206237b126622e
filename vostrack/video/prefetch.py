"""Decodes beside the model: a thread keeps a few frames ready."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from vostrack.types import Frame, FrameStream


class Prefetch:
    """A stream read ahead by a thread; a `FrameStream` itself.

    An error of the source is raised where the frame would have come; closing stops the thread, wherever it is.

    Attributes:
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
        self.busy = self.waited = 0.0
        self._stream = stream
        self._depth = depth
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vostrack-reader")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order, until this is closed; raises what the source raises."""
        frames = iter(self._stream)
        ahead: deque[Future[Frame | None]] = deque()
        while not self._closed:
            # One more than are kept ready: the one that is taken next.
            while self._depth and len(ahead) <= self._depth:
                ahead.append(self._pool.submit(self._read, frames))
            start = time.perf_counter()
            frame = ahead.popleft().result() if ahead else self._read(frames)
            self.waited += time.perf_counter() - start
            if frame is None:
                return
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
