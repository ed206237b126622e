"""PNGs for editors: mattes, and objects cut out of their frames."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from vostrack.errors import damage_as
from vostrack.formats.alpha import alpha, in_bits
from vostrack.formats.base import Bools, Bytes, Shot, picture, png
from vostrack.formats.drawings import Shape, checked_size, kept
from vostrack.types import VOID, Prediction
from vostrack.video.writer import FileWriter


def layers(shot: Shot, each: bool) -> dict[str, Collection[int]]:
    """Which objects go together, by the name of their folder or file: each by itself, or all, without a name."""
    return {stem: [number] for number, stem in shot.stems().items()} if each else {"": list(shot.objects)}


class Matte(FileWriter):
    """Writes `dog/00000.png`: white where the object is, black elsewhere, in 8 or 16 bits."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._options, self._layers = shot.options, layers(shot, True)

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        for stem, ids in self._layers.items():
            values = in_bits(alpha(prediction, ids, self._options), self._options.bits)
            yield f"{stem}/{prediction.frame.name}.png", png(Image.fromarray(values))


class PngRgba(FileWriter):
    """Writes `00000.png`: the frame, opaque where objects are; where they are not at all, black."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._options, self._layers = shot.options, layers(shot, shot.options.each)

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        image = picture(prediction)
        for stem, ids in self._layers.items():
            values = in_bits(alpha(prediction, ids, self._options), 8)[..., None]
            cut_out = np.concatenate((image * (values > 0), values), 2)
            yield f"{stem}/{prediction.frame.name}.png".lstrip("/"), png(Image.fromarray(cut_out))


_READ = ("PNG", "WEBP", "TIFF", "JPEG", "BMP")


def shapes_of(data: bytes, name: str, track: int | None) -> tuple[tuple[int, int], str, list[Shape]]:
    """What an image shows: objects by index in one with a palette, else one object, by alpha or by brightness.

    Args:
        data: of the image file.
        name, track: of the object, where it is one.

    Returns:
        Size (H, W), mode, and objects.

    Raises:
        ValueError: it cannot be read.
    """
    with (
        damage_as(lambda error: ValueError(f"it cannot be read as an image: {error}")),
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=_READ) as image,
    ):
        size, mode = checked_size(image.height, image.width, "it"), image.mode
        clear = image.mode in ("RGBA", "LA") or image.has_transparency_data
        indexed = mode == "P" and not clear
        pixels = np.array(image if indexed or mode.startswith("I") else image.convert("RGBA"))
    if not indexed:
        if pixels.ndim == 2:  # 16 bits
            pixels = np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, axis=2)
        varies = pixels.shape[2] == 4 and pixels[..., 3].min() < 255
        mask = pixels[..., 3] > 127 if varies else white(pixels[..., :3])
        return size, mode, [kept(mask, name, track, "the mask")] if mask.any() else []
    ids = [int(number) for number in np.unique(pixels) if number]
    shapes = [kept(pixels == number, "", number, f"object {number}") for number in ids]
    return size, mode, [replace(shape, void=shape.track == VOID) for shape in shapes]


_GREYS, _COLORED, _MOST_GREY = (16, 239), 32, 0.3
"""A matte is black and white but for soft edges: these are its greys, and the share of them that it may have."""


def white(pixels: Bytes) -> Bools:
    """Where a matte, uint8 (H, W, 3), is white; raises `ValueError` where it is a picture."""
    darkest, brightest = pixels.min(2), pixels.max(2)
    unlike = (darkest > _GREYS[0]) & (brightest < _GREYS[1]) | (brightest - darkest > _COLORED)
    if unlike.mean() > _MOST_GREY:
        raise ValueError("it shows a picture, not a matte: expected transparency, or white objects on black")
    return np.asarray(darkest > 127)
