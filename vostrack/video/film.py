"""Images of film scanners and renderers, DPX and OpenEXR, as they look on a screen.

FFmpeg reads DPX, and OpenEXR, an extra, reads its own. Files are not trusted: what their headers claim is checked
before memory is taken.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext

from vostrack.errors import InputError
from vostrack.files import open_regular, shown
from vostrack.notes import Code, Note
from vostrack.video.pixels import PictureConverter
from vostrack.video.series import FILM_ENDINGS
from vostrack.video.stream import MAX_PIXELS, check_size

if TYPE_CHECKING:
    from torch import Tensor

_DPX_HEADER, _DPX_ORDERS = 2048, {b"SDPX": ">", b"XPDS": "<"}
_BLACK, _WHITE = 95, 685
_DPX_SIZE, _DPX_TRANSFER, _DPX_LOG = 772, 801, (1, 3)
# Bytes of a pixel, at most, and of what stands before the pixels.
_DPX_PIXEL, _DPX_BEFORE = 16, 1 << 20
# Values of all channels of an EXR, which are read together.
MOST_VALUES = 8 * MAX_PIXELS
_MOST_NAMED = 8


def is_film(path: Path) -> bool:
    """Whether an image is one of these, by its name."""
    return path.suffix.lower() in FILM_ENDINGS


def film_size(path: Path) -> tuple[int, int]:
    """Size (H, W) of an image, from its header.

    Raises:
        InputError: it is too large, or a package is missing.
        Exception: of any kind, where it is damaged.
    """
    if path.suffix.lower() == ".exr":
        return _ExrPart(path).size
    with open_regular(path) as file:
        return _dpx_header(file, path)[0]


def read_film(path: Path) -> tuple[Tensor, list[Note]]:
    """An image, uint8 (3, H, W), and notes; raises what `film_size` raises."""
    import torch

    if path.suffix.lower() == ".exr":
        text = "floating point in linear light, shown as sRGB in 8 bits: values over 1 are white"
        return torch.from_numpy(_ExrPart(path).read()), [Note(Code.CLIP_BITS, text)]
    with open_regular(path) as file:
        (height, width), transfer = _dpx_header(file, path)
        file.seek(0)
        data = file.read(_DPX_BEFORE + _DPX_PIXEL * height * width)
    picture = _decoded("dpx", data)
    if (picture.height, picture.width) != (height, width):
        raise ValueError("its header is damaged")
    if transfer in _DPX_LOG:
        codes = picture.to_ndarray(format="rgb48le").transpose(2, 0, 1)
        text = (
            "logarithmic DPX was made sRGB as scans of film are, with black at 95 of 1023 and white at 685; if colours "
            "look wrong, as with the logarithm of a camera, give the frames as PNG in sRGB"
        )
        return torch.from_numpy(_log_levels()[codes]), [Note(Code.CLIP_COLOURS, text)]
    convert = PictureConverter(picture, None)
    return convert(picture), list(convert.notes)


def _dpx_header(file: BinaryIO, path: Path) -> tuple[tuple[int, int], int]:
    """Size (H, W), and the number of the transfer characteristic."""
    head = file.read(_DPX_HEADER)
    order = _DPX_ORDERS.get(head[:4])
    if order is None or len(head) < _DPX_HEADER:
        raise ValueError("it is not a DPX file, or it breaks off")
    width, height = struct.unpack_from(f"{order}II", head, _DPX_SIZE)
    check_size((height, width), f"image {str(path)!r}")
    return (height, width), head[_DPX_TRANSFER]


def _decoded(codec: str, data: bytes) -> av.VideoFrame:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options, decoder.thread_count = {"max_pixels": str(MAX_PIXELS)}, 1
    (picture,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    return picture


class _ExrPart:
    """The part of an EXR that has the picture: the first one with R, G and B, or Y, without the name of a layer.

    Attributes:
        size: (H, W) of the display window, which is the frame.
    """

    def __init__(self, path: Path) -> None:
        """Read the headers."""
        self._path, self._library = path, _library(path)
        headers = [part.header for part in exr_parts(path, header_only=True)]
        self._count, where = len(headers), f"image {str(path)!r}"
        for header in headers:
            check_size(extent(header["dataWindow"]), where)
        if sum(len(header["channels"]) * math.prod(extent(header["dataWindow"])) for header in headers) > MOST_VALUES:
            raise ValueError(f"its channels have more than {MOST_VALUES} values")
        self._number = next((number for number, header in enumerate(headers) if self._names(header)), -1)
        if self._number < 0:
            found = [channel.name for header in headers for channel in header["channels"]]
            listed = ", ".join(map(shown, found[:_MOST_NAMED])) + (" ..." if len(found) > _MOST_NAMED else "")
            raise ValueError(
                f"it has no channels R, G and B of full size, without a layer and not deep; found {listed}"
            )
        header = headers[self._number]
        self._channels, self._data, self._display = self._names(header), header["dataWindow"], header["displayWindow"]
        self.size = extent(self._display)
        check_size(self.size, where)

    def _names(self, header: Mapping[str, Any]) -> str:
        """Names of the channels with the picture, a letter each; none where a part has no picture."""
        channels = {channel.name: (channel.xSampling, channel.ySampling) for channel in header["channels"]}
        if header["type"] not in (self._library.scanlineimage, self._library.tiledimage):
            return ""
        if all(channels.get(name) == (1, 1) for name in "RGB"):
            return "RGB"
        # Beside colour differences, Y is not grey.
        return "Y" if channels.get("Y") == (1, 1) and not {"RY", "BY"} & channels.keys() else ""

    def read(self) -> npt.NDArray[np.uint8]:
        """The picture, uint8 (3, H, W); what lies outside of the data window is black."""
        parts = exr_parts(self._path, separate_channels=True)
        if len(parts) != self._count:  # it leaves out those that it cannot read
            raise ValueError("it is damaged, or it breaks off")
        channels = parts[self._number].channels
        image = np.zeros((3, *self.size), np.uint8)
        left, top = (int(each) for each in self._data[0])
        x, y = (int(each) for each in self._display[0])
        for plane, name in zip(image, 3 * self._channels, strict=False):
            pixels = channels[name].pixels
            if pixels.dtype not in (np.float16, np.float32) or pixels.shape != extent(self._data):
                raise ValueError("its channels R, G and B are not floating point")
            inside, target = pixels[max(y - top, 0) :, max(x - left, 0) :], plane[max(top - y, 0) :, max(left - x, 0) :]
            height, width = np.minimum(inside.shape, target.shape)
            target[:height, :width] = _on_screen(inside[:height, :width])
        return image


def extent(window: Any) -> tuple[int, int]:
    """Size (H, W) of a window, whose last row and column are in it."""
    (left, top), (right, bottom) = window
    return int(bottom) - int(top) + 1, int(right) - int(left) + 1


def _on_screen(light: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Linear light as sRGB, cut off to [0, 1]; what is no number is black."""
    levels: npt.NDArray[np.uint8] = _levels()[np.clip(light, 0, 1).astype(np.float16).view(np.uint16)]
    return levels


@cache
def _levels() -> npt.NDArray[np.uint8]:
    """What each number of half precision from 0 to 1 is in sRGB, by its bits."""
    light = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    light[~((light >= 0) & (light <= 1))] = 0
    return _srgb(light)


@cache
def _log_levels() -> npt.NDArray[np.uint8]:
    """What each of 65536 values of printing density is in sRGB.

    Source: Kodak's Cineon: 0.002 of density for each of 1024 values, and 0.6 for the gamma of the negative.
    """
    light = 10 ** ((np.arange(1 << 16) / 65535 * 1023 - _WHITE) * 0.002 / 0.6)
    black = 10 ** ((_BLACK - _WHITE) * 0.002 / 0.6)
    return _srgb(np.clip((light - black) / (1 - black), 0, 1))


def _srgb(light: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Linear light in [0, 1] as sRGB (IEC 61966-2-1)."""
    shares = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    levels: npt.NDArray[np.uint8] = np.rint(255 * shares).astype(np.uint8)
    return levels


def exr_parts(path: Path, **options: bool) -> list[Any]:
    """The parts of an OpenEXR file, from its library; raises whatever that raises.

    It prints names of damaged files as they are: one that could steer a terminal is kept from it.
    """
    with open_regular(path) as file:
        name = str(path) if str(path).isprintable() else f"/dev/fd/{file.fileno()}"
        return list(_library(path).File(name, **options).parts)


def _library(path: Path) -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            f"image {str(path)!r} needs OpenEXR, which cannot be imported ({error}): pip install 'vostrack[exr]'"
        ) from error
    return OpenEXR
