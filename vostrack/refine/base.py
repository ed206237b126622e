"""What a refinement is, and the filter that runs one beside the model.

Knows nothing of methods and files.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vostrack.ops.grid import at_most, resize, resize_image, size_of
from vostrack.ops.labels import strongest
from vostrack.types import LabelMap, Prediction


class Refiner(Protocol):
    """Improves the masks of single frames. Enter it before use; leaving it, at any time, ends what it has under way.

    Attributes:
        size: short side at which it works, in pixels, where the source has that many.
        feedback: whether the method goes on with the refined masks.
    """

    @property
    def size(self) -> int: ...

    @property
    def feedback(self) -> bool: ...

    def record(self) -> dict[str, Any]:
        """All that decides its results, as JSON holds it."""
        ...

    def refine(self, image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refine one frame. The result depends on nothing but the arguments.

        Args:
            image: (3, H, W), RGB.
            probs: (K, H, W), at least 0, summing to 1 over K.

        Returns:
            (K, H, W), at least 0, summing to 1 over K.

        Raises:
            VostrackError: it failed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


MAX_WAITING = 3
"""Predictions that may wait for their refinement."""


class RefineFilter:
    """Refines predictions in a thread, while whoever makes them goes on with the next ones.

    Differs: Refined masks are results, and the method does not see them. So it need not wait for them, and does the
        same with and without a refinement. Where it shall go on with them, the engine calls `refined`.

    Attributes:
        seconds: time spent refining.
    """

    def __init__(self, refiner: Refiner, given: Container[int], keep_probs: bool = False) -> None:
        """Prepare a filter.

        Args:
            refiner: not yet entered; the filter enters and leaves it.
            given: indices of the frames whose mask was given; their predictions stay as they are.
            keep_probs: whether the results carry probabilities.
        """
        self.seconds = 0.0
        self._refiner, self._given, self._keep_probs = refiner, given, keep_probs
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vostrack-refiner")

    def run(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Refine.

        Args:
            predictions: with probabilities.

        Yields:
            The refined prediction of each, in order.

        Raises:
            VostrackError: the refiner failed.
        """
        waiting: deque[Future[Prediction]] = deque()
        for prediction in predictions:
            waiting.append(self._pool.submit(self.refined, prediction))
            while waiting and (len(waiting) > MAX_WAITING or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def refined(self, prediction: Prediction) -> Prediction:
        """One prediction, refined in the caller's thread; errors as for `run`."""
        start = time.perf_counter()
        if prediction.probs is None:
            raise ValueError("a refinement needs predictions that carry probabilities")
        image, ids = prediction.frame.image, prediction.labels.ids
        source = size_of(image)
        size = working_size(source, size_of(prediction.probs), self._refiner.size)
        labels, probs = prediction.labels, resize(prediction.probs[None], size, antialias=True)[0]
        if ids and prediction.frame.index not in self._given:
            probs = torch.from_numpy(self._refiner.refine(resize_image(image, size).numpy(), probs.numpy()))
            labels = LabelMap(strongest(probs, ids, source), ids)
        self.seconds += time.perf_counter() - start
        return Prediction(prediction.frame, labels, probs if self._keep_probs else None)

    def __enter__(self) -> Self:
        self._refiner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._refiner.__exit__(*error)  # what the thread is at ends with it
        self._pool.shutdown()


def working_size(source: tuple[int, int], predicted: tuple[int, int], side: int) -> tuple[int, int]:
    """Size (H, W) at which to refine.

    The source's, since there the edges are sharpest, but with a short side of at most `side` pixels, since each pixel
    costs. Where the method worked at a higher resolution than that, its own: a refinement must not coarsen.

    Args:
        source: (H, W) of the frame.
        predicted: (H, W) of the probabilities, at most those.
        side: in pixels.
    """
    return predicted if min(predicted) >= side and min(source) > side else at_most(source, side)
