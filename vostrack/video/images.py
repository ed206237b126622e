"""A folder of images as a clip: natural order, upright, 8-bit RGB.

Knows nothing of video files. Images are read with Pillow, one at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video.stream import NOMINAL_RATE, ClipStream, check_size, first_line, size_text

# Endings, and the only decoders that Pillow may use for them.
_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")


class FolderStream(ClipStream):
    """Frames from the images of a folder, in natural order: `2.jpg` comes before `10.jpg`.

    Hidden files, folders and files with other endings are left alone. A folder has no clock: `fps` is None, and times
    count frames at `NOMINAL_RATE`.

    Args:
        path: a folder.
        names: stems of the images that are frames, which must be there; all, if not given.

    Raises:
        InputError: the folder cannot be read, holds no images, or two of them would share the name of a mask.
    """

    def __init__(self, path: Path, names: Collection[str] | None = None) -> None:
        super().__init__(path.resolve().name)
        self._paths = [image for image in _image_paths(path) if names is None or image.stem in names]
        self._image, self.stored_size, self.notes = read_image(self._paths[0])
        self.size = (self._image.shape[1], self._image.shape[2])
        self.fps: Fraction | None = None
        self.count: int | None = len(self._paths)

    def _frames(self) -> Iterator[Frame]:
        image = self._image
        del self._image
        for index, path in enumerate(self._paths):
            if index > 0:
                image, _, _ = read_image(path)
            size = (image.shape[1], image.shape[2])
            if size != self.size:
                raise InputError(
                    f"image {str(path)!r} (frame {index}) is {size_text(size)}, the first is {size_text(self.size)}; "
                    "the images of a clip must be of one size"
                )
            yield Frame(index, index / NOMINAL_RATE, image, path.stem)

    def _release(self) -> None:
        self._paths = []


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key that reads digits as numbers; names that differ in zeros or case only stay apart."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def _image_paths(folder: Path) -> list[Path]:
    """The images of a folder, in natural order, at least one, with different stems."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be read: {first_line(error)}; check who owns it") from error
    # A link that leads nowhere counts as well: it is a frame that is missing, and reading it will say so.
    paths = [entry for entry in entries if entry.suffix.lower() in _ENDINGS and (entry.is_file() or entry.is_symlink())]
    if not paths:
        found = ", ".join(sorted({entry.suffix.lower() or entry.name for entry in entries})[:5]) or "nothing"
        raise InputError(
            f"folder {str(folder)!r} holds no images: expected {', '.join(_ENDINGS)}, found {found}; "
            "give the folder that the frames lie in"
        )
    stem, times = Counter(path.stem for path in paths).most_common(1)[0]
    if times > 1:
        names = ", ".join(sorted(path.name for path in paths if path.stem == stem))
        raise InputError(f"images {names} in {str(folder)!r} would share one mask; keep one of them")
    return sorted(paths, key=lambda path: natural_key(path.stem))


def read_image(path: Path) -> tuple[Tensor, tuple[int, int], list[str]]:
    """Read one image: uint8 (3, H, W), the stored size (H, W), and notes.

    Raises:
        InputError: it is missing, damaged, too large or of a kind that is not read.
    """
    where = f"image {str(path)!r}"
    try:
        with Image.open(path, formats=_FORMATS) as image:
            stored = (image.height, image.width)
            check_size(stored, where)
            notes = _notes(image)
            pixels = np.array(to_rgb(ImageOps.exif_transpose(image), where).transpose(2, 0, 1), order="C")
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files, and its warnings too
        raise InputError(f"{where} cannot be read: {first_line(error)}; replace it or convert it to PNG") from error
    return torch.from_numpy(pixels), stored, notes


def to_rgb(image: Image.Image, where: str) -> npt.NDArray[np.uint8]:
    """Pixels of an image of any mode as uint8 (H, W, 3)."""
    if image.mode.startswith("I;16"):
        # Pillow would cut values over 255 off instead of scaling them.
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(f"{where} has 32 bits a pixel, and their range is unknown; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        # Only this mode takes every kind of transparency; a palette's would raise a warning.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _notes(image: Image.Image) -> list[str]:
    notes = []
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        notes.append(f"stored as {size_text((image.height, image.width))}, shown upright as its EXIF tag says")
    if image.mode.startswith("I;16"):
        notes.append("16-bit source, reduced to 8 bits")
    if image.has_transparency_data:
        notes.append("transparency is ignored: the colours stored under it are shown")
    return notes
