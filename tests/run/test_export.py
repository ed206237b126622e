"""What all exports have in common: which frames and objects, where to, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.fakes import NAME, pictures, truth, write_clip, write_mask
from tests.formats.samples import write_masks
from tests.runs import Stop, StopAfter
from vostrack.errors import InputError, MaskError, OutputError, OutputExistsError, VostrackError
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 8


@pytest.fixture
def run(tmp_path: Path) -> Path:
    clip = write_clip(tmp_path / "clip.mp4", COUNT)
    segment(clip, truth(), tmp_path / "run", method=NAME, outputs=(), names={3: "dog"})
    return tmp_path / "run"


def names(path: Path) -> list[str]:
    return [image["file_name"] for image in json.loads(path.read_text())["images"]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, range(8)),
        ({"range": (2, 4)}, (2, 3, 4)),
        ({"range": (6, None)}, (6, 7)),
        ({"range": (2, 3), "start_number": 1001}, (1001, 1002)),
    ],
)
def test_frames_are_chosen_and_numbered(settings: Any, expected: Any, run: Path, tmp_path: Path) -> None:
    made = vostrack.export(run, "coco", tmp_path / "a.json", **settings)
    assert names(tmp_path / "a.json") == [f"{number:05d}.jpg" for number in expected]
    assert made["frames"] == len(expected)


def test_frames_of_a_part_of_a_clip_count_from_its_start(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", COUNT)
    segment(clip, {2: truth(2)}, tmp_path / "run", method=NAME, outputs=(), range=(2, 6), start_number=11)
    vostrack.export(tmp_path / "run", "coco", tmp_path / "a.json", range=(3, 4))
    assert names(tmp_path / "a.json") == ["00012.jpg", "00013.jpg"]
    with pytest.raises(InputError, match="has frames 2 to 6, not 1 to 4"):
        vostrack.export(tmp_path / "run", "coco", tmp_path / "b.json", range=(1, 4))


@pytest.mark.parametrize("only", [["dog"], [3]])
def test_objects_are_chosen_by_id_or_name(only: Any, run: Path, tmp_path: Path) -> None:
    made = vostrack.export(run, "coco", tmp_path / "a.json", only=only)
    assert made["objects"] == {"3": "dog"}
    found = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert {each["track_id"] for each in found} == {3}
    with pytest.raises(MaskError, match=r"no object horse; there are: 3 \(dog\)"):
        vostrack.export(run, "coco", tmp_path / "b.json", only=["horse"])


def test_a_class_keeps_its_number_where_other_objects_are_left_out(run: Path, tmp_path: Path) -> None:
    def read(name: str, **options: Any) -> tuple[Any, dict[int, int]]:
        vostrack.export(run, "coco", tmp_path / f"{name}.json", **options)
        vostrack.export(run, "yolo-seg", tmp_path / name, **options)
        found = json.loads((tmp_path / f"{name}.json").read_text())
        lines = [line for path in (tmp_path / name).glob("labels/**/*.txt") for line in path.read_text().splitlines()]
        told = found["categories"], (tmp_path / name / "data.yaml").read_text().partition("names:")[2]
        numbers = {each["track_id"]: each["category_id"] for each in found["annotations"]}
        assert {int(line.split()[0]) + 1 for line in lines} == {*numbers.values()}
        return told, numbers

    told, numbers = read("all")
    assert len(numbers) > 1
    for object_id, number in numbers.items():
        assert read(f"only-{object_id}", only=[object_id]) == (told, {object_id: number})


def test_images_of_a_folder_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(pictures(3), 7):
        Image.fromarray(image).save(tmp_path / "frames" / f"shot_{number}.PNG")
    segment(tmp_path / "frames", truth(), tmp_path / "run", method=NAME, outputs=(), start_number=5)
    vostrack.export(tmp_path / "run", "coco", tmp_path / "a.json", range=(1, 2))
    assert names(tmp_path / "a.json") == ["shot_8.PNG", "shot_9.PNG"]


def test_retouched_masks_are_exported_as_they_are(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros_like(truth())
    pixels[3:5, 4:9] = 200
    write_mask(run / "masks" / "00002.png", pixels)
    vostrack.export(run, "coco", tmp_path / "a.json", range=(2, 2))
    (found,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert (found["track_id"], found["bbox"]) == (200, [4, 3, 5, 2])


def test_a_folder_of_masks_is_exported_like_a_run(tmp_path: Path) -> None:
    run = write_masks(tmp_path / "masks", [truth(0), truth(1)])
    assert vostrack.export(run, "coco")["objects"] == {"3": "object_3", "200": "object_200"}
    assert names(tmp_path / "masks_coco.json") == ["00000.jpg", "00001.jpg"]
    with pytest.raises(InputError, match="does not say which clip it is of: give it as `clip`"):
        vostrack.export(run, "frames")


def test_the_folder_of_the_masks_of_a_run_stands_for_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vostrack.export(run / "masks", "coco")
    assert (made["objects"]["3"], made["out"]) == ("dog", str(tmp_path / "run_coco.json"))
    monkeypatch.chdir(run / "masks")
    made = vostrack.export(".", "frames", tmp_path / "b")
    assert (made["objects"]["3"], made["clip"]) == ("dog", str(tmp_path / "clip.mp4"))
    with pytest.raises(OutputError, match="would be among the inputs"):
        vostrack.export(".", "frames", "b")
    (run / "summary.json").unlink()
    made = vostrack.export(run / "masks", "coco", tmp_path / "c.json")
    assert made["objects"]["3"] == "object_3", "a run that is not complete may be exported as a folder"


def test_a_folder_of_neither_a_run_nor_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("labels/0.txt", "layers/0.exr"):
        folder = (tmp_path / name).parent
        folder.mkdir()
        (tmp_path / name).touch()
        with pytest.raises(InputError, match="is not the output folder of a run, and holds no palette PNGs"):
            vostrack.export(folder, "coco", tmp_path / "a.json")
    write_mask(tmp_path / "masks" / "0.png")
    write_mask(tmp_path / "masks" / "1.png", truth()[1:])
    with pytest.raises(OutputError, match=r"1\.png cannot be exported: it has another size than the first one$"):
        vostrack.export(tmp_path / "masks", "coco", tmp_path / "a.json")


def test_nothing_is_replaced_unasked(run: Path, tmp_path: Path) -> None:
    for kind, out in (("coco", tmp_path / "a.json"), ("frames", tmp_path / "frames")):
        vostrack.export(run, kind, out)
        with pytest.raises(OutputExistsError, match="is there already"):
            vostrack.export(run, kind, out)
        vostrack.export(run, kind, out, range=(0, 1), overwrite=True)
    assert len(names(tmp_path / "a.json")) == 2
    assert sorted(path.name for path in (tmp_path / "frames").glob("*.jpg")) == ["00000.jpg", "00001.jpg"]
    mended, ended = tmp_path / "frames" / "00001.jpg", (tmp_path / "frames" / ".vostrack-export.json").stat().st_mtime
    times = mended.stat().st_mtime
    os.utime(mended, (ended + 1, ended + 1))
    with pytest.raises(OutputExistsError, match=r"was changed after it was exported \(00001.jpg\)"):
        vostrack.export(run, "frames", tmp_path / "frames", overwrite=True)
    os.utime(mended, (times, times))
    (tmp_path / "frames" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds files that no export wrote, such as mine\.txt"):
        vostrack.export(run, "frames", tmp_path / "frames", overwrite=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, words in (("folder", "no export wrote, such as mine"), ("file", "is there already, and is not a folder")):
        with pytest.raises(OutputExistsError, match=words):
            vostrack.export(run, "frames", tmp_path / name, overwrite=True)
    (tmp_path / "empty").mkdir()
    assert vostrack.export(run, "frames", tmp_path / "empty")["frames"] == COUNT
    assert not list(tmp_path.glob(".vostrack-*"))


@pytest.mark.parametrize("kind", ["coco", "frames"])
def test_what_breaks_off_leaves_nothing(kind: str, run: Path, tmp_path: Path) -> None:
    class Cancel(Callbacks):
        def cancelled(self) -> bool:
            return True

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Stop):
        vostrack.export(run, kind, callbacks=StopAfter(3))
    with pytest.raises(vostrack.Cancelled, match="nothing was written" if kind == "coco" else "go on with"):
        vostrack.export(run, kind, callbacks=Cancel())
    assert bool(list(tmp_path.glob(".vostrack-*"))) == (kind == "frames"), "what can be gone on with stays"
    with pytest.raises(Stop):
        vostrack.export(run, kind, callbacks=StopAfter(1))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "coko"}, "unknown format 'coko'; did you mean 'coco'"),
        ({"format": "coco", "feather": 2.0}, "coco does not take `feather`"),
        ({"format": "coco", "colour": 2}, "colour"),
        ({"format": "coco", "out": "a.xml"}, "coco needs a name that ends with .json"),
        ({"format": "frames", "out": "a.json"}, "needs a name without an ending, for a folder"),
        ({"format": "frames", "out": "run"}, "would be among the inputs"),
        ({"format": "frames", "out": "run/masks/x"}, "would be among the inputs"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Any, words: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    before = sorted(run.rglob("*"))
    with pytest.raises(VostrackError, match=words):
        vostrack.export("run", **arguments)
    assert sorted(run.rglob("*")) == before


def test_a_run_that_is_damaged_or_not_complete_is_refused(run: Path, tmp_path: Path) -> None:
    write_mask(run / "masks" / "00003.png", np.full_like(truth(), 9))
    with pytest.raises(OutputError, match=r"00003\.png holds an object that the run does not know"):
        vostrack.export(run, "coco", tmp_path / "a.json")
    (run / "masks" / "00003.png").unlink()
    os.mkfifo(run / "masks" / "00003.png")
    with pytest.raises(OutputError, match="not a regular file"):
        vostrack.export(run, "coco", tmp_path / "a.json")
    (run / "summary.json").unlink()
    with pytest.raises(OutputError, match="not complete"):
        vostrack.export(run, "coco", tmp_path / "a.json")
    with pytest.raises(InputError, match=r"cannot find .*nowhere: give the output folder"):
        vostrack.export(tmp_path / "nowhere", "coco", tmp_path / "a.json")


def test_a_clip_that_was_moved_is_named_and_another_one_refused(run: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "clip.mp4", tmp_path / "moved.mp4")
    with pytest.raises(InputError, match=r"cannot find the clip .*clip\.mp4: say where it is with `clip`"):
        vostrack.export(run, "frames", tmp_path / "a")
    assert vostrack.export(run, "coco", tmp_path / "a.json")["frames"] == COUNT, "it needs no clip"
    assert vostrack.export(run, "frames", tmp_path / "b", clip=tmp_path / "moved.mp4")["frames"] == COUNT
    write_clip(tmp_path / "clip.mp4", COUNT + 1)
    with pytest.raises(InputError, match="is another clip than the run was over"):
        vostrack.export(run, "frames", tmp_path / "c")
