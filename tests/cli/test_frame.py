"""`vostrack frame`: a frame of a clip as a PNG, and refusals in one line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import IDS, register
from tests.video.media import corners, jpeg, ramp, read, write_video
from vostrack.cli import run

COUNT = 6


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives its exit code and what it says."""

    def call(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        printed, said = capfd.readouterr()
        assert printed == ""
        return code, said

    return call


def folder(name: str, stems: list[str]) -> None:
    Path(name).mkdir()
    for image, stem in zip(ramp(len(stems)), stems, strict=True):
        Image.fromarray(image).save(Path(name, f"{stem}.png"))


def animation(name: str) -> None:
    images = [Image.fromarray(image) for image in ramp(COUNT)]
    images[0].save(name, save_all=True, append_images=images[1:], duration=100, lossless=True)


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


@pytest.mark.parametrize(("text", "index"), [("4", 4), ("0.16s", 4), ("0.17s", 4), ("00:00:00.16", 4), ("0", 0)])
def test_a_frame_of_a_video_is_saved_beside_it(said: Any, text: str, index: int) -> None:
    clip = write_video(Path("clip.mp4"), ramp(COUNT))
    code, words = said("frame", "clip.mp4", text)
    assert code == 0
    assert f"frame {index}, 64x48: clip_0000{index}.png\n" in words
    _, frames = read(clip)
    assert np.array_equal(pixels(f"clip_0000{index}.png"), frames[index].image.permute(1, 2, 0).numpy())


def test_frames_of_animations_and_folders(said: Any) -> None:
    animation("clip.webp")
    folder("frames", [f"shot_{number}" for number in range(1001, 1007)])
    for arguments, path in (
        (("clip.webp", "0.4s"), "clip_00004.png"),
        (("frames/", "4", "-o", "a.png"), "a.png"),
        (("frames", "shot_1005"), "frames_00004.png"),
        (("frames", "shot_1005.png", "-o", "b.png"), "b.png"),
    ):
        assert said("frame", *arguments)[0] == 0
        assert np.array_equal(pixels(path), ramp(COUNT)[4])


def test_a_frame_is_upright(said: Any) -> None:
    Path("frames").mkdir()
    Path("frames", "0.jpg").write_bytes(jpeg(corners(), orientation=6))
    assert said("frame", "frames")[0] == 0
    assert pixels("frames_00000.png").shape == (80, 48, 3)


@pytest.mark.parametrize("stems", [["a1", "a2", "a3"], ["1", "2", "3"], ["00000", "00001", "00002"]])
def test_what_it_says_comes_next_works(said: Any, stems: list[str]) -> None:
    folder("my frames", stems)
    _, words = said("frame", "my frames", f"{stems[2]}.png", "-o", "my frame.png")
    image = np.zeros((48, 64), np.uint8)
    image[10:20, 10:20] = IDS[0]
    Image.fromarray(image).save("my frame_mask.png")
    assert "save it as my frame_mask.png" in words
    command = shlex.split(re.search("vostrack (segment .*)", words)[1])  # type: ignore[index]
    assert run([*command, "--method", "copy", "-o", "out", "--no-overlay"]) == 0
    with Image.open(f"out/masks/{stems[2]}.png") as mask:
        assert np.array_equal(np.asarray(mask), image)


def test_nothing_is_replaced_unasked(said: Any) -> None:
    write_video(Path("clip.mp4"), ramp(COUNT))
    Path("a.png").write_text("mine")
    code, words = said("frame", "clip.mp4", "2", "-o", "a.png")
    assert (code, Path("a.png").read_text()) == (9, "mine"), words
    assert "--overwrite" in words
    assert said("frame", "clip.mp4", "2", "-o", "a.png", "--overwrite")[0] == 0
    assert pixels("a.png").shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clip.mp4", "6"), "has no frame 6: it has 6, counted from 0"),
        (("clip.mp4", "9s"), "the clip ends at 0.240 s, before 9 s"),
        (("clip.mp4", "first"), "expected a frame such as 40"),
        (("clip.mp4", "4:5"), "expected a frame such as 40"),
        (("clip.mp4", "1", "-o", "a.jpg"), "a.jpg: a frame is saved as a PNG"),
        (("frames", "3.png", "-o", "frames/a.png"), "among the frames of the clip: choose another --out"),
        (("frames", "1s"), "a folder of images has no times: give the number of a frame for 1 s"),
        (("frames", "2"), "2 is frame 2, which is 3.png, and 2.png, which is frame 1: give"),
        (("none.mp4",), "cannot find clip"),
        (("none.mp4", "-o", "frames/1.png"), "cannot find clip"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_line(said: Any, arguments: tuple[str, ...], words: str) -> None:
    write_video(Path("clip.mp4"), ramp(COUNT))
    folder("frames", ["1", "2", "3"])
    before = sorted(Path().rglob("*.png"))
    code, line = said("frame", *arguments)
    assert code != 0
    assert words in line
    assert len(line.splitlines()) == 1
    assert sorted(Path().rglob("*.png")) == before
