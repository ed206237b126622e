"""Draws where a method looks for its matches: sampling locations over two overlaid frames, and over their features.

Source: RPM-Net (Kim et al., 2020), figures 1 and 10.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vostrack.errors import InputError, MethodError, OutputError, OutputExistsError
from vostrack.files import OutputRoot, shown
from vostrack.methods import WORKING_SIZE
from vostrack.methods.base import Correspondences, Inspectable, Method
from vostrack.ops.grid import at_most, resize, to_pixels
from vostrack.video.ground import Reading
from vostrack.video.masks import PLAIN, read_prompts
from vostrack.video.reader import open_clip

TARGET, SAMPLED, MATCHED = (0, 200, 60), (230, 30, 30), (255, 215, 0)
"""Colours of a pixel, of what is sampled for it, and of its match."""

_EDGE = (0, 0, 0)
_WANTED = 12
_SIDE = 480

Pixels = NDArray[np.uint8]
Point = tuple[float, float]


def check_output(out: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse to replace a picture unasked, and an input at all.

    Raises:
        OutputExistsError: the file is there and `overwrite` is false.
        OutputError: it is one of the inputs.
    """
    if not OutputRoot(out.parent).at(out.name).exists():
        return
    if any(path.exists() and out.samefile(path) for path in inputs):
        raise OutputError(f"{shown(out)} is one of the inputs: choose another `out`")
    if not overwrite:
        raise OutputExistsError(f"{shown(out)} is there already: choose another `out`, or `overwrite=True`")


def inspectable(method: Method[object]) -> Inspectable:
    """The method, if it can be inspected.

    Raises:
        MethodError: it cannot.
    """
    if not hasattr(method, "correspondences"):
        raise MethodError(
            f"{method.name} cannot be inspected: expected a method with `correspondences`, such as rpm-net"
        )
    return cast(Inspectable, method)


def read_frames(source: Path, numbers: Sequence[int]) -> list[Tensor]:
    """Frames of a clip, uint8 (3, H, W), in the order of their numbers, which count from 0.

    Raises:
        InputError: the clip cannot be read, or it has no such frame.
    """
    found: dict[int, Tensor] = {}
    count = 0
    with open_clip(source) as clip:
        for frame in clip:
            count = frame.index + 1
            if frame.index in numbers:
                found[frame.index] = frame.image
            if count > max(numbers):
                break
    missing = [number for number in numbers if number not in found]
    if missing:
        raise InputError(f"{shown(source)} has no frame {max(missing)}: it has {count}, counted from 0")
    return [found[number] for number in numbers]


def choose_points(size: tuple[int, int], mask: Path | None = None, reading: Reading = PLAIN) -> list[Point]:
    """Points (x, y) that are spread over the objects of a mask, or over the frame.

    Args:
        size: (H, W) of the frame.
        mask: of the frame, or None.
        reading: how it is read.

    Raises:
        MaskError: the mask cannot be used.
    """
    inside = np.ones(size, np.bool_)
    if mask is not None:
        pixels = read_prompts({0: mask}, size, reading)[0][0].pixels.numpy()
        inside = (pixels > 0) & (pixels < 255)
    step = max(1.0, float(inside.sum() / _WANTED) ** 0.5)
    rows, columns = (np.arange(step / 2, side, step).astype(int) for side in size)
    points = [(float(x), float(y)) for y in rows for x in columns if inside[y, x]]
    if points:
        return points
    y, x = np.argwhere(inside)[int(inside.sum()) // 2]
    return [(float(x), float(y))]


def draw_matching(
    method: Method[Any],
    reference: Tensor,
    target: Tensor,
    points: Sequence[Point],
    size: int | None = WORKING_SIZE.default,
) -> Pixels:
    """Draw how pixels of a frame are matched to another frame.

    Args:
        method: one that can be inspected.
        reference: uint8 (3, H, W), the frame whose labels are known.
        target: uint8 (3, H, W), the frame to label.
        points: (x, y) in pixels of `target`.
        size: short side of the working resolution, in pixels; None for that of the frames.

    Returns:
        uint8 (2 H', W', 3): above, the two frames over one another; below, three principal components of the features.
        In both, each point with the places that were sampled for it and a line to its match.

    Raises:
        MethodError: the method cannot be inspected.
        InputError: a point is outside of the frame, or the frames differ in size.
    """
    height, width = target.shape[1:]
    if reference.shape != target.shape:
        raise InputError("the two frames differ in size: inspect frames of one clip")
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"point {x:g},{y:g} is outside of the frame, which is {width}x{height}")
    working = at_most((height, width), size)
    scale = 1.0 if size is None else min(1.0, size / min(height, width))
    able = inspectable(method)
    with torch.no_grad():
        features = [able.encode(_resized(image, working)) for image in (reference, target)]
        pixels = torch.tensor([[(y + 0.5) * scale - 0.5, (x + 0.5) * scale - 0.5] for x, y in points])
        found = able.correspondences(features[0], features[1], pixels.clamp(min=0).to(features[0].device))
    enlarged = max(1.0, _SIDE / min(height, width)) / scale
    shape = (round(working[0] * enlarged), round(working[1] * enlarged))
    both = (_resized(reference, shape) + _resized(target, shape)) / 2
    colours = resize(to_pixels(principal_colours(found.features), found.stride, working)[None], shape)[0]
    panels = [_dotted(panel, found, pixels, enlarged) for panel in (both, colours.cpu())]
    return np.concatenate(panels)


def write_picture(path: Path, picture: Pixels) -> None:
    """Write a picture as PNG, whole or not at all; raises `OutputError`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    OutputRoot(path.parent).write(path.name, buffer.getvalue())


def principal_colours(features: Tensor) -> Tensor:
    """The three directions along which features (C, h, w) vary most, as RGB (3, h, w) in [0, 1]."""
    flat = features.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    axes = torch.linalg.eigh(flat @ flat.T)[1][:, -3:].flip(1)
    # An axis has no direction of its own: the sum decides, so that equal features get equal colours everywhere.
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)
    values: Tensor = axes.T @ flat
    spread = values.std(1, correction=0, keepdim=True).clamp(min=1e-9)
    return (0.5 + values / (5 * spread)).clamp(0, 1).float().view(3, *features.shape[1:])


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (3, H, W) -> float (3, H', W') in [0, 1]."""
    return resize(image[None].float() / 255, size, antialias=True)[0].clamp(0, 1)


def _dotted(panel: Tensor, found: Correspondences, pixels: Tensor, scale: float) -> Pixels:
    """A picture (3, H, W) in [0, 1] with what was found for the pixels drawn over it."""
    image = Image.fromarray((panel * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(image)
    dot = max(1.0, min(image.size) / 320)

    def places(at: Tensor) -> list[list[float]]:
        return (((at.cpu() + 0.5) * scale - 0.5).flip(1)).tolist()

    def mark(points: Sequence[Sequence[float]], radius: float, colour: tuple[int, int, int]) -> None:
        # All edges first: a cluster is enclosed by one, instead of being hidden by those of its points.
        for grown, fill in ((radius + max(1.0, dot / 2), _EDGE), (radius, colour)):
            for x, y in points:
                draw.ellipse((x - grown, y - grown, x + grown, y + grown), fill)

    for sampled in found.sampled:
        mark(places(torch.unique(sampled.round(decimals=1), dim=0)), dot, SAMPLED)
    for pixel, match in zip(places(pixels), places(found.matched), strict=True):
        draw.line((*pixel, *match), MATCHED, max(1, round(dot)))
        mark([match], 1.5 * dot, MATCHED)
        mark([pixel], 2 * dot, TARGET)
    return np.asarray(image)
