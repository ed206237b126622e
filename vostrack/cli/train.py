"""`vostrack train`: learn a method's weights from footage."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn

from vostrack.cli.console import StopSignals, progress_bar
from vostrack.cli.settings import parse_settings, sentence
from vostrack.config import Config, setting_of
from vostrack.methods.recipe import Recipe
from vostrack.train.settings import TrainConfig

if TYPE_CHECKING:
    from vostrack.train.loop import Report
    from vostrack.train.parallel import ProcessGroup
    from vostrack.train.run import TrainingRun, TrainOptions

_WINDOW = 50
"""Steps whose mean loss is shown, and from one line to the next where there is no progress bar."""


def _option(panel: str | None, text: str, *names: str, **more: Any) -> Any:
    """An option in one of the panels of the help, or above them."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def _setting(panel: str | None, config: Config, name: str, *names: str, **more: Any) -> Any:
    """An option for a declared setting, which says what it means and which values it takes."""
    return _option(panel, sentence(setting_of(config, name, "training")), *names, **more)


_DEFAULTS = TrainConfig()
_general = partial(_option, None)
_footage, _evaluation, _machine = (partial(_option, panel) for panel in ("Footage", "Evaluation", "Machine"))
_recipe = partial(_option, "Recipe")
_changed = partial(_setting, "Recipe", Recipe(), show_default=False)
"""An option that changes a setting of the recipe, whose value is the default."""


def train(
    data: Annotated[
        list[Path] | None,
        _footage("Folder of videos or of frame folders. Repeatable.", "--data", "-d", show_default="see below"),
    ] = None,
    stills: Annotated[
        list[Path] | None, _footage("Folder of single images, set in motion. Repeatable.", show_default="none")
    ] = None,
    cache: Annotated[Path | None, _footage("Folder for decoded frames.", show_default="OUT/cache")] = None,
    method: Annotated[
        str, _general("What to train; `best` takes the weights of `anchors` and `mast-mem`.", "--method")
    ] = "anchors",
    out: Annotated[Path | None, _general("Folder of the run.", "--out", "-o", show_default="runs/METHOD")] = None,
    resume: Annotated[bool, _general("Go on with the run in --out.", "--resume")] = False,
    max_minutes: Annotated[
        float | None, _setting(None, _DEFAULTS, "max_minutes", show_default="none")
    ] = _DEFAULTS.max_minutes,
    recipe: Annotated[str, _recipe("Named settings of the method's training.")] = "default",
    start: Annotated[
        str | None, _recipe("Weights to start from: file, name, or `random`.", "--from", show_default=False)
    ] = None,
    steps: Annotated[int | None, _changed("steps")] = None,
    batch: Annotated[int | None, _changed("batch")] = None,
    crop: Annotated[int | None, _changed("crop")] = None,
    lr: Annotated[float | None, _changed("learning_rate", "--lr")] = None,
    options: Annotated[
        list[str] | None,
        _recipe("Any setting of the recipe. Repeatable.", "--set", metavar="KEY=VALUE", show_default=False),
    ] = None,
    seed: Annotated[int, _setting("Recipe", _DEFAULTS, "seed")] = _DEFAULTS.seed,
    held_out: Annotated[
        Path | None, _evaluation("Folder of clips with masks, laid out as DAVIS.", show_default="none")
    ] = None,
    evaluate_every: Annotated[int, _setting("Evaluation", _DEFAULTS, "evaluate_every")] = _DEFAULTS.evaluate_every,
    patience: Annotated[
        int | None, _setting("Evaluation", _DEFAULTS, "patience", show_default="never")
    ] = _DEFAULTS.patience,
    picture_minutes: Annotated[
        float, _setting("Evaluation", _DEFAULTS, "picture_minutes", "--pictures")
    ] = _DEFAULTS.picture_minutes,
    board: Annotated[bool, _evaluation("Log for TensorBoard to OUT/tensorboard.", "--board")] = False,
    device: Annotated[str, _machine("auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, _setting("Machine", _DEFAULTS, "precision")] = _DEFAULTS.precision,
    micro_batches: Annotated[int, _setting("Machine", _DEFAULTS, "micro_batches")] = _DEFAULTS.micro_batches,
    compiled: Annotated[bool, _setting("Machine", _DEFAULTS, "compile", "--compile")] = _DEFAULTS.compile,
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
    from vostrack.train.parallel import join_group
    from vostrack.train.run import TrainOptions, default_data

    given = {"start": "" if start == "random" else start, "steps": steps, "batch": batch, "crop": crop}
    chosen = _chosen_recipe(method, recipe, options or [], {**given, "learning_rate": lr})
    config = TrainConfig(
        seed=seed,
        max_minutes=max_minutes,
        evaluate_every=evaluate_every,
        patience=patience,
        picture_minutes=picture_minutes,
        precision=precision,
        micro_batches=micro_batches,
        compile=compiled,
    )
    run = TrainOptions(
        method=method,
        data=tuple(data) if data else () if stills else default_data(),
        stills=tuple(stills or ()),
        held_out=held_out,
        out=out or Path("runs") / method,
        cache=cache,
        recipe=chosen,
        resume=resume,
        board=board,
        config=config,
    )
    with join_group(device) as group:
        _train(run, group)


def _chosen_recipe(method: str, name: str, settings: list[str], given: dict[str, Any]) -> Recipe:
    """A recipe with what was given after --set, and then by options of their own, which are None where not given."""
    from vostrack.config import changed
    from vostrack.methods import training_recipe

    named = training_recipe(method, name)
    options = {key: value for key, value in given.items() if value is not None}
    recipe: Recipe = changed(named, parse_settings(settings, named, method, "--set") | options, method)
    return recipe


def _train(options: TrainOptions, group: ProcessGroup) -> None:
    """Decode and train with a progress bar each; all of it goes to stderr, from the leading process alone."""
    from vostrack.device import has_fast_bfloat16

    console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=not group.leads)
    if options.config.precision == "bf16" and not has_fast_bfloat16(group.device):
        slow = f"bfloat16 is slow on this device ({group.device.type}): --precision auto takes what is quick"
        console.print(slow, style="yellow", markup=False)
    path = _run(_prepare(options, group, console), options.method, console)
    console.print(f"weights: {path}", markup=False)
    command = f"vostrack segment CLIP --mask MASK --method {options.method} --weights {path}"
    console.print(f"try them: {command}", markup=False)


def _prepare(options: TrainOptions, group: ProcessGroup, console: Console) -> TrainingRun:
    from vostrack.train.run import TrainingRun

    with progress_bar(console, MofNCompleteColumn()) as bar:
        task = bar.add_task("decoding")

        def decoded(done: int, count: int, problem: str) -> None:
            bar.update(task, completed=done, total=count)
            if problem:
                console.print(f"left out: {problem}", style="yellow", markup=False)

        run = TrainingRun(options, group, decoded)
    console.print(f"{len(run.cache.clips)} clips, {run.cache.frame_count} frames of footage")
    if run.held_out is not None:
        console.print(f"{len(run.held_out.clips)} clips held out for evaluation")
    return run


def _run(run: TrainingRun, method: str, console: Console) -> Path:
    from vostrack.train.loop import EvaluationReport

    recent: deque[float] = deque(maxlen=_WINDOW)
    with StopSignals(console, "this step") as signals, progress_bar(console) as bar:
        task = bar.add_task(method, total=1.0)

        def reported(report: Report, done: float) -> None:
            if isinstance(report, EvaluationReport):
                best = ", the best yet" if report.best else ""
                console.print(f"{method}: step {report.step}, held-out J {report.mean:.4f}{best}", markup=False)
            else:
                recent.append(report.losses["loss"])
                text = f"{method}: step {report.step}, loss {fmean(recent):.4f}"
                bar.update(task, completed=done, description=text)
                if not console.is_terminal and report.step % _WINDOW == 0:
                    console.print(text, markup=False)
            signals.check()

        return run.run(reported, lambda note: console.print(note, style="yellow", markup=False))
