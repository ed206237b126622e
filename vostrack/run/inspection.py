"""Draws what a method sees: where it looks for its matches, how similar features are, and the features themselves.

Source: RPM-Net (Kim et al., 2020), figures 1, 9 and 10.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vostrack.errors import InputError, MethodError, OutputError, OutputExistsError
from vostrack.files import OutputRoot, shown
from vostrack.methods import WORKING_SIZE
from vostrack.methods.base import Correspondences, Inspectable, Method
from vostrack.ops.grid import at_most, resize, sample_cells, to_pixels
from vostrack.video.ground import Reading
from vostrack.video.masks import PLAIN, GivenMask, read_prompts
from vostrack.video.playback import NORMAL, Playback
from vostrack.video.reader import open_clip
from vostrack.video.series import numbered

TARGET, SAMPLED, MATCHED = (0, 200, 60), (230, 30, 30), (255, 215, 0)
"""Colours of a pixel, of what is sampled for it, and of its match."""

_EDGE = (0, 0, 0)
_WANTED = 12
_SIDE = 480

Pixels = NDArray[np.uint8]
Point = tuple[float, float]
Colour = tuple[int, int, int]


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
            f"{method.name} cannot show its matches: take a method with `correspondences`, such as rpm-net, "
            "or show similarity or features"
        )
    return cast(Inspectable, method)


def read_frames(source: Path, numbers: Sequence[int], playback: Playback = NORMAL) -> list[Tensor]:
    """Frames of a clip, uint8 (3, H, W), in the order of their numbers, which count from 0.

    Args:
        source: the clip.
        numbers: of the frames.
        playback: how it is read.

    Raises:
        InputError: the clip cannot be read, or it has no such frame.
    """
    found: dict[int, Tensor] = {}
    count = 0
    with open_clip(source, playback) as clip:
        clip.images_from = min(numbers)
        for frame in clip:
            count = frame.index + 1
            if frame.index in numbers:
                found[frame.index] = frame.image
            if count > max(numbers):
                break
        files = clip.files
    missing = [number for number in numbers if number not in found]
    if missing:
        hint = numbered(files, max(missing))
        raise InputError(f"{shown(source)} has no frame {max(missing)}: it has {count}, counted from 0{hint}")
    return [found[number] for number in numbers]


def choose_points(size: tuple[int, int], mask: GivenMask | None = None, reading: Reading = PLAIN) -> list[Point]:
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


@dataclass(frozen=True)
class Pair:
    """Two frames of a clip and what a method says of them.

    Attributes:
        frames: uint8 (3, H, W), the reference frame and the frame to label.
        features: (C, h, w) of each.
        pixels: (N, 2), y then x, of the frame to label, at the working size.
        working: size (H', W') at which the frames were encoded.
        stride: pixels of that size from cell to cell.
    """

    frames: tuple[Tensor, Tensor]
    features: tuple[Tensor, Tensor]
    pixels: Tensor
    working: tuple[int, int]
    stride: int

    def enlarged(self, side: int) -> tuple[tuple[int, int], float]:
        """Size (H, W) of a panel whose short side has at least so many pixels, and its scale over the working size."""
        height, width = self.frames[0].shape[1:]
        scale = max(1.0, side / min(height, width)) * min(height, width) / min(self.working)
        return (round(self.working[0] * scale), round(self.working[1] * scale)), scale

    def on_panel(self, cells: Tensor, shape: tuple[int, int]) -> Tensor:
        """Values (K, h, w) of cells on a panel (K, H, W)."""
        return resize(to_pixels(cells, self.stride, self.working)[None], shape)[0].cpu()


def encode_pair(
    method: Method[Any],
    reference: Tensor,
    target: Tensor,
    points: Sequence[Point],
    size: int | None = WORKING_SIZE.default,
) -> Pair:
    """Encode two frames of a clip.

    Args:
        method: any method.
        reference: uint8 (3, H, W), the frame whose labels are known.
        target: uint8 (3, H, W), the frame to label.
        points: (x, y) in pixels of `target`.
        size: short side of the working resolution, in pixels; None for that of the frames.

    Raises:
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
    with torch.no_grad():
        features = method.encode(_resized(reference, working)), method.encode(_resized(target, working))
    pixels = torch.tensor([[(y + 0.5) * scale - 0.5, (x + 0.5) * scale - 0.5] for x, y in points])
    return Pair((reference, target), features, pixels.view(-1, 2), working, method.stride)


def correspondences(method: Method[Any], pair: Pair) -> Correspondences:
    """Where a method looks for the matches of the pixels.

    Raises:
        MethodError: the method cannot be inspected.
    """
    with torch.no_grad():
        at = pair.pixels.clamp(min=0).to(pair.features[0].device)
        return inspectable(method).correspondences(*pair.features, at)


def sampled_similarity(pair: Pair, found: Correspondences) -> float:
    """Mean cosine of the features of the pixels with those of the places that are sampled for them.

    Paper: RPM-Net, figure 9 and section 4.5.
    """

    def at(places: Tensor) -> Tensor:
        cells = places.to(found.features) / found.stride
        return F.normalize(
            sample_cells(found.features[None], cells.T[None, :, :, None], border=True)[0, :, :, 0], dim=0
        )

    means = [
        (at(pixel[None]) * at(sampled)).sum(0).mean() for pixel, sampled in zip(pair.pixels, found.sampled, strict=True)
    ]
    return float(torch.stack(means).mean())


def draw_matching(pair: Pair, found: Correspondences) -> Pixels:
    """Draw how pixels of a frame are matched to another frame.

    Returns:
        uint8 (2 H', W', 3): above, the two frames over one another; below, three principal components of the features.
        In both, each point with the places that were sampled for it and a line to its match.
    """
    shape, enlarged = pair.enlarged(_SIDE)
    both = (_resized(pair.frames[0], shape) + _resized(pair.frames[1], shape)) / 2
    colours = pair.on_panel(principal_colours(found.features), shape)
    return np.concatenate([_dotted(panel, found, pair.pixels, enlarged) for panel in (both, colours)])


def draw_similarity(pair: Pair) -> Pixels:
    """Draw how similar the features of pixels of a frame are to those of all cells of the other one.

    Returns:
        uint8 (N H', 2 W', 3), a row for each pixel: at the left the pixel in its frame, at the right the other frame
        under the cosine of the features, from the median of its cells, dark, to the most similar one, white and marked.
    """
    shape, enlarged = pair.enlarged(_SIDE // 2)
    reference, target = (_resized(frame, shape) for frame in pair.frames)
    known, asked = (F.normalize(each.float(), dim=0) for each in pair.features)
    rows = []
    for y, x in pair.pixels.tolist():
        row, column = (
            min(max(0, round(at / pair.stride)), last - 1) for at, last in ((y, asked.shape[1]), (x, asked.shape[2]))
        )
        cosine = torch.einsum("c,chw->hw", asked[:, row, column], known)
        low = cosine.median()  # from the least one on, most of a frame would be bright
        share = ((cosine - low) / (cosine.max() - low).clamp(min=1e-9)).clamp(0, 1)
        best = divmod(int(cosine.argmax()), cosine.shape[1])
        heat = 0.35 * reference + 0.65 * _heat(pair.on_panel(share[None], shape)[0])
        left = _marked(target, [(y * enlarged, x * enlarged)], TARGET)
        right = _marked(heat, [(pair.stride * best[0] * enlarged, pair.stride * best[1] * enlarged)], MATCHED)
        rows.append(np.concatenate((left, right), 1))
    return np.concatenate(rows)


def draw_features(pair: Pair) -> Pixels:
    """Draw both frames, and below them three principal components of their features, in the same colours.

    Returns:
        uint8 (2 H', 2 W', 3).
    """
    shape, _ = pair.enlarged(_SIDE // 2)
    width = pair.features[0].shape[2]
    colours = principal_colours(torch.cat(pair.features, 2))
    above = [_resized(frame, shape) for frame in pair.frames]
    below = [pair.on_panel(part.contiguous(), shape) for part in (colours[:, :, :width], colours[:, :, width:])]
    return np.concatenate([np.concatenate([_picture(each) for each in row], 1) for row in (above, below)])


def write_picture(path: Path, picture: Pixels) -> None:
    """Write a picture as PNG, whole or not at all; raises `OutputError`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    OutputRoot(path.parent).write(path.name, buffer.getvalue())


def principal_colours(features: Tensor) -> Tensor:
    """The three directions along which features (C, h, w) vary most, as RGB (3, h, w) in [0, 1]."""
    flat = F.pad(features.flatten(1).double().cpu(), (0, 0, 0, max(0, 3 - len(features))))  # there may be fewer than 3
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


def _heat(values: Tensor) -> Tensor:
    """Values (H, W) in [0, 1] from black over red and yellow to white, (3, H, W)."""
    return torch.stack([(3 * values - step).clamp(0, 1) for step in range(3)])


def _picture(panel: Tensor) -> Pixels:
    """(3, H, W) in [0, 1] -> uint8 (H, W, 3)."""
    return (panel * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _mark(draw: ImageDraw.ImageDraw, points: Sequence[Sequence[float]], radius: float, colour: Colour) -> None:
    """Dots at points (x, y), each with an edge."""
    # All edges first: a cluster is enclosed by one, instead of being hidden by those of its points.
    for grown, fill in ((radius + max(1.0, radius / 2), _EDGE), (radius, colour)):
        for x, y in points:
            draw.ellipse((x - grown, y - grown, x + grown, y + grown), fill)


def _marked(panel: Tensor, points: Sequence[Sequence[float]], colour: Colour) -> Pixels:
    """A picture of a panel (3, H, W) with dots at points (y, x)."""
    image = Image.fromarray(_picture(panel))
    _mark(ImageDraw.Draw(image), [(x, y) for y, x in points], max(2.0, min(image.size) / 80), colour)
    return np.asarray(image)


def _dotted(panel: Tensor, found: Correspondences, pixels: Tensor, scale: float) -> Pixels:
    """A picture (3, H, W) in [0, 1] with what was found for the pixels drawn over it."""
    image = Image.fromarray(_picture(panel))
    draw = ImageDraw.Draw(image)
    dot = max(1.0, min(image.size) / 320)

    def places(at: Tensor) -> list[list[float]]:
        return (((at.cpu() + 0.5) * scale - 0.5).flip(1)).tolist()

    for sampled in found.sampled:
        _mark(draw, places(torch.unique(sampled.round(decimals=1), dim=0)), dot, SAMPLED)
    for pixel, match in zip(places(pixels), places(found.matched), strict=True):
        draw.line((*pixel, *match), MATCHED, max(1, round(dot)))
        _mark(draw, [match], 1.5 * dot, MATCHED)
        _mark(draw, [pixel], 2 * dot, TARGET)
    return np.asarray(image)
