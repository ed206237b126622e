"""Processes on this machine, each with models that stay loaded. One that dies is replaced, and its clip is told."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from vostrack.batch.away import Scratch
from vostrack.batch.pool import Died, Ended, Event, Moved, Noted
from vostrack.batch.task import Result, Task, run_one
from vostrack.errors import OUT_OF_MEMORY
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks
from vostrack.run.worker import Pipe, follow_parent

_SAID_EVERY, _STOP, _BEGUN = 0.2, "stop", "begun"


@dataclass(eq=False)
class _Worker:
    """A process, and the clip that it is at."""

    process: BaseProcess
    pipe: Pipe
    number: int
    task: Task | None = None
    begun: bool = False

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class LocalPool:
    """Workers that are spawned: with this, the caller stands under `if __name__ == "__main__"`; a `Pool`."""

    def __init__(self, out: Path, jobs: int, scratch: Scratch | None = None) -> None:
        """Say where results go, how many processes work, and where clips from a store lie meanwhile."""
        self._out, self._jobs, self._scratch = out, jobs, scratch or Scratch()
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    @property
    def free(self) -> int:
        return self._jobs - self.busy

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def submit(self, task: Task, overwrite: bool) -> None:
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            worker = self._spawn()
        worker.task, worker.begun = task, False
        with suppress(OSError):  # it may have died while it was idle: `events` will see that
            worker.pipe.send((task, overwrite))

    def events(self, seconds: float) -> Iterator[Event]:
        ready = wait([end for each in self._workers for end in (each.pipe, each.process.sentinel)], seconds)
        for worker in [each for each in self._workers if each.pipe in ready or each.process.sentinel in ready]:
            yield from self._heard(worker)

    def stop(self) -> None:
        for worker in self._workers:
            if worker.task is not None:
                with suppress(OSError):
                    worker.pipe.send(_STOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        taken = {worker.number for worker in self._workers}
        number = next(number for number in count() if number not in taken)  # of a GPU: that of the one that died
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._out, self._jobs, number, self._scratch),
            name=f"vostrack-worker-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours, number)
        self._workers.append(worker)
        return worker

    def _heard(self, worker: _Worker) -> Iterator[Event]:
        """What a worker has said, and whether it is dead."""
        is_dead = not worker.process.is_alive()  # asked first: what it said before it died is in the pipe by now
        try:
            while worker.pipe.poll():
                said = worker.pipe.recv()
                task = worker.task
                assert task is not None
                worker.begun = True
                if isinstance(said, Result):
                    worker.task = None
                    is_dead |= said.exit_code == OUT_OF_MEMORY  # memory of a device comes back with a new process
                    yield Ended(task, said)
                elif isinstance(said, Note):
                    yield Noted(task, said)
                elif said != _BEGUN:
                    yield Moved(task, *said)
        except (EOFError, OSError):
            is_dead = True
        if is_dead:
            worker.end()
            self._workers.remove(worker)
            if worker.task is not None:
                why = f"its process ended with {worker.process.exitcode}"
                yield Died(worker.task, why, worker.begun)


class _Piped(Callbacks):
    """Callbacks of a worker, which tell the parent."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._said = pipe, 0.0

    def progress(self, done: int, total: int | None) -> None:
        if (now := time.monotonic()) - self._said >= _SAID_EVERY:
            self._said = now
            self._pipe.send((done, total))

    def note(self, note: Note) -> None:
        if note.code == Code.BATCH_AGAIN:  # all others are in the result
            self._pipe.send(note)

    def cancelled(self) -> bool:
        return self._pipe.poll() and self._pipe.recv() == _STOP


def _serve(pipe: Pipe, out: Path, jobs: int, number: int, scratch: Scratch) -> None:
    """What a worker does: one clip after the other, until the pipe is closed."""
    follow_parent()
    import torch

    from vostrack.run.pipeline import Pipelines

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
    load = Pipelines()
    try:
        while True:
            said = pipe.recv()
            if said != _STOP:  # one that came too late to stop anything
                task, overwrite = said
                pipe.send(_BEGUN)
                result = run_one(task, out, overwrite=overwrite, callbacks=_Piped(pipe), load=load, scratch=scratch)
                pipe.send(result)
    except (EOFError, OSError):
        os._exit(0)
