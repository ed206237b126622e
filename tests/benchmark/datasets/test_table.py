"""Datasets: every layout opens, what is missing is named, hostile lists are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import fakes
from tests.benchmark import trees
from vostrack.benchmark.datasets.layouts import Part, read_labels
from vostrack.benchmark.datasets.table import DATASETS, open_dataset, read_list
from vostrack.benchmark.published import PUBLISHED
from vostrack.errors import DatasetError
from vostrack.run.callbacks import Callbacks


def test_there_is_a_tree_for_every_dataset() -> None:
    assert trees.TREES.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", DATASETS)
def test_every_layout_opens_with_all_its_files(name: str, tmp_path: Path) -> None:
    dataset = open_dataset(name, trees.TREES[name](tmp_path))
    for sequence in dataset.sequences:
        assert sequence.truths.keys() == set(sequence.scored)
        assert bool(sequence.scored) != dataset.submission
        for part in sequence.parts:
            assert part.frames is not None
            assert all((sequence.source / f"{frame}.jpg").is_file() for frame in part.frames)
            assert next(iter(part.prompts)) == part.frames[0]
        for files in [*sequence.truths.values(), *(f for part in sequence.parts for f in part.prompts.values())]:
            assert read_labels(files, sequence.masks).shape == trees.SIZE


def test_opening_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    class Told(Callbacks):
        def progress(self, done: int, total: int | None) -> None:
            told.append((done, total))

    open_dataset("davis16", trees.davis16(tmp_path), callbacks=Told())
    assert told == [(1, 2), (2, 2)]


def test_davis16_masks_are_one_object_and_the_ends_do_not_count(tmp_path: Path) -> None:
    dataset = open_dataset("davis16", trees.davis16(tmp_path))
    assert [sequence.name for sequence in dataset.sequences] == ["cat", "dog"]
    assert dataset.subset == "subset of 2 of 20"
    sequence = dataset.sequences[0]
    assert sequence.scored == ("00001", "00002", "00003", "00004")
    assert (read_labels(sequence.truths["00001"], sequence.masks) == fakes.truth(1, (1,))).all()


def test_davis16_refuses_masks_of_several_objects(tmp_path: Path) -> None:
    trees.davis16(tmp_path)
    trees.masks(tmp_path / "Annotations" / "480p" / "cat", 6)
    sequence = open_dataset("davis16", tmp_path).sequences[0]
    with pytest.raises(DatasetError, match=r"00001\.png holds 0, 1, 2: expected only 0 and 255"):
        read_labels(sequence.truths["00001"], sequence.masks)


def test_void_is_background(tmp_path: Path) -> None:
    trees.davis17(tmp_path)
    path = tmp_path / "Annotations" / "480p" / "cat" / "00001.png"
    labels = np.array(Image.open(path))
    Image.fromarray(np.where(labels == 2, np.uint8(255), labels)).save(path)
    sequence = open_dataset("davis17", tmp_path).sequences[0]
    assert set(np.unique(read_labels(sequence.truths["00001"], sequence.masks))) == {0, 1}


def test_test_dev_is_a_submission(tmp_path: Path) -> None:
    dataset = open_dataset("davis17", trees.davis17(tmp_path, "test-dev"), "test-dev")
    assert dataset.submission
    assert all(not sequence.truths and not sequence.scored for sequence in dataset.sequences)


def test_youtube_vos_gives_late_objects_and_writes_listed_frames(tmp_path: Path) -> None:
    for split in ("valid", "train"):
        (sequence,) = open_dataset("ytvos18", trees.ytvos(tmp_path, split), split).sequences
        (part,) = sequence.parts
        assert tuple(part.prompts) == ("00000", "00010")
        assert part.written == ("00000", "00005", "00010", "00015", "00020")
        assert sequence.scored == (part.written[1:] if split == "train" else ())


def test_youtube_vos_root_may_be_the_split_itself(tmp_path: Path) -> None:
    assert open_dataset("ytvos19", trees.ytvos(tmp_path) / "valid").sequences[0].name == "a1b2"


def test_masks_say_where_objects_appear(tmp_path: Path) -> None:
    (sequence,) = open_dataset("lvos", trees.lvos(tmp_path)).sequences
    assert tuple(sequence.parts[0].prompts) == ("00000001", "00000011")
    assert sequence.scored == ("00000006", "00000011", "00000016", "00000021")
    assert open_dataset("lvos", trees.lvos(tmp_path, "test"), "test").submission
    (train,) = open_dataset("mose", trees.mose(tmp_path, "train"), "train").sequences
    assert tuple(train.parts[0].prompts) == ("00000",)
    assert train.scored == ("00001", "00002", "00003", "00004")


def test_void_is_no_object_that_appears(tmp_path: Path) -> None:
    (sequence,) = open_dataset("vost", trees.vost(tmp_path)).sequences
    assert tuple(sequence.parts[0].prompts) == ("frame00000",)
    assert sequence.scored == ("frame00012",)
    assert len(sequence.parts[0].frames or ()) == 6
    labels = read_labels(sequence.truths["frame00012"], sequence.masks, keep_void=True)
    assert set(np.unique(labels)) == {0, 1, 2, 255}


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"videos": {"../a": {"objects": {}}}}', "[" * 9999]
    + [
        f'{{"videos": {{"7QkMj": {{"objects": {{{each}}}}}}}}}'
        for each in ('"300": {}', '"1": 3', '"1": {"frames": []}')
    ]
    + ['{"videos": {"7QkMj": {"objects": {"1": {"frame_range": {"start": "x", "end": 9}}}}}}'],
)
def test_ranges_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (trees.lvos(tmp_path) / "valid" / "valid_meta.json").write_text(text)
    with pytest.raises(DatasetError, match=r"valid_meta\.json"):
        open_dataset("lvos", tmp_path)


@pytest.mark.parametrize(("start", "end", "message"), [(90, 99, "no frame is in the range"), (6, 99, "mask of frame")])
def test_ranges_that_do_not_fit_are_refused(start: int, end: int, message: str, tmp_path: Path) -> None:
    folder = trees.lvos(tmp_path) / "valid"
    (folder / "Annotations" / "7QkMj" / "00000006.png").unlink()
    objects = {"1": {"frame_range": {"start": start, "end": end}}}
    (folder / "valid_meta.json").write_text(json.dumps({"videos": {"7QkMj": {"objects": objects}}}))
    with pytest.raises(DatasetError, match=f"7QkMj: {message}"):
        open_dataset("lvos", tmp_path)


def test_a_sequence_that_begins_without_objects_begins_where_the_first_appears(tmp_path: Path) -> None:
    folder = trees.folder(tmp_path) / "Annotations" / "240p" / "mine"
    trees.mask(folder / "00000.png", 0, ())
    (sequence,) = open_dataset("folder", tmp_path).sequences
    assert (sequence.parts[0].frames or ())[0] == "00001"
    assert sequence.scored == ("00002", "00003", "00004")
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    assert not open_dataset("folder", tmp_path).sequences[0].scored


def test_segtrack_merges_a_folder_for_each_object(tmp_path: Path) -> None:
    bird, bmx = open_dataset("segtrack2", trees.segtrack2(tmp_path)).sequences
    assert (read_labels(bmx.truths["00002"], bmx.masks) == fakes.truth(2, (1, 2))).all()
    assert (read_labels(bird.truths["00004"], bird.masks) == fakes.truth(4, (1,))).all()


def test_youtube_objects_is_sparse_and_grouped_by_class(tmp_path: Path) -> None:
    cat, dog = open_dataset("youtube-objects", trees.youtube_objects(tmp_path)).sequences
    assert cat.scored == ("00005", "00010")
    assert len(cat.parts[0].frames or ()) == 12
    assert (cat.attributes, dog.attributes) == (("cat",), ("dog",))


def test_categories_of_jumpcut_are_those_of_videomatch() -> None:
    """Table 3, OURS: the means of the categories and of all sequences."""
    rows = {
        "animal": ({"bear": 5.14, "giraffe": 11.96, "goat": 4.73, "pig": 5.12}, 6.74),
        "human": ({"couple": 11.77, "park": 11.42, "station": 9.98}, 11.06),
        "static": ({"car": 1.86, "cup": 5.38, "pot": 5.55, "toy": 2.81}, 3.90),
        "snapcut": ({"animation": 6.15, "fish": 12.21, "horse": 8.25}, 8.87),
        "fast": (
            {"bball": 6.19, "cheetah": 7.61, "dance": 17.31, "hiphop": 10.49, "kongfu": 4.05}
            | {"skater": 13.57, "supertramp": 22.12, "tricking": 8.32},
            11.21,
        ),
    }
    assert {name: text.split() for name, text in DATASETS["jumpcut"].categories.items()} == {
        name: list(errors) for name, (errors, _) in rows.items()
    }
    for errors, mean in rows.values():
        assert sum(errors.values()) / len(errors) == pytest.approx(mean, abs=0.006)
    every = [error for errors, _ in rows.values() for error in errors.values()]
    assert len(every) == DATASETS["jumpcut"].splits["all"]
    (published,) = (row for row in PUBLISHED if row.dataset == "jumpcut")
    assert sum(every) / len(every) == pytest.approx(published.values["error"], abs=0.006)


def test_jumpcut_carries_masks_over_the_distance_and_nothing_between(tmp_path: Path) -> None:
    (sequence,) = open_dataset("jumpcut", trees.jumpcut(tmp_path)).sequences
    assert [part.frames for part in sequence.parts] == [("00000", "00016"), ("00016", "00032")]
    assert [part.written for part in sequence.parts] == [("00016",), ("00032",)]
    assert sequence.scored == ("00016", "00032")
    (short,) = open_dataset("jumpcut", tmp_path, distance=7).sequences
    assert short.scored == ("00007", "00023", "00039")
    with pytest.raises(DatasetError, match="bear: 40 frames, expected over 40"):
        open_dataset("jumpcut", tmp_path, distance=40)


def test_folder_takes_a_resolution_none_or_videos(tmp_path: Path) -> None:
    with_resolution = trees.folder(tmp_path / "a")
    plain = tmp_path / "b"
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(with_resolution / kind / "240p", plain / kind)
    for root in (with_resolution, plain):
        assert open_dataset("folder", root).sequences[0].scored == ("00001", "00002", "00003", "00004")
        assert open_dataset("folder", root).subset is None
    (sequence,) = open_dataset("folder", trees.videos(tmp_path / "c")).sequences
    first = tmp_path / "c" / "Annotations" / "mine" / "00000.png"
    assert sequence.parts == (Part(None, {"00000": (first,)}),)
    assert sequence.source.name == "mine.mp4"


def test_attributes_are_read_where_davis_has_them(tmp_path: Path) -> None:
    trees.davis17(tmp_path)
    entry = "- attributes: [{}]\n  eval_t: true\n  name: {}\n  num_frames: 6\n"
    text = (
        "attributes:\n  AC: Appearance Change\nsequences:\n" + entry.format("AC, OCC", "cat") + entry.format("", "dog")
    )
    (tmp_path / "db_info.yaml").write_text(text)
    assert [s.attributes for s in open_dataset("davis17", tmp_path).sequences] == [("AC", "OCC"), ()]


def test_root_is_found_in_the_environment_and_in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.davis16(tmp_path / "a" / "davis16")
    trees.davis16(tmp_path / "b" / "data")
    monkeypatch.setenv("VOSTRACK_DATA", str(tmp_path / "a"))
    assert open_dataset("davis16").root == tmp_path / "a" / "davis16"
    monkeypatch.delenv("VOSTRACK_DATA")
    monkeypatch.chdir(tmp_path / "b")
    assert open_dataset("davis16").root == Path("data")
    with pytest.raises(DatasetError, match="JPEGImages is there, but no masks: expected GroundTruth in data"):
        open_dataset("segtrack2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="JumpCut is not in data/jumpcut or data: expected JPEGImages/SEQ"):
        open_dataset("jumpcut")


def test_a_root_that_is_one_folder_too_high_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "mine" / "clips" / "dog").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetError, match=r"there are no sequences in .* below it; did you mean .*mine\?$"):
        open_dataset("folder", tmp_path)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    trees.davis17(tmp_path)
    with pytest.raises(DatasetError, match="unknown dataset 'davis18'; did you mean"):
        open_dataset("davis18", tmp_path)
    with pytest.raises(DatasetError, match="unknown split of davis17 'valid'"):
        open_dataset("davis17", tmp_path, "valid")
    with pytest.raises(DatasetError, match="unknown sequence 'cow'"):
        open_dataset("davis17", tmp_path, sequences=["cow"])


def test_missing_sequences_are_named_unless_a_subset_is_wanted(tmp_path: Path) -> None:
    trees.davis17(tmp_path, names=("cat", "dog", "emu"))
    shutil.rmtree(tmp_path / "JPEGImages" / "480p" / "dog")
    with pytest.raises(DatasetError, match=r"lacks the frames of 1 of 3 sequences: dog; .*`allow_subset=True`"):
        open_dataset("davis17", tmp_path)
    subset = open_dataset("davis17", tmp_path, allow_subset=True)
    assert [sequence.name for sequence in subset.sequences] == ["cat", "emu"]
    assert subset.subset == "subset of 2 of 30"
    assert len(open_dataset("davis17", tmp_path, sequences=["emu"]).sequences) == 1
    assert len(open_dataset("davis17", tmp_path, sequences=["emu", "cat"], limit=1).sequences) == 1


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("Annotations/480p/cat", "lacks the masks of 1 of 2 sequences: cat"),
        ("Annotations/480p/cat/00003.png", "sequence cat: mask of frame 00003 is not in .*cat"),
        ("JPEGImages/480p/dog/00002.jpg", "sequence dog: frame 00002 is not in .*dog"),
        ("ImageSets/480p/val.txt", r"cannot read list .*val\.txt: it is missing"),
        ("Annotations", "480p is there, but no masks: expected Annotations/480p or Annotations in"),
        ("JPEGImages", "DAVIS-2016 is not in .*expected JPEGImages/480p/SEQUENCE"),
    ],
)
def test_what_is_missing_is_named_in_one_line(gone: str, message: str, tmp_path: Path) -> None:
    path = trees.davis16(tmp_path) / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset("davis16", tmp_path)
    assert "\n" not in str(caught.value)


def test_youtube_vos_names_missing_frames_and_masks(tmp_path: Path) -> None:
    trees.ytvos(tmp_path)
    (tmp_path / "valid" / "Annotations" / "a1b2" / "00010.png").unlink()
    with pytest.raises(DatasetError, match=r"a1b2: mask of frame 00010 is not in .*a1b2, which has 00000$"):
        open_dataset("ytvos18", tmp_path)
    (tmp_path / "valid" / "JPEGImages" / "a1b2" / "00015.jpg").unlink()
    with pytest.raises(DatasetError, match="a1b2: listed frame 00015 is not in"):
        open_dataset("ytvos18", tmp_path)


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", ".hidden", "a\0b", "a/b", "C:x", "a\\b", "x" * 300])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    trees.davis17(tmp_path)
    trees.write(tmp_path / "ImageSets" / "2017" / "val.txt", [name])
    with pytest.raises(DatasetError, match=r"no name of a sequence|expected a sequence"):
        open_dataset("davis17", tmp_path)
    trees.ytvos(tmp_path)
    objects = {"1": {"category": "", "frames": ["00000"]}}
    (tmp_path / "valid" / "meta.json").write_text(json.dumps({"videos": {name: {"objects": objects}}}))
    with pytest.raises(DatasetError, match="no name of a sequence"):
        open_dataset("ytvos18", tmp_path)


@pytest.mark.parametrize("text", ["", "a b c\n", "/JPEGImages/../../x/0.jpg /y\n", "\udcff", "a/b\n"])
def test_lists_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DatasetError, match=r"list\.txt"):
        read_list(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"videos": {}}',
        '{"videos": []}',
        '{"videos": {"a": {"objects": {"1": {"frames": 3}}}}}',
        "9" * 5000,
        "[]",
        "{",
        '{"videos": {"a": {}}}',
        '{"videos": {"a": {"objects": {"300": {"frames": ["0"]}}}}}',
        "[" * 9999,
    ],
)
def test_meta_files_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    trees.ytvos(tmp_path)
    (tmp_path / "valid" / "meta.json").write_text(text)
    with pytest.raises(DatasetError, match=r"meta\.json"):
        open_dataset("ytvos18", tmp_path)


@pytest.mark.data
def test_development_data_opens(dev_data: Path) -> None:
    dataset = open_dataset("davis16", dev_data / "davis16")
    assert dataset.subset == "subset of 13 of 20"
    assert {s.name: len(s.scored) for s in dataset.sequences}["bmx-trees"] == 78
    (late,) = open_dataset("folder", dev_data / "ytvos_003234408d").sequences
    assert len(late.scored) == 13
