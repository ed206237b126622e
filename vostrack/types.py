"""The few types that everything else speaks: frames, label maps, clips and predictions.

**Ids and channels.** An *object id* is a number from 1 to 254 that the user chose; ids come in any order and with gaps,
and they never change. A *channel* is a position in a tensor of K probability maps: channel 0 is the background, channel
k >= 1 belongs to `ids[k - 1]`. Channels are only ever appended. A label map on disk or in memory always holds ids, a
soft mask always holds channels, and `ops.labels` is the only place that converts between the two.

Letters: H, W image pixels; K channels including the background. Images are RGB, sizes are (H, W), indices start at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from vostrack.errors import MaskError
from vostrack.notes import Note

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = 0
VOID = 255
MAX_OBJECTS = 254


@dataclass(frozen=True, slots=True)
class Frame:
    """One displayed frame of a clip.

    Attributes:
        index: position in the clip, from 0. Frames follow one another without gaps, but may begin and end anywhere.
        time: presentation time in seconds from the start of the clip.
        image: uint8 (3, H, W), RGB, on the CPU, upright and with square pixels.
        name: stem for files that belong to this frame: its number, as in "00000", in a video, the file's own stem in a
            folder of images, unless results were given numbers of their own.
    """

    index: int
    time: Fraction
    image: Tensor
    name: str


@runtime_checkable
class FrameStream(Protocol):
    """Frames of a clip in order of presentation; can be iterated once and must be closed.

    Attributes:
        name: the clip's name, without folder and ending.
        size: (H, W) of every frame, as displayed.
        stored_size: (H, W) as stored, before rotation and before pixels were made square.
        fps: average frame rate, or None where the source has none (a folder of images).
        count: number of frames that come where the source is trusted to know it, else None; only for progress bars.
        notes: one line for each thing that a user may want to know ("rotated by 90 degrees", "10-bit source").
    """

    name: str
    size: tuple[int, int]
    stored_size: tuple[int, int]
    fps: Fraction | None
    count: int | None
    notes: list[Note]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; raises `InputError` where the source breaks off or a frame cannot be decoded."""
        ...

    def close(self) -> None:
        """Release the source; may be called more than once."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which object each pixel belongs to.

    Attributes:
        pixels: uint8 (H, W): 0 background, 255 void (unknown), else an object id.
        ids: the object ids that this map speaks about, from 1 to 254, each once, in channel order; a listed id may have
            no pixel.

    Raises:
        MaskError: pixels of another type or shape, or such ids.
    """

    pixels: Tensor
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what could only give wrong masks later."""
        import torch

        pixels, ids, is_tensor = self.pixels, self.ids, isinstance(self.pixels, torch.Tensor)
        if not is_tensor or pixels.dtype != torch.uint8 or pixels.ndim != 2:
            found = f"{pixels.dtype} {tuple(pixels.shape)}" if is_tensor else type(pixels).__name__
            raise MaskError(f"a label map holds a uint8 tensor (H, W), not {found}")
        if len(set(ids)) < len(ids) or not all(isinstance(i, int) and BACKGROUND < i < VOID for i in ids):
            raise MaskError(f"object ids are whole numbers from 1 to {MAX_OBJECTS}, each once, not {ids}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.pixels.shape
        return int(height), int(width)


@dataclass(frozen=True, slots=True)
class Clip:
    """What the engine is given: frames, and the masks that are known, by frame index.

    A prompt at a later frame adds the objects whose ids are new and corrects the others at that frame. The frames are
    most often a `FrameStream`; anything that yields frames in order will do.
    """

    frames: Iterable[Frame]
    prompts: Mapping[int, LabelMap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the engine gives back for a frame.

    Attributes:
        frame: the frame.
        labels: its label map at the frame's full size.
        probs: float32 (K, h, w) at the working resolution, or that of a refinement, where probabilities were asked for,
            else None.
        cells: float32 (K, h, w), what the method said of cells, of which the labels were made; None where it did not.
        agreement: by id, the overlap (IoU, in [0, 1]) of what passes from both sides said of cells, where there were
            two; else None.
    """

    frame: Frame
    labels: LabelMap
    probs: Tensor | None = None
    cells: Tensor | None = None
    agreement: Mapping[int, float] | None = None

    @property
    def index(self) -> int:
        """Position of the frame in the clip, from 0."""
        return self.frame.index

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W) at the source's size: 0 is background, every other value an object id."""
        return self.labels.pixels.numpy()

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects that are known up to this frame, whether they are visible or not."""
        return self.labels.ids
