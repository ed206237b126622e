"""Clips read from a frame back to their first, in bounded memory; the frames are those that reading forwards gives.

A video is read in groups of pictures, the last one first: from a key frame on, forwards, into memory or, where they
are many, a temporary file, and from there backwards. Which frames there are, the packets tell; each group is compared
with that. Where the two differ, or a clip has no key frames to go to, all its frames go through a temporary file.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vostrack.errors import InputError
from vostrack.notes import Code, Note
from vostrack.types import Frame, FrameStream
from vostrack.video.container import BROKEN, VideoStream, open_container, shown_stream
from vostrack.video.fields import Decoded
from vostrack.video.images import FolderStream, read_image
from vostrack.video.playback import NORMAL, Playback
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream, first_line

IN_MEMORY = 32 << 20
"""Bytes of frames that are held in memory; more go to a temporary file."""

_FEWEST = 24
"""Frames in a group, at least: to seek for each takes longer than to decode."""


class InexactSeek(Exception):
    """A video cannot be entered at its key frames; `open_backwards` can read it in another way."""


def open_backwards(
    path: str | os.PathLike[str], last: int, seek: bool = True, first: int = 0, playback: Playback = NORMAL
) -> ClipStream:
    """Open a clip to be read from a frame back to an earlier one.

    Args:
        path: as for `open_clip`.
        last: index of the frame to begin with. Where the clip is shorter, it begins with its last one.
        seek: whether to read a video group by group.
        first: index of the frame to end with.
        playback: how it is read.

    Returns:
        The clip; its frames have the index, time, name and image that they have forwards.

    Raises:
        InputError: as for `open_clip`. While frames are read, also `InexactSeek`, where `seek` is set: frames that were
            given until then may be others than their index says.
    """
    stream = open_clip(path, playback)
    if isinstance(stream, FolderStream):
        stream.close()
        return _BackwardFolder(Path(path), last, first, playback)
    if isinstance(stream, VideoStream) and seek:
        stream.close()
        return _BackwardVideo(Path(path), last, first, playback)
    text = "this clip cannot be read backwards: its frames go through a temporary file"
    stream.notes.append(Note(Code.CLIP_SPOOLED, text))
    return Spooled(stream, last, first)


class _BackwardFolder(FolderStream):
    """The images of a folder, from one back to an earlier one."""

    def __init__(self, path: Path, last: int, first: int, playback: Playback) -> None:
        super().__init__(path, rate=playback.rate)
        self._indices = range(min(last, len(self._paths) - 1), first - 1, -1)
        self.count = len(self._indices)

    def _frames(self) -> Iterator[Frame]:
        for index in self._indices:
            path = self._paths[index]
            image, _, _ = read_image(path, self._bits)
            yield Frame(index, self._time(index), image, path.stem)


class _BackwardVideo(VideoStream):
    """A video, group by group."""

    def __init__(self, path: Path, last: int, first: int, playback: Playback) -> None:
        super().__init__(path, playback.deinterlace)
        self._path, self._last, self._first = path, last, first
        self.count = last + 1 - first

    def _frames(self) -> Iterator[Frame]:
        stamps, keys = _scanned(self._path)
        if self._last >= len(stamps):
            raise InexactSeek("the packets tell of fewer frames")
        tick = self._video.time_base or Fraction(1)
        ends = _group_starts(stamps, keys)
        for number in reversed(range(len(ends) - 1)):
            start, end = ends[number : number + 2]
            if start <= self._last:
                # Groups before the first frame that is wanted are decoded too: what number it has depends on them.
                wanted = range(max(start, self._first), min(end, self._last + 1))
                read = range(start, end)
                if self._deinterlace:  # what a frame becomes depends on its neighbours
                    read = range(ends[max(number - 1, 0)], min(end + 1, len(stamps)))
                for index, image in _reversed(self._group(stamps, read, wanted), wanted.start):
                    yield Frame(index, (stamps[index] - stamps[0]) * tick, image, f"{index:05d}")

    def _group(self, stamps: array[int], read: range, wanted: range) -> Iterator[Tensor]:
        """Images of those frames that are wanted, of some to read that begin with a key frame."""
        try:
            for index, (picture, _) in enumerate(self._whole(self._between(stamps, read)), read.start):
                if index in wanted:
                    yield self._image(index, picture)
        except BROKEN as error:
            raise InexactSeek(first_line(error)) from error

    def _between(self, stamps: array[int], read: range) -> Iterator[Decoded]:
        """Pictures with the stamps of some frames, which begin with a key frame."""
        expected, end = iter(stamps[read.start : read.stop]), stamps[read.stop] if read.stop < len(stamps) else None
        self._container.seek(stamps[read.start], stream=self._video)
        entered = False
        for packet in self._container.demux(self._video):
            entered |= packet.is_keyframe
            for picture in packet.decode() if entered else ():
                if picture.pts is None or picture.is_corrupt:
                    raise InexactSeek("a frame is damaged or has no time")
                if picture.pts < stamps[read.start]:
                    continue  # it belongs to the group before, and is broken here
                if end is not None and picture.pts >= end:
                    break
                if picture.pts != next(expected, None):
                    raise InexactSeek("other frames than the packets tell of")
                yield picture, False
            else:
                continue
            break
        if next(expected, None) is not None:
            raise InexactSeek("fewer frames than the packets tell of")


class Spooled(ClipStream):
    """Any clip, whose frames go through a temporary file."""

    def __init__(self, stream: FrameStream, last: int, first: int = 0) -> None:
        """Take over a stream, not yet iterated, and the indices of the frames to begin and to end with."""
        super().__init__(stream.name)
        self.size, self.stored_size, self.fps = stream.size, stream.stored_size, stream.fps
        self.count = last + 1 - first
        self._stream, self._last, self._first = stream, last, first
        if isinstance(stream, ClipStream):
            stream.images_from = first
        self.notes = stream.notes

    def _frames(self) -> Iterator[Frame]:
        told = list[tuple[Fraction, str]]()

        def images() -> Iterator[Tensor]:
            for frame in islice(self._stream, self._first, self._last + 1):
                told.append((frame.time, frame.name))
                yield frame.image

        for index, image in _reversed(images(), self._first):
            time, name = told[index - self._first]
            yield Frame(index, time, image, name)

    def _release(self) -> None:
        self._stream.close()


def _scanned(path: Path) -> tuple[array[int], list[int]]:
    """Stamps of all frames that are shown, ascending, and those of key frames; raises `InexactSeek`."""
    stamps, keys = array("q"), list[int]()
    try:
        with open_container(path) as container:
            video = shown_stream(container)
            if container.format.name == "avi":
                raise InexactSeek("AVI keeps no times of frames")
            for packet in container.demux(video) if video else ():
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    raise InexactSeek("a packet is damaged or has no time")
                if packet.is_keyframe:
                    keys.append(packet.pts)
                if not packet.is_discard:
                    stamps.append(packet.pts)
    except BROKEN as error:
        raise InexactSeek(first_line(error)) from error
    stamps = array("q", sorted(stamps))
    if any(one == other for one, other in pairwise(stamps)):
        raise InexactSeek("frames have the same time")
    return stamps, sorted(keys)


def _group_starts(stamps: array[int], keys: list[int]) -> list[int]:
    """Indices of the frames that groups begin with, ascending, and the number of frames at the end."""
    if not stamps or not keys or keys[0] > stamps[0]:
        raise InexactSeek("it does not begin with a key frame")
    starts = [0]
    for key in keys:
        index = bisect_left(stamps, key)
        if index < len(stamps) and stamps[index] == key and index - starts[-1] >= _FEWEST:
            starts.append(index)
    return [*starts, len(stamps)]


def _reversed(images: Iterator[Tensor], first: int) -> Iterator[tuple[int, Tensor]]:
    """Images (3, H, W) of one size, numbered from `first`, from the last to the first.

    Raises:
        InputError: there is no room for the temporary file.
    """
    held, spooled = list[Tensor](), 0
    with ExitStack() as stack:
        file = None
        shape: torch.Size = torch.Size()
        for image in images:
            shape = image.shape
            if file is None and (len(held) + 1) * image.numel() > IN_MEMORY:
                file = stack.enter_context(tempfile.TemporaryFile(prefix="vostrack"))
            if file is None:
                held.append(image)
                continue
            try:
                file.write(image.contiguous().numpy().data)
                file.flush()
            except OSError as error:
                raise InputError(
                    f"no room for frames in the temporary folder {tempfile.gettempdir()!r} ({error.strerror}): set "
                    "TMPDIR to a folder on a larger disk, or follow objects forwards only"
                ) from error
            spooled += 1
        for number in reversed(range(spooled)):
            assert file is not None
            file.seek(number * shape.numel())
            data = np.frombuffer(bytearray(file.read(shape.numel())), np.uint8)
            yield first + len(held) + number, torch.from_numpy(data).view(shape)
        while held:
            yield first + len(held) - 1, held.pop()
