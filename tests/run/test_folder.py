from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vostrack.adapt.adaptation import AdaptState
from vostrack.adapt.frames import LabelledFrame, TrainingFrames
from vostrack.device import to_device
from vostrack.errors import InputError, OutputError
from vostrack.propagate import EnginePosition
from vostrack.run.folder import OutputFolder, digest, fingerprint
from vostrack.types import Frame, LabelMap

RECORD = {"method": "fake", "outputs": ["masks", "overlay"], "size": 480}


@dataclass(frozen=True)
class Inner:
    x: Tensor


@dataclass(frozen=True)
class State:
    inner: Inner
    pair: tuple[Tensor, ...]
    count: int = 0


def frame(name: str) -> Frame:
    return Frame(0, Fraction(0), torch.zeros(3, 4, 4, dtype=torch.uint8), name)


def begun(path: Path, names: tuple[str, ...] = ("a", "b"), record: Any = RECORD) -> OutputFolder:
    """A folder with a run that has written masks for some frames."""
    folder = OutputFolder(path)
    assert folder.prepare(record, overwrite=False, resume=False) is None
    (path / "masks").mkdir()
    for name in names:
        folder.announce(frame(name))
        (path / "masks" / f"{name}.png").write_bytes(b"mask")
    return folder


def prepare(folder: OutputFolder, **flags: bool) -> dict[str, Any] | None:
    return folder.prepare(RECORD, **({"overwrite": False, "resume": False} | flags))


def test_a_fresh_folder_holds_a_record_and_nothing_else(tmp_path: Path) -> None:
    assert prepare(OutputFolder(tmp_path / "new")) is None
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [Path("new/.vostrack/run.json")]
    assert json.loads((tmp_path / files[0]).read_text()) == RECORD


def test_a_run_that_wrote_nothing_yet_is_in_nobodys_way(tmp_path: Path) -> None:
    for _ in range(2):
        assert prepare(OutputFolder(tmp_path)) is None


def test_overwriting_removes_what_was_announced_only(tmp_path: Path) -> None:
    folder = begun(tmp_path, ("a", "é\n", "\udc80"))
    (tmp_path / "masks" / "c.png").write_bytes(b"theirs")
    (tmp_path / "overlay.mp4").write_bytes(b"ours")
    assert prepare(folder, overwrite=True) is None
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"c.png", "run.json"}


def test_a_cut_line_of_the_list_of_frames_harms_no_other(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    with (tmp_path / ".vostrack" / "frames.jsonl").open("a") as file:
        file.write('\n"c')
    folder.announce(frame("d"))
    (tmp_path / "masks" / "d.png").write_bytes(b"mask")
    prepare(folder, overwrite=True)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("name", ["../../victim", "/victim", "..", "sub/victim", 3, None])
def test_a_forged_list_of_frames_deletes_nothing_elsewhere(tmp_path: Path, name: Any) -> None:
    out = tmp_path / "out"
    folder = begun(out)
    victims = [tmp_path / "victim.png", out / "masks" / "sub" / "victim.png"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_bytes(b"theirs")
    with (out / ".vostrack" / "frames.jsonl").open("a") as file:
        file.write("\n" + json.dumps(name))
    prepare(folder, overwrite=True)
    assert all(victim.exists() for victim in victims)


def test_links_are_refused_and_neither_followed_nor_removed(tmp_path: Path) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "a.png").write_bytes(b"theirs")
    folder = begun(out)
    for path in (out / "masks").iterdir():
        path.unlink()
    (out / "masks").rmdir()
    (out / "masks").symlink_to(theirs)
    (out / "objects").mkdir()
    (out / "objects" / "3").symlink_to(theirs)
    with pytest.raises(OutputError, match="is a link"):
        prepare(folder, overwrite=True)
    assert (theirs / "a.png").read_bytes() == b"theirs"
    assert (out / "masks").is_symlink()


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "overlay.mp4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"overlay\.mp4 is a link"):
        prepare(OutputFolder(tmp_path))


def test_a_summary_of_somebody_else_does_not_make_a_run_complete(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"frames": 0}')
    folder = OutputFolder(tmp_path)
    prepare(folder, overwrite=True)
    assert prepare(folder, resume=True) is None


@pytest.mark.parametrize("text", ["", "[]", "3", '{"frames": 3}', '{"frames": "2"}', "{}"])
def test_a_summary_that_does_not_fit_its_masks_is_not_believed(tmp_path: Path, text: str) -> None:
    folder = begun(tmp_path)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(OutputError, match=r"summary\.json is damaged .*`overwrite=True`"):
        prepare(folder, resume=True)


def test_progress_comes_back_with_its_state(tmp_path: Path) -> None:
    folder = begun(tmp_path, tuple("abcdefghijkl"))
    assert folder.load_position(State, torch.device("cpu")) == (EnginePosition(), None)
    state = State(Inner(torch.arange(4.0)), (torch.ones(2), torch.zeros(1)), 7)
    for saved in (EnginePosition(state, (3, 200), 12), EnginePosition(None, (), 2)):
        folder.save_position(saved)
        loaded, _ = folder.load_position(State, torch.device("cpu"))
        assert (loaded.ids, loaded.done) == (saved.ids, saved.done)
        assert type(loaded.state) is type(saved.state)
    pair = LabelledFrame(1, 1, 2, torch.ones(3, 2, 2, dtype=torch.uint8), torch.zeros(2, 2))
    frames = TrainingFrames((3,), (), (pair,), 2, 5)
    folder.save_position(EnginePosition(state, (3,), 1), AdaptState(frames))
    loaded, adapt = folder.load_position(State, torch.device("cpu"))
    assert torch.equal(loaded.state.inner.x, state.inner.x)
    assert adapt is not None
    assert (adapt.model, adapt.frames.ids, adapt.frames.spacing, adapt.frames.offered) == (None, (3,), 2, 5)
    assert torch.equal(adapt.frames.predicted[0].image, frames.predicted[0].image)
    with pytest.raises(OutputError, match="`overwrite=True`"):
        folder.load_position(Inner, torch.device("cpu"))
    folder.complete({"frames": 2})
    assert folder.load_position(State, torch.device("cpu")) == (EnginePosition(), None)


def test_where_the_second_pass_stands_comes_back(tmp_path: Path) -> None:
    folder = begun(tmp_path, tuple("abcdefghijkl"))
    assert folder.load_second_pass() == 0
    folder.save_second_pass(12)
    assert folder.load_second_pass() == 12
    folder.complete({"frames": 2})
    assert folder.load_second_pass() == 0


def test_a_state_moves_to_a_device_with_all_its_tensors() -> None:
    state = State(Inner(torch.ones(2)), (torch.ones(1), torch.ones(3)), 5)
    moved = to_device(state, torch.device("meta"))
    assert {moved.inner.x.device.type, *(tensor.device.type for tensor in moved.pair)} == {"meta"}
    assert moved.count == 5
    assert state.inner.x.device.type == "cpu"


def test_a_clip_is_recognised_by_name_size_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    data = bytearray(3 << 20)
    path.write_bytes(data)
    seen = [fingerprint(path)]
    for position in (0, len(data) - 1):
        data[position] ^= 1
        path.write_bytes(data)
        seen.append(fingerprint(path))
    path.write_bytes(data + b"\0")
    seen.append(fingerprint(path))
    seen.append(fingerprint(path.rename(tmp_path / "other.mp4")))
    assert all(one != other for index, one in enumerate(seen) for other in seen[:index])
    with pytest.raises(InputError, match="cannot read"):
        fingerprint(tmp_path / "none.mp4")


def test_a_folder_is_recognised_by_the_names_and_sizes_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"1")
    first = fingerprint(folder)
    (folder / ".hidden").write_bytes(b"1")
    (folder / "sub").mkdir()
    assert fingerprint(folder) == first
    (folder / "b.png").write_bytes(b"1")
    assert fingerprint(folder) != first


def test_masks_differ_by_pixels_and_by_ids() -> None:
    pixels = torch.zeros(3, 4, dtype=torch.uint8)
    other = pixels.clone()
    other[0, 0] = 1
    prints = {digest(LabelMap(pixels, (1,))), digest(LabelMap(pixels, (1, 2))), digest(LabelMap(other, (1,)))}
    assert len(prints) == 3
    assert digest(LabelMap(pixels.clone(), (1,))) in prints
