"""How fast a run goes and what is left of it, in words."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Counts frames, or steps, of one phase of a run.

    Attributes:
        done: how many are done.
        total: how many there are; None where the clip does not say.
        calls: how often `update` was called.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now."""
        self._clock = clock
        self._start = self._said = clock()
        self._first = (0, self._start)
        self.done, self.calls = 0, 0
        self.total: int | None = None

    def update(self, done: int, total: int | None) -> None:
        """Say how many are done. The first call is where the rate is counted from: before it a model warms up."""
        if not self.calls:
            self._first = (done, self._clock())
        self.done, self.total = done, total
        self.calls += 1

    def due(self, every: float) -> bool:
        """Whether so many seconds went by since the last time that this was so, or since the beginning."""
        if (now := self._clock()) - self._said < every:
            return False
        self._said = now
        return True

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    @property
    def each(self) -> float | None:
        """Seconds for one; None before there are two calls."""
        done, since = self._first
        return (self._clock() - since) / (self.done - done) if self.done > done and self.calls > 1 else None

    @property
    def left(self) -> float | None:
        """Seconds to go, as far as it can be told."""
        return None if self.each is None or self.total is None else max(self.total - self.done, 0) * self.each

    def line(self, unit: str) -> str:
        """Done, rate and rest: "40 of 120 frames, 2.13 s a frame, about 3 min left"."""
        of = f" of {self.total}" if self.total else ""
        rate = "" if self.each is None else f", {self.each:.2f} s a {unit}"
        rest = "" if self.left is None else f", about {duration(self.left)} left"
        return f"{self.done}{of} {unit}s{rate}{rest}"


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
