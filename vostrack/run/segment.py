"""`vostrack.segment`: one clip, from files to files."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from vostrack.adapt.adaptation import AdaptState
from vostrack.errors import Cancelled, InputError, MethodError, unknown_name
from vostrack.files import OutputRoot, lock_folder, shown
from vostrack.methods import DEFAULT, WORKING_SIZE, OnCut
from vostrack.notes import Code, Note, by_severity
from vostrack.propagate import EnginePosition, check_prompts
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.confidence import Row, by_object, confidences, load_model, low_notes
from vostrack.run.cuts import beyond_cuts, cut_notes, cuts
from vostrack.run.export import Exports, older
from vostrack.run.folder import OutputFolder
from vostrack.run.given import Known, choose_masks
from vostrack.run.passes import DRAWING, Passes
from vostrack.run.pipeline import Pipeline, PipelineConfig, load_pipeline
from vostrack.run.place import default_folder
from vostrack.run.prompts import GoneSpans, checked_direction, checked_on_cut, gone_by_id
from vostrack.run.request import Request
from vostrack.run.signs import FrameSigns, SignsWriter
from vostrack.run.steps import finish_moves
from vostrack.run.summary import ObjectLog, doubts, peak_rss_mb
from vostrack.types import Frame, FrameStream, Prediction
from vostrack.video.ground import Reading
from vostrack.video.look import Look, Style
from vostrack.video.mask_labels import hex_name
from vostrack.video.masks import mask_paths, read_prompts
from vostrack.video.object_names import Names, checked_names
from vostrack.video.playback import Playback
from vostrack.video.ranges import GivenMasks, Range
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter

OUTPUTS = tuple(WRITERS)


def segment(
    clip: str | os.PathLike[str],
    masks: GivenMasks,
    out: str | Path | None = None,
    *,
    names: Names | None = None,
    range: Range | None = None,  # noqa: A002
    start_number: int | None = None,
    method: str = DEFAULT,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    size: int | None = WORKING_SIZE.default,
    device: str = "auto",
    adapt: str | None = None,
    adapt_preset: str = "default",
    adapt_settings: Mapping[str, Any] | None = None,
    refine: str | None = None,
    refine_settings: Mapping[str, Any] | None = None,
    outputs: Iterable[str] = ("masks", "overlay"),
    exports: Iterable[str] = (),
    overlay_style: str = "tint",
    overlay_labels: bool = False,
    direction: str = "both",
    gone: GoneSpans | None = None,
    keep: bool = True,
    on_cut: str = "continue",
    resize_mask: bool = False,
    background: int | tuple[int, int, int] | None = None,
    invert_mask: bool = False,
    no_background: bool = False,
    deinterlace: bool = False,
    fps: Fraction | float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Callbacks | None = None,
    load: Callable[[PipelineConfig], Pipeline] = load_pipeline,
) -> dict[str, Any]:
    """Follow the objects of given masks through a clip and write the results.

    Arguments that are not described here are those of `vostrack.track`.

    Args:
        clip: a video file or a folder of images.
        masks: by frame, from 0, or by time, as a `Fraction` of seconds, or the one of the first frame alone: a path, a
            PIL image, an array or tensor (H, W) of ids, or a `LabelMap`; see `vostrack.track`.
        out: output folder; by default `<clip>_vostrack` next to the clip.
        start_number: number of the results of the first frame, as 1001 in `01001.png`; None for that of the frame, or
            for its name in a folder of images. Masks, range and summary count frames of the clip all the same.
        adapt: form of online adaptation: "clip" for two passes, "live" for one; None for none.
        adapt_preset: its named settings.
        adapt_settings: settings of it to change, by name.
        outputs: what to write, among "masks", "overlay", "objects", "probs"; masks are always written.
        exports: formats that the complete run is exported to, as by `vostrack.export` with nothing else said.
        overlay_style: "tint" and "outline" draw over the clip, "cutout" and "checkerboard" put a ground behind objects.
        overlay_labels: whether the overlay has the ids and names of objects, and the numbers of frames.
        keep: whether what the method says of the cells of each frame stays in the output folder, in eight bits; later
            corrections and exports of soft edges read it.
        on_cut: what happens to objects at a scene cut. "continue": they are followed across it, with a warning. "stop":
            they are in no mask of a shot in which no mask of theirs was given; the clip is read once more for that.
        fps: frames a second of a folder of images, up to 1000, in movies that are made of it; None for 24.
        overwrite: whether the results of an earlier run in the output folder are replaced.
        resume: whether an interrupted run there is continued, or missing files of a complete one are made again; the
            overlay of a complete one is drawn again where it should look otherwise, and exports that are missing made.
        callbacks: what is called on the way.
        load: makes the method ready; a `vostrack.Pipelines()` that is given for many clips loads its weights once.

    Returns:
        The summary that is also written to `summary.json` (docs/formats.md).

    Raises:
        InputError, MaskError: the clip or a mask cannot be used.
        MethodError, WeightsError: an unknown name or setting; weights that are missing or do not fit.
        OutputError: the results cannot be written, are there already, or cannot be resumed.
        Cancelled: the callbacks said so; the run can be resumed.
    """
    config = PipelineConfig(
        method=method,
        preset=preset,
        settings=settings or {},
        weights=weights,
        size=size,
        device=device,
        adapt=adapt,
        adapt_preset=adapt_preset,
        adapt_settings=adapt_settings or {},
        refine=refine,
        refine_settings=refine_settings or {},
    )
    _check_types(clip, overwrite=overwrite, resume=resume, overlay_labels=overlay_labels, keep=keep)
    reading, named = Reading(resize_mask, background, invert_mask, no_background), checked_names(names or {})
    look, way, wanted = Look(_style(overlay_style), overlay_labels), checked_direction(direction), _outputs(outputs)
    cut, playback, callbacks = checked_on_cut(on_cut), Playback(deinterlace, fps), checked_callbacks(callbacks)
    ending = Exports(exports, Path(out) if out is not None else default_folder(Path(clip)))
    pipeline = load(config)
    span, by_frame = choose_masks(clip, range, masks, start_number, Known.named(named))
    request = Request(Path(clip), config, span, by_frame, named, reading, wanted, look, way, gone or {}, keep)
    return _run(replace(request, on_cut=cut, playback=playback), pipeline, ending, overwrite, resume, callbacks)


def _run(
    request: Request,
    pipeline: Pipeline,
    ending: Exports,
    overwrite: bool,
    resume: bool,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Open the clip, read the masks, and make the folder right: begun, gone on with, or complete already."""
    source, masks, span = request.source, request.masks, request.span
    with request.open() as whole:
        stream = span.of(whole)
        given = read_prompts(masks, whole.size, request.reading, whole.stored_size, names=request.names)
        check_prompts(given.labels, whole.count, whole.files)
        gone = gone_by_id(request.gone, given, whole.count, whole.files)
        absent = beyond_cuts(request.cuts(callbacks), given.labels, gone)
        look = replace(request.look, colors=given.colors, names=given.names, shift=span.shift)
        folder = OutputFolder(ending.run, given.labels, masks, request.direction)
        inputs = [source, *mask_paths(masks)]
        folder.check_place(inputs)
        ending.check(inputs, overwrite, resume)
        record = pipeline.record() | request.record(given.labels, absent)
        with lock_folder(folder.path):
            finish_moves(folder.path)
            finished = folder.prepare(record, overwrite=overwrite, resume=resume)
            ending.begin(overwrite, resume)
            outputs = ["overlay"] if finished else request.outputs
            store = FolderStore(folder, outputs, request, stream.fps, look, ObjectLog(absent, [*given.labels]))
            if not (folder.resumes and folder.has_request()):
                request.keep_in(folder, given)
            if finished is not None:
                summary = _looking_right(store, stream, callbacks, finished)
            else:
                passes = request.passes(pipeline, given.labels, stream, absent, store, callbacks)
                notes = request.notes(given, whole) + ([] if folder.refills else older(folder.path))
                summary = write_run(passes, store, stream, notes, record)
            return _exported(ending, folder, source, summary, callbacks)


def _exported(
    ending: Exports, folder: OutputFolder, source: Path, summary: dict[str, Any], callbacks: Callbacks
) -> dict[str, Any]:
    """The summary of a complete run whose exports are made, if there are any."""
    made = ending.make(source, callbacks)
    if not made["exports"]:
        return summary
    told = {each: [*summary.get(each, []), *made[each]] for each in ("warnings", "notes")}
    summary = {**summary, "exports": made["exports"], **told}
    folder.complete(summary)
    return summary


def _check_types(clip: object, **flags: object) -> None:
    if not isinstance(clip, str | os.PathLike):
        raise InputError(f"segment takes the path of a clip, not a {type(clip).__name__}: use track for frames")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise MethodError(f"{name} must be True or False, not {flag!r}")


def _outputs(names: Iterable[str]) -> list[str]:
    """Names of writers, sorted, masks among them."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise MethodError(f"outputs must be a list of names such as ['overlay'], not {names!r}")
    wanted = sorted({"masks", *names})
    for name in wanted:
        if name not in OUTPUTS:
            raise MethodError(unknown_name("output", name, OUTPUTS))
    return wanted


def _style(name: str) -> Style:
    try:
        return Style(name)
    except ValueError:
        raise MethodError(unknown_name("overlay style", str(name), map(str, Style))) from None


class FolderStore:
    """Keeps a run in its output folder; a `Store`."""

    def __init__(
        self,
        folder: OutputFolder,
        outputs: Sequence[str],
        request: Request,
        fps: Fraction | None,
        look: Look,
        log: ObjectLog,
        measured: Iterable[FrameSigns] = (),
    ) -> None:
        """Take the parts; `measured` is what an earlier run measured of the frames that this one takes from it."""
        self.folder, self.resumes, self.log, self.look = folder, folder.resumes, log, look
        self.cells, self.keeps, self._signs = folder.cells, request.keep, SignsWriter(OutputRoot(folder.path), measured)
        self._model, self._stops = load_model(request.config.method), request.on_cut is OnCut.STOP
        to = Destination(folder.path, None if request.source.is_dir() else request.source, fps, folder.refills, look)
        writers = {name: WRITERS[name](to) for name in outputs}
        self.writing = ThreadedWriter([*writers.values(), self._signs])
        self._overlay = writers.get("overlay")

    def judged(self) -> tuple[list[Row], list[Note]]:
        """The confidence in each mask, and what is doubtful."""
        signs, prompts = self.folder.signs(), self.folder.prompts
        rows, found = confidences(signs, prompts, self.log.gone, self._model), cuts({s.frame: s.change for s in signs})
        return rows, [*cut_notes(found, prompts, self._stops), *doubts(signs, prompts, found), *low_notes(rows)]

    def load(self, state_type: type[Any], device: torch.device) -> tuple[EnginePosition, AdaptState | None]:
        return self.folder.load_position(state_type, device)

    def save(self, position: EnginePosition, adapt: AdaptState | None) -> None:
        self.writing.flush()
        self.folder.save_position(position, adapt)

    def load_backwards(self, state_type: type[Any], device: torch.device) -> EnginePosition:
        return self.folder.load_backwards(state_type, device)

    def save_backwards(self, position: EnginePosition | None) -> None:
        self.folder.save_backwards(position)

    def load_second_pass(self) -> int:
        return self.folder.load_second_pass()

    def save_second_pass(self, next_frame: int) -> None:
        self.writing.flush()
        self.folder.save_second_pass(next_frame)

    def done(self, frame: Frame) -> None:
        """The frame goes to the log and to the overlay, since a video file cannot be continued."""
        prediction = self.folder.read_prediction(frame)
        self.log.add(prediction)
        self._signs.skip(prediction)
        if self._overlay is not None:
            self._overlay.write(prediction)


def write_run(
    passes: Passes,
    store: FolderStore,
    stream: FrameStream,
    notes: Sequence[Note],
    record: Mapping[str, Any],
    change: Callable[[Prediction], Prediction] = lambda prediction: prediction,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write all predictions, and the summary at the end.

    Args:
        passes: the run, not yet started.
        store: where it is kept.
        stream: its clip.
        notes: to be said first.
        record: all that decides the results.
        change: what is done with a prediction before it is written.
        out: the folder that the summary names; None for that of the store.
    """
    start, folder, log = time.perf_counter(), store.folder, store.log
    refill = "files of this complete run are missing: it is done again, and those still there are kept"
    for note in (*notes, *([Note(Code.RUN_REFILLED, refill)] if folder.refills else [])):
        passes.note(note)
    with store.writing as writing, closing(passes.run()) as predictions:
        for prediction in map(change, map(folder.as_kept, predictions)):
            folder.announce(prediction.frame)
            writing.write(prediction)
            log.add(prediction)
    passes.seconds["write"] += writing.seconds
    rows, found = store.judged()
    for note in (*writing.notes, *log.notes(), *found):
        passes.note(with_names(note, store.look.names))
    if not log.frames:
        raise InputError(f"{stream.name} has no frames: check the file")
    total = time.perf_counter() - start - passes.skipped
    seconds = {name: value / max(passes.frames, 1) for name, value in (passes.seconds | {"total": total}).items()}
    seconds["decode"] = passes.seconds["decode"] / log.frames  # a run that goes on decodes all of them
    summary = {
        **record,
        "overlay": store.look.record() if "overlay" in record["outputs"] else None,
        "out": str(out or folder.path),
        "frames": log.frames,
        "frame_size": list(stream.size),
        "objects": named_objects(log.objects(by_object(rows)), store.look),
        "seconds_per_frame": {name: round(value, 4) for name, value in seconds.items()},
        "peak_rss_mb": peak_rss_mb(),
        "python": platform.python_version(),
        "exports": {},
        **by_severity(passes.notes),
    }
    folder.write_confidence(rows)
    if not store.keeps:
        folder.forget_cells()
    folder.complete(summary)
    return summary


def _looking_right(
    store: FolderStore, stream: FrameStream, callbacks: Callbacks, summary: dict[str, Any]
) -> dict[str, Any]:
    """The summary of a complete run, whose overlay is drawn again, from its masks, if another look is wanted.

    Masks may have been retouched: the summary then says of the objects what is drawn.
    """
    named = {**summary, "objects": named_objects(summary["objects"], store.look)}
    drawn_as = summary.get("overlay", Look().record())
    renamed = store.look.labels and named != summary
    if drawn_as is None or (drawn_as == store.look.record() and not renamed):
        if named != summary:
            store.folder.complete(named)
        return named
    with store.writing:
        redraw(stream, store.done, callbacks)
    seen = {str(Code.OBJECT_HIDDEN), str(Code.OBJECT_VANISHED)}
    told = [each for each in summary.get("warnings", ()) if not (isinstance(each, dict) and each.get("code") in seen)]
    drawn = {
        **summary,
        "overlay": store.look.record(),
        "objects": named_objects(store.log.objects(by_object(store.judged()[0])), store.look),
        "warnings": told + by_severity(store.log.notes())["warnings"],
    }
    store.folder.complete(drawn)
    return drawn


def redraw(stream: FrameStream, draw: Callable[[Frame], None], callbacks: Callbacks) -> None:
    """Draw the overlay of a complete run again, frame by frame; raises `Cancelled`."""
    callbacks.phase(DRAWING)
    for done, frame in enumerate(stream, 1):
        draw(frame)
        callbacks.progress(done, stream.count)
        if callbacks.cancelled():
            raise Cancelled(f"cancelled after {done} frames: the overlay is as it was")


def with_names(note: Note, names: Mapping[int, str]) -> Note:
    """A note on objects, which says also what they are called."""

    def called(found: re.Match[str]) -> str:
        name = names.get(int(found[1]))
        return f"{found[0]} ({shown(name)})" if name else found[0]

    return Note(note.code, re.sub(r"\bobject (\d+)\b", called, note))


def named_objects(objects: Mapping[str, Any], look: Look) -> dict[str, Any]:
    """What a summary says of objects, with their names and the colours that they were painted in."""
    names = {str(number): name for number, name in look.names.items()}
    colors = {str(number): hex_name(color) for number, color in look.colors.items()}
    return {
        number: {**told, "name": names.get(number), "color": colors.get(number)} for number, told in objects.items()
    }
