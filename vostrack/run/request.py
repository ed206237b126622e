"""What a run is asked for: what decides its results, and how it is started."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from vostrack.device import choose_device, processor
from vostrack.errors import OutputError, damage_as
from vostrack.files import plain, shown
from vostrack.methods import Direction, OnCut
from vostrack.notes import Note
from vostrack.propagate import Gone, Reuse
from vostrack.run.callbacks import Callbacks
from vostrack.run.cuts import find_cuts
from vostrack.run.folder import OutputFolder, digest, fingerprint
from vostrack.run.passes import Passes, Store
from vostrack.run.pipeline import Pipeline, PipelineConfig
from vostrack.run.prompts import GoneSpans, Locks, one_way_notes, said_gone
from vostrack.types import FrameStream, LabelMap
from vostrack.video.backwards import open_backwards
from vostrack.video.ground import Reading
from vostrack.video.look import Look, Style
from vostrack.video.masks import GivenMask, Prompts
from vostrack.video.object_names import Painted, shared_names
from vostrack.video.playback import NORMAL, Playback
from vostrack.video.ranges import Span
from vostrack.video.reader import number_notes, open_clip
from vostrack.video.stream import ClipStream
from vostrack.video.writer import WRITERS


@dataclass(frozen=True)
class _Saved:
    """A request as JSON."""

    clip: str
    config: dict[str, Any]
    span: list[int | None]
    reading: dict[str, Any]
    outputs: list[str]
    style: str
    labels: bool
    direction: str
    gone: dict[str, list[list[int | None]]]
    empty: list[int]
    locks: dict[str, dict[str, list[Any]]]
    keep: bool
    ids: dict[str, list[int]]
    colors: dict[str, list[int]]
    names: dict[str, str]
    on_cut: str = "continue"
    playback: dict[str, Any] = field(default_factory=dict)
    processor: str = ""


@dataclass(frozen=True)
class Request:
    """What is wanted of a clip.

    Attributes:
        source: the clip, a video file or a folder of images.
        config: of the pipeline.
        span: the frames.
        masks: by frame, as they were given.
        names: of objects, by what they are painted in.
        reading: how masks are read.
        outputs: names of writers, sorted.
        look: of the overlay, without what the masks say.
        direction: which way objects are followed.
        gone: when objects are not there.
        keep: whether what is said of cells is kept.
        locks: what stays as it is in an earlier version.
        on_cut: what happens to objects at a scene cut.
        playback: how the clip is read.
    """

    source: Path
    config: PipelineConfig
    span: Span
    masks: Mapping[int, GivenMask]
    names: Mapping[Painted, str]
    reading: Reading
    outputs: list[str]
    look: Look
    direction: Direction
    gone: GoneSpans
    keep: bool
    locks: Locks = field(default_factory=Locks)
    on_cut: OnCut = OnCut.CONTINUE
    playback: Playback = NORMAL

    def open(self) -> ClipStream:
        """The whole clip; raises `InputError`."""
        return open_clip(self.source, self.playback)

    def cuts(self, callbacks: Callbacks) -> list[int]:
        """First frames of shots, where objects stop there; reads the clip."""
        if self.on_cut is OnCut.CONTINUE:
            return []
        with self.span.of(self.open()) as frames:
            return find_cuts(frames, callbacks)

    def record(self, prompts: Mapping[int, LabelMap], absent: Gone) -> dict[str, Any]:
        """What a run is made from, as its record has it."""
        return {
            "clip": fingerprint(self.source),
            **self.span.record(),
            "masks": {str(index): digest(prompt) for index, prompt in sorted(prompts.items())},
            "reading": self.reading.record(),
            "direction": str(self.direction),
            "gone": {str(number): [list(span) for span in spans] for number, spans in absent.items()},
            "outputs": self.outputs,
            "keep": self.keep,
            **self.locks.record(),
            "on_cut": str(self.on_cut),
            "playback": self.playback.record(),
        }

    def keep_in(self, folder: OutputFolder, given: Prompts) -> None:
        """Keep all of it in an output folder, with the masks as they were read."""
        masks = {}
        for index, labels in given.labels.items():
            buffer = io.BytesIO()
            Image.fromarray(labels.pixels.numpy()).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
            masks[index] = buffer.getvalue()
        saved = _Saved(
            clip=os.path.abspath(self.source),
            config=plain(asdict(replace(self.config, weights=_lasting(self.config.weights)))),
            span=[self.span.first, self.span.last, self.span.start_number],
            reading=plain(asdict(self.reading)),
            outputs=self.outputs,
            style=str(self.look.style),
            labels=self.look.labels,
            direction=str(self.direction),
            gone={str(number): [list(span) for span in spans] for number, spans in said_gone(self.gone, given).items()},
            empty=given.empty,
            locks=self.locks.record(),
            keep=self.keep,
            ids={str(index): list(labels.ids) for index, labels in given.labels.items()},
            colors={str(number): list(color) for number, color in given.colors.items()},
            names={str(number): name for number, name in given.names.items()},
            on_cut=str(self.on_cut),
            playback=self.playback.record(),
            processor=processor(choose_device(self.config.device)),
        )
        folder.keep_request(asdict(saved), masks)

    @classmethod
    def kept_in(cls, folder: OutputFolder) -> tuple[Self, Prompts]:
        """What `keep_in` kept: the request, without masks, and these as they were read.

        Raises:
            OutputError: nothing was kept, or it is damaged.
        """
        saved, place = folder.read_request(_Saved)

        def refusal(error: Exception) -> OutputError:
            return OutputError(
                f"what was asked for in {shown(folder.path)} is damaged ({shown(error)}): start again with "
                "`overwrite=True`"
            )

        with damage_as(refusal):
            labels = {}
            for index, ids in saved.ids.items():
                with Image.open(place(int(index)), formats=["PNG"]) as image:
                    if image.mode != "L":
                        raise ValueError("a given mask is another kind of image")
                    labels[int(index)] = LabelMap(torch.from_numpy(np.array(image)), tuple(ids))
            colors = {int(number): (red, green, blue) for number, (red, green, blue) in saved.colors.items()}
            config = {name: _tuples(value) for name, value in saved.config.items()}
            first, last, start_number = saved.span
            if not {*saved.outputs} <= {*WRITERS}:
                raise ValueError("it names outputs that there are not")
            request = cls(
                source=Path(saved.clip),
                config=PipelineConfig(**config),
                span=Span(first or 0, last, start_number),
                masks={},
                names={},
                reading=Reading(**{name: _tuples(value) for name, value in saved.reading.items()}),
                outputs=saved.outputs,
                look=Look(Style(saved.style), saved.labels),
                direction=Direction(saved.direction),
                gone={int(number): [(int(a or 0), b) for a, b in spans] for number, spans in saved.gone.items()},
                keep=saved.keep,
                locks=Locks.of(saved.locks),
                on_cut=OnCut(saved.on_cut),
                playback=Playback.of(saved.playback),
            )
            names = {int(number): shown(name) for number, name in saved.names.items()}
        return request, Prompts(labels, [], colors, names, saved.empty)

    def passes(
        self,
        pipeline: Pipeline,
        prompts: Mapping[int, LabelMap],
        stream: FrameStream,
        absent: Gone,
        store: Store,
        callbacks: Callbacks,
        reuse: Mapping[Direction, Reuse] | None = None,
    ) -> Passes:
        """The run, not yet started."""
        return Passes(
            pipeline,
            prompts,
            stream,
            lambda: self.span.of(self.open()),
            callbacks=callbacks,
            probs="probs" in self.outputs,
            store=store,
            direction=self.direction,
            backwards=partial(open_backwards, self.source, first=self.span.first, playback=self.playback),
            gone=absent,
            first=self.span.first,
            reuse=reuse,
        )

    def notes(self, given: Prompts, clip: FrameStream) -> list[Note]:
        """What is to be said before the first frame of a clip."""
        one_way = one_way_notes(given.labels, self.direction, self.span, clip.count)
        return given.notes + number_notes(self.masks, clip) + one_way + shared_names(given.names)


def _lasting(weights: str | Path | None) -> str | None:
    """Weights by a name, or by a path that holds in any working directory."""
    return None if weights is None else os.path.abspath(weights) if Path(weights).is_file() else str(weights)


def _tuples(value: Any) -> Any:
    """What JSON made a list of, as settings have it."""
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
