"""The overlay as a video; `drawing` draws its frames.

It is H.264 with the time of every frame kept, and the source's audio packets as they are: they are copied one by
one, and left out with a note where an MP4 file cannot hold them. The same predictions give the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, PartialFile, make_folder, shown
from vostrack.notes import Code, Note
from vostrack.types import Prediction
from vostrack.video.container import BROKEN, open_container, shown_stream, stamp_of
from vostrack.video.drawing import Painter, Pixels
from vostrack.video.look import Look
from vostrack.video.stream import NOMINAL_RATE, first_line

# Ticks a second at least, so that any rate is met well, and at most, so that a long gap still fits into an MP4 file.
_TICKS, _MOST_TICKS = 90_000, 1_000_000
# So many frames, at most, stand in a file before one that is shown earlier.
_MOST_REORDERED = 16


class OverlayWriter:
    """Writes `overlay.mp4`; nothing is there under that name before `finish`.

    Attributes:
        notes: what became of the audio, where it could not be kept.
    """

    def __init__(self, folder: Path, *, source: Path | None, fps: Fraction | None, look: Look | None = None) -> None:
        """Nothing is opened before the first frame; see `writer.Destination` for the arguments."""
        self.notes: list[Note] = []
        self._folder = folder
        self._partial = PartialFile(OutputRoot(folder).at("overlay.mp4"))
        self._source_path = source
        self._fps = fps or NOMINAL_RATE
        self._painter = Painter(look)
        self._movie: _Movie | None = None
        self._start = Fraction(0)

    def write(self, prediction: Prediction) -> None:
        """Draw and encode a frame; raises `OutputError`."""
        frame = prediction.frame
        if self._movie is None:
            self._start = frame.time  # of a range, which may begin anywhere
        picture = _even(self._painter.draw(frame.image, prediction.labels.pixels.cpu().numpy(), frame.index))
        with self._reported():
            if self._movie is None:
                make_folder(self._folder)
                self._movie = _Movie(self._partial.path, picture.shape[:2], self._fps, self._open_source())
            self._movie.add(picture, frame.time - self._start)

    def finish(self) -> None:
        """Complete the file, or make none where there was no frame; raises `OutputError`."""
        if self._movie is not None:
            with self._reported():
                self._movie.finish()
            self._partial.commit()

    def abort(self) -> None:
        """Drop the file."""
        # Deleted first: closing a movie that is gone fails fast, instead of rewriting all of it for a fast start.
        self._partial.discard()
        if self._movie is not None:
            self._movie.close()
            self._partial.discard()  # again, for systems that keep open files

    def _open_source(self) -> _Source | None:
        try:
            return _Source(self._source_path, self.notes, self._start) if self._source_path else None
        except BROKEN as error:
            why = first_line(error)
            text = f"no audio in the overlay: {shown(self._source_path)} cannot be read again: {why}"
            self.notes.append(Note(Code.AUDIO_DAMAGED, text))
            return None

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what FFmpeg and the system report into an `OutputError`."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            # FFmpeg says these two for anything that it does not like.
            if isinstance(error, OSError) and error.errno not in (errno.EPERM, errno.EINVAL):
                raise self._partial.failure(error) from error
            raise OutputError(f"cannot write overlay.mp4: {first_line(error)}; leave out the overlay") from error


class _Source:
    """What an overlay takes over from its source: the unit of time, the audio, and how long the last frame lasts."""

    def __init__(self, path: Path, notes: list[Note], start: Fraction) -> None:
        self._path = path
        self._is_part = start > 0
        self._notes = notes
        self._damaged = False
        with contextlib.ExitStack() as stack:
            self._container, video = stack.enter_context(_open_source(path))
            self.time_base = video.time_base or Fraction(1, _TICKS)
            self._start = _first_stamp(path) * self.time_base + start
            self.audio = self._choose_audio()
            self._packets = self._shifted(self.audio) if self.audio else iter(())
            self._next = next(self._packets, None)
            self._resources = stack.pop_all()

    def audio_until(self, time: Fraction | None) -> Iterator[Packet[AudioStream]]:
        """The audio packets not given yet that start before a time of the overlay; all of them for None."""
        while (packet := self._next) is not None and (time is None or (packet.pts or 0) * packet.time_base < time):
            yield packet
            self._next = next(self._packets, None)

    def last_frame(self, time: Fraction) -> tuple[Fraction, bool]:
        """How long the frame at a time lasts in seconds, 0 if unknown, and whether the source goes on after it."""
        stamp, lasts = round((self._start + time) / self.time_base), 0
        later: list[int] = []
        with contextlib.suppress(*BROKEN), _open_source(self._path) as (container, video):
            container.seek(stamp, stream=video)
            for packet in container.demux(video):
                found = stamp_of(packet, container)
                # What an edit list cuts off is still in the file.
                if found is None or packet.is_discard:
                    continue
                if found > stamp:
                    later.append(found)  # not the next one at first where frames are reordered
                elif found == stamp:
                    lasts = packet.duration or 0
                if len(later) > _MOST_REORDERED:
                    break
        return (min(later) - stamp if later else lasts) * self.time_base, bool(later)

    def report_damage(self, error: Exception) -> None:
        """Note, once, that audio is missing."""
        if not self._damaged:
            text = f"audio is missing in the overlay: {shown(self._path)} is damaged: {first_line(error)}"
            self._notes.append(Note(Code.AUDIO_DAMAGED, text))
        self._damaged = True

    def close(self) -> None:
        """Let go of the file."""
        self._resources.close()

    def _choose_audio(self) -> AudioStream | None:
        """The audio stream that players choose too, if an MP4 file can hold it as it is."""
        audio = self._container.streams.best("audio")
        if not isinstance(audio, AudioStream):
            return None
        try:
            # A trial, since some codecs are refused only when the header is written.
            with av.open(io.BytesIO(), "w", format="mp4") as trial:
                trial.add_stream_from_template(audio)
                trial.start_encoding()
        except BROKEN:
            text = f"no audio in the overlay: an MP4 file cannot hold {audio.codec_context.name}"
            self._notes.append(Note(Code.AUDIO_LEFT_OUT, text))
            return None
        return audio

    def _shifted(self, audio: AudioStream) -> Iterator[Packet[AudioStream]]:
        """The audio packets, of a part those that start in it, on a clock that is 0 at the first frame."""
        last: int | None = None
        try:
            for packet in self._container.demux(audio):
                # A file that is cut or glued may repeat times, which an MP4 file cannot express.
                if packet.pts is None or packet.dts is None or (last is not None and packet.dts <= last):
                    continue
                last = packet.dts
                shift = round(self._start / packet.time_base)
                if self._is_part and packet.pts < shift:
                    continue
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield packet
        except BROKEN as error:
            self.report_damage(error)


@contextlib.contextmanager
def _open_source(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with open_container(path) as container:
        video = shown_stream(container)
        if video is None:
            raise ValueError("it has no video stream any more")
        yield container, video


def _first_stamp(path: Path) -> int:
    """Stamp of the first frame that can be decoded: the overlay's time 0."""
    with _open_source(path) as (container, video):
        for packet in container.demux(video):
            with contextlib.suppress(av.FFmpegError):
                for frame in packet.decode():
                    return stamp_of(frame, container) or 0
    return 0


class _Movie:
    """An MP4 file that is being written."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, source: _Source | None) -> None:
        self._source = source
        self._tick = _tick(source.time_base if source else 1 / fps)
        self._last = -1
        self._gap = max(round(1 / fps / self._tick), 1)
        self._held: Packet[VideoStream] | None = None
        flags = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(path.absolute()), "w", format="mp4", container_options=flags)
        # Frames that are not reordered (bf) need no edit list, so every player shows each at its own time.
        options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        self._video = add_h264(self._container, size, fps, self._tick, options, threads=2)
        audio = source.audio if source else None
        self._audio = self._container.add_stream_from_template(audio) if audio else None

    def add(self, picture: Pixels, time: Fraction) -> None:
        """Encode an image that is shown from a time on, and copy the audio up to there."""
        pts = max(round(time / self._tick), self._last + 1)
        if self._last >= 0:
            self._gap = pts - self._last
        self._last = pts
        frame = yuv_frame(picture)
        frame.pts, frame.time_base = pts, self._tick
        self._mux_video(self._video.encode(frame))
        self._mux_audio(time)

    def finish(self) -> None:
        """Write the rest."""
        self._mux_video(self._video.encode(None))
        lasts, goes_on = self._source.last_frame(self._last * self._tick) if self._source else (Fraction(0), False)
        gap = round(lasts / self._tick) or self._gap
        if self._held is not None:
            self._held.duration = gap
            self._container.mux(self._held)
        self._mux_audio((self._last + gap) * self._tick if goes_on else None)
        self._container.close()
        if self._source:
            self._source.close()

    def close(self) -> None:
        """Let go of the files, whatever becomes of them."""
        with contextlib.suppress(av.FFmpegError, OSError):
            self._container.close()
        if self._source:
            self._source.close()

    def _mux_video(self, packets: Iterable[Packet[VideoStream]]) -> None:
        """Write packets, one late: the last one carries the last frame's duration."""
        for packet in packets:
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet

    def _mux_audio(self, until: Fraction | None) -> None:
        if self._source and self._audio is not None:
            for packet in self._source.audio_until(until):
                packet.stream = self._audio
                try:
                    self._container.mux(packet)
                except av.error.InvalidDataError as error:  # no reason to lose the video
                    self._source.report_damage(error)


def add_h264(
    container: OutputContainer,
    size: tuple[int, int],
    rate: Fraction,
    tick: Fraction,
    options: dict[str, str],
    threads: int,
) -> VideoStream:
    """Add a stream of H.264 in BT.709 and limited range to a file; the same frames give the same bytes.

    Args:
        container: the file.
        size: (H, W) in pixels, both even.
        rate: frames a second.
        tick: seconds that a unit of time lasts.
        options: of the encoder.
        threads: of the encoder; the bytes depend on it.
    """
    stream = container.add_stream("libx264", rate=rate.limit_denominator(100_000), options=options, time_base=tick)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = threads
    context.flags |= Flags.bitexact
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited
    return stream


def yuv_frame(picture: Pixels) -> av.VideoFrame:
    """A picture, uint8 (H, W, 3) RGB, as what `add_h264` encodes."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def _tick(time_base: Fraction) -> Fraction:
    """A unit of time that holds the times of a source exactly."""
    ticks = time_base.denominator * math.ceil(_TICKS / time_base.denominator)
    return Fraction(1, min(ticks, _MOST_TICKS))


def _even(picture: Pixels) -> Pixels:
    """Repeat the last row and column where the size is odd, since H.264 halves the size of the colour planes."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
