"""`vostrack benchmark`: run methods over a dataset, and `vostrack benchmark compare`: tell noise from gain."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.benchmark_tables import SequenceBar, print_comparison, print_json, print_results
from vostrack.cli.console import say_next
from vostrack.cli.help import (
    DEFAULT_SIZE,
    Command,
    DefaultGroup,
    Device,
    Jobs,
    Json,
    Size,
    in_input,
    in_method,
    in_output,
)
from vostrack.cli.settings import parse_size
from vostrack.files import shown
from vostrack.methods import DEFAULT, FLOOR

app = typer.Typer(name="benchmark", cls=DefaultGroup, no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Run methods over a dataset and score them, or compare two results.

    Examples:
        vostrack benchmark davis17 --root DAVIS --method mast-mem
        vostrack benchmark compare results/anchors results/mast-mem

    `run` may be left out; `vostrack benchmark run --help` shows its options.
    """


@app.command("run", cls=Command)
def run(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="davis16, davis17, ytvos18, ytvos19, mose, lvos, vost, ...; `folder` for your own clips.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path | None,
        in_input(
            "--root", metavar="DIR", help="Folder of the dataset.", show_default="searched in $VOSTRACK_DATA and ./data"
        ),
    ] = None,
    split: Annotated[str | None, in_input(metavar="NAME", help="Its split.", show_default="the validation set")] = None,
    sequences: Annotated[
        str | None, in_input(metavar="NAMES", help="Only these, separated by commas.", show_default="all")
    ] = None,
    limit: Annotated[int | None, in_input(metavar="N", min=1, help="Only the first N.", show_default="all")] = None,
    allow_subset: Annotated[bool, in_input("--allow-subset", help="Leave out sequences that are not there.")] = False,
    distance: Annotated[int, in_input(metavar="N", min=1, help="JumpCut: how far masks are carried, in frames.")] = 16,
    out: Annotated[Path, in_output("--out", "-o", metavar="DIR", help="Folder for masks and scores.")] = Path(
        "vostrack_benchmark"
    ),
    overwrite: Annotated[bool, in_output("--overwrite", help="Replace results of other settings.")] = False,
    json: Json = False,
    method: Annotated[
        list[str] | None,
        in_method(
            "--method",
            metavar="NAME",
            help="A method, or NAME:PRESET,KEY=VALUE,... where KEY is a setting of it, `weights`, `adapt` (clip or "
            "live), `refine`, or a setting of these two, as `adapt-iterations`. Repeatable.",
            show_default=DEFAULT,
        ),
    ] = None,
    size: Size = DEFAULT_SIZE,
    weights: Annotated[
        str | None,
        in_method(
            metavar="FILE",
            help="Of methods that name none: a file, a name or `random`.",
            show_default="the method's own",
        ),
    ] = None,
    device: Device = "auto",
    jobs: Jobs = 1,
) -> None:
    """Run methods over a dataset, write their masks and score them. An interrupted run goes on where it stopped.

    Examples:
        vostrack benchmark davis17 --root DAVIS --method mast-mem
        vostrack benchmark davis17 --method best --method anchors:paper,refine=crf

    Masks go to OUT/VARIANT/Annotations/SEQUENCE, scores to OUT/results.json and OUT/results.csv. Other methods that run
    later on the same sequences with the same settings join the table and the report. The column `copy`, the first mask
    for every frame, is the floor. A sequence whose first mask is empty is left out, with a note.
    """
    from vostrack.benchmark.datasets.table import open_dataset
    from vostrack.benchmark.runner import run_benchmark
    from vostrack.cli.variants import parse_variants

    variants = parse_variants(method or [DEFAULT], parse_size(size), device, weights)
    chosen = [name.strip() for name in sequences.split(",") if name.strip()] if sequences else None
    with SequenceBar("reading masks", "start again with the same command") as bar:
        opened = open_dataset(
            dataset,
            root,
            split,
            sequences=chosen,
            limit=limit,
            allow_subset=allow_subset,
            distance=distance,
            callbacks=bar,
        )
    with SequenceBar("benchmark", "go on with the same command") as bar:
        report = run_benchmark(opened, variants, out, jobs=jobs, overwrite=overwrite, floor=True, callbacks=bar)
    if json:
        print_json(report)
    else:
        print_results(report)
        print(f"results: {shown(out / 'report.html')}", file=sys.stderr)
        _say_next(out, [name for name in report["variants"] if name != FLOOR])


def _say_next(out: Path, variants: list[str]) -> None:
    """Say what to do with the results of some variants."""
    folders = [shlex.quote(str(out / name)) for name in variants[:2]]
    if len(folders) == 2:
        say_next(f"is the difference more than noise? vostrack benchmark compare {' '.join(folders)}")
    else:
        say_next(f"open {out / 'report.html'}; the same command with another --method joins it")


@app.command("compare", cls=Command)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder of a variant's results.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Folder of another's.", show_default=False)],
    json: Json = False,
) -> None:
    """Say which sequences got better or worse, and whether the mean difference may be noise.

    Examples:
        vostrack benchmark compare results/anchors results/mast-mem

    The interval is a paired bootstrap over sequences.
    """
    from vostrack.benchmark.compare import compare as run_comparison

    found = run_comparison(first, second)
    if json:
        print_json(found.to_json())
    else:
        print_comparison(found)
