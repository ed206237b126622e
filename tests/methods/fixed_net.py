"""A network for `rpm-net` that has nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FixedNet(nn.Module):
    """Points to the same places whatever it sees."""

    stride = 4

    def __init__(self, offsets: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.offsets = torch.as_tensor(offsets, dtype=torch.float32)

    def embed(self, image: Tensor) -> Tensor:
        height, width = (-(-side // 4) for side in image.shape[2:])
        return torch.zeros(len(image), 32, height, width)

    def match(self, reference: Tensor, target: Tensor) -> Tensor:
        field = self.offsets.view(2, *(self.offsets.shape[1:] or (1, 1)))
        return field.expand(len(reference), 2, *target.shape[2:])
