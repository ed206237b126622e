"""The only loop over time: frames and given masks in, a prediction for each frame out.

`Propagator.run` is a generator. Progress bars, writers, timers, early stops and interruptions belong to whoever
iterates; memory is that of the method's state and one frame, however long the clip is. Knows nothing of files and
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vostrack.errors import MaskError
from vostrack.methods import WORKING_SIZE
from vostrack.methods.base import Method, Resizing, Shrinking, Stepping
from vostrack.ops.grid import at_most, resize, size_of
from vostrack.ops.labels import correct, one_hot, resize_labels, strongest, without_void
from vostrack.types import BACKGROUND, VOID, Clip, Frame, LabelMap, Prediction


@dataclass(frozen=True)
class EnginePosition:
    """Where a run stands: enough to go on after its last frame.

    Attributes:
        state: the method's state, or None before the first mask.
        ids: object ids in channel order.
        next_frame: index of the first frame that is not done.
    """

    state: Any = None
    ids: tuple[int, ...] = ()
    next_frame: int = 0


def check_prompts(prompts: Mapping[int, LabelMap], count: int | None = None) -> None:
    """Raise `MaskError` where there is no mask, one for a frame that is not there, or an id unlisted."""
    if not prompts:
        raise MaskError("no mask was given: at least one frame needs one")
    if min(prompts) < 0:
        raise MaskError(f"there is a mask for frame {min(prompts)}, but frames count from 0")
    for index, given in prompts.items():
        unlisted = set(torch.unique(given.pixels).tolist()) - {BACKGROUND, VOID, *given.ids}
        if unlisted:
            raise MaskError(f"the mask of frame {index} holds {min(unlisted)}, which is not among its ids {given.ids}")
    if count is not None and max(prompts) >= count:
        raise MaskError(f"there is a mask for frame {max(prompts)}, but the clip ends with frame {count - 1}")


def known_ids(prompts: Mapping[int, LabelMap], index: int) -> tuple[int, ...]:
    """Object ids in channel order that the masks up to a frame name."""
    return tuple(dict.fromkeys(i for at, given in sorted(prompts.items()) if at <= index for i in given.ids))


class Propagator:
    """Runs a method over a clip."""

    def __init__(
        self,
        method: Method[Any] | Stepping,
        size: int | None = WORKING_SIZE.default,
        device: torch.device | str = "cpu",
        keep_probs: bool = False,
        position: EnginePosition | None = None,
        feedback: Callable[[Prediction], Prediction] | None = None,
    ) -> None:
        """Prepare a run over one clip.

        Args:
            method: with its network on `device`.
            size: short side of the working resolution in pixels; None for that of the source. Never enlarges, unless
                the method wants another size.
            device: where the method computes.
            keep_probs: whether predictions carry probabilities.
            position: where an earlier run of the same clip stopped; the clip's frames then start there.
            feedback: changes each prediction that no mask was given for; takes and gives probabilities. The method,
                a `base.Shrinking` one, goes on with what it gives.
        """
        self.method = method
        self.size: int | None = WORKING_SIZE.checked(size)
        self.device = torch.device(device)
        self.keep_probs = keep_probs
        self.position = position or EnginePosition()
        self._feedback = feedback

    def run(self, clip: Clip) -> Iterator[Prediction]:
        """Propagate.

        Frames before the first mask get empty label maps. After each yield, `position` says where the run stands.

        Args:
            clip: frames and masks.

        Yields:
            A prediction for each frame, at the source's size, in order.

        Raises:
            MaskError: no mask was given, or one of another size, or one for a frame that the clip does not have.
            InputError: from the frames.
        """
        check_prompts(clip.prompts)
        for frame in clip.frames:
            yield self._step(frame, clip.prompts.get(frame.index))
        check_prompts(clip.prompts, self.position.next_frame)

    def _step(self, frame: Frame, given: LabelMap | None) -> Prediction:
        # no_grad rather than inference_mode: tensors made in the latter cannot enter the gradient scope of adaptation.
        with torch.no_grad():
            image = self._working(frame.image)
            position = self.position
            if position.state is None and given is None:
                self.position = EnginePosition(None, (), frame.index + 1)
                nothing = LabelMap(torch.zeros(frame.image.shape[1:], dtype=torch.uint8), ())
                return Prediction(frame, nothing, torch.ones_like(image[:1]).cpu() if self.keep_probs else None)
            if isinstance(self.method, Stepping):
                return self._whole_step(self.method, frame, image, given)
            wanted = self.keep_probs or self._feedback is not None
            features = self.method.encode(image)
            if position.state is None:
                assert given is not None
                return self._take(frame, features, image, given, None)
            cells = self.method.predict(position.state, features)
            probs = self.method.enlarge(cells, image)
            pixels = strongest(probs, position.ids, (frame.image.shape[1], frame.image.shape[2]))
            if given is not None:
                return self._take(frame, features, image, given, pixels)
            prediction = Prediction(frame, LabelMap(pixels, position.ids), probs.cpu() if wanted else None)
            if self._feedback:
                prediction = self._feedback(prediction)
                cells = self._corrected(cells, prediction, size_of(image))
            state = self.method.remember(position.state, features, cells)
            self.position = EnginePosition(state, position.ids, frame.index + 1)
            return prediction if self.keep_probs else replace(prediction, probs=None)

    def _whole_step(self, method: Stepping, frame: Frame, image: Tensor, given: LabelMap | None) -> Prediction:
        """A frame through a method that does all in one step."""
        ids, said = self.position.ids, None
        if given is not None:
            ids = self._ids_with(given, frame)
            said = LabelMap(resize_labels(given.pixels, size_of(image)).to(self.device), given.ids)
        state, probs = method.step(image, said, self.position.state)
        pixels = strongest(probs, ids, (frame.image.shape[1], frame.image.shape[2]))
        if given is not None:
            pixels = without_void(correct(pixels, given.pixels, given.ids))
        self.position = EnginePosition(state, ids, frame.index + 1)
        return Prediction(frame, LabelMap(pixels, ids), probs.cpu() if self.keep_probs else None)

    def _corrected(self, cells: Tensor, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Probabilities of cells (K, h, w): those of a prediction where it has another label, elsewhere as they are.

        A method may read more from its own than how probable a label is, such as which cells it removed.
        """
        assert isinstance(self.method, Shrinking)
        assert prediction.probs is not None
        pixels = resize(prediction.probs.to(cells.device)[None], size, antialias=True)[0]
        fed = self.method.shrink(pixels)
        return torch.where(fed.argmax(0) == cells.argmax(0), cells, fed)

    def _take(
        self, frame: Frame, features: Tensor, image: Tensor, given: LabelMap, predicted: Tensor | None
    ) -> Prediction:
        """A frame with a given mask: its objects are what the mask says, the others stay as predicted."""
        ids = self._ids_with(given, frame)
        if predicted is None:
            pixels = without_void(given.pixels)
        else:
            pixels = without_void(correct(predicted, given.pixels, given.ids))
        small = resize_labels(pixels, (image.shape[1], image.shape[2])).to(self.device)
        labels = one_hot(small, ids)
        assert not isinstance(self.method, Stepping)
        state = self.method.begin(features, labels, self.position.state)
        self.position = EnginePosition(state, ids, frame.index + 1)
        return Prediction(frame, LabelMap(pixels, ids), labels.cpu() if self.keep_probs else None)

    def _ids_with(self, given: LabelMap, frame: Frame) -> tuple[int, ...]:
        """All ids once a frame's mask is known; raises `MaskError` where that is of another size than the frame."""
        if given.pixels.shape != frame.image.shape[1:]:
            size, wanted = list(given.size), list(frame.image.shape[1:])
            raise MaskError(f"the mask for frame {frame.index} has size {size}, but the frame has {wanted} (H, W)")
        known = self.position.ids
        return (*known, *(i for i in given.ids if i not in known))

    def working_size(self, source: tuple[int, int]) -> tuple[int, int]:
        """Size (H, W) at which the method sees frames of a source's size, and that probabilities have."""
        if isinstance(self.method, Resizing):
            return self.method.working_size(source, self.size)
        return at_most(source, self.size)

    def _working(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) -> float (3, H', W') in [0, 1] on the device, of the working size."""
        pixels = image.to(self.device).float() / 255
        source = (int(image.shape[1]), int(image.shape[2]))
        size = self.working_size(source)
        return pixels if size == source else resize(pixels[None], size, antialias=True)[0].clamp(0, 1)
