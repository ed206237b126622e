"""`copy`: every frame gets the last mask that was given. What does not beat it follows nothing.

Paper: "Copy from the Initial Frame" in Tables 2 and 3 of RPM-Net (Kim et al., 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vostrack.config import Config
from vostrack.methods.base import Objective
from vostrack.ops.labels import one_hot
from vostrack.weights import Adopt


@dataclass(frozen=True)
class CopyConfig(Config):
    """There is nothing to set."""


@dataclass(frozen=True)
class CopyState:
    """The last given mask.

    Attributes:
        labels: uint8 (H, W), the channel of each pixel.
        count: of channels (K).
    """

    labels: Tensor
    count: int


class CopyMethod:
    """No propagation at all. Cells are pixels."""

    name: ClassVar[str] = "copy"
    paper: ClassVar[str] = "baseline: every frame gets the given mask"
    presets: ClassVar[Mapping[str, CopyConfig]] = {"default": CopyConfig()}
    nets: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {}
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[Objective] | None] = None
    state_type = CopyState
    stride = 1

    def __init__(self, net: nn.Module, config: CopyConfig) -> None:
        """A method with a network that is never asked."""
        self.net, self.config = net, config

    def encode(self, image: Tensor) -> Tensor:
        """The image itself; nobody looks at it."""
        return image

    def begin(self, features: Tensor, labels: Tensor, state: CopyState | None = None) -> CopyState:
        """Take the labels; those of all objects are among them."""
        return CopyState(labels.argmax(0).to(torch.uint8), len(labels))

    def predict(self, state: CopyState, features: Tensor) -> Tensor:
        """The given labels."""
        return one_hot(state.labels, range(1, state.count))

    def remember(self, state: CopyState, features: Tensor, probs: Tensor) -> CopyState:
        """Nothing of what was predicted."""
        return state

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """They are pixels already."""
        return probs

    def shrink(self, probs: Tensor) -> Tensor:
        """They are cells already."""
        return probs
