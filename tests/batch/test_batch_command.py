from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.batch.clips import SIZE, write_clips
from tests.runs import results
from vostrack.batch.run import shard_of
from vostrack.batch.task import Task
from vostrack.cli import console, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_clips(tmp_path, {"dog": 4, "cat": 5})
    monkeypatch.chdir(tmp_path)
    return tmp_path


COPY = ["--option", "method=copy", "--option", "overlay=no"]


@pytest.mark.slow
def test_a_batch_from_plan_to_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", "plan", "videos", "--masks", "masks", "-o", "plan.csv"]) == 0
    assert "vostrack batch run plan.csv" in capsys.readouterr().err
    Image.effect_noise(SIZE[::-1], 64).save(folder / "masks/eel.png")  # it shows more objects than there may be
    rows = (folder / "plan.csv").read_text().splitlines()
    rows = [f"{rows[0]},out", *(f"{row}," for row in rows[1:]), "videos/dog.mp4,masks/eel.png,eel"]
    (folder / "plan.csv").write_text("\n".join(rows))
    assert run(["batch", "run", "plan.csv", "--out", "runs", *COPY, "--json"]) == 3
    told = capsys.readouterr()
    ended = {line["name"]: line for line in map(json.loads, told.out.splitlines())}
    assert {name: line["status"] for name, line in ended.items()} == {"dog": "done", "cat": "done", "eel": "failed"}
    assert "warning [batch-failed] eel: " in told.err
    assert "2 clips done, 1 failed; report: runs/batch.html" in told.err
    words = ["-m", "masks/dog.png", "-o", "dog", "--method", "copy", "--no-overlay"]
    assert run(["segment", "videos/dog.mp4", *words]) == 0
    assert results(folder / "dog") == results(folder / "runs/dog")
    capsys.readouterr()

    assert run(["batch", "status", "runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "done": 2,
        "failed": 1,
        "left": 0,
        "warned": 0,
        "kept": 0,
        "others": 0,
    }
    plan = (folder / "plan.csv").read_text()
    (folder / "plan.csv").write_text(plan.replace("masks/eel.png", "masks/cat.png"))  # its line is mended
    kept = (folder / "runs/.batch/all/plan.json").read_text()
    assert run(["batch", "retry", "runs"]) == 0
    assert "3 clips done, 0 failed" in capsys.readouterr().err
    assert (folder / "runs/.batch/all/plan.json").read_text() == kept
    assert run(["batch", "retry", "runs"]) == 0
    assert "no clip has failed" in capsys.readouterr().err
    assert run(["batch", "run", "plan.csv", "--out", "runs", *COPY, "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(line["name"], line["status"], line["attempts"]) for line in again} == {
        *(("dog", "done", 0), ("cat", "done", 0), ("eel", "done", 0))
    }

    page = (folder / "runs/batch.html").read_text()
    assert re.findall(r"<h2>(.*)</h2>", page) == ["cat", "dog", "eel"]
    assert page.count("data:image/jpeg;base64,") == 3
    table = (folder / "runs/batch.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in table] == ["name", "cat", "dog", "eel"]
    assert len(json.loads((folder / "runs/batch.json").read_text())["clips"]) == 3


def test_faults_are_a_line_each_and_nothing_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.csv").write_text("clip,mask,size\nvideos/dog.mp4,none.png,\nvideos/cat.mp4,masks/cat.png,x\n")
    assert run(["batch", "run", "plan.csv", "--out", "runs"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines[:2]] == [" plan.csv, line 2", " plan.csv, line 3"]
    assert lines[2:] == [
        "2 faults in the plan: nothing was run",
        "next: mend what is said above, then give the same command again",
    ]
    assert not (folder / "runs").exists()


def test_a_mask_of_another_size_may_be_accepted_in_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (32, 24), 255).save(folder / "masks/cat.png")
    assert run(["batch", "run", "videos", "--masks", "masks", "--out", "runs"]) == 5
    said = "or accept it with 'yes' in a column 'resize_mask', or --option resize_mask=yes\n"
    assert said in capsys.readouterr().err


def test_a_path_that_no_system_takes_is_a_fault_of_its_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.csv").write_text(f"clip,mask\n{'9' * 400},masks/dog.png\nvideos/none.mp4,masks/dog.png\n")
    assert run(["batch", "run", "plan.csv", "--out", "runs"]) == 5
    first, *_ = lines = capsys.readouterr().err.splitlines()
    assert re.match("error: plan.csv, line 2: cannot use .*9: File name too long", first)
    assert lines[2] == "2 faults in the plan: nothing was run"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "videos", "--out", "runs"], "where the masks are"),
        (["run", "plan.csv", "--masks", "masks", "--out", "runs"], "names the masks itself"),
        (["run", "videos", "--masks", "masks", "--out", "runs", "--shard", "3/2"], "expected I/N"),
        (["run", "videos", "--masks", "masks", "--out", "runs", "--option", "fast"], "expected NAME=VALUE"),
        (
            ["run", "plan.csv", "--out", "runs", "--size", "240"],
            "--size is an option of each clip: use a column 'size' of the plan, or --option size=VALUE for all clips",
        ),
        (
            ["run", "plan.csv", "--out", "runs", "--no-overlay"],
            "--no-overlay is an option of each clip: use a column",
        ),
        (
            ["run", "plan.csv", "--out", "runs", "--format", "coco"],
            "--format is an option of each clip: use a column 'export' of the plan, or --option export=VALUE",
        ),
        (["run", "plan.csv", "--out"], "'--out' requires an argument"),
        (["plan", "plan.csv"], "a plan already"),
        (["status", "videos"], "holds no batch"),
        (["retry", "videos"], "holds no batch"),
    ],
)
def test_what_is_typed_wrong(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    (folder / "plan.csv").write_text("clip,mask\nvideos/dog.mp4,masks/dog.png\n")
    assert run(["batch", *words]) in (2, 6)
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_progress_of_a_shard_counts_its_own_clips(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    (folder / "plan.csv").write_text("clip,mask\nvideos/dog.mp4,masks/dog.png\nvideos/cat.mp4,masks/cat.png\n")
    shards = {shard_of(Task(Path(), {}, "", row={"clip": f"videos/{name}.mp4"}), 3) for name in ("dog", "cat")}
    assert len(shards) == 2
    assert run(["batch", "run", "plan.csv", "--out", "runs", *COPY, "--shard", f"{shards.pop()}/3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 clip: ")
    assert lines[-1].startswith("1 clip done, 0 failed")


def test_a_plan_has_clips_without_masks_and_says_which(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "masks/dog.png").rename(folder / "masks/bob.png")
    assert run(["batch", "plan", "videos", "--masks", "masks", "-o", "plan.csv"]) == 0
    assert (folder / "plan.csv").read_text() == "clip,mask\nvideos/cat.mp4,masks/cat.png\nvideos/dog.mp4,\n"
    missing, unused, then = capsys.readouterr().err.splitlines()
    assert re.match(r"warning \[batch-unpaired\] \S*dog.mp4 has no mask in \S*masks: name", missing)
    assert unused == "warning [batch-unpaired] 1 mask belongs to no clip: bob.png"
    assert then == "next: fill in 1 mask in plan.csv, then: vostrack batch run plan.csv --out runs"
    assert run(["batch", "plan", "videos", "--masks", "masks"]) == 0
    assert capsys.readouterr().out.endswith("videos/dog.mp4,\n")
    assert run(["batch", "run", "plan.csv", "--out", "runs"]) == 5
    assert "plan.csv, line 3: it has no mask: name it in the column 'mask'" in capsys.readouterr().err


def test_many_clips_without_masks_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        (folder / f"videos/{number}.mp4").write_bytes(b"")
        (folder / f"masks/x{number}.png").write_bytes(b"")
    assert run(["batch", "plan", "videos", "--masks", "masks", "-o", "plan.csv"]) == 0
    *named, more, unused, then = capsys.readouterr().err.splitlines()
    assert len(named) == 20
    assert more == "warning [batch-unpaired] the masks of 10 more are not clear either"
    assert re.match(r".* 30 masks belong to no clip: x0.png, (x\d+.png, ){18}x\d+.png and 10 more", unused)
    assert then.startswith("next: fill in 30 masks in plan.csv")


def test_a_folder_whose_masks_are_not_clear_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog", "cat"):
        (folder / f"masks/{name}.png").unlink()
    assert run(["batch", "run", "videos", "--out", "runs", "--masks", "masks"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert ["has no mask" in line for line in lines] == [True, True, False]
    assert lines[2] == (
        "2 faults: nothing was run; mend them, or fill in the masks of a plan: "
        "vostrack batch plan videos --masks masks -o plan.csv"
    )


def test_a_plan_that_is_there_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.csv").write_text("mine")
    assert run(["batch", "plan", "videos", "--masks", "masks", "-o", "plan.csv"]) == 9
    assert (folder / "plan.csv").read_text() == "mine"
    assert run(["batch", "plan", "videos/dog.mp4", "--masks", "masks"]) == 0
    assert capsys.readouterr().out == f"clip,mask\n{folder}/videos/dog.mp4,{folder}/masks/dog.png\n"


def test_a_plan_has_paths_from_its_own_folder_on(folder: Path) -> None:
    assert run(["batch", "plan", "videos/dog.mp4", "--masks", "masks", "-o", "plan.csv"]) == 0
    assert (folder / "plan.csv").read_text() == "clip,mask\nvideos/dog.mp4,masks/dog.png\n"


def test_results_do_not_go_among_clips_or_masks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, kind in (("videos", "clips"), ("masks/../videos/", "clips"), ("masks", "masks")):
        assert run(["batch", "run", "videos", "--masks", "masks", "--out", out]) == 2
        said = capsys.readouterr().err
        assert f"--out: the {kind} are there, and results would be taken for {kind}: give another folder" in said
    clips = [str(folder / f"videos/{name}.mp4") for name in ("dog", "cat")]
    assert run(["batch", "run", *clips, "--masks", "masks", "--out", "videos"]) == 2
    assert sorted(path.name for path in (folder / "videos").iterdir()) == ["cat.mp4", "dog.mp4"]


def test_the_results_of_a_batch_are_no_masks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("runs", "dog"):
        (folder / "masks" / name / ".batch").mkdir(parents=True)
    assert run(["batch", "plan", "videos", "--masks", "masks", "-o", "plan.csv"]) == 0
    assert capsys.readouterr().err == "next: look at plan.csv, then: vostrack batch run plan.csv --out runs\n"


def test_clips_that_are_not_there_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", "run", "vidoes", "--masks", "masks", "--out", "runs"]) == 5
    assert "cannot find 'vidoes'; did you mean videos?" in capsys.readouterr().err
    (folder / "plan.csv").write_text("clip,mask\n")
    assert run(["batch", "run", "plan.cvs", "--out", "runs"]) == 5
    assert (
        capsys.readouterr().err == "error: cannot find 'plan.cvs'; did you mean plan.csv?\n1 fault: there is no plan\n"
    )


def test_what_python_began_python_tries_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"name": "dog", "clip": "dog.mp4", "status": "failed", "key": "", "ended": 1.0}
    (folder / "runs/.batch/all").mkdir(parents=True)
    (folder / "runs/.batch/all/plan.json").write_text('{"clips": 1}')
    (folder / "runs/batch.jsonl").write_text(f"{json.dumps(failed)}\n")
    assert run(["batch", "retry", "runs"]) == 5
    assert "dog: call `run_batch` again" in capsys.readouterr().err
