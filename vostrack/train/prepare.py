"""What a training run needs before its first step: network, objective, and footage that is decoded once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vostrack import weights as store
from vostrack.errors import DatasetError, MethodError, OutputError, OutputExistsError
from vostrack.files import make_folder, shown
from vostrack.methods import build_net, method_class
from vostrack.methods.base import Objective, Recipe
from vostrack.train.checkpoint import CHECKPOINT
from vostrack.train.data.cache import SHORT_SIDE, FrameCache, build_cache, hold_where_it_fits
from vostrack.train.data.footage import Source, find_footage, find_labelled, find_stills
from vostrack.train.evaluate import HELD_OUT_FRAMES, HELD_OUT_SIZE
from vostrack.train.parallel import Team
from vostrack.train.settings import TrainConfig


@dataclass(frozen=True)
class TrainRun:
    """What to train, on what, and where to.

    Attributes:
        method: name of the method.
        data: folders of footage.
        stills: folders of single images.
        held_out: folder of clips with masks to evaluate on, or None.
        out: folder of the run.
        cache: folder of decoded frames; None for one below `out`.
        recipe: the method's recipe, as it was chosen and changed.
        resume: whether to go on with the run in `out`.
        board: whether losses are logged for TensorBoard.
        picture_minutes: time from one picture of predictions to the next; 0 for none.
        config: steps, batch, seed, minutes.
    """

    method: str
    data: tuple[Path, ...]
    stills: tuple[Path, ...]
    held_out: Path | None
    out: Path
    cache: Path | None
    recipe: Recipe
    resume: bool
    board: bool
    picture_minutes: float
    config: TrainConfig


@dataclass(frozen=True)
class Prepared:
    """What a run works with: network, objective, and decoded footage."""

    net: nn.Module
    objective: Objective
    cache: FrameCache
    held_out: FrameCache | None


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


def prepare(job: TrainRun, team: Team, on_source: Callable[[int, int, str], None]) -> Prepared:
    """Build what is trained, and decode the footage where that was not done before.

    Args:
        job: what to train and on what.
        team: the processes that train; the first decodes while the others wait.
        on_source: called after each decoded source with (done, all, what is wrong with it or "").

    Raises:
        OutputExistsError: there is a run in the folder and `resume` was not asked for.
        MethodError, WeightsError: the method's name, its recipe, or the weights to start from.
        DatasetError, OutputError: the footage, or the folder.
    """
    checkpoint = job.out / CHECKPOINT
    if checkpoint.exists() and not job.resume:
        raise OutputExistsError(f"{shown(checkpoint)} is there already: go on with --resume, or choose another --out")
    if job.resume and not checkpoint.exists():
        raise OutputError(f"there is no {shown(checkpoint)} to resume: leave --resume out to start")
    parts, batch = job.config.micro_batches, job.recipe.batch
    if parts % team.size or batch % parts:
        raise MethodError(
            f"a batch of {batch} cannot be computed in {parts} parts by {team.size} processes: --micro-batches must "
            "divide --batch, and be a multiple of the number of processes"
        )
    net, objective = _objective(job)
    sources = _sources(job, objective)
    make_folder(job.out)
    folder = job.cache or job.out / "cache"
    side = max(SHORT_SIDE, objective.clips.crop)
    cache = _decoded(sources, folder, team, on_source, side)
    held_out = None
    if job.held_out is not None:
        sources = find_labelled([job.held_out], "--held-out")
        held_out = _decoded(sources, folder / "held-out", team, on_source, HELD_OUT_SIZE, HELD_OUT_FRAMES)
    hold_where_it_fits(cache, team.device)
    return Prepared(net, objective, cache, held_out)


def _objective(job: TrainRun) -> tuple[nn.Module, Objective]:
    """The network with the weights that training starts from, and the objective around it."""
    factory, recipe = method_class(job.method), job.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.config.seed)
        net = build_net(job.method, recipe.net)
    if recipe.start:
        store.load(net, job.method, store.find(job.method, recipe.start), factory.adopts)
    if factory.objective is None:
        raise MethodError(f"{job.method} is not trained itself")
    return net, factory.objective(net, recipe)


def _sources(job: TrainRun, objective: Objective) -> list[Source]:
    """The footage of a run; with masks, where the objective wants them."""
    if not objective.clips.labels:
        return (find_footage(job.data) if job.data else []) + (find_stills(job.stills) if job.stills else [])
    if job.stills:
        raise DatasetError(f"{job.method} learns from masks, and --stills have none: give --data with masks instead")
    return find_labelled(job.data)


def _decoded(
    sources: list[Source],
    folder: Path,
    team: Team,
    progress: Callable[[int, int, str], None],
    side: int,
    limit: int | None = None,
) -> FrameCache:
    """A cache that the leading process builds while the others wait."""
    if team.leads:
        build_cache(sources, folder, side, limit, progress)
    team.wait()
    return FrameCache(folder)
