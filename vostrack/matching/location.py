"""Where objects can be: no further from where they were last seen than they can have moved since.

Letters: h w feature cells, O objects.
Source: Hu, Huang, Schwing, "VideoMatch: Matching based Video Object Segmentation" (2018), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vostrack.ops.labels import add_channels
from vostrack.ops.matching import extrude, squared_distance
from vostrack.ops.window import Place

SHORT_SIDE = 480
"""Lengths are given in pixels of a frame of this short side."""

_SPECK = 0.1
"""Share of the cells where an object was seen before, below which what is left does not count."""

_LEAST = 40.0
"""How far any object may move from frame to frame, however slow it was, in pixels of a frame of that short side."""

_CALMING = 0.9
"""What a fast movement counts for a frame later."""

_WHOLE = 0.8
"""Share of the cells that an object had lately, below which something hides it: it may come out at the other end."""

_WANING = 0.95
"""What the cells that an object had count for a frame later."""

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
        moved: float (O,), how far each went beyond its last place from frame to frame lately, in cells; inf where that
            is not known.
        area: float (O,), how many cells each had lately at most.
        hidden: bool (O,), what is said not to be in the frame to predict.
    """

    seen: Tensor
    age: Tensor
    moved: Tensor
    area: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, masks: Tensor) -> Self:
        """Objects with masks bool (O, h, w) in the last frame."""
        nothing = masks.new_zeros(len(masks), dtype=torch.float32)
        return cls(torch.zeros_like(masks), nothing, nothing, nothing, nothing > 0).after(masks, given=True)

    def after(self, masks: Tensor, given: bool = False) -> Self:
        """A frame later.

        Args:
            masks: bool (O', h, w) of the objects, O' - O of which are new.
            given: whether a person gave this frame's labels: then they are no mistake, however small.
        """
        known = self.seen, self.age, self.moved, self.area, self.hidden
        seen, age, moved, area, hidden = (add_channels(x, len(masks)) for x in known)
        cells, before = (x.flatten(1).sum(1) for x in (masks, seen))
        there = (cells > 0) & (cells >= (0 if given else _SPECK) * before)
        far = torch.where(masks, squared_distance(seen), 0).flatten(1).amax(1).sqrt() / age.clamp(min=1)
        lately = torch.where(moved.isfinite(), torch.maximum(far, _CALMING * moved), far)
        return type(self)(
            torch.where(there[:, None, None], masks, seen),
            torch.where(there, 1.0, age + 1),
            torch.where(there, torch.inf if given else lately, moved),
            torch.where(there, torch.maximum(cells, _WANING * area), area),
            hidden,
        )

    def hiding(self, channels: Sequence[int]) -> Self:
        """The same, where the objects of these label channels, and no others, are not in the frame to predict."""
        hidden = torch.zeros_like(self.hidden)
        hidden[[channel - 1 for channel in channels]] = True
        return replace(self, hidden=hidden)

    def reach(self, pace: float, agility: float = 0.0) -> Tensor:
        """How far each object can be from its last place (O,), in cells.

        Args:
            pace: how far an object moves from frame to frame at most, in pixels of a frame whose short side has 480.
            agility: how many times as far as lately, where that is less and nothing hides it; 0 for `pace` alone.
        """
        grid = self.seen.shape[1:]
        reach = in_cells(pace, grid) * self.age
        if not agility:
            return reach
        near = (agility * self.moved).clamp(min=in_cells(_LEAST, grid))
        is_whole = self.seen.flatten(1).sum(1) >= _WHOLE * self.area
        return torch.where((self.age > 1) | ~is_whole, reach, torch.minimum(near, reach))

    def outside(self, reach: Tensor) -> Tensor:
        """What no object can have reached.

        Args:
            reach: (O,) of each, in cells.

        Returns:
            bool (O, h, w); all of it for an object that was never seen, or is hidden.

        Differs: the paper looks at the last frame alone; here an object that is out of sight may move on.
        """
        return ~extrude(self.seen & ~self.hidden[:, None, None], reach)

    def window(self, reach: Tensor, stride: int, surround: int) -> Place | None:
        """Rows and columns of cells around all that is not `outside`; None where that is most of the frame, or nothing.

        Args:
            reach: (O,) of each, in cells.
            stride: pixels from cell to cell.
            surround: pixels beside these cells, since what a network says of a cell depends on what is around it.
        """
        there = self.seen.flatten(1).any(1) & ~self.hidden
        if not there.any():
            return None
        reach = reach[there].ceil() - 1  # cells that are as far away are outside
        rows, columns = (_around(self.seen[there].any(dim), reach, stride, surround) for dim in (2, 1))
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return (rows, columns) if area <= _MOST * self.seen[0].numel() else None


def _around(there: Tensor, reaches: Tensor, stride: int, surround: int) -> slice:
    """What objects reach along an axis, from where they are, bool (O, L), and some more, clipped to L."""
    side = there.shape[1]
    first, last = there.int().argmax(1), side - 1 - there.flip(1).int().argmax(1)
    start, end = int((first - reaches).min()) * stride - surround, int((last + reaches).max()) * stride + surround
    step = _ALIGNED // stride
    return slice(max(0, start // _ALIGNED * step), min(side, -(-end // _ALIGNED) * step + 1))


def in_cells(pixels: float, grid: torch.Size) -> float:
    """A length in pixels of a frame whose short side has 480, in cells of a grid (h, w): the stride cancels out."""
    return pixels * min(grid) / SHORT_SIDE


def masks_of(hard_labels: Tensor, count: int) -> Tensor:
    """Masks bool (O, h, w) of the objects in hard labels int64 (h, w) below `count`."""
    return hard_labels[None] == torch.arange(1, count, device=hard_labels.device)[:, None, None]
