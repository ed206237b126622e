"""The frames that a method remembers: pinned ones for good, recent ones in a ring of fixed size.

Features of all frames lie in one tensor with the frame as the second last dimension, (h, w, T, C): the keys that a row
of cells can reach are then contiguous, so that `ops.window` copies the block of a tile row by row. Knows nothing of
what the features mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vostrack.ops.labels import add_channels


@dataclass(frozen=True)
class FrameBank:
    """Keys and label values of some frames.

    Attributes:
        keys: (h, w, T, C).
        values: (h, w, T, K).
        filled: how many of the T slots hold a frame; the first ones do.
        oldest: the slot that is overwritten next once all are filled.
    """

    keys: Tensor
    values: Tensor
    filled: int = 0
    oldest: int = 0

    @classmethod
    def empty(cls, capacity: int, key: Tensor, value: Tensor) -> Self:
        """A bank of `capacity` slots for frames such as this one, key (C, h, w) and value (K, h, w)."""
        shape = (*key.shape[1:], capacity)
        return cls(key.new_zeros(*shape, len(key)), value.new_zeros(*shape, len(value)))

    @property
    def capacity(self) -> int:
        """T."""
        return self.keys.shape[2]

    def add(self, key: Tensor, value: Tensor) -> Self:
        """Store a frame in the next slot, in place of the oldest one where the bank is full.

        The tensors are written in place: a bank that was given to `add` must not be used again.

        Args:
            key: (C, h, w).
            value: (K, h, w).
        """
        slot = self.filled if self.filled < self.capacity else self.oldest
        self.keys[:, :, slot] = key.permute(1, 2, 0)
        self.values[:, :, slot] = value.permute(1, 2, 0)
        return self.passed()

    def passed(self) -> Self:
        """The same after a frame that nobody will look at: its slot holds anything."""
        if self.filled < self.capacity:
            return replace(self, filled=self.filled + 1)
        return replace(self, oldest=(self.oldest + 1) % self.capacity)

    @property
    def known(self) -> Tensor:
        """bool (h, w): cells of the last frame that belong to a label."""
        return self.values[:, :, self._newest].any(-1)

    @property
    def _newest(self) -> int:
        return (self.oldest - 1) % self.capacity if self.filled == self.capacity else self.filled - 1

    def latest(self, spacing: int) -> Self:
        """The last frame and, back from it, every `spacing`-th one; not to be added to."""
        if spacing == 1:
            return self
        slots = [(self._newest - back) % self.capacity for back in range(0, self.filled, spacing)]
        return replace(self, keys=self.keys[:, :, slots], values=self.values[:, :, slots], filled=len(slots), oldest=0)

    def grown(self) -> Self:
        """The same frames with room for one more (for pinned frames, which are never dropped)."""
        keys = torch.cat((self.keys, torch.zeros_like(self.keys[:, :, :1])), 2)
        values = torch.cat((self.values, torch.zeros_like(self.values[:, :, :1])), 2)
        return replace(self, keys=keys, values=values)

    def with_channels(self, count: int) -> Self:
        """The same frames with `count` label channels: empty ones are appended for objects that appeared later."""
        return replace(self, values=add_channels(self.values, count, dim=3))

    @property
    def used_keys(self) -> Tensor:
        """(h, w, filled, C); a view that is contiguous only where the bank is full."""
        return self.keys[:, :, : self.filled]

    @property
    def used_values(self) -> Tensor:
        """(h, w, filled, K)."""
        return self.values[:, :, : self.filled]


def with_new_objects(labels: Tensor, found: Tensor) -> Tensor:
    """Labels of a given frame with the objects that first appear in a later one.

    Nobody said that these objects were absent before; without this their cells would vote for the background.

    Args:
        labels: (..., K), soft.
        found: (..., K'), K' >= K: what the later frame's labels give when they are propagated back to this one.

    Returns:
        (..., K'): the new objects as they were found, and the others in what is left.
    """
    new = found[..., labels.shape[-1] :]
    return torch.cat((labels * (1 - new.sum(-1, keepdim=True)), new), -1)
