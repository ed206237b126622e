"""Workers in a Ray cluster, or in a small one on this machine. Paths and results travel, never frames.

An actor holds its models and works on one clip at a time; one that dies is replaced, and the driver begins its clip
again, which goes on from where it was. So Ray itself retries nothing.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vostrack import __version__
from vostrack.batch.away import Scratch
from vostrack.batch.pool import Died, Ended, Event, Moved, Noted
from vostrack.batch.task import Result, Task, run_one
from vostrack.errors import OUT_OF_MEMORY, InUseError, VostrackError, counted
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks
from vostrack.run.place import address as address_of
from vostrack.run.place import below

_ASKED_EVERY, _COUNTED_EVERY, _MOST_FAILED_STARTS = 1.0, 5.0, 5
_PATIENCE = 60.0
_OBJECT_STORE = 100 << 20
# What Ray would do by itself: report its use to its makers, warn of what a later version does, let others go first.
_OURS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}


def versions() -> dict[str, str]:
    """What must be the same everywhere, or masks may differ."""
    import torch

    return {
        "vostrack": __version__,
        "torch": torch.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


class Actor:
    """What runs elsewhere: its methods are called by Ray, `work` beside the others."""

    def __init__(self, out: Path, threads: int, scratch: Scratch) -> None:
        """Take where results go, how many threads compute, and where clips from a store lie meanwhile."""
        from vostrack.run.pipeline import Pipelines

        self._out, self._threads, self._scratch, self._load = out, threads, scratch, Pipelines()
        self._at = _Watched()

    def versions(self) -> tuple[str, dict[str, str]]:
        """Where it is, and what it runs on."""
        return socket.gethostname(), versions()

    def work(self, task: Task, overwrite: bool) -> tuple[Result, list[Note]]:
        """Follow a clip; gives the result, and what should be known of it."""
        import torch

        torch.set_num_threads(self._threads)  # Ray says so too, but only where the environment says nothing else
        self._at = at = _Watched()
        end = time.monotonic() + _PATIENCE
        while True:
            result = run_one(task, self._out, overwrite=overwrite, callbacks=at, load=self._load, scratch=self._scratch)
            # Whoever was at the clip before may be cut off from the cluster, and about to notice.
            if result.error != InUseError.__name__ or time.monotonic() > end or at.stopped.wait(1):
                return result, at.notes

    def moved(self) -> tuple[int, int | None] | None:
        """How far the clip is."""
        return self._at.moved

    def stop(self) -> None:
        """Stop the clip where it can be resumed."""
        self._at.stopped.set()


class _Watched(Callbacks):
    """Callbacks of a clip, which another thread looks at."""

    def __init__(self) -> None:
        self.moved: tuple[int, int | None] | None = None
        self.notes: list[Note] = []
        self.stopped = threading.Event()

    def progress(self, done: int, total: int | None) -> None:
        self.moved = done, total

    def note(self, note: Note) -> None:
        if note.code == Code.BATCH_AGAIN:  # all others are in the result
            self.notes.append(note)

    def cancelled(self) -> bool:
        return self.stopped.is_set()


@dataclass(eq=False)
class _Worker:
    """An actor, what it was called for last, and the clip that it is at."""

    actor: Any
    answer: Any
    is_ready: bool = False
    task: Task | None = None
    asked: Any = None
    asked_at: float = 0.0


class RayPool:
    """Actors in a Ray cluster, one a GPU, or one for so many CPUs; a `Pool`.

    Where Ray runs already in this process, that is used, and left as it is.
    """

    def __init__(
        self,
        out: Path,
        address: str = "auto",
        *,
        jobs: int | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """Say where to work; nothing is started yet.

        Args:
            out: folder of all results, under the same path on all machines.
            address: "local" for this machine alone, "auto" for the cluster that it is in, else of a cluster.
            jobs: how many clips at once; None for as many as there is room for, also where machines come and go.
            cpus: CPUs and threads for a clip.
            gpus: GPUs for a clip; None for one if the cluster has any.
            scratch: where clips from a store lie meanwhile, on each machine.
        """
        self._out, self._scratch = below(Path.cwd(), out), scratch or Scratch()
        self._address, self._jobs, self._cpus, self._gpus = address, jobs, cpus, gpus
        self._workers: list[_Worker] = []
        self._wanted, self._counted_at, self._failed_starts = 0, 0.0, 0
        self._stopping = False

    @property
    def free(self) -> int:
        return sum(each.is_ready and each.task is None for each in self._workers)

    @property
    def busy(self) -> int:
        return sum(each.task is not None for each in self._workers)

    def submit(self, task: Task, overwrite: bool) -> None:
        worker = next(each for each in self._workers if each.is_ready and each.task is None)
        worker.task, worker.asked_at = task, time.monotonic()
        worker.answer = worker.actor.work.remote(_anywhere(task), overwrite)

    def events(self, seconds: float) -> Iterator[Event]:
        self._grow()
        self._ask()
        waited = {ref: each for each in self._workers for ref in (each.answer, each.asked) if ref is not None}
        if not waited:
            time.sleep(seconds)
            return
        for ref in self._ray.wait([*waited], timeout=seconds)[0]:
            if waited[ref] in self._workers:
                yield from self._answered(waited[ref], ref)

    def stop(self) -> None:
        self._stopping = True
        for worker in [each for each in self._workers if each.task is None]:
            self._end(worker)
        for worker in self._workers:
            worker.actor.stop.remote()

    def __enter__(self) -> Self:
        try:
            import ray
        except ImportError as error:
            raise VostrackError(f"Ray cannot be imported ({error}): pip install 'vostrack[ray]'") from error
        self._ray: Any = ray
        with ExitStack() as joined:
            if not ray.is_initialized():
                joined.enter_context(_silent(ray._private.worker))
                joined.callback(ray.shutdown)
                self._connect()
            self._here: str = ray.get_runtime_context().get_node_id()
            self._actor: Any = ray.remote(Actor)
            joined.callback(self._end_all)
            self._grow()
            self._joined = joined.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._joined.close()

    def _connect(self) -> None:
        """Join a cluster or start one, and leave signals and environment as they are."""
        here: dict[str, Any] = {"address": self._address}
        if self._address == "local":
            cpus = max(os.cpu_count() or 1, (self._jobs or 1) * self._cpus)
            here |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        with _kept_signals(), _environment(_OURS):
            try:
                self._ray.init(**here, log_to_driver=False, configure_logging=False)
            except Exception as error:  # also of no class but this
                if self._address == "local":
                    raise VostrackError(f"Ray does not start on this machine ({_line(error)}): try again") from error
                found = "this machine is in none" if self._address == "auto" else f"{shown(self._address)} is none"
                raise VostrackError(
                    f"cannot join a Ray cluster, {found} ({_line(error)}): start one with `ray start`, or work on this "
                    "machine with the address local"
                ) from error

    def _grow(self) -> None:
        """Start actors where there is room for more; raises `VostrackError` where there is none at all."""
        if time.monotonic() - self._counted_at >= _COUNTED_EVERY:
            self._counted_at, nodes = time.monotonic(), [node for node in self._ray.nodes() if node["Alive"]]
            self._check_here(nodes)
            self._wanted = self._room([node["Resources"] for node in nodes])
        while len(self._workers) < self._wanted and not self._stopping:
            asked = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_restarts": 0, "max_concurrency": 2}
            actor = self._actor.options(**asked).remote(self._out, self._cpus, self._scratch)
            self._workers.append(_Worker(actor, actor.versions.remote()))

    def _check_here(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Raise `VostrackError` where the cluster has lost this machine: nothing would be heard of any worker again."""
        if self._here not in [node["NodeID"] for node in nodes]:
            self._workers.clear()
            raise VostrackError("Ray has ended on this machine, perhaps for lack of memory: the same call goes on")

    def _room(self, have: Sequence[Mapping[str, float]]) -> int:
        """How many actors there should be on machines with these resources."""
        if self._gpus is None:
            self._gpus = float(any(each.get("GPU") for each in have))
        if self._jobs is not None:
            return self._jobs
        wanted = [(kind, number) for kind, number in (("CPU", self._cpus), ("GPU", self._gpus)) if number]
        room = sum(int(min(each.get(kind, 0) // number for kind, number in wanted)) for each in have)
        if not (room or self._workers):
            each = f"{counted(self._cpus, 'CPU')} and {self._gpus:g} GPUs" if self._gpus else f"{self._cpus} CPUs"
            raise VostrackError(f"no machine of the cluster has the {each} that a clip is to get: ask for less")
        return room

    def _ask(self) -> None:
        """Ask actors how far they are, where the last answer is a while ago."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.task is not None and worker.asked is None and now - worker.asked_at >= _ASKED_EVERY:
                worker.asked, worker.asked_at = worker.actor.moved.remote(), now

    def _answered(self, worker: _Worker, ref: Any) -> Iterator[Event]:
        """What an actor has said, or that it is dead."""
        task = worker.task
        try:
            said = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._end(worker)
            if task is not None:
                yield Died(task, f"its process ended ({_line(error)})")
            elif not worker.is_ready:
                self._failed_start(error)
            return
        if ref == worker.asked:
            worker.asked = None
            if task is not None and said is not None:
                yield Moved(task, *said)
        elif not worker.is_ready:
            _check_versions(*said)
            worker.is_ready, worker.answer, self._failed_starts = True, None, 0
        elif task is not None:
            result, notes = said
            worker.task = worker.answer = None
            if result.exit_code == OUT_OF_MEMORY:  # memory of a device comes back with a new process
                self._end(worker)
            yield from (Noted(task, note) for note in notes)
            yield Ended(task, replace(result, clip=address_of(task.clip) or str(task.clip), key=task.key()))

    def _failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _MOST_FAILED_STARTS or "ModuleNotFoundError" in str(error):
            raise VostrackError(
                f"workers of the cluster do not start ({_line(error)}): install vostrack {__version__} on every machine"
            ) from error

    def _end_all(self) -> None:
        for worker in [*self._workers]:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)


def _check_versions(host: str, theirs: Mapping[str, str]) -> None:
    ours = versions()
    if differ := [name for name in ours if ours[name] != theirs.get(name)]:
        raise VostrackError(
            f"{shown(host)} has {differ[0]} {shown(theirs.get(differ[0]))}, and here is {ours[differ[0]]}: install "
            "the same on every machine, or masks may differ"
        )


def _anywhere(task: Task) -> Task:
    """A task whose paths hold in any working directory."""
    here, arguments, weights = Path.cwd(), dict(task.arguments), task.arguments.get("weights")
    if weights is not None and os.path.isfile(weights):
        arguments["weights"] = os.path.abspath(weights)
    masks = {moment: below(here, mask) for moment, mask in task.masks.items()}
    return replace(task, clip=below(here, task.clip), masks=masks, arguments=arguments)


def _line(error: Exception) -> str:
    """What an error of Ray says of its cause, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.partition(". ")[0] for line in lines if "because" in line]
    # Where an actor did not start, the last line has the error.
    line = causes[0] if causes and "creation task" not in causes[0] else [*lines, type(error).__name__][-1]
    return shown(line[:200])


@contextmanager
def _silent(worker: Any) -> Iterator[None]:
    """Keep Ray from telling what happens to workers, on stdout, for which it has no option; and from its hints."""
    named, logger = "_worker_logs_enabled", logging.getLogger("ray")
    prints, level = getattr(worker, named, None), logger.level
    logger.setLevel(logging.ERROR)
    if prints is not None:
        setattr(worker, named, False)
    try:
        yield
    finally:
        logger.setLevel(level)
        if prints is not None:
            setattr(worker, named, prints)


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Leave SIGTERM to whoever has it: Ray would take it."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, for processes that are started in the block."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update({name: value for name, value in more.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
