"""`vostrack train`: learn a method's weights from raw footage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vostrack.methods import DEFAULT


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
    from rich.console import Console

    from vostrack.train.loop import TrainConfig
    from vostrack.train.run import TrainRun, default_data, prepare, run

    if crop % 64:
        raise typer.BadParameter("expected a multiple of 64", param_hint="--crop")
    console = Console(stderr=True)
    job = TrainRun(
        method=method,
        data=tuple(data) if data else default_data(),
        out=out or Path("runs") / method,
        cache=cache,
        start=start,
        crop=crop,
        learning_rate=lr,
        device=device,
        resume=resume,
        config=TrainConfig(steps=steps, batch=batch, seed=seed, max_minutes=max_minutes),
    )
    frames = prepare(job, console)
    path = run(job, frames, console)
    console.print(f"weights: {path}", highlight=False)
    console.print(f"try them: vostrack segment CLIP --mask MASK --method {method} --weights {path}", highlight=False)
