"""Which files of a folder become frames."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vostrack.errors import InputError
from vostrack.notes import Note
from vostrack.video.series import frame_files

LEFT = "left out, since not named like the frames: "


def numbered(count: int, form: str = "{:05d}.jpg") -> list[str]:
    return [form.format(index) for index in range(count)]


def chosen(folder: Path, *names: str) -> tuple[list[str], list[Note]]:
    for name in names:
        (folder / name).touch()
    paths, notes = frame_files(folder)
    return [path.name for path in paths], notes


@pytest.mark.parametrize(
    "strangers",
    [
        ["mask.png"],
        ["00000_mask.png"],
        [f"{index:05d}_mask.png" for index in range(6)],
        ["mask_00002.png", "mask_00003.png"],
        ["00001 copy.jpg", "cover.jpg"],
        ["00000-obj1.png", "00000-obj2.png"],
        ["preview.gif"],
        ["00004 (1).jpg"],
        numbered(6, "{:05d} (1).jpg"),
        ["00004(2).jpg"],
        ["00000_1.jpg"],
        ["00000-1.jpg"],
    ],
    ids=str,
)
def test_what_is_not_named_like_the_frames_is_left_out_and_said(tmp_path: Path, strangers: list[str]) -> None:
    frames = numbered(6)
    paths, notes = chosen(tmp_path, *frames, *strangers)
    more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
    assert paths == frames
    assert notes == [f"{LEFT}{', '.join(strangers[:3])}{more}"]


@pytest.mark.parametrize(
    "names",
    [
        ["2023-01-01 12.00.58.jpg", "2023-01-01 12.00.59.jpg", "2023-01-01 12.01.00.jpg"],
        ["IMG_20230101_120000.jpg", "IMG_20230101_120000_1.jpg", "IMG_20230101_120001.jpg"],
        ["20230101_120000.jpg", "20230101_120000(0).jpg", "20230101_120001.jpg"],
        ["shot 1.jpg", "shot 1.5.jpg", "shot 2.jpg"],
        ["morning_1.jpg", "morning_2.jpg", "noon_3.jpg", "noon_4.jpg"],
        numbered(1, "mask{}.png"),
        numbered(20, "{}5.png"),
        [f"gps_-122.5_{index:03d}.jpg" for index in range(6)],
        [f"{second:03d}.{tenth}.jpg" for second in range(6) for tenth in (0, 5)],
        [f"20230101_1200{second:02d}_{image}.jpg" for second in range(6) for image in (1, 2)],
    ],
    ids=lambda names: names[0],
)
def test_names_that_may_be_meant_are_frames(tmp_path: Path, names: list[str]) -> None:
    assert chosen(tmp_path, *names) == (names, [])


@pytest.mark.parametrize(
    "names",
    [
        [*numbered(4, "left_{}.png"), *numbered(4, "right_{}.png")],
        [*numbered(9, "frame{}.jpg"), *numbered(5, "mask{}.png")],
        [*numbered(9), "thumb3.jpg"],
        [*numbered(9, "IMG_{:04d}.JPG"), "IMG_E0003.JPG"],
        [name for kind in ("rgb", "depth", "mask") for name in numbered(10, kind + "_{:04d}.png")],
        [name for kind in ("rgb", "depth", "mask") for name in numbered(10, "{:04d}_" + kind + ".png")],
        [*numbered(9, "a{}.jpg"), *(name for kind in "bc" for name in numbered(8, kind + "_2{}.png"))],
        [*numbered(9, "frame_{}.jpg"), *numbered(5, "frame-{}.jpg")],
        [*numbered(9, "frame_{}.jpg"), "frame-3.jpg"],
    ],
    ids=["two views", "masks", "one", "edited", "three", "three at the end", "beside another", "punctuation", "copy"],
)
def test_two_series_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"named in different ways, such as .*; move those that are not frames"):
        chosen(tmp_path, *names)


@pytest.mark.parametrize("strangers", [numbered(9, "{:04d}.jpg"), ["0.png"]], ids=["series", "one"])
def test_numbers_that_differ_in_zeros_only_are_refused(tmp_path: Path, strangers: list[str]) -> None:
    with pytest.raises(InputError, match=r"(0, 00000|0000, 00000) in .* have the same number; keep one of them"):
        chosen(tmp_path, *numbered(9), *strangers)


@pytest.mark.parametrize(
    "names",
    [
        [f"shot_{index}.jpg" for index in range(-2, 3)],
        [f"shot{index}.jpg" for index in range(-9, 1)],
        [f"{index:04d}.jpg" for index in range(-9, -4)],
    ],
    ids=lambda names: names[0],
)
def test_numbers_below_zero_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"may have a number below zero: rename the images, .* up from 0"):
        chosen(tmp_path, *names)


@pytest.mark.parametrize("form", ["{:05d}_{}.jpg", "{:05d} ({}).jpg", "take3_{:05d}-{}.png"])
def test_copies_of_all_frames_are_refused(tmp_path: Path, form: str) -> None:
    names = [form.format(index, copy) for index in range(6) for copy in (1, 2)]
    with pytest.raises(InputError, match=r"holds 2 images for each number, such as .*: move all but one of each"):
        chosen(tmp_path, *names[:-1])


def test_numbers_that_start_again_are_said(tmp_path: Path) -> None:
    names = [f"cam{view}_{index:04d}.jpg" for view in (1, 2) for index in range(6)]
    note = "numbers start again at cam2_0000: taken as one clip, one part after the other"
    assert chosen(tmp_path, *names) == (names, [note])


def test_names_that_are_all_different_are_frames(tmp_path: Path) -> None:
    names = [hashlib.sha256(bytes([index])).hexdigest()[:6] + ".jpg" for index in range(250)]
    assert sorted(chosen(tmp_path, *names)[0]) == sorted(names)


@pytest.mark.parametrize("stranger", ["3.heic", "3.HEIC", "3.dng", "3.gif"])
def test_a_frame_that_cannot_be_read_is_not_passed_over(tmp_path: Path, stranger: str) -> None:
    with pytest.raises(InputError, match=f"{stranger} in .* cannot be read, and seem to be frames: convert them"):
        chosen(tmp_path, "1.jpg", "2.jpg", stranger, "4.jpg")


def test_an_original_beside_its_copy_is_no_frame_of_its_own(tmp_path: Path) -> None:
    assert chosen(tmp_path, *numbered(3), "00001.heic", "00001.txt") == (numbered(3), [])


def test_masks_under_the_names_of_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"00000\.jpg, 00000\.png .* would share one mask; keep one .* another folder"):
        chosen(tmp_path, *numbered(3), "00000.png")


def test_numbers_that_are_missing_are_said(tmp_path: Path) -> None:
    names = numbered(20)
    names.remove("00007.jpg")
    assert chosen(tmp_path, *names)[1] == ["frames may be missing: the numbers jump after 00006"]


def test_a_mask_beside_a_single_frame_is_left_out(tmp_path: Path) -> None:
    assert chosen(tmp_path, "mask.png", "photo1.jpg") == (["photo1.jpg"], [f"{LEFT}mask.png"])


def test_the_order_of_names_without_numbers_is_said(tmp_path: Path) -> None:
    order = "names without numbers: frames are taken in the order a.jpg, b.jpg, mask.jpg"
    assert chosen(tmp_path, "mask.jpg", "b.jpg", "a.jpg") == (["a.jpg", "b.jpg", "mask.jpg"], [order])


def test_a_folder_of_videos_is_told_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found \.mp4; give the video itself, such as clip\.mp4"):
        chosen(tmp_path, "clip.mp4")


def test_the_folder_of_a_run_is_told_to_give_the_clip(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="is what a run wrote, and holds no frames: give the clip of the run"):
        chosen(tmp_path, "summary.json", "overlay.mp4")
