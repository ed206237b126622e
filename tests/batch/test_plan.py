from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.batch.clips import SIZE, write_clips
from vostrack import InputError, PlanError, read_plan
from vostrack.batch.check import check
from vostrack.batch.pairs import clips_in, paired
from vostrack.batch.task import Task
from vostrack.cli.plan import csv_of, json_of, rows_of, tasks_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), {"dog": 3, "cat": 4})


def plan(folder: Path, text: str, name: str = "plan.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    return caught.value.faults


def test_a_row_is_what_segment_would_be_given(folder: Path) -> None:
    text = (
        "clip,mask,method,preset,size,overlay,gone,name,range,set\n"
        "videos/dog.mp4,1:masks/dog.png;0.5s:masks/cat.png,anchors,paper,full,no,dog@1-2;2@0,dog=1;cat=#ff0000,0-2,radius=3\n"
    )
    (task,) = read_plan(plan(folder, text))
    assert (task.clip, task.name) == (folder / "videos/dog.mp4", "dog")
    assert task.masks == {1: folder / "masks/dog.png", Fraction(1, 2): folder / "masks/cat.png"}
    told = task.arguments
    assert (told["method"], told["preset"], told["size"], told["range"]) == ("anchors", "paper", None, (0, 2))
    assert (told["outputs"], told["settings"]) == (["masks"], {"radius": 3})
    assert told["gone"] == {"dog": [(1, 2)], 2: [(0, 0)]}
    assert told["names"] == {1: "dog", (255, 0, 0): "cat"}


def test_json_lines_say_the_same_as_csv(folder: Path) -> None:
    row = {"clip": "videos/dog.mp4", "mask": ["0:masks/dog.png", "2:masks/cat.png"], "overlay": False, "size": 240}
    as_json = plan(folder, json.dumps(row) + "\n\n", "plan.jsonl")
    text = "clip,mask,overlay,size\nvideos/dog.mp4,0:masks/dog.png;2:masks/cat.png,no,240\n"
    (one,), (other,) = read_plan(as_json), read_plan(plan(folder, text))
    assert (one.masks, one.arguments) == (other.masks, other.arguments)


def test_options_hold_where_a_row_says_nothing(folder: Path) -> None:
    text = "clip,mask,preset\nvideos/dog.mp4,masks/dog.png,\nvideos/cat.mp4,masks/cat.png,accurate\n"
    tasks = read_plan(plan(folder, text), {"preset": "fast", "objects": "yes"})
    assert [task.arguments["preset"] for task in tasks] == ["fast", "accurate"]
    assert all("objects" in task.arguments["outputs"] for task in tasks)


def test_paths_begin_at_the_folder_of_the_plan(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (task,) = read_plan(plan(folder, "clip,mask\nvideos/dog.mp4,masks/dog.png\n"))
    assert check([task], tmp_path)[1] == []


def test_all_faults_are_told_with_their_lines(folder: Path) -> None:
    text = (
        "clip,mask,method,size,colour,overlay\n"
        "videos/dog.mp4,,,,,\n"
        "videos/dog.mp4,masks/dog.png,nearest,,,\n"
        "videos/dog.mp4,masks/dog.png,,12,,\n"
        "videos/dog.mp4,masks/dog.png,,,red,\n"
        "videos/dog.mp4,masks/dog.png,,,,perhaps\n"
        "videos/dog.mp4,masks/dog.png,,,,\n"
    )
    told = faults(plan(folder, text))
    assert [fault.split(":")[0] for fault in told] == [f"plan.csv, line {line}" for line in range(2, 7)]
    words = ("no mask", "unknown method", "--size", "unknown column 'colour'", "yes or no")
    assert all(word in fault for word, fault in zip(words, told, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must name columns"),
        ("video,mask\na,b\n", "clip among them"),
        ("clip;mask\na;b\n", "semicolons separate its columns: save it with commas"),
        ("clip\tmask\na\tb\n", "separated by commas"),
        ("clip,mask,mask\na,b,c\n", "two columns have one name"),
        ("clip,mask\na,b,c\n", "line 2 has 3 cells, the first has 2: quote cells with commas"),
        ("clip,mask\n", "names no clip"),
    ],
)
def test_files_that_are_no_plans(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_plan(plan(tmp_path, text))


def test_a_plan_that_is_not_there_is_told_with_one_that_is(tmp_path: Path) -> None:
    plan(tmp_path, "", "clips.csv")
    with pytest.raises(InputError, match=r"^cannot find plan '\S*clip.csv'; did you mean \S*clips.csv\?$"):
        read_plan(tmp_path / "clip.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"^cannot read plan '\S*folder.csv': (?!.*Errno)"):
        read_plan(tmp_path / "folder.csv")


def test_cells_that_lack_at_the_end_of_a_line_are_empty(folder: Path) -> None:
    text = "clip,mask,method,size\nvideos/dog.mp4,masks/dog.png\nvideos/cat.mp4,masks/cat.png,copy\n"
    assert [task.arguments["method"] for task in read_plan(plan(folder, text))] == ["best", "copy"]
    (fault,) = faults(plan(folder, "clip,mask,method\nvideos/dog.mp4\n"))
    assert "it has no mask" in fault


def test_a_name_and_an_object_that_are_exchanged_are_a_fault_of_the_plan(folder: Path, tmp_path: Path) -> None:
    rows = "videos/dog.mp4,masks/dog.png,1=swan\nvideos/cat.mp4,masks/cat.png,swan=1;dog=#ffffff\n"
    told = check(read_plan(plan(folder, f"clip,mask,name\n{rows}")), tmp_path)[1]
    fault = "no mask has the colour, id or file swan (named 1); exchange them if swan is the name of 1"
    assert told == [f"plan.csv, line 2: {fault}"]


def test_an_option_that_there_is_not_is_told_once(folder: Path) -> None:
    rows = rows_of(plan(folder, "clip,mask\nvideos/dog.mp4,masks/dog.png\nvideos/cat.mp4,masks/cat.png\n"))
    (fault,) = tasks_of(rows, folder, {"presett": "fast"})[1]
    assert fault.startswith("--option: unknown option 'presett'; did you mean 'preset'?")


def test_an_unknown_column_is_told_once(folder: Path) -> None:
    rows = "videos/dog.mp4,masks/dog.png,red\n" * 3
    told = faults(plan(folder, f"clip,mask,colour\n{rows}videos/dog.mp4,masks/dog.png,\nvideos/dog.mp4,,red\n"))
    assert [fault.split(":")[0] for fault in told] == ["plan.csv, line 2", "plan.csv, line 6"]
    assert "unknown column 'colour'" in told[0]
    assert "no mask" in told[1]


def test_what_is_wrong_with_options_for_all_rows_is_told_once(folder: Path) -> None:
    rows = "videos/dog.mp4,masks/dog.png,anchors,a\nvideos/cat.mp4,masks/cat.png,,b\n"
    path = plan(folder, f"clip,mask,method,out\n{rows}")
    tasks, told = tasks_of(rows_of(path), folder, {"size": "12", "formats": "coco", "set": "agility=3", "gone": "1@0"})
    assert sorted(fault.split(":")[0] for fault in told) == ["--option", "--option", "plan.csv, line 2"]
    words = (
        "--option: unknown option 'formats'; did you mean 'export'?",
        "unknown setting of anchors 'agility'",
        "--size",
    )
    assert all(sum(word in fault for fault in told) == 1 for word in words)
    assert [task.arguments["gone"] for task in tasks] == [{1: [(0, 0)]}] * 2


def test_what_a_plan_may_not_say(folder: Path) -> None:
    for name in ("overwrite", "resume", "quiet", "help", "json"):
        (fault,) = faults(plan(folder, f"clip,mask,{name}\nvideos/dog.mp4,masks/dog.png,yes\n"))
        assert "unknown column" in fault


def test_clips_are_paired_with_masks_by_name(tmp_path: Path) -> None:
    write_clips(tmp_path, {"dog": 3, "cat": 3, "eel": 3})
    masks = tmp_path / "masks"
    (masks / "dog.png").rename(masks / "dog_first.png")
    (masks / "cat").mkdir()
    (masks / "cat.png").rename(masks / "cat/00002.png")
    rows = paired(clips_in(tmp_path / "videos"), masks).rows
    assert [row["mask"] for row in rows] == [
        [f"2:{masks / 'cat/00002.png'}"],
        str(masks / "dog_first.png"),
        str(masks / "eel.png"),
    ]
    written = plan(tmp_path, csv_of(rows))
    as_json = plan(tmp_path, json_of(rows), "plan.jsonl")
    assert [task.masks for task in read_plan(written)] == [task.masks for task in read_plan(as_json)]


def test_clips_whose_mask_is_not_clear_have_an_empty_cell_and_masks_of_no_clip_are_named(tmp_path: Path) -> None:
    write_clips(tmp_path, {"dog": 3, "cat": 3, "eel": 3})
    masks = tmp_path / "masks"
    (masks / "dog_first.png").write_bytes((masks / "dog.png").read_bytes())
    (masks / "eel.png").rename(masks / "eal.png")
    (masks / ".DS_Store").write_bytes(b"")
    pairs = paired(clips_in(tmp_path / "videos"), masks)
    assert [row["mask"] for row in pairs.rows] == [str(masks / "cat.png"), "", ""]
    words = ("several masks (dog.png, dog_first.png)", "eel.mp4 has no mask")
    assert all(word in line for word, line in zip(words, pairs.unclear, strict=True))
    assert pairs.unused == [masks / "eal.png"]
    for name, text, line in (("plan.csv", csv_of(pairs.rows), 3), ("plan.jsonl", json_of(pairs.rows), 2)):
        told = faults(plan(tmp_path, text, name))
        assert [fault.split(":")[0] for fault in told] == [f"{name}, line {line}", f"{name}, line {line + 1}"]
        assert all("no mask: name it in the column 'mask'" in fault for fault in told)


def test_values_with_a_semicolon_do_not_fit_in_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write JSON Lines"):
        csv_of([{"clip": "a;b.mp4", "mask": "m.png"}])
    assert (
        rows_of(plan(tmp_path, json_of([{"clip": "a;b.mp4", "mask": "m.png"}]), "p.jsonl"))[0][1]["clip"] == "a;b.mp4"
    )


@pytest.mark.parametrize("name", ["", "/dog", "../dog", "a/../b", "a//b", ".batch", "a\x1bb", "c\\d", "x" * 300])
def test_folders_that_are_not_below_that_of_all_results(folder: Path, tmp_path: Path, name: str) -> None:
    task = Task(folder / "videos/dog.mp4", {0: folder / "masks/dog.png"}, name)
    assert len(check([task], tmp_path)[1]) == 1


def test_folders_that_two_clips_would_share(folder: Path, tmp_path: Path) -> None:
    tasks = [Task(folder / "videos/dog.mp4", {0: folder / "masks/dog.png"}, name) for name in ("a", "A", "b/c", "b")]
    told = check(tasks, tmp_path)[1]
    assert ["as those of" in fault or "lies in results of" in fault for fault in told] == [True, True]


def test_clips_and_masks_that_are_not_there_broken_or_of_another_size(folder: Path, tmp_path: Path) -> None:
    clip, mask = folder / "videos/dog.mp4", folder / "masks/dog.png"
    Image.new("L", (30, 20), 1).save(tmp_path / "small.png")
    Image.new("L", SIZE[::-1]).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:100])
    wrong = {
        "a": (tmp_path / "none.mp4", mask, "cannot find clip"),
        "b": (tmp_path / "broken.mp4", mask, "cannot be opened"),
        "c": (clip, tmp_path / "none.png", "cannot find mask"),
        "d": (clip, tmp_path / "small.png", "is 30x20, the clip is 64x48"),
        "e": (clip, tmp_path / "text.png", "text.png"),
        "f": (mask, mask, "a single image"),
        "g": (clip, tmp_path / "black.png", "black.png' has no object"),
    }
    told = check([Task(clip, {0: mask}, name) for name, (clip, mask, _) in wrong.items()], tmp_path)[1]
    assert len(told) == len(wrong)
    assert all(said in fault for fault, (_, _, said) in zip(told, wrong.values(), strict=True))
    Image.new("L", (32, 24), 255).save(tmp_path / "half.png")
    tasks = [Task(clip, {0: tmp_path / name}, "d", {"resize_mask": True}) for name in ("half.png", "small.png")]
    checked, told = check(tasks[:1], tmp_path)
    assert (told, checked[0].frames) == ([], 3)
    assert "which has another shape: draw the mask on a frame of this clip" in check(tasks[1:], tmp_path)[1][0]
    black = (
        Task(clip, {0: mask, 1: tmp_path / "black.png"}, "d"),
        Task(clip, {0: tmp_path / "black.png"}, "g", {"background": (255, 255, 255)}),
    )
    assert check(black, tmp_path)[1] == []


def test_all_that_is_wrong_with_one_row_is_told(folder: Path) -> None:
    row: dict[str, Any] = {
        "size": "12",
        "gone": "dog;cat@1",
        "range": "5-a",
        "name": "dog",
        "probs": "perhaps",
        "colour": "red",
    }
    row |= {"set": ["radios=1", "radius=3", "top_k=x"], "preset": "fast", "overlay": "no", "overlay_labels": "yes"}
    masks = {"mask": ["0:masks/dog.png", "0:masks/cat.png"]}
    told = faults(plan(folder, json.dumps({"clip": "videos/dog.mp4", **masks, **row}), "plan.jsonl"))
    words = ("probs is yes or no", "'colour'", "--size", "--gone", "--range", "--name", "no overlay", "two masks")
    assert all(sum(word in fault for fault in told) == 1 for word in (*words, "'radios'", "top_k must be")), told
    assert len(told) == len(words) + 2
    assert all(fault.startswith("plan.jsonl, line 1: ") for fault in told)
    same = {"adapt": "yes", "adapt_live": "yes", "size": "12"}
    told = faults(plan(folder, json.dumps({"clip": "videos/dog.mp4", "mask": "masks/dog.png", **same}), "plan.jsonl"))
    assert ["exclude each other" in fault for fault in sorted(told)] == [True, False]


def test_a_row_is_not_told_what_is_wrong_with_it_for_another_method(folder: Path) -> None:
    rows = "clip,mask,method,preset\nvideos/dog.mp4,masks/dog.png,copy,fasst\n"
    wrong = tasks_of(rows_of(plan(folder, rows)), folder, {})[1]
    assert len(wrong) == 1
    assert "unknown preset of copy 'fasst'" in wrong[0]


def test_rows_with_wrong_options_are_checked_on(folder: Path, tmp_path: Path) -> None:
    rows = ["videos/none.mp4,masks/none.png,12,a", "videos/cat.mp4,masks/cat.png,,a"]
    rows += ["videos/dog.mp4,,12,b", ",masks/dog.png,12,"]
    tasks, wrong = tasks_of(rows_of(plan(folder, "\n".join(["clip,mask,size,out", *rows]))), folder, {})
    told = sorted([*wrong, *check(tasks, tmp_path)[1]])
    words = (
        *("--size", "cannot find clip", "cannot find mask"),
        "as those of",
        *("--size", "no mask"),
        *("--size", "no clip"),
    )
    assert [fault.split(":")[0][-1] for fault in told] == list("22234455")
    assert all(any(word in fault for fault in told) for word in words)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"range": (3, 4)}, "the clip ends with frame 2: give one that starts before that"),
        ({"range": (1, 9)}, "the clip ends with frame 2: end it there"),
        ({"range": (2, 1)}, "goes backwards"),
        ({"range": 5}, "a range is its first and its last frame"),
        ({"start_number": -1}, "start_number must be"),
        ({"gone": {"dog": [(0, 1), (1, 3)]}}, "dog is gone from frame 1 to frame 3, but the clip ends with frame 2"),
        ({"gone": {1: [(7, None)]}}, "1 is gone from frame 7 on, but the clip ends with frame 2"),
        ({"refine": "crv"}, "unknown refinement 'crv'; did you mean 'crf'"),
        ({"weights": Path("none.safetensors")}, "no weights at none.safetensors"),
        ({"exports": ["coccoo"]}, "unknown format 'coccoo'; did you mean 'coco'"),
        ({"fps": 25}, "leave out `fps`"),
    ],
)
def test_what_a_clip_cannot_have(folder: Path, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    given = (folder / "videos/dog.mp4", {None: folder / "masks/dog.png"})
    (fault,) = check([Task(*given, "dog", arguments), Task(*given, "fine", {"range": (0, 2)})], tmp_path)[1]
    assert said in fault


def test_values_of_another_shape_are_left_to_the_clip(folder: Path, tmp_path: Path) -> None:
    for arguments in ({"gone": 5}, {"gone": {1: 5}}, {"gone": {1: [(0, "x")]}}, {"exports": 5}, {"deinterlace": 5}):
        told = check([Task(folder / "videos/dog.mp4", {None: folder / "masks/dog.png"}, "dog", arguments)], tmp_path)[1]
        assert len(told) == ("deinterlace" in arguments)


def test_masks_of_frames_that_a_clip_does_not_have(folder: Path, tmp_path: Path) -> None:
    clip, mask = folder / "videos/dog.mp4", folder / "masks/dog.png"
    (fault,) = check([Task(clip, {0: mask, 7: mask, 3: mask}, "dog")], tmp_path)[1]
    assert "there is a mask for frame 7, but the clip ends with frame 2" in fault
    (fault,) = check([Task(clip, {0: mask}, "dog", {"range": (1, 2)})], tmp_path)[1]
    assert "there is a mask for frame 0, and the range is 1 to 2" in fault


def test_all_images_of_a_mask_that_is_a_folder_are_looked_at(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    (tmp_path / "both/a.png").write_bytes((folder / "masks/dog.png").read_bytes())
    (tmp_path / "both/b.png").write_bytes(b"")
    Image.new("L", (30, 20), 1).save(tmp_path / "both/c.png")
    told = check([Task(folder / "videos/dog.mp4", {None: tmp_path / "both"}, "dog")], tmp_path)[1]
    assert [name in fault for name, fault in zip(("b.png", "c.png"), told, strict=True)] == [True, True]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_what_is_zero_in_other_colour_spaces_is_not_called_black(mode: str, folder: Path, tmp_path: Path) -> None:
    Image.new(mode, SIZE[::-1]).save(tmp_path / "mask.tif")
    assert check([Task(folder / "videos/dog.mp4", {0: tmp_path / "mask.tif"}, "a")], tmp_path)[1] == []


def test_formats_that_there_are_not_are_told_once(folder: Path, tmp_path: Path) -> None:
    wrong = {"exports": ["coccoo", "coco"]}
    tasks = [Task(folder / "videos/dog.mp4", {0: folder / "masks/dog.png"}, name, wrong) for name in ("a", "b")]
    (fault,) = check(tasks, tmp_path)[1]
    assert "coccoo" in fault


def test_results_do_not_go_into_a_clip_or_a_mask(folder: Path) -> None:
    clip, mask = folder / "eel", folder / "masks/dog.png"
    clip.mkdir()
    Image.new("RGB", SIZE[::-1]).save(clip / "00000.png")
    told = check([Task(clip, {0: mask}, "eel"), Task(folder / "videos/dog.mp4", {0: mask}, "masks")], folder)[1]
    assert ["eel lies in the folder of its results" in told[0], "dog.png lies in the folder of" in told[1]] == [
        True
    ] * 2


def test_two_clips_of_one_name_in_one_folder_get_folders_of_their_own(tmp_path: Path) -> None:
    clips = [tmp_path / "videos" / name for name in ("dog.mp4", "dog.mkv")]
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/dog.png").write_bytes(b"")
    assert [row["out"] for row in paired(clips, tmp_path / "masks").rows] == ["videos/dog.mp4", "videos/dog.mkv"]


def test_a_plan_is_checked_without_torch(tmp_path: Path) -> None:
    """It takes ten times the memory of all else."""
    folder = write_clips(tmp_path, {"dog": 3})
    (folder / "videos/eel").mkdir()
    Image.new("RGB", SIZE[::-1]).save(folder / "videos/eel/00000.png")
    plan(folder, "clip,mask,preset,export\nvideos/dog.mp4,masks/dog.png,fast,coco\nvideos/eel,masks/dog.png,,\n")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import vostrack.batch.report, vostrack.batch.run\n"
        "from vostrack.batch.check import check\n"
        "from vostrack.cli.plan import read_plan\n"
        "assert not check(read_plan('plan.csv'), Path('runs'))[1]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
