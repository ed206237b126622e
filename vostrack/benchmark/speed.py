"""How long the presets of a method take on this machine, by parts, and which one gets a clip done in time.

Each preset runs in a process of its own, since a process tells no peak of memory but the largest so far. There the
first frames of the clip go the way of `segment`: the same reader, engine and writers, into a folder that is removed
afterwards. The functions of the method are timed from outside; no method knows of it.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from vostrack.benchmark.pool import run_all
from vostrack.errors import InputError, MaskError, counted
from vostrack.files import shown
from vostrack.methods import METHODS, configure
from vostrack.methods.base import Method, in_parts
from vostrack.run.callbacks import Callbacks
from vostrack.run.passes import Passes
from vostrack.run.pipeline import Pipeline, PipelineConfig, load_pipeline
from vostrack.run.summary import peak_rss_mb
from vostrack.types import Frame, FrameStream, LabelMap
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter

PARTS = {"encode": "encode", "match": "predict", "remember": "remember", "enlarge": "enlarge"}
"""Parts of a frame's time that a method takes, and its functions that do them; `begin` is for given masks alone."""

OUTPUTS = ("masks", "overlay")
_FILL = 5
"""Frames that fill the memory of a method whose settings do not say how many it looks back."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class SpeedTask:
    """What is timed in one process.

    Attributes:
        pipeline: a method with a preset.
        clip: whose first frames are used.
        mask: of its first frame.
        objects: numbers of objects, each timed by itself.
        frames: that are timed, after those that fill the memory.
    """

    pipeline: PipelineConfig
    clip: Path
    mask: LabelMap
    objects: tuple[int, ...]
    frames: int


@dataclass(frozen=True)
class Timing:
    """What a preset takes with a number of objects.

    Attributes:
        preset: its name.
        objects: how many.
        parts: seconds a frame by part; "decode" and "write" are at work beside the others.
        seconds: from one mask to the next.
        peak_rss_mb: largest memory of the process up to then, in MiB, fewer objects included; None if not known.
        peak_gpu_mb: largest memory on a CUDA device, in MiB; None on another.
    """

    preset: str
    objects: int
    parts: Mapping[str, float]
    seconds: float
    peak_rss_mb: float | None
    peak_gpu_mb: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        figures = {name: round(value, 4) for name, value in self.parts.items()}
        return asdict(self) | {"parts": figures, "seconds": round(self.seconds, 4), "fps": round(1 / self.seconds, 3)}


def time_presets(tasks: Sequence[SpeedTask], callbacks: Callbacks) -> list[Timing]:
    """Time presets one after the other.

    Args:
        tasks: one a preset. Call this under `if __name__ == "__main__"`: processes are spawned.
        callbacks: called in this process; progress counts presets.

    Raises:
        VostrackError: as `run_task`, before anything is timed if a clip or a mask is the cause; or a process died.
    """
    for task in tasks:
        _check(task)
    timings = []
    for done, task in enumerate(tasks, 1):
        (found,) = run_all([partial(run_task, task)], 2, Callbacks(), partial(_register, dict(METHODS)))
        timings += found
        callbacks.progress(done, len(tasks))
    return timings


def _register(methods: Mapping[str, str]) -> None:
    """Give a process the methods that its caller registered."""
    METHODS.update(methods)


def run_task(task: SpeedTask) -> list[Timing]:
    """Time a preset in this process, with the fewest objects first.

    Raises:
        InputError: the clip is too short to fill the memory.
        MaskError: the mask cannot be cut into so many objects.
        VostrackError: as `load_pipeline`.
    """
    _check(task)
    pipeline = load_pipeline(task.pipeline)
    return [_timing(pipeline, task, count) for count in sorted(set(task.objects))]


def _check(task: SpeedTask) -> None:
    """Refuse what cannot be timed. Frames are counted, since containers miscount them."""
    split(task.mask, max(task.objects))
    config = configure(task.pipeline.method, task.pipeline.preset, task.pipeline.settings)
    needed = 2 + frames_to_fill(config)
    with open_clip(task.clip) as stream:
        there = sum(1 for _ in islice(stream, needed))
    if there < needed:
        raise InputError(
            f"{shown(stream.name)} has {counted(there, 'frame')}, and it takes {needed} to time one with a full "
            "memory: give a longer clip"
        )


def frames_to_fill(config: Any) -> int:
    """After how many frames a method with these settings looks back at as many as it ever will."""
    context, spacing = (getattr(config, name, None) for name in ("context", "spacing"))
    return _FILL if context is None or spacing is None else max(context - 1, 0) * spacing + 1


def split(mask: LabelMap, count: int) -> LabelMap:
    """The objects of a mask as so many: as they are, or all of them together, cut into parts of about one area.

    Raises:
        MaskError: there are fewer pixels than parts.
    """
    if count == len(mask.ids):
        return mask
    places = ((mask.pixels > 0) & (mask.pixels < 255)).nonzero()
    if len(places) < count:
        raise MaskError(f"the mask has {counted(len(places), 'pixel')}, too few for {counted(count, 'object')}")
    pixels = torch.zeros_like(mask.pixels)
    for number, part in enumerate(_cut(places, count), 1):
        pixels[part[:, 0], part[:, 1]] = number
    return LabelMap(pixels, tuple(range(1, count + 1)))


def _cut(places: Tensor, count: int) -> Iterator[Tensor]:
    """Places (N, 2) in parts, each cut across its longer side."""
    if count == 1:
        yield places
        return
    axis = int((places.amax(0) - places.amin(0)).argmax())
    few = count // 2
    places = places[places[:, axis].argsort(stable=True)]
    middle = len(places) * few // count
    yield from _cut(places[:middle], few)
    yield from _cut(places[middle:], count - few)


def timed(
    method: Method[Any], spent: dict[str, list[float]], device: torch.device, clock: Clock = time.perf_counter
) -> Method[Any]:
    """A copy of a method that adds the seconds of each call to `spent`, by part."""

    def measured(part: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            start = clock()
            result = function(*arguments)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent[part].append(clock() - start)
            return result

        return call

    watched = copy.copy(method)
    for part, name in PARTS.items():
        # What the method calls itself is that of the original, and is not counted twice.
        object.__setattr__(watched, name, measured(part, getattr(method, name)))
    return watched


class _Head(ClipStream):
    """The first frames of a clip."""

    def __init__(self, stream: FrameStream, count: int) -> None:
        super().__init__(stream.name)
        self.size, self.stored_size, self.fps, self.count = stream.size, stream.stored_size, stream.fps, count
        self._stream = stream

    def _frames(self) -> Iterator[Frame]:
        return islice(self._stream, self.count)

    def _release(self) -> None:
        self._stream.close()


def _timing(pipeline: Pipeline, task: SpeedTask, count: int) -> Timing:
    spent, ends, device = defaultdict[str, list[float]](list), list[float](), pipeline.device
    watched = replace(pipeline, method=timed(in_parts(pipeline.method), spent, device))
    fill = frames_to_fill(pipeline.method.config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with TemporaryDirectory() as folder, open_clip(task.clip) as stream:
        to = Destination(Path(folder), fps=stream.fps)
        passes = Passes(watched, {0: split(task.mask, count)}, _Head(stream, 1 + fill + task.frames), _once)
        with ThreadedWriter([WRITERS[name](to) for name in OUTPUTS]) as writing, closing(passes.run()) as predictions:
            for prediction in predictions:
                writing.write(prediction)
                ends.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(ends)][fill:]
    parts = {"decode": passes.seconds["decode"] / len(ends)}
    parts |= {part: median(spent[part][-len(steps) :]) for part in PARTS}
    parts["write"] = writing.seconds / len(ends)
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    # The slowest of what goes on side by side decides, also where a queue hides it for a few frames.
    seconds = max(median(steps), parts["decode"], parts["write"])
    return Timing(task.pipeline.preset, count, parts, seconds, peak_rss_mb(), gpu)


def _once() -> FrameStream:
    raise InputError("the clip is read once")


def recommended(seconds: Mapping[str, float], limit: float) -> str | None:
    """The last preset that stays within a limit; None where none does.

    Args:
        seconds: by preset, the more accurate ones last.
        limit: in seconds.
    """
    return next((name for name, value in reversed(list(seconds.items())) if value <= limit), None)
