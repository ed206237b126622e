"""The runner: masks and scores of every layout, resuming, processes, the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import fakes
from tests.benchmark import trees
from tests.benchmark.runs import FAKE, davis, files
from tests.benchmark.sequences import Log
from vostrack.benchmark import sequence_run
from vostrack.benchmark.datasets.table import DATASETS, open_dataset
from vostrack.benchmark.runner import Variant, check_different, run_benchmark
from vostrack.benchmark.score import score_folders, score_sequence
from vostrack.cli.variants import parse_variants
from vostrack.errors import DatasetError, MethodError, NoObjectError, OutputError, OutputExistsError, VostrackError
from vostrack.run.pipeline import PipelineConfig
from vostrack.video.palette import palette_image
from vostrack.weights import save_weights

pytestmark = pytest.mark.usefixtures("fake_weights")
SMALL = [fakes.variant(size=32)]


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_runs(name: str, tmp_path: Path) -> None:
    dataset = open_dataset(name, trees.TREES[name](tmp_path / "data"))
    report = run_benchmark(dataset, FAKE, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == report
    scores = report["variants"]["fake"]
    for sequence in dataset.sequences:
        there = {path.stem for path in (tmp_path / "out" / "fake" / "Annotations" / sequence.name).iterdir()}
        for part in sequence.parts:
            assert set(part.written or part.frames or ()) <= there
        assert bool(scores["sequences"][sequence.name]) != dataset.submission
    assert bool(scores["objects"]) != dataset.submission
    if name == "jumpcut":
        assert 0 < scores["total"]["error"] < 100
    elif not dataset.submission:
        assert scores["total"]["J&F"] > 0.8


def test_videos_of_ones_own_run(tmp_path: Path) -> None:
    report = run_benchmark(open_dataset("folder", trees.videos(tmp_path / "data")), FAKE, tmp_path / "out")
    rows = report["variants"]["fake"]["objects"]
    assert [(row["object"], row["frames"]) for row in rows] == [("mine_3", 4), ("mine_200", 4)]


def test_video_that_is_shorter_than_its_masks_is_refused(tmp_path: Path) -> None:
    trees.videos(tmp_path / "data")
    trees.mask(tmp_path / "data" / "Annotations" / "mine" / "00009.png", 9, (3, 200))
    trees.mask(tmp_path / "data" / "Annotations" / "mine" / "00010.png", 9, (3, 200))
    with pytest.raises(DatasetError, match="mine: there is ground truth for frame 00009, but the clip has only 6"):
        run_benchmark(open_dataset("folder", tmp_path / "data"), FAKE, tmp_path / "out")


def test_scores_are_those_of_the_score_command(tmp_path: Path) -> None:
    dataset = davis(tmp_path)
    report = run_benchmark(dataset, FAKE, tmp_path / "out")["variants"]["fake"]
    masks = tmp_path / "out" / "fake" / "Annotations"
    expected = score_folders(masks, dataset.root / "Annotations" / "480p")
    assert report["total"] == expected.total()
    for row, wanted in zip(report["objects"], expected.to_json()["objects"], strict=True):
        assert {key: row[key] for key in wanted} == wanted
        assert len(row["curves"]["J"]) == row["frames"]
        assert np.mean(row["curves"]["J"]) == pytest.approx(row["J_mean"])


def test_binary_scores_are_those_of_the_score_command(tmp_path: Path) -> None:
    dataset = open_dataset("davis16", trees.davis16(tmp_path / "davis"))
    report = run_benchmark(dataset, FAKE, tmp_path / "out")["variants"]["fake"]
    masks = tmp_path / "out" / "fake" / "Annotations"
    assert report["total"] == score_folders(masks, dataset.root / "Annotations" / "480p").total()


def test_late_objects_are_given_once_and_count_afterwards(tmp_path: Path) -> None:
    dataset = open_dataset("ytvos18", trees.ytvos(tmp_path / "data", "train"), "train")
    later = tmp_path / "data" / "train" / "Annotations" / "a1b2" / "00010.png"
    rows = run_benchmark(dataset, FAKE, tmp_path / "out")["variants"]["fake"]["objects"]
    assert [(row["id"], row["curves"]["frames"]) for row in rows] == [
        (1, ["00005", "00010", "00015", "00020"]),
        (2, ["00015", "00020"]),
    ]
    # The mask that gives object 2 shows object 1 as well, which must not correct what was found.
    (part,) = dataset.sequences[0].parts
    prompts = sequence_run.given_masks(dataset.sequences[0], part)
    assert {index: prompt.ids for index, prompt in prompts.items()} == {0: (1,), 2: (2,)}
    assert set(torch.unique(prompts[2].pixels).tolist()) == {0, 2}
    assert set(np.unique(fakes.read_labels(later))) == {0, 1, 2}


def test_youtube_vos_submission_has_the_servers_layout(tmp_path: Path) -> None:
    dataset = open_dataset("ytvos19", trees.ytvos(tmp_path / "data"))
    run_benchmark(dataset, FAKE, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "fake" / "submission.zip") as archive:
        names = [f"Annotations/a1b2/{5 * index:05d}.png" for index in range(5)]
        assert archive.namelist() == names
        assert archive.read(names[3]) == (tmp_path / "out" / "fake" / names[3]).read_bytes()


@pytest.mark.parametrize(("name", "folder"), [("mose", ""), ("lvos", "Annotations/"), ("davis17", "")])
def test_first_masks_alone_are_a_submission(name: str, folder: str, tmp_path: Path) -> None:
    """Without scores; in the zip file the sequences lie where the dataset's server looks for them."""
    split = {"davis17": "test-dev", "lvos": "test"}.get(name, "valid")
    dataset = open_dataset(name, trees.TREES[name](tmp_path / "data", split), split)
    report = run_benchmark(dataset, FAKE, tmp_path / "out")
    assert report["dataset"]["submission"]
    assert report["variants"]["fake"]["objects"] == []
    with zipfile.ZipFile(tmp_path / "out" / "fake" / "submission.zip") as archive:
        frames = [frame for s in dataset.sequences for part in s.parts for frame in part.frames or ()]
        names = [f"{folder}{s.name}/{frame}.png" for s in dataset.sequences for frame in s.parts[0].frames or ()]
        assert len(frames) >= 6
        assert archive.namelist() == names


def test_own_clips_with_first_masks_alone_have_results(tmp_path: Path) -> None:
    root = trees.videos(tmp_path / "data")
    for path in sorted((root / "Annotations" / "mine").iterdir())[1:]:
        path.unlink()
    report = run_benchmark(open_dataset("folder", root), FAKE, tmp_path / "out")
    assert report["dataset"]["submission"]
    assert len(list((tmp_path / "out" / "fake" / "Annotations" / "mine").iterdir())) == 6
    assert not (tmp_path / "out" / "fake" / "submission.zip").exists()


def test_sequences_without_a_truth_are_named(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data")
    trees.frames(root / "JPEGImages" / "240p" / "other", 6)
    trees.masks(root / "Annotations" / "240p" / "other", 1, (3, 200))
    report = run_benchmark(open_dataset("folder", root), FAKE, tmp_path / "out")
    assert report["dataset"]["notes"] == ["not scored, since there are no masks but the given ones: other"]
    assert {row["sequence"] for row in report["variants"]["fake"]["objects"]} == {"mine"}


def test_void_of_vost_counts_neither_as_hit_nor_as_miss(tmp_path: Path) -> None:
    dataset = open_dataset("vost", trees.vost(tmp_path / "data"))
    run_benchmark(dataset, FAKE, tmp_path / "out")
    masks = tmp_path / "out" / "fake" / "Annotations" / "555_tear_foil"
    for path in masks.iterdir():
        labels = fakes.read_labels(path)
        labels[:, :4] = 1
        Image.fromarray(labels).save(path)
    rows = score_sequence(dataset.sequences[0], masks)
    shutil.rmtree(tmp_path / "out")
    expected = run_benchmark(dataset, FAKE, tmp_path / "out")["variants"]["fake"]["objects"]
    assert [row.values["J_mean"] for row in rows] == [row["J_mean"] for row in expected]
    assert [row["curves"]["frames"] for row in expected] == [["frame00012"]] * 2


def test_objects_of_lvos_count_within_their_range(tmp_path: Path) -> None:
    root = trees.lvos(tmp_path / "data", count=9)
    ranges: dict[str, dict[str, Any]] = {"1": {"start": "1", "end": "27"}, "2": {"start": 11, "end": 46}}
    objects = {number: {"frame_range": {**span, "frame_nums": "7"}} for number, span in ranges.items()}
    meta = root / "valid" / "valid_meta.json"
    meta.write_text(json.dumps({"videos": {"7QkMj": {"objects": objects}}}))
    rows = run_benchmark(open_dataset("lvos", root), FAKE, tmp_path / "out")["variants"]["fake"]["objects"]
    assert [(row["id"], [int(frame) for frame in row["curves"]["frames"]]) for row in rows] == [
        (1, [6, 11, 16, 21]),
        (2, [16, 21, 26, 31, 36]),
    ]


def test_jumpcut_sees_no_frame_between(tmp_path: Path) -> None:
    dataset = open_dataset("jumpcut", trees.jumpcut(tmp_path / "data"))
    report = run_benchmark(dataset, FAKE, tmp_path / "out")
    assert report["timing"]["variants"]["fake"]["frames"] == 4
    masks = tmp_path / "out" / "fake" / "Annotations" / "bear"
    assert sorted(path.name for path in masks.iterdir()) == ["00016.png", "00032.png"]
    scores = report["variants"]["fake"]
    assert scores["attributes"] == {"animal": scores["total"]}
    assert {"error", "error_of_result"} == scores["total"].keys()


def test_attributes_have_their_own_means(tmp_path: Path) -> None:
    dataset = open_dataset("youtube-objects", trees.youtube_objects(tmp_path / "data"))
    scores = run_benchmark(dataset, FAKE, tmp_path / "out")["variants"]["fake"]
    assert scores["attributes"] == {"cat": scores["sequences"]["cat_0001"], "dog": scores["sequences"]["dog_0003"]}


def test_second_run_verifies_and_gives_the_same_bytes(tmp_path: Path) -> None:
    variants = parse_variants(["fake", "fake:slow", "fake,rate=0.5"])
    first = run_benchmark(davis(tmp_path), variants, tmp_path / "out")
    before = files(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    again = run_benchmark(davis(tmp_path), variants, tmp_path / "out")
    assert list(again["variants"]) == [variant.name for variant in variants]
    assert files(tmp_path / "out") == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in times.items())
    assert [timing["verified"] for timing in again["timing"]["variants"].values()] == [["cat", "dog"]] * 3
    assert all(
        again["timing"]["variants"][name]["seconds_per_frame"] == timing["seconds_per_frame"]
        for name, timing in first["timing"]["variants"].items()
    )
    assert len({scores["total"]["J&F"] for scores in again["variants"].values()}) > 1


@pytest.mark.parametrize("harm", ["mask", "missing", "record", "cut", "link", "frame", "prompt"])
def test_finished_sequences_are_not_trusted_by_name(harm: str, tmp_path: Path) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    run_benchmark(dataset, FAKE, out)
    before = files(out)
    mask, record = out / "fake" / "Annotations" / "cat" / "00002.png", out / "fake" / ".vostrack" / "cat.json"
    if harm == "mask":
        shutil.copy(mask.with_name("00003.png"), mask)
    elif harm == "missing":
        mask.unlink()
    elif harm == "record":
        shutil.copy(record.with_name("dog.json"), record)
    elif harm == "cut":
        record.write_bytes(record.read_bytes()[:-20])
    elif harm == "link":
        text = json.loads(record.read_text())
        text["masks"] = {"../dog/00001": next(iter(text["masks"].values()))}
        record.write_text(json.dumps(text))
    elif harm == "frame":
        (dataset.root / "JPEGImages" / "480p" / "cat" / "00005.jpg").write_bytes(b"other")
    else:
        trees.mask(dataset.root / "Annotations" / "480p" / "cat" / "00000.png", 1)
    if harm == "frame":
        with pytest.raises(VostrackError, match=r"cat.*00005\.jpg"):
            run_benchmark(dataset, FAKE, out)
        return
    report = run_benchmark(dataset, FAKE, out)
    assert report["timing"]["variants"]["fake"]["verified"] == ["dog"]
    assert (files(out) == before) == (harm != "prompt")


def test_other_settings_are_not_mixed(tmp_path: Path, fake_weights: Path) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    run_benchmark(dataset, FAKE, out)
    with pytest.raises(OutputExistsError, match=r"other settings \(size from 480 to 32\)"):
        run_benchmark(dataset, SMALL, out)
    run_benchmark(dataset, SMALL, out, overwrite=True)
    assert run_benchmark(dataset, SMALL, out)["timing"]["variants"]["fake"]["verified"]
    path = fake_weights.with_name("other.safetensors")
    variant = fakes.variant(weights=str(path))
    save_weights(fakes.FakeNet(), fakes.NAME, path, {})
    run_benchmark(dataset, [variant], out)
    save_weights(fakes.FakeNet(), fakes.NAME, path, {})
    with pytest.raises(OutputExistsError, match=r"other settings .weights.sha256"):
        run_benchmark(dataset, [variant], out)


def test_more_sequences_extend_a_run(tmp_path: Path) -> None:
    root = davis(tmp_path).root
    part = run_benchmark(open_dataset("davis17", root, limit=1), FAKE, tmp_path / "out")
    assert part["dataset"]["subset"] == "subset of 1 of 30"
    report = run_benchmark(open_dataset("davis17", root), FAKE, tmp_path / "out")
    assert report["timing"]["variants"]["fake"]["verified"] == ["cat"]
    assert list(report["variants"]["fake"]["sequences"]) == ["cat", "dog"]


def test_the_floor_is_the_first_mask_for_every_frame_and_comes_last(tmp_path: Path) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    report = run_benchmark(dataset, SMALL, out, floor=True)
    assert list(report["variants"]) == ["fake", "copy"]
    masks = sorted((out / "copy" / "Annotations" / "dog").iterdir())
    given = dataset.root / "Annotations" / "480p" / "dog" / "00000.png"
    assert len(masks) > 2
    for mask in masks:
        assert np.array_equal(np.array(Image.open(mask)), np.array(Image.open(given)))
    (first,) = run_benchmark(dataset, [Variant(PipelineConfig(method="copy", size=None), "copy")], tmp_path / "alone")[
        "variants"
    ].values()
    assert report["variants"]["copy"]["total"] == first["total"]


def test_the_floor_has_the_full_size_whatever_is_asked_for_and_is_resumed(tmp_path: Path) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    run_benchmark(dataset, FAKE, out, floor=True)
    again = run_benchmark(dataset, parse_variants(["fake:slow"]), out, floor=True)
    assert list(again["variants"]) == ["fake", "fake-slow", "copy"]
    assert again["timing"]["variants"]["copy"]["verified"] == ["cat", "dog"]
    asked = run_benchmark(dataset, parse_variants(["copy", "fake"], size=480), out, floor=True)
    assert asked["timing"]["variants"]["copy"]["verified"] == ["cat", "dog"]
    assert list(asked["variants"]) == ["fake-slow", "copy", "fake"]


def test_nothing_is_copied_where_nothing_is_scored(tmp_path: Path) -> None:
    report = run_benchmark(open_dataset("ytvos18", trees.ytvos(tmp_path / "data")), FAKE, tmp_path / "out", floor=True)
    assert list(report["variants"]) == ["fake"]


def test_other_variants_join_the_table(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    variants = parse_variants(["fake", "fake:slow"])
    expected = run_benchmark(davis(tmp_path), variants, whole)
    run_benchmark(davis(tmp_path), variants[:1], out)
    joined = run_benchmark(davis(tmp_path), variants[1:], out)
    assert list(joined["variants"]) == ["fake", "fake-slow"]
    assert joined["variants"] == expected["variants"]
    assert joined["timing"]["variants"].keys() == expected["timing"]["variants"].keys()
    assert files(out) == files(whole)
    text = (out / "report.html").read_text()
    assert "fake-slow against fake" in text
    run_benchmark(davis(tmp_path), variants[1:], out)
    assert files(out) == files(whole)


def test_variants_that_do_not_belong_into_the_table_are_named(tmp_path: Path) -> None:
    out, log = tmp_path / "out", Log()
    run_benchmark(davis(tmp_path), FAKE, out)
    (slow,) = parse_variants(["fake:slow"], size=32)
    report = run_benchmark(davis(tmp_path), [slow], out, callbacks=log)
    assert log.notes == ["fake of an earlier run is not in this table: other size"]
    assert list(report["variants"]) == ["fake-slow"]
    assert log.notes[0] in (out / "report.html").read_text()
    assert (out / "fake" / "results.json").is_file()
    one = open_dataset("davis17", tmp_path / "davis", limit=1)
    report = run_benchmark(one, [slow], out)
    assert report["dataset"]["notes"] == ["fake of an earlier run is not in this table: other size, sequences"]
    report = run_benchmark(one, parse_variants(["fake,rate=0.5"], size=32), out)
    assert list(report["variants"]) == ["fake-slow", "fake-1d6dfe36"]
    report = run_benchmark(davis(tmp_path), parse_variants(["fake,rate=0.5"], size=32), out)
    assert report["dataset"]["notes"][1:] == ["fake-slow of an earlier run is not in this table: other sequences"]


def test_a_variant_comes_back_into_the_table_of_its_sequences(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_benchmark(davis(tmp_path), FAKE, out)
    report = run_benchmark(open_dataset("davis17", tmp_path / "davis", limit=1), parse_variants(["fake:slow"]), out)
    assert list(report["variants"]) == ["fake-slow"]
    report = run_benchmark(davis(tmp_path), parse_variants(["fake:slow"]), out)
    assert list(report["variants"]) == ["fake", "fake-slow"]
    assert report["dataset"]["notes"] == []


def test_a_damaged_table_is_made_again_from_the_folders_of_variants(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_benchmark(davis(tmp_path), FAKE, out)
    path = out / "results.json"
    path.write_bytes(path.read_bytes()[:-99])
    again = run_benchmark(davis(tmp_path), parse_variants(["fake:slow"]), out)
    assert list(again["variants"]) == ["fake", "fake-slow"]


@pytest.mark.parametrize("harm", ["cut", "types", "objects", "name", "gone"])
def test_a_variant_whose_results_are_damaged_is_in_no_table(harm: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_benchmark(davis(tmp_path), FAKE, out)
    path = out / "fake" / "results.json"
    report = json.loads(path.read_text())
    if harm == "types":
        report["variants"]["fake"] = ["?"]
    elif harm == "objects":
        report["variants"]["fake"]["objects"][0]["curves"]["J"] = [{"1": 2}]
    elif harm == "name":
        report["variants"]["../fake"] = report["variants"].pop("fake")
    path.write_text(json.dumps(report)[: -99 if harm == "cut" else None])
    if harm == "gone":
        shutil.rmtree(out / "fake")
    again = run_benchmark(davis(tmp_path), parse_variants(["fake:slow"]), out)
    assert list(again["variants"]) == ["fake-slow"]


def test_masks_of_an_earlier_variant_may_be_gone(tmp_path: Path) -> None:
    run_benchmark(davis(tmp_path), FAKE, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "fake" / "Annotations")
    report = run_benchmark(davis(tmp_path), parse_variants(["fake:slow"]), tmp_path / "out")
    assert list(report["variants"]) == ["fake", "fake-slow"]


def test_interruption_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    run_benchmark(dataset, FAKE, tmp_path / "whole")
    steps, original = iter(range(99)), fakes.FakeMethod.remember

    def remember(self: Any, *given: Any) -> Any:
        if next(steps) == 7:
            raise KeyboardInterrupt
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(fakes.FakeMethod, "remember", remember)
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(dataset, FAKE, out)
    assert [path.name for path in (out / "fake" / ".vostrack").glob("*.json")] == ["cat.json"]
    report = run_benchmark(dataset, FAKE, out)
    assert report["timing"]["variants"]["fake"]["verified"] == ["cat"]
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("where", [".", "Annotations/480p", "JPEGImages/new"])
def test_results_do_not_go_into_the_dataset(where: str, tmp_path: Path) -> None:
    dataset = davis(tmp_path)
    with pytest.raises(OutputError, match="dataset's own folders"):
        run_benchmark(dataset, FAKE, dataset.root / where)


def test_empty_given_mask_ends_one_sequence(tmp_path: Path) -> None:
    dataset = davis(tmp_path)
    trees.mask(dataset.root / "Annotations" / "480p" / "dog" / "00000.png", 0, ())
    log = Log()
    report = run_benchmark(dataset, FAKE, tmp_path / "out", callbacks=log)
    assert log.notes == report["dataset"]["notes"] == ["dog is left out: the given mask of frame 00000 has no object"]
    assert [row["object"] for row in report["variants"]["fake"]["objects"]] == ["cat_1", "cat_2"]
    trees.mask(dataset.root / "Annotations" / "480p" / "cat" / "00000.png", 0, ())
    with pytest.raises(NoObjectError, match="no sequence can be run: cat is left out: the given mask of frame 00000"):
        run_benchmark(dataset, FAKE, tmp_path / "out")


def test_mask_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = davis(tmp_path)
    palette_image(np.eye(9, dtype=np.uint8)).save(dataset.root / "Annotations" / "480p" / "dog" / "00003.png")
    with pytest.raises(DatasetError, match=r"dog, frame 00003: result is \(48, 64\), ground truth \(9, 9\)"):
        run_benchmark(dataset, FAKE, tmp_path / "out")


@pytest.mark.parametrize("text", ["", "a:", "a b", "a,b", "../a", "a:b:c"])
def test_texts_that_are_no_variants_are_refused(text: str) -> None:
    with pytest.raises(MethodError, match="is not a variant"):
        parse_variants([text])


def test_variants_are_parsed_and_named() -> None:
    plain, full = parse_variants(["anchors", "anchors:paper,stages=1,2,top-k=3,weights=a/b.safetensors"])
    assert (plain.pipeline, plain.name, plain.text) == (PipelineConfig(method="anchors"), "anchors", "anchors")
    assert full.pipeline.settings == {"stages": (1, 2), "top_k": 3}
    assert (full.pipeline.preset, full.pipeline.weights) == ("paper", "a/b.safetensors")
    assert full.name.startswith("anchors-paper-")
    check_different([plain, full])
    with pytest.raises(MethodError, match="twice"):
        check_different(parse_variants(["fake", "fake:default"]))


def test_random_weights_say_so_in_the_name() -> None:
    trained, random = parse_variants(["fake", "fake,weights=random"])
    assert (trained.name, random.name) == ("fake", "fake-random")
    assert parse_variants(["fake", "fake:slow"], weights="random")[1].name == "fake-slow-random"


@pytest.mark.data
def test_masks_of_others_are_scored_as_by_the_official_code(dev_data: Path) -> None:
    dataset = open_dataset("davis16", dev_data / "davis16", sequences=["dog"])
    rows = score_sequence(dataset.sequences[0], dev_data / "golden-metrics" / "osvos" / "dog")
    with (dev_data / "golden-metrics" / "per_object_osvos_official_code.csv").open() as file:
        wanted = {row["object"]: row for row in csv.DictReader(file)}["dog_1"]
    assert rows[0].values == pytest.approx({key: float(wanted[key]) for key in rows[0].values}, abs=1e-6)


def test_settings_that_a_protocol_asks_for_reach_methods_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"rate": 0.5, "outlier_removal": False}
    monkeypatch.setitem(DATASETS, "jumpcut", replace(DATASETS["jumpcut"], method_settings=wanted))
    variants = parse_variants(["fake", "fake,rate=0.25"])
    run_benchmark(open_dataset("jumpcut", trees.jumpcut(tmp_path / "data")), variants, tmp_path / "out")
    rates = [
        json.loads((tmp_path / "out" / v.name / ".vostrack" / "settings").read_text())["config"]["rate"]
        for v in variants
    ]
    assert rates == [0.5, 0.25]
    assert variants[0].name == "fake"


PLACES = ("results.json", "results.csv", "report.html", "fake", "fake/results.json", "fake/results.csv",
          "fake/.vostrack", "fake/.vostrack/settings", "fake/.vostrack/cat.json", "fake/Annotations",
          "fake/Annotations/cat", "fake/Annotations/cat/00001.png")  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("name", PLACES)
def test_no_link_and_no_pipe_is_written_to(name: str, kind: str, tmp_path: Path) -> None:
    dataset, out, theirs = davis(tmp_path), tmp_path / "out", tmp_path / "theirs"
    run_benchmark(dataset, FAKE, out)
    before = files(out)
    (out / name).rename(theirs)
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(theirs)
        trees.mask(dataset.root / "Annotations" / "480p" / "cat" / "00000.png", 1)  # all masks of it are made again
    with pytest.raises(OutputError, match="is a link" if kind == "link" else "neither a file nor a folder"):
        run_benchmark(dataset, FAKE, out, overwrite=True)
    (out / name).unlink()
    theirs.rename(out / name)
    there = files(out)
    assert {path: there.get(path) for path in before if path.startswith(name)} == {
        path: data for path, data in before.items() if path.startswith(name)
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "9" * 5000, '{"key": 3, "masks": []}', '{"threads": "\\ud800"}'])
@pytest.mark.parametrize("name", ["settings", "cat.json"])
def test_hostile_records_are_made_again(name: str, text: str, tmp_path: Path) -> None:
    dataset, out = davis(tmp_path), tmp_path / "out"
    report = run_benchmark(dataset, FAKE, out)
    (out / "fake" / ".vostrack" / name).write_text(text)
    assert run_benchmark(dataset, FAKE, out, overwrite=True)["variants"] == report["variants"]
