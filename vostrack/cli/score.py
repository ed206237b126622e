"""`vostrack score`: J and F of folders of masks against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from vostrack.cli.benchmark_tables import number, print_table
from vostrack.files import write_json


def score(
    results: Annotated[Path, typer.Argument(help="Folder of results, SEQUENCE/FRAME.png.", show_default=False)],
    ground_truth: Annotated[Path, typer.Argument(help="Folder of ground truth, laid out alike.", show_default=False)],
    json: Annotated[Path | None, typer.Option(help="Also write the scores to this file.", show_default=False)] = None,
    sequences: Annotated[
        list[str] | None,
        typer.Option("--sequence", "-s", help="Score only this sequence; may be repeated.", show_default="all"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Number of processes.")] = 1,
    official_decay: Annotated[
        bool, typer.Option("--official-decay", help="Keep the official code's overflow above 256 frames in the decay.")
    ] = False,
) -> None:
    """Score masks against ground truth: J and F as in the official DAVIS evaluation, without the first and last frame.

    Masks are PNG files of object ids, or of 0 and 255 for one object.

    Example: vostrack score results/ DAVIS/Annotations/480p --json scores.json
    """
    from vostrack.benchmark.score import score_folders

    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("scoring", total=None)
        scores = score_folders(
            results,
            ground_truth,
            sequences=sequences or None,
            jobs=jobs,
            official_decay=official_decay,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    total = scores.total()
    means = f"J&F {total.pop('J&F'):.4f}, mean of {len(scores.objects)} objects in {scores.sequences} sequences"
    objects = [(row.name, *(number(value, 3) for value in row.values.values())) for row in scores.objects]
    columns = ("object", *(key.replace("_", " ") for key in total))
    print_table(columns, objects, [("all", *(number(value, 3) for value in total.values()))], caption=means)
    if json is not None:
        write_json(json, scores.to_json())
