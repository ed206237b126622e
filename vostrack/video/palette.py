"""The colours of object ids: written into palette PNG files, and recognised in masks that were saved as RGB.

These are the colours of PASCAL VOC, which DAVIS uses for its objects, with white for 255 (void). Knows nothing of
files.

Source: the colour map of the PASCAL VOC development kit; `Annotations/480p` of DAVIS 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vostrack.errors import InputError, damage_as
from vostrack.files import open_regular, shown
from vostrack.types import VOID
from vostrack.video.stream import check_size


def _make_palette() -> npt.NDArray[np.uint8]:
    """Deal the bits of an id out to the channels in turn, the lowest bits to the brightest places."""
    ids = np.arange(256, dtype=np.uint8)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    colors[VOID] = 255
    colors.setflags(write=False)
    return colors


PALETTE: npt.NDArray[np.uint8] = _make_palette()
"""uint8 (256, 3), read-only: the RGB colour of each id; 0 is black, 255 white, and no two are equal."""

# DAVIS writes 191 where VOC writes 192, and VOC paints void in a colour of its own.
RECOGNISED: npt.NDArray[np.uint8] = np.concatenate(
    [PALETTE, np.where(PALETTE == 192, 191, PALETTE), [(224, 224, 192)]]
).astype(np.uint8)
"""uint8 (513, 3): every colour that `palette_ids` takes for an id."""


def palette_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Make an image whose values are ids and which any viewer shows in colour.

    Args:
        pixels: uint8 (H, W), ids.

    Returns:
        An image of mode "P" of the same size; saved as PNG, it keeps the ids.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels), "L")
    image.putpalette(PALETTE.tobytes())  # also turns the mode from L into P
    return image


def image_ids(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The ids in a mask that `palette_image` made, also where a paint program saved it with its colours alone.

    Args:
        image: of mode P, RGB or RGBA; what is transparent is background. A palette of other colours than ours says
            nothing: then the indices are the ids.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: another kind of image, or one with colours that are not in the palette.
    """
    if image.mode not in ("P", "RGB", "RGBA"):
        raise ValueError("it is another kind of image than the palette PNG that it was")
    indices = np.array(image) if image.mode == "P" else None
    if indices is not None and image.getpalette("RGB") == PALETTE.ravel().tolist():
        return indices
    pixels = np.asarray(image.convert("RGBA"))
    ids = colored_ids(np.where(pixels[..., 3:] > 0, pixels[..., :3], np.uint8(0)))
    if ids is None and indices is None:
        raise ValueError("it holds colours of no object: paint with a hard brush, in the colours of the mask alone")
    return np.array(image) if ids is None else ids


def colored_ids(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """The ids of colours, uint8 (H, W, 3), as uint8 (H, W); None where one is not in the palette."""
    used, places = np.unique(pixels.astype(np.uint32) @ (65536, 256, 1), return_inverse=True)
    colors = np.stack([used >> 16, used >> 8 & 255, used & 255], axis=1).astype(np.uint8)
    ids = palette_ids(colors) if len(used) <= len(PALETTE) else None
    return None if ids is None else ids[places.reshape(pixels.shape[:2])]


def palette_ids(colors: npt.NDArray[np.uint8], tolerance: int = 0) -> npt.NDArray[np.uint8] | None:
    """Find the ids that colours stand for, in the palette as written here, by DAVIS and by VOC.

    Args:
        colors: uint8 (N, 3).
        tolerance: largest difference in a channel, in levels, 0 to 15.

    Returns:
        uint8 (N,), or None where a colour is not in the palette.
    """
    distance = np.abs(RECOGNISED[None].astype(np.int16) - colors[:, None]).max(axis=2)
    nearest = distance.argmin(axis=1)
    if (distance[np.arange(len(colors)), nearest] > tolerance).any():
        return None
    return np.where(nearest == len(RECOGNISED) - 1, VOID, nearest % 256).astype(np.uint8)


def read_ids(path: Path, grey: bool = False) -> npt.NDArray[np.uint8]:
    """The ids in a mask of a run, which somebody may have retouched, uint8 (H, W); in grey levels too where asked for.

    Raises:
        OSError, ValueError, InputError: it is no such image, or damaged.
    """
    open_regular(path).close()
    with damage_as(lambda error: ValueError(str(error)), OSError, InputError):
        with Image.open(path, formats=["PNG"]) as image:
            check_size((image.height, image.width), shown(path))
            image.verify()  # the checksums, which reading alone does not look at; it closes the image
        with Image.open(path, formats=["PNG"]) as image:
            return np.array(image) if grey and image.mode == "L" else image_ids(image)
