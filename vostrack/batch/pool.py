"""What works on clips: the contract of processes here and of actors in a cluster, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from vostrack.batch.task import Result, Task
from vostrack.notes import Note


@dataclass(frozen=True)
class Moved:
    """So many frames of a clip are done in the phase that it is in; None where its length is not known."""

    task: Task
    done: int
    total: int | None


@dataclass(frozen=True)
class Ended:
    """A clip came to an end, good or bad."""

    task: Task
    result: Result


@dataclass(frozen=True)
class Died:
    """Whoever worked on a clip died. The clip can be begun again: it goes on from where it was.

    Attributes:
        task: the clip.
        why: it died, in words.
        begun: whether the clip was begun, and may be the cause.
    """

    task: Task
    why: str
    begun: bool = True


@dataclass(frozen=True)
class Noted:
    """What a person should know of how a clip is worked on."""

    task: Task
    note: Note


Event = Moved | Ended | Died | Noted


class Pool(Protocol):
    """Workers. Entered while it works; at the end whatever still runs is killed."""

    @property
    def free(self) -> int:
        """How many clips can be taken on."""
        ...

    @property
    def busy(self) -> int:
        """How many clips are being worked on."""
        ...

    def submit(self, task: Task, overwrite: bool) -> None:
        """Take on a clip; only where there is a free place."""
        ...

    def events(self, seconds: float) -> Iterator[Event]:
        """What happened since the last call; waits for something, but not longer than so many seconds."""
        ...

    def stop(self) -> None:
        """Ask all workers to stop at a point from which their clips can be resumed; they end with a result."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
