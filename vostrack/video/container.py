"""Video files through PyAV (FFmpeg): one pass, one decoder, frames in order of presentation.

A file comes from anywhere, so nothing in it is trusted: it may not name other files or addresses, its claims about
sizes are checked before memory is taken, and whatever FFmpeg says about it becomes an `InputError`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from vostrack.errors import InputError
from vostrack.notes import Code, Note
from vostrack.types import Frame
from vostrack.video.damage import Damage
from vostrack.video.fields import Decoded, deinterlaced, is_interlaced
from vostrack.video.images import is_multi_picture
from vostrack.video.pixels import PictureConverter
from vostrack.video.stream import (
    MAX_PIXELS,
    NOMINAL_RATE,
    ClipStream,
    check_size,
    first_line,
    no_image,
    reason,
    size_text,
)

if TYPE_CHECKING:
    from torch import Tensor

BROKEN = (av.FFmpegError, OSError, ValueError)
"""What PyAV raises: it also lets errors of Python's file and of its text decoding through."""

DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
"""What the decoder is told: it must not take in more pixels than that."""

# Every thread holds a frame of its own, so their number bounds the memory.
_MAX_THREADS = 8
# Frames that a container may promise in excess before it is worth a note; muxers miscount by one or two.
_MISCOUNT = 2
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
# What holds one image as well as many: whether it is a clip, the number of its pictures decides.
_STILL_FORMATS = ("_pipe", "image2", "mjpeg", "gif", "apng")
_STILL_BRANDS = {"avif", "avis", "heic", "heix", "mif1"}
_STILL_CODECS = {"bmp", "gif", "mjpeg", "png", "tiff", "webp"}
_JPEG = b"\xff\xd8\xff"
# FFmpeg draws text files as a film of a terminal.
_TEXT_ART = {"ansi", "bintext", "idf", "xbin"}
# Decoders that tell of damage only if they are asked. "explode" gives no picture; the packet is then decoded without.
_DETECT = {"mjpeg": "explode", **dict.fromkeys(("wmv1", "wmv2", "msmpeg4", "msmpeg4v1", "msmpeg4v2"), "buffer")}
# A decoder to whom packets come that show nothing.
_HIDDEN = {"vp8"}
# So many frames may lack at the end that the container names: some count the last one, some do not.
_EARLY = 3
# A repeated stamp is set off by a tenth of a frame, so that the correct stamps after it stay as they are.
_NUDGE = Fraction(1, 10)


class VideoStream(ClipStream):
    """Frames of a video file.

    Args:
        path: a regular file.
        deinterlace: whether pictures are deinterlaced.

    Raises:
        InputError: the file holds no video, or one that cannot be decoded.
    """

    def __init__(self, path: Path, deinterlace: bool = False) -> None:
        super().__init__(path.stem)
        self._where = f"video {str(path)!r}"
        self._packets = self._damaged = 0
        self._deinterlace = self._interlaced = deinterlace
        with ExitStack() as stack:
            try:
                self._container = stack.enter_context(open_container(path))
            except BROKEN as error:
                raise InputError(
                    f"{self._where} cannot be opened: expected a complete video such as .mp4, .mkv or .webm, found: "
                    f"{reason(error)}"
                ) from error
            self._video = pick_video(self._container, self._where)
            self._lenient = _lenient_decoder(self._video)
            self._pictures: Iterator[Decoded] = self._decode()
            try:
                first = next(self._pictures, None)
                if first is None:
                    raise InputError(f"{self._where} holds no frame; give a video with at least one")
                self._describe(first[0])
                ahead = [first]
                if _may_be_still(self._container, self._video):
                    ahead += self._second_picture(path)
                self._pictures = chain(ahead, self._pictures)
            except BROKEN as error:
                raise InputError(f"{self._where} cannot be decoded: {reason(error)}") from error
            self._resources = stack.pop_all()

    def _second_picture(self, path: Path) -> list[Decoded]:
        """The second picture; raises `InputError` where there is none, or only another version of the first."""
        second = None
        with suppress(*BROKEN):  # behind the image of a phone there may be anything
            second = None if is_multi_picture(path) else next(self._pictures, None)
        if second is None or (second[0].height, second[0].width) != self.stored_size:
            kind = "sound with a single image, such as a cover" if self._container.streams.audio else "a single image"
            raise InputError(
                f"{self._where} is {kind}, or only its first can be read; put the images of a clip into a folder, each "
                "as a file, and give the folder; a mask is given beside the clip"
            )
        return [second]

    def _describe(self, first: av.VideoFrame) -> None:
        self.stored_size = (first.height, first.width)
        self._convert = PictureConverter(first, self._video.sample_aspect_ratio)
        self.size = self._convert.size
        check_size(self.size, self._where)
        rate = self._video.average_rate or self._video.guessed_rate
        self.fps = rate if rate and rate > 0 else None
        self.count = promised_frames(self._container, self._video)
        lasts = self._container.duration
        self.seconds = lasts / av.time_base if lasts and lasts > 0 else None
        self._ends = _promised_end(self._container, self._video)
        self.notes += self._convert.notes
        if is_interlaced(first, self._video) and not self._deinterlace:
            text = "interlaced source, used as it is: deinterlace it if edges that move look like combs"
            self.notes.append(Note(Code.CLIP_INTERLACED, text))
        films = [video for video in self._container.streams.video if not video.disposition & _COVER]
        if len(films) > 1 and not _may_be_still(self._container, self._video):
            text = (
                f"the file has {len(films)} videos: that of {size_text(self.stored_size)} (stream {self._video.index}) "
                "is used; save another as a file of its own to use that"
            )
            self.notes.append(Note(Code.CLIP_SEVERAL, text))

    def _frames(self) -> Iterator[Frame]:
        tick, step = self._video.time_base or Fraction(1), 1 / (self.fps or NOMINAL_RATE)
        clock, damage = Clock(tick, step), Damage(step, tick)
        pictures = self._whole(self._pictures)
        index, time, end = 0, Fraction(0), Fraction(0)
        while True:
            try:
                item = next(pictures, None)
            except BROKEN as error:
                raise InputError(
                    f"{self._where} breaks off at frame {index}, after {float(time):.2f} s: {first_line(error)}; "
                    "get an undamaged copy, or cut it there to use the frames before"
                ) from error
            if item is None:
                break
            picture, damaged = item
            stamp = stamp_of(picture, self._container)
            time = clock.read(stamp)
            damage.add(index, time, damaged)
            self._interlaced |= picture.interlaced_frame
            end = max(end, ((stamp or 0) + (picture.duration or 0)) * tick)
            yield Frame(index, time, self._image(index, picture), f"{index:05d}")
            index += 1
        self.notes += self._losses(damage, index, end)

    def _whole(self, pictures: Iterator[Decoded]) -> Iterator[Decoded]:
        """Pictures of the stream in order, deinterlaced where that is wanted."""
        return deinterlaced(pictures, self._video) if self._deinterlace else pictures

    def _losses(self, damage: Damage, read: int, end: Fraction) -> list[Note]:
        """Notes on what did not come, after the last frame; `end` is when that ends, by the container's clock."""
        notes = damage.notes()
        if self._damaged and not damage.broken.count:
            text = f"damaged packets in the file: {self._damaged}; some frames may look broken"
            notes.append(Note(Code.PACKETS_DAMAGED, text))
        if read == 1 and self._container.streams.audio:
            notes.append(Note(Code.CLIP_COVER, "one frame beside sound: this may be a cover picture, not a clip"))
        counted = 0 if self._interlaced or self._video.codec_context.name in _HIDDEN else self._packets
        promised = self.count or counted
        if read < promised - _MISCOUNT:
            notes.append(Note(Code.CLIP_CUT_OFF, f"the file promises {promised} frames, {read} could be decoded"))
        elif self._ends is not None and end + _EARLY / (self.fps or NOMINAL_RATE) < self._ends:
            late = float(self._ends - end)
            text = f"the last frame ends {late:.2f} s before the file says: the end may be missing"
            notes.append(Note(Code.CLIP_CUT_OFF, text))
        return notes

    def _image(self, index: int, picture: av.VideoFrame) -> Tensor:
        if index < self.images_from:
            return no_image()
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

    def _decode(self) -> Iterator[Decoded]:
        """Pictures in order of presentation; raises what PyAV raises."""
        begun = False
        failure: Exception | None = None
        failures, stamps = 0, list[int]()
        is_cut: bool | None = None
        for packet in self._container.demux(self._video):
            self._damaged += packet.is_corrupt
            is_cut = not packet.is_keyframe if is_cut is None else is_cut
            if packet.size > 0 and not packet.is_discard:
                self._packets += 1
                if not begun and packet.pts is not None:
                    stamps.append(packet.pts)
            try:
                pictures, damaged = packet.decode(), False
            except BROKEN as error:
                pictures, damaged = self._decode_damaged(packet), True
                if not pictures and begun:
                    raise
                # A piece cut out of a longer stream starts with packets that refer to frames before the cut.
                failure, failures = error, failures + (not pictures)
            if pictures and not begun:
                begun = True
                first = pictures[0].pts
                earlier = sum(stamp < first for stamp in stamps) if first is not None else 0
                self._begin(pictures[0], max(failures, earlier), bool(is_cut))
            yield from ((picture, damaged or picture.is_corrupt) for picture in pictures)
        if failure and not begun:
            raise failure

    def _begin(self, first: av.VideoFrame, lost: int, is_cut: bool) -> None:
        """Note what lacks at the start, which shifts the numbers of frames.

        Args:
            first: the first picture.
            lost: frames before it that cannot be decoded.
            is_cut: whether the first packet builds on others.
        """
        self._packets -= lost
        if lost:
            text = f"the start is missing: {lost} frames cannot be decoded; frame 0 is the first that can"
            self.notes.append(Note(Code.CLIP_START, text))
        elif is_cut and first.pict_type in (PictureType.P, PictureType.B):
            text = "the start is missing: frame 0 builds on frames before it, and may look broken"
            self.notes.append(Note(Code.CLIP_START, text))

    def _decode_damaged(self, packet: Packet[av.VideoStream]) -> list[av.VideoFrame]:
        """What can be seen of a packet that its decoder refuses because it was asked to."""
        with suppress(*BROKEN):
            return self._lenient.decode(packet) if self._lenient else []
        return []

    def _release(self) -> None:
        self._pictures = iter(())
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
    with _LocalFile(io.FileIO(path)) as file:
        # One JPEG after the other: left to itself, FFmpeg goes by the name, and reads the first of them only.
        kind = "mjpeg" if file.peek(len(_JPEG)).startswith(_JPEG) else None
        with av.open(
            file, "r", kind, options=DECODER_OPTIONS, container_options=closed, metadata_errors="replace"
        ) as container:
            if kind is None and container.format.name == "mjpeg":
                raise ValueError("a file of another kind, such as a PDF, that holds JPEG images")
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


def pick_video(container: InputContainer, where: str) -> av.VideoStream:
    """The video that is shown, ready to be decoded; raises `InputError` where there is none that can be."""
    video = shown_stream(container)
    if video is None:
        covers = any(stream.disposition & _COVER for stream in container.streams.video)
        kinds = {stream.type for stream in container.streams} - ({"video"} if covers else set())
        found = ", ".join([*sorted(kinds), *(["a cover picture"] if covers else [])]) or "nothing"
        raise InputError(
            f"{where} has no video stream (found: {found}); give a file with moving pictures, or an undamaged copy"
        )
    # PyAV's stubs do not say that a stream without a decoder has no context.
    if getattr(video, "codec_context", None) is None:
        raise InputError(f"{where} uses a codec that this build of FFmpeg cannot decode; convert it to H.264 first")
    if video.codec_context.name in _TEXT_ART:
        raise InputError(f"{where} is a text file; give a video")
    check_size((video.height, video.width), where)
    detect = _DETECT.get(video.codec_context.name)
    video.codec_context.options = DECODER_OPTIONS | ({"err_detect": detect} if detect else {})
    video.thread_type = ThreadType.AUTO
    video.thread_count = min(os.cpu_count() or 1, _MAX_THREADS)
    return video


def _may_be_still(container: InputContainer, video: av.VideoStream) -> bool:
    is_cover = bool(container.streams.audio) and video.codec_context.name in _STILL_CODECS
    brand = container.metadata.get("major_brand")
    return is_cover or container.format.name.endswith(_STILL_FORMATS) or brand in _STILL_BRANDS


def _lenient_decoder(video: av.VideoStream) -> VideoCodecContext | None:
    """A decoder that gives a picture of what the stream's own refuses, if that refuses more than it has to."""
    codec = video.codec_context.codec
    if _DETECT.get(codec.name) != "explode":
        return None
    decoder = cast(VideoCodecContext, VideoCodecContext.create(codec, "r"))
    decoder.options = dict(DECODER_OPTIONS)
    return decoder


def promised_frames(container: InputContainer, video: av.VideoStream) -> int | None:
    """How many frames the container says it has, or None where it does not say."""
    if not video.frames:
        return None
    if "mov" not in container.format.name.split(","):
        return video.frames
    # A clip that was trimmed on a phone still holds the frames outside of the cut; its index says which are shown.
    return min(video.frames, sum(not entry.is_discard for entry in video.index_entries))


def _promised_end(container: InputContainer, video: av.VideoStream) -> Fraction | None:
    """When the last frame ends, by the container's clock, in seconds; None where it does not say."""
    if video.duration and video.time_base:
        return ((video.start_time or 0) + video.duration) * video.time_base
    # Matroska has a tag, as hours:minutes:seconds; of all streams together only the longest has the whole duration.
    if match := re.fullmatch(r"(\d{1,9}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)", video.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(Fraction, match.groups())
        return (hours * 60 + minutes) * 60 + seconds
    if len(container.streams) == 1 and container.duration:
        return Fraction(container.duration, av.time_base)
    return None
