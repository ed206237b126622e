"""The training frames of online adaptation: a bounded number of frames with their masks, and random batches.

They are stored at the training size as bytes, so that they take (capacity + given masks) * 4 * size² bytes
whatever the source's size and length. Which frames stay is decided without knowing how many will come.
Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 4.1 and appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from vostrack.adapt.config import AdaptConfig
from vostrack.ops.grid import resize
from vostrack.ops.labels import one_hot, resize_labels
from vostrack.types import BACKGROUND, VOID, Frame, LabelMap, Prediction


@dataclass(frozen=True)
class LabelledFrame:
    """A frame and its mask.

    Attributes:
        index: of the frame.
        age: frames since the last given mask, 0 where this frame's was given.
        known: K, label channels when the frame was labelled.
        image: uint8 (3, S, S).
        labels: uint8 (S, S) of ids; 255 is void.
    """

    index: int
    age: int
    known: int
    image: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainingFrames:
    """Frames to learn from.

    Attributes:
        ids: object ids of all labels, in channel order.
        given: frames whose masks were given; they always stay.
        predicted: every `spacing`-th of the frames whose masks were predicted, in order.
        spacing: a power of two.
        offered: predicted frames so far, kept or not.
    """

    ids: tuple[int, ...] = ()
    given: tuple[LabelledFrame, ...] = ()
    predicted: tuple[LabelledFrame, ...] = ()
    spacing: int = 1
    offered: int = 0


@dataclass(frozen=True)
class TrainingBatch:
    """A batch.

    Attributes:
        images: float (B, 3, S, S) in [0, 1].
        allowed: bool (B, K, S, S), the channels that each pixel may belong to.
        weights: (B,).
    """

    images: Tensor
    allowed: Tensor
    weights: Tensor


def extend(
    frames: TrainingFrames,
    prediction: Prediction,
    given: LabelMap | None,
    config: AdaptConfig,
    age: int | None = None,
) -> TrainingFrames:
    """The training frames after one more frame of the clip.

    Where more than `capacity` of them would be predicted, every other one goes and the spacing doubles: those that stay
    are spread over all that was seen, the first among them.

    Args:
        frames: those so far.
        prediction: the next frame with its labels.
        given: the mask that was given for this frame, if one was; where that is void, nothing is learned.
        config: size and capacity.
        age: frames from the nearest given mask that this frame was followed from; None to count from the last one.
    """
    ids = prediction.labels.ids
    if not ids:
        return frames
    pixels = prediction.labels.pixels
    if given is not None:
        pixels = torch.where(given.pixels == VOID, VOID, pixels).to(torch.uint8)
        pair = _pair(prediction.frame, pixels, len(ids) + 1, 0, config.size)
        return replace(frames, ids=ids, given=(*frames.given, pair))
    number, frames = frames.offered, replace(frames, ids=ids, offered=frames.offered + 1)
    if number % frames.spacing:
        return frames
    age = prediction.index - frames.given[-1].index if age is None else age
    predicted = (*frames.predicted, _pair(prediction.frame, pixels, len(ids) + 1, age, config.size))
    if len(predicted) <= config.capacity:
        return replace(frames, predicted=predicted)
    return replace(frames, predicted=predicted[::2], spacing=2 * frames.spacing)


def _pair(frame: Frame, pixels: Tensor, known: int, age: int, size: int) -> LabelledFrame:
    image = square(frame.image, size).mul(255).round().to(torch.uint8)
    return LabelledFrame(frame.index, age, known, image, resize_labels(pixels, (size, size)))


def square(image: Tensor, size: int) -> Tensor:
    """uint8 (3, H, W) -> float (3, S, S) in [0, 1], stretched as the paper does."""
    return resize(image[None].float() / 255, (size, size), antialias=True)[0].clamp(0, 1)


def weight(pair: LabelledFrame, config: AdaptConfig) -> float:
    """How much a frame counts: less the longer masks have drifted since one was given.

    Paper: Zhu et al., appendix B, "we put more weights on the early frames".
    Differs: The paper gives no formula; this halves every `half_life` frames down to `least_weight`.
    """
    return cast(float, max(config.least_weight, 0.5 ** (pair.age / config.half_life)))


def allowed_channels(pair: LabelledFrame, ids: tuple[int, ...]) -> Tensor:
    """Channels that each pixel may belong to.

    Nobody said that an object which was named later was absent before: background of a frame from before may be that
    object as well. Void may be anything.

    Args:
        pair: a frame with labels.
        ids: object ids of the clip in channel order, those of the pair first.

    Returns:
        bool (K, S, S), at least one channel a pixel.
    """
    allowed = one_hot(pair.labels, ids) > 0
    allowed[pair.known :] |= pair.labels == BACKGROUND
    return allowed | (pair.labels == VOID)


def random_batch(frames: TrainingFrames, config: AdaptConfig, generator: torch.Generator) -> TrainingBatch:
    """A random batch, augmented.

    Args:
        frames: one at least.
        config: batch, shares and strengths.
        generator: source of randomness, on the CPU.
    """
    images, allowed, weights = [], [], []
    for _ in range(config.batch):
        chance, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        pool = frames.given if frames.given and chance < config.given_share else (*frames.given, *frames.predicted)
        pair = pool[int(place * len(pool))]
        flip, *colour = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        image, possible = recolour(pair.image.float() / 255, colour, config), allowed_channels(pair, frames.ids)
        mirrored = flip < config.flip
        images.append(image.flip(-1) if mirrored else image)
        allowed.append(possible.flip(-1) if mirrored else possible)
        weights.append(weight(pair, config))
    return TrainingBatch(torch.stack(images), torch.stack(allowed), torch.tensor(weights))


def recolour(image: Tensor, chances: list[float], config: AdaptConfig) -> Tensor:
    """Colour jitter and loss of colour.

    Args:
        image: (3, H, W) in [0, 1].
        chances: five numbers in [0, 1): where in their ranges brightness, contrast, saturation and hue lie, and whether
            colour is lost.
        config: the ranges.
    """
    brightness, contrast, saturation = (1 + config.jitter * (2 * chance - 1) for chance in chances[:3])
    import torchvision.transforms.functional as tvf  # takes as long as torch, and few runs adapt

    image = tvf.adjust_contrast(tvf.adjust_brightness(image, brightness), contrast)
    image = tvf.adjust_hue(tvf.adjust_saturation(image, saturation), config.hue * (2 * chances[3] - 1))
    return cast(Tensor, tvf.rgb_to_grayscale(image, 3) if chances[4] < config.grey else image)
