"""Random clips from a cache: chosen on the CPU with one generator, cut and resized where the model computes.

The choice is apart from the cutting, so that several processes can choose the same batch and each cut its part. Knows
nothing of models and losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.errors import DatasetError
from vostrack.methods.base import Batch, ClipSpec
from vostrack.ops.grid import resize
from vostrack.train.data.cache import CachedClip, FrameCache
from vostrack.train.data.stills import homography_clip
from vostrack.types import BACKGROUND, VOID

_SMALLEST = 8
_TRIES = 10


@dataclass(frozen=True)
class Crop:
    """Where a clip of a batch comes from.

    Attributes:
        clip: in the cache.
        indices: of its frames, in order of time.
        top: of the window, in pixels; negative where the window is higher than the frame.
        left: likewise.
        height: of the window, in pixels; its width too, unless it is the whole frame.
        width: likewise.
        flip: whether the clip is mirrored.
        seed: of the motion of a still.
    """

    clip: CachedClip
    indices: tuple[int, ...]
    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    seed: int = 0


def choose(cache: FrameCache, spec: ClipSpec, count: int, generator: torch.Generator) -> list[Crop]:
    """Choose random clips; depends on what is in the cache and on the generator alone.

    A window has a side of 8 pixels at least. Where labels are wanted, up to ten are tried, until all frames show a part
    of an object. Where whole frames are wanted, they are the windows.

    Args:
        cache: where from.
        spec: length, spacing and crop of a clip.
        count: clips in the batch (B).
        generator: source of all randomness, on the CPU.

    Raises:
        DatasetError: a clip has no labels, and the spec wants them.
    """
    return [_choose(cache, spec, generator) for _ in range(count)]


def cut(cache: FrameCache, spec: ClipSpec, crops: Sequence[Crop], device: torch.device) -> Batch:
    """Crop clips from the cache, all frames and labels of a clip by the same window.

    Where a window is larger than the frame, the border of the frame is repeated, and labels are void.

    Args:
        cache: where from.
        spec: as for `choose`.
        crops: from `choose`.
        device: where the crops are resized and returned.

    Returns:
        Frames (B, T, 3, crop, crop) in [0, 1] in order of time, and labels (B, T, crop, crop) if the spec wants them.
    """
    frames = torch.stack([_frames(cache, spec.crop, crop, device) for crop in crops])
    labels = torch.stack([_labels(cache, spec.crop, crop, device) for crop in crops]) if spec.labels else None
    return Batch(frames, labels)


def _choose(cache: FrameCache, spec: ClipSpec, generator: torch.Generator) -> Crop:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    clip = cache.clips[int(torch.randint(len(cache.clips), (), generator=generator))]
    indices = pick(clip.count, spec, generator)
    if spec.whole:
        seed = int(torch.randint(2**62, (), generator=generator)) if clip.count == 1 else 0
        return Crop(clip, tuple(indices), 0, 0, clip.height, clip.width, seed=seed)
    for _ in range(_TRIES if spec.labels else 1):
        side = max(_SMALLEST, round(min(clip.height, clip.width) * uniform(*spec.scale)))
        top = round(uniform(0, clip.height - side))
        left = round(uniform(0, clip.width - side))
        window = Crop(clip, tuple(indices), top, left, side, side)
        if spec.labels and _shows_object(cache, window):
            break
    flip = uniform(0, 1) < 0.5
    seed = int(torch.randint(2**62, (), generator=generator)) if clip.count == 1 else 0
    return replace(window, flip=flip, seed=seed)


def _shows_object(cache: FrameCache, crop: Crop) -> bool:
    """Whether every frame has a part of an object in the window."""
    labels, _ = _labels_inside(cache, crop)
    return bool(((labels != BACKGROUND) & (labels != VOID)).flatten(1).any(1).all())


def pick(count: int, spec: ClipSpec, generator: torch.Generator) -> list[int]:
    """Frame indices in order of time, at random distances up to `gap`, or up to what the clip has room for.

    With a `source_gap` all distances are that one, or the largest that the clip has room for. A clip with fewer frames
    than asked for repeats some.
    """
    gap = min(spec.source_gap or spec.gap, max(1, (count - 1) // max(1, spec.frames - 1)))
    steps = torch.randint(gap if spec.source_gap else 1, gap + 1, (spec.frames - 1,), generator=generator)
    offsets = [0, *torch.cumsum(steps, 0).tolist()]
    if offsets[-1] >= count:
        offsets = [offset * (count - 1) // offsets[-1] for offset in offsets]
    start = int(torch.randint(count - offsets[-1], (), generator=generator))
    return [start + offset for offset in offsets]


def _frames(cache: FrameCache, side: int, crop: Crop, device: torch.device) -> Tensor:
    """(T, 3, side, side) in [0, 1]."""
    rows, columns, padding = _window(crop)
    if crop.clip.count == 1:
        whole = cache.frames(crop.clip, [0])[0].to(device).float() / 255
        moving = homography_clip(whole, len(crop.indices), torch.Generator().manual_seed(crop.seed))
        pixels = moving[:, :, rows, columns]
    else:
        pixels = cache.frames(crop.clip, crop.indices, rows, columns).to(device).float() / 255
    if any(padding):
        pixels = F.pad(pixels, padding, mode="replicate")
    resized = resize(pixels, (side, side), antialias=True)
    return resized.flip(-1) if crop.flip else resized


def _labels(cache: FrameCache, side: int, crop: Crop, device: torch.device) -> Tensor:
    """uint8 (T, side, side), by the nearest pixel."""
    labels, padding = _labels_inside(cache, crop)
    pixels = F.pad(labels.to(device), padding, value=VOID)
    resized = F.interpolate(pixels[:, None], (side, side), mode="nearest-exact")[:, 0]
    return resized.flip(-1) if crop.flip else resized


def _labels_inside(cache: FrameCache, crop: Crop) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Labels (T, h, w) of what the window covers of the frames, and what it has beyond."""
    if crop.clip.labels is None:
        raise DatasetError(f"{crop.clip.name} has no masks, and training this method needs them")
    rows, columns, padding = _window(crop)
    return cache.labels(crop.clip, crop.indices)[:, rows, columns], padding


def _window(crop: Crop) -> tuple[slice, slice, tuple[int, int, int, int]]:
    """Rows and columns of the frame that the window covers, and what it has beyond: left, right, top, bottom."""
    top, left, bottom, right = crop.top, crop.left, crop.top + crop.height, crop.left + crop.width
    padding = (max(-left, 0), max(right - crop.clip.width, 0), max(-top, 0), max(bottom - crop.clip.height, 0))
    return slice(max(top, 0), bottom), slice(max(left, 0), right), padding
