"""`vostrack demo`: the synthetic scene, the clip that is written, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tests.forks import finish, fork
from tests.video.media import pixels, read
from vostrack.cli import app, console, run
from vostrack.cli.demo import demo
from vostrack.nets.encoders import AnchorsNet
from vostrack.video import synthetic as scene
from vostrack.video.reader import open_clip
from vostrack.weights import save_weights

SIZE = (90, 160)
TINY = ("--frames", "4", "--size", "48")


def labels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def areas(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Pixels of each label, (count, 4)."""
    return np.array([np.bincount(scene.render(index, count, size)[1].ravel(), minlength=4) for index in range(count)])


def save_frame(path: Path) -> None:
    picture, labels = scene.render(3, 12, SIZE)
    np.savez(path, picture, labels)


def test_same_arguments_give_the_same_frame(tmp_path: Path) -> None:
    """In another process too, which has kept nothing of an earlier one."""
    first = scene.render(3, 12, SIZE)
    assert finish(fork(tmp_path, save_frame, tmp_path / "frame.npz"), tmp_path)[0] == 0
    with np.load(tmp_path / "frame.npz") as saved:
        again = tuple(saved.values())
    assert first[0].dtype == first[1].dtype == np.uint8
    assert first[0].shape == (*SIZE, 3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_frame_has_its_own_noise() -> None:
    """In a clip without end nothing moves from one frame to the next, so that only the noise differs."""
    one, other = (scene.render(index, 10**9, SIZE)[0].astype(int) for index in (0, 1))
    assert 1 < np.abs(one - other).mean() < 6


def test_scene_is_the_same_at_every_size() -> None:
    small, large = (scene.render(5, 12, (height, height * 16 // 9))[1] for height in (90, 270))
    assert (small == large[1::3, 1::3]).all()


def test_masks_fit_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one pure colour for each object, that colour shows where the mask says so and nowhere else."""

    def plain(label: int) -> Callable[..., np.ndarray]:
        color = np.eye(3)[label - 1] if label else np.full(3, 0.5)
        return lambda x, y, noise: np.broadcast_to(color, (*np.broadcast_shapes(x.shape, y.shape), 3))

    things = tuple(dataclasses.replace(thing, pattern=plain(thing.label)) for thing in scene.THINGS)
    monkeypatch.setattr(scene, "THINGS", things)
    for index in range(0, 12, 3):
        picture, labels = scene.render(index, 12, SIZE)
        inner = labels[1:-1, 1:-1]
        alike = np.ones(inner.shape, bool)
        for dy, dx in np.ndindex(3, 3):
            alike &= labels[dy : dy + inner.shape[0], dx : dx + inner.shape[1]] == inner
        for label in (1, 2, 3):
            others = np.delete(picture[1:-1, 1:-1], label - 1, axis=2).max(axis=2)
            pure = (picture[1:-1, 1:-1, label - 1] > 50) & (others < 25)
            np.testing.assert_array_equal(pure[alike], (inner == label)[alike])


def test_objects_differ_from_each_other_and_from_the_background() -> None:
    picture, labels = scene.render(0, 36, SIZE)
    colors = [picture[labels == label].mean(axis=0) for label in range(4)]
    spread = [picture[labels == label].astype(float).std(axis=0).max() for label in (1, 2, 3)]
    assert min(np.abs(colors[a] - colors[b]).max() for a in range(4) for b in range(a)) > 30
    assert min(spread) > 20  # textured


def test_all_objects_are_there_at_the_start_and_at_the_end() -> None:
    ends = areas(36)[[0, -1]]
    assert (ends[:, 1:] > 0.02 * SIZE[0] * SIZE[1]).all()


@pytest.mark.parametrize("label", [1, 3])
def test_object_is_hidden_in_part_and_comes_back(label: int) -> None:
    area = areas(36)[:, label]
    lowest = int(area.argmin())
    assert 8 < lowest < 30
    assert 0.2 * area[0] < area[lowest] < 0.85 * area[:lowest].max()
    assert area[-1] > 0.98 * area[:lowest].max()


def test_masks_are_whole_in_the_middle_of_the_post() -> None:
    """The trunk is background: where it covers the star, the mask has a gap."""
    labels = scene.render(18, 36, SIZE)[1]
    rows = [np.flatnonzero(row == 1) for row in labels]
    assert any(row.size and np.diff(row).max(initial=1) > 5 for row in rows)


@pytest.mark.parametrize(
    ("height", "size"), [(240, (240, 426)), (48, (48, 86)), (101, (100, 180)), (1080, (1080, 1920))]
)
def test_clip_size_is_even_and_wide(height: int, size: tuple[int, int]) -> None:
    assert scene.clip_size(height) == size


def test_written_clip_is_what_was_drawn(tmp_path: Path) -> None:
    done: list[tuple[int, int | None]] = []
    truth = scene.write_clip(tmp_path / "new" / "demo", 5, (90, 160), lambda *progress: done.append(progress))
    folder = tmp_path / "new" / "demo"
    clip, frames = read(folder / "clip.mp4")
    assert (clip.size, clip.count, clip.fps, clip.notes) == ((90, 160), 5, scene.RATE, [])
    assert done == [(number, 5) for number in range(1, 6)]
    assert [path.name for path in truth] == [f"{index:05d}.png" for index in range(5)]
    for frame, path in zip(frames, truth, strict=True):
        picture, labels = scene.render(frame.index, 5, (90, 160))
        assert np.abs(pixels(frame).astype(int) - picture).mean() < 5
        np.testing.assert_array_equal(labels_of(path), labels)
    assert (folder / "first.png").read_bytes() == truth[0].read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["clip.mp4", "first.png", "truth"]


def test_clip_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        scene.write_clip(tmp_path / name, 3, (48, 86))
    one, two = (open_clip(tmp_path / name / "clip.mp4") for name in ("one", "two"))
    for frame, same in zip(one, two, strict=True):
        assert np.abs(pixels(frame).astype(int) - pixels(same)).mean() < 2  # x264 is not the same byte for byte


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(AnchorsNet(), "anchors", path, {})
    return str(path)


def invoke(out: Path, weights: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["demo", "--out", str(out), "--weights", weights, *TINY, *options])


@pytest.fixture(scope="module")
def finished(weights: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A demo that has run; tests must leave it as it is."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, invoke(out, weights)


def test_demo_writes_all_and_says_how_it_went(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("J&F 0.")
    assert "real footage" in lines[1]
    assert lines[-2].endswith("Next      vostrack segment VIDEO.mp4 --mask FIRST.png")
    assert len(lines) == 6
    for name in ("clip.mp4", "first.png", "truth/00003.png", "result/overlay.mp4", "result/summary.json"):
        assert (out / name).is_file(), name
    assert len(list((out / "result" / "masks").glob("*.png"))) == 4
    assert labels_of(out / "result" / "masks" / "00003.png").shape == (48, 86)
    for name in ("result/overlay.mp4", "result/masks", "truth", "clip.mp4", "first.png"):
        assert f"{out}/{name}" in result.stdout


def test_demo_does_not_replace_results_unasked(
    finished: tuple[Path, Result], weights: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(["demo", "--out", str(out), "--weights", weights, *TINY]) == 9
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {out} holds clip.mp4 already: choose another --out, or --overwrite\n"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_demo_overwrites_when_asked_and_leaves_no_stale_masks(weights: str, tmp_path: Path) -> None:
    scene.write_clip(tmp_path, 6, (48, 86))
    (tmp_path / ".vostrack").mkdir()
    (tmp_path / ".vostrack" / "demo.json").write_text('{"frames": 6}')
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "summary.json").write_text("{}")
    (tmp_path / "truth" / "mine.png").write_bytes(b"")
    result = invoke(tmp_path, weights, "--overwrite", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["scores"]["sequences"] == 1
    assert [score["id"] for score in report["scores"]["objects"]] == [1, 2, 3]
    assert 0 <= report["scores"]["total"]["J&F"] <= 1
    assert report["synthetic"] is True
    assert report["summary"]["frames"] == 4
    assert Path(report["overlay"]).is_file()
    names = sorted(path.name for path in (tmp_path / "truth").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "mine.png"]


def test_demo_that_was_stopped_can_be_started_again(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stop(self: console.FrameBar, done: int, count: int | None) -> None:
        if done == 2:
            raise console.Stopped(2)

    advance = console.FrameBar.progress
    monkeypatch.setattr(console.FrameBar, "progress", stop)
    with pytest.raises(console.Stopped, match="start again with the same command"):
        demo(out=tmp_path, method="anchors", frames=4, size=48, weights=weights)
    monkeypatch.setattr(console.FrameBar, "progress", advance)
    assert not (tmp_path / "clip.mp4").exists()
    assert not list(tmp_path.glob(".vostrack-*"))
    assert run(["demo", "--out", str(tmp_path), "--weights", weights, *TINY]) == 0
    assert (tmp_path / "result" / "summary.json").is_file()


def test_demo_without_weights_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "no.safetensors"), *TINY]) == 8
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_importing_the_command_leaves_out_what_is_slow() -> None:
    check = "import sys, vostrack.cli.demo; print(sorted({'torch', 'numpy', 'av'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("name", [".vostrack", ".vostrack/demo.json", "clip.mp4", "truth", "truth/00000.png", "result"])
def test_demo_writes_to_no_link_and_no_pipe(
    name: str, kind: str, weights: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    (out / name).parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        theirs.mkdir()
        (theirs / "demo.json").write_text("{}")
        (out / name).symlink_to(theirs)
    assert run(["demo", "--out", str(out), "--weights", weights, *TINY, "--overwrite"]) == 6
    assert ("is a link" if kind == "link" else "neither a file nor a folder") in capfd.readouterr().err
    assert kind == "pipe" or [path.name for path in theirs.iterdir()] == ["demo.json"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"frames": "x"}', '{"frames": 9223372036854775807}', "9" * 5000]
)
def test_a_hostile_record_of_a_demo_is_replaced(text: str, weights: str, tmp_path: Path) -> None:
    (tmp_path / ".vostrack").mkdir()
    (tmp_path / ".vostrack" / "demo.json").write_text(text)
    assert invoke(tmp_path, weights).exit_code == 0
