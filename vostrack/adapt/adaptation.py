"""Online adaptation: a network learns from the masks of a clip what its objects look like, and its masks are final.

Any method's masks drift where things come into view that no earlier frame shows. A network that sees each frame by
itself learns what most masks agree on before it learns their errors. It knows nothing of the method, nor the method of
it: it takes `Prediction`s and gives `Prediction`s.

Two passes: `watch` collects training frames from the method's predictions, `train` learns from them, and `apply`
segments the frames, which are decoded again. Live: `live` learns while predictions come in, and never looks ahead.
Between any two calls and between the steps of `train`, `state` is whole: an `Adaptation` made with a saved one goes on
with the same bytes.

Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 3.3, Eq. 9.
Differs: The paper trains one network for each frame on all frames before, or one for all; it is not clear which.
    The two-pass form is the latter. The live form is ours, and so is the treatment of objects that are named later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from vostrack.adapt.config import PRESETS, AdaptConfig
from vostrack.adapt.frames import TrainingFrames, extend
from vostrack.adapt.model import AppearanceModel, ModelState
from vostrack.device import has_fast_bfloat16
from vostrack.methods import Direction
from vostrack.ops.grid import resize, size_of
from vostrack.ops.labels import correct, one_hot, resize_labels, strongest, without_void
from vostrack.propagate import known_ids
from vostrack.types import Frame, LabelMap, Prediction


@dataclass(frozen=True)
class AdaptState:
    """Where an adaptation stands; `vostrack.run.state` saves it.

    Attributes:
        frames: what it learns from.
        model: what it has learned, or None before the first step.
    """

    frames: TrainingFrames
    model: ModelState | None = None


class Adaptation:
    """The adaptation of one clip, in either form."""

    def __init__(
        self,
        prompts: Mapping[int, LabelMap],
        config: AdaptConfig = PRESETS["default"],
        device: torch.device | str = "cpu",
        state: AdaptState | None = None,
        direction: Direction = Direction.FORWARD,
    ) -> None:
        """Prepare the adaptation of a clip.

        Args:
            prompts: the masks that were given, by frame, as the method got them.
            config: settings.
            device: where the network learns.
            state: where an earlier run stopped, with the same settings and masks.
            direction: which way the objects are followed.

        Raises:
            OutputError: the state is that of another network.
        """
        self.prompts, self.config, self.device, self._direction = prompts, config, torch.device(device), direction
        state = state or AdaptState(TrainingFrames())
        self._frames, learned = state.frames, state.model
        self._model = AppearanceModel(config, learned.count, self.device, learned) if learned else None

    @property
    def state(self) -> AdaptState:
        """Where the adaptation stands; it shares memory with the network, so save it before going on."""
        return AdaptState(self._frames, None if self._model is None else self._model.state)

    @property
    def steps(self) -> int:
        """Steps that the network was trained for."""
        return self._model.steps if self._model else 0

    def watch(self, prediction: Prediction) -> Prediction:
        """First pass: learn nothing yet, but remember some of the frames.

        Args:
            prediction: of the method, for the next frame.

        Returns:
            The prediction as it is.
        """
        index = prediction.index
        age = min((abs(at - index) for at in self.prompts if self._followed(at, index)), default=0)
        self._frames = extend(self._frames, prediction, self.prompts.get(index), self.config, age)
        return prediction

    def _followed(self, at: int, index: int) -> bool:
        """Whether a frame is followed from one whose mask was given."""
        return at != index and self._direction in (
            Direction.BOTH,
            Direction.FORWARD if at < index else Direction.BACKWARD,
        )

    def train(self) -> Iterator[float]:
        """Between the passes: train until `iterations` steps are done.

        Yields:
            The loss of each step.
        """
        if not self._frames.ids:
            return
        model = self._grown()
        while model.steps < self.config.iterations:
            yield model.step(self._frames)

    def apply(self, frame: Frame, probs_size: tuple[int, int] | None = None) -> Prediction:
        """Second pass: the final mask of a frame, whichever came before.

        Args:
            frame: of the clip.
            probs_size: (H, W) of the probabilities that the prediction carries, or None for none.

        Returns:
            The prediction. Before the first mask it is empty. Objects appear with the first mask that names them. Where
            a mask was given, its objects are what it says.
        """
        return self._predict(frame, known_ids(self.prompts, frame.index, self._direction), probs_size)

    def live(self, prediction: Prediction) -> Prediction:
        """One pass: learn from the frames so far, and segment this one if enough was learned.

        Args:
            prediction: of the method, for the next frame.

        Returns:
            The adapted one, as `apply` gives it, with probabilities where `prediction` has some; while the network is
            new, or an object is new to it, `prediction` itself.
        """
        self.watch(prediction)
        ids, probs = prediction.labels.ids, prediction.probs
        if not ids:
            return prediction
        model = self._grown()
        if model.since_growth < self.config.iterations or prediction.frame.index % self.config.live_every == 0:
            for _ in range(self.config.live_steps):
                model.step(self._frames)
        if model.since_growth < self.config.live_warm_up:
            return prediction
        return self._predict(prediction.frame, ids, None if probs is None else size_of(probs))

    def _grown(self) -> AppearanceModel:
        """The network, with a channel for each object that is known."""
        count = len(self._frames.ids) + 1
        if self._model is None:
            self._model = AppearanceModel(self.config, count, self.device)
        if self._model.count < count:
            self._model.grow(count)
        return self._model

    def _predict(self, frame: Frame, ids: tuple[int, ...], probs_size: tuple[int, int] | None) -> Prediction:
        size = size_of(frame.image)
        if not ids:
            nothing = LabelMap(torch.zeros(size, dtype=torch.uint8), ())
            return Prediction(frame, nothing, None if probs_size is None else torch.ones(1, *probs_size))
        assert self._model is not None, "train before you apply"
        probs = known_channels(self._model.probs(frame.image), len(ids) + 1)
        pixels = strongest(probs, ids, size)
        given = self.prompts.get(frame.index)
        if given is not None:
            pixels = without_void(correct(pixels, given.pixels, given.ids))
        if probs_size is None:
            return Prediction(frame, LabelMap(pixels, ids))
        probs = resize(probs[None], probs_size)[0] if given is None else one_hot(resize_labels(pixels, probs_size), ids)
        return Prediction(frame, LabelMap(pixels, ids), probs)


class AdaptFilter:
    """`Adaptation.watch` or `Adaptation.live` as a link in the chain from the engine to the writers.

    It holds nothing back: when it has given a prediction, the adaptation stands behind that frame.

    Attributes:
        seconds: time spent at work.
    """

    def __init__(self, work: Callable[[Prediction], Prediction]) -> None:
        """A filter that does the work on each prediction."""
        self.seconds = 0.0
        self._work = work

    def run(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Give what the work makes of each prediction, in order."""
        for prediction in predictions:
            start = time.perf_counter()
            result = self._work(prediction)
            self.seconds += time.perf_counter() - start
            yield result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def adaptation_record(form: str, config: AdaptConfig, device: torch.device) -> dict[str, Any]:
    """All that decides what an adaptation makes of a clip, as JSON holds it."""
    return {"form": form, **asdict(config), "bfloat16": has_fast_bfloat16(device)}


def known_channels(probs: Tensor, known: int) -> Tensor:
    """Probabilities before later objects were named: what belongs to them is background.

    Args:
        probs: (K, h, w).
        known: K' <= K.

    Returns:
        (K', h, w), summing to 1 over K' if `probs` does over K.
    """
    return torch.cat((probs[:1] + probs[known:].sum(0, keepdim=True), probs[1:known]))
