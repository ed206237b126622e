"""Interlaced video: whole pictures of pictures whose odd and even rows are of different moments.

FFmpeg's bwdif does it, with a picture out for each picture in. What it gives depends on a picture and its neighbours on
both sides alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction

import av
from av.filter import Graph

Decoded = tuple[av.VideoFrame, bool]
"""A picture, and whether it is damaged."""

_TOP, _BOTTOM, _AS_FLAGGED = "tff", "bff", "auto"
# AVFieldOrder; the second letter is the field that is shown first.
_PROGRESSIVE, _ORDERS = 1, {2: _TOP, 3: _BOTTOM, 4: _BOTTOM, 5: _TOP}
_TICK = Fraction(1, 25)


def is_interlaced(picture: av.VideoFrame, stream: av.VideoStream) -> bool:
    """Whether a picture or its stream is tagged as interlaced."""
    return picture.interlaced_frame or stream.codec_context.field_order > _PROGRESSIVE


def deinterlaced(pictures: Iterable[Decoded], stream: av.VideoStream) -> Iterator[Decoded]:
    """Whole pictures, one for each, with its stamps; an error of the source comes after what came before it.

    Args:
        pictures: in order of presentation; each is taken over. Those that are not tagged are deinterlaced as well.
        stream: which they are of.
    """
    fields: _Fields | None = None
    failure: Exception | None = None
    source = iter(pictures)
    while True:
        try:
            item = next(source, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            item, failure = None, error
        if fields and (item is None or not fields.takes(item[0])):
            yield from fields.rest()
            fields = None
        if item is None:
            break
        fields = fields or _Fields(item[0], stream)
        yield from fields.add(item)
    if failure:
        raise failure


class _Fields:
    """Pictures of one size and format on their way through the filter."""

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        self._key = _key(first)
        self._waiting = deque[tuple[bool, int | None, int | None, int]]()
        self._count = 0
        # A tag of the stream is all that some files have; where pictures are tagged, these say more.
        order = _AS_FLAGGED if first.interlaced_frame else _ORDERS.get(stream.codec_context.field_order, _AS_FLAGGED)
        self._graph = Graph()
        self._graph.threads = 1
        name, width, height, matrix, levels = self._key
        source = self._graph.add(
            "buffer",
            video_size=f"{width}x{height}",
            pix_fmt=name,
            time_base=str(_TICK),
            colorspace=str(matrix),
            range=str(levels),
        )
        filter_ = self._graph.add("bwdif", mode="send_frame", parity=order, deint="all")
        self._graph.link_nodes(source, filter_, self._graph.add("buffersink")).configure()

    def takes(self, picture: av.VideoFrame) -> bool:
        """Whether a picture can go the same way."""
        return _key(picture) == self._key

    def add(self, item: Decoded) -> Iterator[Decoded]:
        """Take a picture, and give those that are ready."""
        picture, damaged = item
        self._waiting.append((damaged, picture.pts, picture.dts, picture.duration))
        picture.pts, picture.time_base = self._count, _TICK
        self._count += 1
        self._graph.vpush(picture)
        yield from self._ready()

    def rest(self) -> Iterator[Decoded]:
        """Give the others."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Decoded]:
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while self._waiting:
                whole = self._graph.vpull()
                damaged, pts, dts, duration = self._waiting.popleft()
                whole.pts, whole.dts, whole.duration = pts, dts, duration
                yield whole, damaged


def _key(picture: av.VideoFrame) -> tuple[str, int, int, int, int]:
    """What pictures in one filter have in common."""
    return picture.format.name, picture.width, picture.height, picture.colorspace, picture.color_range
