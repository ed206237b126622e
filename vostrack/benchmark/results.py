"""The files that a benchmark leaves: `results.json` and `results.csv`, and submissions in a server's layout.

Equal masks give equal bytes: everything that varies from run to run is under the key "timing".
"""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.score import finite, totals
from vostrack.benchmark.sequence_run import MASKS, Outcome
from vostrack.errors import InputError
from vostrack.files import OutputRoot, read_json, shown
from vostrack.run.passes import PARTS

FORMAT = "vostrack-benchmark-1"
RESULTS = "results.json"
TABLE = "results.csv"


def write_results(
    out: Path, dataset: Dataset, settings: Mapping[str, Mapping[str, Any]], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    """Write the results of all variants, and of each one into its own folder.

    Args:
        out: folder of the results.
        dataset: that was run.
        settings: by name of the variant.
        outcomes: by name of the variant, in the order of the dataset's sequences.

    Returns:
        What is in `results.json`.
    """
    root = OutputRoot(out)
    for name, done in outcomes.items():
        _write(root, name, _report(dataset, settings, {name: done}))
        if dataset.submission and dataset.spec.protocol == "late":
            _write_submission(root, name, dataset, done)
    report = _report(dataset, settings, outcomes)
    _write(root, "", report)
    return report


def read_results(path: Path) -> dict[str, Any]:
    """Results from a `results.json` or from the folder that holds it.

    Raises:
        InputError: there are none.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        report = read_json(file, most=1 << 30)
        if not isinstance(report, dict) or report.get("format") != FORMAT:
            raise ValueError("it was not written by `vostrack benchmark`")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results {shown(file)}: {shown(error)}") from error
    return report


def _report(
    dataset: Dataset, settings: Mapping[str, Mapping[str, Any]], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dataset": {
            "name": dataset.name,
            "title": dataset.spec.title,
            "split": dataset.split,
            "subset": dataset.subset,
            "distance": dataset.distance,
            "submission": dataset.submission,
            "sequences": [sequence.name for sequence in dataset.sequences],
        },
        "variants": {name: {"settings": settings[name]} | _scores(dataset, done) for name, done in outcomes.items()},
        "timing": {
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cpus": os.cpu_count(),
                "system": platform.platform(),
                "python": platform.python_version(),
            },
            "variants": {name: _timing(dataset, done) for name, done in outcomes.items()},
        },
    }


def _scores(dataset: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Scores of a variant: in all, by attribute, by sequence, by object and frame."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    named = {sequence.name: sequence.attributes for sequence in dataset.sequences}
    attributes = sorted({attribute for given in named.values() for attribute in given})
    by_attribute = {a: totals(row for row in rows if a in named[row.sequence]) for a in attributes}
    total = totals(rows)
    if dataset.spec.grouped and rows:
        # What papers give for YouTube-Objects is the mean over its ten classes.
        total["J_class_mean"] = math.fsum(values["J_mean"] for values in by_attribute.values()) / len(by_attribute)
    return {
        "total": finite(total),
        "attributes": {name: finite(values) for name, values in by_attribute.items()},
        "sequences": {name: finite(totals(row for row in rows if row.sequence == name)) for name in named},
        "objects": [row.to_json() | {"curves": dict(row.curves)} for row in rows],
    }


def _timing(dataset: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    frames = sum(outcome.frames for outcome in outcomes)
    seconds = {name: math.fsum(outcome.seconds[name] for outcome in outcomes) for name in PARTS}
    return {
        "frames": frames,
        "seconds_per_frame": {name: round(value / max(frames, 1), 4) for name, value in seconds.items()},
        "verified": [s.name for s, outcome in zip(dataset.sequences, outcomes, strict=True) if outcome.again],
    }


def _write(root: OutputRoot, folder: str, report: Mapping[str, Any]) -> None:
    table = io.StringIO()
    rows = [(name, row) for name, variant in report["variants"].items() for row in variant["objects"]]
    if rows:
        columns = [key for key in rows[0][1] if key != "curves"]
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["variant", *columns])
        writer.writerows([name, *(row[key] for key in columns)] for name, row in rows)
        root.write(Path(folder, TABLE), table.getvalue().encode())
    else:
        root.remove(Path(folder, TABLE))
    root.write_json(Path(folder, RESULTS), report)


def _write_submission(root: OutputRoot, folder: str, dataset: Dataset, outcomes: Sequence[Outcome]) -> None:
    """`Annotations/VIDEO/FRAME.png` in a zip file, as the YouTube-VOS server takes it."""
    with root.new(Path(folder, "submission.zip")) as path, zipfile.ZipFile(path, "x") as archive:
        for sequence, outcome in zip(dataset.sequences, outcomes, strict=True):
            for frame in outcome.written:
                name = f"{MASKS}/{sequence.name}/{frame}.png"
                # A fixed date, so that equal masks give an equal file; PNG does not shrink any further.
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), root.at(Path(folder, name)).read_bytes())
