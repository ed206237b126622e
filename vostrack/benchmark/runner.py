"""Runs variants of methods over a dataset: resumable, in several processes, with results that do not depend on either.

    OUT/results.json, results.csv      scores of all variants, with those of earlier runs
    OUT/report.html                    the same to look at
    OUT/VARIANT/Annotations/SEQ/*.png  masks in the official layout
    OUT/VARIANT/results.json           as above, of one variant
    OUT/VARIANT/submission.zip         where a server scores the masks

Prints nothing. `sequence_run` does the work, `results` and `report` write the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.pool import check_jobs, run_all
from vostrack.benchmark.report.page import REPORT, write_report
from vostrack.benchmark.results import RESULTS, TABLE, write_results
from vostrack.benchmark.sequence_run import MASKS, RECORDS, Task, loaded, run_sequence
from vostrack.errors import MethodError, NoObjectError, OutputError, OutputExistsError
from vostrack.files import OutputRoot, lock_folder, read_json, shown
from vostrack.methods import FLOOR, METHODS, method_class
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.pipeline import PipelineConfig, changes
from vostrack.weights import RANDOM


@dataclass(frozen=True, slots=True)
class Variant:
    """A pipeline, and the text by which it was asked for, "METHOD[:PRESET][,KEY=VALUE...]"."""

    pipeline: PipelineConfig
    text: str

    @property
    def name(self) -> str:
        """A name for people and for a folder; what is long in it is a hash."""
        config = self.pipeline
        parts = [
            config.method,
            config.preset if config.preset != "default" else None,
            "adapt" if config.adapt == "clip" else config.adapt and f"adapt-{config.adapt}",
            config.adapt_preset if config.adapt_preset != "default" else None,
            config.refine,
            RANDOM if config.weights == RANDOM else None,
        ]
        long = [dict(config.settings), dict(config.adapt_settings), dict(config.refine_settings)]
        weights = None if config.weights in (None, RANDOM) else str(config.weights)
        if any(long) or weights:
            digest = hashlib.sha256(json.dumps([*long, weights], sort_keys=True).encode())
            parts.append(digest.hexdigest()[:8])
        return "-".join(filter(None, parts))


def run_benchmark(
    dataset: Dataset,
    variants: Items[Variant],
    out: Path,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    floor: bool = False,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Run variants over a dataset, write masks and scores, and go on where an earlier run stopped.

    With more than one job, call this under `if __name__ == "__main__"`: processes are spawned.

    Args:
        dataset: opened.
        variants: what to run; at least one.
        out: folder for the results.
        jobs: number of processes, which share the threads of this one.
        overwrite: whether results that were made with other settings are replaced.
        floor: whether `copy` runs as well, last and at the size of the frames, where there is something to score.
        callbacks: what is called on the way; progress counts sequences.

    Returns:
        What is in `results.json` (docs/datasets.md), variants of earlier runs included.

    Raises:
        NoObjectError: no sequence has an object.
        VostrackError: an argument is wrong, a variant cannot be had, a sequence fails, or the results there were made
            with other settings.
    """
    check_jobs(jobs)
    callbacks = checked_callbacks(callbacks)
    if not variants:
        raise MethodError("there is no variant to run")
    if floor and not dataset.submission and all(variant.pipeline.method != FLOOR for variant in variants):
        variants = (*variants, Variant(PipelineConfig(method=FLOOR, device=variants[0].pipeline.device), FLOOR))
    variants = [_at_full_size(variant) for variant in variants]
    if _holds(dataset.root, out, variants):
        raise OutputError(f"{shown(out)} lies in the dataset's own folders: choose another `out`")
    check_different(variants)
    pipelines = {v.name: _under_protocol(v, dataset.spec.method_settings) for v in variants}
    threads = max(1, torch.get_num_threads() // jobs)
    settings = _settings(dataset, pipelines, threads)
    with lock_folder(out):
        for variant in variants:
            _prepare(OutputRoot(out), variant.name, settings[variant.name], overwrite)
        tasks = [
            partial(run_sequence, Task(sequence, pipeline, settings[name], out / name, dataset.distance is not None))
            for name, pipeline in pipelines.items()
            for sequence in dataset.sequences
        ]
        start = partial(_start_worker, threads, dict(METHODS))
        outcomes = iter(run_all(tasks, jobs, callbacks, start))
        grouped = {name: list(islice(outcomes, len(dataset.sequences))) for name in pipelines}
        if all(outcome.note for done in grouped.values() for outcome in done):
            raise NoObjectError(f"no sequence can be run: {next(iter(grouped.values()))[0].note}")
        report = write_results(out, dataset, settings, grouped)
        write_report(out, dataset, report)
        for note in report["dataset"]["notes"]:
            callbacks.note(note)
        return report


def _at_full_size(variant: Variant) -> Variant:
    """The same, but for the floor: it copies a mask, which no smaller size makes quicker, only coarser."""
    pipeline = variant.pipeline
    return replace(variant, pipeline=replace(pipeline, size=None)) if pipeline.method == FLOOR else variant


def check_different(variants: Items[Variant]) -> None:
    """Raise `MethodError` where two variants are the same."""
    if len({variant.name for variant in variants}) < len(variants):
        raise MethodError(f"a variant was asked for twice: {', '.join(variant.text for variant in variants)}")


def _under_protocol(variant: Variant, wanted: Mapping[str, Any]) -> PipelineConfig:
    """The variant's pipeline with those settings that a dataset's protocol asks for which its method has.

    What the variant itself says comes first.
    """
    config = variant.pipeline
    known = {field.name for field in fields(method_class(config.method).presets["default"])}
    asked = {key: value for key, value in wanted.items() if key in known}
    return replace(config, settings=asked | dict(config.settings))


def _settings(dataset: Dataset, pipelines: Mapping[str, PipelineConfig], threads: int) -> dict[str, dict[str, Any]]:
    """All that decides masks, by name of the variant; fails here, where a variant cannot be had."""
    loaded.cache_clear()  # weights may have changed since this process ran a benchmark
    fixed = {"dataset": dataset.name, "split": dataset.split, "distance": dataset.distance, "threads": threads}
    return {name: loaded(config).record() | fixed for name, config in pipelines.items()}


def _holds(root: Path, out: Path, variants: Items[Variant]) -> bool:
    """Whether results would mix with the dataset's frames and masks."""
    root, out = root.resolve(), out.resolve()
    kinds = [root / name for name in ("JPEGImages", "Annotations", "GroundTruth", "clips")]
    return root in (out, *(out / v.name for v in variants)) or any(out.is_relative_to(kind) for kind in kinds)


def _prepare(root: OutputRoot, name: str, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Keep settings beside the records, and refuse to mix results of different ones."""
    for written in (RESULTS, TABLE, REPORT, Path(name, RESULTS), Path(name, TABLE), Path(name, MASKS)):
        root.at(written)  # fails now, where it does, and not after hours
    folder, records = root.path / name, Path(name, RECORDS)
    path = root.at(records / "settings")
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        earlier = read_json(path, dict[str, Any])
    differ = changes(earlier, settings) if earlier else ""
    if differ and not overwrite and name != FLOOR:  # which costs nothing to run again
        raise OutputExistsError(
            f"{shown(folder)} holds results with other settings ({differ}): use `overwrite=True` or another `out`"
        )
    if overwrite or differ:
        for record in path.parent.glob("*.json"):
            root.remove(records / record.name)
    root.write_json(records / "settings", settings)


def _start_worker(threads: int, methods: Mapping[str, str]) -> None:
    """Give a process its share of threads, and the methods that the caller registered."""
    torch.set_num_threads(threads)
    METHODS.update(methods)
