"""Runs variants of methods over a dataset: resumable, in several processes, with results that do not depend on either.

    OUT/results.json, results.csv      scores of all variants of the last run
    OUT/report.html                    the same to look at
    OUT/VARIANT/Annotations/SEQ/*.png  masks in the official layout
    OUT/VARIANT/results.json           as above, of one variant
    OUT/VARIANT/submission.zip         where a server scores YouTube-VOS

Prints nothing. `sequence_run` does the work, `results` and `report` write the files.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.report.page import write_report
from vostrack.benchmark.results import write_results
from vostrack.benchmark.sequence_run import RECORDS, Outcome, Task, run_sequence
from vostrack.benchmark.variants import PIPELINES, Variant, check_different, under_protocol
from vostrack.errors import Cancelled, OutputError, OutputExistsError, VostrackError
from vostrack.files import lock_folder, make_folder, output_error, remove_partials, shown, write_json
from vostrack.methods import METHODS
from vostrack.run.callbacks import Callbacks
from vostrack.run.pipeline import PipelineConfig


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a benchmark.

    Attributes:
        jobs: number of processes, which share the threads of this one.
        overwrite: whether results that were made with other settings are replaced.
    """

    jobs: int = 1
    overwrite: bool = False


def run_benchmark(
    dataset: Dataset,
    variants: Items[Variant],
    out: Path,
    options: Options | None = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Run variants over a dataset, write masks and scores, and go on where an earlier run stopped.

    With more than one job, call this under `if __name__ == "__main__"`: processes are spawned.

    Args:
        dataset: opened.
        variants: what to run; at least one.
        out: folder for the results.
        options: how.
        callbacks: what is called on the way; progress counts sequences.

    Returns:
        What is in `results.json` (docs/datasets.md).

    Raises:
        VostrackError: a variant cannot be had, a sequence fails, or the results there were made with other settings.
    """
    options = options or Options()
    if options.jobs < 1 or not variants:
        raise ValueError("at least one job and one variant are needed")
    if _holds(dataset.root, out, variants):
        raise OutputError(f"{shown(out)} lies in the dataset's own folders: choose another --out")
    check_different(variants)
    pipelines = {v.name: under_protocol(v, dataset.spec.method_settings) for v in variants}
    threads = max(1, torch.get_num_threads() // options.jobs)
    settings = _settings(dataset, pipelines, threads)
    with lock_folder(out):
        remove_partials(out)
        for variant in variants:
            _prepare(out / variant.name, settings[variant.name], options.overwrite)
        tasks = [
            Task(sequence, name, pipeline, settings[name], out / name, dataset.spec.protocol == "jump")
            for name, pipeline in pipelines.items()
            for sequence in dataset.sequences
        ]
        outcomes = _run(tasks, min(options.jobs, len(tasks)), threads, callbacks or Callbacks())
        grouped = {name: [outcomes[name, s.name] for s in dataset.sequences] for name in pipelines}
        report = write_results(out, dataset, settings, grouped)
        write_report(out, dataset, report)
        return report


def _settings(dataset: Dataset, pipelines: Mapping[str, PipelineConfig], threads: int) -> dict[str, dict[str, Any]]:
    """All that decides masks, by name of the variant; fails here, where a variant cannot be had."""
    PIPELINES.clear()  # weights may have changed since this process ran a benchmark
    fixed = {"dataset": dataset.name, "split": dataset.split, "distance": dataset.distance}
    fixed |= {"threads": threads}
    return {name: PIPELINES.load(config).record() | fixed for name, config in pipelines.items()}


def _holds(root: Path, out: Path, variants: Items[Variant]) -> bool:
    """Whether results would mix with the dataset's frames and masks."""
    root, out = root.resolve(), out.resolve()
    kinds = [root / name for name in ("JPEGImages", "Annotations", "GroundTruth", "clips")]
    return root in (out, *(out / v.name for v in variants)) or any(out.is_relative_to(kind) for kind in kinds)


def _prepare(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Keep settings beside the records, and refuse to mix results of different ones."""
    path = folder / RECORDS / "settings"
    earlier: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    differ = [key for key in sorted({*earlier, *settings}) if earlier.get(key) != settings.get(key)]
    if earlier and differ and not overwrite:
        raise OutputExistsError(
            f"{shown(folder)} holds results with other settings ({', '.join(differ)} changed): "
            "use --overwrite or another --out"
        )
    make_folder(path.parent)
    if overwrite:
        try:
            for record in path.parent.glob("*.json"):
                record.unlink()
        except OSError as error:
            raise output_error(error, path.parent) from error
    write_json(path, settings)


def _run(tasks: Items[Task], jobs: int, threads: int, callbacks: Callbacks) -> dict[tuple[str, str], Outcome]:
    outcomes: dict[tuple[str, str], Outcome] = {}

    def keep(task: Task, outcome: Outcome) -> None:
        outcomes[task.variant, task.sequence.name] = outcome
        callbacks.progress(len(outcomes), len(tasks))
        if callbacks.cancelled():
            raise Cancelled(f"cancelled after {len(outcomes)} of {len(tasks)} sequences: run again to go on")

    if jobs == 1:
        for task in tasks:
            keep(task, run_sequence(task))
        return outcomes
    with _pool(jobs, threads) as pool:
        futures = {pool.submit(run_sequence, task): task for task in tasks}
        for future in as_completed(futures):
            keep(futures[future], future.result())
    return outcomes


@contextlib.contextmanager
def _pool(jobs: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end at once when the block fails: what they are at would be done again in any case."""
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(threads, dict(METHODS)))
    try:
        yield pool
    except BaseException as error:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise VostrackError("a benchmark process died, perhaps for lack of memory; use fewer --jobs") from error
        raise
    pool.shutdown()


def _start_worker(threads: int, methods: Mapping[str, str]) -> None:
    """Prepare a process: its share of threads, the methods that the caller registered, and how it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)
    METHODS.update(methods)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        # A parent that was killed tells nobody; without this its processes would go on, beside those of the next run.
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="vostrack-orphan", daemon=True).start()
