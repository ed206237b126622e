"""Scene cuts: where a frame differs from the one before as no two frames of a shot do."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import torch

from vostrack.errors import Cancelled
from vostrack.notes import Code, Note
from vostrack.propagate import Gone
from vostrack.run.callbacks import Callbacks
from vostrack.run.signs import change, small
from vostrack.types import FrameStream, LabelMap, Prediction

LOOKING = "looking for cuts"

_LEAST, _TIMES = 0.2, 2.0
"""How much a cut changes at least, and as a multiple of the frames beside it: a flash and a fast pan have like ones."""

_MOST = 5


def cuts(changes: Mapping[int, float]) -> list[int]:
    """First frames of new shots, from how much each frame differs from the one before (`signs.change`)."""
    return [
        index
        for index, value in changes.items()
        if value > _LEAST
        and value > _TIMES * max(changes.get(near, 0.0) for near in (index - 2, index - 1, index + 1, index + 2))
    ]


def find_cuts(stream: FrameStream, callbacks: Callbacks) -> list[int]:
    """Read a clip for its cuts, as a phase of its own; raises `Cancelled`, or what the clip raises."""
    callbacks.phase(LOOKING)
    changes, before = dict[int, float](), None
    for done, frame in enumerate(stream, 1):
        nothing = LabelMap(torch.zeros(frame.image.shape[1:], dtype=torch.uint8), ())
        seen = small(Prediction(frame, nothing))
        changes[frame.index] = change(seen, before) if before is not None else 0.0
        before = seen
        callbacks.progress(done, stream.count)
        if callbacks.cancelled():
            raise Cancelled(f"cancelled after {done} frames")
    return cuts(changes)


def beyond_cuts(found: Sequence[int], prompts: Mapping[int, LabelMap], gone: Gone) -> Gone:
    """When objects are gone, if they are that too in all shots in which no given mask shows them."""
    if not found:
        return gone
    shots = list(zip((0, *found), (*(cut - 1 for cut in found), None), strict=True))
    numbers = sorted({number for given in prompts.values() for number in given.ids})
    known = {n: {bisect_right(found, frame) for frame, given in prompts.items() if n in given.ids} for n in numbers}
    return {n: [*gone.get(n, ()), *(shot for at, shot in enumerate(shots) if at not in known[n])] for n in numbers}


def cut_notes(found: Sequence[int], prompts: Mapping[int, LabelMap], stopped: bool) -> Iterator[Note]:
    """What to say of cuts: those after which no mask was given before the next."""
    ends = [*found, None][1:]
    blind = [
        cut
        for cut, end in zip(found, ends, strict=True)
        if not any(cut <= f and (end is None or f < end) for f in prompts)
    ]
    after = "masks are empty from there" if stopped else "objects were followed across it"
    for cut in blind[:_MOST]:
        yield Note(Code.CLIP_CUT, f"frame {cut} looks like a scene cut: {after}; give a mask for a frame after it")
    if len(blind) > _MOST:
        yield Note(Code.CLIP_CUT, f"{len(blind) - _MOST} more frames look like scene cuts")
