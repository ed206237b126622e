from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.media import corners, difference, jpeg, read, solid, write_packets, write_video, yuv
from vostrack.notes import Note

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 100, 50), (20, 180, 220)]
BT709, BT601, SMPTE240M, BT2020 = 1, 6, 7, 9


def tagged(matrix: int = 2, color_range: int = 0) -> Callable[[av.VideoStream], None]:
    """Setup of a stream that says these things of its colours; 2 and 0 say nothing."""

    def setup(stream: av.VideoStream) -> None:
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, color_range

    return setup


@pytest.mark.parametrize("matrix", [BT709, BT601, SMPTE240M, BT2020])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "yuv420p10le"])
def test_every_matrix_and_range_gives_the_colours_that_were_meant(
    tmp_path: Path, matrix: int, full: bool, pix_fmt: str
) -> None:
    pictures = [yuv(color, matrix, full=full, pix_fmt=pix_fmt) for color in COLORS]
    path = write_video(tmp_path / "clip.mkv", pictures, "ffv1", pix_fmt, setup=tagged(matrix, 2 if full else 1))

    clip, frames = read(path)

    for frame, color in zip(frames, COLORS, strict=True):
        assert difference(frame, solid(color, (32, 32))) <= 1
    assert ("10-bit source, reduced to 8 bits" in clip.notes) == ("10" in pix_fmt)


@pytest.mark.parametrize(("size", "meant", "other"), [((32, 32), BT601, BT709), ((32, 1280), BT709, BT601)])
def test_a_source_without_a_matrix_is_601_in_sd_and_709_in_hd(
    tmp_path: Path, size: tuple[int, int], meant: int, other: int
) -> None:
    pictures = [yuv((200, 100, 50), matrix, full=False, size=size) for matrix in (meant, other)]
    _, frames = read(write_video(tmp_path / "clip.mkv", pictures, "ffv1", "yuv444p"))

    assert difference(frames[0], solid((200, 100, 50), size)) <= 1
    assert difference(frames[1], solid((200, 100, 50), size)) > 4


def test_a_full_range_pixel_format_needs_no_tag(tmp_path: Path) -> None:
    pictures = [yuv(color, BT601, full=True, pix_fmt="yuvj420p") for color in COLORS]
    _, frames = read(write_video(tmp_path / "clip.avi", pictures, "mjpeg", options={"qmin": "1", "q": "1"}))
    assert all(difference(frame, solid(color, (32, 32))) <= 4 for frame, color in zip(frames, COLORS, strict=True))


def test_an_unknown_matrix_is_guessed_and_noted(tmp_path: Path) -> None:
    ycgco = tagged(8)
    path = write_video(tmp_path / "clip.mkv", [solid((9, 99, 199))], "ffv1", "yuv444p", setup=ycgco)
    clip, frames = read(path)
    assert len(frames) == 1
    assert clip.notes == ["colour matrix 8 is not supported, so colours are approximate"]


@pytest.mark.parametrize("alpha", [255, 0])
def test_alpha_is_dropped_and_noted_where_something_is_transparent(tmp_path: Path, alpha: int) -> None:
    image = np.dstack([solid((250, 100, 50)), np.full((48, 64), 255, np.uint8)])
    image[:20, :20, 3] = alpha
    picture = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="argb")
    clip, frames = read(write_video(tmp_path / "clip.mov", [picture], "qtrle", "argb"))
    assert difference(frames[0], solid((250, 100, 50))) == 0
    assert clip.notes == (["transparency is ignored: the colours stored under it are shown"] if alpha == 0 else [])


def test_odd_sizes_are_exact_to_the_last_row_and_column(tmp_path: Path) -> None:
    height, width = 101, 175
    image = solid((0, 0, 128), (height, width))
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    clip, frames = read(write_video(tmp_path / "clip.mkv", [image], "ffv1", "yuv420p"))
    assert clip.size == (height, width)
    assert frames[0].image.is_contiguous()
    assert difference(frames[0], image) <= 4


@pytest.mark.parametrize("mirror", [{}, {"hflip": True}, {"vflip": True}], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirrors_are_applied(tmp_path: Path, degrees: int, mirror: dict[str, bool]) -> None:
    stored = corners()
    upright = np.rot90(stored, degrees // 90)
    upright = upright[:, ::-1] if "hflip" in mirror else upright[::-1] if "vflip" in mirror else upright

    path = tmp_path / "clip.mov"
    write_video(path, [stored] * 2, "qtrle", "rgb24", setup=lambda it: it.set_display_rotation(degrees, **mirror))
    clip, frames = read(path)

    assert clip.stored_size == (48, 80)
    assert clip.size == upright.shape[:2]
    assert [difference(frame, upright) for frame in frames] == [0, 0]
    assert all(frame.image.is_contiguous() for frame in frames)
    assert len(clip.notes) == (degrees != 0 or bool(mirror))


def test_the_turn_is_told_in_words(tmp_path: Path) -> None:
    def notes(degrees: int, **mirror: bool) -> list[Note]:
        path = tmp_path / "clip.mov"
        write_video(path, [corners()], setup=lambda stream: stream.set_display_rotation(degrees, **mirror))
        return read(path)[0].notes

    assert notes(270) == ["stored as 80x48, shown rotated by 90 degrees clockwise"]
    assert notes(0, hflip=True) == ["stored as 80x48, shown mirrored"]
    assert notes(0, vflip=True) == ["stored as 80x48, shown mirrored and rotated by 180 degrees clockwise"]


@pytest.mark.parametrize(("orientation", "turns"), [(6, 3), (3, 2), (8, 1)])
def test_exif_rotation_of_motion_jpeg_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    path = write_packets(tmp_path / "clip.avi", [jpeg(corners(), orientation)] * 2, (48, 80))
    _, frames = read(path)
    assert [difference(frame, np.rot90(corners(), turns)) <= 12 for frame in frames] == [True, True]


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(3, 2), (48, 96)), (Fraction(1, 2), (96, 64)), (Fraction(12, 11), (48, 70)), (Fraction(1), (48, 64))],
)
def test_pixels_are_made_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, [corners((48, 64))], setup=lambda s: setattr(s.codec_context, "sample_aspect_ratio", aspect))
    clip, frames = read(path)
    assert (clip.size, clip.stored_size) == (size, (48, 64))
    assert np.median(np.abs(frames[0].image.permute(1, 2, 0).numpy().astype(int) - corners(size))) <= 6
    assert clip.notes == ([f"pixels are not square: 64x48 is shown as {size[1]}x{size[0]}"] if size != (48, 64) else [])


def test_pixels_a_hair_off_square_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    hair = Fraction(513, 512)
    write_video(
        path, [solid((9, 9, 9), (288, 512))], setup=lambda s: setattr(s.codec_context, "sample_aspect_ratio", hair)
    )
    clip, _ = read(path)
    assert (clip.size, clip.notes) == ((288, 512), [])


def test_square_pixels_come_before_the_turn(tmp_path: Path) -> None:
    def setup(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        stream.set_display_rotation(90)

    clip, frames = read(write_video(tmp_path / "clip.mp4", [corners((48, 64))], setup=setup))
    assert clip.size == (96, 48)
    assert tuple(frames[0].image.shape) == (3, 96, 48)
