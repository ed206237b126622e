"""Runs tasks in this process or in several, with the same results in the same order. Knows nothing of what they do."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vostrack.errors import Cancelled, VostrackError
from vostrack.run.callbacks import Callbacks
from vostrack.run.worker import follow_parent

R = TypeVar("R")


def check_jobs(jobs: int) -> None:
    """Raise `VostrackError` where `jobs` is no number of processes."""
    if not isinstance(jobs, int) or jobs < 1:
        raise VostrackError(f"jobs must be a whole number, 1 or more, not {jobs!r}")


def run_all(
    tasks: Sequence[Callable[[], R]], jobs: int, callbacks: Callbacks, start: Callable[[], None] | None = None
) -> list[R]:
    """Results of all tasks, in their order. The first error, of a task or a callback, ends everything at once.

    Args:
        tasks: called with nothing. With more than one job, they and their results have to be picklable.
        jobs: number of processes. They are spawned: with more than one, call this under `if __name__ == "__main__"`.
        callbacks: called in this process; progress counts tasks.
        start: called first in each process of the pool.

    Raises:
        Cancelled: by the callbacks.
        VostrackError: there are fewer jobs than one, or a process died.
    """
    check_jobs(jobs)
    results: dict[int, R] = {}
    if jobs == 1:
        for index, task in enumerate(tasks):
            results[index] = task()
            _report(callbacks, len(results), len(tasks))
        return list(results.values())
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=_start_worker, initargs=(start,))
    try:
        futures = {pool.submit(task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            _report(callbacks, len(results), len(tasks))
    except BaseException as error:
        # What the processes are at would be done again in any case.
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise VostrackError("a process died, perhaps for lack of memory; use fewer `jobs`") from error
        raise
    pool.shutdown()
    return [results[index] for index in range(len(tasks))]


def _report(callbacks: Callbacks, done: int, total: int) -> None:
    callbacks.progress(done, total)
    if callbacks.cancelled():
        raise Cancelled(f"cancelled after {done} of {total}")


def _start_worker(start: Callable[[], None] | None) -> None:
    follow_parent()
    if start is not None:
        start()
