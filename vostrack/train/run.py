"""A training run from decoded footage to weights: trains, evaluates, draws, and writes the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vostrack import __version__
from vostrack import weights as store
from vostrack.errors import OutputError
from vostrack.files import lock_folder, make_folder, output_error, write_bytes
from vostrack.methods import method_class
from vostrack.train.evaluate import held_out_scores, method_now
from vostrack.train.loop import EvaluationReport, Report, StepReport, train
from vostrack.train.parallel import Team
from vostrack.train.pictures import write_picture
from vostrack.train.prepare import Prepared, TrainRun
from vostrack.train.settings import TrainConfig

BEST = "best.safetensors"
PICTURES = "pictures"


def run(
    job: TrainRun,
    team: Team,
    prepared: Prepared,
    on_report: Callable[[Report, float], None],
    on_note: Callable[[str], None],
) -> Path:
    """Train and write the weights: those of the best evaluation, or the last ones where nothing is held out.

    Args:
        job: what and how.
        team: the processes that train.
        prepared: from `prepare`.
        on_report: called after each step and each evaluation with its report and the share of the run that is done;
            what it raises ends the run, in all processes after the same step, and the run can then be resumed.
        on_note: called with what went wrong and does not end the run.

    Returns:
        The weights file.

    Raises:
        InputError, OutputError: the checkpoint cannot be used, or something cannot be written.
    """
    settings = {
        "recipe": asdict(job.recipe),
        "footage": prepared.cache.digest,
        "held_out": prepared.held_out and prepared.held_out.digest,
    }
    evaluate = _evaluation(job, team, prepared)
    steps = train(prepared.objective, prepared.cache, job.config, job.out, team, evaluate, settings)
    pictures = _Pictures(job, prepared, team, on_note)
    last: Report | None = None
    with lock_folder(job.out) if team.leads else nullcontext(), _board(job, team) as board, closing(steps):
        for last in steps:
            if isinstance(last, EvaluationReport) and last.best and team.leads:
                _save(job, team, prepared, last, job.out / BEST)
            for name, value in _scalars(last).items():
                board(name, value, last.step)
            pictures.draw_if_due(last.step)
            team.together(partial(on_report, last, _done(last, job.config)))
        if last is not None:
            pictures.draw(last.step)
        return _finish(job, team, prepared, last)


def _evaluation(job: TrainRun, team: Team, prepared: Prepared) -> Callable[[], dict[str, float]] | None:
    """What scores the network as it stands, if there is something to score it on."""
    cache, factory = prepared.held_out, method_class(job.method)
    if cache is None:
        return None
    return lambda: held_out_scores(cache, method_now(factory, prepared.net, team.device), team)


def _finish(job: TrainRun, team: Team, prepared: Prepared, last: Report | None) -> Path:
    """Write the weights of the run."""
    path = job.out / f"{job.method}.safetensors"
    if not team.leads:
        return path
    if prepared.held_out is None:
        _save(job, team, prepared, last, path)
        return path
    best = job.out / BEST
    try:
        write_bytes(path, best.read_bytes())
    except OSError as error:
        raise output_error(error, best) from error
    return path


def _save(job: TrainRun, team: Team, prepared: Prepared, report: Report | None, path: Path) -> None:
    """Write the weights as they stand, with how they were trained."""
    details = {
        "vostrack": __version__,
        "torch": torch.__version__,
        "device": team.device.type,
        "processes": team.size,
        "clips": len(prepared.cache.clips),
        "frames": prepared.cache.frame_count,
        "recipe": asdict(job.recipe),
        "config": asdict(job.config),
        "steps": report.step if report else None,
        "minutes": round(report.seconds / 60, 1) if report else None,
        "held_out": report.mean if isinstance(report, EvaluationReport) else None,
    }
    store.save_weights(prepared.net, job.method, path, details, job.recipe.net)


class _Pictures:
    """Draws predictions from time to time; what goes wrong there must not end a run."""

    def __init__(self, job: TrainRun, prepared: Prepared, team: Team, on_note: Callable[[str], None]) -> None:
        self.job, self.prepared, self.device, self.on_note = job, prepared, team.device, on_note
        self.wanted = team.leads and job.picture_minutes > 0
        self.drawn, self.step = -float("inf"), -1

    def draw_if_due(self, step: int) -> None:
        """Draw a picture where the last one is old."""
        if time.monotonic() - self.drawn > 60 * self.job.picture_minutes:
            self.draw(step)

    def draw(self, step: int) -> None:
        """Draw `pictures/STEP.png`, unless it is of the step before."""
        if not self.wanted or step == self.step:
            return
        cache = self.prepared.held_out or self.prepared.cache
        try:
            make_folder(self.job.out / PICTURES)
            method = method_now(method_class(self.job.method), self.prepared.net, self.device)
            write_picture(self.job.out / PICTURES / f"{step:06d}.png", cache, method, self.device)
        except Exception as error:
            self.on_note(f"no picture of step {step}: {type(error).__name__}: {error}")
        self.drawn, self.step = time.monotonic(), step


def _scalars(report: Report) -> dict[str, float]:
    """What of a report goes to TensorBoard."""
    if isinstance(report, StepReport):
        return {**report.losses, "learning_rate": report.learning_rate}
    return {"held_out/J": report.mean, **{f"held_out/{name}": score for name, score in report.held_out.items()}}


def _done(report: Report, config: TrainConfig) -> float:
    """Share of the run that is done: of the steps, or of the minutes where these end it earlier."""
    minutes = config.max_minutes
    return min(1.0, max(report.step / config.steps, report.seconds / (60 * minutes) if minutes else 0.0))


@contextmanager
def _board(job: TrainRun, team: Team) -> Iterator[Callable[[str, float, int], Any]]:
    """Where losses are logged for TensorBoard: nowhere, or OUT/tensorboard if it was asked for."""
    if not job.board or not team.leads:
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
