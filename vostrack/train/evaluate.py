"""How well a network does while it trains: J on clips with masks that training never sees, and pictures of a few clips.

The figures tell whether a run gets better, not how good a method is: clips are small and short, and J is that of the
small masks. `vostrack benchmark` measures methods. Where clips have no masks, a chequerboard stands for the objects of
a picture: its squares stay on what they lay on, and keep their shape, where the features are good.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from vostrack.benchmark.metrics import region
from vostrack.errors import DatasetError
from vostrack.files import atomic_path
from vostrack.methods.base import Method, MethodFactory, Stepping
from vostrack.nets.encoders import for_inference
from vostrack.propagate import Propagator
from vostrack.train.data.cache import CachedClip, FrameCache
from vostrack.train.data.stills import homography_clip
from vostrack.train.data.thinning import FRAME_RATE
from vostrack.train.parallel import ProcessGroup
from vostrack.types import BACKGROUND, VOID, Clip, Frame, LabelMap, Prediction
from vostrack.video.drawing import draw_overlay

ROWS, COLUMNS = 3, 4
"""Clips of a picture, and frames that it shows of each."""

SPAN = 10
"""Frames of a clip that are propagated through for a picture."""


def method_now(
    factory: MethodFactory, net: nn.Module, device: torch.device, architecture: str = "default"
) -> Method[Any] | Stepping:
    """The method with a copy of a network as it stands; training does not notice.

    Its preset is the one that is made for networks of that architecture, or the default one.
    """
    made = [each for each in factory.presets.values() if getattr(each, "network", None) == architecture]
    return factory(for_inference(deepcopy(net)).to(device), made[0] if made else factory.presets["default"])


@dataclass(frozen=True)
class MaskedClip:
    """A clip with masks, from the first frame that shows an object on.

    Attributes:
        cache: that it lies in.
        clip: in the cache.
        start: that frame.
    """

    cache: FrameCache
    clip: CachedClip
    start: int

    @property
    def frames(self) -> Tensor:
        """uint8 (T, 3, H, W), on the CPU."""
        return self.cache.frames(self.clip, range(self.start, self.clip.count)).cpu()

    @property
    def truth(self) -> Tensor:
        """uint8 (T, H, W)."""
        return self.cache.labels(self.clip, range(self.start, self.clip.count))

    @property
    def first(self) -> LabelMap:
        """The first mask, with its objects."""
        pixels = self.truth[0]
        ids = (number for number in torch.unique(pixels).tolist() if number not in (BACKGROUND, VOID))
        return LabelMap(pixels, tuple(ids))


def masked_clip(cache: FrameCache, clip: CachedClip) -> MaskedClip | None:
    """A clip with masks to propagate through; None where fewer than two frames are left from its first object on."""
    truth = cache.labels(clip, range(clip.count))
    shown = ((truth != BACKGROUND) & (truth != VOID)).flatten(1).any(1).nonzero().flatten().tolist()
    return MaskedClip(cache, clip, shown[0]) if shown and shown[0] + 1 < clip.count else None


def propagated(
    frames: Tensor, first: LabelMap, method: Method[Any] | Stepping, device: torch.device
) -> Iterator[Prediction]:
    """Predictions for images, uint8 (T, 3, H, W), with a mask for the first of them."""
    images = [
        Frame(index, Fraction(index, FRAME_RATE), image.contiguous(), f"{index:05d}")
        for index, image in enumerate(frames)
    ]
    return Propagator(method, None, device).run(Clip(images, {0: first}))


def mean_region(clip: MaskedClip, method: Method[Any] | Stepping, device: torch.device) -> float:
    """J of the objects of the first mask, over all frames after it."""
    first = clip.first
    predictions = [prediction.mask for prediction in propagated(clip.frames, first, method, device)]
    return fmean(
        region(found == number, wanted == number)
        for found, wanted in zip(predictions[1:], clip.truth[1:].numpy(), strict=True)
        for number in first.ids
    )


def held_out_scores(cache: FrameCache, method: Method[Any] | Stepping, group: ProcessGroup) -> dict[str, float]:
    """J of each held-out clip; the processes of a group share the clips, and all get all scores.

    Raises:
        DatasetError: no clip shows an object and a frame after it.
    """
    clips = [masked for clip in cache.clips if (masked := masked_clip(cache, clip)) is not None]
    if not clips:
        raise DatasetError("no held-out clip has a mask with an object, and a later frame with a mask")
    scores = [0.0] * len(clips)
    for index in range(group.rank, len(clips), group.size):
        scores[index] = mean_region(clips[index], method, group.device)
    return dict(zip((masked.clip.name for masked in clips), group.totals(scores), strict=True))


def write_picture(path: Path, cache: FrameCache, method: Method[Any] | Stepping, device: torch.device) -> None:
    """Draw a few clips of a cache, a row each, the given objects at the left, and write it as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    count = min(ROWS, len(cache.clips))
    chosen = [cache.clips[len(cache.clips) * row // count] for row in range(count)]
    rows = [_row(cache, clip, method, device) for clip in chosen]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    with atomic_path(path) as partial:
        Image.fromarray(np.concatenate(padded)).save(partial, format="PNG")


def _row(
    cache: FrameCache, clip: CachedClip, method: Method[Any] | Stepping, device: torch.device
) -> npt.NDArray[np.uint8]:
    """Frames of a clip beside each other, uint8 (H, W, 3)."""
    frames, first = _frames_and_first_mask(cache, clip)
    shown = {(len(frames) - 1) * column // (COLUMNS - 1) for column in range(COLUMNS)}
    predictions = propagated(frames, first, method, device)
    return np.concatenate([draw_overlay(each.frame.image, each.mask) for each in predictions if each.index in shown], 1)


def _frames_and_first_mask(cache: FrameCache, clip: CachedClip) -> tuple[Tensor, LabelMap]:
    """Frames uint8 (T, 3, H, W), and what is propagated from the first."""
    masked = masked_clip(cache, clip) if clip.labels is not None else None
    if masked is not None:
        return masked.frames[:SPAN], masked.first
    frames = cache.frames(clip, range(min(SPAN, clip.count))).cpu()
    if clip.count == 1:
        moving = homography_clip(frames[0].float() / 255, COLUMNS, torch.Generator().manual_seed(0))
        frames = (255 * moving).round().clamp(0, 255).byte()
    return frames, _chequerboard(clip.height, clip.width)


def _chequerboard(height: int, width: int) -> LabelMap:
    """Every other square of a board of 4 rows and 6 columns is an object, the rest is background."""
    rows, columns = 4, 6
    row = torch.arange(height)[:, None] * rows // height
    column = torch.arange(width)[None] * columns // width
    pixels = torch.where((row + column) % 2 == 0, 1 + row * columns + column, 0).byte()
    return LabelMap(pixels, tuple(torch.unique(pixels).tolist()[1:]))
