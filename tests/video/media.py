"""Makes the media that the tests of `vostrack.video` read: small clips and images of known content."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video.reader import open_clip
from vostrack.video.stream import ClipStream

RATE = 25

PIXELS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "gif": "rgb8"}
"""The pixel format that a codec is mostly used with, where that is not yuv420p."""

# The weights of red and blue in luma, by matrix number (ISO/IEC 23091-2).
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def solid(color: Sequence[int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """An image of one colour, uint8 (H, W, 3)."""
    return np.broadcast_to(np.array(color, np.uint8), (*size, 3)).copy()


def hollow_png(side: int) -> bytes:
    """A PNG whose header claims a large square, and that holds none of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def corners(size: tuple[int, int] = (48, 80)) -> np.ndarray:
    """Red top left, green top right, blue bottom left, black elsewhere: every turn and mirror of it is different."""
    image = solid((0, 0, 0), size)
    height, width = size[0] // 2, size[1] // 2
    image[:height, :width], image[:height, width:], image[height:, :width] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return image


def ramp(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Images that grow brighter, 16 a step, so that order and loss of frames show."""
    return [solid((16 * index,) * 3, size) for index in range(count)]


def noise(count: int, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    """Images that do not compress, so that a file has many bytes to damage."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def yuv(
    color: Sequence[int], matrix: int, *, full: bool, pix_fmt: str = "yuv444p", size: tuple[int, int] = (32, 32)
) -> av.VideoFrame:
    """A picture of one RGB colour in YUV, from the definition of the matrix rather than from libswscale."""
    red_weight, blue_weight = MATRICES[matrix]
    red, green, blue = (value / 255 for value in color)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = [(blue - luma) / (1 - blue_weight) / 2, (red - luma) / (1 - red_weight) / 2]
    bits = 10 if "10" in pix_fmt else 8
    top = 2**bits - 1
    if full:
        values = [luma * top, *(part * top + 2 ** (bits - 1) for part in chroma)]
    else:
        values = [(16 + 219 * luma) * 2 ** (bits - 8), *((128 + 224 * part) * 2 ** (bits - 8) for part in chroma)]
    picture = av.VideoFrame(size[1], size[0], pix_fmt)
    for plane, value in zip(picture.planes, values, strict=True):
        np.frombuffer(memoryview(plane), np.uint16 if bits > 8 else np.uint8)[:] = min(round(value), top)
    return picture


def write_video(
    path: Path,
    images: Sequence[np.ndarray | av.VideoFrame],
    codec: str = "libx264",
    pix_fmt: str | None = None,
    *,
    stamps: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    setup: Callable[[Any], object] = lambda stream: None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode images, uint8 (H, W, 3) or ready pictures, `RATE` a second or at the given stamps; returns the path."""
    pix_fmt = pix_fmt or PIXELS.get(codec, "yuv420p")
    pictures = [
        image if isinstance(image, av.VideoFrame) else av.VideoFrame.from_ndarray(image, format="rgb24")
        for image in images
    ]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = pictures[0].width, pictures[0].height
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        setup(stream)
        for index, picture in enumerate(pictures):
            if picture.format.name != pix_fmt:
                picture = picture.reformat(format=pix_fmt)
            picture.pts = index if stamps is None else stamps[index]
            picture.time_base = time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_packets(path: Path, packets: Sequence[bytes], size: tuple[int, int], codec: str = "mjpeg") -> Path:
    """Mux encoded pictures as they are, `RATE` a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p"
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, RATE)
            container.mux(packet)
    return path


def jpeg(image: np.ndarray, orientation: int = 1) -> bytes:
    """An image as JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=95, subsampling=0, exif=exif)
    return data.getvalue()


def read(path: Path) -> tuple[ClipStream, list[Frame]]:
    """Open a clip, read it to its end and close it."""
    with open_clip(path) as clip:
        return clip, list(clip)


def pixels(frame: Frame) -> np.ndarray:
    """A frame's image as (H, W, 3) for comparison with what was written."""
    return frame.image.permute(1, 2, 0).numpy()


def difference(frame: Frame, image: np.ndarray) -> int:
    """Largest difference of a frame from an image; fails where their sizes differ."""
    assert pixels(frame).shape == image.shape
    return int(np.abs(pixels(frame).astype(int) - image).max())


def refusal(path: Path | str) -> str:
    """The message with which a clip is refused, at opening or while it is read; it must be one line."""
    with pytest.raises(InputError) as caught, open_clip(path) as clip:
        list(clip)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
