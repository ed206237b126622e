"""Images as a clip: those of a folder, in natural order and upright, or arrays, tensors and PIL images from memory.

Knows nothing of video files. The files of a folder are read one at a time, with Pillow or by `film`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vostrack.errors import InputError, damage_as
from vostrack.files import open_regular
from vostrack.notes import Code, Note
from vostrack.types import Frame
from vostrack.video.film import film_size, is_film, read_film
from vostrack.video.series import frame_files, image_files
from vostrack.video.stream import NOMINAL_RATE, ClipStream, check_size, no_image, reason, size_text

if TYPE_CHECKING:
    from torch import Tensor

# The only decoders that Pillow may use.
_FORMATS = ("AVIF", "BMP", "JPEG", "PNG", "TIFF", "WEBP")
# So many images are looked at first to learn how many of their 16 bits are used.
_SAMPLES = 8
# Footage hardly gets by with so few colours.
_MASK_COLORS = 16
# Chunks of a WebP that are looked at before it counts as lossy.
_MOST_CHUNKS = 64

# Colour spaces in which 0 is another colour than black.
_NOT_BLACK = ("CMYK", "YCbCr", "LAB")

_END = object()
_EXPECTED = "a uint8 array (H, W, 3) in RGB, a uint8 tensor (3, H, W) or a PIL image"


class _ImageStream(ClipStream):
    """Images of one size; where they have no times of their own, these count frames at `fps`, or `NOMINAL_RATE`."""

    fps: Fraction | None = None
    kind: str
    """What the frames are, in messages."""

    def _frames(self) -> Iterator[Frame]:
        for index, (name, where, image) in enumerate(self._images()):
            size = (image.shape[1], image.shape[2])
            if size not in (self.size, (0, 0)):  # that of `no_image`
                raise InputError(
                    f"{where} is {size_text(size)}, the first is {size_text(self.size)}; "
                    f"the {self.kind} of a clip must be of one size"
                )
            yield Frame(index, self._time(index), image, name)

    def _time(self, index: int) -> Fraction:
        """Seconds from the first frame to the one that was read last."""
        return index / (self.fps or NOMINAL_RATE)

    @abstractmethod
    def _images(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield for each frame its name, what it is called in messages, and its image."""


class FolderStream(_ImageStream):
    """Frames from the images of a folder, in natural order: `2.jpg` comes before `10.jpg`.

    Which files are frames, `series.frame_files` says. The sizes of all are read at once, from their headers. A folder
    has no clock: without a rate, `fps` is None, and times count frames at `NOMINAL_RATE`.

    Args:
        path: a folder.
        names: stems of the images that are frames, which must be there; all, if not given.
        rate: frames a second.

    Raises:
        InputError: the folder cannot be read, holds no images, or it is not clear which of them are frames; the images
            are of different sizes.
    """

    kind = "images"
    timed = False

    def __init__(self, path: Path, names: Collection[str] | None = None, rate: Fraction | None = None) -> None:
        super().__init__(path.resolve().name)
        self.fps = rate
        if names is None:
            self._paths, notes = frame_files(path)
        else:
            self._paths, notes = image_files(path, names), []
        self._bits = _used_bits(self._paths)
        self._image, self.stored_size, self.notes = read_image(self._paths[0], self._bits)
        self.notes += notes
        self.size = (self._image.shape[1], self._image.shape[2])
        self.count, self.files = len(self._paths), [path.name for path in self._paths]
        _check_sizes(self._paths)

    def _images(self) -> Iterator[tuple[str, str, Tensor]]:
        first = self._image
        del self._image
        for index, path in enumerate(self._paths):
            needed = index >= self.images_from
            image = no_image() if not needed else read_image(path, self._bits)[0] if index else first
            yield path.stem, f"image {str(path)!r} (frame {index})", image

    def _release(self) -> None:
        self._paths = []


class AnimationStream(_ImageStream):
    """Frames of an animated WebP, which FFmpeg cannot read, with their own times.

    Args:
        path: such a file.

    Raises:
        InputError: it cannot be read.
    """

    kind = "frames"

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self._where = f"animation {str(path)!r}"
        with _explained(self._where):
            self._file = Image.open(path, formats=("WEBP",))
            self.size = self.stored_size = (self._file.height, self._file.width)
            check_size(self.size, self._where)
            opaque = self._file.convert("RGBA").getchannel("A").getextrema() == (255, 255)
            self.notes = [] if opaque else _notes(self._file)  # its frames always have an alpha channel
        self.count: int = getattr(self._file, "n_frames", 1)
        lasts = self._file.info.get("duration")
        self.fps = Fraction(1000, lasts) if lasts else None
        self._last = Fraction(0)

    def _images(self) -> Iterator[tuple[str, str, Tensor]]:
        import torch

        for index in range(self.count):
            where = f"{self._where} (frame {index})"
            with _explained(where):
                self._file.seek(index)
                self._file.load()  # now its time is known
                if index < self.images_from:
                    yield f"{index:05d}", where, no_image()
                    continue
                image = torch.from_numpy(np.array(to_rgb(self._file, where).transpose(2, 0, 1), order="C"))
            yield f"{index:05d}", where, image

    def _time(self, index: int) -> Fraction:
        if index:
            stamp = Fraction(self._file.info.get("timestamp", 0), 1000)
            self._last = max(stamp, self._last + Fraction(1, 1000))
        return self._last

    def _release(self) -> None:
        self._file.close()


class ArrayStream(_ImageStream):
    """Frames of an iterable, which may be a generator of unknown length.

    Args:
        frames: arrays (H, W, 3), tensors (3, H, W) or PIL images. Each is copied: its memory may be used again.

    Raises:
        InputError: there is no frame, or the first one cannot be used.
    """

    kind = "frames"
    timed = False

    def __init__(self, frames: Iterable[Any]) -> None:
        super().__init__("frames")
        if isinstance(frames, Image.Image) or getattr(frames, "ndim", 4) < 4:
            raise InputError("this is one frame, and a clip was expected; put its frames into a list, such as [frame]")
        try:
            self._rest = iter(frames)
        except TypeError:
            raise InputError(
                f"frames are a path or an iterable, such as a list of arrays, not {type(frames).__name__}"
            ) from None
        first = next(self._rest, _END)
        if first is _END:
            raise InputError("there are no frames")
        self._first = read_array(first, "frame 0")
        self.size = self.stored_size = (self._first.shape[1], self._first.shape[2])
        self.count = len(frames) if isinstance(frames, Sized) else None

    def _images(self) -> Iterator[tuple[str, str, Tensor]]:
        yield "00000", "frame 0", self._first
        del self._first
        for index, image in enumerate(self._rest, 1):
            needed = index >= self.images_from
            yield f"{index:05d}", f"frame {index}", read_array(image, f"frame {index}") if needed else no_image()

    def _release(self) -> None:
        self._rest = iter(())


def _check_sizes(paths: Sequence[Path]) -> None:
    """Refuse images of different sizes by their headers, which takes no time, rather than when it is their turn."""
    sizes = [image_size(path) for path in paths]
    others = [index for index, size in enumerate(sizes) if size != sizes[0]]
    if others:
        index = others[0]
        many = f" ({len(others)} of {len(sizes)} differ)" if len(others) > 1 else ""
        raise InputError(
            f"image {str(paths[index])!r} (frame {index}) is {size_text(sizes[index])}, the first is "
            f"{size_text(sizes[0])}{many}; the images of a clip must be of one size"
        )


def image_size(path: Path) -> tuple[int, int]:
    """Size (H, W) of an image as it is shown."""
    if is_film(path):
        with _explained(f"image {str(path)!r}"):
            return film_size(path)
    with _reading(path) as image:
        check_size((image.height, image.width), f"image {str(path)!r}")
        # Pillow turns a TIFF by itself, and would decode a PNG to look for tags behind its pixels.
        tagged = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        turned = tagged and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def is_black(path: Path) -> bool:
    """Whether an image is all black, as 0, and its alpha, if there is some, says no more; raises as `image_size`."""
    with _reading(path) as image:
        if image.mode in _NOT_BLACK:
            return False
        alike = [band.getextrema() for band in image.split()]
        return all(
            low == high and (low == 0 or name == "A") for (low, high), name in zip(alike, image.getbands(), strict=True)
        )


def _used_bits(paths: Sequence[Path]) -> int:
    """How many bits the values of 16-bit images have: 10 or 12, if none has more, else 16.

    Raises:
        InputError: there are fewer than 16 bits, of which Pillow keeps the upper eight alone.
    """
    if is_film(paths[0]):
        return 16
    with _reading(paths[0]) as image:
        gray = image.mode.startswith("I;16")
        if not gray and not _has_16_bits(image):
            return 16
    most, enough = 0, 1 << (12 if gray else 4)
    # Spread over the clip at first: it may begin in the dark.
    for path in dict.fromkeys([*paths[:: -(-len(paths) // _SAMPLES)], *paths]):
        with _reading(path) as image:
            check_size((image.height, image.width), f"image {str(path)!r}")
            most = max(most, int(np.asarray(image).max()))
        if most >= enough:
            return 16
    if not gray and most:
        raise InputError(
            f"image {str(paths[0])!r} has 16 bits a channel, and uses 12 of them at most, so that it is nearly black; "
            "multiply the values by 16, or convert them to 8 bits"
        )
    return next((bits for bits in (10, 12) if 0 < most < 1 << bits), 16)


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an image has 16 bits a channel, of which Pillow says nothing once it is decoded."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and ";16" in str(tiles[0].args)


def read_image(path: Path, bits: int = 16) -> tuple[Tensor, tuple[int, int], list[Note]]:
    """Read one image: uint8 (3, H, W), the stored size (H, W), and notes.

    Args:
        path: of the image.
        bits: that are used, where it has 16.

    Raises:
        InputError: it is missing, damaged, too large or of a kind that is not read, or uses more bits.
    """
    import torch

    where = f"image {str(path)!r}"
    if is_film(path):
        with _explained(where):
            film, notes = read_film(path)
        return film, (film.shape[1], film.shape[2]), notes
    with _reading(path) as image:
        stored = (image.height, image.width)
        check_size(stored, where)
        notes = _notes(image, bits)
        pixels = np.array(to_rgb(ImageOps.exif_transpose(image), where, bits).transpose(2, 0, 1), order="C")
    return torch.from_numpy(pixels), stored, notes


@contextmanager
def _reading(path: Path) -> Iterator[Image.Image]:
    """An image file, opened; raises `InputError`, then or while it is read."""
    with _explained(f"image {str(path)!r}"), open_regular(path) as file, Image.open(file, formats=_FORMATS) as image:
        yield image


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn whatever Pillow raises, as an error or a warning, into an `InputError`."""

    def refusal(error: Exception) -> InputError:
        if isinstance(error, UnidentifiedImageError):
            why = "it is empty or no image of these kinds; replace it or take it out"
        else:
            why = reason(error, "replace it or convert it to PNG")
        return InputError(f"{where} cannot be read: {why}")

    with damage_as(refusal, InputError):
        yield


def is_animated_webp(file: BinaryIO) -> bool:
    """Whether a file, from its start, is a WebP with an animation in it."""
    head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


def is_multi_picture(path: Path) -> bool:
    """Whether a JPEG holds several versions of one image, as those of phones do."""
    with suppress(ValueError), damage_as(ValueError), Image.open(path, formats=("JPEG",)) as image:
        return image.format == "MPO"
    return False


def is_lossy(file: BinaryIO, kind: str | None) -> bool:
    """Whether an image format adds noise to what is saved in it; for a WebP, the file itself tells.

    Args:
        file: the image; its position changes.
        kind: what Pillow calls its format. Those that are lossless now and then, and do not say so, count as lossy.
    """
    if kind != "WEBP":
        return kind in ("JPEG", "MPO", "AVIF")
    file.seek(12)
    for _ in range(_MOST_CHUNKS):
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        if name in (b"VP8L", b"VP8 ", b""):
            return name != b"VP8L"
        # A frame of an animation has 16 bytes of its own before its chunks.
        file.seek(16 if name == b"ANMF" else size + size % 2, 1)
    return True


def to_rgb(image: Image.Image, where: str, bits: int = 16) -> npt.NDArray[np.uint8]:
    """Pixels of an image of any mode as uint8 (H, W, 3); `bits` are used where there are 16."""
    if image.mode.startswith("I;16"):
        # Pillow would cut values over 255 off instead of scaling them.
        values = np.asarray(image)
        if bits < 16 and values.max() >= 1 << bits:
            raise InputError(
                f"{where} holds {values.max()}, and no image had more than {bits} bits when the clip was opened; "
                "start again once all of them are there, and stay the same"
            )
        gray = (values >> (bits - 8)).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(f"{where} has 32 bits a pixel, and their range is unknown; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        # Only this mode takes every kind of transparency; a palette's would raise a warning.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _notes(image: Image.Image, bits: int = 16) -> list[Note]:
    deep = image.mode.startswith("I;16") or _has_16_bits(image)
    notes = []
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        stored = size_text((image.height, image.width))
        notes.append(Note(Code.CLIP_TURNED, f"stored as {stored}, shown upright as its EXIF tag says"))
    if deep:
        used = f" of which {bits} are used," if bits < 16 else ","
        notes.append(Note(Code.CLIP_BITS, f"16-bit source{used} reduced to 8 bits"))
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # phones store versions of one photo
        notes.append(Note(Code.IMAGE_PAGES, "an image of the folder holds several pictures: its first one is used"))
    if image.has_transparency_data:
        notes.append(Note(Code.CLIP_TRANSPARENT, "transparency is ignored: the colours stored under it are shown"))
    # One colour alone may be a fade.
    if image.mode in ("1", "L", "P") and len(image.getcolors(_MASK_COLORS) or ()) > 1:
        notes.append(Note(Code.CLIP_FLAT, "frames have few colours, as masks: give the footage if they are masks"))
    return notes


def read_array(value: Any, where: str) -> Tensor:
    """An image from memory as uint8 (3, H, W), contiguous, with memory of its own.

    Args:
        value: uint8 array (H, W, 3), uint8 tensor (3, H, W), or PIL image, whose transparency is left out.
        where: what it is, for messages.

    Raises:
        InputError: anything else.
    """
    import torch

    if isinstance(value, Frame):
        return read_array(value.image, where)
    if isinstance(value, Image.Image):
        check_size((value.height, value.width), where)
        return torch.from_numpy(np.array(to_rgb(value, where).transpose(2, 0, 1), order="C"))
    if isinstance(value, torch.Tensor):
        channels, kind = value.shape[:1], value.dtype == torch.uint8
    elif isinstance(value, np.ndarray):
        channels, kind = value.shape[2:], value.dtype == np.uint8
    else:
        path = "; give the folder that the images lie in, or open each with PIL.Image.open"
        advice = path if isinstance(value, str | PathLike) else ""
        raise InputError(f"{where} is a {type(value).__name__}: expected {_EXPECTED}{advice}")
    if not kind or value.ndim != 3 or tuple(channels) != (3,):
        raise InputError(f"{where} is {value.dtype} {tuple(value.shape)}: expected {_EXPECTED}{_advice(value)}")
    planes = value if isinstance(value, torch.Tensor) else value.transpose(2, 0, 1)
    check_size((planes.shape[1], planes.shape[2]), where)
    if isinstance(planes, torch.Tensor):
        return planes.detach().cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(planes, order="C"))


def _advice(value: npt.NDArray[Any] | Tensor) -> str:
    """How the usual mistakes are mended."""
    array, shape = isinstance(value, np.ndarray), tuple(value.shape)
    values = value if isinstance(value, np.ndarray) else value.detach().cpu().double().numpy()
    if array and shape[2:] == (4,):
        return "; drop the alpha channel with image[..., :3]"
    if len(shape) == 2:
        return "; repeat a grey image three times"
    if (array and shape[:1] == (3,) and shape[2:] != (3,)) or (not array and shape[2:] == (3,)):
        return "; turn the axes with " + ("image.transpose(1, 2, 0)" if array else "image.permute(2, 0, 1)")
    if "uint8" in str(value.dtype) or values.dtype.kind not in "biuf" or not values.size:
        return ""
    change = "astype(np.uint8)" if array else "to(torch.uint8)"
    least, most = float(values.min()), float(values.max())
    if not (least >= 0 and most <= 65535):
        return f"; its values go from {least:g} to {most:g}, so scale them to 0 to 255 first"
    if "float" in str(value.dtype):
        scaled = "(255 * image)" if most < 1.01 else "image" if most <= 255 else "(image / 257)"
        return f"; values up to {most:g} become that by {scaled}.round().{change}"
    bits = next(bits for bits in (8, 10, 12, 14, 16) if most < 1 << bits)
    shifted = "image" if bits == 8 else f"(image >> {bits - 8})"
    return f"; values up to {most:g} become that by {shifted}.{change}"
