"""`vostrack benchmark`: run methods over a dataset, and `vostrack benchmark compare`: tell noise from gain."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vostrack.cli.benchmark_tables import SequenceBar, number, print_comparison, print_json, print_results, print_table
from vostrack.cli.console import plain, say_next
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
    in_run,
)
from vostrack.cli.settings import parse_size
from vostrack.errors import counted
from vostrack.files import shown
from vostrack.methods import DEFAULT, FLOOR

if TYPE_CHECKING:
    from vostrack.benchmark.datasets.table import Dataset as OpenedDataset

app = typer.Typer(name="benchmark", cls=DefaultGroup, no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Run methods over a dataset and score them; compare results.

    Examples:
        vostrack benchmark davis17 --root DAVIS --method mast-mem
        vostrack benchmark compare results/anchors results/mast-mem

    `run` may be left out; `vostrack benchmark run --help` shows its options.
    """


Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="davis16, davis17, ytvos18, ytvos19, mose, lvos, vost, ...; `folder` for your own clips.",
        show_default=False,
    ),
]
Root = Annotated[
    Path | None,
    in_input(
        "--root", metavar="DIR", help="Folder of the dataset.", show_default="searched in $VOSTRACK_DATA and ./data"
    ),
]
Split = Annotated[str | None, in_input("--split", metavar="NAME", help="Its split.", show_default="the validation set")]
Sequences = Annotated[
    str | None,
    in_input("--sequences", metavar="NAMES", help="Only these sequences, separated by commas.", show_default="all"),
]
Limit = Annotated[
    int | None, in_input("--limit", metavar="N", min=1, help="Only the first N sequences.", show_default="all")
]
AllowSubset = Annotated[bool, in_input("--allow-subset", help="Leave out sequences that are missing.")]


@app.command("run", cls=Command)
def run(
    dataset: Dataset,
    root: Root = None,
    split: Split = None,
    sequences: Sequences = None,
    limit: Limit = None,
    allow_subset: AllowSubset = False,
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
            help="Weights of methods that name none: a file, a name or `random`.",
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
    from vostrack.benchmark.runner import run_benchmark
    from vostrack.cli.variants import parse_variants

    variants = parse_variants(method or [DEFAULT], parse_size(size), device, weights)
    opened = _opened(dataset, root, split, sequences, limit, allow_subset, distance)
    _say_start([variant.name for variant in variants], opened, out)
    with SequenceBar("benchmark", "go on with the same command") as bar:
        report = run_benchmark(opened, variants, out, jobs=jobs, overwrite=overwrite, floor=True, callbacks=bar)
    if json:
        print_json(report)
    else:
        print_results(report)
        print(f"results: {shown(out / 'report.html')}", file=sys.stderr)
        _say_next(out, [name for name in report["variants"] if name != FLOOR])


def _opened(
    dataset: str,
    root: Path | None,
    split: str | None,
    sequences: str | None,
    limit: int | None,
    allow_subset: bool,
    distance: int = 16,
) -> OpenedDataset:
    """The dataset, with a bar while its masks are read."""
    from vostrack.benchmark.datasets.table import open_dataset

    chosen = [name.strip() for name in sequences.split(",") if name.strip()] if sequences else None
    with SequenceBar("reading masks", "start again with the same command") as bar:
        return open_dataset(
            dataset,
            root,
            split,
            sequences=chosen,
            limit=limit,
            allow_subset=allow_subset,
            distance=distance,
            callbacks=bar,
        )


def _say_start(variants: Sequence[str], dataset: OpenedDataset, out: Path) -> None:
    """Say what is begun, also where there is no terminal for a bar."""
    count = counted(len(dataset.sequences), "sequence")
    where = f"{dataset.spec.title}, {count}; results go to {out}"
    print(plain(f"benchmark: {', '.join(variants)} over {where}"), file=sys.stderr)


def _say_next(out: Path, variants: list[str]) -> None:
    """Say what to do with the results of some variants."""
    folders = [shlex.quote(str(out / name)) for name in variants[:2]]
    if len(folders) == 2:
        say_next(f"is the difference more than noise? vostrack benchmark compare {' '.join(folders)}")
    else:
        say_next(f"open {out / 'report.html'}; the same command with another --method joins it")


@app.command("adaptation", cls=Command)
def adaptation(
    dataset: Dataset,
    root: Root = None,
    split: Split = None,
    sequences: Sequences = None,
    limit: Limit = None,
    allow_subset: AllowSubset = False,
    out: Annotated[Path, in_output("--out", "-o", metavar="DIR", help="Folder for the page and its figures.")] = Path(
        "vostrack_adaptation"
    ),
    json: Json = False,
    method: Annotated[
        str, in_method("--method", metavar="NAME", help="A method that is adapted, as `run` takes it.")
    ] = f"{DEFAULT},adapt=clip",
    size: Size = DEFAULT_SIZE,
    device: Device = "auto",
    every: Annotated[int, in_run("--every", metavar="N", min=1, help="Steps from one measurement to the next.")] = 20,
) -> None:
    """Plot how well an adapted method does over its steps of training, next to the method alone.

    Examples:
        vostrack benchmark adaptation davis17 --root DAVIS --limit 3

    For each sequence the adaptation is trained once, and all its masks are made and scored every N steps, against the
    truth and against the masks of the method, which it learns from. OUT gets adaptation.html and adaptation.json.
    """
    from vostrack.benchmark.adaptation import run_adaptation_curves
    from vostrack.cli.variants import parse_variants

    (variant,) = parse_variants([method], parse_size(size), device)
    opened = _opened(dataset, root, split, sequences, limit, allow_subset)
    _say_start([variant.name], opened, out)
    with SequenceBar("adaptation", "start again with the same command") as bar:
        curves = run_adaptation_curves(opened, variant, out, every, callbacks=bar)
    if json:
        print_json([curve.to_json() for curve in curves])
        return
    rows = [
        (curve.sequence, *map(number, (curve.alone, curve.adapted[-1], curve.best[0])), str(curve.best[1]))
        for curve in curves
    ]
    last = f"after {curves[0].steps[-1]} steps"
    print_table(("", "alone", last, "best", "after steps"), rows, caption="J&F, means over objects")
    print(f"results: {shown(out / 'adaptation.html')}", file=sys.stderr)


@app.command("compare", cls=Command)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Results of a variant.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Results of another variant.", show_default=False)],
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
