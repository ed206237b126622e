"""`vostrack export`: what it prints, and refusals in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import SIZE, truth, write_clip
from tests.formats.samples import clip_folder, write_masks
from vostrack.cli import run
from vostrack.formats import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_masks(tmp_path / "run", [truth(0), truth(1)])


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives its exit code, what it prints and what it says."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["export", *arguments])
        printed, said = capfd.readouterr()
        return code, printed, said

    return call


def test_all_formats_are_listed_and_documented(said: Any) -> None:
    code, printed, _ = said("--list")
    assert code == 0
    assert set(re.findall(r"^  ([\w-]+) ", printed, re.MULTILINE)) == set(FORMATS)
    named = re.findall(r"`(?:vostrack export RUN --format )?([\w-]+)`", PAGE.read_text(encoding="utf-8"))
    assert set(FORMATS) <= set(named)


def test_it_says_what_was_written_and_what_comes_next(said: Any) -> None:
    code, printed, words = said("run", "--format", "cvat", "--range", "1", "--only", "3,object_200")
    assert (code, printed) == (0, "")
    assert "1 frame, 2 objects: run_cvat.xml\n" in words
    told = "with the labels object_3, object_200: Actions, Upload annotations, CVAT 1.1, run_cvat.xml; its images: "
    assert f"next: in a CVAT task {told}vostrack export run --format frames " in words
    assert Path("run_cvat.xml").is_file()
    code, printed, words = said("run", "--format", "davis", "-o", "a.zip", "--json", "-q")
    assert (code, words) == (0, "")
    assert json.loads(printed)["frames"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run",), 2, "give a --format; --list shows all formats"),
        (("--format", "cvat"), 2, "give a RUN"),
        (("run", "--format", "cvta"), 2, "unknown format 'cvta'; did you mean 'cvat'"),
        (("run", "--format", "cvat", "--only", "dog"), 4, "there is no object dog"),
        (("run", "--format", "cvat", "--feather", "2"), 2, "cvat does not take --feather; these do: prores4444"),
        (("run", "--format", "matte", "--grow", "2", "--shrink", "2"), 2, "give --grow or --shrink, not both"),
        (("run", "--format", "matte"), 5, "give it as --clip"),
        (("run", "--format", "cvat", "--clip", "nowhere.mp4"), 5, "nowhere.mp4: say where it is with --clip"),
        (("run", "--format", "cvat", "--fps", "24"), 2, "cvat has no frame rate: leave out --fps"),
        (("nowhere", "--format", "cvat"), 5, "cannot find nowhere: give the output folder of a run"),
        (("runs", "--format", "cvat"), 5, "cannot find runs; did you mean run?\n"),
        (("run/00000.png", "--format", "cvat"), 5, "00000.png is a file: give the output folder of a run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: Any, code: int, words: str, said: Any) -> None:
    found, printed, told = said(*arguments)
    assert (found, printed) == (code, "")
    assert words in told
    assert told.count("\n") == 1


def test_objects_may_be_typed_with_a_space_after_the_comma(said: Any) -> None:
    code, printed, _ = said("run", "--format", "cvat", "--only", "3, object_200", "--json")
    assert (code, [*json.loads(printed)["objects"]]) == (0, ["200", "3"])


@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio", "ytvis"])
def test_a_file_that_names_images_says_where_they_are(name: str, said: Any) -> None:
    write_clip(Path("clip.mp4"), 2)
    clip_folder(Path("images"), ["00000", "00001"], SIZE)
    exported = ("run", "--format", name, "--overwrite", "--range", "0-1", "--start-number", "7")
    frames = "its images: vostrack export run --format frames --range 0-1 --start-number 7"
    assert f"{frames} --clip CLIP\n" in said(*exported)[2]
    assert f"{frames} --clip clip.mp4\n" in said(*exported, "--clip", "clip.mp4")[2]
    assert "its images are in images\n" in said(*exported, "--clip", "images")[2]


def test_images_that_are_named_with_a_folder_are_put_in_one(said: Any) -> None:
    write_clip(Path("clip.mp4"), 2)
    exported = said("run", "--format", "coco", "--folders", "--clip", "clip.mp4", "--out", "a.json")[2]
    assert "its images: vostrack export run --format frames --clip clip.mp4 --out images/clip\n" in exported
    named = {image["file_name"] for image in json.loads(Path("a.json").read_text())["images"]}
    assert said("run", "--format", "frames", "--clip", "clip.mp4", "--out", "images/clip")[0] == 0
    assert all(Path("images", name).is_file() for name in named)


def test_nothing_is_replaced_unasked(said: Any) -> None:
    assert said("run", "--format", "cvat")[0] == 0
    code, _, words = said("run", "--format", "cvat")
    assert code == 9
    assert "choose another --out, move it away, or --overwrite" in words
    assert said("run", "--format", "cvat", "--overwrite")[0] == 0
