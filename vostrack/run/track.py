"""`vostrack.track`: masks for frames in memory, or of a clip, one after the other, with nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vostrack.errors import InputError
from vostrack.methods import DEFAULT, WORKING_SIZE, Direction
from vostrack.notes import Code, Note
from vostrack.propagate import check_prompts
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.given import Known, choose_masks
from vostrack.run.passes import Passes
from vostrack.run.pipeline import Pipeline, PipelineConfig, load_pipeline
from vostrack.run.prompts import GoneSpans, checked_direction, gone_by_id, one_way_notes
from vostrack.types import FrameStream, Prediction
from vostrack.video.backwards import Spooled, open_backwards
from vostrack.video.ground import Reading
from vostrack.video.images import ArrayStream
from vostrack.video.masks import read_prompts
from vostrack.video.object_names import Names, Painted, checked_names
from vostrack.video.playback import Playback
from vostrack.video.ranges import GivenMasks, Range
from vostrack.video.reader import number_notes, open_clip
from vostrack.video.stream import file_names

_AHEAD = 4


def track(
    frames: Iterable[Any] | str | os.PathLike[str],
    masks: GivenMasks,
    *,
    names: Names | None = None,
    range: Range | None = None,  # noqa: A002
    method: str = DEFAULT,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    size: int | None = WORKING_SIZE.default,
    device: str = "auto",
    refine: str | None = None,
    refine_settings: Mapping[str, Any] | None = None,
    direction: str = "both",
    gone: GoneSpans | None = None,
    resize_mask: bool = False,
    background: int | tuple[int, int, int] | None = None,
    invert_mask: bool = False,
    no_background: bool = False,
    deinterlace: bool = False,
    callbacks: Callbacks | None = None,
) -> Iterator[Prediction]:
    """Follow the objects of given masks through frames.

        for prediction in vostrack.track(frames, {0: mask}):
            prediction.mask  # uint8 (H, W): 0 is background, else an object id

    What cannot be used fails in the call, not in the loop. Memory does not grow with the number of frames. The loop may
    be left at any point; closing the iterator releases everything at once.

    Args:
        frames: any iterable, also a generator, of uint8 arrays (H, W, 3) in RGB, uint8 tensors (3, H, W) or PIL images,
            all of one size; an opened clip; or the path of a video or of a folder of images.
        masks: by frame, from 0, or by time, as a `Fraction` of seconds, or that of the first frame alone: an array or
            tensor (H, W) of booleans or of object ids from 1 to 254, with 0 as background and 255 as unknown; a PIL
            image or the path of one, which mean the same; or a `LabelMap`. The path of a file or folder of another tool
            (docs/formats.md), alone, is of all frames that it names.
        names: of objects, by the colour (R, G, B), the number from 0 to 255 or the file that shows them in a mask, such
            as {(255, 0, 0): "dog", 2: "cat"}. Colours get ids in this order, from 1 on; several objects may have one
            name.
        range: the first and the last frame of a part of the clip, as (40, 60), (40, None) or (None, 60), or the times
            that its frames appear between, as (Fraction("1.5"), Fraction(4)). Frames keep their numbers, and the mask
            of the first frame alone is of the first in the range. Times need the path of a video.
        method: name of the method.
        preset: named settings of the method.
        settings: settings of the method to change, by name, such as `{"radius": 8}`.
        weights: file or name of weights; None for the method's own.
        size: short side of the working resolution in pixels; None for that of the frames. Masks have the size of the
            frames in any case.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        refine: name of the refinement of the masks ("crf"); None for none.
        refine_settings: settings of it to change, by name.
        direction: "both": objects are followed from the frames with given masks forwards and backwards, and between two
            such frames from both sides; "forward" or "backward" for one of these. Frames that can be read only once,
            such as those of a generator, are followed forwards.
        gone: by object id, or name if its mask has a file of its own, the frames in which it is not there: pairs of the
            first and the last, None for the end of the clip. It is in no mask then, and is looked for afterwards.
        resize_mask: whether masks of another size but the same shape are accepted.
        background: what is background in the masks beside transparent pixels: a colour (R, G, B) of 0 to 255, or one
            grey value, palette index or value of an array; None for 0, black or what is clearly meant.
        invert_mask: whether object and background change places, in masks of one object.
        no_background: whether objects may fill the frame; without it, a mask that has no background is refused.
        deinterlace: whether an interlaced video, given by its path, is deinterlaced.
        callbacks: what is called on the way.

    Yields:
        A `Prediction` for each frame, in order: `mask`, `ids`, `index`.

    Raises:
        InputError, MaskError: the frames or a mask cannot be used.
        MethodError, WeightsError: an unknown name or setting; weights that are missing or do not fit.
        Cancelled: the callbacks said so.
    """
    reading, way = Reading(resize_mask, background, invert_mask, no_background), checked_direction(direction)
    config = PipelineConfig(method, preset, settings or {}, weights, size=size, device=device)
    pipeline = load_pipeline(replace(config, refine=refine, refine_settings=refine_settings or {}))
    named, playback = checked_names(names or {}), Playback(deinterlace)
    return _start(pipeline, frames, masks, range, named, reading, playback, way, gone, checked_callbacks(callbacks))


def _start(
    pipeline: Pipeline,
    frames: Iterable[Any] | str | os.PathLike[str],
    masks: GivenMasks,
    chosen: Range | None,
    names: Mapping[Painted, str],
    reading: Reading,
    playback: Playback,
    way: Direction,
    gone: GoneSpans | None,
    callbacks: Callbacks,
) -> Iterator[Prediction]:
    """Open the frames and read the masks; where that fails, the frames are closed."""
    span, by_frame = choose_masks(frames, chosen, masks, known=Known.named(names))
    whole = _open(frames, playback)
    try:
        stream = span.of(whole)
        given = read_prompts(by_frame, whole.size, reading, whole.stored_size, names=names)
        check_prompts(given.labels, whole.count, file_names(whole))
        # A generator of the caller's runs in the caller's thread.
        ahead = 0 if isinstance(whole, ArrayStream) else _AHEAD
        backwards, told = _backwards(frames, span.first, playback), list[Note]()
        if backwards is None and max(given.labels) > span.first:
            way, told = _only_forwards(way)
        passes = Passes(
            pipeline,
            given.labels,
            stream,
            _no_second_pass,
            callbacks=callbacks,
            prefetch=ahead,
            direction=way,
            backwards=backwards,
            gone=gone_by_id(gone, given, whole.count, file_names(whole)),
            first=span.first,
        )
        told += one_way_notes(given.labels, way, span, whole.count)
        for note in (*given.notes, *number_notes(by_frame, whole), *told):
            passes.note(note)
    except BaseException:
        whole.close()
        raise
    return _Predictions(passes, stream)


def _only_forwards(way: Direction) -> tuple[Direction, list[Note]]:
    """The way that is left where frames can be read only once, and what is to be said of it; raises `InputError`."""
    text = "frames that can be read only once are followed forwards: give a path or a list"
    if way is Direction.BACKWARD:
        raise InputError(text)
    return Direction.FORWARD, [Note(Code.RUN_FORWARD, f"{text} for both directions")] if way is Direction.BOTH else []


class _Predictions(Iterator[Prediction]):
    """Predictions of a run. Unlike a generator, it releases the clip also where it is closed before the first one."""

    def __init__(self, passes: Passes, stream: FrameStream) -> None:
        self._predictions, self._stream = passes.run(), stream

    def __next__(self) -> Prediction:
        try:
            return next(self._predictions)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, and release everything; may be called more than once."""
        self._predictions.close()
        self._stream.close()


def _open(frames: Iterable[Any] | str | os.PathLike[str], playback: Playback) -> FrameStream:
    if isinstance(frames, str | os.PathLike):
        return open_clip(frames, playback)
    if playback.deinterlace:
        raise InputError("only a video given by its path is deinterlaced: leave out `deinterlace`, or give the path")
    return frames if isinstance(frames, FrameStream) else ArrayStream(frames)


def _backwards(
    frames: Iterable[Any] | str | os.PathLike[str], first: int, playback: Playback
) -> Callable[[int, bool], FrameStream] | None:
    """What opens the frames to be read backwards to the first; None where they can be read only once."""
    if isinstance(frames, str | os.PathLike):
        return partial(open_backwards, frames, first=first, playback=playback)
    if isinstance(frames, Sequence | np.ndarray | Tensor):
        return lambda last, _: Spooled(ArrayStream(frames), last, first)
    return None


def _no_second_pass() -> FrameStream:
    raise InputError("frames in memory are read once")
