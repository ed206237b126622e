"""Movies that are written: pictures with the times that they have in their source, and its audio.

Audio packets are copied as they are, one by one, and left out with a note where a container cannot hold them. What is
encoded without loss has the same bytes for the same pictures; x264 gives others now and then.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from vostrack.errors import OutputError
from vostrack.files import PartialFile, make_folder, shown
from vostrack.notes import Code, Note
from vostrack.video.container import BROKEN, open_container, shown_stream, stamp_of
from vostrack.video.stream import NOMINAL_RATE, first_line

# Ticks a second at least, so that any rate is met well, and at most, so that a long gap still fits into an MP4 file.
_TICKS, _MOST_TICKS = 90_000, 1_000_000
# So many frames, at most, stand in a file before one that is shown earlier.
_MOST_REORDERED = 16


@dataclass(frozen=True)
class Encoding:
    """How pictures become a movie.

    Attributes:
        container: name of its format, as FFmpeg has it.
        called: what such a file is called, "an MP4 file".
        codec: name of the encoder.
        pixels: format of the pixels that it takes.
        options: of the encoder.
        flags: of the container.
    """

    container: str
    called: str
    codec: str
    pixels: str
    options: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


class MovieWriter:
    """Writes a movie; nothing is there under its name before `finish`.

    Attributes:
        notes: what became of the audio, where it could not be kept.
    """

    def __init__(
        self, path: Path, encoding: Encoding, *, source: Path | None, fps: Fraction | None, called: str, advice: str
    ) -> None:
        """Nothing is opened before the first picture.

        Args:
            path: of the file.
            encoding: of it.
            source: the video file that pictures are of, for timing and audio; None for a folder of images.
            fps: average frame rate, where known.
            called: what it is called in notes.
            advice: what to do if it cannot be written.
        """
        self.notes: list[Note] = []
        self._partial, self._encoding = PartialFile(path), encoding
        self._source_path, self._fps = source, fps or NOMINAL_RATE
        self._called, self._advice = called, advice
        self._movie: _Movie | None = None
        self._start = Fraction(0)

    def write(self, picture: av.VideoFrame, time: Fraction) -> None:
        """Encode a picture in the pixels of the encoding, shown from a time of the source on; raises `OutputError`."""
        if self._movie is None:
            self._start = time  # of a range, which may begin anywhere
        with self._reported():
            if self._movie is None:
                make_folder(self._partial.final.parent)
                size = (picture.height, picture.width)
                self._movie = _Movie(self._partial.path, self._encoding, size, self._fps, self._open_source())
            self._movie.add(picture, time - self._start)

    def finish(self) -> None:
        """Complete the file, or make none where there was no picture; raises `OutputError`."""
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
        path = self._source_path
        try:
            return _Source(path, self._encoding, self._called, self.notes, self._start) if path else None
        except BROKEN as error:
            text = f"no audio in {self._called}: {shown(path)} cannot be read again: {first_line(error)}"
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
            name = shown(self._partial.final.name)
            raise OutputError(f"cannot write {name}: {first_line(error)}; {self._advice}") from error


class _Source:
    """What a movie takes over from its source: the unit of time, the audio, and how long the last frame lasts."""

    def __init__(self, path: Path, encoding: Encoding, called: str, notes: list[Note], start: Fraction) -> None:
        self._path, self._encoding, self._called = path, encoding, called
        self._is_part = start > 0
        self._notes = notes
        self._damaged = False
        with contextlib.ExitStack() as stack:
            self._container, video = stack.enter_context(_open_source(path))
            self.time_base = video.time_base or Fraction(1, _TICKS)
            self._start = _first_stamp(path) * self.time_base + start
            self.timecode = _timecode(self._container, video, start)
            self.audio = self._choose_audio()
            self._packets = self._shifted(self.audio) if self.audio else iter(())
            self._next = next(self._packets, None)
            self._resources = stack.pop_all()

    def audio_until(self, time: Fraction | None) -> Iterator[Packet[AudioStream]]:
        """The audio packets not given yet that start before a time of the movie; all of them for None."""
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
            text = f"audio is missing in {self._called}: {shown(self._path)} is damaged: {first_line(error)}"
            self._notes.append(Note(Code.AUDIO_DAMAGED, text))
        self._damaged = True

    def close(self) -> None:
        """Let go of the file."""
        self._resources.close()

    def _choose_audio(self) -> AudioStream | None:
        """The audio stream that players choose too, if the container can hold it as it is."""
        audio = self._container.streams.best("audio")
        if not isinstance(audio, AudioStream):
            return None
        try:
            # A trial, since some codecs are refused only when the header is written.
            with av.open(io.BytesIO(), "w", format=self._encoding.container) as trial:
                trial.add_stream_from_template(audio)
                trial.start_encoding()
        except BROKEN:
            text = f"no audio in {self._called}: {self._encoding.called} cannot hold {audio.codec_context.name}"
            self._notes.append(Note(Code.AUDIO_LEFT_OUT, text))
            return None
        return audio

    def _shifted(self, audio: AudioStream) -> Iterator[Packet[AudioStream]]:
        """The audio packets, of a part those that start in it, on a clock that is 0 at the first frame."""
        last: int | None = None
        try:
            for packet in self._container.demux(audio):
                # A file that is cut or glued may repeat times, which a movie cannot express.
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
    """Stamp of the first frame that can be decoded: the movie's time 0."""
    with _open_source(path) as (container, video):
        for packet in container.demux(video):
            with contextlib.suppress(av.FFmpegError):
                for frame in packet.decode():
                    return stamp_of(frame, container) or 0
    return 0


def _timecode(container: InputContainer, video: VideoStream, start: Fraction) -> str | None:
    """The timecode of a file at a time of its own, in seconds; None where it has none."""
    tags = [dict(each.metadata) for each in (video, *container.streams, container)]
    said = next((text for each in tags for name, text in each.items() if name.lower() == "timecode"), "")
    rate = video.average_rate or video.guessed_rate
    return later_timecode(said, round(start * rate), rate) if rate and rate > 0 else None


def later_timecode(timecode: str, frames: int, rate: Fraction) -> str | None:
    """The timecode some frames after another one; None where that is no timecode at such a rate.

    Args:
        timecode: as `10:00:00:00`; with `;` before the frames, numbers are left out to keep to the clock (SMPTE 12M).
        frames: how many.
        rate: frames a second.
    """
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)", timecode)
    each = round(rate)
    if match is None or not 0 < each <= 100:
        return None
    hours, minutes, seconds, number = (int(match[group]) for group in (1, 2, 3, 5))
    if hours > 23 or minutes > 59 or seconds > 59 or number >= each:
        return None
    # So many numbers are left out in each minute but every tenth.
    left_out = each // 15 if match[4] != ":" and each % 30 == 0 else 0
    minute, ten = 60 * each - left_out, 600 * each - 9 * left_out
    passed = hours * 60 + minutes
    count = (passed * 60 + seconds) * each + number - left_out * (passed - passed // 10) + frames
    tens, rest = divmod(count % (144 * ten), ten)
    count = count % (144 * ten) + left_out * (9 * tens + max(0, rest - left_out) // minute)
    seconds, number = divmod(count, each)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{match[4]}{number:02}"


class _Movie:
    """A file that is being written."""

    def __init__(
        self, path: Path, encoding: Encoding, size: tuple[int, int], fps: Fraction, source: _Source | None
    ) -> None:
        self._source, self._encoding = source, encoding
        self._tick = _tick(source.time_base if source else 1 / fps)
        self._last = -1
        self._gap = max(round(1 / fps / self._tick), 1)
        self._held: Packet[VideoStream] | None = None
        flags = {"fflags": "+bitexact", **encoding.flags}
        self._container = av.open(str(path.absolute()), "w", format=encoding.container, container_options=flags)
        # With two threads x264 gave other bytes for the same pictures now and then, on a machine with much to do.
        self._video = add_video(self._container, encoding, size, fps, self._tick, threads=1)
        if source and source.timecode:
            self._video.metadata["timecode"] = source.timecode
        audio = source.audio if source else None
        self._audio = self._container.add_stream_from_template(audio) if audio else None

    def add(self, frame: av.VideoFrame, time: Fraction) -> None:
        """Encode an image that is shown from a time on, and copy the audio up to there."""
        pts = max(round(time / self._tick), self._last + 1)
        if self._last >= 0:
            self._gap = pts - self._last
        self._last = pts
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


def add_video(
    container: OutputContainer, encoding: Encoding, size: tuple[int, int], rate: Fraction, tick: Fraction, threads: int
) -> VideoStream:
    """Add a stream of video in BT.709 to a file; the same frames give the same bytes.

    Args:
        container: the file.
        encoding: of the video.
        size: (H, W) in pixels; both even for H.264.
        rate: frames a second.
        tick: seconds that a unit of time lasts.
        threads: of the encoder; the bytes depend on it.
    """
    rate, options = rate.limit_denominator(100_000), dict(encoding.options)
    stream = container.add_stream(encoding.codec, rate=rate, options=options, time_base=tick)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size
    stream.pix_fmt = encoding.pixels
    context = stream.codec_context
    context.thread_count = threads
    context.flags |= Flags.bitexact
    if encoding.pixels.startswith("yuv"):
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited
    return stream


def h264(options: Mapping[str, str]) -> Encoding:
    """H.264 in an MP4 file, of pictures of even sides, with options of the encoder."""
    return Encoding("mp4", "an MP4 file", "libx264", "yuv420p", options, {"movflags": "+faststart"})


def h264_picture(picture: npt.NDArray[Any], scaler: VideoReformatter) -> av.VideoFrame:
    """A picture uint8 (H, W, 3) for `h264`, by a scaler that is kept from one to the next."""
    rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return scaler.reformat(
        rgb, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
    )


def _tick(time_base: Fraction) -> Fraction:
    """A unit of time that holds the times of a source exactly."""
    ticks = time_base.denominator * math.ceil(_TICKS / time_base.denominator)
    return Fraction(1, min(ticks, _MOST_TICKS))
