from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.batch.clips import task, write_clips
from tests.runs import results
from vostrack import Callbacks, OutputError
from vostrack.batch.task import Status, Task, run_one
from vostrack.files import lock_folder
from vostrack.formats.coco import Coco
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


def exporting(tmp_path: Path) -> Task:
    """A clip that is exported."""
    write_clips(tmp_path, {"dog": 3})
    return task(tmp_path, "dog", exports=["coco"])


def test_an_export_that_fails_leaves_masks_that_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Coco) -> dict[str, Any]:
        raise OutputError("the disk is full")

    each, out = exporting(tmp_path), tmp_path / "runs"
    with monkeypatch.context() as broken:
        broken.setattr(Coco, "rest", full)
        ended = run_one(each, out)
    assert (ended.status, ended.error, ended.exit_code) == (Status.FAILED, "ExportError", 6)
    assert ended.message == "the masks are complete, but their export as coco failed: the disk is full"
    masks = sorted((out / "dog/masks").iterdir())
    made = [path.stat().st_mtime_ns for path in masks]
    assert run_one(each, out).status == Status.DONE
    assert [path.stat().st_mtime_ns for path in masks] == made, "the export alone was made"
    assert (out / "dog_coco.json").exists()


def test_what_lies_in_the_place_of_an_export_is_never_replaced_unasked(tmp_path: Path) -> None:
    each, out = exporting(tmp_path), tmp_path / "runs"
    out.mkdir()
    (out / "dog_coco.json").write_text("mine")
    ended = run_one(each, out)
    assert (ended.error, ended.exit_code) == ("OutputExistsError", 9)
    assert "move it away" in ended.message
    begun = replace(each, arguments={**each.arguments, "exports": []})
    assert run_one(begun, out, callbacks=StopAt(2)).status == Status.STOPPED
    path = out / "dog/.vostrack/request.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor": "an abacus"}))
    assert run_one(each, out).error == "OutputExistsError"
    assert (out / "dog_coco.json").read_text() == "mine"
    assert run_one(each, out, overwrite=True).status == Status.DONE
    shutil.rmtree(out / "dog")
    assert run_one(each, out).error == "OutputExistsError"


def test_only_complete_results_of_other_settings_are_kept(tmp_path: Path) -> None:
    write_clips(tmp_path, {"dog": 4})
    each, out = task(tmp_path, "dog"), tmp_path / "runs"
    other = replace(each, arguments={**each.arguments, "size": 32})
    run_one(each, out, callbacks=StopAt(2))
    begun = run_one(other, out)
    assert (begun.status, begun.error) == (Status.FAILED, "ChangedError")
    assert run_one(each, out).status == Status.DONE
    complete = run_one(other, out)
    assert (complete.status, complete.error) == (Status.KEPT, "ChangedError")
    assert "though this changed: size from 480 to 32; remove its folder and exports beside it" in complete.message
