"""Exports that are broken off: by a kill, a stop or an error; and those that a run ends with."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import vostrack
from tests.fakes import NAME, finish, read_labels, truth, write_clip, write_mask
from tests.forks import fork
from tests.formats.samples import write_masks
from tests.runs import StopAfter
from vostrack.errors import Cancelled, OutputError, OutputExistsError, VostrackError
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 6


class Notes(Callbacks):
    """Notes, and the phases and frames that were done; does something after some frames."""

    def __init__(self, act: Any = None, at: int = 0) -> None:
        self.codes, self.done, self.phases, self._act, self._at = list[str](), list[int](), list[str](), act, at

    def note(self, note: Any) -> None:
        self.codes.append(str(note.code))

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def progress(self, done: int, total: int | None) -> None:
        self.done.append(done)
        if self._act and done == self._at:
            self._act()

    def cancelled(self) -> bool:
        return self._act is None and bool(self._at) and self.done[-1] == self._at


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mkv", COUNT)
    return write_masks(tmp_path / "run", [truth(index) for index in range(COUNT)])


def export(run: Path, kind: str, callbacks: Callbacks | None = None, **settings: Any) -> dict[str, Any]:
    out = run.parent / {"png-rgba": "out", "cvat": "out.xml", "ffv1": "out.mkv"}[kind]
    return vostrack.export(run, kind, out, clip=run.parent / "clip.mkv", callbacks=callbacks, **settings)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(run: Path, kind: str) -> None:
    """Killed after four frames."""
    process = fork(run.parent / "log", export, run, kind, Notes(die, 4))
    assert finish(process, run.parent / "log")[0] == -signal.SIGKILL


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".vostrack-*.part")]


def test_a_folder_that_was_killed_is_gone_on_with(run: Path) -> None:
    killed(run, "png-rgba")
    assert not (run.parent / "out").exists()
    notes = Notes()
    export(run, "png-rgba", notes, resume=True)
    assert 1 < notes.done[0] <= 5
    assert notes.done[-1] == COUNT
    assert not hidden(run.parent)
    resumed = contents(run.parent / "out")
    export(run, "png-rgba", overwrite=True)
    assert contents(run.parent / "out") == resumed
    assert len(resumed) == COUNT + 1


def test_a_list_of_files_that_was_written_before_the_kill_is_written_anew(run: Path) -> None:
    killed(run, "png-rgba")
    (place,) = run.parent.glob(".vostrack-*.part")
    (made,) = (place / "new").iterdir()
    (made / ".vostrack-export.json").write_text("[]")
    export(run, "png-rgba", resume=True)
    resumed = contents(run.parent / "out")
    export(run, "png-rgba", overwrite=True)
    assert contents(run.parent / "out") == resumed


@pytest.mark.parametrize("kind", ["cvat", "ffv1"])
def test_a_file_that_was_killed_starts_again(kind: str, run: Path) -> None:
    killed(run, kind)
    assert hidden(run.parent)
    notes = Notes()
    export(run, kind, notes, resume=True)
    assert notes.done[0] == 1
    assert "run-anew" in notes.codes
    assert not hidden(run.parent)


def test_what_a_kill_left_is_dropped_where_nobody_goes_on(run: Path) -> None:
    killed(run, "png-rgba")
    notes = Notes()
    export(run, "png-rgba", notes)
    assert (notes.done[0], notes.codes.count("run-anew")) == (1, 0)
    assert not hidden(run.parent)


@pytest.mark.parametrize("change", ["mask", "settings"])
def test_what_is_left_of_other_masks_or_settings_is_not_gone_on_with(change: str, run: Path) -> None:
    killed(run, "png-rgba")
    if change == "mask":
        write_mask(run / "00000.png", truth(3))
    notes = Notes()
    export(run, "png-rgba", notes, resume=True, hard=change == "settings")
    assert notes.done[0] == 1
    assert "run-anew" in notes.codes


def test_a_stop_keeps_what_can_be_gone_on_with_and_an_error_nothing(run: Path) -> None:
    with pytest.raises(Cancelled, match="go on with `resume=True`"):
        export(run, "png-rgba", Notes(at=3))
    notes = Notes()
    export(run, "png-rgba", notes, resume=True)
    assert 1 <= notes.done[0] <= 4
    with pytest.raises(Cancelled, match="nothing was written"):
        export(run, "cvat", Notes(at=3))
    assert not hidden(run.parent)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a list of open files")
@pytest.mark.parametrize("kind", ["cvat", "ffv1", "png-rgba"])
def test_what_is_broken_off_leaves_no_open_file(kind: str, run: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Cancelled):
        export(run, kind, Notes(at=3))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_replaced_is_back_after_a_kill_between_two_renames(run: Path) -> None:
    export(run, "png-rgba")
    before = contents(run.parent / "out")
    killed_overwriting = Notes(die, 4)
    process = fork(run.parent / "log", overwriting, run, killed_overwriting)
    assert finish(process, run.parent / "log")[0] == -signal.SIGKILL
    assert contents(run.parent / "out") == before
    (place,) = run.parent.glob(".vostrack-*.part")
    (run.parent / "out").rename(place / "old")
    with pytest.raises(OutputExistsError, match="is there already"):
        export(run, "png-rgba")
    assert contents(run.parent / "out") == before


@pytest.mark.parametrize("kind", ["cvat", "png-rgba"])
def test_what_a_kill_behind_the_last_rename_left_goes_with_the_next_run(kind: str, run: Path) -> None:
    killed(run, kind)
    (place,) = run.parent.glob(".vostrack-*.part")
    (made,) = (place / "new").iterdir()
    made.rename(run.parent / made.name)
    with pytest.raises(OutputExistsError, match=r"is there already|holds files"):
        export(run, kind, resume=True)
    assert not place.exists()
    assert (run.parent / made.name).exists()


def overwriting(run: Path, callbacks: Callbacks) -> None:
    export(run, "png-rgba", callbacks, overwrite=True)


def test_two_processes_do_not_write_one_thing(run: Path) -> None:
    with pytest.raises(OutputExistsError, match="another process is writing"):
        export(run, "png-rgba", Notes(lambda: export(run, "png-rgba"), 2))
    assert not hidden(run.parent)


def test_a_link_in_the_place_of_the_hidden_folder_is_refused(run: Path, tmp_path: Path) -> None:
    killed(run, "png-rgba")
    (place,) = run.parent.glob(".vostrack-*.part")
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        export(run, "png-rgba")
    assert (tmp_path / "elsewhere" / "new").is_dir()


# --- exports that a run ends with ---


def follow(folder: Path, exports: Any = ("cvat", "frames"), **settings: Any) -> dict[str, Any]:
    return segment(folder / "clip.mkv", truth(), folder / "dog", method=NAME, outputs=(), exports=exports, **settings)


def test_a_run_ends_with_its_exports(run: Path, tmp_path: Path) -> None:
    notes = Notes()
    summary = follow(tmp_path, ["cvat", "matte"], keep=False, callbacks=notes)
    expected = {"cvat": tmp_path / "dog_cvat.xml", "matte": tmp_path / "dog_matte"}
    assert summary["exports"] == {name: str(path) for name, path in expected.items()}
    assert expected["cvat"].is_file()
    assert len(list((tmp_path / "dog_matte" / "object_3").iterdir())) == COUNT
    assert notes.phases[-2:] == ["exporting cvat", "exporting matte"]
    assert [note["code"] for note in summary["notes"]].count("export-edges") == 1
    assert json.loads((tmp_path / "dog" / "summary.json").read_text())["exports"] == summary["exports"]


def test_a_run_that_goes_on_drops_what_a_kill_behind_the_last_rename_left(run: Path, tmp_path: Path) -> None:
    follow(tmp_path)
    place = tmp_path / f".vostrack-{hashlib.sha256(b'dog_cvat.xml').hexdigest()[:12]}.part"
    (place / "new").mkdir(parents=True)
    (place / "record.json").write_text("{}")
    follow(tmp_path, resume=True)
    assert not hidden(tmp_path)


def test_what_cannot_be_exported_is_refused_before_the_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "dog_cvat.xml").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for exports, error, words in (
        (["cvat"], OutputExistsError, "dog_cvat.xml is there already"),
        (["cvta"], VostrackError, "unknown format 'cvta'; did you mean 'cvat'"),
        ("cvat", VostrackError, "exports must be a list of names"),
    ):
        with pytest.raises(error, match=words):
            follow(tmp_path, exports)
    (tmp_path / "clip.mkv").rename(tmp_path / "dog_ffv1.mkv")
    with pytest.raises(OutputError, match="is an input"):
        segment(tmp_path / "dog_ffv1.mkv", truth(), tmp_path / "dog", method=NAME, exports=["ffv1"], overwrite=True)
    assert (tmp_path / "dog_ffv1.mkv").rename(tmp_path / "clip.mkv").is_file()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_package_that_is_missing_is_named_before_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r"exr needs OpenEXR: pip install 'vostrack\[exr\]'"):
        follow(tmp_path, ["exr"])
    assert not (tmp_path / "dog").exists()


@pytest.mark.parametrize("exported", ["exporting cvat", "exporting frames"])
def test_a_run_that_was_stopped_while_it_exports_goes_on_there(exported: str, run: Path, tmp_path: Path) -> None:
    class Stopping(Notes):
        def cancelled(self) -> bool:
            return self.phases[-1:] == [exported] and self.done[-1] == 2

    with pytest.raises(Cancelled):
        follow(tmp_path, callbacks=Stopping())
    first = read_labels(tmp_path / "dog" / "masks" / "00003.png")
    notes = Notes()
    summary = follow(tmp_path, resume=True, callbacks=notes)
    assert notes.phases == (["exporting cvat"] if exported == "exporting cvat" else []) + ["exporting frames"]
    assert set(summary["exports"]) == {"cvat", "frames"}
    assert (read_labels(tmp_path / "dog" / "masks" / "00003.png") == first).all()
    (tmp_path / "dog_cvat.xml").unlink()
    follow(tmp_path, ["cvat", "frames", "labelme"], resume=True, callbacks=(notes := Notes()))
    assert notes.phases == ["exporting cvat", "exporting labelme"], "those that are missing, and one that is new"
    assert not hidden(tmp_path)


def test_a_run_that_starts_again_drops_its_earlier_exports_first(run: Path, tmp_path: Path) -> None:
    follow(tmp_path)
    with pytest.raises(Exception):  # noqa: B017, PT011
        follow(tmp_path, overwrite=True, callbacks=StopAfter(2))
    assert not (tmp_path / "dog_cvat.xml").exists()
    assert (follow(tmp_path, resume=True)["exports"]).keys() == {"cvat", "frames"}
    (tmp_path / "dog_frames" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds files that no export wrote"):
        follow(tmp_path, overwrite=True)
    assert (tmp_path / "dog" / "summary.json").is_file()


def test_exports_that_are_older_than_the_run_are_named(run: Path, tmp_path: Path) -> None:
    follow(tmp_path, ["cvat"])
    vostrack.export(tmp_path / "dog", "frames")
    older = vostrack.update(tmp_path / "dog", {3: truth(3)})["notes"]
    assert [note["text"].split(" may be of")[0] for note in older if note["code"] == "export-older"] == [
        str(tmp_path / "dog_cvat.xml"),
        str(tmp_path / "dog_frames"),
    ]
    both: dict[str, Any] = {"masks": {0: truth(), 3: truth(3)}, "method": NAME, "outputs": (), "exports": ["cvat"]}
    with pytest.raises(OutputExistsError, match="is there already"):
        segment(tmp_path / "clip.mkv", out=tmp_path / "dog", resume=True, **both)
    summary = follow(tmp_path, ["cvat"], overwrite=True)
    assert [note["code"] for note in summary["notes"]].count("export-older") == 1
