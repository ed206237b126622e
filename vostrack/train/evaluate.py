"""How well a network does while it trains: J on clips with masks that training never sees.

The figures tell whether a run gets better, not how good a method is: clips are small and short, and J is that of the
small masks. `vostrack benchmark` measures methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from vostrack.benchmark.metrics import region
from vostrack.errors import DatasetError
from vostrack.methods.base import Method, MethodFactory
from vostrack.nets.encoders import for_inference
from vostrack.propagate import Propagator
from vostrack.train.data.cache import FRAME_RATE, CachedClip, FrameCache
from vostrack.train.parallel import Team
from vostrack.types import BACKGROUND, VOID, Clip, Frame, LabelMap

HELD_OUT_FRAMES = 25
"""Frames of a held-out clip that are kept, those with masks, from its first one on."""

HELD_OUT_SIZE = 240
"""Their short side in pixels."""


def method_now(factory: MethodFactory, net: nn.Module, device: torch.device) -> Method[Any]:
    """The method in its default preset with a copy of a network as it stands; training does not notice."""
    return factory(for_inference(deepcopy(net)).to(device), factory.presets["default"])


@dataclass(frozen=True)
class Exam:
    """A clip to propagate through, from the first frame that shows an object on.

    Attributes:
        name: of the clip.
        frames: uint8 (T, 3, H, W).
        truth: uint8 (T, H, W).
    """

    name: str
    frames: Tensor
    truth: Tensor

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects of its first mask."""
        return tuple(number for number in torch.unique(self.truth[0]).tolist() if number not in (BACKGROUND, VOID))


def exam(cache: FrameCache, clip: CachedClip) -> Exam | None:
    """What a clip with masks asks; None where fewer than two frames are left from its first object on."""
    first = _first_object(cache, clip)
    if first is None:
        return None
    indices = range(first, clip.count)
    return Exam(clip.name, cache.frames(clip, indices).cpu(), cache.labels(clip, indices))


def _first_object(cache: FrameCache, clip: CachedClip) -> int | None:
    """The first frame that shows an object, if another one follows."""
    truth = cache.labels(clip, range(clip.count))
    shown = ((truth != BACKGROUND) & (truth != VOID)).flatten(1).any(1).nonzero().flatten().tolist()
    return shown[0] if shown and shown[0] + 1 < clip.count else None


def as_clip(frames: Sequence[Tensor] | Tensor, first: LabelMap) -> Clip:
    """Images, uint8 (3, H, W), with a mask for the first of them, as the engine takes them."""
    images = [
        Frame(index, Fraction(index, FRAME_RATE), image.contiguous(), f"{index:05d}")
        for index, image in enumerate(frames)
    ]
    return Clip(images, {0: first})


def mean_region(asked: Exam, method: Method[Any], device: torch.device) -> float:
    """J of the objects of the first mask, over all frames after it."""
    clip = as_clip(asked.frames, LabelMap(asked.truth[0], asked.ids))
    predictions = [prediction.labels.pixels for prediction in Propagator(method, None, device).run(clip)]
    return fmean(
        region((found == number).numpy(), (wanted == number).numpy())
        for found, wanted in zip(predictions[1:], asked.truth[1:], strict=True)
        for number in asked.ids
    )


def held_out_scores(cache: FrameCache, method: Method[Any], team: Team) -> dict[str, float]:
    """J of each held-out clip; the processes of a team share the clips, and all get all scores.

    Raises:
        DatasetError: no clip shows an object and a frame after it.
    """
    clips = [clip for clip in cache.clips if _first_object(cache, clip) is not None]
    if not clips:
        raise DatasetError("no held-out clip has a mask with an object, and a later frame with a mask")
    scores = [0.0] * len(clips)
    for index in range(team.rank, len(clips), team.size):
        asked = exam(cache, clips[index])
        assert asked is not None
        scores[index] = mean_region(asked, method, team.device)
    return dict(zip((clip.name for clip in clips), team.totals(scores), strict=True))
