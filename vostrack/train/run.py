"""A training run from folders to weights: finds the footage, decodes it once, trains with a progress bar, writes weights."""

from __future__ import annotations

import os
from collections import deque
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vostrack import __version__
from vostrack import weights as store
from vostrack.errors import DatasetError, OutputError, OutputExistsError
from vostrack.files import lock_folder, make_folder, shown
from vostrack.methods import method_class
from vostrack.segmentation import choose_device
from vostrack.train.data import FrameCache, build_cache, find_sources
from vostrack.train.loop import CHECKPOINT, StepReport, TrainConfig, train

if TYPE_CHECKING:
    from rich.console import Console

    from vostrack.methods.base import Objective

_WINDOW = 50


@dataclass(frozen=True)
class TrainRun:
    """What to train, on what, and where to.

    Attributes:
        method: name of the method.
        data: folders of footage.
        out: folder of the run.
        cache: folder of decoded frames; None for one below `out`.
        start: weights to start from, or None for random ones.
        crop: side of the training crops in pixels.
        learning_rate: None for the method's own.
        device: as for `segment`.
        resume: whether to go on with the run in `out`.
        config: steps, batch, seed, minutes.
    """

    method: str
    data: tuple[Path, ...]
    out: Path
    cache: Path | None
    start: str | None
    crop: int
    learning_rate: float | None
    device: str
    resume: bool
    config: TrainConfig


def default_data() -> tuple[Path, ...]:
    """`$VOSTRACK_DATA/clips`, else `./clips`.

    Raises:
        DatasetError: neither exists.
    """
    given = os.environ.get("VOSTRACK_DATA")
    candidates = ([Path(given) / "clips"] if given else []) + [Path("clips")]
    for folder in candidates:
        if folder.is_dir():
            return (folder,)
    looked = " and ".join(map(str, candidates))
    raise DatasetError(
        f"no footage to train on: looked for {looked}; give --data FOLDER with videos or folders of frames"
    )


def prepare(job: TrainRun, console: Console) -> FrameCache:
    """The decoded footage of a run; decodes it where that was not done before.

    Raises:
        OutputExistsError: there is a run in the folder and `resume` was not asked for.
        MethodError, DatasetError, OutputError: from the method's name, the footage, the folder.
    """
    method_class(job.method)
    checkpoint = job.out / CHECKPOINT
    if checkpoint.exists() and not job.resume:
        raise OutputExistsError(f"{shown(checkpoint)} is there already: go on with --resume, or choose another --out")
    if job.resume and not checkpoint.exists():
        raise OutputError(f"there is no {shown(checkpoint)} to resume: leave --resume out to start")
    make_folder(job.out)
    sources = find_sources(job.data)
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=len(sources))

        def advance(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total)
            if note:
                console.print(f"left out: {note}", style="yellow", markup=False, highlight=False)

        cache = build_cache(sources, job.cache or job.out / "cache", progress=advance)
    frames = sum(clip.count for clip in cache.clips)
    console.print(f"{len(cache.clips)} clips, {frames} frames of footage", highlight=False)
    return cache


def run(job: TrainRun, cache: FrameCache, console: Console) -> Path:
    """Train and write the weights.

    Returns:
        The weights file. Interrupted, the run leaves a checkpoint and no weights.

    Raises:
        WeightsError: the weights to start from do not fit.
        InputError, OutputError: the checkpoint cannot be used, or something cannot be written.
    """
    device = choose_device(job.device)
    factory = method_class(job.method)
    torch.manual_seed(job.config.seed)
    net = factory.build_net()
    if job.start is not None:
        store.load(net, job.method, store.find(job.method, job.start))
    objective = factory.build_objective(net, job.crop, job.learning_rate)
    with lock_folder(job.out):
        last = _train(job, objective, cache, device, console)
        path = job.out / f"{job.method}.safetensors"
        details = {
            "vostrack": __version__,
            "torch": torch.__version__,
            "device": str(device),
            "clips": len(cache.clips),
            "frames": sum(clip.count for clip in cache.clips),
            "start": job.start,
            "crop": job.crop,
            "learning_rate": objective.learning_rate,
            "config": asdict(job.config),
            "steps": last.step if last else None,
            "minutes": round(last.seconds / 60, 1) if last else None,
        }
        store.save_weights(net, job.method, path, details)
    return path


def _train(
    job: TrainRun, objective: Objective, cache: FrameCache, device: torch.device, console: Console
) -> StepReport | None:
    """The loop with its progress bar; the bar counts steps, or minutes where these end the run."""
    minutes = job.config.max_minutes
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    recent: deque[float] = deque(maxlen=_WINDOW)
    report = None
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        closing(train(objective, cache, job.config, job.out, device)) as steps,
    ):
        task = bar.add_task(job.method, total=1.0)
        for report in steps:
            recent.append(report.losses["loss"])
            done = report.step / job.config.steps
            if minutes:
                done = max(done, report.seconds / (60 * minutes))
            text = f"{job.method} step {report.step} loss {fmean(recent):.4f}"
            bar.update(task, completed=min(done, 1.0), description=text)
            if not console.is_terminal and report.step % _WINDOW == 0:
                console.print(text, highlight=False)
    return report
