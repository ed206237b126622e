"""`vostrack.run_batch`: many clips, one driver, any pool of workers."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vostrack.batch.away import AwayManifest, Scratch
from vostrack.batch.check import check
from vostrack.batch.local import LocalPool
from vostrack.batch.manifest import Manifest, Outline, Shard, latest
from vostrack.batch.pool import Died, Event, Moved, Noted, Pool
from vostrack.batch.task import Result, Status, Task
from vostrack.errors import OUT_OF_MEMORY, Cancelled, ChangedError, PlanError, VostrackError, counted
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.place import address, clip_name

_WAIT, _MOST_DEATHS, _MOST_STARTS = 0.5, 5, 50
_NOT_IN_PLANS = ("out", "overwrite", "resume", "callbacks", "load")


def run_batch(
    plan: Iterable[Task | Mapping[str, Any]],
    out: str | Path,
    *,
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    fail_fast: bool = False,
    fallback_size: int | None = None,
    callbacks: Callbacks | None = None,
    pool: Callable[[Path], Pool] | None = None,
    scratch: Scratch | None = None,
    outline: Outline | None = None,
) -> Iterator[Result]:
    """Follow many clips, each as `vostrack.segment` does, in processes of their own; yields results as they end.

    Each clip gets a folder in `out`, and a line in `out/batch.jsonl` when it ends. Call the same again after a stop:
    what was interrupted goes on, what is done stays, and what failed is tried again.

    Args:
        plan: the clips, as `vostrack.read_plan` gives them, or arguments of `vostrack.segment` by name, where `out` is
            the name of a folder, by default that of the clip.
        out: folder of all results.
        jobs: how many processes work at once; they share the threads, and the GPUs, among them. With any number, call
            this under `if __name__ == "__main__"`.
        shard: (I, N) for the I-th of N parts, from 1; each clip is in one of them by its path.
        overwrite: whether earlier results are replaced; after a stop, the same call goes on with what is left.
        fail_fast: whether the first clip that fails stops all others.
        fallback_size: short side to try where a clip needs more memory than there is.
        callbacks: progress counts frames of all clips; notes say which clips failed.
        pool: makes the workers, for results in the folder; by default processes here. `functools.partial(RayPool,
            address="auto")`, with `RayPool` from `vostrack.batch.cluster`, works in a Ray cluster.
        scratch: where clips lie that are in an object store, as their masks and `out` may be too.
        outline: what is kept of the plan for `vostrack batch retry`.

    Yields:
        How each clip ended; first the results of those that were done already, with `attempts` of 0.

    Raises:
        PlanError: the plan has faults; nothing was run.
        Cancelled: the callbacks said so; the same call goes on.
        OutputError, OutputExistsError: nothing can be written; another batch works on the same.
    """
    part, folder, scratch = Shard(*shard) if shard else None, Path(out), scratch or Scratch()
    if type(jobs) is not int or jobs < 1:
        raise VostrackError(f"jobs must be a whole number, 1 or more, not {jobs!r}")
    callbacks = checked_callbacks(callbacks)
    tasks = [each for each in map(as_task, plan) if part is None or shard_of(each, part.of) == part.number]
    manifest = AwayManifest(folder, scratch, part) if address(folder) else Manifest(folder, part)
    if outline is None or part is not None:
        outline = replace(outline or Outline(0), clips=len(tasks), names=[task.name for task in tasks])
    removed = {} if overwrite or address(folder) else _removed(tasks, manifest)
    tasks, faults = check([task for task in tasks if task.name not in removed], folder)
    if faults:
        raise PlanError(faults)
    driver = _Driver(manifest, callbacks, overwrite, fail_fast, fallback_size)
    make = pool or (lambda path: LocalPool(path, jobs, scratch))
    return driver.run(tasks, make, outline, removed.values())


def _removed(tasks: Sequence[Task], manifest: Manifest) -> dict[str, Result]:
    """Results of clips that are done, and were removed since, by name."""
    done = {name: result for name, result in latest([manifest]).items() if result.status == Status.DONE}

    def is_removed(task: Task) -> bool:
        is_done = task.name in done and not address(task.clip) and manifest.has_results(task.name)
        return is_done and not task.clip.exists()

    return {task.name: done[task.name] for task in tasks if is_removed(task)}


def as_task(each: Task | Mapping[str, Any]) -> Task:
    """A task from arguments of `vostrack.segment`; raises `VostrackError` where one is missing or unknown."""
    if isinstance(each, Task):
        return each
    from vostrack.run.segment import segment

    known = inspect.signature(segment).parameters
    for name in each:
        if name not in known or name in _NOT_IN_PLANS[1:]:
            raise VostrackError(f"a clip of a plan has no {shown(name)!r}: give arguments of `vostrack.segment`")
    if "clip" not in each or "masks" not in each:
        raise VostrackError(f"a clip of a plan needs clip and masks, and has {', '.join(map(repr, each)) or 'nothing'}")
    masks, clip = each["masks"], Path(each["clip"])
    masks = masks if isinstance(masks, Mapping) else {None: masks}
    more = {name: value for name, value in each.items() if name not in ("clip", "masks", "out")}
    name = str(each.get("out") or clip_name(clip))
    return Task(clip, {moment: Path(mask) for moment, mask in masks.items()}, name, more)


def shard_of(task: Task, of: int) -> int:
    """Which of so many shards a clip is in, from 1, by its path as the plan has it: the same when the plan grows."""
    path = str(task.row.get("clip", task.clip))
    return int.from_bytes(hashlib.sha256(path.encode(errors="surrogateescape")).digest()[:8]) % of + 1


class _Driver:
    """Hands clips to a pool, and writes down how they end."""

    def __init__(
        self, manifest: Manifest, callbacks: Callbacks, overwrite: bool, fail_fast: bool, fallback_size: int | None
    ) -> None:
        self._manifest, self._callbacks = manifest, callbacks
        self._overwrite, self._fail_fast, self._fallback = overwrite, fail_fast, fallback_size
        self._waiting: deque[tuple[Task, bool]] = deque()
        self._attempts: dict[str, int] = {}
        self._keys: dict[str, str] = {}
        self._moved: dict[str, int] = {}
        self._done = self._total = self._starts = 0
        self._stopping = False

    def run(
        self, tasks: Sequence[Task], make: Callable[[Path], Pool], outline: Outline, removed: Iterable[Result]
    ) -> Iterator[Result]:
        with self._manifest.locked(outline, self._overwrite) as since:
            done = self._finished(tasks, since)
            yield from (replace(result, attempts=0) for result in (*removed, *done.values()))
            left = [task for task in tasks if task.name not in done]
            self._total = sum(map(_length, tasks))
            self._done = self._total - sum(map(_length, left))
            # Long clips first, or the last one keeps all others waiting.
            self._waiting = deque((task, self._overwrite) for task in sorted(left, key=_length, reverse=True))
            with make(self._manifest.out) as pool:
                try:
                    while self._waiting or pool.busy:
                        yield from self._step(pool)
                except BaseException:
                    self._stop(pool)
                    while pool.busy:
                        for event in pool.events(_WAIT):
                            self._take(event)
                    raise
            if not self._stopping:
                self._manifest.end()

    def _finished(self, tasks: Sequence[Task], since: float) -> dict[str, Result]:
        """Results of tasks that were done since a time, by name, where they are neither out of date nor gone."""
        last = latest([self._manifest])

        def is_done(task: Task) -> bool:
            result = last.get(task.name)
            is_new = result is not None and result.status == Status.DONE and result.ended >= since
            return is_new and last[task.name].key == task.key() and self._manifest.has_results(task.name)

        return {task.name: last[task.name] for task in tasks if is_done(task)}

    def _step(self, pool: Pool) -> Iterator[Result]:
        """Hand out what can be, and take in what comes."""
        while self._waiting and pool.free:
            task, overwrite = self._waiting.popleft()
            self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
            self._keys.setdefault(task.name, task.key())  # of the files as they are now
            pool.submit(task, overwrite)
        for event in pool.events(_WAIT):
            result = self._take(event)
            self._callbacks.progress(self._done + sum(self._moved.values()), self._total)
            if result is not None:
                yield result
                if self._fail_fast and result.status == Status.FAILED:
                    self._stop(pool)
        if self._callbacks.cancelled():
            raise Cancelled("the batch was cancelled; the same call goes on with what is left")

    def _stop(self, pool: Pool) -> None:
        """Begin nothing more, and let the workers stop where their clips can be resumed."""
        self._stopping = True
        self._waiting.clear()
        pool.stop()

    def _take(self, event: Event) -> Result | None:
        """Follow an event; gives the result where the clip came to an end for good, which is written down first."""
        task = event.task
        if isinstance(event, Moved):
            self._moved[task.name] = max(self._moved.get(task.name, 0), min(event.done, _length(task)))
            return None
        if isinstance(event, Noted):
            self._callbacks.note(event.note.of(shown(task.name)))
            return None
        moved = self._moved.pop(task.name, None) is not None
        result = self._died(event, moved) if isinstance(event, Died) else self._ended(task, event.result)
        if result is not None and result.status != Status.STOPPED:
            self._done += _length(task)
            self._manifest.add(result)
            text = f"{shown(task.name)}: {result.message}"
            if result.status == Status.FAILED:
                self._callbacks.note(Note(Code.BATCH_FAILED, text))
            elif result.status == Status.KEPT:
                self._callbacks.note(Note(Code.BATCH_KEPT, text))
        return result

    def _ended(self, task: Task, result: Result) -> Result | None:
        size = task.arguments.get("size")
        if self._fallback is not None and (size is None or size > self._fallback) and not self._stopping:
            smaller = replace(task, arguments={**task.arguments, "size": self._fallback})
            if result.exit_code == OUT_OF_MEMORY:
                self._again(smaller, f"there was too little memory: it is tried at size {self._fallback}", True)
                return None
            if result.error == ChangedError.__name__:  # an earlier batch may have come to that, and was interrupted
                self._again(smaller, f"it is gone on with at size {self._fallback}", False)
                return None
        if result.error == ChangedError.__name__ and result.status == Status.FAILED:
            self._again(task, "what an earlier batch began was of other inputs or settings: it is begun anew", True)
            return None
        return replace(result, attempts=self._attempts[task.name], key=self._keys[task.name])

    def _died(self, event: Died, moved: bool) -> Result | None:
        task, why = event.task, event.why
        if not event.begun:
            self._attempts[task.name] -= 1
            self._starts += 1
            if self._starts > _MOST_STARTS:
                raise VostrackError(f"workers die before they begin: {why}, {self._starts} times; use fewer `jobs`")
        deaths = self._attempts[task.name]
        if deaths < _MOST_DEATHS and not self._stopping:
            # What an attempt that had begun has written is of this batch.
            self._again(task, f"{why}: it goes on in another", self._overwrite and not moved and deaths <= 1)
            return None
        message = f"{why}, {counted(deaths, 'time')}, perhaps for lack of memory: use fewer `jobs` or a smaller `size`"
        status = Status.STOPPED if self._stopping else Status.FAILED
        told: dict[str, Any] = {
            "error": "Died",
            "message": message,
            "exit_code": 1,
            "attempts": deaths,
            "row": dict(task.row),
        }
        return Result(task.name, str(task.clip), status, task.key(), ended=round(time.time(), 3), **told)

    def _again(self, task: Task, why: str, overwrite: bool) -> None:
        self._callbacks.note(Note(Code.BATCH_AGAIN, f"{shown(task.name)}: {why}"))
        self._waiting.appendleft((task, overwrite))


def _length(task: Task) -> int:
    """Frames of a clip, for order and progress."""
    return task.frames or 1
