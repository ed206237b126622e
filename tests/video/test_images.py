from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.video.media import corners, difference, hollow_png, jpeg, noise, read, refusal, solid
from vostrack.errors import InputError
from vostrack.types import FrameStream
from vostrack.video.images import FolderStream
from vostrack.video.reader import open_clip


def save(folder: Path, *names: str, size: tuple[int, int] = (48, 64)) -> Path:
    """A folder of images, each of one colour that tells its place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(solid((16 * index, 100, 50), size)).save(folder / name)
    return folder


def order(folder: Path) -> list[str]:
    return [frame.name for frame in read(folder)[1]]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp"])
def test_every_accepted_format_is_read(tmp_path: Path, ending: str) -> None:
    folder = save(tmp_path / "a.clip", *(f"{index:05d}.{ending}" for index in range(4)))

    clip, frames = read(folder)

    assert isinstance(clip, FrameStream)
    assert (clip.name, clip.size, clip.stored_size, clip.fps, clip.count) == ("a.clip", (48, 64), (48, 64), None, 4)
    assert [(frame.index, frame.name) for frame in frames] == [(index, f"{index:05d}") for index in range(4)]
    assert [frame.time for frame in frames] == [Fraction(index, 24) for index in range(4)]
    assert all(difference(frame, solid((16 * index, 100, 50))) <= 6 for index, frame in enumerate(frames))
    assert clip.notes == []


def test_order_is_natural_and_names_are_kept(tmp_path: Path) -> None:
    save(tmp_path, "shot 10.PNG", "shot 2.Jpg", "Shot 1.png", "shot 03.jpeg", "shot 010.5.png")
    assert order(tmp_path) == ["Shot 1", "shot 2", "shot 03", "shot 10", "shot 010.5"]


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_masks_given_as_the_clip_are_pointed_out(tmp_path: Path, mode: str) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[8:30, 10:40] = 1 if mode == "P" else 255
    image = Image.fromarray(mask, "L").convert(mode) if mode != "P" else Image.fromarray(mask, "P")
    for index in range(3):
        image.save(tmp_path / f"{index:05d}.png")
    clip, _ = read(tmp_path)
    assert clip.notes == ["frames have few colours, as masks: give the footage if they are masks"]
    assert str(clip.notes[0].code) == "clip-flat"


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path, "1.png", "2.png", ".hidden.png", "._2.png")
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "clip.mp4"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    assert order(tmp_path) == ["1", "2"]


def test_a_folder_is_named_after_itself_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(save(tmp_path / "clip", "1.png"))
    with open_clip(".") as clip:
        assert clip.name == "clip"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(corners(), orientation))
    upright = {
        1: corners(),
        2: corners()[:, ::-1],
        3: corners()[::-1, ::-1],
        4: corners()[::-1],
        5: corners().transpose(1, 0, 2),
        6: np.rot90(corners(), 3),
        7: corners()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners()),
    }[orientation]
    clip, frames = read(tmp_path)
    assert difference(frames[0], upright) <= 12
    assert (clip.size, clip.stored_size) == (upright.shape[:2], (48, 80))
    assert clip.notes == (["stored as 80x48, shown upright as its EXIF tag says"] if orientation > 1 else [])


def test_16_bits_are_scaled_down_rather_than_cut_off(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    for name in ("1.png", "2.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
    clip, frames = read(tmp_path)
    expected = np.repeat((ramp / 257)[..., None], 3, axis=2)
    assert all(difference(frame, expected.astype(int)) <= 1 for frame in frames)
    assert clip.notes == ["16-bit source, reduced to 8 bits"]


@pytest.mark.parametrize(("bits", "note"), [(10, " of which 10 are used,"), (12, " of which 12 are used,"), (16, ",")])
def test_ten_or_twelve_bits_in_sixteen_are_not_nearly_black(tmp_path: Path, bits: int, note: str) -> None:
    values = np.linspace(0, 2**bits - 1, 48 * 64).reshape(48, 64)
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(tmp_path / "1.png")  # a fade from black
    for name in ("2.png", "3.tiff"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / name)
    clip, frames = read(tmp_path)
    expected = np.repeat((values / 2**bits * 256)[..., None], 3, axis=2)
    assert [difference(frame, expected.astype(int)) <= 1 for frame in frames] == [False, True, True]
    assert clip.notes == [f"16-bit source{note} reduced to 8 bits"]


def gray(value: int) -> Image.Image:
    return Image.fromarray(np.full((48, 64), value, np.uint16))


def test_all_images_tell_how_many_bits_are_used(tmp_path: Path) -> None:
    for index in range(20):
        gray(50_000 if index == 11 else 4000).save(tmp_path / f"{index}.png")
    clip, frames = read(tmp_path)
    assert clip.notes == ["16-bit source, reduced to 8 bits"]
    assert [int(frames[index].image.max()) for index in (0, 11)] == [4000 >> 8, 50_000 >> 8]


def test_an_image_that_is_brighter_than_when_the_clip_was_opened_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        gray(4000).save(tmp_path / f"{index}.png")
    with open_clip(tmp_path) as clip:
        gray(50_000).save(tmp_path / "2.png")
        with pytest.raises(InputError, match=r"2\.png' holds 50000, and no image had more than 12 bits when the clip"):
            list(clip)


def save_deep(path: Path, most: int) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "rgb48be", Fraction(1)
    image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), most, np.uint16), format="rgb48be")
    path.write_bytes(b"".join(map(bytes, encoder.encode(image))))


def test_colours_of_twelve_bits_in_sixteen_are_refused(tmp_path: Path) -> None:
    save_deep(tmp_path / "1.png", 4095)
    assert "uses 12 of them at most, so that it is nearly black; multiply the values by 16" in refusal(tmp_path)


@pytest.mark.parametrize("bright", [0, 11])
def test_a_dark_image_is_not_taken_for_twelve_bits_where_others_are_brighter(tmp_path: Path, bright: int) -> None:
    for index in range(20):
        save_deep(tmp_path / f"{index}.png", 65535 if index == bright else 2000)
    assert read(tmp_path)[0].notes == ["16-bit source, reduced to 8 bits"]


def test_transparency_is_ignored_and_noted(tmp_path: Path) -> None:
    image = Image.fromarray(corners()).quantize(4)
    image.save(tmp_path / "1.png", transparency=bytes([0, 128, 0, 200]))
    layered = Image.fromarray(corners())
    layered.putalpha(0)
    layered.save(tmp_path / "2.png")
    clip, frames = read(tmp_path)
    assert [difference(frame, corners()) for frame in frames] == [0, 0]
    assert clip.notes[0] == "transparency is ignored: the colours stored under it are shown"


@pytest.mark.parametrize(("mode", "ending"), [("L", "png"), ("1", "png"), ("P", "bmp"), ("LA", "png"), ("CMYK", "jpg")])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    Image.fromarray(solid((255, 255, 255))).convert("L").convert(mode).save(tmp_path / f"1.{ending}")
    assert difference(read(tmp_path)[1][0], solid((255, 255, 255))) <= 1


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "1.png", "1.jpg", "2.png")
    assert "images 1.jpg, 1.png" in refusal(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    assert "found nothing" in refusal(tmp_path)
    (tmp_path / "a.heic").touch()
    (tmp_path / "dog").mkdir()
    message = refusal(tmp_path)
    assert (
        "expected .avif, .bmp, .dpx, .exr, .jfif, .jpe, .jpeg, .jpg, .png, .tif, .tiff, .webp, found .heic, dog"
        in message
    )


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert "cannot be read: Permission denied" in refusal(tmp_path)


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "1.png", "2.png")
    save(tmp_path, "3.png", "4.png", size=(50, 64))
    with pytest.raises(InputError, match=r"3\.png' \(frame 2\) is 64x50, the first is 64x48 \(2 of 4 differ\)"):
        open_clip(tmp_path)


def test_images_that_are_of_one_size_when_upright_are_a_clip(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(corners(), 6))
    save(tmp_path, "2.png", size=(80, 48))
    assert order(tmp_path) == ["1", "2"]


def test_a_damaged_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    save(tmp_path, "1.png")
    data = jpeg(noise(1, (48, 64))[0])
    (tmp_path / "2.jpg").write_bytes(data[: len(data) // 2])
    with open_clip(tmp_path) as clip:
        frames = iter(clip)
        assert next(frames).name == "1"
    assert "2.jpg' cannot be read" in refusal(tmp_path)


def test_a_link_to_nowhere_is_a_missing_frame(tmp_path: Path) -> None:
    save(tmp_path, "1.png", "3.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    assert "2.png' cannot be read: No such file" in refusal(tmp_path)


def test_an_image_of_another_format_than_those_accepted_is_refused(tmp_path: Path) -> None:
    Image.fromarray(solid((9, 9, 9))).save(tmp_path / "1.png", format="GIF")
    assert "1.png' cannot be read" in refusal(tmp_path)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((48, 64), np.float32)).save(tmp_path / "1.tiff")
    assert "32 bits a pixel" in refusal(tmp_path)


@pytest.mark.parametrize("side", [9000, 12000, 30000])
@pytest.mark.parametrize("name", ["1.png", "2.png"])
def test_an_image_header_does_not_decide_how_much_memory_is_taken(tmp_path: Path, side: int, name: str) -> None:
    save(tmp_path, "1.png", "2.png")
    (tmp_path / name).write_bytes(hollow_png(side))
    message = refusal(tmp_path)
    assert "pixels" in message


def test_a_folder_is_read_once_and_closed(tmp_path: Path) -> None:
    clip = open_clip(save(tmp_path, "1.png", "2.png"))
    frames = iter(clip)
    next(frames)
    with pytest.raises(RuntimeError, match="read already"):
        iter(clip)
    clip.close()
    clip.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(frames)


@pytest.mark.data
def test_a_davis_sequence_is_read_whole(dev_data: Path) -> None:
    clip, frames = read(dev_data / "davis16" / "JPEGImages" / "480p" / "dog")
    assert (clip.name, clip.size, clip.count, len(frames)) == ("dog", (480, 854), 60, 60)
    assert frames[0].name == "00000"


def test_chosen_names_alone_are_frames(tmp_path: Path) -> None:
    for name in ("00000", "00005", "00010"):
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")
    with FolderStream(tmp_path, {"00010", "00005"}) as stream:
        assert stream.count == 2
        assert [(frame.index, frame.name) for frame in stream] == [(0, "00005"), (1, "00010")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_among_the_images_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "1.png").symlink_to(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path)


def test_several_pictures_in_one_image_of_a_folder_are_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(solid((level, 9, 9))) for level in (9, 90)]
    frames[0].save(tmp_path / "1.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "2.png")
    with open_clip(tmp_path) as clip:
        assert len(list(clip)) == 2
        assert "an image of the folder holds several pictures: its first one is used" in clip.notes
