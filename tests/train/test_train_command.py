"""`vostrack train` from folders to weights: recipes, footage of all kinds, interruptions, evaluation, pictures."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.fakes import pictures
from tests.train.samples import TinyObjective, write_image, write_labelled
from tests.video.media import write_video
from vostrack import cli, weights
from vostrack.cli.console import Stopped, StopSignals
from vostrack.errors import OutputError
from vostrack.files import LOCK_NAME, lock_folder
from vostrack.methods import METHODS, load_method
from vostrack.train import run as training
from vostrack.train.loop import CHECKPOINT, METRICS
from vostrack.weights import read_details


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(METHODS, "tiny", "tests.train.samples:TinyMethod")
    monkeypatch.delenv("VOSTRACK_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def train(*arguments: object) -> int:
    return cli.run(["train", "--method", "tiny", "--device", "cpu", *map(str, arguments)])


def metrics(folder: str = "runs/tiny") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]


def scale(path: str = "runs/tiny/tiny.safetensors") -> float:
    return float(load_file(path)["scale"])


def test_footage_becomes_weights(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", footage) == 0
    method, loaded = load_method("tiny", weights="runs/tiny/tiny.safetensors")
    assert loaded.name == "tiny.safetensors"
    assert method.net.scale == scale()
    assert [row["step"] for row in metrics()] == [1, 2, 3, 4]
    details = read_details(Path("runs/tiny/tiny.safetensors"))["details"]
    assert (details["steps"], details["clips"], details["frames"], details["processes"]) == (4, 2, 12, 1)
    assert details["recipe"]["target"] == 1.0
    told = capsys.readouterr().err
    assert "2 clips, 12 frames" in told
    assert "--weights runs/tiny/tiny.safetensors" in told


def test_a_gap_in_frames_of_the_source_keeps_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "x.mp4", pictures(25))
    for gap, count in ((0, 9), (5, 25)):
        monkeypatch.setattr(TinyObjective, "source_gap", gap)
        assert train("--data", tmp_path / "videos", "--out", tmp_path / str(gap), "--steps", 1) == 0
        assert f"1 clip, {count} frames" in capsys.readouterr().err


def test_options_change_the_recipe_and_the_plain_ones_count_last(footage: Path) -> None:
    assert train("--data", footage, "--out", "a", "--recipe", "spoil", "--set", "target=3", "--set", "steps=9",
                 "--steps", 2, "--batch", 3, "--crop", 64, "--lr", 0.25, "--seed", 5) == 0  # fmt: skip
    details = read_details(Path("a/tiny.safetensors"))["details"]
    wanted = {"target": 3.0, "steps": 2, "batch": 3, "crop": 64, "learning_rate": 0.25}
    assert {key: details["recipe"][key] for key in wanted} == wanted
    assert details["config"]["seed"] == 5
    assert [row["learning_rate"] for row in metrics("a")] == pytest.approx([0.0125, 0.025 * 0.505])


def test_training_starts_from_weights(footage: Path) -> None:
    assert train("--data", footage, "--recipe", "spoil", "--steps", 3) == 0
    begun = scale()
    assert train("--data", footage, "--out", "b", "--from", "runs/tiny/tiny.safetensors", "--lr", 1e-9) == 0
    assert scale("b/tiny.safetensors") == pytest.approx(begun, rel=1e-3)
    assert train("--data", footage, "--out", "c", "--from", "random", "--lr", 1e-9) == 0
    assert 0 <= scale("c/tiny.safetensors") <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--recipe", "defualt"], 2, "did you mean 'default'"),
        (["--set", "targett=1"], 2, "did you mean 'target'"),
        (["--set", "schedule=linear"], 2, "schedule must be 'cosine' or 'poly'"),
        (["--set", "steps=0"], 2, "steps must be at least 1, not 0"),
        (["--crop", "48"], 2, "multiple of 32"),
        (["--batch", "3", "--micro-batches", "2"], 2, "micro_batches must divide"),
        (["--precision", "8"], 2, "precision must be 'auto', '32', 'bf16' or '16', not '8'"),
        (["--from", "nothing"], 8, "nothing"),
        (["--set", "after=paper"], 2, "the recipe 'paper' gave: train these first, and give their file as --from"),
        (["--clips", "3"], 5, "there are 2 clips and images, and --clips asks for 3"),
        (["--recipe", "masks"], 5, "expected --data to hold JPEGImages/480p/NAME"),
        (["--held-out", "footage"], 5, "expected --held-out to hold"),
        (["--resume"], 6, "to resume"),
    ],
)
@pytest.mark.usefixtures("footage")
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data", "footage", *arguments) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert told[-1].startswith("error: ")


@pytest.mark.parametrize(("fast", "precision", "warned"), [(False, "bf16", 1), (True, "bf16", 0), (False, "32", 0)])
def test_a_precision_that_the_device_is_slow_at_is_named(
    footage: Path,
    fast: bool,
    precision: str,
    warned: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vostrack.device.has_fast_bfloat16", lambda device: fast)
    assert train("--data", footage, "--steps", 1, "--precision", precision) == 0
    assert capsys.readouterr().err.count("bfloat16 is slow on this device (cpu)") == warned


def test_footage_is_looked_for_where_the_help_says(
    footage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 5
    assert "frame folders as --data" in capsys.readouterr().err
    footage.rename("clips")
    assert train("--steps", 1) == 0
    Path("elsewhere").mkdir()
    Path("clips").rename("elsewhere/clips")
    monkeypatch.setenv("VOSTRACK_DATA", "elsewhere")
    assert train("--steps", 1, "--out", "again") == 0


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened(
    footage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--data", footage, "--recipe", "spoil", "--steps", 6)
    assert train(*asked, "--out", "whole") == 0
    checks = []

    def check(signals: StopSignals) -> None:
        checks.append(1)
        if len(checks) == 3:
            raise Stopped(signal.SIGINT)

    monkeypatch.setattr(StopSignals, "check", check)
    assert train(*asked) == 130
    assert "--resume" in capsys.readouterr().err
    assert not Path("runs/tiny/tiny.safetensors").exists()
    assert train(*asked) == 9
    assert train(*asked, "--resume", "--set", "target=-59") == 5
    assert "other settings (target)" in capsys.readouterr().err
    assert train(*asked, "--resume") == 0
    assert scale() == scale("whole/tiny.safetensors")
    one, other = ([row["losses"] for row in metrics(folder)] for folder in ("runs/tiny", "whole"))
    assert one == other


# --- other footage ---


def test_masks_come_with_the_footage_where_a_method_needs_them(capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(Path("davis"))
    assert train("--data", "davis", "--recipe", "masks") == 0
    assert train("--data", "davis", "--recipe", "masks", "--stills", "davis", "--out", "b") == 5
    assert "--stills have none" in capsys.readouterr().err


def test_stills_are_footage_too(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(Path("stills/x.png"), np.full((50, 70, 3), 80))
    assert train("--stills", "stills") == 0
    assert "1 clip, 1 frame of footage" in capsys.readouterr().err
    assert train("--stills", "stills", "--data", footage, "--out", "b") == 0
    assert "3 clips, 13 frames" in capsys.readouterr().err


def test_the_seed_draws_some_of_the_footage(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", footage, "--clips", 1, "--steps", 1) == 0
    assert "1 clip, 6 frames of footage" in capsys.readouterr().err
    assert read_details(Path("runs/tiny/tiny.safetensors"))["details"]["config"]["clips"] == 1


def test_a_link_that_leads_nowhere_is_left_out_and_named(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (footage / "gone.mp4").symlink_to("nowhere.mp4")
    assert train("--data", footage, "--stills", footage, "--steps", 1) == 0
    (footage / "gone.png").symlink_to("nowhere.png")
    assert train("--data", footage, "--stills", footage, "--steps", 1, "--out", "b") == 0
    told = capsys.readouterr().err
    assert "left out: cannot find clip" in told
    assert "gone.mp4" in told
    assert re.search(r"left out: image '.*gone.png' cannot be read", told)


# --- the folder of the run, the cache and its time ---


def test_the_size_of_the_cache_is_said_and_can_be_bounded(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", footage, "--cache-size", "0.000012") == 0
    told = capsys.readouterr().err
    assert "decoding 2 clips: about 1 MB in runs/tiny/cache" in told
    assert "2 clips, 6 frames of footage" in told
    assert train("--data", footage, "--cache-size", "0") == 2


def test_a_held_out_cache_counts_in_its_size(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(Path("davis"), count=2)  # 4 frames of 40 x 60 with masks: 38.4 kB
    assert train("--data", footage, "--held-out", "davis", "--cache-size", "0.000050") == 0
    assert "2 clips, 6 frames of footage" in capsys.readouterr().err


def test_a_run_clears_away_what_a_killed_one_left(footage: Path) -> None:
    left = [Path("runs/tiny/.vostrack-0123.part"), Path("runs/tiny/cache/.vostrack-0123.part")]
    left[1].parent.mkdir(parents=True)
    for path in left:
        path.touch()
    assert train("--data", footage) == 0
    assert not any(path.exists() for path in left)


def test_nothing_is_touched_in_the_folder_of_another_run(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_folder(Path("runs/tiny")):
        Path("runs/tiny/.vostrack-0123.part").touch()
        assert train("--data", footage) == 9
        assert "in use by" in capsys.readouterr().err
        assert {path.name for path in Path("runs/tiny").iterdir()} == {".vostrack-0123.part", LOCK_NAME}


def test_a_run_that_was_stopped_while_decoding_goes_on(
    footage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(signals: StopSignals) -> None:
        raise Stopped(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "check", stop)
        assert train("--data", footage) == 130
    assert "go on with the same command and --resume" in capsys.readouterr().err
    assert train("--data", footage, "--resume") == 0
    assert "decoding 1 clip:" in capsys.readouterr().err


def test_decoding_counts_in_the_minutes(footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert train("--data", footage, "--steps", 10**6, "--max-minutes", 2, "--pictures", 0) == 0
    assert metrics()[0]["seconds"] > 14
    assert 120 <= metrics()[-1]["seconds"] < 130


def test_the_end_says_whether_the_start_was_beaten(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(Path("davis"))
    assert train("--data", footage) == 0
    assert "was not measured: --held-out" in capsys.readouterr().err
    asked = ("--data", footage, "--held-out", "davis", "--recipe", "spoil", "--steps", 4, "--out")
    assert train(*asked, "worse", "--lr", 20) == 0
    said = r"held-out J (0.\d+) before training, (0.\d+) after: "
    found = re.search(said + "no better, so they are what training started from", capsys.readouterr().err)
    assert found
    assert found[1] == found[2]
    assert train(*asked, "worse", "--lr", 20, "--resume") == 0
    resumed = capsys.readouterr().err
    assert found[0] in resumed
    assert "nothing was trained: --steps, --max-minutes or --patience is used up" in resumed
    assert train("--data", footage, "--recipe", "spoil", "--out", "spoiled") == 0
    spoiled = ("--from", "spoiled/tiny.safetensors", "--set", "target=1", "--lr", 10)
    assert train(*asked, "better", *spoiled) == 0
    assert re.search(said + "better", capsys.readouterr().err)


def test_a_run_that_was_over_says_the_same_of_its_weights_when_it_is_resumed(footage: Path) -> None:
    """A kill right after the last checkpoint leaves the rest of the end to be done."""
    assert train("--data", footage) == 0
    weights, picture = Path("runs/tiny/tiny.safetensors"), Path("runs/tiny/pictures/000004.png")
    before = read_details(weights)
    weights.unlink()
    picture.unlink()
    assert train("--data", footage, "--resume") == 0
    assert read_details(weights) == before
    assert picture.exists()


# --- evaluation ---


def test_the_best_weights_that_could_not_be_written_are_found_again(
    footage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(Path("davis"))
    asked = ("--data", footage, "--held-out", "davis")

    def fails(*_: object, **options: object) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_weights", fails)
        assert train(*asked) == 6
    assert train(*asked, "--resume") == 0
    assert [row["step"] for row in metrics() if "held_out" in row] == [0, 4]


def test_the_weights_are_those_of_the_best_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    """Training turns the method upside down, step by step: the start is the best, and patience ends the run."""
    write_labelled(Path("davis"))
    asked = ("--data", "davis", "--held-out", "davis", "--recipe", "spoil", "--lr", 20, "--evaluate-every", 2)
    assert train(*asked, "--patience", 3) == 0
    rows = metrics()
    found = [row for row in rows if "held_out" in row]
    assert found[0]["step"] == 0
    assert found[0]["held_out"].keys() == {"one", "two"}
    best = max(found, key=lambda row: row["mean"])
    assert best["best"]
    assert found[-1]["mean"] < best["mean"] - 0.05
    assert len([row for row in found if row["step"] > best["step"]]) == 3
    assert rows[-1] is found[-1]
    details = read_details(Path("runs/tiny/tiny.safetensors"))["details"]
    assert (details["steps"], details["held_out"]) == (best["step"], pytest.approx(best["mean"]))
    assert "held-out J" in capsys.readouterr().err


def test_what_is_held_out_belongs_to_the_run(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(Path("davis"))
    asked = ("--data", footage, "--steps", 2, "--resume")
    assert train(*asked[:-1]) == 0
    assert train(*asked, "--held-out", "davis") == 5
    assert "held_out" in capsys.readouterr().err


def test_held_out_clips_without_objects_are_an_error(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(Path("davis"), value=0)
    assert train("--data", footage, "--held-out", "davis") == 5
    assert "no held-out clip has" in capsys.readouterr().err


# --- pictures and logs ---


def test_pictures_show_what_is_propagated(footage: Path) -> None:
    write_labelled(Path("davis"))
    assert train("--data", footage, "--held-out", "davis") == 0
    assert sorted(path.name for path in Path("runs/tiny/pictures").iterdir()) == ["000000.png", "000004.png"]
    with Image.open("runs/tiny/pictures/000000.png") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (2 * 40, 4 * 60, 3)
    # Where it lies, the object is tinted in a dark shade of the first colour of the palette, as it is red itself.
    for column, index in enumerate((0, 1, 3, 5)):
        assert abs(pixels[20, 60 * column + 15 + 4 * index, 0] - (200 + 89) // 2) <= 2
    assert train("--data", footage, "--out", "two") == 0
    with Image.open("two/pictures/000004.png") as picture:
        assert picture.size == (4 * 30, 20 + 24)  # a row for each clip
    assert train("--data", footage, "--out", "none", "--pictures", 0) == 0
    assert not Path("none/pictures").exists()


def test_without_masks_a_chequerboard_is_propagated(footage: Path) -> None:
    write_image(footage / "still" / "x.png", np.full((21, 31, 3), 80))
    assert train("--data", footage, "--stills", footage / "still", "--steps", 1) == 0
    with Image.open("runs/tiny/pictures/000001.png") as picture:
        assert picture.size == (4 * 31, 20 + 24 + 21)
        left = np.asarray(picture)[:20, :30].astype(int)
    # Black footage: what is not black is a square of the board.
    tinted = left.max(2) > 0
    assert tinted[2, 2]
    assert not tinted[2, 7]
    assert not tinted[7, 2]


def test_a_picture_that_fails_does_not_end_the_run(
    footage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no paint")

    monkeypatch.setattr(training, "write_picture", fail)
    assert train("--data", footage) == 0
    assert "no picture of step 4: RuntimeError: no paint" in capsys.readouterr().err


def test_pictures_and_evaluations_leave_training_alone(footage: Path) -> None:
    write_labelled(Path("davis"))
    assert train("--data", footage, "--recipe", "spoil", "--out", "plain", "--pictures", 0) == 0
    assert (
        train("--data", footage, "--recipe", "spoil", "--out", "b", "--held-out", "davis", "--evaluate-every", 3) == 0
    )
    assert [row["losses"] for row in metrics("plain")] == [row["losses"] for row in metrics("b") if "losses" in row]


@pytest.mark.needs("tensorboard", "train")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_losses_can_go_to_tensorboard(footage: Path) -> None:
    assert train("--data", footage, "--board") == 0
    assert list(Path("runs/tiny/tensorboard").iterdir())


def test_tensorboard_that_is_missing_is_said(
    footage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    assert train("--data", footage, "--board") == 6
    assert "vostrack[train]" in capsys.readouterr().err


def test_the_net_of_a_run_depends_on_its_seed_alone(footage: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)
        assert train("--data", footage, "--out", folder, "--seed", seed, "--lr", 1e-9, "--steps", 1) == 0
    assert scale("a/tiny.safetensors") == scale("b/tiny.safetensors") != scale("c/tiny.safetensors")


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize(
    "name", [METRICS, CHECKPOINT, "cache", "cache/frames.u8", "cache/index.json", "pictures", "tiny.safetensors"]
)
def test_no_link_and_no_pipe_in_the_folder_of_a_run_is_written_to(
    footage: Path, name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, theirs = Path("runs/tiny"), tmp_path / "theirs"
    (out / name).parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(theirs)
        if name in ("cache", "pictures"):
            theirs.mkdir()
        elif name != CHECKPOINT:
            theirs.write_bytes(b"theirs")
    assert train("--data", footage) == 6
    assert ("is a link" if kind == "link" else "neither a file nor a folder") in capsys.readouterr().err
    if theirs.is_dir():
        assert not list(theirs.iterdir())
    else:
        assert not theirs.exists() or theirs.read_bytes() == b"theirs"
