"""`vostrack mask`: what is in masks, and masks as palette PNGs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import SIZE, register, truth, write_clip
from vostrack.cli import run
from vostrack.video.palette import palette_image

BOX = [8, 8, 24, 8, 24, 24, 8, 24]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_clip(Path("clip.mp4"), 6)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives its exit code, and what it prints on stdout and on stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        return (code, *capfd.readouterr())

    return call


def coco_file(name: str, frames: list[int], size: tuple[int, int] = SIZE) -> None:
    """COCO of a dog."""
    images = [{"id": n, "file_name": f"{n:05d}.jpg", "width": size[1], "height": size[0]} for n in frames]
    masks = [{"image_id": n, "category_id": 5, "segmentation": [BOX], "track_id": 4} for n in frames]
    content = {"images": images, "annotations": masks, "categories": [{"id": 5, "name": "dog"}]}
    Path(name).write_text(json.dumps(content))


def test_what_is_in_annotations_is_said(said: Any) -> None:
    coco_file("a.json", [1, 3])
    code, told, notes = said("mask", "check", "a.json", "clip.mp4", "--preview", "p.png")
    assert code == 0
    assert told.splitlines() == [
        f"a.json: COCO instances, {SIZE[1]}x{SIZE[0]}, masks of 2 frames",
        "frame  object  name  colour  pixels  share",
        "1      4       dog           256     8.33 %",
        "3      4       dog           256     8.33 %",
    ]
    assert "note [mask-frames] a.json, frame 1: COCO instances; the file has masks of frames 1, 3" in notes
    with Image.open("p.png") as image:
        assert image.size == (2 * SIZE[1], SIZE[0])
    code, told, _ = said("mask", "check", "3:a.json", "clip.mp4", "--json")
    record = json.loads(told)
    assert record["usable"]
    assert record["objects"] == {"4": {"name": "dog", "color": None}}
    assert record["frames"] == [{"frame": 3, "objects": {"4": {"pixels": 256, "share": 256 / (48 * 64)}}, "void": 0}]


def test_what_is_in_an_image_is_said(said: Any) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[8:24, 8:24] = (255, 0, 0)
    Image.fromarray(pixels).save("mask.png")
    code, told, _ = said("mask", "check", "mask.png", "--name", "dog=#ff0000", "--preview", "p.png")
    assert code == 0
    assert told.splitlines()[0] == "mask.png: an image, 64x48, masks of 1 frame"
    assert told.splitlines()[2].split() == ["0", "1", "dog", "#ff0000", "256", "8.33", "%"]


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (
            lambda: coco_file("a.json", [40]),
            ["a.json", "clip.mp4"],
            "mask for frame 40, but the clip ends with frame 5",
        ),
        (lambda: coco_file("a.json", [0], (96, 128)), ["a.json", "clip.mp4"], "128x96, .*or use --resize-mask"),
        (lambda: Path("a.json").write_text("{}"), ["a.json", "clip.mp4"], "none of COCO"),
        (lambda: None, ["a.png"], r"a\.png"),
        (lambda: Path("data.yaml").write_text("names: [dog]"), ["data.yaml"], "give their folder, \\."),
        (lambda: Path("classes.txt").write_text("dog"), ["classes.txt"], "it names the classes of YOLO labels"),
        (lambda: Path("00000.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n"), ["00000.txt"], "give the clip too"),
    ],
)
def test_what_cannot_be_used_is_said_with_exit_code_4(make: Any, arguments: list[str], words: str, said: Any) -> None:
    make()
    code, told, error = said("mask", "check", *arguments, "--json")
    assert code == 4
    assert not json.loads(told)["usable"]
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(words, error)


def test_without_a_clip_it_is_said_that_one_tells_more(said: Any) -> None:
    palette_image(truth(0)).save("my mask.png")
    wanted = "next: vostrack mask check 'my mask.png' CLIP, which says whether size and frames fit the clip"
    assert wanted in said("mask", "check", "my mask.png")[2]
    assert "next" not in said("mask", "check", "my mask.png", "clip.mp4")[2]
    assert "next" not in said("mask", "check", "my mask.png", "--json")[2]


def test_masks_are_written_as_palette_images(said: Any) -> None:
    coco_file("a.json", [1, 3])
    code, told, notes = said("mask", "convert", "a.json", "clip.mp4", "-o", "masks")
    assert (code, told) == (0, "")
    assert "vostrack segment clip.mp4 -m masks --name dog=4" in notes
    assert sorted(path.name for path in Path("masks").glob("*.png")) == ["00001.png", "00003.png"]
    with Image.open("masks/00003.png") as image:
        assert image.mode == "P"
        expected = np.zeros(SIZE, np.uint8)
        expected[8:24, 8:24] = 4
        assert np.array_equal(np.array(image), expected)
    code, told, _ = said("mask", "check", "masks", "clip.mp4", "--json")
    assert [frame["frame"] for frame in json.loads(told)["frames"]] == [1, 3]
    assert said("mask", "convert", "a.json", "clip.mp4", "-o", "masks")[0] == 9
    assert said("mask", "convert", "a.json", "clip.mp4", "-o", "masks", "--overwrite")[0] == 0
    code, _, error = said("mask", "convert", "a.json", "clip.mp4", "-o", "a.png")
    assert code == 4
    assert "masks of 2 frames: give a folder as --out, such as a" in error
    code, _, notes = said("mask", "convert", "3:a.json", "clip.mp4", "-o", "a.png")
    assert code == 0
    assert "-m 3:a.png --name dog=4\n" in notes
    Path("clip_vostrack/masks").mkdir(parents=True)
    _, _, notes = said("mask", "convert", "3:a.json", "clip.mp4", "-o", "b.png")
    assert "-m 3:b.png --name dog=4 -o OUT\n" in notes, "where the usual folder is taken"


def test_masks_of_a_folder_of_images_are_named_like_its_frames(said: Any) -> None:
    Path("frames").mkdir()
    for number in (7, 8):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(f"frames/img_{number}.png")
    coco_file("a.json", [8])
    Path("a.json").write_text(Path("a.json").read_text().replace("00008.jpg", "img_8.png"))
    _, _, notes = said("mask", "convert", "a.json", "frames", "-o", "masks")
    assert [path.name for path in Path("masks").glob("*.png")] == ["img_8.png"]
    assert "vostrack segment frames -m masks --name dog=4" in notes
    code, _, notes = said("segment", "frames", "-m", "masks", "--name", "dog=4", "--method", "fake", "-o", "run")
    assert code == 0, notes
    assert [*json.loads(said("mask", "check", "run", "frames", "--json")[1])["objects"]] == ["4"]
    assert "say which frame" not in said("update", "run", "-m", "masks")[2]


def test_a_mask_is_not_written_over_itself(said: Any) -> None:
    palette_image(truth(0)).save("mask.png")
    code, _, error = said("mask", "convert", "mask.png", "clip.mp4", "-o", "mask.png", "--overwrite")
    assert (code, "is one of the inputs" in error) == (6, True)
    assert said("mask", "convert", "mask.png", "clip.mp4")[0] == 2


def test_annotations_are_masks_of_a_run_and_of_its_corrections(said: Any) -> None:
    coco_file("a.json", [0, 3])
    code, told, notes = said("segment", "clip.mp4", "-m", "a.json", "--method", "fake", "-o", "run", "--json")
    assert code == 0
    assert json.loads(told)["objects"]["4"]["name"] == "dog"
    assert [*json.loads(told)["masks"]] == ["0", "3"]
    assert "mask-frames" in notes
    coco_file("b.json", [2])
    assert said("update", "run", "-m", "b.json")[0] == 0
    record = json.loads(Path("run/summary.json").read_text())
    assert [*record["masks"]] == ["0", "2", "3"]
    assert record["objects"]["4"]["name"] == "dog"
    palette_image(truth(0)).save("mask.png")
    code, _, error = said("update", "run", "-m", "mask.png")
    assert code == 4
    assert "say which frame mask.png is for" in error
    assert said("segment", "clip.mp4", "-m", "a.json", "--method", "fake", "-o", "again", "--quiet")[0] == 0
    assert said("segment", "clip.mp4", "-m", "a.json", "--method", "fake", "-o", "again", "--quiet", "--resume")[0] == 0
