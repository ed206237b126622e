"""`vostrack train`: learn a method's weights from footage."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console

from vostrack.cli.console import FrameBar, StopSignals, print_note, progress_bar
from vostrack.cli.help import Device
from vostrack.cli.settings import parse_settings, sentence
from vostrack.config import Config, setting_of
from vostrack.errors import counted
from vostrack.methods.recipe import Recipe
from vostrack.notes import Code, Note
from vostrack.train.reports import EvaluationReport, Report, TrainCallbacks
from vostrack.train.settings import TrainConfig

if TYPE_CHECKING:
    from vostrack.train.parallel import ProcessGroup
    from vostrack.train.run import TrainOptions

_WINDOW = 50
"""Steps whose mean loss is shown, and from one line to the next where there is no progress bar."""


def _option(panel: str | None, text: str, *names: str, **more: Any) -> Any:
    """An option in one of the panels of the help, or above them."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def _setting(panel: str | None, config: Config, name: str, *names: str, **more: Any) -> Any:
    """An option for a declared setting, which says what it means and which values it takes."""
    return _option(panel, sentence(setting_of(config, name, "training")), *names, **more)


_DEFAULTS = TrainConfig()
_DATA = "$VOSTRACK_DATA/clips or ./clips"
_input, _output, _method, _evaluation, _run = (
    partial(_option, panel) for panel in ("Input", "Output", "Method", "Evaluation", "Run")
)
_changed = partial(_setting, "Method", Recipe(), show_default=False)
"""An option that changes a setting of the recipe, whose value is the default."""


def train(
    data: Annotated[
        list[Path] | None,
        _input("Folder of videos or of frame folders. Repeatable.", "--data", "-d", metavar="DIR", show_default=_DATA),
    ] = None,
    stills: Annotated[
        list[Path] | None,
        _input("Folder of still images, which are set in motion. Repeatable.", metavar="DIR", show_default="none"),
    ] = None,
    clips: Annotated[int | None, _setting("Input", _DEFAULTS, "clips", metavar="N", show_default="all")] = None,
    cache: Annotated[Path | None, _input("Folder for decoded frames.", metavar="DIR", show_default="OUT/cache")] = None,
    cache_size: Annotated[float, _setting("Input", _DEFAULTS, "cache_size", metavar="GB")] = _DEFAULTS.cache_size,
    out: Annotated[
        Path | None, _output("Folder of the run.", "--out", "-o", metavar="DIR", show_default="runs/METHOD")
    ] = None,
    board: Annotated[bool, _output("Log for TensorBoard to OUT/tensorboard.", "--board")] = False,
    picture_minutes: Annotated[
        float, _setting("Output", _DEFAULTS, "picture_minutes", "--pictures", metavar="MIN")
    ] = _DEFAULTS.picture_minutes,
    method: Annotated[
        str,
        _method("What to train; `best` trains the network of its preset `fast`.", "--method", metavar="NAME"),
    ] = "anchors",
    start: Annotated[
        str | None,
        _method("Weights to start from: file, name, or `random`.", "--from", metavar="FILE", show_default=False),
    ] = None,
    recipe: Annotated[str, _method("Named settings of the method's training.", metavar="NAME")] = "default",
    options: Annotated[
        list[str] | None,
        _method("Change a setting of the recipe. Repeatable.", "--set", metavar="KEY=VALUE", show_default=False),
    ] = None,
    steps: Annotated[int | None, _changed("steps", metavar="N")] = None,
    batch: Annotated[int | None, _changed("batch", metavar="N")] = None,
    crop: Annotated[int | None, _changed("crop", metavar="PX")] = None,
    lr: Annotated[float | None, _changed("learning_rate", "--lr", metavar="RATE")] = None,
    seed: Annotated[int, _setting("Method", _DEFAULTS, "seed", metavar="N")] = _DEFAULTS.seed,
    held_out: Annotated[
        Path | None, _evaluation("Folder of clips with masks, laid out as DAVIS.", metavar="DIR", show_default="none")
    ] = None,
    evaluate_every: Annotated[
        int, _setting("Evaluation", _DEFAULTS, "evaluate_every", metavar="N")
    ] = _DEFAULTS.evaluate_every,
    patience: Annotated[
        int | None, _setting("Evaluation", _DEFAULTS, "patience", metavar="N", show_default="never")
    ] = _DEFAULTS.patience,
    max_minutes: Annotated[
        float | None, _setting("Run", _DEFAULTS, "max_minutes", metavar="MIN", show_default="none")
    ] = _DEFAULTS.max_minutes,
    resume: Annotated[bool, _run("Go on with the run in --out.", "--resume")] = False,
    device: Device = "auto",
    precision: Annotated[str, _setting("Run", _DEFAULTS, "precision", metavar="BITS")] = _DEFAULTS.precision,
    micro_batches: Annotated[int, _setting("Run", _DEFAULTS, "micro_batches", metavar="N")] = _DEFAULTS.micro_batches,
    compiled: Annotated[bool, _setting("Run", _DEFAULTS, "compile", "--compile")] = _DEFAULTS.compile,
) -> None:
    """Train a method's weights on footage, for most methods without masks.

    Examples:
        vostrack train --data footage/ --max-minutes 60
        vostrack train --data footage/ --from anchors --lr 1e-4 --max-minutes 60
        vostrack train --data footage/ --max-minutes 60 --resume

    The run folder gets checkpoint.pt, metrics.jsonl, pictures and, at the end, METHOD.safetensors for
    `vostrack segment --weights`. Options that you leave out come from the method's recipe.

    Several GPUs: torchrun --nproc-per-node 2 -m vostrack train ...
    """
    from vostrack.train.parallel import join_group
    from vostrack.train.run import TrainOptions, default_data

    given = {"start": "" if start == "random" else start, "steps": steps, "batch": batch, "crop": crop}
    chosen = _chosen_recipe(method, recipe, options or [], {**given, "learning_rate": lr})
    config = TrainConfig(
        seed=seed,
        clips=clips,
        max_minutes=max_minutes,
        cache_size=cache_size,
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
    from vostrack.train.run import TrainingRun

    console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=not group.leads)
    if options.config.precision == "bf16" and not has_fast_bfloat16(group.device):
        slow = f"bfloat16 is slow on this device ({group.device.type}): --precision auto takes what is quick"
        print_note(console, Note(Code.PRECISION_SLOW, slow))
    run = TrainingRun(options, group)
    with run.locked():
        with FrameBar("decoding", not group.leads, "clip") as bar:
            run.decode(bar)
        console.print(f"{counted(len(run.cache.clips), 'clip')}, {counted(run.cache.frame_count, 'frame')} of footage")
        if run.held_out is not None:
            console.print(f"{counted(len(run.held_out.clips), 'clip')} held out for evaluation")
        with _TrainBar(options.method, console) as progress:
            path = run.run(progress)
        if group.leads:
            console.print(f"weights: {path}\n{_verdict(path)}", markup=False)
    command = f"vostrack segment CLIP --mask MASK --method {options.method} --weights {path}"
    console.print(f"try them: {command}", markup=False)


def _verdict(path: Path) -> str:
    """Whether the weights of a run beat what it started from."""
    from vostrack.weights import read_details

    details = read_details(path)["details"]
    start, best = details["held_out_start"], details["held_out"]
    if best is None:
        return "whether they are better than what training started from was not measured: --held-out FOLDER does that"
    found = f"held-out J {start:.4f} before training, {best:.4f} after"
    return f"{found}: better" if best > start else f"{found}: no better, so they are what training started from"


class _TrainBar(TrainCallbacks):
    """Progress of the training: a bar on a terminal, and else a line now and then."""

    def __init__(self, method: str, console: Console) -> None:
        self._method, self._console, self._bar = method, console, progress_bar(console)
        self._signals, self._task = StopSignals(console, "this step"), self._bar.add_task(method, total=1.0)
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def report(self, report: Report) -> None:
        """Show the mean loss of recent steps, or an evaluation; raises `Stopped` if the user wants to stop."""
        if isinstance(report, EvaluationReport):
            best = ", the best yet" if report.best else ""
            self._print(f"{self._method}: step {report.step}, held-out J {report.mean:.4f}{best}")
        else:
            self._recent.append(report.losses["loss"])
            text = f"{self._method}: step {report.step}, loss {fmean(self._recent):.4f}"
            self._bar.update(self._task, completed=report.done, description=text)
            if not self._console.is_terminal and report.step % _WINDOW == 0:
                self._print(text)
        self._signals.check()

    def note(self, note: Note) -> None:
        """Print a note above the bar."""
        print_note(self._console, note)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        self._signals.__exit__(*error)
