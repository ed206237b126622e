"""A short synthetic clip with exact masks, so that `vostrack demo` needs neither footage nor a download.

Three patterned shapes drift over a painted landscape: the star goes behind a tree trunk, the cushion over the pebble,
the light changes and the sensor is noisy. The same arguments give the same picture. It shows that the program works and
says nothing of its accuracy on real footage, which is blurred, cluttered and full of lookalikes.

Lengths are in picture heights, from the middle of the picture, x to the right and y down. The scene is made for 16:9.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vostrack.files import OutputRoot
from vostrack.video.movie import add_video, h264, h264_picture
from vostrack.video.palette import palette_image

Image = NDArray[np.uint8]
Field = NDArray[np.floating[Any]]
Size = tuple[int, int]
Level = Callable[[Field, Field, float], Field]

RATE = 12  # frames a second
_SAMPLES = 2  # along a pixel's side: the picture is anti-aliased, the masks are not
_TILE = 512  # samples along the side of a pattern
_REACH = 1.45  # nothing reaches further from its middle than this many times its size
_PAN = 0.3  # how far the nearest layer of the landscape moves
_LATTICE = 256


@dataclass(frozen=True)
class _Thing:
    """Something that moves before the landscape.

    Attributes:
        label: object id; 0 for a part of the background.
        level: of local coordinates x, y and the time in [0, 1]: below 1 inside, 0 in the middle.
        pattern: RGB in [0, 1] of x, y and noise.
        size: length of 1 in local coordinates.
        path: middle at the start and at the end, and how far the path bends to its left.
        turn: angle at the start and at the end, in radians.
        growth: size at the end relative to that at the start.
    """

    label: int
    level: Level
    pattern: Callable[[Field, Field, Field], Field]
    size: float
    path: tuple[tuple[float, float], tuple[float, float], float]
    turn: tuple[float, float]
    growth: float = 1.0

    def pose(self, time: float) -> tuple[float, float, float, float]:
        """Middle (x, y), angle and size at a time in [0, 1]."""
        (x0, y0), (x1, y1), bend = self.path
        aside = bend * math.sin(math.pi * time) / math.hypot(x1 - x0, y1 - y0)
        x = x0 + (x1 - x0) * time + (y1 - y0) * aside
        y = y0 + (y1 - y0) * time - (x1 - x0) * aside
        return x, y, self.turn[0] + (self.turn[1] - self.turn[0]) * time, self.size * self.growth**time


def clip_size(height: int) -> Size:
    """(H, W) of 16:9 with about the given height; both even, as H.264 wants them."""
    return 2 * round(height / 2), 2 * round(height * 8 / 9)


def render(index: int, count: int, size: Size) -> tuple[Image, Image]:
    """Draw a frame.

    Args:
        index: which frame, from 0.
        count: frames of the clip; the scene takes as long as the clip does.
        size: (H, W) in pixels.

    Returns:
        The picture, uint8 (H, W, 3) RGB, and its label map, uint8 (H, W): a pixel is what lies under its centre.
    """
    height, width = size
    time = index / max(count - 1, 1)
    canvas = _landscape(time, size)
    labels = np.zeros(size, np.uint8)
    for thing in THINGS:
        _paint(canvas, thing, time)
        box, x, y = _local(size, thing, time)
        labels[box][thing.level(x, y, time) < 1] = thing.label
    picture = canvas.reshape(height, _SAMPLES, width, _SAMPLES, 3).mean(axis=(1, 3)) * _light(time, size)
    picture += np.random.default_rng([1, index]).normal(0, 0.011, picture.shape)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), labels


def write_clip(
    folder: Path, count: int, size: Size, on_frame: Callable[[int, int | None], None] = lambda done, count: None
) -> tuple[Path, ...]:
    """Write `clip.mp4`, `first.png` and `truth/00000.png` and so on, replacing what is there.

    Args:
        folder: where to; it is created if need be.
        count: frames, at least 1.
        size: (H, W) in pixels, both even.
        on_frame: called after each frame with the number of frames done and of all.

    Returns:
        The true masks, in order.

    Raises:
        OutputError: a file cannot be written.
    """
    root = OutputRoot(folder)
    truth = tuple(folder / "truth" / f"{index:05d}.png" for index in range(count))
    with root.new("clip.mp4") as partial, av.open(str(partial.absolute()), "w", format="mp4") as container:
        encoding = h264({"crf": "12", "bf": "0"})
        stream = add_video(container, encoding, size, Fraction(RATE), Fraction(1, RATE), threads=1)
        scaler = VideoReformatter()
        for index, path in enumerate(truth):
            picture, labels = render(index, count, size)
            frame = h264_picture(picture, scaler)
            frame.pts = index
            container.mux(stream.encode(frame))
            with root.new(path.relative_to(folder)) as mask:
                palette_image(labels).save(mask, "PNG")
            on_frame(index + 1, count)
        container.mux(stream.encode(None))
    root.write("first.png", truth[0].read_bytes())
    return truth


def _axes(size: Size, samples: int) -> tuple[Field, Field]:
    """x (1, n W) and y (n H, 1) of the middles of the n x n samples of each pixel."""
    x, y = (((np.arange(n * samples) + 0.5) / samples - n / 2) / size[0] for n in (size[1], size[0]))
    return x[None].astype(np.float32), y[:, None].astype(np.float32)


def _local(
    size: Size, thing: _Thing, time: float, samples: int = 1, shift: float = 0.0
) -> tuple[tuple[slice, slice], Field, Field]:
    """The part of the picture that a thing can reach, if moved right and down by `shift`, and local x and y there."""
    x, y, angle, scale = thing.pose(time)
    x, y, reach = x + shift, y + shift, _REACH * scale
    across, down = _axes(size, samples)
    rows = slice(*np.searchsorted(down[:, 0], (y - reach, y + reach)))
    columns = slice(*np.searchsorted(across[0], (x - reach, x + reach)))
    dx, dy = (across[:, columns] - x) / scale, (down[rows] - y) / scale
    cos, sin = math.cos(angle), math.sin(angle)
    return (rows, columns), cos * dx + sin * dy, cos * dy - sin * dx


def _paint(canvas: Field, thing: _Thing, time: float) -> None:
    """Draw a thing and its shadow on a canvas of samples, in place."""
    size = canvas.shape[0] // _SAMPLES, canvas.shape[1] // _SAMPLES
    box, x, y = _local(size, thing, time, _SAMPLES, shift=0.025)
    canvas[box] *= 1 - 0.35 * ((1.12 - thing.level(x, y, time)) / 0.3).clip(0, 1)[..., None]
    box, x, y = _local(size, thing, time, _SAMPLES)
    level = thing.level(x, y, time)
    inside = level < 1
    x, y, level = x[inside], y[inside], level[inside]
    rows, columns = (((axis / _REACH + 1) / 2 * (_TILE - 1) + 0.5).astype(np.intp) for axis in (y, x))
    slant = thing.pose(time)[2] + math.pi / 4  # lit from the upper left, whichever way it is turned
    shade = 0.62 + 0.38 * np.sqrt(1 - level**2) - 0.2 * (math.sin(slant) * x + math.cos(slant) * y)
    canvas[box][inside] = _tile(thing)[rows.clip(0, _TILE - 1), columns.clip(0, _TILE - 1)] * shade[:, None]


def _light(time: float, size: Size) -> Field:
    """What the scene is multiplied by, (H, W, 3): the sun grows warmer, and a cloud's shadow wanders through."""
    x, y = _axes(size, 1)
    sun = 1 + 0.09 * math.sin(2 * math.pi * time)
    tint = np.array([1 + 0.04 * time, 1, 1 - 0.05 * time], np.float32)
    cloud = 1 - 0.2 * np.exp(-(((x - 0.3 * y + 0.9 - 1.5 * time) / 0.35) ** 2))
    field: Field = (sun * cloud * (1 - 0.14 * (x**2 + y**2)))[..., None] * tint
    return field


def _noise(seed: int, across: Field, down: Field, octaves: int = 4) -> Field:
    """Smooth noise in about [0, 1], (len(down), len(across)); coordinates are in cells of the first octave."""
    total = np.full((len(down), len(across)), 0.5, np.float32)
    for octave in range(octaves):
        lattice = np.random.default_rng([seed, octave]).random((_LATTICE, _LATTICE), dtype=np.float32) - np.float32(0.5)
        total += 0.8 * (_weights(down * 2**octave) @ lattice @ _weights(across * 2**octave).T) / 2**octave
    return total


def _weights(places: Field) -> Field:
    """The matrix (n, lattice) that takes smooth values at n places from those at whole numbers, around in a circle."""
    whole = np.floor(places).astype(np.intp)
    part = places - whole
    matrix = np.zeros((len(places), _LATTICE), np.float32)
    matrix[np.arange(len(places)), (whole + 1) % _LATTICE] = weight = part * part * (3 - 2 * part)
    matrix[np.arange(len(places)), whole % _LATTICE] = 1 - weight
    return matrix


def _colors(values: Field, *stops: str) -> Field:
    """RGB in [0, 1], (..., 3), of values in [0, 1]: colours "rrggbb" at even distances, and what lies between."""
    table = np.array([list(bytes.fromhex(stop)) for stop in stops]) / 255
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, places, channel) for channel in table.T], -1).astype(np.float32)


# Far to near: height of the ridge, of its hills, size of the cells, weights of depth, noise and stripes, share in the
# pan, colours.
_LAYERS: tuple[tuple[float, float, float, float, float, float, float, Sequence[str]], ...] = (
    (-0.60, 0.00, 0.45, 0.8, 0.5, 0.00, 0.15, ("5d86b8", "8fb3d0", "d3dcd8", "f3ddbf", "f2c9a0")),
    (0.02, 0.20, 0.30, 0.5, 0.7, 0.05, 0.35, ("4d5578", "68719a", "8289a8", "a9a6b8")),
    (0.20, 0.12, 0.22, 0.4, 0.8, 0.14, 0.65, ("1f4a45", "2f6a58", "5b8f66", "93ad72")),
    (0.36, 0.06, 0.10, 0.3, 1.0, 0.18, 1.00, ("4a3a24", "7a5a30", "b08a45", "d9bd72")),
)


@functools.lru_cache(maxsize=1)
def _layers(size: Size) -> tuple[Field, ...]:
    """The layers of the landscape as samples, RGBA (n H, n W + pan, 4)."""
    x, y = _axes((size[0], size[1] + math.ceil(_PAN * size[0]) + 1), _SAMPLES)
    layers = []
    for seed, (base, hills, cell, slope, grain, stripes, _, stops) in enumerate(_LAYERS):
        depth = y - base - hills * (_noise(seed, x[0] / 0.4, np.zeros(1), 5) - 0.5)
        noise = _noise(10 + seed, x[0] / cell, y[:, 0] / cell, 5)
        value = 0.35 + slope * depth + grain * (noise - 0.5) + stripes * np.sin(50 * depth + 5 * noise)
        alpha = (depth * size[0] * _SAMPLES + 0.5).clip(0, 1)[..., None]
        layers.append(np.concatenate([_colors(value, *stops), alpha], -1, dtype=np.float32))
    return tuple(layers)


def _landscape(time: float, size: Size) -> Field:
    """The background as samples, (n H, n W, 3): near layers move faster than far ones."""
    canvas = np.zeros((size[0] * _SAMPLES, size[1] * _SAMPLES, 3), np.float32)
    for layer, (*_, share, _stops) in zip(_layers(size), _LAYERS, strict=True):
        start, part = divmod(time * _PAN * share * size[0] * _SAMPLES, 1)
        left, right = (layer[:, int(start) + step :][:, : canvas.shape[1]] for step in (0, 1))
        shifted = left + (right - left) * np.float32(part)
        canvas += (shifted[..., :3] - canvas) * shifted[..., 3:]
    return canvas


@functools.lru_cache(maxsize=8)
def _tile(thing: _Thing) -> Field:
    """The pattern of a thing, (tile, tile, 3), as far as it reaches."""
    axis = np.linspace(-_REACH, _REACH, _TILE, dtype=np.float32)
    return thing.pattern(axis[None], axis[:, None], _noise(20 + thing.label, axis * 3 + 8, axis * 3 + 8))


def _round(*waves: tuple[float, int, float]) -> Level:
    """A circle with waves, each a part of the radius, a number around the circle, and a phase gained."""

    def level(x: Field, y: Field, time: float) -> Field:
        angle = np.arctan2(y, x)
        radius: Field = np.sum([part * np.cos(number * angle + gain * time) for part, number, gain in waves], axis=0)
        return np.hypot(x, y) / (1 + radius)

    return level


def _cushion(x: Field, y: Field, time: float) -> Field:
    level: Field = (np.abs(x / 1.12) ** 3.5 + np.abs(y / 0.88) ** 3.5) ** (1 / 3.5)
    return level


def _trunk(x: Field, y: Field, time: float) -> Field:
    return np.abs(x) / (0.11 + 0.01 * np.sin(9 * y + 1) + 0.02 * y)


def _rings(x: Field, y: Field, noise: Field) -> Field:
    value = np.sin(13 * np.hypot(x, y) + 0.9 * np.cos(5 * np.arctan2(y, x)) + 3 * noise)
    return _colors(0.25 + 0.45 * value + 0.5 * noise, "7d1128", "c2283f", "f06449", "ffd9a0", "fff4dc")


def _plaid(x: Field, y: Field, noise: Field) -> Field:
    value = np.sin(9 * x) + np.sin(9 * y + 1) + 0.6 * (np.sin(31 * x) > 0.7) - 0.6 * (np.sin(27 * y) > 0.7)
    return _colors(0.3 + 0.2 * value + 0.4 * noise, "101d5c", "2445a8", "3f8fd0", "7fd6d8", "f2f7e4")


def _spots(x: Field, y: Field, noise: Field) -> Field:
    value = np.abs(np.cos(8 * x + 5 * noise) * np.cos(8 * y - 5 * noise))
    return _colors(1.1 * value - 0.09 + 0.3 * noise, "ffd23f", "f6b02c", "e08a1e", "5b2a86", "2c1250")


def _bark(x: Field, y: Field, noise: Field) -> Field:
    value = np.sin(60 * x + 9 * noise + 2 * np.sin(7 * y))
    return _colors(0.2 * value + 0.9 * noise, "221d1a", "4a4139", "7a6f62", "a59a88")


THINGS = (
    _Thing(3, _round((0.17, 2, 2), (0.1, 3, -3)), _spots, 0.15, ((-0.64, -0.12), (-0.34, -0.19), -0.02), (0, 1.2), 1.1),
    _Thing(1, _round((0.26, 5, 0), (0.04, 2, 5)), _rings, 0.165, ((-0.46, 0.24), (0.48, 0.14), 0.02), (0.2, 1.4), 1.12),
    _Thing(0, _trunk, _bark, 0.5, ((0.12, 0.0), (-0.03, 0.0), 0.0), (0.05, 0.05)),
    _Thing(2, _cushion, _plaid, 0.15, ((0.54, -0.24), (-0.66, 0.16), -0.07), (-0.3, -1.5), 0.95),
)
"""What is in the scene, from far to near."""
