"""`vostrack score`: J and F of folders of masks against ground truth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.benchmark_tables import SequenceBar, number, print_table
from vostrack.cli.console import say_next
from vostrack.cli.help import Jobs, in_input, in_output
from vostrack.errors import counted
from vostrack.files import write_json

_rule = partial(typer.Option, rich_help_panel="Rules")


def score(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="Folder of SEQUENCE/FRAME.png, or a run.", show_default=False),
    ],
    ground_truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Folder of SEQUENCE/FRAME.png, or one sequence.", show_default=False)
    ],
    sequences: Annotated[
        list[str] | None,
        in_input("--sequence", "-s", metavar="NAME", help="Score only this one. Repeatable.", show_default="all"),
    ] = None,
    json: Annotated[
        Path | None, in_output("--json", metavar="FILE", help="Also write the scores to this file.", show_default=False)
    ] = None,
    official_decay: Annotated[
        bool,
        _rule("--official-decay", help="Compute the decay like the official code, which overflows above 256 frames."),
    ] = False,
    late_objects: Annotated[
        bool, _rule("--late-objects", help="Score objects that appear after the first frame, as YouTube-VOS does.")
    ] = False,
    ignore_void: Annotated[
        bool, _rule("--ignore-void", help="Leave out pixels that are 255 in the ground truth, as in VOST.")
    ] = False,
    jobs: Jobs = 1,
) -> None:
    """Score masks against ground truth: J and F as in DAVIS.

    Examples:
        vostrack score results/ DAVIS/Annotations/480p --json scores.json
        vostrack score dog_vostrack/ DAVIS/Annotations/480p/dog

    Masks are PNG files of object ids, also in DAVIS's colours, or of 0 and 255 for one object. DAVIS's official rule
    leaves out the first and the last frame, and objects that the first frame lacks; a note names those, and
    --late-objects scores them too.
    """
    from vostrack.benchmark.score import Rules, main_value, score_folders

    rules = Rules(official_decay, late_objects, ignore_void)
    with SequenceBar("scoring", "start again with the same command") as bar:
        scores = score_folders(
            results, ground_truth, sequences=sequences or None, jobs=jobs, rules=rules, callbacks=bar
        )
    total = scores.total()
    counts = f"{counted(len(scores.objects), 'object')} in {counted(scores.sequences, 'sequence')}"
    scored = {(row.sequence, frame) for row in scores.objects for frame in row.curves["frames"]}
    means = f"J&F {total.pop('J&F'):.4f}, mean of {counts}, over {counted(len(scored), 'frame')}"
    objects = [(row.name, *(number(value, 3) for value in row.values.values())) for row in scores.objects]
    columns = ("object", *(key.replace("_", " ") for key in total))
    print_table(columns, objects, [("all", *(number(value, 3) for value in total.values()))], caption=means)
    if json is not None:
        write_json(json, scores.to_json())
    lowest = min(scores.objects, key=lambda row: main_value(row.values))
    if not any(main_value(row.values) for row in scores.objects):
        say_next("nothing overlaps: are these masks of the same clip?")
    else:
        frame, value = min(zip(lowest.curves["frames"], lowest.curves["J"], strict=True), key=lambda pair: pair[1])
        say_next(f"look at frame {frame} of {lowest.name}, where J is {value:.2f}, the lowest")
