"""What a run reports: where each object was, how long each part took, and what the user should know."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

from vostrack.notes import Code, Note
from vostrack.propagate import Gone, gone_at
from vostrack.run.signs import FrameSigns, Sign
from vostrack.types import LabelMap, Prediction

_MOST_GAPS = 5
_FLOOD_SHARE, _FLOOD_TIMES = 0.2, 4.0
_OVERLAP, _JUMP = 0.1, 3.0
"""An object floods the frame where it covers this share of it, and so many times its given mask; it jumps where its
masks overlap (IoU) by less than this, and its centre moves by so many times its spread."""


@dataclass
class ObjectLog:
    """Follows the area of each object from frame to frame.

    Attributes:
        gone: when objects are said not to be there, which is then no surprise.
        given: frames whose masks are given.
        frames: so far.
    """

    gone: Gone = field(default_factory=dict)
    given: Collection[int] = ()
    frames: int = 0
    _last: int = -1
    _areas: dict[int, _Track] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        """Take the label map of the next frame."""
        labels, index = prediction.labels, prediction.frame.index
        counts = torch.bincount(labels.pixels.flatten().int(), minlength=256)
        for object_id in labels.ids:
            is_gone = object_id in gone_at(self.gone, index)
            self._areas.setdefault(object_id, _Track()).add(index, int(counts[object_id]), is_gone)
        self.frames += 1
        self._last = index

    def objects(
        self, more: Mapping[str, Mapping[str, float | int]] | None = None
    ) -> dict[str, dict[str, float | int | None]]:
        """By id: first and last frame with a pixel, frames with one, the area in pixels where visible, and more."""
        tracks = sorted(self._areas.items())
        return {str(number): {**track.report(), **(more or {}).get(str(number), {})} for number, track in tracks}

    def notes(self) -> Iterator[Note]:
        """One for each object that vanished or had no mask for a while."""
        for object_id, track in sorted(self._areas.items()):
            for start, end in track.gaps[:_MOST_GAPS]:
                when = f"in frame {start}" if start == end else f"from frame {start} to frame {end}"
                text = f"object {object_id} has no mask {when}, and one again from frame {end + 1} on"
                yield Note(Code.OBJECT_HIDDEN, text)
            for frame in [frame for frame in track.back if frame not in self.given][:_MOST_GAPS]:
                text = f"object {object_id} came back at frame {frame}, after frames in which it was said to be gone"
                yield Note(Code.OBJECT_BACK, text)
            if len(track.gaps) > _MOST_GAPS:
                more = len(track.gaps) - _MOST_GAPS
                yield Note(Code.OBJECT_HIDDEN, f"object {object_id} has no mask {more} more times")
            if track.until is not None and track.until < self._last:
                yield Note(Code.OBJECT_VANISHED, f"object {object_id} vanished at frame {track.until + 1}")


@dataclass
class _Track:
    first: int | None = None
    last: int | None = None
    until: int | None = None  # the last frame without a surprise
    visible: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    back: list[int] = field(default_factory=list)  # where it is seen again, right after it was said to be gone

    def add(self, index: int, area: int, is_gone: bool) -> None:
        if not area:
            if is_gone and self.until == index - 1:
                self.until = index
            return
        if self.first is None:
            self.first, self.smallest = index, area
        elif self.until is not None and index > self.until + 1:
            self.gaps.append((self.until + 1, index - 1))
        elif self.last is not None and index > self.last + 1:
            self.back.append(index)
        self.last = self.until = index
        self.visible += 1
        self.total += area
        self.smallest, self.largest = min(self.smallest, area), max(self.largest, area)

    def report(self) -> dict[str, float | int | None]:
        return {
            "first_frame": self.first,
            "last_frame": self.last,
            "visible_frames": self.visible,
            "mean_area": round(self.total / self.visible, 1) if self.visible else 0.0,
            "smallest_area": self.smallest,
            "largest_area": self.largest,
        }


def doubts(signs: Sequence[FrameSigns], prompts: Mapping[int, LabelMap], cuts: Sequence[int]) -> Iterator[Note]:
    """A line for each object that flooded the frame, jumped, or may have swapped with another, where it first did.

    Frames with given masks, those after them and those after scene cuts have reasons for that.
    """
    given = {number: _given_areas(signs, prompts, number) for number in {n for seen in signs for n in seen.objects}}
    told, reasons = set[tuple[Code, int]](), {*prompts, *cuts}
    for before, seen in pairwise(signs):
        for number, sign in sorted(seen.objects.items()):
            earlier = before.objects.get(number)
            if reasons & {seen.frame, before.frame} or not sign.area or not earlier or not earlier.area:
                continue
            note = _doubt(seen, number, sign, earlier, given[number])
            if note and (note.code, number) not in told:
                told.add((note.code, number))
                yield note


def _given_areas(signs: Sequence[FrameSigns], prompts: Mapping[int, LabelMap], number: int) -> int:
    """The largest area of an object in a given mask."""
    return max((s.objects[number].area for s in signs if s.frame in prompts and number in s.objects), default=0)


def _doubt(seen: FrameSigns, number: int, sign: Sign, earlier: Sign, given: int) -> Note | None:
    """What is strange about an object, after the frame before."""
    where = f"at frame {seen.frame}"
    if sign.share > _FLOOD_SHARE and sign.area > _FLOOD_TIMES * given > 0:
        times = sign.area / given
        return Note(Code.OBJECT_FLOODED, f"object {number} floods the frame {where}: {times:.0f} times its given mask")
    if sign.was not in (0, number) and sign.kept < _OVERLAP:
        return Note(Code.OBJECT_SWAPPED, f"object {number} may have swapped with object {sign.was} {where}")
    moved = math.hypot(sign.y - earlier.y, sign.x - earlier.x)
    if sign.kept < _OVERLAP and moved > _JUMP * max(sign.spread, earlier.spread):
        return Note(Code.OBJECT_JUMPED, f"object {number} jumped {where}, by {moved:.0%} of the frame's short side")
    return None


def peak_rss_mb() -> float | None:
    """Largest resident size of this process so far, in MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    # What Linux counts for a process may be the peak of the one that started it; its status has its own.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / (1 << 10), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
