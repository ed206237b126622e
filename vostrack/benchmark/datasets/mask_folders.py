"""Folders of masks, `SEQUENCE/FRAME.png`, that anyone may have written: lists them and reads a file as a label map.

Knows nothing about ground truth, scores or torch; the engine's own masks are read by `vostrack.video.masks`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vostrack.errors import DatasetError
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


def read_mask(path: Path) -> Labels:
    """Label map in a PNG file: palette indices or 8-bit grey values.

    Returns:
        uint8 (H, W), as stored; black and white are 0 and 255.

    Raises:
        DatasetError: the file is missing, damaged, too large or in colours.
    """
    try:
        if not path.is_file():  # a pipe or a device could block or never end
            raise OSError("not a file")
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {_MAX_PIXELS:,} pixels")
            return _values(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"cannot use mask {shown(path)}: {shown(error)}") from error


def _values(image: Image.Image) -> Labels:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("P", "L", "LA", "RGB", "RGBA"):
        raise ValueError(f"expected a palette or 8-bit grey values, found mode {image.mode}")
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return pixels
    values, *others = np.moveaxis(pixels, -1, 0)[: 3 if image.mode.startswith("RGB") else 1]
    if any((other != values).any() for other in others):
        raise ValueError("expected a palette or grey values, found colours")
    return np.ascontiguousarray(values)
