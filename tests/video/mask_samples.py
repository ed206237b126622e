"""Small masks for the tests of mask files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vostrack.video.masks import MaskFile, read_mask

Pixels = npt.NDArray[np.uint8]

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
SIZE = (24, 32)
FULL = {"no_background": True}  # for masks at random, whose objects may fill the frame


def boxes(*values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """An image of `SIZE` with a box for each value, side by side on 0; values may be colours."""
    image = np.zeros((*SIZE, *np.shape(values[0])), np.uint8)
    for place, value in enumerate(values):
        image[4:14, 2 + 8 * place : 9 + 8 * place] = value
    return image


def read(
    folder: Path,
    image: Image.Image | npt.NDArray[Any],
    name: str = "mask.png",
    reading: dict[str, Any] | None = None,
    **save: Any,
) -> MaskFile:
    """Save an image and read it as a mask of its own size, with options of `read_mask`."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / name, **save)
    return read_mask(folder / name, (image.height, image.width), **(reading or {}))


def png16(values: npt.NDArray[np.generic]) -> bytes:
    """A PNG of 16 bits in colours, (H, W, 3), or with alpha, (H, W, 4), which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def check(mask: MaskFile, expected: npt.NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(mask.labels.pixels.numpy(), expected)
    assert mask.labels.ids == tuple(sorted(set(np.unique(expected).tolist()) - {0, 255}))
