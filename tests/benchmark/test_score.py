"""Scoring of sequences and folders: the official rules, and the figures of the official code."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.benchmark.sequences import Labels, Log, binary, clip, folders, save, scored
from vostrack.benchmark.metrics import contour, region, statistics
from vostrack.benchmark.score import ObjectScore, Rules, Scores, score_folders, score_masks
from vostrack.cli.score import score
from vostrack.errors import Cancelled, DatasetError, NoObjectError
from vostrack.notes import Code, Note


def test_scores_are_statistics_of_the_metrics_without_first_and_last_frame() -> None:
    found, wanted = clip(1, 7), clip(2, 7)
    for number, row in enumerate(scored(found, wanted), start=1):
        pairs = [(p == number, t == number) for p, t in zip(found[1:-1], wanted[1:-1], strict=True)]
        assert (row.name, row.object_id, row.frames) == (f"dog_{number}", number, 5)
        for letter, metric in (("J", region), ("F", contour)):
            stats = statistics([metric(*pair) for pair in pairs])
            assert [row.values[f"{letter}_{key}"] for key in ("mean", "recall", "decay")] == list(stats.values())


def test_first_and_last_result_do_not_count(tmp_path: Path) -> None:
    found, wanted = clip(1), clip(2)
    noise = np.full_like(found[0], 200)
    results = save(tmp_path / "results", [noise, *found[1:-1], noise])
    truth = save(tmp_path / "truth", [*wanted[:-1], noise])
    assert list(score_folders(results, truth).objects) == scored(found, wanted)


def test_objects_are_those_of_the_first_truth() -> None:
    wanted = clip(3, ids=(1, 2))
    late = [wanted[0], *(labels.copy() for labels in wanted[1:])]
    for labels in late[1:]:
        labels[-3:] = 3
    assert [row.object_id for row in scored(wanted, late)] == [1, 2]


def test_void_is_background_in_the_truth() -> None:
    found, wanted = clip(1), clip(2)
    for labels in wanted:
        labels[:5] = 0
    void = [labels.copy() for labels in wanted]
    for labels in void:
        labels[:5] = 255
    assert scored(found, void) == scored(found, wanted)


def test_missing_object_scores_zero_where_the_truth_has_it_and_one_elsewhere() -> None:
    wanted = clip(4, 5, ids=(1,))
    wanted[2][:] = 0
    (row,) = scored([np.zeros_like(labels) for labels in wanted], wanted)
    assert row.values["J_mean"] == row.values["F_mean"] == pytest.approx(1 / 3)


def test_ids_that_nobody_uses_are_no_objects() -> None:
    wanted = clip(5, ids=(3, 200))
    assert [(row.object_id, row.values["J_mean"]) for row in scored(wanted, wanted)] == [(3, 1), (200, 1)]
    found = [labels.copy() for labels in wanted]
    found[2][0, 0] = 7
    assert [(row.object_id, row.values["J_mean"]) for row in scored(found, wanted)][1] == (7, 0.75)


def test_0_255_masks_are_one_object() -> None:
    found, wanted = clip(6, ids=(1,)), clip(7, ids=(1,))
    wanted[2][:] = 0
    expected = scored(found, wanted)
    assert scored(found, binary(wanted)) == scored(binary(found), wanted) == expected
    assert scored(binary(found), binary(wanted)) == expected


def test_frame_of_background_and_void_is_no_object() -> None:
    """Only a sequence that starts with 0 and 255 is a binary one."""
    wanted = clip(8, ids=(1,))
    wanted[2][:] = 0
    void = [labels.copy() for labels in wanted]
    void[2][:9] = 255
    assert scored(wanted, void) == scored(wanted, wanted)


@pytest.mark.parametrize("frames", [1, 2])
def test_sequence_without_scored_frames_is_refused(frames: int, tmp_path: Path) -> None:
    results, truth = save(tmp_path / "results", clip(1, frames)), save(tmp_path / "truth", clip(1, frames))
    with pytest.raises(DatasetError, match=f"dog: expected 3 frames or more.*found {frames}"):
        score_folders(results, truth)


def test_three_frames_are_enough() -> None:
    assert all(row.frames == 1 and row.values["J_decay"] == 0 for row in scored(clip(1, 3), clip(2, 3)))


def test_long_sequence_has_the_official_decay_only_on_request() -> None:
    maps = clip(1, 3, ids=(1,), size=(9, 9))
    pairs = [(str(number), maps[1] if number < 200 else maps[0] * 0, maps[1]) for number in range(1, 261)]
    (right,), (official,) = (score_masks("long", maps[1], pairs, Rules(wraps)) for wraps in (False, True))
    assert right.values["J_decay"] == pytest.approx(61 / 66)
    assert math.isnan(official.values["J_decay"])
    assert json.dumps(Scores((official,)).to_json()["objects"][0]["J_decay"]) == "null"


def late_clip(seed: int, frame: int = 3) -> list[Labels]:
    """Object 1, and object 2 from a frame on."""
    maps = clip(seed)
    for labels in maps[:frame]:
        labels[labels == 2] = 0
    return maps


def scored_late(found: Sequence[Labels], wanted: Sequence[Labels], **rules: bool) -> list[ObjectScore]:
    return scored(found, wanted, Rules(late_objects=True, **rules))


def test_late_objects_count_behind_the_frame_where_they_appear() -> None:
    found, wanted = clip(1, 8), late_clip(2, 3)
    wanted += [wanted[-1].copy(), wanted[-1].copy()]
    one, two = scored_late(found, wanted)
    assert (one.object_id, one.curves["frames"]) == (1, ["00001", "00002", "00003", "00004", "00005", "00006"])
    assert (two.object_id, two.curves["frames"]) == (2, ["00004", "00005", "00006"])
    pairs = [(found[index] == 2, wanted[index] == 2) for index in (4, 5, 6)]
    assert two.values["J_mean"] == np.mean([region(*pair) for pair in pairs])
    assert one.values == scored(found, wanted)[0].values


def test_late_objects_may_be_found_before_they_appear() -> None:
    """As by a method that follows an object backwards from the mask that gives it."""
    found = clip(1)
    assert [row.object_id for row in scored_late(found, late_clip(1))] == [1, 2]
    assert [row.object_id for row in scored(found, late_clip(1))] == [1]


def test_late_objects_that_are_not_scored_are_named() -> None:
    notes: list[str] = []
    pairs = [("1", labels, labels) for labels in late_clip(1)[1:-1]]
    assert [row.object_id for row in score_masks("dog", late_clip(1)[0], pairs, note=notes.append)] == [1]
    assert notes == ["dog: not scored, since they appear too late: 2; the rules can be told to score late objects"]


def test_objects_that_appear_with_the_last_scored_frame_are_named() -> None:
    notes: list[str] = []
    pairs = [("1", labels, labels) for labels in late_clip(1, 4)[1:-1]]
    rows = score_masks("dog", late_clip(1)[0], pairs, Rules(late_objects=True), notes.append)
    assert [row.object_id for row in rows] == [1]
    assert notes == ["dog: not scored, since they appear too late: 2"]


def test_objects_that_no_truth_has_are_refused_with_late_objects_too() -> None:
    with pytest.raises(DatasetError, match="dog, frame 00002: result has object 7, the ground truth only 1, 2"):
        scored_late([*clip(1)[:2], clip(1, ids=(7,))[2], *clip(1)[3:]], late_clip(1))


def test_a_sequence_may_begin_without_objects_where_late_ones_count() -> None:
    wanted = clip(4, ids=(1,))
    wanted[0][:], wanted[1][:] = 0, 0
    for truth in (wanted, binary(wanted)):
        (row,) = scored_late(binary(wanted), truth)
        assert (row.values["J_mean"], row.curves["frames"]) == (1, ["00003", "00004"])


def test_void_counts_neither_as_hit_nor_as_miss_on_request() -> None:
    found, wanted = clip(1), clip(2)
    void = [labels.copy() for labels in wanted]
    for labels in void:
        labels[:8] = 255
    for labels in (*found, *wanted):
        labels[:8] = 0
    expected = scored(found, wanted)
    for labels in found:
        labels[:8] = 2
    assert scored(found, void, Rules(ignore_void=True)) == expected
    assert scored(found, void) != expected


def test_empty_first_truth_ends_one_sequence(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    expected = score_folders(results, truth, sequences=["cat", "emu"])
    Image.fromarray(np.zeros_like(clip(1)[0])).save(truth / "dog" / "00000.png")
    log = Log()
    scores = score_folders(results, truth, callbacks=log)
    assert scores.objects == expected.objects
    assert "dog: no object in the ground truth of the first frame, so it is not scored" in log.notes
    assert scores.to_json()["notes"] == log.notes
    with pytest.raises(NoObjectError, match="dog: no object in the ground truth of the first frame"):
        score_folders(results, truth, sequences=["dog"])


def notes_of(found: Sequence[Labels], wanted: Sequence[Labels], **rules: bool) -> list[Note]:
    """What is said of sequences that `scored` scores."""
    notes: list[Note] = []
    pairs = [(str(index), *pair) for index, pair in enumerate(zip(found, wanted, strict=True))]
    score_masks("dog", wanted[0], pairs[1:-1], Rules(**rules), notes.append)
    return notes


def relabelled(maps: Sequence[Labels], **ids: int) -> list[Labels]:
    """Label maps in which ids are others: `_1=2` makes 2 of 1."""
    table = np.arange(256, dtype=np.uint8)
    for name, number in ids.items():
        table[int(name[1:])] = number
    return [table[labels] for labels in maps]


def test_exchanged_ids_are_pointed_out_with_those_of_the_truth() -> None:
    wanted = clip(2, ids=(1, 2, 3))
    (note,) = notes_of(relabelled(wanted, _1=2, _2=1), wanted)
    assert note.code is Code.OBJECTS_EXCHANGED
    assert "(1 is 2, 2 is 1): IoU 1.00 so, 0.00 by id" in note
    assert not notes_of(wanted, wanted)
    assert not notes_of(clip(1), clip(2)), "poor masks are no exchanged ones"


def test_objects_that_one_side_lacks_are_named() -> None:
    wanted = clip(2, ids=(1, 2, 4))
    assert notes_of(relabelled(wanted, _2=0), wanted) == ["dog: the result never shows object 2"]
    assert notes_of(relabelled(clip(2, ids=(1, 2, 4)), _2=3), wanted)[:2] == [
        "dog: the result never shows object 2",
        "dog: the ground truth never shows object 3",
    ]
    gone = [wanted[0], *relabelled(wanted[1:], _2=0)]
    assert not notes_of(wanted, gone), "its first frame shows it"


def test_ids_that_no_truth_has_come_with_those_that_they_stand_for() -> None:
    wanted = clip(2)
    with pytest.raises(DatasetError, match=r"only 1, 2; .* \(by their places, 3 is 1, 200 is 2\)"):
        notes_of(relabelled(wanted, _1=3, _2=200), wanted)


@pytest.mark.parametrize("ids", [(1, 2, 3), (1, 255)])
def test_result_with_more_objects_than_the_truth_is_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(DatasetError, match=f"dog, frame 00001: result has object {max(ids)}"):
        scored(clip(1, ids=ids), clip(1))


def test_0_255_result_for_several_objects_is_refused() -> None:
    with pytest.raises(DatasetError, match="object 255, the ground truth only 1, 2; objects need the ids of"):
        scored(binary(clip(1)), clip(1))


def test_result_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"dog, frame 00001: result is \(24, 31\), ground truth \(20, 31\)"):
        scored(clip(1), clip(1, size=(20, 31)))


def test_binary_truth_that_turns_grey_is_refused() -> None:
    wanted = binary(clip(1))
    wanted[3][0, 0] = 128
    with pytest.raises(DatasetError, match="dog, frame 00003: expected only 0 and 255"):
        scored(clip(1, ids=(1,)), wanted)


def test_folders_are_scored_by_name_and_totals_are_means_over_objects(tmp_path: Path) -> None:
    scores = score_folders(*folders(tmp_path))
    assert [row.name for row in scores.objects] == ["cat_1", "dog_1", "dog_2", "emu_1", "emu_2"]
    assert scores.objects[1:3] == tuple(scored(clip(1), clip(10)))
    total = scores.total()
    assert list(total) == ["J&F", "J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay"]
    assert total["J_mean"] == pytest.approx(sum(row.values["J_mean"] for row in scores.objects) / 5)
    assert total["F_decay"] == pytest.approx(sum(row.values["F_decay"] for row in scores.objects) / 5)
    assert total["J&F"] == pytest.approx((total["J_mean"] + total["F_mean"]) / 2)


def test_processes_do_not_change_scores(tmp_path: Path) -> None:
    log = Log()
    alone = score_folders(*folders(tmp_path))
    assert score_folders(*folders(tmp_path), jobs=2, callbacks=log) == alone
    assert log.seen == [(1, 3), (2, 3), (3, 3)]


def test_callbacks_stop_scoring(tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="cancelled after 2 of 3"):
        score_folders(*folders(tmp_path), callbacks=Log(stop=2))


def test_errors_come_out_of_processes(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    (results / "dog" / "00002.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"dog.00002\.png"):
        score_folders(results, truth, jobs=2)


def test_sequences_are_scored_in_the_given_order(tmp_path: Path) -> None:
    scores = score_folders(*folders(tmp_path), sequences=["emu", "cat", "emu"])
    assert [row.name for row in scores.objects] == ["emu_1", "emu_2", "cat_1"]


def test_json_has_a_stable_layout(tmp_path: Path) -> None:
    layout = score_folders(*folders(tmp_path), sequences=["cat"]).to_json()
    assert list(layout) == [
        "format",
        "official_decay",
        "late_objects",
        "ignore_void",
        "notes",
        "sequences",
        "total",
        "objects",
    ]
    keys = ["object", "sequence", "id", "frames", "J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay"]
    assert [list(row) for row in layout["objects"]] == [keys]
    assert layout["objects"][0]["object"] == "cat_1"
    json.dumps(layout, allow_nan=False)


app = typer.Typer()
app.command()(score)


def test_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    output = tmp_path / "scores.json"
    run = CliRunner().invoke(app, [str(results), str(truth), "--json", str(output), "-s", "cat", "-s", "dog"])
    assert run.exit_code == 0, run.output
    assert [name in run.stdout for name in ("cat_1", "dog_2", "emu_1")] == [True, True, False]
    expected = score_folders(results, truth, sequences=["cat", "dog"])
    assert f"J&F {expected.total()['J&F']:.4f}, mean of 3 objects in 2 sequences" in " ".join(run.stdout.split())
    assert json.loads(output.read_text()) == expected.to_json()


def test_command_passes_errors_on(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, [str(tmp_path), str(tmp_path)])
    assert isinstance(run.exception, DatasetError)


def test_command_loads_nothing_before_it_runs() -> None:
    code = "import sys, vostrack.cli.score; sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def official_rows(dev_data: Path) -> Mapping[str, Mapping[str, str]]:
    with (dev_data / "golden-metrics" / "per_object_osvos_official_code.csv").open() as file:
        return {row["object"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.data
def test_scores_are_those_of_the_official_code(dev_data: Path) -> None:
    rows = official_rows(dev_data)
    names = sorted({name.rpartition("_")[0] for name in rows} - {"bmx-trees"})
    results = dev_data / "golden-metrics" / "osvos"
    single = score_folders(results, dev_data / "davis16" / "Annotations" / "480p", sequences=names)
    several = score_folders(results, dev_data / "davis17-dev" / "Annotations" / "480p", sequences=["bmx-trees"])
    scores = {row.name: row for row in single.objects + several.objects}
    assert scores.keys() == rows.keys()
    for name, row in scores.items():
        assert row.frames == int(rows[name]["frames"]) - 2
        for key, value in row.values.items():
            assert value == pytest.approx(float(rows[name][key]), abs=1e-6), (name, key)
