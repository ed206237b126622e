"""The only loop over time: frames and given masks in, a prediction for each frame out.

`Propagator.run` is a generator. Progress bars, writers, timers, early stops and interruptions belong to whoever
iterates; memory is that of the method's state and one frame, however long the clip is. Knows nothing of files and
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vostrack.errors import MaskError
from vostrack.methods import WORKING_SIZE, Direction
from vostrack.methods.base import Forgetting, Hiding, Method, Noticing, Resizing, Shrinking, Stepping, Windowing
from vostrack.ops.eight_bits import from_codes, to_codes
from vostrack.ops.grid import at_most, cells, resize, size_of
from vostrack.ops.labels import correct, one_hot, resize_labels, strongest, without_void
from vostrack.types import BACKGROUND, VOID, Clip, Frame, LabelMap, Prediction
from vostrack.video.ranges import beyond, is_gone


@dataclass(frozen=True)
class EnginePosition:
    """Where a pass over a clip stands: enough to go on after its last frame.

    Attributes:
        state: the method's state, or None before the first mask.
        ids: object ids in channel order.
        done: frames that are done, from the first that the pass sees.
    """

    state: Any = None
    ids: tuple[int, ...] = ()
    done: int = 0


class Keep(Protocol):
    """Takes what a pass says of the cells of a frame."""

    def __call__(self, index: int, codes: Tensor, ids: tuple[int, ...], hidden: tuple[int, ...]) -> None:
        """Keep codes (`ops.eight_bits`), uint8 (K, h, w), of a frame, with ids of channels and of what is hidden."""
        ...


class Said(NamedTuple):
    """What a pass says of a frame.

    Attributes:
        cells: their probabilities (K, h, w).
        ids: of the channels.
        hidden: those that are out of sight, since what is taken for them is something else.
    """

    cells: Tensor
    ids: tuple[int, ...]
    hidden: tuple[int, ...] = ()

    @property
    def visible(self) -> Tensor:
        """Probabilities (K, h, w) of what is in sight; the method goes on with all of them."""
        return _without(self.cells, self.ids, self.hidden)


@dataclass(frozen=True)
class Reuse:
    """What an earlier pass over the same frames has said, as far as it holds.

    Attributes:
        ahead: frames from one that is given to the first for which nothing that was said holds, 0 or less where that
            is reached; None where a mask is given first.
        said: what was predicted for a frame; None where nothing was, or it does not hold.
        result: the final prediction of a frame, where nothing can have changed it; None elsewhere.
        is_over: whether neither a frame nor those that come after it are needed of the pass.
    """

    ahead: Callable[[int], int | None]
    said: Callable[[int], Said | None]
    result: Callable[[Frame], Prediction | None] = lambda frame: None
    is_over: Callable[[int], bool] = lambda index: False


class Merged(NamedTuple):
    """Probabilities of cells (K, h, w), the ids of their channels, and by id how well two passes agree, in [0, 1]."""

    cells: Tensor
    ids: tuple[int, ...]
    agreement: Mapping[int, float] | None = None


class Merge(Protocol):
    """Adds what another pass said of a frame, from the other side."""

    def __call__(self, index: int, said: Said | None) -> Merged | None:
        """What this pass says of a frame, or nothing, to what both say; None for neither."""
        ...


def check_prompts(prompts: Mapping[int, LabelMap], count: int | None = None, files: Sequence[str] = ()) -> None:
    """Raise `MaskError` where there is no mask, one for a frame that is not there, or an id unlisted.

    Args:
        prompts: masks by frame.
        count: number of frames; None if it is not known.
        files: names of the files that frames are, for messages.
    """
    if not prompts:
        raise MaskError("no mask was given: at least one frame needs one")
    if min(prompts) < 0:
        raise MaskError(f"there is a mask for frame {min(prompts)}, but frames count from 0")
    for index, given in prompts.items():
        unlisted = set(torch.unique(given.pixels).tolist()) - {BACKGROUND, VOID, *given.ids}
        if unlisted:
            raise MaskError(f"the mask of frame {index} holds {min(unlisted)}, which is not among its ids {given.ids}")
    if count is not None and max(prompts) >= count:
        last = max(prompts)
        raise MaskError(beyond(f"there is a mask for frame {last}", last, count, files))


def known_ids(prompts: Mapping[int, LabelMap], index: int, direction: Direction) -> tuple[int, ...]:
    """Object ids, in channel order, that are followed at a frame: those of masks up to it, from it on, or of all."""
    back = direction is Direction.BACKWARD
    named = [
        given.ids
        for at, given in sorted(prompts.items(), reverse=back)
        if direction is Direction.BOTH or (at >= index if back else at <= index)
    ]
    return tuple(dict.fromkeys(i for ids in named for i in ids))


Gone = Mapping[int, Sequence[tuple[int, int | None]]]
"""By object id, the frames from the first to the last in which it is not there; None for the end of the clip."""


def gone_at(gone: Gone, index: int) -> tuple[int, ...]:
    """Ids of the objects that are said not to be there at a frame."""
    return tuple(
        i
        for i, spans in gone.items()
        if any(first <= index and (last is None or index <= last) for first, last in spans)
    )


def check_gone(
    gone: Gone, prompts: Mapping[int, LabelMap], count: int | None = None, files: Sequence[str] = ()
) -> None:
    """Raise `MaskError` where an object is not known, where frames are none, or where a mask shows a gone object.

    Arguments are those of `check_prompts`.
    """
    ids = known_ids(prompts, 0, Direction.BOTH)
    for number, spans in gone.items():
        if number not in ids:
            raise MaskError(f"object {number} cannot be gone: the masks have the objects {', '.join(map(str, ids))}")
        for first, last in spans:
            if first < 0 or (last is not None and last < first):
                raise MaskError(
                    f"object {number} cannot be gone from frame {first} to frame {last}: give the first first"
                )
            if count is not None and max(first, last or 0) >= count:
                raise MaskError(beyond(is_gone(number, first, last), max(first, last or 0), count, files))
    for index, given in prompts.items():
        shown = set(gone_at(gone, index)) & set(torch.unique(given.pixels).tolist())
        if shown:
            raise MaskError(
                f"object {min(shown)} is said to be gone at frame {index}, and the mask of that frame shows it"
            )


def cleared(prediction: Prediction, gone: Gone) -> Prediction:
    """A prediction without the objects that are gone."""
    ids = gone_at(gone, prediction.index)
    if not ids:
        return prediction
    pixels, probs = prediction.labels.pixels, prediction.probs
    pixels = torch.where(torch.isin(pixels, torch.tensor(ids, dtype=torch.uint8)), BACKGROUND, pixels).to(torch.uint8)
    probs = None if probs is None else _without(probs, prediction.ids, ids)
    return replace(prediction, labels=LabelMap(pixels, prediction.ids), probs=probs)


class Propagator:
    """Runs a method over a clip, in the order in which its frames come."""

    def __init__(
        self,
        method: Method[Any] | Stepping,
        size: int | None = WORKING_SIZE.default,
        device: torch.device | str = "cpu",
        keep_probs: bool = False,
        position: EnginePosition | None = None,
        feedback: Callable[[Prediction], Prediction] | None = None,
        gone: Gone | None = None,
        keep: Keep | None = None,
        merge: Merge | None = None,
        reuse: Reuse | None = None,
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
            gone: when objects are not there. They are in no mask then, and stay in the method's memory.
            keep: takes what was predicted of the cells of each frame, which is what the method goes on with; nothing of
                the first frame whose mask was given.
            merge: adds what another pass predicted. The method does not go on with that.
            reuse: what an earlier pass has said.
        """
        self.method = method
        self.size: int | None = WORKING_SIZE.checked(size)
        self.device = torch.device(device)
        self.keep_probs = keep_probs
        self.position = position or EnginePosition()
        self._feedback, self._gone, self._keep, self._merge = feedback, gone or {}, keep, merge
        self._reuse = reuse

    def run(self, clip: Clip, backwards: bool = False) -> Iterator[Prediction]:
        """Propagate.

        Frames before the first mask get empty label maps, or what another pass says. After each yield, `position` says
        where the run stands.

        Args:
            clip: frames and masks.
            backwards: whether the frames come from the last one whose mask was given to the first of the clip.

        Yields:
            A prediction for each frame, at the source's size, in order.

        Raises:
            MaskError: no mask was given, or one of another size, or one for a frame that the clip does not have.
            InputError: from the frames.
        """
        check_prompts(clip.prompts)
        count = self.position.done
        for frame in clip.frames:
            count = frame.index + 1
            if backwards and self._reuse and self._reuse.is_over(frame.index):
                break
            yield self._left(frame) or self._step(frame, clip.prompts.get(frame.index))
        if not backwards:
            check_prompts(clip.prompts, count)

    def replay(self, clip: Clip) -> Iterator[Prediction]:
        """What another pass said of each frame, and the masks that were given; the method sees none of the frames."""
        for frame in clip.frames:
            with torch.no_grad():
                image, given = self._working(frame.image), clip.prompts.get(frame.index)
                shown = self._shown(frame, image, None)
                if given is not None:
                    self._ids_with(given, frame)
                    shown = self._corrected_by(given, shown, image)
                self.position = replace(self.position, done=self.position.done + 1)
                yield self._refined_alike(shown)

    def _left(self, frame: Frame) -> Prediction | None:
        """The result of a frame that the method need not see, since nothing that comes needs it; else None."""
        result = self._reuse.result(frame) if self._reuse and self._reuse.is_over(frame.index) else None
        if result:
            self.position = replace(self.position, done=self.position.done + 1)
        return result

    def _step(self, frame: Frame, given: LabelMap | None) -> Prediction:
        # no_grad rather than inference_mode: tensors made in the latter cannot enter the gradient scope of adaptation.
        with torch.no_grad():
            self._hide(frame)
            if given is None and (known := self._passed_over(frame)):
                return known
            image = self._working(frame.image)
            state, ids, done = self.position.state, self.position.ids, self.position.done
            if state is None and given is None:
                self.position = EnginePosition(None, (), done + 1)
                return self._refined_alike(self._shown(frame, image, None))
            if isinstance(self.method, Stepping):
                return self._whole_step(self.method, frame, image, given)
            if state is None:
                assert given is not None
                return self._take(frame, self.method.encode(image), image, given, None)
            said, codes = self._said_before(frame), None
            features = None if said and given is not None else self._features(image)
            if said is None:
                assert features is not None
                codes = self._codes(self.method.predict(state, features), frame, ids)
                said = self._said(state, features, from_codes(codes), ids)
            if given is not None:
                self._kept(frame, codes, said)
                # Whether a mask was given or not, the same is said of a frame: all of it is looked at only now.
                if features is None or features.shape[1:] != cells(size_of(image), self.method.stride):
                    features = self.method.encode(image)
                return self._take(frame, features, image, given, said)
            assert features is not None
            if self._feedback:
                prediction = self._feedback(self._enlarged(frame, image, said.cells, ids))
                codes = self._codes(self._refined(said.cells, prediction, size_of(image)), frame, ids)
                said = Said(from_codes(codes), ids)
                if self._merge:
                    prediction = self._feedback(self._shown(frame, image, said))
            else:
                prediction = self._shown(frame, image, said)
            self._kept(frame, codes, said)
            self.position = EnginePosition(self.method.remember(state, features, said.cells), ids, done + 1)
            return prediction if self.keep_probs else replace(prediction, probs=None)

    def _hide(self, frame: Frame) -> None:
        """Tell the method which objects are said not to be there at a frame."""
        state, ids, done = self.position.state, self.position.ids, self.position.done
        if state is not None and self._gone and isinstance(self.method, Hiding):
            gone = [ids.index(i) + 1 for i in gone_at(self._gone, frame.index) if i in ids]
            self.position = EnginePosition(self.method.hide(state, gone), ids, done)

    def _passed_over(self, frame: Frame) -> Prediction | None:
        """A frame of which an earlier pass has said all, where the method will forget how it looks; else None."""
        state, ids, done = self.position.state, self.position.ids, self.position.done
        if state is None or self._reuse is None or not isinstance(self.method, Forgetting):
            return None
        if not self.method.forgets(state, self._reuse.ahead(frame.index)) or not (said := self._said_before(frame)):
            return None
        shown = self._reuse.result(frame) or self._shown(frame, self._working(frame.image), said)
        self.position = EnginePosition(self.method.passed(state, said.cells), ids, done + 1)
        return shown if self.keep_probs else replace(shown, probs=None)

    def _needed(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the part of an image (H, W) that the method needs features of."""
        window = self.method.window(self.position.state, size) if isinstance(self.method, Windowing) else None
        return window or (slice(0, size[0]), slice(0, size[1]))

    def _whole_step(self, method: Stepping, frame: Frame, image: Tensor, given: LabelMap | None) -> Prediction:
        """A frame through a method that does all in one step: its cells are pixels of the working size."""
        ids, said = self.position.ids, None
        if given is not None:
            ids = self._ids_with(given, frame)
            said = LabelMap(resize_labels(given.pixels, size_of(image)).to(self.device), given.ids)
        known, first = self.position.ids, self.position.state is None
        state, probs = method.step(image, said, self.position.state)
        self.position = EnginePosition(state, ids, self.position.done + 1)
        probs = _without(probs, ids, gone_at(self._gone, frame.index))
        if not first:
            codes = to_codes(_without(probs, ids, ids[len(known) :])[: len(known) + 1])
            self._kept(frame, codes, Said(probs, known))
        shown = self._shown(frame, image, Said(probs, ids))
        if given is None:
            return shown
        pixels = without_void(correct(shown.labels.pixels, given.pixels, given.ids))
        return replace(shown, labels=LabelMap(pixels, shown.ids))

    def _features(self, image: Tensor) -> Tensor:
        """Features of what the method needs of a frame."""
        assert not isinstance(self.method, Stepping)
        return self.method.encode(image[(slice(None), *self._needed(size_of(image)))])

    def _said_before(self, frame: Frame) -> Said | None:
        """What an earlier pass said of a frame, where that holds."""
        said = self._reuse.said(frame.index) if self._reuse else None
        return said and said._replace(cells=said.cells.to(self.device))

    def _said(self, state: Any, features: Tensor, cells: Tensor, ids: tuple[int, ...]) -> Said:
        """What this pass says of a frame; where masks are refined before they are remembered, nothing is hidden."""
        if not isinstance(self.method, Noticing) or self._feedback:
            return Said(cells, ids)
        hidden = self.method.hidden(state, features, cells).tolist()
        return Said(cells, ids, tuple(number for number, is_hidden in zip(ids, hidden, strict=True) if is_hidden))

    def _codes(self, cells: Tensor, frame: Frame, ids: tuple[int, ...]) -> Tensor:
        """Probabilities of cells as they are kept: in eight bits, without what is gone."""
        return to_codes(_without(cells, ids, gone_at(self._gone, frame.index)))

    def _kept(self, frame: Frame, codes: Tensor | None, said: Said) -> None:
        """Give away what is to be kept of a frame; None where an earlier pass has done so."""
        if self._keep and codes is not None:
            self._keep(frame.index, codes.cpu(), said.ids, said.hidden)

    def _shown(self, frame: Frame, image: Tensor, said: Said | None) -> Prediction:
        """What this pass, the other one or both say of a frame; an empty mask where neither does."""
        if self._reuse and (result := self._reuse.result(frame)):
            return result
        merged = self._merge(frame.index, said) if self._merge else said and Merged(said.visible, said.ids)
        if merged is None:
            nothing = LabelMap(torch.zeros(frame.image.shape[1:], dtype=torch.uint8), ())
            return Prediction(frame, nothing, torch.ones_like(image[:1]).cpu() if self.keep_probs else None)
        shown = self._enlarged(frame, image, merged.cells.to(self.device), merged.ids)
        return replace(shown, agreement=merged.agreement)

    def probabilities(self, cells: Tensor, image: Tensor) -> Tensor:
        """What cells (K, h, w) say of the pixels of an image (3, H, W), at the working size, on the CPU."""
        with torch.no_grad():
            working = self._working(image)
            return (
                cells if isinstance(self.method, Stepping) else self.method.enlarge(cells.to(self.device), working)
            ).cpu()

    def _enlarged(self, frame: Frame, image: Tensor, cells: Tensor, ids: tuple[int, ...]) -> Prediction:
        """The prediction that cells (K, h, w) of a frame make."""
        probs = cells if isinstance(self.method, Stepping) else self.method.enlarge(cells, image)
        pixels = strongest(probs, ids, (frame.image.shape[1], frame.image.shape[2]))
        wanted = self.keep_probs or self._feedback is not None
        return Prediction(frame, LabelMap(pixels, ids), probs.cpu() if wanted else None, cells.cpu())

    def _refined(self, cells: Tensor, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Probabilities of cells (K, h, w): those of a prediction where it has another label, elsewhere as they are.

        A method may read more from its own than how probable a label is, such as which cells it removed.
        """
        assert isinstance(self.method, Shrinking)
        assert prediction.probs is not None
        pixels = resize(prediction.probs.to(cells.device)[None], size, antialias=True)[0]
        fed = self.method.shrink(pixels)
        return torch.where(fed.argmax(0) == cells.argmax(0), cells, fed)

    def _take(self, frame: Frame, features: Tensor, image: Tensor, given: LabelMap, said: Said | None) -> Prediction:
        """A frame with a given mask: its objects are what the mask says, the others stay as predicted."""
        assert not isinstance(self.method, Stepping)
        ids = self._ids_with(given, frame)
        own = Prediction(frame, LabelMap(torch.zeros_like(given.pixels), ()))
        if said is not None:
            own = self._enlarged(frame, image, said.cells, said.ids)
        differs = self._merge or self._reuse or (said and said.hidden)
        shown = self._shown(frame, image, said) if differs else own
        own, shown = (self._corrected_by(given, prediction, image) for prediction in (own, shown))
        labels = one_hot(resize_labels(own.labels.pixels, size_of(image)).to(self.device), ids)
        state = self.method.begin(features, labels, self.position.state)
        self.position = EnginePosition(state, ids, self.position.done + 1)
        return self._refined_alike(shown)

    def _refined_alike(self, prediction: Prediction) -> Prediction:
        """A prediction that the method does not go on with, changed as those are; all probabilities have one size."""
        if self._feedback and prediction.probs is not None:
            prediction = self._feedback(prediction)
        return prediction if self.keep_probs else replace(prediction, probs=None)

    def _corrected_by(self, given: LabelMap, prediction: Prediction, image: Tensor) -> Prediction:
        """A prediction, where the objects of a given mask are as that has them, and those that are gone are not."""
        pixels = without_void(correct(prediction.labels.pixels, given.pixels, given.ids))
        ids = (*prediction.ids, *(i for i in given.ids if i not in prediction.ids))
        probs = None
        if self.keep_probs:
            probs = one_hot(resize_labels(pixels, size_of(image)), ids)
        return replace(prediction, labels=LabelMap(pixels, ids), probs=probs)

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

    def grid(self, source: tuple[int, int]) -> tuple[int, int]:
        """Cells (h, w) of frames of a source's size."""
        size = self.working_size(source)
        return size if isinstance(self.method, Stepping) else cells(size, self.method.stride)

    def _working(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) -> float (3, H', W') in [0, 1] on the device, of the working size."""
        pixels = image.to(self.device).float() / 255
        source = (int(image.shape[1]), int(image.shape[2]))
        size = self.working_size(source)
        return pixels if size == source else resize(pixels[None], size, antialias=True)[0].clamp(0, 1)


def _without(cells: Tensor, ids: tuple[int, ...], gone: tuple[int, ...]) -> Tensor:
    """Probabilities (K, h, w) where objects that are gone have none: the background has theirs."""
    channels = [ids.index(i) + 1 for i in gone if i in ids]
    if not channels:
        return cells
    cells = cells.clone()
    cells[0] += cells[channels].sum(0)
    cells[channels] = 0
    return cells
