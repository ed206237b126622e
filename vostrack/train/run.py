"""A training run from folders to weights: finds the footage, decodes it once, trains, writes the weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vostrack import __version__
from vostrack import weights as store
from vostrack.errors import DatasetError, OutputError, OutputExistsError
from vostrack.files import lock_folder, make_folder, shown
from vostrack.methods import method_class
from vostrack.segmentation import choose_device
from vostrack.train.data import FrameCache, build_cache, find_sources
from vostrack.train.loop import CHECKPOINT, StepReport, TrainConfig, train


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
        board: whether losses are logged for TensorBoard.
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
    board: bool
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


def prepare(job: TrainRun, on_source: Callable[[int, int, str], None]) -> FrameCache:
    """The decoded footage of a run; decodes it where that was not done before.

    Args:
        job: what to train on.
        on_source: called after each decoded source with (done, all, what is wrong with it or "").

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
    sources = find_sources(job.data)
    make_folder(job.out)
    return build_cache(sources, job.cache or job.out / "cache", progress=on_source)


def run(job: TrainRun, cache: FrameCache, on_step: Callable[[StepReport, float], None]) -> Path:
    """Train and write the weights.

    Args:
        job: what and how.
        cache: from `prepare`.
        on_step: called after each step with its report and the share of the run that is done; what it raises ends the
            run, which can then be resumed.

    Returns:
        The weights file.

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
    last = None
    with (
        lock_folder(job.out),
        _board(job) as board,
        closing(train(objective, cache, job.config, job.out, device)) as steps,
    ):
        for last in steps:
            for name, value in last.losses.items():
                board(name, value, last.step)
            on_step(last, _done(last, job.config))
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
    path = job.out / f"{job.method}.safetensors"
    store.save_weights(net, job.method, path, details)
    return path


def _done(report: StepReport, config: TrainConfig) -> float:
    """Share of the run that is done: of the steps, or of the minutes where these end it earlier."""
    minutes = config.max_minutes
    return min(1.0, max(report.step / config.steps, report.seconds / (60 * minutes) if minutes else 0.0))


@contextmanager
def _board(job: TrainRun) -> Iterator[Callable[[str, float, int], None]]:
    """Where losses are logged for TensorBoard: nowhere, or OUT/tensorboard if it was asked for."""
    if not job.board:
        yield lambda name, value, step: None
        return
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise OutputError(
            "TensorBoard is not installed: pip install 'vostrack[train]', or leave --board out"
        ) from error
    with SummaryWriter(str(job.out / "tensorboard")) as writer:
        yield writer.add_scalar
