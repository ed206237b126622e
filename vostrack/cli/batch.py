"""`vostrack batch`: many clips."""

from __future__ import annotations

import json as json_text
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vostrack.cli.console import Form, FrameBar, Stopped, pasted, plain, print_notes, say_next
from vostrack.cli.help import (
    Command,
    Group,
    Json,
    Overwrite,
    Progress,
    Quiet,
    in_input,
    in_method,
    in_output,
    in_run,
)
from vostrack.errors import counted
from vostrack.files import nearest, shown
from vostrack.run.place import address, below

if TYPE_CHECKING:
    from vostrack.batch.away import Scratch
    from vostrack.batch.manifest import Outline
    from vostrack.batch.pairs import Pairs
    from vostrack.batch.task import Result, Task
    from vostrack.cli.plan import Row

app = typer.Typer(name="batch", cls=Group, no_args_is_help=True)

FAILED = 3
"""Exit code where some clips failed, or keep results of other settings."""

_CSV, _JSON = ".csv", (".jsonl", ".ndjson")
_NOTHING_RUN = " in the plan: nothing was run"

Clips = Annotated[
    list[Path],
    typer.Argument(metavar="PLAN", help="A plan (.csv, .jsonl), a folder of clips, or clips.", show_default=False),
]
Masks = Annotated[
    Path | None,
    in_input("--masks", metavar="DIR", help="Masks of clips, by name: dog.png or dog_first.png for dog.mp4."),
]
Results = Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of all results.", show_default=False)]
Option = Annotated[
    list[str] | None,
    in_method(
        "--option",
        metavar="NAME=VALUE",
        help="An option of `segment`, as preset=fast, for clips whose row says nothing else. Repeatable.",
    ),
]
FallbackSize = Annotated[
    int | None,
    in_method("--fallback-size", metavar="PX", min=16, help="Size to try where a clip needs too much memory."),
]
FailFast = Annotated[bool, in_run("--fail-fast", help="Stop when the first clip fails.")]
AtOnce = Annotated[
    int | None,
    in_run("--jobs", "-j", metavar="N", min=1, help="Clips at once.", show_default="1; with --ray as fit"),
]
Ray = Annotated[
    str | None,
    in_run("--ray", metavar="WHERE", help="Work in a Ray cluster: auto, local, or its address.", show_default=False),
]
CpusPerClip = Annotated[int, in_run("--cpus-per-clip", metavar="N", min=1, help="CPUs for a clip, with --ray.")]
GpusPerClip = Annotated[
    float | None,
    in_run(
        "--gpus-per-clip", metavar="N", min=0, help="GPUs for a clip, with --ray.", show_default="1 if there are any"
    ),
]

ScratchFolder = Annotated[
    Path | None,
    in_run("--scratch", metavar="DIR", help="Where clips from a store lie meanwhile.", show_default="in the cache"),
]
ScratchSize = Annotated[
    float | None,
    in_run("--scratch-size", metavar="GB", min=0, help="Most room there for the inputs of a clip.", show_default="50"),
]


@dataclass(frozen=True)
class SharedOptions:
    """How clips are followed, as the options that `run` and `retry` have in common say.

    Attributes:
        settings: of `run_batch`, by name.
        json: whether results are printed.
        progress: how it is shown.
        quiet: whether it is not.
    """

    settings: dict[str, Any]
    json: bool
    progress: Form
    quiet: bool

    @property
    def scratch(self) -> Scratch:
        """Where clips from a store lie meanwhile."""
        scratch: Scratch = self.settings["scratch"]
        return scratch


@app.callback()
def batch() -> None:
    """Follow objects through many clips.

    Examples:
        vostrack batch plan videos/ --masks masks/ -o plan.csv
        vostrack batch run plan.csv --out runs --jobs 2
        vostrack batch status runs
    """


def _shared_options(
    fallback_size: FallbackSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
    jobs: AtOnce = None,
    ray: Ray = None,
    cpus_per_clip: CpusPerClip = 1,
    gpus_per_clip: GpusPerClip = None,
    scratch: ScratchFolder = None,
    scratch_size: ScratchSize = None,
    fail_fast: FailFast = False,
    progress: Progress = Form.AUTO,
    quiet: Quiet = False,
) -> SharedOptions:
    """The options that `run` and `retry` have in common."""
    from vostrack.batch.away import Scratch

    room = Scratch()
    room = Scratch(
        scratch.absolute() if scratch else room.folder, int(scratch_size * 1e9) if scratch_size else room.most
    )
    settings = {"overwrite": overwrite, "fail_fast": fail_fast, "fallback_size": fallback_size, "scratch": room}
    if ray is None:
        return SharedOptions(settings | {"jobs": jobs or 1}, json, progress, quiet)
    from vostrack.batch.cluster import RayPool

    pool = partial(RayPool, address=ray, jobs=jobs, cpus=cpus_per_clip, gpus=gpus_per_clip, scratch=room)
    return SharedOptions(settings | {"pool": pool}, json, progress, quiet)


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that also has the options of `_shared_options`, and is given what that makes of them as `how`."""
    own, shared = (signature(each, eval_str=True).parameters for each in (command, _shared_options))

    @wraps(command)
    def called(**options: Any) -> None:
        how = _shared_options(**{name: options.pop(name) for name in shared})
        command(**options, how=how)

    parameters = [each for each in (*own.values(), *shared.values()) if each.name != "how"]
    parameters = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters]
    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _flags(param: Any) -> tuple[str, ...]:
    """All that stands for an option on the command line, such as --overlay and --no-overlay."""
    return (*param.opts, *param.secondary_opts)


class _Run(Command):
    """`run`, which knows where options of `segment` go."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say where an option of `segment` goes that was given here."""
        from vostrack.cli.plan import columns

        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # Click's own has no public class
            flag, own = getattr(error, "option_name", ""), {each for param in self.params for each in _flags(param)}
            names = {each: name for name, param in columns().items() for each in _flags(param)}
            name = {"--format": "export", **names}.get(flag)
            if name and flag not in own:
                where = f"use a column {name!r} of the plan, or --option {name}=VALUE for all clips"
                vars(error).update(message=f"{flag} is an option of each clip: {where}", possibilities=[])
            raise


@app.command("run", cls=_Run)
@with_shared_options
def run(
    plan: Clips,
    out: Annotated[Path, in_output("--out", "-o", metavar="RUNS", help="Folder for all results.", show_default=False)],
    how: SharedOptions,
    masks: Masks = None,
    option: Option = None,
    shard: Annotated[
        str | None,
        in_run("--shard", metavar="I/N", help="Only the I-th of N parts, for several machines.", show_default="all"),
    ] = None,
) -> None:
    """Follow objects through many clips, each as `vostrack segment` does. After a stop, the same command goes on.

    Examples:
        vostrack batch run plan.csv --out runs --jobs 2
        vostrack batch run videos/ --masks masks/ --out runs --option preset=fast
        vostrack batch run plan.csv --out runs --shard 3/16
        vostrack batch run plan.csv --out runs --ray auto

    Results of a clip go to RUNS/NAME, what came of it to RUNS/batch.jsonl; RUNS/batch.html shows what needs a look.
    Where clips failed, the exit code is 3, and the others are done.
    """
    from vostrack.batch.manifest import Outline
    from vostrack.cli.plan import rows_of, tasks_of

    options, part, end = _parse_options(option), _parse_shard(shard), _NOTHING_RUN
    if _is_plan(plan):
        base, rows, unclear = plan[0].parent, rows_of(_fetched(plan[0], how.scratch)), list[str]()
        if masks:
            raise typer.BadParameter("a plan names the masks itself", param_hint="--masks")
    else:
        pairs = _found(plan, masks)
        _check_apart(out, plan, masks or Path())
        base, unclear = Path(), pairs.unclear
        rows = [(str(row["clip"]), row) for row in pairs.rows if row["mask"]]
        if not how.quiet:
            print_notes(pairs.unused_notes())
        if unclear:
            words = f"{pasted(plan[0])}{' ...' if plan[1:] else ''} --masks {pasted(masks or base)} -o plan.csv"
            end = f": nothing was run; mend them, or fill in the masks of a plan: vostrack batch plan {words}"
    tasks, faults = tasks_of(rows, base, options)
    path = str(below(Path.cwd(), plan[0])) if _is_plan(plan) else ""
    outline = Outline(len(rows), str(below(Path.cwd(), base)), options, path, [task.name for task in tasks])
    _follow(tasks, [*unclear, *faults], out, how, outline, part, end)


@app.command("plan", cls=Command)
def plan(
    clips: Clips,
    masks: Masks = None,
    out: Annotated[
        Path | None,
        in_output("--out", "-o", metavar="FILE", help="The plan: .csv or .jsonl.", show_default="printed, as CSV"),
    ] = None,
    overwrite: Annotated[bool, in_output("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a plan for clips and their masks, to look at, edit, and give to `vostrack batch run`.

    Examples:
        vostrack batch plan videos/ --masks masks/ > plan.csv
        vostrack batch plan videos/*.mp4 --masks masks/ -o plan.jsonl

    Clips are matched with masks by name: `dog.mp4` with `dog.png`, `dog/00000.png` or `dog_first.png`.
    """
    from vostrack.cli.plan import csv_of, json_of
    from vostrack.errors import OutputExistsError
    from vostrack.files import write_text

    if _is_plan(clips):
        raise typer.BadParameter("it is a plan already: give a folder of clips, or clips", param_hint="PLAN")
    as_json = out is not None and out.suffix.lower() in _JSON
    pairs = _found(clips, masks)
    rows, unclear = pairs.rows, pairs.unclear
    if out is not None:
        rows = [{name: _from(out, value) for name, value in row.items()} for row in rows]
    text = json_of(rows) if as_json else csv_of(rows)
    if out is None:
        sys.stdout.write(text)
    elif out.exists() and not overwrite:
        raise OutputExistsError(f"{shown(out)} is there already: give another name, or `overwrite=True`")
    else:
        write_text(out, text)
    print_notes(pairs.notes())
    if out is not None:
        do = f"fill in {counted(len(unclear), 'mask')} in" if unclear else "look at"
        say_next(f"{do} {out}, then: vostrack batch run {out} --out runs")


@app.command("status", cls=Command)
def status(runs: Results, json: Json = False) -> None:
    """Say how far a batch is, all its shards taken together, and write its report.

    Examples:
        vostrack batch status runs
    """
    from vostrack.batch.away import Scratch, at_hand
    from vostrack.batch.report import write_report

    with at_hand(runs, Scratch()) as folder:
        counts = write_report(folder)
    if json:
        print(json_text.dumps(asdict(counts), indent=2))
        return
    print(f"{counts}; report: {_named(runs / 'batch.html')}")
    if counts.failed:
        say_next(f"vostrack batch retry {_named(runs)}")


@app.command("retry", cls=Command)
@with_shared_options
def retry(runs: Results, how: SharedOptions) -> None:
    """Try those clips of a batch again that failed, in all its shards, as the plan has them now.

    Examples:
        vostrack batch retry runs
    """
    from vostrack.batch.away import at_hand
    from vostrack.batch.manifest import Outline, failures, manifests
    from vostrack.cli.plan import tasks_of

    tasks, faults = [], []
    with at_hand(runs, how.scratch) as folder:
        lists = manifests(folder)
        failed = failures(lists)
    # What is tried again goes to the list of the whole batch; what that says of its plan stays.
    kept = next((each.outline() for each in lists if not each.shard), Outline(0, failed[0][0].base))
    for outline, results in failed:
        more, wrong = tasks_of(_rows_again(outline, results), Path(outline.base), outline.options)
        tasks += more
        faults += [*wrong, *(f"{shown(each.name)}: call `run_batch` again" for each in results if not each.row)]
    if not (tasks or faults):
        print("no clip has failed", file=sys.stderr)
        return
    _follow(tasks, faults, runs, how, kept)


def _rows_again(outline: Outline, failed: Sequence[Result]) -> list[tuple[str, Row]]:
    """Rows of clips that failed, as their plan has them now; where it has not, as they were."""
    from vostrack.cli.plan import name_of, rows_of

    rows = {each.name: (str(each.row.get("clip")), each.row) for each in failed if each.row}  # else from Python
    base, plan = Path(outline.base), Path(outline.plan)
    now = rows_of(plan) if rows and outline.plan and plan.is_file() else []
    for where, row in now:
        if (name := name_of(row, base)) in rows:
            rows[name] = where, dict(row)
    return list(rows.values())


def _fetched(plan: Path, scratch: Scratch) -> Path:
    """A plan on this machine."""
    from vostrack.batch.remote import Remote

    if not address(plan):
        return plan
    copy = scratch.of("plan", str(plan)) / plan.name
    Remote(plan).fetch(copy, scratch.most)
    return copy


def _named(path: Path) -> str:
    """A path or an address, for the terminal."""
    return plain(address(path) or path)


def _follow(
    tasks: Sequence[Task],
    faults: Sequence[str],
    out: Path,
    how: SharedOptions,
    outline: Outline,
    shard: tuple[int, int] | None = None,
    end: str = _NOTHING_RUN,
) -> None:
    """Check tasks, follow them, and say what came of them."""
    from vostrack.batch.away import at_hand
    from vostrack.batch.check import check
    from vostrack.batch.report import write_report
    from vostrack.batch.run import run_batch, shard_of
    from vostrack.batch.task import Status
    from vostrack.errors import PlanError

    if faults:
        _refuse([*faults, *check(tasks, out)[1]], end)
    failed = kept = 0
    clips = counted(sum(shard is None or shard_of(task, shard[1]) == shard[0] for task in tasks), "clip")
    try:
        with _stopping(), FrameBar(clips, how.quiet, form=how.progress) as bar:
            for result in run_batch(tasks, out, callbacks=bar, outline=outline, shard=shard, **how.settings):
                failed += result.status == Status.FAILED
                kept += result.status == Status.KEPT
                if how.json:
                    print(json_text.dumps(asdict(result), sort_keys=True), flush=True)
    except PlanError as error:
        _refuse(error.faults)
    with at_hand(out, how.scratch) as folder:
        counts = write_report(folder)
    if not how.quiet:
        page = _named(out / "batch.html")
        print(f"{counts}; report: {page}", file=sys.stderr)
        if failed:
            say_next(f"look at {page}, mend what failed, then: vostrack batch retry {_named(out)}")
    if failed or kept:
        raise typer.Exit(FAILED)


def _refuse(faults: Sequence[str], end: str = _NOTHING_RUN) -> NoReturn:
    """Print all faults, a line each, and end."""
    from vostrack.cli import with_flags
    from vostrack.cli.plan import columns
    from vostrack.errors import PlanError
    from vostrack.video.series import natural_key

    def said(match: re.Match[str]) -> str:
        name = match[1]
        return f"'yes' in a column {name!r}, or --option {name}=yes" if name in columns() else match[0]

    for fault in sorted(faults, key=natural_key):  # as the lines of the plan are
        print(f"error: {plain(with_flags(re.sub('`([a-z_]+)=True`', said, fault)))}", file=sys.stderr)
    print(f"{counted(len(faults), 'fault')}{end}", file=sys.stderr)
    if end == _NOTHING_RUN:
        say_next("mend what is said above, then give the same command again")
    raise typer.Exit(PlanError.exit_code)


class _stopping:
    """What is said where a batch is stopped."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Stopped):
            error.args = ("the same command goes on with what is left",)


def _is_plan(paths: Sequence[Path]) -> bool:
    return len(paths) == 1 and paths[0].suffix.lower() in (_CSV, *_JSON)


def _found(clips: Sequence[Path], masks: Path | None) -> Pairs:
    """Rows for a folder of clips, or for clips, and a folder of masks; their paths are absolute."""
    from vostrack.batch.pairs import clips_in, paired

    if missing := [path for path in clips if not path.exists()]:
        _refuse([f"cannot find {shown(path)!r}{nearest(path)}" for path in missing], ": there is no plan")
    if masks is None:
        raise typer.BadParameter("say where the masks are, or give a plan (.csv or .jsonl)", param_hint="--masks")
    paths = [path.absolute() for path in clips]
    is_folder = len(paths) == 1 and paths[0].is_dir()
    return paired(clips_in(paths[0]) if is_folder else paths, masks.absolute())


def _check_apart(out: Path, clips: Sequence[Path], masks: Path) -> None:
    """Refuse to write results where the same command would take them for clips or masks."""
    folders = {(clip if len(clips) == 1 and clip.is_dir() else clip.parent).resolve(): "clips" for clip in clips}
    kind = ({masks.resolve(): "masks"} | folders).get(out.resolve())
    if kind is not None:
        said = f"the {kind} are there, and results would be taken for {kind}: give another folder, such as runs"
        raise typer.BadParameter(said, param_hint="--out")


def _from(plan: Path, cell: str | list[str]) -> str | list[str]:
    """A cell with paths from the folder of a plan on, where they lie below it."""
    start = f"{plan.absolute().parent}{os.sep}"
    values = [value.replace(start, "", 1) for value in ([cell] if isinstance(cell, str) else cell)]
    return values[0] if isinstance(cell, str) else values


def _parse_options(texts: Sequence[str] | None) -> dict[str, str]:
    """Options by name, from `NAME=VALUE`."""
    options = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise typer.BadParameter(f"expected NAME=VALUE, such as preset=fast, found {text!r}", param_hint="--option")
        options[name.strip().removeprefix("--").replace("-", "_")] = value.strip()
    return options


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(f"expected I/N, such as 3/16, found {text!r}", param_hint="--shard")
    return int(match[1]), int(match[2])
