"""Folders of DPX and OpenEXR as clips."""

from __future__ import annotations

import re
import struct
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.video.media import difference, pixels, read, refusal, solid
from vostrack.errors import InputError
from vostrack.notes import Code
from vostrack.types import Frame
from vostrack.video.backwards import open_backwards
from vostrack.video.reader import open_clip

exr_only = pytest.mark.needs("OpenEXR", "exr")
SIZE = (24, 40)
COUNT = 3


def picture(index: int = 0) -> np.ndarray:
    """Levels that are all different, uint8 (H, W, 3)."""
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), np.uint8)


def linear(image: np.ndarray) -> np.ndarray:
    """sRGB as light."""
    share = image / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def write_exr(path: Path, channels: dict[str, Any], **header: Any) -> Path:
    import OpenEXR

    kind = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(kind | header, {name: np.ascontiguousarray(each) for name, each in channels.items()}).write(str(path))
    return path


def rgb(light: np.ndarray, kind: Any = np.float16, layer: str = "") -> dict[str, Any]:
    return {f"{layer}{name}": light[..., number].astype(kind) for number, name in enumerate("RGB")}


def window(left: int, top: int, width: int, height: int) -> Any:
    return np.array([left, top], np.int32), np.array([left + width - 1, top + height - 1], np.int32)


def dpx(image: np.ndarray, pix_fmt: str = "gbrp10le", transfer: int | None = None) -> bytes:
    encoder = av.CodecContext.create("dpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width, encoder.pix_fmt = image.shape[0], image.shape[1], pix_fmt
    encoder.time_base = Fraction(1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt))
    data = bytearray(b"".join(bytes(packet) for packet in [*packets, *encoder.encode(None)]))
    if transfer is not None:
        data[801] = transfer
    return bytes(data)


def folder(path: Path, ending: str, count: int = COUNT) -> Path:
    path.mkdir()
    for index in range(count):
        name = path / f"shot.{1001 + index}{ending}"
        if ending == ".exr":
            write_exr(name, rgb(linear(picture(index))))
        else:
            name.write_bytes(dpx(picture(index)))
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "one").mkdir()
    return tmp_path / "one"


@pytest.mark.parametrize("ending", [".dpx", pytest.param(".exr", marks=exr_only)])
def test_a_folder_is_a_clip(ending: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "clip", ending)
    (path / f"thumbnail{ending}").write_bytes(b"")
    clip, frames = read(path)
    assert (clip.size, clip.stored_size, clip.count, clip.fps) == (SIZE, SIZE, COUNT, None)
    assert [frame.name for frame in frames] == ["shot.1001", "shot.1002", "shot.1003"]
    assert [difference(frame, picture(index)) for index, frame in enumerate(frames)] == [0] * COUNT
    assert [note.code for note in clip.notes] == [Code.CLIP_BITS, Code.IMAGES_LEFT_OUT]
    assert str(clip.notes[1]).endswith(f": thumbnail{ending}")
    with open_backwards(path, COUNT - 1) as clip:
        back: list[Frame] = list(clip)
    assert [difference(frame, pixels(other)) for frame, other in zip(back, frames[::-1], strict=True)] == [0] * COUNT


@pytest.mark.parametrize("ending", [".dpx", pytest.param(".exr", marks=exr_only)])
def test_what_is_damaged_is_refused_in_one_line(ending: str, one: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = next(folder(one / "source", ending, 1).iterdir()).read_bytes()
    target = one / f"1{ending}"
    (one / "source" / f"shot.1001{ending}").unlink()
    (one / "source").rmdir()
    for part in (whole[: len(whole) * 2 // 3], whole[:700], whole[:10], b"", b"junk" * 1000):
        target.write_bytes(part)
        assert f"1{ending}' cannot be read: " in refusal(one)
    capfd.readouterr()  # OpenEXR's own words


@exr_only
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a file has no other name here")
def test_a_library_is_not_told_names_that_steer_a_terminal(one: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = one / "\x1b[2J1.exr"
    write_exr(path, rgb(linear(picture(0))))
    data = path.read_bytes()
    for start in range(len(data) // 2, 250, -8):  # somewhere there is the table of where the pixels are
        path.write_bytes(data[:start] + b"\x7f" * 8 + data[start + 8 :])
        with suppress(InputError), open_clip(one) as clip:
            list(clip)
    assert "\x1b" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("ending", [".dpx", pytest.param(".exr", marks=exr_only)])
def test_sizes_are_bounded_and_must_be_alike(ending: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "clip", ending)
    last = path / f"shot.1003{ending}"
    small = picture()[:-2]
    if ending == ".exr":
        write_exr(last, rgb(small))
    else:
        last.write_bytes(dpx(small))
    assert "(frame 2) is 40x22, the first is 40x24" in refusal(path)
    data = bytearray(last.read_bytes())
    if ending == ".dpx":
        data[772:780] = struct.pack("<2I" if data[:4] == b"XPDS" else ">2I", 60000, 60000)
    else:
        for name in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
            start = data.index(name) + len(name) + 4
            data[start : start + 16] = struct.pack("<4i", 0, 0, 59999, 59999)
    last.write_bytes(data)
    assert "has frames of 60000x60000, and 1 to" in refusal(path)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gbrp12be", "rgb48be", "gray", "rgba"])
def test_kinds_of_dpx(pix_fmt: str, one: Path) -> None:
    image = np.repeat(picture()[..., :1], 3, 2) if pix_fmt == "gray" else picture()
    (one / "1.dpx").write_bytes(dpx(image, pix_fmt))
    assert difference(read(one)[1][0], image) <= (1 if pix_fmt != "gray" else 2)


@pytest.mark.parametrize(("transfer", "said"), [(1, True), (3, True), (2, False), (6, False)])
def test_a_logarithmic_dpx_is_said_to_be_one(transfer: int, said: bool, one: Path) -> None:
    (one / "1.dpx").write_bytes(dpx(picture(), transfer=transfer))
    clip, _ = read(one)
    assert (Code.CLIP_COLOURS in [note.code for note in clip.notes]) == said


def test_a_logarithmic_dpx_is_shown_as_scans_of_film_are(one: Path) -> None:
    image = picture()
    (one / "1.dpx").write_bytes(dpx(image, transfer=1))
    codes = image / 255 * 1023
    light = (10 ** ((codes - 685) / 300) - 10 ** ((95 - 685) / 300)) / (1 - 10 ** ((95 - 685) / 300))
    light = light.clip(0, 1)
    wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert difference(read(one)[1][0], np.rint(wanted).astype(np.uint8)) <= 2, "a value of 1023 more or less"


@exr_only
def test_light_that_no_screen_has(one: Path) -> None:
    light = np.zeros((*SIZE, 3), np.float32)
    light[0, :6, 0] = np.nan, np.inf, -np.inf, -1, 1e30, 0.5
    write_exr(one / "1.exr", rgb(light, np.float32) | {"A": light[..., 0]})
    (frame,) = read(one)[1]
    assert pixels(frame)[0, :6, 0].tolist() == [0, 255, 0, 0, 255, 188]


@exr_only
@pytest.mark.parametrize(
    ("data", "display"),
    [
        (window(0, 0, 40, 24), window(-3, -2, 50, 30)),
        (window(5, 4, 40, 24), window(10, 8, 12, 9)),
        (window(-5, -4, 40, 24), window(0, 0, 60, 12)),
        (window(100, 100, 40, 24), window(0, 0, 30, 30)),
    ],
)
def test_the_frame_is_the_display_window(data: Any, display: Any, one: Path) -> None:
    write_exr(one / "1.exr", rgb(linear(picture())), dataWindow=data, displayWindow=display)
    (frame,) = read(one)[1]
    canvas = solid((0, 0, 0), (400, 400))
    left, top = data[0] + 150
    canvas[top : top + 24, left : left + 40] = picture()
    left, top = display[0] + 150
    width, height = display[1] - display[0] + 1
    assert difference(frame, canvas[top : top + height, left : left + width]) == 0


@exr_only
def test_grey_and_the_first_part_with_a_picture(one: Path) -> None:
    import OpenEXR

    light = linear(picture()).astype(np.float16)
    write_exr(one / "1.exr", {"Y": light[..., 0]})
    assert difference(read(one)[1][0], np.repeat(picture()[..., :1], 3, 2)) == 0
    parts = [({"name": "depth"}, {"Z": light[..., 0]}), ({"name": "beauty"}, rgb(light) | {"dog.Y": light[..., 1]})]
    made = [OpenEXR.Part(header, {n: np.ascontiguousarray(c) for n, c in each.items()}) for header, each in parts]
    OpenEXR.File(made).write(str(one / "1.exr"))
    assert difference(read(one)[1][0], picture()) == 0


@exr_only
def test_other_layouts_are_refused(one: Path) -> None:
    light = picture()
    for channels, words in [
        (rgb(light, layer="beauty."), "no channels R, G and B of full size, .*; found beauty.B, beauty.G, beauty.R"),
        ({"Z": light[..., 0].astype(np.float32)}, "found Z"),
        (rgb(light, np.uint32), "not floating point"),
    ]:
        write_exr(one / "1.exr", channels)
        assert re.search(words, refusal(one))


def test_beside_other_images_they_are_no_frames(tmp_path: Path) -> None:
    path = folder(tmp_path / "clip", ".dpx")
    for index in range(COUNT):
        Image.fromarray(solid((9, 9, 9), SIZE)).save(path / f"shot.{1001 + index}.png")
    _, frames = read(path)
    assert [difference(frame, solid((9, 9, 9), SIZE)) for frame in frames] == [0] * COUNT
    (path / "shot.1003.png").unlink()
    assert "shot.1003.dpx" in refusal(path)


def test_a_mask_among_them_is_left_out_and_said(tmp_path: Path) -> None:
    path = folder(tmp_path / "clip", ".dpx")
    Image.fromarray(solid((9, 9, 9), SIZE)).save(path / "mask.png")
    clip, frames = read(path)
    assert [difference(frame, picture(index)) for index, frame in enumerate(frames)] == [0] * COUNT
    assert "left out, since not named like the frames: mask.png" in clip.notes


def test_a_missing_package_is_named(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (one / "1.exr").write_bytes(b"")
    assert "pip install 'vostrack[exr]'" in refusal(one)
