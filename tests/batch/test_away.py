from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.batch.clips import FakePool, task, write_clips
from tests.runs import results
from vostrack import Callbacks, PlanError
from vostrack.batch.away import Scratch, at_hand
from vostrack.batch.report import write_report
from vostrack.batch.run import run_batch
from vostrack.batch.task import Result, Status, Task, run_one

pytestmark = [pytest.mark.needs("moto", "dev"), pytest.mark.needs("s3fs", "cloud")]
RUNS = Path("s3://clips/runs")


class StopAt(Callbacks):
    def __init__(self, left: int) -> None:
        self.left = left

    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def here(tmp_path: Path) -> list[Task]:
    """Clips on this machine."""
    lengths = {"dog": 4, "cat": 3}
    return [task(write_clips(tmp_path, lengths), name) for name in lengths]


@pytest.fixture
def away(store: Any, here: list[Task]) -> list[Task]:
    """The same clips, and their masks, in a store."""
    for each in here:
        store.put_file(str(each.clip), f"clips/videos/{each.clip.name}")
        store.put_file(str(each.masks[0]), f"clips/masks/{each.name}.png")
    clips = [(each, Path(f"s3://clips/videos/{each.clip.name}")) for each in here]
    return [replace(each, clip=clip, masks={0: Path(f"s3://clips/masks/{each.name}.png")}) for each, clip in clips]


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch")


def left(scratch: Scratch) -> list[Path]:
    """Runs and clips that are still in scratch."""
    return [*scratch.folder.rglob("run.json"), *scratch.folder.rglob("*.mp4")]


def working(scratch: Scratch) -> Callable[[Path], FakePool]:
    return lambda out: FakePool(lambda each, attempt: run_one(each, out, scratch=scratch))


def exporting(each: Task) -> Task:
    """A clip with an export that is a file, and one that is a folder."""
    return replace(each, arguments={**each.arguments, "exports": ["coco", "matte"]})


def test_a_clip_in_a_store_gives_what_it_gives_here(
    away: list[Task], here: list[Task], store: Any, scratch: Scratch, tmp_path: Path
) -> None:
    result = run_one(away[0], RUNS, scratch=scratch)
    assert (result.status, result.clip, result.key) == (Status.DONE, "s3://clips/videos/dog.mp4", away[0].key())
    run_one(here[0], tmp_path / "whole")
    store.get("clips/runs/dog", str(tmp_path / "fetched"), recursive=True)
    assert results(tmp_path / "fetched") == results(tmp_path / "whole/dog")
    assert '"out": "s3://clips/runs/dog"' in (tmp_path / "fetched/summary.json").read_text()
    assert not left(scratch)
    assert run_one(away[0], tmp_path / "mixed", scratch=scratch).status == Status.DONE
    assert results(tmp_path / "mixed/dog") == results(tmp_path / "whole/dog")


def test_exports_of_a_clip_are_sent_beside_its_results(away: list[Task], store: Any, scratch: Scratch) -> None:
    assert run_one(exporting(away[0]), RUNS, scratch=scratch).status == Status.DONE
    assert store.exists("clips/runs/dog_coco.json")
    assert store.ls("clips/runs/dog_matte")
    told = json.loads(store.cat("clips/runs/dog/summary.json"))["exports"]
    assert told == {"coco": "s3://clips/runs/dog_coco.json", "matte": "s3://clips/runs/dog_matte"}
    assert not left(scratch)


@pytest.mark.parametrize("name", ["dog_coco.json", "dog_matte/mine.txt", "dog_matte/masks/00000.png"])
def test_exports_replace_nothing_of_others(name: str, away: list[Task], store: Any, scratch: Scratch) -> None:
    store.pipe_file(f"clips/runs/{name}", b"mine")
    ended = run_one(exporting(away[0]), RUNS, scratch=scratch)
    assert (ended.status, ended.error) == (Status.FAILED, "OutputExistsError")
    assert "move it away" in ended.message
    assert store.find("clips/runs") == [f"clips/runs/{name}"]
    assert store.cat(f"clips/runs/{name}") == b"mine"
    store.rm_file(f"clips/runs/{name}")
    assert run_one(exporting(away[0]), RUNS, scratch=scratch).status == Status.DONE


def test_exports_are_replaced_by_those_of_the_same_run(away: list[Task], store: Any, scratch: Scratch) -> None:
    each, folder = exporting(away[0]), "clips/runs/dog_matte"
    assert run_one(each, RUNS, scratch=scratch).status == Status.DONE
    made = json.loads(store.cat(f"{folder}/.vostrack-export.json"))
    for name in ("old.png", "mine.txt"):
        store.pipe_file(f"{folder}/{name}", b"x")
    store.pipe_file(f"{folder}/.vostrack-export.json", json.dumps([*made, "old.png"]).encode())
    ended = run_one(each, RUNS, overwrite=True, scratch=scratch)
    assert (ended.error, store.exists(f"{folder}/old.png")) == ("OutputExistsError", True)
    store.rm_file(f"{folder}/mine.txt")
    assert run_one(each, RUNS, overwrite=True, scratch=scratch).status == Status.DONE
    names = {path.removeprefix(f"{folder}/") for path in store.find(folder)}
    assert names == {*made, ".vostrack-export.json"}


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_exports_that_were_sent_in_part_are_sent_again(
    sent: int, away: list[Task], store: Any, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = store.put_file, list(range(sent))

    def broken(here: str, there: str) -> None:
        if not left:
            raise OSError("the connection is lost")
        left.pop()
        put(here, there)

    with monkeypatch.context() as breaking:
        breaking.setattr(store, "put_file", broken)
        assert run_one(exporting(away[0]), RUNS, scratch=scratch).error == "OutputError"
    assert store.exists("clips/runs/dog_coco.json")
    assert run_one(exporting(away[0]), RUNS, scratch=scratch).status == Status.DONE


@pytest.mark.parametrize(("text", "status"), [("{", Status.FAILED), ("{}", Status.DONE)])
def test_a_summary_that_cannot_be_read_is_no_success(
    text: str, status: Status, away: list[Task], scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaging(each: Task, out: Path, **more: Any) -> Result:
        result = run_one(each, out, **more)
        (out / each.name / "summary.json").write_text(text)
        return result

    monkeypatch.setattr("vostrack.batch.away.run_one", damaging)
    assert run_one(away[0], RUNS, scratch=scratch).status == status


def test_what_is_in_the_store_is_not_done_again(away: list[Task], store: Any, scratch: Scratch) -> None:
    first = run_one(away[0], RUNS, scratch=scratch)
    assert run_one(away[0], RUNS, scratch=scratch) == first
    assert run_one(away[0], RUNS, overwrite=True, scratch=scratch).ended > first.ended
    store.rm_file("clips/runs/dog/summary.json")
    assert run_one(away[0], RUNS, scratch=scratch).ended > first.ended


def test_a_clip_that_was_stopped_goes_on_from_scratch(away: list[Task], scratch: Scratch) -> None:
    assert run_one(away[0], RUNS, callbacks=StopAt(2), scratch=scratch).status == Status.STOPPED
    assert [path.name for path in left(scratch)] == ["run.json"]
    assert run_one(away[0], RUNS, scratch=scratch).status == Status.DONE
    assert not left(scratch)


def test_what_could_not_be_sent_is_sent_later(away: list[Task], store: Any, scratch: Scratch) -> None:
    nowhere = Path("s3://later/runs")
    result = run_one(away[0], nowhere, scratch=scratch)
    assert (result.status, result.error) == (Status.FAILED, "OutputError")
    store.mkdir("later")
    told = Callbacks()
    told.progress = lambda done, total: pytest.fail("it is done again")  # type: ignore[method-assign]
    assert run_one(away[0], nowhere, callbacks=told, scratch=scratch).status == Status.DONE
    assert not left(scratch)
    store.rm("later", recursive=True)


def test_a_clip_that_is_too_large_or_gone_fails(away: list[Task], scratch: Scratch) -> None:
    gone = replace(away[0], clip=Path("s3://clips/videos/gone.mp4"))
    results = [run_one(away[0], RUNS, scratch=replace(scratch, most=10)), run_one(gone, RUNS, scratch=scratch)]
    assert [(each.status, each.error, each.exit_code) for each in results] == [("failed", "InputError", 5)] * 2
    assert "scratch has room for 10" in results[0].message


def test_a_batch_in_a_store_goes_on_from_any_machine(away: list[Task], store: Any, scratch: Scratch) -> None:
    first = list(run_batch(away[:1], RUNS, scratch=scratch, pool=working(scratch)))
    elsewhere = replace(scratch, folder=scratch.folder / "elsewhere")
    assert [each.attempts for each in run_batch(away[:1], RUNS, scratch=elsewhere, pool=working(elsewhere))] == [0]
    store.rm_file("clips/runs/batch.jsonl")  # as if it had not been sent yet
    elsewhere = replace(scratch, folder=scratch.folder / "third")
    again = list(run_batch(away, RUNS, scratch=elsewhere, pool=working(elsewhere)))
    assert {each.name: each.status for each in again} == {"dog": Status.DONE, "cat": Status.DONE}
    assert [each.ended for each in again if each.name == "dog"] == [each.ended for each in first]
    with at_hand(RUNS, Scratch(scratch.folder / "fourth")) as folder:
        assert write_report(folder).done == 2
    assert store.exists("clips/runs/batch.html")


def test_faults_of_a_plan_are_found_in_stores(away: list[Task], scratch: Scratch) -> None:
    wrong = replace(away[0], clip=Path("s3://clips/videos/gone.mp4"), masks={0: Path("s3://clips/masks/gone.png")})
    with pytest.raises(PlanError) as caught:
        run_batch([wrong, away[1]], RUNS, scratch=scratch)
    assert "there is nothing at s3://clips/videos/gone.mp4" in caught.value.faults[0]


@pytest.mark.slow
def test_the_command_line_takes_addresses(
    away: list[Task], store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe_file(
        "clips/plan.csv", b"clip,mask,out\nvideos/dog.mp4,0:s3://clips/masks/dog.png,a/dog\nvideos/x.mp4,x,\n"
    )
    command = [sys.executable, "-m", "vostrack", "batch", "run", "s3://clips/plan.csv", "--out", "s3://clips/runs"]
    command += ["--option", "method=copy", "--scratch", str(tmp_path), "--quiet"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (told.returncode, told.stdout) == (5, "")
    assert "there is nothing at s3://clips/videos/x.mp4" in told.stderr
    store.pipe_file("clips/plan.csv", b"clip,mask,out\nvideos/dog.mp4,0:s3://clips/masks/dog.png,a/dog\n")
    told = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert store.exists("clips/runs/a/dog/masks/00000.png")
    command = [sys.executable, "-m", "vostrack", "batch", "status", "s3://clips/runs", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert json.loads(told.stdout) == {"done": 1, "failed": 0, "left": 0, "warned": 0, "kept": 0, "others": 0}
