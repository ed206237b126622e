from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.batch.clips import FakePool, result, task, write_clips
from tests.runs import results, until
from vostrack import Callbacks, Cancelled, OutputExistsError, PlanError, VostrackError, segment
from vostrack.batch.manifest import Manifest, Outline, Shard, latest
from vostrack.batch.report import status_of
from vostrack.batch.run import as_task, run_batch, shard_of
from vostrack.batch.task import Result, Status, Task, run_one
from vostrack.files import lock_folder
from vostrack.notes import Code, Note

LENGTHS = {"dog": 4, "cat": 6, "eel": 5}


class Told(Callbacks):
    """Keeps what it is told; cancels after so many calls."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.notes: list[Note] = []
        self.moved: list[tuple[int, int | None]] = []
        self.left = cancel_after

    def note(self, note: Note) -> None:
        self.notes.append(note)

    def progress(self, done: int, total: int | None) -> None:
        self.moved.append((done, total))

    def cancelled(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), LENGTHS)


@pytest.fixture
def tasks(folder: Path) -> list[Task]:
    return [task(folder, name) for name in LENGTHS]


def worked(out: Path) -> Callable[[Task, int], Result]:
    return lambda each, attempt: run_one(each, out)


def lines(out: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (out / "batch.jsonl").read_text().splitlines()]


def test_each_clip_gets_what_segment_gives(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    ended = list(run_batch(tasks, out, pool=lambda path: FakePool(worked(path))))
    assert [each.name for each in ended] == ["cat", "eel", "dog"]  # the longest first
    assert {each.status for each in ended} == {Status.DONE}
    assert {each.name: each.frames for each in ended} == LENGTHS
    for name in LENGTHS:
        segment(tasks[0].clip.with_stem(name), folder / "masks" / f"{name}.png", tmp_path / name, **tasks[0].arguments)
        assert results(out / name) == results(tmp_path / name)


def test_what_is_done_is_not_done_again(tasks: list[Task], tmp_path: Path) -> None:
    first = list(run_batch(tasks[:2], tmp_path, pool=lambda path: FakePool(worked(path))))
    later = list(run_batch(tasks, tmp_path, pool=lambda path: FakePool(worked(path))))
    assert later[:2] == [replace(each, attempts=0) for each in first[::-1]]
    assert [(each.name, each.attempts) for each in later[2:]] == [("eel", 1)]
    assert lines(tmp_path) == ["cat", "dog", "eel"]


def test_results_that_are_gone_and_masks_that_changed_are_done_again(folder: Path, tmp_path: Path) -> None:
    write_clips(tmp_path, {"dog": 4, "cat": 4})
    tasks = [task(tmp_path, name) for name in ("dog", "cat")]
    list(run_batch(tasks, tmp_path / "runs", pool=lambda path: FakePool(worked(path))))
    (tmp_path / "runs/dog/summary.json").unlink()
    (tmp_path / "masks/cat.png").touch()
    again = list(run_batch(tasks, tmp_path / "runs", pool=lambda path: FakePool(worked(path))))
    assert {each.name for each in again} == {"dog", "cat"}


def test_results_of_other_settings_stay_and_are_no_failure(tasks: list[Task], tmp_path: Path) -> None:
    def made(each: Task, attempt: int) -> Result:
        return run_one(each, tmp_path)

    list(run_batch(tasks[:1], tmp_path, pool=lambda path: FakePool(made)))
    was, told = results(tmp_path / "dog"), Told()
    other = replace(tasks[0], arguments={**tasks[0].arguments, "size": 32})
    (ended,) = run_batch([other], tmp_path, callbacks=told, pool=lambda path: FakePool(made))
    assert ended.status == Status.KEPT
    assert [note.code for note in told.notes] == [Code.BATCH_KEPT]
    assert ended.message == (
        "its results stay, though this changed: size from 480 to 32; "
        "remove its folder and exports beside it to have it made again, or overwrite all clips"
    )
    assert results(tmp_path / "dog") == was
    assert str(status_of(tmp_path)[1]) == "0 clips done, 0 failed, 1 with results of other settings"
    (ended,) = run_batch(tasks[:1], tmp_path, pool=lambda path: FakePool(made))
    assert ended.status == Status.DONE


def test_a_batch_that_replaces_results_goes_on_after_a_stop(tasks: list[Task], tmp_path: Path) -> None:
    list(run_batch(tasks, tmp_path, pool=lambda path: Overwriting(path)))
    begun = []

    def stopped_after(calls: int | None) -> None:
        pool = Overwriting(tmp_path)
        with suppress(Cancelled):
            list(run_batch(tasks, tmp_path, overwrite=True, callbacks=Told(calls), pool=lambda path: pool))
        begun.append([name for name, _ in pool.begun])

    stopped_after(1)
    stopped_after(None)
    stopped_after(None)
    assert begun[0] + begun[1] == ["cat", "eel", "dog"], "what is left"
    assert begun[2] == ["cat", "eel", "dog"], "one that came to its end begins anew"


def test_a_failed_clip_is_a_result_and_a_warning_and_is_tried_again(tasks: list[Task], tmp_path: Path) -> None:
    told = Told()
    failing = FakePool(
        lambda each, _: result(each, Status.FAILED if each.name == "cat" else Status.DONE, message="why")
    )
    ended = list(run_batch(tasks, tmp_path, callbacks=told, pool=lambda path: failing))
    assert {each.name for each in ended if each.status == Status.FAILED} == {"cat"}
    assert [(note.code, str(note)) for note in told.notes] == [(Code.BATCH_FAILED, "cat: why")]
    pool = FakePool(worked(tmp_path))
    list(run_batch(tasks, tmp_path, pool=lambda path: pool))
    assert ("cat", False) in pool.begun


def test_a_clip_whose_worker_dies_goes_on_in_another(tasks: list[Task], tmp_path: Path) -> None:
    told = Told()
    pool = FakePool(lambda each, attempt: "killed" if each.name == "cat" and attempt < 3 else result(each))
    ended = list(run_batch(tasks, tmp_path, callbacks=told, pool=lambda path: pool))
    assert {each.name: each.attempts for each in ended} == {"cat": 3, "eel": 1, "dog": 1}
    assert [note.code for note in told.notes] == [Code.BATCH_AGAIN] * 2


def test_a_clip_that_always_kills_its_worker_fails(tasks: list[Task], tmp_path: Path) -> None:
    pool = FakePool(lambda each, attempt: "killed" if each.name == "cat" else result(each))
    ended = {each.name: each for each in run_batch(tasks, tmp_path, pool=lambda path: pool)}
    assert (ended["cat"].status, ended["cat"].attempts) == (Status.FAILED, 5)
    assert "killed, 5 times" in ended["cat"].message
    assert ended["dog"].status == Status.DONE


def test_a_worker_that_dies_before_it_begins_is_not_the_fault_of_the_clip(tasks: list[Task], tmp_path: Path) -> None:
    pool = FakePool(lambda each, attempt: "killed" if attempt < 9 else result(each), begins=False)
    (ended,) = run_batch(tasks[:1], tmp_path, pool=lambda path: pool)
    assert (ended.status, ended.attempts) == (Status.DONE, 1)
    with pytest.raises(VostrackError, match="die before they begin"):
        list(run_batch(tasks[1:2], tmp_path, pool=lambda path: FakePool(lambda *_: "killed", begins=False)))


def test_overwriting_is_done_once(tasks: list[Task], tmp_path: Path) -> None:
    pool = FakePool(lambda each, attempt: "killed" if attempt < 2 else result(each))
    list(run_batch(tasks[:1], tmp_path, overwrite=True, pool=lambda path: pool))
    assert pool.begun == [("dog", True), ("dog", False)]


def test_too_little_memory_is_tried_smaller(tasks: list[Task], tmp_path: Path) -> None:
    sizes = []

    def end(each: Task, attempt: int) -> Result:
        sizes.append(each.arguments.get("size"))
        return result(each, Status.FAILED, exit_code=7) if attempt == 1 else result(each)

    pool = FakePool(end)
    ended = list(run_batch(tasks[:1], tmp_path, fallback_size=240, pool=lambda path: pool))
    assert (sizes, pool.begun) == ([None, 240], [("dog", False), ("dog", True)])
    assert ended[0].status == Status.DONE


def test_what_was_begun_smaller_is_gone_on_with_smaller(tasks: list[Task], tmp_path: Path) -> None:
    made = partial(FakePool, worked(tmp_path))
    small, big = (replace(tasks[0], arguments={**tasks[0].arguments, "size": size}) for size in (240, 480))
    list(run_batch([small], tmp_path, pool=lambda path: made()))
    (tmp_path / "batch.jsonl").unlink()  # as if it had been interrupted
    (ended,) = run_batch([big], tmp_path, fallback_size=240, pool=lambda path: made())
    assert (ended.status, ended.attempts) == (Status.DONE, 2)


def test_a_clip_that_was_mended_is_begun_anew(tmp_path: Path) -> None:
    write_clips(tmp_path, {"dog": 4})
    mended = task(tmp_path, "dog")
    (tmp_path / "runs").mkdir()
    run_one(mended, tmp_path / "runs")
    (tmp_path / "runs/dog/summary.json").unlink()  # as if it had failed on the way
    write_clips(tmp_path, {"dog": 5})
    (ended,) = run_batch([mended], tmp_path / "runs", pool=lambda path: Overwriting(path))
    assert (ended.status, ended.frames, ended.attempts) == (Status.DONE, 5, 2)


class Overwriting(FakePool):
    """Does what it is told, replacing results where that is asked for."""

    def __init__(self, out: Path) -> None:
        super().__init__(lambda each, attempt: run_one(each, out, overwrite=self.begun[-1][1]))


def test_the_first_failure_may_stop_all(tasks: list[Task], tmp_path: Path) -> None:
    pool = FakePool(lambda each, _: result(each, Status.FAILED, message="why"))
    ended = list(run_batch(tasks, tmp_path, fail_fast=True, pool=lambda path: pool))
    assert ([each.name for each in ended], lines(tmp_path), pool.stopped) == (["cat"], ["cat"], True)


def test_cancelling_loses_nothing(tasks: list[Task], tmp_path: Path) -> None:
    pool = FakePool(worked(tmp_path))
    with pytest.raises(Cancelled, match="goes on with what is left"):
        list(run_batch(tasks, tmp_path, callbacks=Told(cancel_after=1), pool=lambda path: pool))
    list(run_batch(tasks, tmp_path, pool=lambda path: FakePool(worked(path))))
    assert sorted(lines(tmp_path)) == sorted(LENGTHS)


def test_progress_counts_the_frames_of_all_clips(tasks: list[Task], tmp_path: Path) -> None:
    told = Told()
    list(run_batch(tasks, tmp_path, callbacks=told, pool=lambda path: FakePool(worked(path))))
    assert told.moved[-1] == (sum(LENGTHS.values()), sum(LENGTHS.values()))
    assert [done for done, _ in told.moved] == sorted(done for done, _ in told.moved)


def test_a_line_that_a_kill_cut_off_costs_only_itself(tasks: list[Task], tmp_path: Path) -> None:
    list(run_batch(tasks[:2], tmp_path, pool=lambda path: FakePool(worked(path))))
    path = tmp_path / "batch.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    list(run_batch(tasks, tmp_path, pool=lambda path: FakePool(worked(path))))
    assert set(latest([Manifest(tmp_path)])) == set(LENGTHS)


def test_shards_share_the_clips_and_stay_as_they_are_when_the_plan_grows(folder: Path, tmp_path: Path) -> None:
    tasks = [Task(Path(f"clips/{number}.mp4"), {}, str(number)) for number in range(200)]
    parts = [shard_of(each, 4) for each in tasks]
    assert {*parts} == {1, 2, 3, 4}
    assert min(parts.count(part) for part in range(1, 5)) > 25
    ours = [task(folder, name) for name in LENGTHS]
    for number in (1, 2):
        list(run_batch(ours, tmp_path, shard=(number, 2), pool=lambda path: FakePool(worked(path))))
    names = [{each.name for each in Manifest(tmp_path, Shard(number, 2)).results()} for number in (1, 2)]
    assert status_of(tmp_path)[1].left == 0
    assert names[0] | names[1] == set(LENGTHS)
    assert not names[0] & names[1]


def test_two_batches_do_not_share_a_list(tasks: list[Task], tmp_path: Path) -> None:
    with (
        Manifest(tmp_path).locked(Outline(1)),
        pytest.raises(OutputExistsError),
    ):
        list(run_batch(tasks, tmp_path, pool=lambda path: FakePool(worked(path))))
    with lock_folder(tmp_path / "dog"):  # that of one clip is a result
        ended = list(run_batch(tasks[:1], tmp_path, pool=lambda path: FakePool(worked(path))))
    assert (ended[0].status, ended[0].exit_code) == (Status.FAILED, 9)


def test_faults_are_told_all_at_once_and_nothing_is_run(tasks: list[Task], tmp_path: Path) -> None:
    wrong = [*tasks, *tasks[:1], Task(Path("not_there.mp4"), {}, "x")]
    with pytest.raises(PlanError) as caught:
        run_batch(wrong, tmp_path / "runs")
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "runs").exists()


def test_plans_of_arguments(folder: Path, tmp_path: Path) -> None:
    mask = folder / "masks/dog.png"
    told = as_task({"clip": folder / "videos/dog.mp4", "masks": mask, "method": "copy", "out": "a/b"})
    assert (told.name, told.masks, dict(told.arguments)) == ("a/b", {None: mask}, {"method": "copy"})
    for wrong, said in (
        ({"clip": "x"}, "needs clip and masks"),
        ({"clips": "x"}, "'clips'"),
        ({"resume": True}, "'resume'"),
    ):
        with pytest.raises(VostrackError, match=said):
            as_task(wrong)


@pytest.mark.slow
def test_processes_give_the_same_bytes(tasks: list[Task], tmp_path: Path) -> None:
    ended = list(run_batch(tasks, tmp_path / "many", jobs=2))
    assert {each.status for each in ended} == {Status.DONE}
    assert len({each.worker for each in ended}) == 2
    for each in tasks:
        run_one(each, tmp_path / "one")
        assert results(tmp_path / "many" / each.name) == results(tmp_path / "one" / each.name)


@pytest.mark.slow
def test_a_process_that_is_killed_costs_no_clip(tasks: list[Task], tmp_path: Path) -> None:
    class Killer(Told):
        def progress(self, done: int, total: int | None) -> None:
            there = multiprocessing.active_children()
            assert len({each.name for each in there}) == len(there), "each has a number of its own"
            if not self.moved:
                next(each for each in there if each.name == "vostrack-worker-0").kill()
            super().progress(done, total)

    killer = Killer()
    ended = list(run_batch(tasks, tmp_path, jobs=2, callbacks=killer))
    assert {each.name: each.status for each in ended} == dict.fromkeys(LENGTHS, Status.DONE)
    assert sorted(lines(tmp_path)) == sorted(LENGTHS)


DRIVER = """
import sys
from pathlib import Path
from tests.batch.clips import task
from vostrack import run_batch

folder, out, *names = sys.argv[1:]
list(run_batch([task(Path(folder), name) for name in names], out, jobs=2))
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_is_gone_on_from(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    command, out = [sys.executable, "-c", DRIVER, str(folder), str(tmp_path), *LENGTHS], Manifest(tmp_path)
    for done in range(2):
        with subprocess.Popen(command) as driver:
            assert until(lambda: len(list(out.results())) > done, 200)  # noqa: B023
            driver.kill()
    subprocess.run(command, timeout=200, check=True)
    assert sorted(each.name for each in out.results() if each.status == Status.DONE) == sorted(LENGTHS)
    for each in tasks:
        run_one(each, tmp_path / "one")
        assert results(tmp_path / each.name) == results(tmp_path / "one" / each.name)


def test_what_a_killed_batch_has_not_finished_goes_with_the_next(tasks: list[Task], tmp_path: Path) -> None:
    left = tmp_path / ".batch/all/.vostrack-1.part"
    left.parent.mkdir(parents=True)
    left.write_text("{")
    (ended,) = run_batch(tasks[:1], tmp_path, pool=lambda path: FakePool(worked(path)))
    assert ended.status == Status.DONE
    assert not left.exists()


def test_a_clip_that_is_done_may_be_removed(tmp_path: Path) -> None:
    folder, out = write_clips(tmp_path / "clips", {"dog": 3, "cat": 4}), tmp_path / "out"
    both = [task(folder, "dog"), task(folder, "cat")]
    list(run_batch(both[:1], out, pool=lambda path: FakePool(worked(out))))
    both[0].clip.unlink()
    ended = run_batch(both, out, pool=lambda path: FakePool(worked(out)))
    assert [(each.name, each.status, each.attempts) for each in ended] == [("dog", "done", 0), ("cat", "done", 1)]
    with pytest.raises(PlanError):
        run_batch(both, out, overwrite=True)
