"""One clip, from files to files: reader, masks, method and writers put together.

`segment` is a function of its inputs: the command line, the benchmark runner and batch jobs all call it. It prints
nothing.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vostrack import __version__
from vostrack.errors import InputError, VostrackError, unknown_name
from vostrack.files import lock_folder
from vostrack.methods import DEFAULT, load_method
from vostrack.output import OutputFolder, digest, fingerprint
from vostrack.propagate import Propagator, check_prompts
from vostrack.summary import ObjectLog, peak_rss_mb
from vostrack.types import Clip, Frame, LabelMap
from vostrack.video.masks import parse_mask_option, read_prompts
from vostrack.video.prefetch import Prefetch
from vostrack.video.reader import open_clip
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter, Writer

OUTPUTS = tuple(WRITERS)
_SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Settings:
    """How to segment.

    Attributes:
        method: name of the method.
        weights: file or name of weights; None for the method's own.
        preset: named configuration of the method.
        options: fields of the configuration to change, as text.
        size: short side of the working resolution in pixels; None for the source's.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        outputs: names of writers, among "masks", "overlay", "objects", "probs"; masks are always written.
        resize_mask: whether masks of another size but the same shape are accepted.
        overwrite: whether the results of an earlier run in the output folder are replaced.
        resume: whether an interrupted run in the output folder is continued.
    """

    method: str = DEFAULT
    weights: str | Path | None = None
    preset: str = "default"
    options: Mapping[str, str] = field(default_factory=dict)
    size: int | None = 480
    device: str = "auto"
    outputs: Sequence[str] = ("masks", "overlay")
    resize_mask: bool = False
    overwrite: bool = False
    resume: bool = False


def segment(
    source: str | Path,
    masks: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    settings: Settings | None = None,
    on_frame: Callable[[int, int | None], None] = lambda done, count: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:
    """Segment a clip and write the results.

    Args:
        source: a video file or a folder of images.
        masks: a mask of the first frame, or several as "FRAME:PATH".
        out: output folder; by default `<clip>_vostrack` next to the clip.
        settings: how.
        on_frame: called after each frame with the number of frames done and, where known, the number of all; what it
            raises stops the run at a point from which it can be resumed.
        on_note: called with each thing worth knowing, as soon as it is known.

    Returns:
        The summary that is also written to `summary.json` (docs/formats.md).

    Raises:
        InputError, MaskError: the clip or a mask cannot be used.
        MethodError, WeightsError: the method cannot be had.
        OutputError: the results cannot be written, are there already, or cannot be resumed.
    """
    settings = settings or Settings()
    for name in settings.outputs:
        if name not in OUTPUTS:
            raise VostrackError(unknown_name("output", name, OUTPUTS))
    device = choose_device(settings.device)
    given = [str(masks)] if isinstance(masks, str | Path) else [str(mask) for mask in masks]
    with open_clip(source) as stream:
        prompts, notes = read_prompts(given, stream.size, resize=settings.resize_mask, stored_size=stream.stored_size)
        check_prompts(prompts, stream.count)
        folder = OutputFolder(Path(out) if out is not None else default_folder(Path(source)))
        folder.refuse_inputs([Path(source), *(parse_mask_option(text)[1] for text in given)])
        method, weights = load_method(
            settings.method,
            weights=settings.weights,
            preset=settings.preset,
            options=settings.options,
            device=device,
        )
        record = _record(settings, device, Path(source), prompts) | _plain(config=method.config, weights=weights)
        with lock_folder(folder.path):
            finished = folder.prepare(record, overwrite=settings.overwrite, resume=settings.resume)
            if finished is not None:
                return finished
            progress = folder.load_progress(method.state_type, device)
            engine = Propagator(method, settings.size, device, "probs" in settings.outputs, progress)
            job = _Job(folder, record, Prefetch(stream), prompts, on_frame, on_note)
            for note in notes:
                job.note(note)
            return job.run(engine, Path(source))


def _record(settings: Settings, device: torch.device, source: Path, prompts: Mapping[int, LabelMap]) -> dict[str, Any]:
    """Everything that decides what the results will be, but for the method's configuration and weights."""
    return {
        "vostrack": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "clip": fingerprint(source),
        "masks": {str(index): digest(prompt) for index, prompt in sorted(prompts.items())},
        "method": settings.method,
        "preset": settings.preset,
        "size": settings.size,
        "outputs": sorted({"masks", *settings.outputs}),
    }


def _plain(**parts: Any) -> dict[str, Any]:
    """Dataclasses as they are read back from JSON, with lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps({name: asdict(part) for name, part in parts.items()}))
    return plain


def default_folder(source: Path) -> Path:
    """`<clip>_vostrack` next to the clip."""
    source = Path(os.path.abspath(source))  # not resolved: the results of a link lie beside the link
    return source.with_name(f"{source.name if source.is_dir() else source.stem}_vostrack")


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        VostrackError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    have = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, colon, number = name.partition(":")
    if kind not in have or (colon and not number.isdecimal()):
        raise VostrackError(unknown_name("device", name, ("auto", *have)))
    if int(number or 0) >= have[kind]:
        raise VostrackError(f"device {name!r} is not available on this machine: use --device cpu")
    return torch.device(name)


class _Job:
    """One run of `segment` after everything was opened and checked."""

    def __init__(
        self,
        folder: OutputFolder,
        record: Mapping[str, Any],
        frames: Prefetch,
        prompts: Mapping[int, LabelMap],
        on_frame: Callable[[int, int | None], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.folder, self.record, self.frames, self.prompts = folder, record, frames, prompts
        self.on_frame, self.on_note = on_frame, on_note
        self.log = ObjectLog()
        self.notes: list[str] = []
        self.model_seconds = self.again_seconds = 0.0

    def note(self, text: str) -> None:
        """Keep a note for the summary and pass it on, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.on_note(text)

    def run(self, engine: Propagator, source: Path) -> dict[str, Any]:
        """Propagate and write; the state is saved every so often and when `on_frame` raises."""
        start = time.perf_counter()
        first = engine.progress.next_frame
        to = Destination(self.folder.path, None if source.is_dir() else source, self.frames.fps)
        writers = {name: WRITERS[name](to) for name in self.record["outputs"]}
        remaining = self._remaining(first, writers.get("overlay"))
        with self.frames, ThreadedWriter(list(writers.values())) as writing:
            self._propagate(engine, Clip(remaining, self.prompts), writing)
        for text in (*self.frames.notes, *writing.notes, *self.log.warnings()):
            self.note(text)
        new = self.log.frames - first
        seconds = {
            "decode": self.frames.busy / max(self.log.frames, 1),
            "model": self.model_seconds / max(new, 1),
            "write": writing.seconds / max(new, 1),
            "total": (time.perf_counter() - start - self.again_seconds) / max(new, 1),
        }
        return self._summary(seconds)

    def _remaining(self, first: int, overlay: Writer | None) -> Iterator[Frame]:
        """Frames that are not done yet; those that are go to the log and the overlay with the masks that lie there.

        A video file cannot be continued, so that the overlay starts again from its first frame.
        """
        for frame in self.frames:
            if frame.index >= first:
                yield frame
                continue
            start = time.perf_counter()
            done = self.folder.read_prediction(frame, self.prompts)
            self.log.add(done)
            if overlay is not None:
                overlay.write(done)
            self.again_seconds += time.perf_counter() - start
            self.on_frame(frame.index + 1, self.frames.count)

    def _propagate(self, engine: Propagator, clip: Clip, writing: ThreadedWriter) -> None:
        saved = time.monotonic()
        predictions = engine.run(clip)
        while True:
            start, idle = time.perf_counter(), self.frames.waited + self.again_seconds
            prediction = next(predictions, None)
            if prediction is None:
                return
            self.model_seconds += time.perf_counter() - start - (self.frames.waited + self.again_seconds - idle)
            self.folder.announce(prediction.frame)
            writing.write(prediction)
            self.log.add(prediction)
            try:
                self.on_frame(prediction.frame.index + 1, self.frames.count)
            except BaseException:
                # Only here is the state sure to be whole: an interruption inside the model finds it half written.
                self._save(engine, writing)
                raise
            if time.monotonic() - saved > _SAVE_SECONDS:
                self._save(engine, writing)
                saved = time.monotonic()

    def _save(self, engine: Propagator, writing: ThreadedWriter) -> None:
        writing.flush()
        self.folder.save_progress(engine.progress)

    def _summary(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        if not self.log.frames:
            raise InputError(f"{self.frames.name} has no frames: check the file")
        summary = {
            **self.record,
            "out": str(self.folder.path),
            "frames": self.log.frames,
            "frame_size": list(self.frames.size),
            "objects": self.log.objects(),
            "seconds_per_frame": {name: round(value, 4) for name, value in seconds.items()},
            "peak_rss_mb": peak_rss_mb(),
            "python": platform.python_version(),
            "warnings": self.notes,
        }
        self.folder.complete(summary)
        return summary
