"""Folders of masks, `SEQUENCE/FRAME.png`, that anyone may have written: lists them and reads a file as a label map.

Knows nothing about ground truth and scores; the engine's own masks are read by `vostrack.video.masks`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vostrack.errors import DatasetError, damage_as
from vostrack.files import shown

Labels = NDArray[np.uint8]

# Twice the pixels of 8K video, and less than what makes Pillow warn of an attack.
_MAX_PIXELS = 2**26


def named(names: Sequence[str], most: int = 5) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return shown(", ".join(names[:most])) + more


def frame_order(name: str) -> tuple[int, str]:
    """Sorts the names of frames, so that 10 comes after 9."""
    return len(name), name


def list_folder(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones.

    Raises:
        DatasetError: it is missing or cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DatasetError(f"cannot read folder {shown(folder)}: {error.strerror or error}") from error


def list_frames(folder: Path) -> tuple[str, ...]:
    """Names of a sequence's PNG files, in order (10.png comes after 9.png); none, if it is not a folder.

    Raises:
        DatasetError: it cannot be read.
    """
    names = list_folder(folder) if folder.is_dir() else []
    return tuple(sorted((name for name in names if name.lower().endswith(".png")), key=frame_order))


def frame_key(name: str) -> str:
    """What files of one frame have in common: `1` of `00001.png` and of `00000001.png`, all of other names."""
    stem = Path(name).stem
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem


def read_mask(path: Path, *, colors: bool = True) -> Labels:
    """Label map in a PNG file: palette indices, 8-bit grey values, or DAVIS's colours, unless `colors` is false.

    Returns:
        uint8 (H, W), as stored; black and white are 0 and 255.

    Raises:
        DatasetError: the file is missing, damaged, too large or in other colours.
    """
    with damage_as(lambda error: DatasetError(f"cannot use mask {shown(path)}: {shown(error)}")):
        if not path.is_file():  # a pipe or a device could block or never end
            raise OSError("not a file")
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {_MAX_PIXELS:,} pixels")
            return _values(image, colors)


def _values(image: Image.Image, colors: bool) -> Labels:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("P", "L", "LA", "RGB", "RGBA"):
        raise ValueError(f"expected a palette or 8-bit grey values, found mode {image.mode}")
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return pixels
    if image.mode in ("LA", "RGBA"):  # what is transparent has no colour, whatever is stored there
        pixels = np.where(pixels[..., -1:] == 0, np.uint8(0), pixels)
    values, *others = np.moveaxis(pixels, -1, 0)[: 3 if image.mode.startswith("RGB") else 1]
    if others and colors:
        from vostrack.video.palette import colored_ids  # which loads torch

        if (ids := colored_ids(pixels[..., :3])) is not None:
            return ids
    if any((other != values).any() for other in others):
        raise ValueError("found colours that are not DAVIS's: save it as a palette or 8-bit grey PNG of object ids")
    return np.ascontiguousarray(values)
