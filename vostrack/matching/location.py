"""Where objects can be: no further from where they were last seen than they can have moved since.

Letters: h w feature cells, O objects.
Source: Hu, Huang, Schwing, "VideoMatch: Matching based Video Object Segmentation" (2018), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vostrack.ops.labels import add_channels
from vostrack.ops.matching import extrude
from vostrack.ops.window import Place

SHORT_SIDE = 480
"""Lengths are given in pixels of a frame of this short side."""

_SPECK = 0.1
"""Share of the cells where an object was seen before, below which what is left does not count."""

_MARGIN = 32
"""Pixels around a window that are seen beside it: what a network says of a cell depends on what is around the cell."""

_ALIGNED = 16
"""Pixels from cell to cell of the coarsest stage of a network: windows begin and end on such a cell."""

_MOST = 0.9
"""Share of the frame above which a window is not worth it."""


@dataclass(frozen=True)
class LastSeen:
    """Where objects were last seen.

    What is left of an object that all but vanishes from one frame to the next may be a mistake, and the object out of
    sight: such a frame does not count.

    Attributes:
        seen: bool (O, h, w), where each object was; empty for one that was never seen.
        age: float (O,), how many frames ago that is, counted from the frame to predict.
    """

    seen: Tensor
    age: Tensor

    @classmethod
    def of(cls, masks: Tensor) -> Self:
        """Objects with masks bool (O, h, w) in the last frame."""
        return cls(torch.zeros_like(masks), masks.new_zeros(len(masks), dtype=torch.float32)).after(masks)

    def after(self, masks: Tensor, given: bool = False) -> Self:
        """A frame later.

        Args:
            masks: bool (O', h, w) of the objects, O' - O of which are new.
            given: whether a person gave this frame's labels: then they are no mistake, however small.
        """
        seen, age = add_channels(self.seen, len(masks)), add_channels(self.age, len(masks))
        cells, before = (x.flatten(1).sum(1) for x in (masks, seen))
        there = (cells > 0) & (cells >= (0 if given else _SPECK) * before)
        return type(self)(torch.where(there[:, None, None], masks, seen), torch.where(there, 1.0, age + 1))

    def outside(self, pace: float) -> Tensor:
        """What no object can have reached.

        Args:
            pace: how far an object moves from frame to frame at most, in pixels of a frame whose short side has 480.

        Returns:
            bool (O, h, w); all of it for an object that was never seen.

        Differs: the paper looks at the last frame alone; here an object that is out of sight may move on.
        """
        return ~extrude(self.seen, in_cells(pace, self.seen.shape[1:]) * self.age)

    def window(self, pace: float, stride: int) -> Place | None:
        """Rows and columns of cells around all that is not `outside`; None where that is most of the frame, or nothing.

        Args:
            pace: as for `outside`.
            stride: pixels from cell to cell.
        """
        seen, reach = self.seen[self.seen.flatten(1).any(1)], in_cells(pace, self.seen.shape[1:]) * self.age
        if not len(seen):
            return None
        reaches = reach[self.seen.flatten(1).any(1)].ceil() - 1  # cells that are as far away are outside
        rows, columns = (_around(seen.any(dim), reaches, stride) for dim in (2, 1))
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return (rows, columns) if area <= _MOST * seen[0].numel() else None


def _around(there: Tensor, reaches: Tensor, stride: int) -> slice:
    """What objects reach along an axis, from where they are, bool (O, L), and some more, clipped to L."""
    side = there.shape[1]
    first, last = there.int().argmax(1), side - 1 - there.flip(1).int().argmax(1)
    start, end = int((first - reaches).min()) * stride - _MARGIN, int((last + reaches).max()) * stride + _MARGIN
    step = _ALIGNED // stride
    return slice(max(0, start // _ALIGNED * step), min(side, -(-end // _ALIGNED) * step + 1))


def in_cells(pixels: float, grid: torch.Size) -> float:
    """A length in pixels of a frame whose short side has 480, in cells of a grid (h, w): the stride cancels out."""
    return pixels * min(grid) / SHORT_SIDE


def masks_of(hard_labels: Tensor, count: int) -> Tensor:
    """Masks bool (O, h, w) of the objects in hard labels int64 (h, w) below `count`."""
    return hard_labels[None] == torch.arange(1, count, device=hard_labels.device)[:, None, None]
