from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.batch.clips import task, write_clips
from tests.runs import results
from vostrack import Callbacks
from vostrack.batch.task import Status, run_one
from vostrack.files import lock_folder
from vostrack.notes import Code, Note


class StopAt(Callbacks):
    """Stops after so many frames, and keeps the notes on the batch."""

    def __init__(self, left: int = 100) -> None:
        self.left, self.notes = left, list[Note]()

    def note(self, note: Note) -> None:
        if note.code == Code.BATCH_AGAIN:
            self.notes.append(note)

    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("begun", ["", "an abacus"])
def test_only_what_another_kind_of_processor_began_is_done_anew(begun: str, tmp_path: Path) -> None:
    each = task(write_clips(tmp_path, {"dog": 5}), "dog")
    assert run_one(each, tmp_path / "runs", callbacks=StopAt(2)).status == Status.STOPPED
    path = tmp_path / "runs/dog/.vostrack/request.json"
    asked = json.loads(path.read_text())
    assert asked["processor"]
    path.write_text(json.dumps(asked | ({"processor": begun} if begun else {})))
    told = StopAt()
    assert run_one(each, tmp_path / "runs", callbacks=told).status == Status.DONE
    assert ["an abacus" in note for note in told.notes] == [True] * bool(begun)
    run_one(each, tmp_path / "whole")
    assert results(tmp_path / "runs/dog") == results(tmp_path / "whole/dog")


def test_what_is_done_stays_whatever_processor_did_it(tmp_path: Path) -> None:
    each = task(write_clips(tmp_path, {"dog": 3}), "dog")
    run_one(each, tmp_path / "runs")
    path = tmp_path / "runs/dog/.vostrack/request.json"
    path.write_text(path.read_text().replace('"processor": "', '"processor": "other'))
    told = StopAt()
    assert run_one(each, tmp_path / "runs", callbacks=told).status == Status.DONE
    assert (told.left, told.notes) == (100, [])


def test_a_clip_that_another_process_works_on_says_so(tmp_path: Path) -> None:
    each = task(write_clips(tmp_path, {"dog": 3}), "dog")
    with lock_folder(tmp_path / "runs/dog"):
        result = run_one(each, tmp_path / "runs")
    assert (result.error, result.exit_code) == ("InUseError", 9)
