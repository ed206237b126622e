"""Which frames of a clip a run is over, and which frame a time means.

Frames keep the numbers that they have in their clip, whatever part of it is read.
"""

from __future__ import annotations

import operator
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from vostrack.errors import InputError, MaskError, VostrackError
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.types import Frame, FrameStream
from vostrack.video.reader import open_clip
from vostrack.video.series import numbered
from vostrack.video.stream import NOMINAL_RATE, ClipStream, file_names

if TYPE_CHECKING:  # which takes torch
    from vostrack.video.masks import GivenMask

Moment = int | Fraction
"""The number of a frame, from 0, or a time in seconds from the first frame, which is a `Fraction`."""

Range = tuple[Moment | None, Moment | None]
"""The first and the last frame of a part of a clip, both in it, or the times that these lie between; None is open."""


GivenMasks: TypeAlias = (
    "GivenMask | Mapping[int, GivenMask] | Mapping[Fraction, GivenMask] | Mapping[Moment | None, GivenMask]"
)
"""Masks by moment; None, and one mask alone, are for the first frame."""


@dataclass(frozen=True, slots=True)
class Span:
    """The frames of a run, and the numbers of its results.

    Attributes:
        first: number of the first frame.
        last: number of the last frame; None for that of the clip.
        start_number: number that the results of the first frame get; None for the frame's own.
    """

    first: int = 0
    last: int | None = None
    start_number: int | None = None

    @property
    def shift(self) -> int:
        """What is added to the number of a frame for its results."""
        return 0 if self.start_number is None else self.start_number - self.first

    def __str__(self) -> str:
        return f"{self.first} to {'the end' if self.last is None else self.last}"

    def record(self) -> dict[str, Any]:
        """What was chosen, as JSON."""
        is_whole = self.first == 0 and self.last is None
        return {"range": None if is_whole else [self.first, self.last], "start_number": self.start_number}

    def of(self, stream: FrameStream) -> FrameStream:
        """These frames of an opened clip; closing them closes it.

        Raises:
            InputError: the clip is known to end before them.
        """
        if self == Span():
            return stream
        if stream.count is not None:
            self.check_end(stream.count, file_names(stream))
        return _Part(stream, self)

    def check_end(self, count: int, files: Sequence[str] = ()) -> None:
        """Raise `InputError` where a clip of so many frames, whose files are named so, ends before these."""
        if max(self.first, self.last or 0) >= count:
            beyond = self.first if self.first >= count else self.last or 0
            raise InputError(self._beyond(count) + numbered(files, beyond))

    def check(self, masks: Mapping[int, object]) -> None:
        """Raise `MaskError` where a mask is given for a frame that is not among these."""
        for frame in sorted(masks):
            if frame < self.first or (self.last is not None and frame > self.last):
                raise MaskError(
                    f"there is a mask for frame {frame}, and the range is {self}: widen it, or leave one out"
                )

    def _beyond(self, count: int) -> str:
        if self.first >= count:
            return f"the range is {self}, and the clip ends with frame {count - 1}: give one that starts before that"
        return f"the range is {self}, and the clip ends with frame {count - 1}: end it there, or leave its end open"


class _Part:
    """Some frames of a stream, with their own numbers; a `FrameStream`."""

    def __init__(self, stream: FrameStream, span: Span) -> None:
        self.name, self.size, self.stored_size = stream.name, stream.size, stream.stored_size
        self.fps, self.notes = stream.fps, stream.notes
        ends = [end for end in (stream.count, None if span.last is None else span.last + 1) if end is not None]
        self.count = min(ends) - span.first if ends else None
        self._stream, self._span = stream, span
        if isinstance(stream, ClipStream):
            stream.images_from = span.first

    def __iter__(self) -> Iterator[Frame]:
        span, count = self._span, 0
        for frame in self._stream:
            count = frame.index + 1
            if frame.index >= span.first:
                number = frame.index + span.shift
                yield frame if span.start_number is None else replace(frame, name=f"{number:05d}")
            if frame.index == span.last:
                return
        if count <= span.first:
            raise InputError(span._beyond(count))
        if span.last is not None:
            self.notes.append(
                Note(Code.RANGE_CUT_OFF, f"the range is {span}, and the clip ends with frame {count - 1}")
            )

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def choose(
    clip: object,
    chosen: Range | None,
    masks: GivenMasks,
    start_number: int | None = None,
) -> tuple[Span, dict[int, GivenMask]]:
    """Find the frames of a run, and those that its masks are for.

    Args:
        clip: path of the clip, or frames in memory, which have no times. A clip is read up to the latest time.
        chosen: the range; None for all frames. Between two times are the frames that appear then, and of
            one time alone the frame that is shown.
        masks: by the number of a frame or a time, which means the frame that is shown then; None, and one mask alone,
            are for the first frame of the range.
        start_number: number that the results of the first frame get; None for the frame's own.

    Returns:
        The frames, and the masks by frame.

    Raises:
        InputError: the range is none or empty; the clip has no times, or ends before one.
        MaskError: two masks are for one frame, or one is for none of the range.
    """
    first, last = _checked(chosen)
    given = (
        {None if key is None else _moment(key, MaskError): mask for key, mask in masks.items()}
        if isinstance(masks, Mapping)
        else {None: masks}
    )
    if start_number is not None and (type(start_number) is not int or start_number < 0):
        raise InputError(f"start_number must be a whole number from 0, not {start_number!r}")
    times = [moment for moment in (first, last, *given) if isinstance(moment, Fraction)]
    clock = _Clock(clip, times) if times else None

    def number(moment: Moment, find: Callable[[_Clock, Fraction], int]) -> int:
        return find(clock, moment) if clock and isinstance(moment, Fraction) else int(moment)

    span = Span(
        0 if first is None else number(first, _Clock.shown if first == last else _Clock.since),
        None if last is None else number(last, _Clock.shown),
        start_number,
    )
    if span.last is not None and span.last < span.first:
        raise InputError(f"no frame appears from {_named(first or 0)} to {_named(last or 0)}: widen the range")
    found: dict[int, GivenMask] = {}
    for moment, mask in given.items():
        frame = span.first if moment is None else number(moment, _Clock.shown)
        if frame in found:
            raise MaskError(two_masks(frame, found[frame], mask))
        found[frame] = mask
    span.check(found)
    return span, found


def beyond(what: str, frame: int, count: int, files: Sequence[str] = ()) -> str:
    """What is said of something at a frame that a clip of so many frames, whose files are named so, does not have."""
    return f"{what}, but the clip ends with frame {count - 1}{numbered(files, frame)}"


def is_gone(name: object, first: int, last: int | None) -> str:
    """What is said of an object that is not there in some frames."""
    return f"object {name} is gone from frame {first} {'on' if last is None else f'to frame {last}'}"


def two_masks(frame: Moment | None, one: object, other: object) -> str:
    """What is said of two masks for one frame; None is the first one."""
    named = [shown(mask) if isinstance(mask, str | Path) else f"the {type(mask).__name__}" for mask in (one, other)]
    at = "the first frame" if frame is None else f"frame {frame}"
    return (
        f"two masks for {at}: {named[0]} and {named[1]}; "
        "give one image, a folder with one file per object, or FRAME:PATH for another frame"
    )


def _checked(chosen: object) -> Range:
    """A range of the right types and in order; raises `InputError`."""
    if chosen is None:
        return None, None
    if not isinstance(chosen, tuple) or len(chosen) != 2:
        raise InputError(f"a range is its first and its last frame, such as (40, 60) or (40, None), not {chosen!r}")
    first, last = (end if end is None else _moment(end, InputError) for end in chosen)
    if first is not None and last is not None:
        if isinstance(first, Fraction) != isinstance(last, Fraction):
            raise InputError(f"a range has two frames or two times, not {_named(first)} and {_named(last)}")
        if last < first:
            raise InputError(f"the range goes backwards, from {_named(first)} to {_named(last)}: exchange its ends")
    return first, last


def _moment(value: object, error: type[VostrackError]) -> Moment:
    """The number of a frame or a time, from 0 on; raises an error where it is neither."""
    try:
        moment = value if isinstance(value, Fraction) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        given, example = ("masks are", "{0: mask}") if error is MaskError else ("a range is", "(40, 60)")
        raise error(
            f"{given} given by frame index, such as {example}, or by time as Fraction('12.5'), not by {value!r}"
        ) from None
    if moment < 0:
        raise error(f"there is no {_named(moment)}: frames count from 0, and times from the first frame")
    return moment


def _named(moment: Moment) -> str:
    return f"{float(moment):g} s" if isinstance(moment, Fraction) else f"frame {moment}"


class _Clock:
    """When the frames of a clip appear, as far as that is asked for."""

    def __init__(self, clip: object, times: list[Fraction]) -> None:
        """Read the clip up to the latest of some times; raises `InputError` where it ends before that."""
        if not isinstance(clip, str | PathLike):
            raise InputError(f"frames in memory have no times: give the number of a frame for {_named(times[0])}")
        self._appear: list[Fraction] = []
        with open_clip(clip) as stream:
            if not stream.timed:
                raise InputError(f"a folder of images has no times: give the number of a frame for {_named(times[0])}")
            stream.images_from = sys.maxsize
            for frame in stream:
                self._appear.append(frame.time)
                if frame.time > max(times):
                    return
            ends = self._appear[-1] + 1 / (stream.fps or NOMINAL_RATE)
        if max(times) > ends:
            raise InputError(f"the clip ends at {float(ends):.3f} s, before {_named(max(times))}: give an earlier time")

    def shown(self, time: Fraction) -> int:
        """The frame that is shown at a time."""
        return bisect_right(self._appear, time) - 1

    def since(self, time: Fraction) -> int:
        """The first frame that appears at a time or later."""
        return bisect_left(self._appear, time)
