"""The files that a benchmark leaves: `results.json` and `results.csv`, and submissions in a server's layout.

Equal masks give equal bytes: everything that varies from run to run is under the key "timing".
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vostrack.benchmark.datasets.mask_folders import named
from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.score import finite, totals
from vostrack.benchmark.sequence_run import MASKS, Outcome
from vostrack.errors import InputError
from vostrack.files import OutputRoot, nearest, read_json, shown
from vostrack.methods import FLOOR
from vostrack.notes import Code, Note
from vostrack.run.passes import PARTS

FORMAT = "vostrack-benchmark-1"
RESULTS = "results.json"
TABLE = "results.csv"

_SHARED = ("dataset", "split", "distance", "size", "device", "threads", "vostrack", "torch")
"""Settings without which results do not belong into one table."""


def write_results(
    out: Path, dataset: Dataset, settings: Mapping[str, Mapping[str, Any]], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    """Write the results of all variants, and of each one into its own folder.

    Variants of an earlier run that are of the same sequences and settings stay in the table of all.

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
        if dataset.submission and dataset.official:
            _write_submission(root, name, dataset, done)
    report = _report(dataset, settings, outcomes)
    for name in sorted(set(os.listdir(out)) - report["variants"].keys()):
        if name.isprintable() and (out / name / RESULTS).is_file():
            with contextlib.suppress(InputError, ValueError, KeyError, TypeError, AttributeError):
                report = _joined(read_results(out / name), report, name)
    _write(root, "", report)
    return report


def _joined(earlier: Mapping[str, Any], report: dict[str, Any], name: str) -> dict[str, Any]:
    """A report with the variant of an earlier one, or with a note why not; raises where that one is damaged."""
    if differ := _differences(earlier, report, name):
        text = f"{name} of an earlier run is not in this table: other {', '.join(differ)}"
        notes = [*report["dataset"]["notes"], Note(Code.VARIANT_LEFT_OUT, text)]
        return {**report, "dataset": {**report["dataset"], "notes": notes}}
    timing = {name: earlier["timing"]["variants"][name]}
    return {
        **report,
        "variants": {name: earlier["variants"][name]} | report["variants"],
        "timing": {**report["timing"], "variants": timing | report["timing"]["variants"]},
    }


def _differences(earlier: Mapping[str, Any], report: Mapping[str, Any], name: str) -> list[str]:
    """Why a variant of an earlier report does not belong into a new one; nothing, if it does."""
    own, known = earlier["variants"][name], report["variants"]
    sample = next((each for each in known if each != FLOOR), FLOOR)  # whose size is its own
    other = known[sample]
    differ = [key for key in _SHARED if own["settings"][key] != other["settings"][key]]
    if earlier["dataset"]["sequences"] != report["dataset"]["sequences"]:
        differ.append("sequences")
    shown_of_it = [
        ({**value, "settings": value["settings"]["weights"]}, found["timing"]["variants"][key]["seconds_per_frame"])
        for found, key, value in ((report, sample, other), (earlier, name, own))
    ]
    return differ or ["layout"] * (not _alike(*map(list, shown_of_it)))


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of JSON are laid out alike, with other text and numbers in the same places."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list) and len(one) == len(other) and all(map(_alike, one, other))
    return isinstance(other, str) if isinstance(one, str) else other is None or isinstance(other, int | float)


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
    except FileNotFoundError as error:
        close = f": it has no {RESULTS}" if file != path else nearest(path)
        raise InputError(f"there are no results in {shown(path)}{close}") from error
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
            "notes": _notes(dataset, outcomes),
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


def _notes(dataset: Dataset, outcomes: Mapping[str, Sequence[Outcome]]) -> list[Note]:
    """What is not scored, and why."""
    notes = [outcome.note for done in outcomes.values() for outcome in done if outcome.note]
    given = [sequence.name for sequence in dataset.sequences if not sequence.scored]
    if given and not dataset.submission:
        text = f"not scored, since there are no masks but the given ones: {named(given)}"
        notes.append(Note(Code.TRUTH_MISSING, text))
    return list(dict.fromkeys(notes))


def _scores(dataset: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Scores of a variant: in all, by attribute, by sequence, by object and frame."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    having = {sequence.name: sequence.attributes for sequence in dataset.sequences}
    attributes = sorted({attribute for given in having.values() for attribute in given})
    by_attribute = {a: totals(row for row in rows if a in having[row.sequence]) for a in attributes}
    total = totals(rows)
    if dataset.spec.grouped and rows:
        # What papers give for YouTube-Objects is the mean over its ten classes.
        total["J_class_mean"] = math.fsum(values["J_mean"] for values in by_attribute.values()) / len(by_attribute)
    return {
        "total": finite(total),
        "attributes": {name: finite(values) for name, values in by_attribute.items()},
        "sequences": {name: finite(totals(row for row in rows if row.sequence == name)) for name in having},
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
        columns = [key for key in rows[-1][1] if key != "curves"]
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["variant", *columns])
        writer.writerows([name, *(row[key] for key in columns)] for name, row in rows)
        root.write(Path(folder, TABLE), table.getvalue().encode())
    else:
        root.remove(Path(folder, TABLE))
    root.write_json(Path(folder, RESULTS), report)


def _write_submission(root: OutputRoot, folder: str, dataset: Dataset, outcomes: Sequence[Outcome]) -> None:
    """`VIDEO/FRAME.png` in a zip file, below `Annotations` where the server wants it so."""
    with root.new(Path(folder, "submission.zip")) as path, zipfile.ZipFile(path, "x") as archive:
        for sequence, outcome in zip(dataset.sequences, outcomes, strict=True):
            for frame in outcome.written:
                name = f"{MASKS}/{sequence.name}/{frame}.png"
                # A fixed date, so that equal masks give an equal file; PNG does not shrink any further.
                entry = zipfile.ZipInfo(f"{dataset.spec.archive}{sequence.name}/{frame}.png", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, root.at(Path(folder, name)).read_bytes())
