"""`vostrack benchmark`: run methods over a dataset, and `vostrack benchmark compare`: tell noise from gain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.benchmark_tables import SequenceBar, print_comparison, print_json, print_results
from vostrack.cli.console import DefaultGroup
from vostrack.cli.settings import DEFAULT_SIZE, Size, parse_size
from vostrack.methods import DEFAULT

app = typer.Typer(name="benchmark", cls=DefaultGroup, no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Run methods over a dataset and score them: `vostrack benchmark DATASET ...`, with the options of `run`.

    [bold]Examples[/bold]

    vostrack benchmark davis17 --root DAVIS --method mast-mem

    vostrack benchmark compare results/anchors results/mast-mem
    """


@app.command("run")
def run(
    dataset: Annotated[
        str, typer.Argument(help="davis16, davis17, ytvos18, ytvos19, mose, lvos, vost, ...", show_default=False)
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder of the dataset.", show_default="searched in $VOSTRACK_DATA and ./data"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split.", show_default="the validation set")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="METHOD[:PRESET][,KEY=VALUE...]",
            help="Repeatable; KEY may be `weights`, `adapt` (clip or live), `refine`, or a setting of these two, "
            "`adapt-iterations`.",
            show_default=DEFAULT,
        ),
    ] = None,
    size: Size = DEFAULT_SIZE,
    weights: Annotated[
        str | None,
        typer.Option(help="Of methods that name none: a file, a name or `random`.", show_default="the method's own"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Number of processes.")] = 1,
    sequences: Annotated[str | None, typer.Option(help="Only these, separated by commas.", show_default="all")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.", show_default="all")] = None,
    allow_subset: Annotated[
        bool, typer.Option("--allow-subset", help="Leave out sequences that are not there.")
    ] = False,
    distance: Annotated[int, typer.Option(min=1, help="JumpCut: how far masks are carried, in frames.")] = 16,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks and scores.")] = Path("vostrack_benchmark"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of other settings.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON on stdout.")] = False,
) -> None:
    """Run methods over a dataset, write their masks and score them. An interrupted run goes on where it stopped.

    Masks go to OUT/VARIANT/Annotations/SEQUENCE, scores to OUT/results.json and OUT/results.csv. Other methods that run
    later on the same sequences with the same settings join the table and the report. A sequence whose first mask is
    empty is left out, with a note.
    """
    from vostrack.benchmark.datasets.table import open_dataset
    from vostrack.benchmark.runner import run_benchmark
    from vostrack.cli.variants import parse_variants

    variants = parse_variants(method or [DEFAULT], parse_size(size), device, weights)
    chosen = [name.strip() for name in sequences.split(",") if name.strip()] if sequences else None
    opened = open_dataset(
        dataset, root, split, sequences=chosen, limit=limit, allow_subset=allow_subset, distance=distance
    )
    with SequenceBar("benchmark", "go on with the same command") as bar:
        report = run_benchmark(opened, variants, out, jobs=jobs, overwrite=overwrite, callbacks=bar)
    if json:
        print_json(report)
    else:
        print_results(report)
        print(f"results: {out / 'report.html'}", file=sys.stderr)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a variant's results.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of another's.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
) -> None:
    """Say which sequences got better or worse, and whether the mean difference may be noise.

    The interval is a paired bootstrap over sequences.

    Example: vostrack benchmark compare results/anchors results/mast-mem
    """
    from vostrack.benchmark.compare import compare as run_comparison

    found = run_comparison(first, second)
    if json:
        print_json(found.to_json())
    else:
        print_comparison(found)
