"""`vostrack train`: learn a method's weights from footage."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vostrack.cli.console import StopSignals
from vostrack.cli.settings import parse_settings

if TYPE_CHECKING:
    from rich.console import Console

    from vostrack.train.loop import Report
    from vostrack.train.parallel import Team
    from vostrack.train.prepare import Prepared, TrainRun

_WINDOW = 50
_FOOTAGE, _EVALUATION, _MACHINE = "Footage", "Evaluation", "Machine"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    """An option in one of the panels of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def _recipe(text: str, *names: str, **more: Any) -> Any:
    """An option that changes the recipe, which has its default."""
    return _option("Recipe", text, *names, show_default=False, **more)


def train(
    data: Annotated[
        list[Path] | None,
        _option(
            _FOOTAGE, "Folder of videos or of frame folders. Repeatable.", "--data", "-d", show_default="see below"
        ),
    ] = None,
    stills: Annotated[
        list[Path] | None,
        _option(_FOOTAGE, "Folder of single images, set in motion. Repeatable.", show_default="none"),
    ] = None,
    cache: Annotated[Path | None, _option(_FOOTAGE, "Folder for decoded frames.", show_default="OUT/cache")] = None,
    method: Annotated[
        str, typer.Option("--method", help="What to train; `best` takes the weights of `anchors` and `mast-mem`.")
    ] = "anchors",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default="runs/METHOD")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.05, help="End after this time; the learning rate falls accordingly.")
    ] = None,
    recipe: Annotated[str, _option("Recipe", "Named settings of the method's training.")] = "default",
    start: Annotated[str | None, _recipe("Weights to start from: file, name, or `random`.", "--from")] = None,
    steps: Annotated[int | None, _recipe("Optimiser steps.")] = None,
    batch: Annotated[int | None, _recipe("Clips in a step.")] = None,
    crop: Annotated[int | None, _recipe("Side of the crops, a multiple of 32.")] = None,
    lr: Annotated[float | None, _recipe("Learning rate.")] = None,
    options: Annotated[
        list[str] | None, _recipe("Any setting of the recipe. Repeatable.", "--set", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int, _option("Recipe", "Seed of all randomness.")] = 0,
    held_out: Annotated[Path | None, _option(_EVALUATION, "Folder of clips with masks, laid out as DAVIS.")] = None,
    evaluate_every: Annotated[int, _option(_EVALUATION, "Steps between evaluations on --held-out.")] = 200,
    patience: Annotated[
        int | None, _option(_EVALUATION, "End after so many evaluations without gain.", show_default="never")
    ] = None,
    pictures: Annotated[
        float, _option(_EVALUATION, "Minutes between pictures of predictions; 0: none.", min=0.0)
    ] = 10.0,
    board: Annotated[bool, _option(_EVALUATION, "Log for TensorBoard to OUT/tensorboard.", "--board")] = False,
    device: Annotated[str, _option(_MACHINE, "auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, _option(_MACHINE, "auto (bf16 where the device is quick at it), 32, bf16 or 16.")
    ] = "auto",
    micro_batches: Annotated[
        int | None,
        _option(
            _MACHINE, "Compute a batch in so many parts, to save memory.", min=1, show_default="number of processes"
        ),
    ] = None,
    compiled: Annotated[bool, _option(_MACHINE, "Compile the network with torch.compile.", "--compile")] = False,
) -> None:
    """Train a method's weights on footage; most methods need no masks.

    Without --data it takes $VOSTRACK_DATA/clips or ./clips. What is not given, the method's recipe says.

    The run folder gets checkpoint.pt, metrics.jsonl, pictures and, at the end, METHOD.safetensors for
    `vostrack segment --weights`. Several GPUs: torchrun --nproc-per-node 2 -m vostrack train ...

    [bold]Examples[/bold]

    vostrack train --data footage/ --max-minutes 60

    vostrack train --data footage/ --from anchors --lr 1e-4 --max-minutes 60

    vostrack train --data footage/ --max-minutes 60 --resume
    """
    from vostrack.config import changed
    from vostrack.methods import training_recipe
    from vostrack.train.parallel import join_team
    from vostrack.train.prepare import TrainRun, default_data
    from vostrack.train.settings import TrainConfig, choose_precision

    given = {
        "start": "" if start == "random" else start,
        "steps": steps,
        "batch": batch,
        "crop": crop,
        "learning_rate": lr,
    }
    named = training_recipe(method, recipe)
    changes = parse_settings(options or [], named, method, "--set")
    chosen = changed(named, changes | {key: value for key, value in given.items() if value is not None}, method)
    footage = tuple(data) if data else () if stills else default_data()
    with join_team(device) as team:
        config = TrainConfig(
            steps=chosen.steps,
            batch=chosen.batch,
            schedule=chosen.schedule,
            micro_batches=micro_batches or team.size,
            seed=seed,
            precision=choose_precision(precision, team.device),
            compile=compiled,
            evaluate_every=evaluate_every,
            patience=patience,
            max_minutes=max_minutes,
        )
        _train(
            TrainRun(
                method=method,
                data=footage,
                stills=tuple(stills or ()),
                held_out=held_out,
                out=out or Path("runs") / method,
                cache=cache,
                recipe=chosen,
                resume=resume,
                board=board,
                picture_minutes=pictures,
                config=config,
            ),
            team,
        )


def _train(job: TrainRun, team: Team) -> None:
    """Decode and train with a progress bar each; all of it goes to stderr, from the leading process alone."""
    from rich.console import Console

    from vostrack.device import has_fast_bfloat16

    console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=not team.leads)
    if job.config.precision == "bf16" and not has_fast_bfloat16(team.device):
        slow = f"bfloat16 is slow on this device ({team.device.type}): --precision auto takes what is quick"
        console.print(slow, style="yellow", markup=False)
    prepared = _prepare(job, team, console)
    path = _run(job, team, prepared, console)
    console.print(f"weights: {path}", markup=False)
    console.print(f"try them: vostrack segment CLIP --mask MASK --method {job.method} --weights {path}", markup=False)


def _prepare(job: TrainRun, team: Team, console: Console) -> Prepared:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from vostrack.train.prepare import prepare

    columns = ("decoding", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding")

        def decoded(done: int, count: int, problem: str) -> None:
            bar.update(task, completed=done, total=count)
            if problem:
                console.print(f"left out: {problem}", style="yellow", markup=False)

        prepared = prepare(job, team, decoded)
    console.print(f"{len(prepared.cache.clips)} clips, {prepared.cache.frame_count} frames of footage")
    if prepared.held_out is not None:
        console.print(f"{len(prepared.held_out.clips)} clips held out for evaluation")
    return prepared


def _run(job: TrainRun, team: Team, prepared: Prepared, console: Console) -> Path:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from vostrack.train.loop import EvaluationReport
    from vostrack.train.run import run

    recent: deque[float] = deque(maxlen=_WINDOW)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with StopSignals(console, "this step") as signals, Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task(job.method, total=1.0)

        def reported(report: Report, done: float) -> None:
            if isinstance(report, EvaluationReport):
                best = ", the best yet" if report.best else ""
                console.print(f"{job.method}: step {report.step}, held-out J {report.mean:.4f}{best}", markup=False)
            else:
                recent.append(report.losses["loss"])
                text = f"{job.method}: step {report.step}, loss {fmean(recent):.4f}"
                bar.update(task, completed=done, description=text)
                if hidden and report.step % _WINDOW == 0:
                    console.print(text, markup=False)
            signals.check()

        return run(job, team, prepared, reported, lambda note: console.print(note, style="yellow", markup=False))
