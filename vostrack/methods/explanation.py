"""What a method may say of why it labels a pixel as it does; `vostrack inspect` draws it.

Not part of the contract: a method without `explain` cannot be inspected, and that is all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Explanation:
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


class Explains(Protocol):
    """A method that can be inspected."""

    def encode(self, image: Tensor) -> Tensor:
        """As every method."""
        ...

    def explain(self, reference: Tensor, target: Tensor, pixels: Tensor) -> Explanation:
        """Where matching looks when a frame is labelled from another one.

        Args:
            reference: features of the frame whose labels are known, from `encode`.
            target: features of the frame to label.
            pixels: (N, 2), y then x, of the target frame.
        """
        ...
