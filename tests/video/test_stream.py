from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.video.media import ramp, write_video
from vostrack.errors import InputError
from vostrack.types import Frame, FrameStream
from vostrack.video.reader import open_clip
from vostrack.video.stream import Prefetch


class Source:
    """A stream that counts what is asked of it, and breaks off where it is told to."""

    def __init__(self, count: int, error: BaseException | None = None, seconds: float = 0.0) -> None:
        self.name, self.size, self.stored_size = "source", (2, 2), (2, 2)
        self.fps, self.count, self.notes = Fraction(25), count, ["a note"]
        self.given = self.closed = 0
        self._error, self._seconds = error, seconds

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            time.sleep(self._seconds)
            self.given += 1
            yield Frame(index, Fraction(index), torch.zeros(3, 2, 2, dtype=torch.uint8), str(index))
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed += 1


def prefetch(source: Source, depth: int = 4) -> Prefetch:
    return Prefetch(source, depth)  # type: ignore[arg-type]


def reading() -> bool:
    return any(thread.name.startswith("vostrack-reader") for thread in threading.enumerate())


def test_frames_come_in_order_and_the_end_comes_once() -> None:
    with prefetch(Source(20)) as stream:
        assert [frame.index for frame in stream] == list(range(20))
    assert not reading()


def test_what_a_stream_says_of_itself_is_passed_on() -> None:
    source = Source(3)
    stream = prefetch(source)
    assert isinstance(stream, FrameStream)
    assert (stream.name, stream.size, stream.fps, stream.count) == ("source", (2, 2), 25, 3)
    source.notes.append("a late note")
    assert stream.notes == ["a note", "a late note"]


def test_only_so_many_frames_are_read_ahead() -> None:
    source = Source(100)
    with prefetch(source, depth=3) as stream:
        frames = iter(stream)
        next(frames)
        time.sleep(0.1)
        assert 2 <= source.given <= 5


@pytest.mark.parametrize("error", [InputError("broken"), KeyboardInterrupt(), MemoryError()])
def test_an_error_of_the_source_comes_after_its_last_good_frame(error: BaseException) -> None:
    with prefetch(Source(6, error)) as stream:
        frames = iter(stream)
        assert [next(frames).index for _ in range(6)] == list(range(6))
        with pytest.raises(type(error)) as caught:
            next(frames)
    assert caught.value is error
    assert not reading()


def test_closing_ends_a_thread_that_waits_for_room() -> None:
    source = Source(100)
    stream = prefetch(source, depth=1)
    frames = iter(stream)
    next(frames)
    time.sleep(0.05)
    start = time.monotonic()
    stream.close()
    stream.close()
    assert time.monotonic() - start < 2
    assert not reading()
    assert source.closed >= 1
    assert list(frames) == [], "a closed stream has no more frames, and nobody waits for them"


def test_closing_waits_for_the_frame_that_is_decoded() -> None:
    source = Source(100, seconds=0.05)
    with prefetch(source) as stream:
        next(iter(stream))
    assert not reading()
    assert source.given < 10


def test_closing_what_was_never_read_closes_the_source() -> None:
    source = Source(3)
    prefetch(source).close()
    assert (source.closed, source.given) == (1, 0)


def test_time_at_work_and_time_in_wait_are_told_apart() -> None:
    slow = prefetch(Source(5, seconds=0.03))
    with slow:
        assert len(list(slow)) == 5
    assert slow.busy >= 0.15
    assert slow.waited >= 0.1
    patient = prefetch(Source(5, seconds=0.01))
    with patient:
        for _ in patient:
            time.sleep(0.04)
    assert patient.waited < 0.1


def test_a_real_clip_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", ramp(12))
    with open_clip(path) as plain:
        expected = list(plain)
    with Prefetch(open_clip(path)) as stream:
        found = list(stream)
    assert [frame.time for frame in found] == [frame.time for frame in expected]
    assert all(torch.equal(one.image, other.image) for one, other in zip(found, expected, strict=True))
