"""Predictions on their way through filters, which may hold some back, with pauses in which nothing is under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from vostrack.types import Prediction
from vostrack.video.stream import Prefetch


class Filter(Protocol):
    """Takes predictions and gives predictions; entered before use.

    Attributes:
        seconds: time spent at work, in whichever thread.
    """

    seconds: float

    def run(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Give a prediction for each that is taken, in order.

        It may take some before it gives the first, but gives all when there are no more to take: so a caller empties
        the chain by ending what it feeds in. It goes on with the next call.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FilterChain:
    """Sends predictions through filters, and pauses to save where they stand: every so often, and when `tell` raises.

    Attributes:
        seconds: time spent to make the predictions that go in, but for waiting for frames.
    """

    def __init__(
        self,
        frames: Prefetch,
        tell: Callable[[int, int | None], None],
        save: Callable[[], None],
        every: float,
    ) -> None:
        """Take what saves, and after how many seconds."""
        self.seconds = 0.0
        self._frames, self._tell, self._save, self._every = frames, tell, save, every
        self._done = False  # there are no more predictions
        self._stop: BaseException | None = None  # what `tell` raised

    def through(self, predictions: Iterator[Prediction], filters: tuple[Filter, ...]) -> Iterator[Prediction]:
        """Predictions after all filters; raises what `tell` raised, once all is through and saved."""
        while not self._done:
            results: Iterator[Prediction] = self._until_save(predictions)
            for link in filters:
                results = link.run(results)
            for prediction in results:
                yield prediction
                self._report(prediction.index)
            # Only here is the state sure to be whole, and all that was predicted up to it through.
            if self._stop is not None or not self._done:
                self._save()
            if self._stop is not None:
                raise self._stop

    def _until_save(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Predictions until it is time to save, or to stop, or there are no more."""
        end = time.monotonic() + self._every
        while self._stop is None:
            start, waited = time.perf_counter(), self._frames.waited
            prediction = next(predictions, None)
            if prediction is None:
                self._done = True
                return
            self.seconds += time.perf_counter() - start - (self._frames.waited - waited)
            yield prediction
            if time.monotonic() > end:
                return

    def _report(self, index: int) -> None:
        if self._stop is not None:
            return
        try:
            self._tell(abs(index - self._frames.first) + 1, self._frames.count)
        except BaseException as error:
            self._stop = error
