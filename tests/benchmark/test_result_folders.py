"""Where results and ground truth are looked for, and what is said of those that are not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.benchmark.sequences import clip, folders, save, scored
from vostrack import cli
from vostrack.benchmark.score import score_folders
from vostrack.errors import DatasetError


def runs(path: Path, *names: str) -> Path:
    """Folders of runs, `NAME_vostrack`, with the masks that `folders` has."""
    results, _ = folders(path)
    for name in names:
        (path / "runs" / f"{name}_vostrack").mkdir(parents=True)
        shutil.copytree(results / name, path / "runs" / f"{name}_vostrack" / "masks")
        (path / "runs" / f"{name}_vostrack" / "summary.json").write_text("{}")
    return path / "runs"


def renamed(folder: Path, digits: int, shift: int = 0) -> None:
    """Number the masks in a folder anew."""
    files = sorted(folder.glob("*.png"), reverse=shift > 0)
    for file in files:
        file.rename(file.with_name(f"{int(file.stem) + shift:0{digits}d}.png"))


def test_a_folder_of_runs_is_scored(tmp_path: Path) -> None:
    there = runs(tmp_path, "cat", "dog", "emu")
    assert score_folders(there, tmp_path / "truth") == score_folders(*folders(tmp_path))


def test_a_run_is_scored_against_its_sequence(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog") / "dog_vostrack"
    expected = score_folders(*folders(tmp_path), sequences=["dog"])
    assert score_folders(run, tmp_path / "truth") == expected, "its name says which sequence it is of"
    for results in (run, run / "masks", tmp_path / "results" / "dog"):
        assert score_folders(results, tmp_path / "truth" / "dog") == expected
        assert score_folders(results, tmp_path / "truth", sequences=["dog"]) == expected


def test_a_run_named_as_the_sequence_is_scored(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog")
    (run / "dog_vostrack").rename(run / "dog")
    assert score_folders(run, tmp_path / "truth", sequences=["dog"]).sequences == 1


def test_names_may_have_more_digits(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    expected = score_folders(results, truth)
    renamed(truth / "dog", 8)
    renamed(results / "cat", 1)
    longer = score_folders(results, truth)
    assert [row.values for row in longer.objects] == [row.values for row in expected.objects]
    assert longer.objects[1].curves["frames"][0] == "00000001"


@pytest.mark.parametrize("digits", [5, 8])
def test_frames_that_count_from_another_number_are_refused(digits: int, tmp_path: Path) -> None:
    """All scored frames are there by name, and each would be compared with its neighbour."""
    results, truth = folders(tmp_path)
    renamed(truth / "dog", digits, shift=1)
    with pytest.raises(DatasetError, match=r"dog has 00000\.png to 00005\.png, .*dog as many .* from 0+1\.png to 0+6"):
        score_folders(results, truth, sequences=["dog"])


def test_two_files_of_one_number_are_none(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    for name in ("1.png", "001.png"):
        shutil.copy(results / "dog" / "00001.png", results / "dog" / name)
    assert score_folders(results, truth) == score_folders(*folders(tmp_path))
    (results / "dog" / "00001.png").unlink()
    with pytest.raises(
        DatasetError,
        match=r"00001\.png of 4 scored frames \(all but the first and the last\); it holds 1\.png, 0",
    ):
        score_folders(results, truth)


def test_missing_frames_come_with_those_that_are_there(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    for file in (results / "dog").iterdir():
        file.rename(file.with_name(f"dog-{file.name}"))
    with pytest.raises(DatasetError, match=r"lacks 00001\.png, .* of 4 scored frames .*; it holds dog-00000\.png, "):
        score_folders(results, truth)
    shutil.rmtree(results / "dog")
    (results / "dog").mkdir()
    with pytest.raises(DatasetError, match="it holds no PNG files"):
        score_folders(results, truth)


def test_missing_sequences_come_with_those_that_are_there(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    shutil.rmtree(results / "dog")
    with pytest.raises(DatasetError, match=r"results lacks dog of 3 sequences; it holds cat, emu$"):
        score_folders(results, truth)
    run = runs(tmp_path / "own", "dog") / "dog_vostrack"
    run = run.rename(run.with_name("out"))
    with pytest.raises(
        DatasetError,
        match=r"lacks cat, .* of 3 .* masks of one sequence: name it by `sequences`, as cat",
    ):
        score_folders(run, truth)


@pytest.mark.parametrize(
    "layout", ["Annotations/480p", "Annotations", "Annotations/Full-Resolution", "valid/Annotations"]
)
def test_the_root_of_a_dataset_stands_for_its_masks(layout: str, tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    expected = score_folders(results, truth)
    shutil.copytree(truth, tmp_path / "DAVIS" / layout)
    save(tmp_path / "DAVIS" / "JPEGImages", clip(1), "dog")
    shutil.copytree(results, tmp_path / "variant" / "Annotations")
    for found in (results, tmp_path / "variant"):
        assert score_folders(found, tmp_path / "DAVIS") == expected
    shutil.copytree(truth, tmp_path / "DAVIS" / "train" / "Annotations")
    if layout == "valid/Annotations":
        with pytest.raises(DatasetError, match=r"masks in train.Annotations, valid.Annotations: give one"):
            score_folders(results, tmp_path / "DAVIS")


def test_results_that_are_named_like_no_sequence_are_pointed_out(tmp_path: Path) -> None:
    _, truth = folders(tmp_path)
    results = shutil.copytree(truth, tmp_path / "results", dirs_exist_ok=True)
    shutil.copytree(results / "dog", results / "Dog")
    (note,) = score_folders(results, truth).notes
    assert note.endswith("results has masks of Dog, and the ground truth is of cat, dog, emu")
    assert not score_folders(results, truth, sequences=["dog"]).notes
    run = runs(tmp_path / "own", "dog", "cat")
    assert score_folders(run, truth, sequences=["cat", "dog"]).sequences == 2
    (note, *_) = score_folders(run / "cat_vostrack", truth / "emu").notes
    assert "has masks of cat, and the ground truth is of emu" in note
    (run / "cat_vostrack").rename(run / "out")
    assert not score_folders(run / "out", truth / "cat").notes


def test_names_of_a_terminal_stay_plain(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    shutil.rmtree(results / "dog")
    save(results, clip(1), "\x1b[31mred")
    with pytest.raises(DatasetError) as caught:
        score_folders(results, truth)
    assert "\x1b" not in str(caught.value)


def test_results_in_the_place_of_the_truth_are_known(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog") / "dog_vostrack"
    save(tmp_path / "truth", clip(1, ids=(1, 2, 3)), "dog")
    with pytest.raises(DatasetError, match=r"only 1, 2; .*; the ground truth, .*dog_vostrack.*, is of a run"):
        score_folders(tmp_path / "truth" / "dog", run)


def test_a_folder_of_masks_has_the_name_of_its_clip(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog") / "dog_vostrack"
    shutil.copytree(run, tmp_path / "mine" / "dog")
    for truth in (tmp_path / "mine" / "dog", tmp_path / "mine" / "dog" / "masks"):
        assert {row.sequence for row in score_folders(run, truth).objects} == {"dog"}


def test_command_asks_about_masks_that_do_not_overlap(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog") / "dog_vostrack"
    for path in (run / "masks").glob("*.png"):
        Image.new("L", clip(1)[0].shape[::-1]).save(path)
    said = CliRunner().invoke(cli.app, ["score", str(run), str(tmp_path / "truth" / "dog")])
    assert said.stderr.splitlines()[-1] == "next: nothing overlaps: are these masks of the same clip?"


def test_command_scores_a_run(tmp_path: Path) -> None:
    run = runs(tmp_path, "dog") / "dog_vostrack"
    said = CliRunner().invoke(cli.app, ["score", str(run), str(tmp_path / "truth" / "dog")])
    assert said.exit_code == 0, said.output
    mean = sum(row.values["J_mean"] + row.values["F_mean"] for row in scored(clip(1), clip(10))) / 4
    assert f"J&F {mean:.4f}, mean of 2 objects in 1 sequence" in " ".join(said.stdout.split())
    line = said.stderr.splitlines()[-1]
    assert re.fullmatch(r"next: look at frame 0000[1-4] of dog_[12], where J is 0\.\d\d, the lowest", line)
