"""Decodes beside the model: a thread keeps a few frames ready.

An error of the source is raised where the frame would have come; closing stops the thread, wherever it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from vostrack.types import Frame, FrameStream

_END = object()


class Prefetch:
    """A stream read ahead by a thread; a `FrameStream` itself.

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
        self._ready: Queue[object] = Queue(depth)
        self._stop = Event()
        self._thread: Thread | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order, until this is closed; raises what the source raises."""
        if not self._depth:
            yield from self._here()
            return
        self._thread = Thread(target=self._read, name="vostrack-reader", daemon=True)
        self._thread.start()
        while not self._stop.is_set():
            start = time.perf_counter()
            item = self._ready.get()
            self.waited += time.perf_counter() - start
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            assert isinstance(item, Frame)
            yield item

    def _here(self) -> Iterator[Frame]:
        """Frames read in the caller's thread, who waits for each."""
        start = time.perf_counter()
        for frame in self._stream:
            spent = time.perf_counter() - start
            self.busy, self.waited = self.busy + spent, self.waited + spent
            yield frame
            start = time.perf_counter()

    def _read(self) -> None:
        start = time.perf_counter()
        try:
            for frame in self._stream:
                self.busy += time.perf_counter() - start
                self._ready.put(frame)
                if self._stop.is_set():
                    return
                start = time.perf_counter()
            self._ready.put(_END)
        except BaseException as error:
            self._ready.put(error)

    def close(self) -> None:
        """Stop reading ahead and release the source; may be called more than once."""
        self._stop.set()
        while self._thread is not None and self._thread.is_alive():
            # The thread may be waiting for room; it looks at the stop sign as soon as it gets some.
            try:
                self._ready.get_nowait()
            except Empty:
                self._thread.join(0.05)
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
