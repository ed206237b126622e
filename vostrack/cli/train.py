"""`vostrack train`: learn a method's weights from raw footage."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from vostrack.cli.console import StopSignals
from vostrack.methods import DEFAULT

if TYPE_CHECKING:
    from vostrack.train.loop import StepReport
    from vostrack.train.run import TrainRun

_WINDOW = 50


def train(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", "-d", help="Folder of videos or of frame folders. Repeatable.", show_default="see below"
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="What to train.")] = DEFAULT,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default="runs/METHOD")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Weights to start from, file or name.", show_default="random")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.05, help="End after this time; the learning rate falls accordingly.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips a step.")] = 6,
    crop: Annotated[int, typer.Option(min=64, max=1024, help="Side of the crops, a multiple of 64.")] = 128,
    lr: Annotated[float | None, typer.Option(min=0.0, help="Learning rate.", show_default="the method's")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    board: Annotated[bool, typer.Option("--board", help="Log for TensorBoard to OUT/tensorboard.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded frames.", show_default="OUT/cache")] = None,
) -> None:
    """Train a method's weights on raw footage; no masks are needed.

    Without --data it takes $VOSTRACK_DATA/clips or ./clips. The run folder gets checkpoint.pt, metrics.jsonl and, at
    the end, METHOD.safetensors for `vostrack segment --weights`.

    [bold]Examples[/bold]

    vostrack train --data footage/ --max-minutes 60

    vostrack train --method mast-mem --data footage/ --from mast-mem

    vostrack train --data footage/ --max-minutes 60 --resume
    """
    from vostrack.train.loop import TrainConfig
    from vostrack.train.run import TrainRun, default_data

    if crop % 64:
        raise typer.BadParameter("expected a multiple of 64", param_hint="--crop")
    _train(
        TrainRun(
            method=method,
            data=tuple(data) if data else default_data(),
            out=out or Path("runs") / method,
            cache=cache,
            start=start,
            crop=crop,
            learning_rate=lr,
            device=device,
            resume=resume,
            board=board,
            config=TrainConfig(steps=steps, batch=batch, seed=seed, max_minutes=max_minutes),
        )
    )


def _train(job: TrainRun) -> None:
    """Decode and train with a progress bar each; all of it goes to stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from vostrack.train.run import prepare, run

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress("decoding", BarColumn(), MofNCompleteColumn(), *times, console=console, disable=hidden) as bar:
        task = bar.add_task("decoding")

        def decoded(done: int, count: int, problem: str) -> None:
            bar.update(task, completed=done, total=count)
            if problem:
                console.print(f"left out: {problem}", style="yellow", markup=False)

        cache = prepare(job, decoded)
    console.print(f"{len(cache.clips)} clips, {sum(clip.count for clip in cache.clips)} frames of footage")

    recent: deque[float] = deque(maxlen=_WINDOW)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *times)
    with StopSignals(console, "this step") as signals, Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task(job.method, total=1.0)

        def stepped(report: StepReport, done: float) -> None:
            recent.append(report.losses["loss"])
            text = f"{job.method}: step {report.step}, loss {fmean(recent):.4f}"
            bar.update(task, completed=done, description=text)
            if hidden and report.step % _WINDOW == 0:
                console.print(text)
            signals.check()

        path = run(job, cache, stepped)
    console.print(f"weights: {path}", markup=False)
    console.print(f"try them: vostrack segment CLIP --mask MASK --method {job.method} --weights {path}", markup=False)
