"""A small clip with true and noisy masks, and a network small enough for tests."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from vostrack.adapt.config import AdaptConfig
from vostrack.nets import unet
from vostrack.nets.resnet import ResNet
from vostrack.types import Frame, LabelMap, Prediction

SMALL: dict[str, Any] = {"size": 64, "iterations": 4, "live_steps": 1, "live_warm_up": 3, "batch": 2}
CONFIG = AdaptConfig(**SMALL)


def narrow_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same U-Net with fewer channels, so that a step takes no time."""
    monkeypatch.setattr(unet, "ResNet", lambda strides: ResNet(18, (8, 16, 16, 32), strides, stem=8))
    monkeypatch.setattr(unet, "WIDTHS", (32, 16, 16, 8, 8))


def frame(index: int, image: Tensor) -> Frame:
    return Frame(index, Fraction(index, 24), image, f"{index:05d}")


def prediction(index: int, pixels: Tensor, ids: tuple[int, ...], image: Tensor | None = None) -> Prediction:
    if image is None:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, *pixels.shape), generator=generator, dtype=torch.uint8)
    return Prediction(frame(index, image), LabelMap(pixels.to(torch.uint8), ids))


def box(size: tuple[int, int], top: int, left: int, side: int, value: int) -> Tensor:
    pixels = torch.zeros(size, dtype=torch.uint8)
    pixels[top : top + side, left : left + side] = value
    return pixels


def moving_boxes(count: int, late: int | None = None, seed: int = 0) -> list[Prediction]:
    """A bright textured box, id 200, over a dark texture; from frame `late` on a reddish one, id 3, as well.

    The labels are the true ones.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (48, 64)
    scene = torch.randint(0, 110, (3, *size), generator=generator, dtype=torch.uint8)
    bright = torch.randint(150, 256, (3, *size), generator=generator, dtype=torch.uint8)
    red = torch.tensor([230, 40, 40], dtype=torch.uint8)[:, None, None].expand(3, *size)
    out = []
    for index in range(count):
        pixels = box(size, 12, 4 + 2 * index % 36, 20, 200)
        if late is not None:
            pixels = torch.where(box(size, 34, 40 - index, 12, 1) > 0, 3, pixels)
        image = torch.where(pixels == 200, bright, torch.where(pixels == 3, red, scene))
        if late is not None and index < late:
            pixels = torch.where(pixels == 3, 0, pixels)
        ids = (200, 3) if late is not None and index >= late else (200,)
        out.append(prediction(index, pixels, ids, image))
    return out


def spoiled(clip: list[Prediction], seed: int = 0) -> list[Prediction]:
    """The same with masks as a drifting method gives them: holes and patches at random, but for the first frame."""
    generator = torch.Generator().manual_seed(seed)
    out = clip[:1]
    for right in clip[1:]:
        noise = torch.rand(1, 1, 6, 8, generator=generator)
        wrong = torch.nn.functional.interpolate(noise, right.labels.size)[0, 0] < 0.15
        pixels = right.labels.pixels.clone()
        pixels[wrong] = 200 - pixels[wrong]
        out.append(Prediction(right.frame, LabelMap(pixels, right.labels.ids)))
    return out
