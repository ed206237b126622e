"""An output folder that somebody else prepared: links, pipes, damaged states and records."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from tests.fakes import truth, write_clip, write_mask
from tests.runs import Stop, StopAfter, results
from vostrack import cli
from vostrack.errors import OutputError
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
STATE = ".vostrack/state.safetensors"
OURS = (
    ".vostrack",
    ".vostrack/run.json",
    ".vostrack/frames.jsonl",
    ".vostrack/second_pass.json",
    STATE,
    "masks",
    "masks/00000.png",
    "objects/3",
    "overlay.mp4",
    "summary.json",
    ".vostrack.lock",
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, a mask and a run that was stopped after three of six frames; not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        from tests.fakes import register

        register(patch, folder / "weights")
        write_clip(folder / "clip.mp4", 6)
        write_mask(folder / "first.png")
        with pytest.raises(Stop):
            run(folder, callbacks=StopAfter(3))
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(folder: Path, **options: Any) -> dict[str, Any]:
    outputs = ("masks", "overlay", "objects")
    return segment(folder / "clip.mp4", folder / "first.png", folder / "out", method="fake", outputs=outputs, **options)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("option", ["overwrite", "resume"])
@pytest.mark.parametrize("name", OURS)
def test_nothing_behind_a_link_is_changed(folder: Path, name: str, option: str) -> None:
    theirs = folder / "theirs"
    shutil.copytree(folder / "out", theirs / "out")
    for each in OURS[1:]:
        if not (theirs / "out" / each).exists():
            (theirs / "out" / each).write_bytes(b"theirs")
    before = everything(theirs)
    replace(folder / "out" / name, lambda path: path.symlink_to(theirs / "out" / name))
    ours = everything(folder / "out")
    with pytest.raises(OutputError, match=r"is a link|cannot write"):
        run(folder, **{option: True})
    assert everything(theirs) == before
    assert everything(folder / "out") == ours


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("option", ["overwrite", "resume"])
@pytest.mark.parametrize(
    "name", [name for name in OURS if name not in (".vostrack.lock", ".vostrack/second_pass.json")]
)
def test_a_pipe_among_the_results_does_not_hang(folder: Path, name: str, option: str) -> None:
    replace(folder / "out" / name, os.mkfifo)
    with pytest.raises(OutputError, match=r"is neither a file nor a folder"):
        run(folder, **{option: True})


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> None:
    """Change tensors and tree of a state, and keep all else that it says."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = file.metadata()
    tree = json.loads(told["tree"])
    change(tensors, tree)
    path.write_bytes(save(tensors, {**told, "tree": json.dumps(tree)}))


def flipped(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first frame again": lambda path: rewritten(path, lambda tensors, tree: tree.update(next_frame=0)),
    "other ids": lambda path: rewritten(path, lambda tensors, tree: tree.update(ids=[200, 3])),
    "zeros": lambda path: rewritten(path, lambda tensors, tree: [x.zero_() for x in tensors.values()]),
    "nan": lambda path: rewritten(path, lambda tensors, tree: [x.fill_(float("nan")) for x in tensors.values()]),
    "a bit of the last number": lambda path: flipped(path, 0.999),
    "a bit of the header": lambda path: flipped(path, 0.3),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_not_resumed_from(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder / "out" / STATE)
    before = results(folder / "out")
    with pytest.raises(OutputError, match=r"state\.safetensors .*`overwrite=True`"):
        run(folder, resume=True)
    assert results(folder / "out") == before


def test_a_state_of_another_run_is_not_resumed_from(folder: Path) -> None:
    other = folder / "other"
    shutil.copytree(folder, other)
    write_mask(other / "first.png", truth(1))
    with pytest.raises(Stop):
        run(other, overwrite=True, callbacks=StopAfter(3))
    shutil.copy(other / "out" / STATE, folder / "out" / STATE)
    with pytest.raises(OutputError, match="of another run"):
        run(folder, resume=True)


def test_a_state_ahead_of_its_frames_is_not_resumed_from(folder: Path) -> None:
    (folder / "out" / ".vostrack" / "frames.jsonl").write_text('"00000"\n')
    with pytest.raises(OutputError, match="says that 3 frames are done, and there are 1"):
        run(folder, resume=True)


HOSTILE = {
    "deep": "[" * 100_000,
    "list": "[]",
    "number": "3",
    "long number": "9" * 5000,
    "surrogate": '{"clip": "\\ud800", "outputs": "\\ud800"}',
    "wrong types": '{"clip": 3, "adapt": [], "outputs": 5, "frames": {}, "objects": 1}',
    "reduced": '{"frames": 3, "out": "x"}',
    "not text": "\udcff",
    "nan": '{"frames": NaN}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", [".vostrack/run.json", "summary.json", ".vostrack/second_pass.json"])
def test_hostile_json_is_a_line_or_replaced(
    folder: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "out" / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    command = ["segment", str(folder / "clip.mp4"), "-m", str(folder / "first.png"), "-o", str(folder / "out"),
               "--method", "fake", "--objects"]  # fmt: skip
    if "second" not in name:  # which only a run of two passes reads
        assert cli.run([*command, "--resume"]) == 6
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert "--overwrite" in line
        assert line.isprintable()
    assert cli.run([*command, "--overwrite"]) == 0


@pytest.mark.parametrize("line", ["[" * 100_000, '"\\ud800"', "9" * 5000, "{}", "\udcff", '"a\\u0000"'])
def test_a_hostile_list_of_frames_is_read_as_far_as_it_goes(folder: Path, line: str) -> None:
    with (folder / "out" / ".vostrack" / "frames.jsonl").open("ab") as file:
        file.write(b"\n" + line.encode(errors="surrogateescape"))
    run(folder, resume=True)
    run(folder, overwrite=True)
    assert len(list((folder / "out" / "masks").iterdir())) == 6
