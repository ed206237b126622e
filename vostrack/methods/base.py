"""What a method is: the contract between the engine and everything that can propagate labels.

In prose, and checked by one suite over every registered method (tests/methods/test_contract.py):

1. A method holds weights and a configuration, nothing that belongs to a clip. Everything that depends on the clip
   lives in its state, a frozen dataclass of tensors, numbers, texts, tuples, None and other such dataclasses; two clips
   can be interleaved.
2. `encode` sees an image once; `predict` and `remember` get its features and never encode a frame again.
3. `begin` starts a state or, given one, adds what a person says about a later frame: labels of all objects of the
   clip, in channels that may be more than before. What was begun with is never forgotten.
4. `predict` does not change the state. `remember` may reuse the tensors of the state that it is given: that state
   must not be used afterwards.
5. The same calls give the same results, bit by bit, on the same machine.
6. States are bounded: they do not grow with the length of the clip, only with the number of given masks.

An engine of others may encode, predict and remember in one step of an object that changes. Such a method is a
`Stepping` one: `step` stands in the place of all these calls, and that object is its state. Rules 1, 3, 5 and 6 hold
but for the dataclass, 2 and 4 have no meaning. Its state cannot be saved, nor can one go back to an earlier one: a run
that is resumed follows its clip anew, and says so.

Letters: H, W image pixels at the working resolution; h, w feature cells; C channels; K label channels with the
background.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from vostrack.config import Config
from vostrack.errors import MethodError
from vostrack.ops.window import Place
from vostrack.types import LabelMap
from vostrack.weights import Adopt

S = TypeVar("S")
T = TypeVar("T", contravariant=True)


class Method(Protocol[S]):
    """Propagates labels from frames that it knows to the next one.

    Attributes:
        name: under which it is registered.
        state_type: the dataclass of its states.
        config: its frozen configuration dataclass.
        net: its network, in evaluation mode.
        stride: pixels from one feature cell to the next.
    """

    name: ClassVar[str]
    state_type: type[S]

    @property
    def config(self) -> Any: ...

    @property
    def net(self) -> nn.Module: ...

    @property
    def stride(self) -> int: ...

    def encode(self, image: Tensor) -> Tensor:
        """Features of an image.

        Args:
            image: float32 (3, H, W) in [0, 1], RGB.

        Returns:
            (C, h, w) with h = ceil(H / stride), w = ceil(W / stride).
        """
        ...

    def begin(self, features: Tensor, labels: Tensor, state: S | None = None) -> S:
        """Take a frame whose labels a person gave.

        Args:
            features: (C, h, w) of that frame.
            labels: one-hot (K, H, W).
            state: of the clip so far, or None at its first mask.
        """
        ...

    def predict(self, state: S, features: Tensor) -> Tensor:
        """Label probabilities of a frame.

        Args:
            state: of the clip so far.
            features: (C, h, w).

        Returns:
            (K, h, w), at least 0, summing to 1 over K.
        """
        ...

    def remember(self, state: S, features: Tensor, probs: Tensor) -> S:
        """Take a frame with the labels that were predicted for it.

        Args:
            state: of the clip so far.
            features: (C, h, w).
            probs: (K, h, w), from `predict`.
        """
        ...

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bring probabilities from cells to pixels as the grid of this method's features lies.

        Args:
            probs: (K, h, w).
            image: (3, H, W) that was encoded.

        Returns:
            (K, H, W).
        """
        ...


@runtime_checkable
class Shrinking(Protocol):
    """A method that can go on with masks that were refined."""

    def shrink(self, probs: Tensor) -> Tensor:
        """Bring probabilities from pixels to cells, as `begin` does with labels.

        Args:
            probs: (K, H, W) at the working resolution.

        Returns:
            (K, h, w).
        """
        ...


@runtime_checkable
class Forgetting(Protocol):
    """A method that says which frames its state no longer depends on, so that a state can be made again quickly."""

    def forgets(self, state: Any, ahead: int | None) -> bool:
        """Whether it no longer matters, after some more frames, what features the next frame had.

        Args:
            state: of the clip so far.
            ahead: frames that are remembered from then on, that one among them; None where a mask is given before
                anything is predicted.

        Returns:
            True only if what is predicted from then on is the same, bit by bit, with any features.
        """
        ...

    def passed(self, state: Any, probs: Tensor) -> Any:
        """What `remember` makes of a frame whose features will be forgotten, with some of any kind.

        Args:
            state: of the clip so far.
            probs: (K, h, w), what was predicted.
        """
        ...


@runtime_checkable
class Noticing(Protocol):
    """A method that notices where objects are out of sight."""

    def hidden(self, state: Any, features: Tensor, probs: Tensor) -> Tensor:
        """Which objects are out of sight in a frame. They are in no mask, and the method goes on with its prediction.

        Args:
            state: of the clip so far.
            features: (C, h, w).
            probs: (K, h, w), what was predicted.

        Returns:
            bool (O,), O = K - 1: whether what is taken for an object is something else.
        """
        ...


@runtime_checkable
class Resizing(Protocol):
    """A method that has a say in the size at which it sees frames."""

    def working_size(self, source: tuple[int, int], short_side: int | None) -> tuple[int, int]:
        """The size (H, W) that frames are resized to.

        Args:
            source: (H, W) of the clip.
            short_side: that was asked for, in pixels; None for the source's.
        """
        ...


@runtime_checkable
class Windowing(Protocol[T]):
    """A method that needs features of a part of a frame alone, where that is all that objects can have reached."""

    def window(self, state: T, size: tuple[int, int]) -> Place | None:
        """Rows and columns of pixels of the next frame that are enough.

        `encode` then takes that part of the image, and `predict` and `remember` its features in the place of the
        frame's. Probabilities are those of all cells.

        Args:
            state: of the clip so far.
            size: (H, W) of the frame.

        Returns:
            What begins at cells, and ends at a cell or with the frame; None where it takes the whole frame.
        """
        ...


@runtime_checkable
class Hiding(Protocol[S]):
    """A method that need not look for objects which are said not to be there."""

    def hide(self, state: S, channels: Sequence[int]) -> S:
        """The state for a frame in which the objects of these channels are not; all others may be."""
        ...


@runtime_checkable
class Stepping(Protocol):
    """A method that has one step in the place of the calls of `Method`.

    Attributes:
        name, state_type, config, net: as every method has them.
    """

    name: ClassVar[str]
    state_type: ClassVar[type[Any]]

    @property
    def config(self) -> Any: ...

    @property
    def net(self) -> nn.Module: ...

    def step(self, image: Tensor, given: LabelMap | None, state: Any = None) -> tuple[Any, Tensor]:
        """Take the next frame.

        Args:
            image: float32 (3, H, W) in [0, 1], RGB.
            given: what a person says about this frame, pixels (H, W) on the image's device: its objects become what it
                says, new ones join in its order, and those that it does not name are predicted.
            state: of the clip so far, or None at its first mask. It is changed, and of no more use if this raises.

        Returns:
            The state, which is the same object if one was given, and probabilities (K, H, W), at least 0, summing to 1
            over K, of this frame and all objects up to it.
        """
        ...


def in_parts(method: Method[Any] | Stepping) -> Method[Any]:
    """The method, if it has the calls of `Method`.

    Raises:
        MethodError: it does all in one step.
    """
    if isinstance(method, Stepping):
        raise MethodError(f"{method.name} does all in one step, so its parts cannot be seen: choose another method")
    return method


class MethodFactory(Protocol):
    """What a registered method's class offers beside the methods above.

    Attributes:
        paper: what it implements, in a few words.
        presets: configurations by name; "default" is among them.
        nets: what builds a network with random weights, by name of the architecture; "default" is among them, or there
            is none, for a method that needs no network and gets an empty one. Weights files carry the name.
        adopts: other methods whose weights are taken as well, each with what picks and renames their tensors so that
            they fill this method's default network, or whole children of it: the others get the method's own weights.
            The method's own name stands for its smaller networks, whose weights a larger one starts from.
        objective: what trains its networks; None for a method whose networks are those of others.
        state_type: the dataclass of its states.
    """

    paper: ClassVar[str]
    presets: ClassVar[Mapping[str, Config]]
    nets: ClassVar[Mapping[str, Callable[[], nn.Module]]]
    adopts: ClassVar[Mapping[str, Adopt]]
    objective: ClassVar[type[Objective] | None]
    state_type: ClassVar[type[Any]]

    def __call__(self, net: nn.Module, config: Any) -> Method[Any] | Stepping: ...


@dataclass(frozen=True)
class ClipSpec:
    """What clips an objective learns from.

    Attributes:
        frames: frames a clip (T).
        gap: largest distance of neighbouring picks, in cached frames; less where a clip has no room for it.
        crop: side of the square crop that the network sees, in pixels.
        scale: range of the crop's side before resizing, as a share of the frame's short side; above 1 the frame's
            border is repeated and labels are void.
        source_gap: frames of the source from each pick to the next, less only where a clip is shorter; all frames of
            the source are then cached. 0 picks by `gap`.
        whole: whether the whole frame is resized to the square, and never mirrored, in place of a crop.
        labels: whether footage with masks is needed.
        short_side: of the frames that are kept to cut crops from, in pixels: as large as the crops need them.
    """

    frames: int
    gap: int
    crop: int
    scale: tuple[float, float] = (0.5, 1.0)
    source_gap: int = 0
    whole: bool = False
    labels: bool = False
    short_side: int = 224


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        frames: (B, T, 3, S, S) in [0, 1].
        labels: uint8 (B, T, S, S), 0 for background and 255 for void; None unless `ClipSpec.labels` asked for them.
    """

    frames: Tensor
    labels: Tensor | None = None


class Objective(ABC):
    """A training objective. It trains a network in place, as a recipe says.

    Attributes:
        recipes: ways to train, by name; "default" is among them.
        module: what is trained, with the buffers that travel with it (momentum copies are parts of it).
        clips: the clips that `losses` wants.
        learning_rate: the rate at which training starts.
    """

    recipes: ClassVar[Mapping[str, Any]]
    module: nn.Module
    clips: ClipSpec
    learning_rate: float

    @abstractmethod
    def __init__(self, net: Any, recipe: Any) -> None:
        """Train `net` in place, as the recipe says."""

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: clips as `clips` describes them.
            generator: source of randomness, on the CPU.

        Returns:
            Scalars by name; "loss" is the one to minimise, the others are parts of it for the log.
        """

    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser over the module's trainable parameters; unless overridden, Adam without weight decay."""
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate)

    def after_step(self) -> None:  # noqa: B027  most objectives have nothing to do here
        """Called after each step of the optimiser (a momentum copy follows here)."""


@dataclass(frozen=True)
class Correspondences:
    """Where matching looked for some pixels of a frame. All places are y then x, in pixels of the encoded images.

    Attributes:
        sampled: for each pixel (P, 2), places whose features decided on its match.
        matched: (N, 2), the place in the reference frame that the label of each pixel is read from.
        features: (C, h, w), what was sampled.
        stride: pixels from cell to cell of `features`, cell i being centred on pixel i * stride.
    """

    sampled: tuple[Tensor, ...]
    matched: Tensor
    features: Tensor
    stride: int


class Inspectable(Protocol):
    """A method that can be inspected."""

    def encode(self, image: Tensor) -> Tensor:
        """As every method."""
        ...

    def correspondences(self, reference: Tensor, target: Tensor, pixels: Tensor) -> Correspondences:
        """Where matching looks when a frame is labelled from another one.

        Args:
            reference: features of the frame whose labels are known, from `encode`.
            target: features of the frame to label.
            pixels: (N, 2), y then x, of the target frame.
        """
        ...
