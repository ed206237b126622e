"""One clip, from files to files: reader, masks, method, refinement and writers put together.

`segment` is a function of its inputs: the command line, the benchmark runner and batch jobs all call it. It prints
nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vostrack import __version__
from vostrack.adapt.adaptation import Adaptation, AdaptFilter, adaptation_record
from vostrack.adapt.config import FEW_ITERATIONS, AdaptConfig, adaptation_config
from vostrack.device import choose_device
from vostrack.errors import VostrackError, unknown_name
from vostrack.files import lock_folder
from vostrack.methods import DEFAULT, load_method
from vostrack.methods.base import Method
from vostrack.propagate import Propagator, check_prompts
from vostrack.refine import make_refiner
from vostrack.refine.base import RefineFilter, Refiner, Stage
from vostrack.run.folder import OutputFolder, digest, fingerprint
from vostrack.run.passes import Job, Reports
from vostrack.types import LabelMap
from vostrack.video.masks import parse_mask_option, read_prompts
from vostrack.video.prefetch import Prefetch
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream
from vostrack.video.writer import WRITERS

OUTPUTS = tuple(WRITERS)


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
        adapt: form of online adaptation: "clip" for two passes, "live" for one; None for none.
        adapt_preset: its named settings.
        adapt_options: settings to change, as text.
        refine: name of the refinement of the masks ("crf"); None for none.
        refine_options: fields of its configuration to change, as text.
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
    adapt: str | None = None
    adapt_preset: str = "default"
    adapt_options: Mapping[str, str] = field(default_factory=dict)
    refine: str | None = None
    refine_options: Mapping[str, str] = field(default_factory=dict)
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
    on_phase: Callable[[str], None] = lambda phase: None,
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
        on_phase: called where an adaptation in two passes enters a phase, "following", "training" or "segmenting";
            `on_frame` counts within a phase, while training the steps.

    Returns:
        The summary that is also written to `summary.json` (docs/formats.md).

    Raises:
        InputError, MaskError: the clip or a mask cannot be used.
        MethodError, WeightsError: the method, the adaptation or the refinement cannot be had.
        OutputError: the results cannot be written, are there already, or cannot be resumed.
    """
    settings = settings or Settings()
    for name in settings.outputs:
        if name not in OUTPUTS:
            raise VostrackError(unknown_name("output", name, OUTPUTS))
    device = choose_device(settings.device)
    config = adaptation_config(settings.adapt, settings.adapt_preset, settings.adapt_options)
    refiner = make_refiner(settings.refine, settings.refine_options)
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
        record["adapt"] = adaptation_record(settings.adapt, config, device) if settings.adapt and config else None
        record["refine"] = refiner.record() if refiner else None
        with lock_folder(folder.path):
            finished = folder.prepare(record, overwrite=settings.overwrite, resume=settings.resume)
            if finished is not None:
                return finished
            job = Job(folder, record, Path(source), prompts, Reports(on_frame, on_note, on_phase))
            for note in notes:
                job.note(note)
            return _run(job, settings, stream, method, device, config, refiner)


def _run(
    job: Job,
    settings: Settings,
    stream: ClipStream,
    method: Method[Any],
    device: torch.device,
    config: AdaptConfig | None,
    refiner: Refiner | None,
) -> dict[str, Any]:
    """Run what was prepared, from its beginning or from where it stopped: in two passes, or in one."""
    progress, adapted = job.folder.load_progress(method.state_type, device)
    adaptation = Adaptation(job.prompts, config, device, adapted) if config else None
    write_probs, live = "probs" in settings.outputs, settings.adapt == "live"
    probs = write_probs or refiner is not None
    engine = Propagator(method, settings.size, device, probs and (live or not adaptation), progress)
    stages: dict[str, Stage] = {"refine": RefineFilter(refiner, job.prompts, write_probs)} if refiner else {}
    if adaptation is None:
        return job.run(Prefetch(stream), engine, stages)
    if live:
        return job.run(Prefetch(stream), engine, {"adapt": AdaptFilter(adaptation.live), **stages}, adaptation)
    if (steps := adaptation.config.iterations) < FEW_ITERATIONS:
        job.note(f"{steps} steps of adaptation are few and can make masks worse: {FEW_ITERATIONS} or more are advised")
    job.learn(Prefetch(stream), engine, adaptation)
    size = engine.working_size(stream.size) if probs else None
    with open_clip(job.source) as again:
        return job.apply(Prefetch(again), adaptation, size, stages)


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
