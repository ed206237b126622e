"""Video files through PyAV (FFmpeg): one pass, one decoder, frames in order of presentation.

A file comes from anywhere, so nothing in it is trusted: it may not name other files or addresses, its claims about
sizes are checked before memory is taken, and whatever FFmpeg says about it becomes an `InputError`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from torch import Tensor

from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video.pixels import PictureConverter
from vostrack.video.stream import MAX_PIXELS, NOMINAL_RATE, ClipStream, check_size, first_line, size_text

BROKEN = (av.FFmpegError, OSError, ValueError)
"""What PyAV raises: it also lets errors of Python's file and of its text decoding through."""

DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
"""What the decoder is told: it must not take in more pixels than that."""

# Every thread holds a frame of its own, so their number bounds the memory.
_MAX_THREADS = 8
# Frames that a container may promise in excess before it is worth a note; muxers miscount by one or two.
_MISCOUNT = 2
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
# FFmpeg draws text files as a film of a terminal.
_TEXT_ART = {"ansi", "bintext", "idf", "xbin"}
# A repeated stamp is set off by a tenth of a frame, so that the correct stamps after it stay as they are.
_NUDGE = Fraction(1, 10)


class VideoStream(ClipStream):
    """Frames of a video file.

    Args:
        path: a regular file.

    Raises:
        InputError: the file holds no video, or one that cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self._where = f"video {str(path)!r}"
        self._damaged = 0
        with ExitStack() as stack:
            try:
                self._container = stack.enter_context(open_container(path))
            except BROKEN as error:
                raise InputError(
                    f"{self._where} cannot be opened: expected a complete video such as .mp4, .mkv or .webm that names "
                    f"no other file, found: {first_line(error)}; get an undamaged copy or convert it"
                ) from error
            self._video = _pick_video(self._container, self._where)
            self._pictures = self._decode()
            try:
                self._picture = next(self._pictures, None)
                if self._picture is None:
                    raise InputError(f"{self._where} holds no frame; give a video with at least one")
                self._describe(self._picture)
            except BROKEN as error:
                raise InputError(f"{self._where} cannot be decoded: {first_line(error)}; convert it first") from error
            self._resources = stack.pop_all()

    def _describe(self, first: av.VideoFrame) -> None:
        self.stored_size = (first.height, first.width)
        self._convert = PictureConverter(first, self._video.sample_aspect_ratio)
        self.size = self._convert.size
        check_size(self.size, self._where)
        rate = self._video.average_rate or self._video.guessed_rate
        self.fps = rate if rate and rate > 0 else None
        self.count = _promised_frames(self._container, self._video)
        lasts = self._container.duration
        self.seconds = lasts / av.time_base if lasts and lasts > 0 else None
        self.notes += self._convert.notes

    def _frames(self) -> Iterator[Frame]:
        clock = Clock(self._video.time_base or Fraction(1), 1 / (self.fps or NOMINAL_RATE))
        picture, self._picture = self._picture, None
        index = 0
        while picture is not None:
            time = clock.read(stamp_of(picture, self._container))
            yield Frame(index, time, self._image(index, picture), f"{index:05d}")
            index += 1
            try:
                picture = next(self._pictures, None)
            except BROKEN as error:
                raise InputError(
                    f"{self._where} breaks off at frame {index}, after {float(time):.2f} s: {first_line(error)}; "
                    "get an undamaged copy, or cut it there to use the frames before"
                ) from error
        if self._damaged:
            self.notes.append(f"damaged packets in the file: {self._damaged}; some frames may look broken")
        if self.count is not None and index < self.count - _MISCOUNT:
            self.notes.append(f"the file promises {self.count} frames, {index} could be decoded")

    def _image(self, index: int, picture: av.VideoFrame) -> Tensor:
        size = (picture.height, picture.width)
        if size != self.stored_size:
            raise InputError(
                f"{self._where} changes its size at frame {index}: {size_text(size)} after "
                f"{size_text(self.stored_size)}; cut it there and read the parts one by one"
            )
        try:
            return self._convert(picture)
        except BROKEN as error:
            raise InputError(
                f"{self._where}: pixel format {picture.format.name!r} of frame {index} cannot be turned into RGB "
                f"({first_line(error)}); convert it first"
            ) from error

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Pictures in order of presentation; raises what PyAV raises."""
        begun = False
        failure: Exception | None = None
        failures = 0
        for packet in self._container.demux(self._video):
            self._damaged += packet.is_corrupt
            try:
                pictures = packet.decode()
            except BROKEN as error:
                if begun:
                    raise
                # A piece cut out of a longer stream starts with packets that refer to frames before the cut.
                failure, failures = error, failures + 1
                continue
            if pictures and failures and not begun:
                self.notes.append(f"packets left out at the start, since they cannot be decoded: {failures}")
            begun = begun or bool(pictures)
            yield from pictures
        if failure and not begun:
            raise failure

    def _release(self) -> None:
        self._pictures = iter(())
        self._picture = None
        self._resources.close()


class Clock:
    """Turns stamps, which may be missing, repeated or start anew, into seconds from the first frame, which only rise.

    Args:
        tick: seconds that one unit of a stamp lasts, > 0.
        step: seconds that a frame is expected to last, > 0.
    """

    def __init__(self, tick: Fraction, step: Fraction) -> None:
        self._tick = tick
        self._step = step
        self._last = -step
        self._origin: Fraction | None = None

    def read(self, stamp: int | None) -> Fraction:
        """Time of the next frame in seconds: 0 for the first, and later than the frame before for all others.

        Args:
            stamp: presentation stamp in ticks, of any origin; None where the source has none.
        """
        expected = self._last + self._step
        if stamp is None:
            time = expected
        else:
            if self._origin is None:
                self._origin = stamp * self._tick - expected
            time = stamp * self._tick - self._origin
            if time <= self._last - self._step:
                # Stamps that jump back belong to a recording that was appended: its first frame follows the last.
                self._origin += time - expected
                time = expected
            elif time <= self._last:
                time = self._last + self._step * _NUDGE
        self._last = time
        return time


class _LocalFile(io.BufferedReader):
    """The one file that FFmpeg may read."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Seek, and answer -1 as C does where that is impossible: PyAV prints exceptions that FFmpeg passes over."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a file that lies on this machine, and nothing that it may refer to; raises one of `BROKEN`."""
    # FFmpeg reads through Python's file and may open no other: playlists could name any file or address.
    closed = {"protocol_whitelist": "none"}
    with (
        _LocalFile(io.FileIO(path)) as file,
        av.open(file, "r", options=DECODER_OPTIONS, container_options=closed, metadata_errors="replace") as container,
    ):
        yield container


def shown_stream(container: InputContainer) -> av.VideoStream | None:
    """The stream of moving pictures that players choose too, if there is one; a cover is none."""
    videos = [video for video in container.streams.video if not video.disposition & _COVER]
    best = container.streams.best("video")
    return best if isinstance(best, av.VideoStream) and best in videos else next(iter(videos), None)


def stamp_of(item: Packet[av.VideoStream] | av.VideoFrame, container: InputContainer) -> int | None:
    """When something is shown, in ticks of its stream."""
    # AVI keeps no presentation times; what it hands out as such is out of order where the codec reorders frames.
    return item.dts if container.format.name == "avi" else item.pts


def _pick_video(container: InputContainer, where: str) -> av.VideoStream:
    if container.format.name.endswith("_pipe"):
        raise InputError(f"{where} is a single image; put the images of a clip into a folder and give the folder")
    video = shown_stream(container)
    if video is None:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise InputError(f"{where} has no video stream (found: {found}); give a file with moving pictures")
    # PyAV's stubs do not say that a stream without a decoder has no context.
    if getattr(video, "codec_context", None) is None:
        raise InputError(f"{where} uses a codec that this build of FFmpeg cannot decode; convert it to H.264 first")
    if video.codec_context.name in _TEXT_ART:
        raise InputError(f"{where} is a text file; give a video")
    check_size((video.height, video.width), where)
    video.codec_context.options = dict(DECODER_OPTIONS)
    video.thread_type = ThreadType.AUTO
    video.thread_count = min(os.cpu_count() or 1, _MAX_THREADS)
    return video


def _promised_frames(container: InputContainer, video: av.VideoStream) -> int | None:
    """How many frames the container says it has, or None where it does not say."""
    if not video.frames:
        return None
    if "mov" not in container.format.name.split(","):
        return video.frames
    # A clip that was trimmed on a phone still holds the frames outside of the cut; its index says which are shown.
    return min(video.frames, sum(not entry.is_discard for entry in video.index_entries))
