"""Decoded pictures to upright RGB with square pixels, whatever their pixel format, colour matrix, shape or rotation.

libswscale does the arithmetic; this module tells it what the source is, and says in notes what was changed. Knows
nothing of files and of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, ColorTrc, Interpolation, VideoReformatter

from vostrack.notes import Code, Note
from vostrack.video.stream import size_text
from vostrack.video.tone import ToneMapper

if TYPE_CHECKING:
    from torch import Tensor

Quarter = tuple[int, int, int, int]
"""(a, b, c, d), each -1, 0 or 1: the stored pixel (x, y) is shown in the direction (a*x + c*y, b*x + d*y)."""

UPRIGHT: Quarter = (1, 0, 0, 1)
_COUNTERCLOCKWISE: tuple[Quarter, ...] = (UPRIGHT, (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))

# Colour matrices as ISO/IEC 23091-2 numbers them, and what libswscale calls them. BT.2020 with constant luminance (10)
# is no matrix; the one without is the nearest.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_RGB, _UNSPECIFIED = 0, 2
_HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
_BT709_PRIMARIES = 1

# Scaling a video to even sizes leaves pixels that are a hair off square; to resample those would only blur. The least
# that is ever meant is 6 % (16:15).
_ROUNDING = Fraction(2, 100)

# Without the last two, libswscale takes a shortcut whose colours are off by up to 3 of 255.
_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class PictureConverter:
    """Converts the pictures of one stream, all in the way that the first one asks for.

    Args:
        first: the stream's first picture.
        aspect: width of a stored pixel divided by its height, or None for square pixels.

    Attributes:
        size: (H, W) of the converted pictures.
        notes: one line for each property of the source that a user may want to know.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None) -> None:
        stored = (first.height, first.width)
        self._scaled = square_size(stored, aspect)
        self._quarter = quarter_turn(first)
        self._scaler = VideoReformatter()
        self._mapper = _tone_mapper(first)
        height, width = self._scaled
        self.size = (height, width) if self._quarter[0] else (width, height)
        self.notes = _format_notes(first)
        if self._scaled != stored:
            text = f"pixels are not square: {size_text(stored)} is shown as {size_text(self._scaled)}"
            self.notes.append(Note(Code.CLIP_SQUARED, text))
        if self._quarter != UPRIGHT:
            text = f"stored as {size_text(stored)}, shown {turn_text(self._quarter)}"
            self.notes.append(Note(Code.CLIP_TURNED, text))

    def __call__(self, picture: av.VideoFrame) -> Tensor:
        """Convert one picture.

        Returns:
            uint8 (3, H, W), RGB, full range.

        Raises:
            av.FFmpegError: libswscale does not know the pixel format.
        """
        import torch

        height, width = self._scaled
        # Planar RGB is what the result needs, and libswscale's fastest exact way out of YUV.
        planar = self._scaler.reformat(
            picture,
            width=width,
            height=height,
            format="gbrp16le" if self._mapper else "gbrp",
            src_colorspace=_matrix(picture),
            interpolation=_QUALITY,
            threads=1,
        )
        depth = np.dtype(np.uint16 if self._mapper else np.uint8)
        green, blue, red = (
            np.frombuffer(memoryview(plane), depth).reshape(height, -1)[:, :width] for plane in planar.planes
        )
        colors = self._mapper([red, green, blue]) if self._mapper else [red, green, blue]
        return torch.from_numpy(np.ascontiguousarray(np.stack([turn(plane, self._quarter) for plane in colors])))


def square_size(size: tuple[int, int], aspect: Fraction | None) -> tuple[int, int]:
    """Size (H, W) with square pixels: like players, stretch the short side of the pixels, so that nothing is lost."""
    height, width = size
    if not aspect or aspect < 0 or abs(aspect - 1) < _ROUNDING:
        return size
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def quarter_turn(picture: av.VideoFrame) -> Quarter:
    """How a picture wants to be turned and mirrored: its display matrix, rounded to quarter turns."""
    try:
        side_data = cast(Mapping[SideData, bytes], picture.side_data)  # PyAV's stubs know one kind only
    except ValueError:
        # PyAV gives no side data at all where one kind is newer than it (EXIF tags in MJPEG, views of spatial video).
        # It still tells the rotation, if not the mirror.
        return _COUNTERCLOCKWISE[round(picture.rotation / 90) % 4]
    if SideData.DISPLAYMATRIX not in side_data:
        return UPRIGHT
    a, b, _, c, d, *_ = np.frombuffer(bytes(side_data[SideData.DISPLAYMATRIX]), np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return 0, _sign(b), _sign(c), 0
    return _sign(a), 0, 0, _sign(d)


def turn(plane: npt.NDArray[np.uint8], quarter: Quarter) -> npt.NDArray[np.uint8]:
    """Turn and mirror a plane (H, W); returns a view of it, (H, W) or (W, H)."""
    a, b, c, d = quarter
    if a == 0:
        plane, a, d = plane.T, c, b
    return plane[::d, ::a]


def turn_text(quarter: Quarter) -> str:
    """The turn in words, as a note says it."""
    a, b, c, d = quarter
    mirrored = a * d - b * c < 0
    right, down = (-a, -b) if mirrored else (a, b)  # where the x axis goes, without the mirror
    degrees = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[right, down]
    words = ["mirrored"] * mirrored + [f"rotated by {degrees} degrees clockwise"] * (degrees > 0)
    return " and ".join(words)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def _matrix(picture: av.VideoFrame) -> Colorspace:
    """The source's matrix; where it does not say, the guess that mpv makes: HD is BT.709, SD is BT.601."""
    guess = Colorspace.ITU709 if picture.width >= 1280 or picture.height > 576 else Colorspace.ITU601
    return _MATRICES.get(picture.colorspace, guess)


def _tone_mapper(picture: av.VideoFrame) -> ToneMapper | None:
    """What brings the source to standard range, if it is of high range."""
    kind = _HDR.get(picture.color_trc)
    return ToneMapper(kind == "HLG", picture.color_primaries != _BT709_PRIMARIES) if kind else None


def _format_notes(picture: av.VideoFrame) -> list[Note]:
    notes = []
    components = picture.format.components
    bits = max(component.bits for component in components)
    if bits > 8:
        notes.append(Note(Code.CLIP_BITS, f"{bits}-bit source, reduced to 8 bits"))
    if picture.color_trc in _HDR:
        text = f"high dynamic range ({_HDR[picture.color_trc]}), tone-mapped to standard range"
        notes.append(Note(Code.CLIP_HDR, text))
    if not picture.format.is_rgb and picture.colorspace not in {_RGB, _UNSPECIFIED, *_MATRICES}:
        text = f"colour matrix {picture.colorspace} is not supported, so colours are approximate"
        notes.append(Note(Code.CLIP_COLOURS, text))
    if any(component.is_alpha for component in components) and _is_transparent(picture):
        notes.append(Note(Code.CLIP_TRANSPARENT, "transparency is ignored: the colours stored under it are shown"))
    return notes


def _is_transparent(picture: av.VideoFrame) -> bool:
    return bool(picture.to_ndarray(format="rgba")[..., 3].min() < 255)
