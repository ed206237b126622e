from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.fakes import FakeConfig, FakeMethod, finish, register, start, truth, write_clip, write_mask, write_weights
from tests.video.media import noise, write_video
from vostrack.cli import console, run
from vostrack.methods import METHODS, method_class


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 4)
    write_mask(tmp_path / "first.png")


Run = Any


@pytest.fixture
def vostrack(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line with the fake method; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(list(arguments))
        return code, *capfd.readouterr()

    return call


def segment(*more: str, mask: str = "first.png", clip: str = "clip.mp4", method: str = "fake") -> list[str]:
    return ["segment", clip, "--mask", mask, "--method", method, *more]


def refused(answer: tuple[int, str, str], code: int, *words: str) -> None:
    """Fail unless a command ended with a code, nothing on stdout and one line on stderr that holds some words."""
    ended, printed, said = answer
    assert "Traceback" not in said
    assert (ended, printed) == (code, ""), said
    assert len(said.splitlines()) == 1
    assert said.startswith("error: ")
    for word in words:
        assert word in said


def test_one_command_gives_masks_an_overlay_and_a_line_for_people(vostrack: Run, tmp_path: Path) -> None:
    code, printed, said = vostrack(*segment())
    assert (code, printed) == (0, "")
    assert "fake, preset default: 4 frames, 2 objects (mask of frame 0), " in said
    assert "results: clip_vostrack\n" in said
    assert f"next: look at {Path('clip_vostrack', 'overlay.mp4')}; to mend a frame, such as " in said
    assert len(list((tmp_path / "clip_vostrack" / "masks").iterdir())) == 4
    assert f"next: look at {Path('out', 'masks')}; to" in vostrack(*segment("-o", "out", "--no-overlay"))[2]


def test_where_all_masks_were_given_there_is_no_frame_to_mend(vostrack: Run) -> None:
    masks = [word for frame in (1, 2, 3) for word in ("-m", f"{frame}:first.png")]
    said = vostrack(*segment(*masks))[2]
    assert "to hand them over: vostrack export clip_vostrack --format FORMAT\n" in said
    assert "mend" not in said


def test_json_prints_the_summary_on_stdout_and_nothing_else(vostrack: Run) -> None:
    code, printed, said = vostrack(*segment("--json", "-o", "out", "--set", "rate=0.2", "--size", "32"))
    summary = json.loads(printed)
    assert code == 0
    assert summary == json.loads(Path("out/summary.json").read_text())
    assert (summary["config"]["rate"], summary["size"]) == (0.2, 32)
    assert "frames" not in said


def test_a_preset_is_named_by_what_it_means_and_a_quicker_one_is_known(
    vostrack: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, default = FakeConfig(rate=0.2), FakeMethod.presets["default"]
    monkeypatch.setattr(FakeMethod, "presets", {"default": default, "fast": fast, "balanced": default})
    known = []

    class Bar(console.FrameBar):
        def __init__(self, *arguments: Any, quicker: Callable[[], str], **options: Any) -> None:
            known.append(quicker())
            super().__init__(*arguments, **options)

    monkeypatch.setattr(importlib.import_module("vostrack.cli.segment"), "FrameBar", Bar)
    assert "fake, preset balanced: 4 frames" in vostrack(*segment("-o", "a"))[2]
    assert "fake, preset fast: 4 frames" in vostrack(*segment("-o", "b", "--preset", "fast"))[2]
    assert json.loads(Path("b/summary.json").read_text())["preset"] == "fast"
    assert vostrack(*segment("-o", "c", "--preset", "fast", "--size", "240"))[0] == 0
    assert known == ["--preset fast", "", ""]
    write_clip(Path("large.mp4"), 2, (288, 384))
    assert vostrack(*segment("-o", "d", "--resize-mask", "--size", "full", clip="large.mp4"))[0] == 0
    assert known[3:] == ["--preset fast, or --size 240"]


def test_quiet_prints_nothing_on_success_and_errors_all_the_same(vostrack: Run) -> None:
    write_mask(Path("soon.png"), truth(3))
    assert vostrack(*segment("-q", "-o", "out")) == (0, "", "")
    refused(vostrack(*segment("-q", "-o", "out")), 9, "holds masks already")


def test_results_that_are_there_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "clip_vostrack" / "masks").mkdir(parents=True)
    check = (
        "import sys; from vostrack import cli; code = cli.run(['segment', 'clip.mp4', '-m', 'first.png']); "
        "sys.exit(1 if {'torch', 'av'} & sys.modules.keys() else code)"
    )
    found = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, "holds masks already" in found.stderr) == (9, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.mp4", "-m", "first.png"), 5, "cannot find clip 'none.mp4'"),
        (("clip.mp4", "-m", "firts.png"), 4, "firts.png is missing; did you mean first.png?"),
        (("clip.mp4", "-m", "0:firts.png"), 4, "firts.png is missing"),
        (("clip.mp4", "-m", "broken.png"), 4, "broken.png cannot be read"),
        (("clip.mp4", "-m", "first.png", "--size", "x"), 2, "--size"),
        (("clip.mp4", "-m", "first.png", "--range", "x"), 2, "--range"),
        (("clip.mp4", "-m", "first.png", "--gone", "dog"), 2, "--gone"),
        (("clip.mp4", "-m", "first.png", "--background", "x"), 2, "--background"),
        (("clip.mp4", "-m", "first.png", "--name", "dog"), 2, "--name"),
        (("clip.mp4", "-m", "first.png", "--method", "fakes"), 2, "did you mean 'fake'"),
        (("clip.mp4", "-m", "first.png", "--preset", "fats"), 2, "fats"),
        (("clip.mp4", "-m", "first.png", "--set", "rat=1"), 2, "--set: "),
        (("clip.mp4", "-m", "first.png", "--refine", "crv"), 2, "did you mean 'crf'"),
        (("clip.mp4", "-m", "first.png", "-m", "2:broken.png"), 4, "broken.png"),
        (("clip.mp4", "-m", "first.png", "--set", "rate=1"), 9, "holds masks already"),
        (("clip.mp4", "-m", "0:first.png"), 9, "holds masks already"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_other_mistakes_are_said_before_results_that_are_there(
    vostrack: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    Path("broken.png").write_bytes(Path("first.png").read_bytes()[:60])
    Path("out/masks").mkdir(parents=True)
    refused(vostrack("segment", "--method", "fake", "-o", "out", *arguments), code, words)


def test_progress_as_json_lines_leaves_nothing_else_on_stderr(vostrack: Run) -> None:
    code, printed, said = vostrack(*segment("--progress", "jsonl"))
    told = [json.loads(line) for line in said.splitlines()]
    assert (code, printed, told[0]["event"], told[-1]["event"]) == (0, "", "start", "end")
    assert (told[-1]["done"], told[-1]["total"]) == (4, 4)
    refused(vostrack(*segment("--progress", "bar")), 2, "--progress")


def test_notes_go_to_stderr(vostrack: Run) -> None:
    colors = np.array([(0, 0, 0), (250, 120, 10), (10, 120, 250)], np.uint8)
    Image.fromarray(colors[truth(ids=(1, 2))]).save("colors.png")
    code, printed, said = vostrack(*segment("-o", "out", "--no-overlay", "--json", mask="colors.png"))
    assert code == 0
    summary = json.loads(printed)
    (note,) = summary["notes"]
    assert (note["code"], summary["warnings"]) == ("mask-ids", [])
    assert f"note [mask-ids] {note['text']}" in said.splitlines()


def test_a_mask_with_the_number_of_another_frame_is_pointed_out(vostrack: Run) -> None:
    write_mask(Path("00003.png"))
    assert "warning [mask-number] 00003.png is used for frame 0; if it" in vostrack(*segment(mask="00003.png"))[2]


@pytest.mark.parametrize("text", ["2-d2.png", "2_d2.png", "0.1s-d2.png", "2=d2.png"])
def test_a_frame_that_is_parted_from_its_mask_by_another_sign_is_seen(vostrack: Run, text: str) -> None:
    write_mask(Path("d2.png"), truth(2))
    number = text[: text.index("d") - 1]
    refused(
        vostrack(*segment("-m", text)), 4, f"{text} is not there; if it is for frame {number}, give {number}:d2.png"
    )
    Path(text).write_bytes(Path("d2.png").read_bytes())
    assert "not there" not in vostrack(*segment("-m", text))[2]


def test_outputs_can_be_chosen(vostrack: Run) -> None:
    assert vostrack(*segment("-q", "-o", "out", "--no-overlay", "--objects", "--probs"))[0] == 0
    assert {path.name for path in Path("out").iterdir()} >= {"masks", "objects", "probs"}
    assert not Path("out/overlay.mp4").exists()


def test_a_run_can_be_exported_at_once(vostrack: Run) -> None:
    wanted = ["--no-overlay", "-o", "dog", "--export", "cvat", "--export", "frames"]
    code, _, said = vostrack(*segment(*wanted))
    assert code == 0
    assert "exported: dog_cvat.xml\nexported: dog_frames\n" in said
    assert Path("dog_cvat.xml").is_file()
    Path("dog_cvat.xml").unlink()
    assert vostrack(*segment(*wanted, "--resume"))[0] == 0
    assert Path("dog_cvat.xml").is_file()
    refused(vostrack(*segment("-o", "cat", "--export", "cvta")), 2, "unknown format 'cvta'; did you mean 'cvat'")
    Path("cat_cvat.xml").write_text("mine")
    refused(
        vostrack(*segment("-o", "cat", "--export", "cvat")), 9, "cat_cvat.xml is there already: choose another --out"
    )
    assert not Path("cat", "masks").exists()


def test_the_look_of_the_overlay_can_be_chosen(vostrack: Run) -> None:
    code, printed, _ = vostrack(*segment("--json", "-q", "--overlay-style", "checkerboard", "--overlay-labels"))
    assert (code, json.loads(printed)["overlay"]) == (0, {"style": "checkerboard", "labels": True})
    refused(vostrack(*segment("-o", "other", "--overlay-style", "tinted")), 2, "--overlay-style")


def test_full_size_and_masks_of_later_frames_are_taken(vostrack: Run) -> None:
    write_mask(Path("later.png"), truth(2))
    code, printed, _ = vostrack(*segment("--json", "--mask", "2:later.png", "--size", "full"))
    assert code == 0
    assert set(json.loads(printed)["masks"]) == {"0", "2"}
    assert json.loads(printed)["size"] is None


def test_a_part_of_the_clip_is_told(vostrack: Run) -> None:
    code, _, said = vostrack(*segment("--range", "1-2", "--start-number", "1001"))
    assert code == 0
    assert ": 2 frames from 1 on, 2 objects" in said
    assert sorted(path.name for path in Path("clip_vostrack/masks").iterdir()) == ["01001.png", "01002.png"]
    refused(vostrack(*segment("--range", "1-9", "--overwrite")), 5, "the range is 1 to 9", "clip ends with frame 3")
    refused(vostrack(*segment("--name", "bird=9", "--overwrite")), 4, "no mask has the id or grey 9 (named bird)")


def test_resume_and_overwrite(vostrack: Run) -> None:
    assert vostrack(*segment("-q", "-o", "out"))[0] == 0
    assert vostrack(*segment("-q", "-o", "out", "--resume"))[0] == 0
    assert vostrack(*segment("-q", "-o", "out", "--overwrite", "--set", "steps=2"))[0] == 0
    refused(vostrack(*segment("-o", "out", "--resume")), 6, "since this changed: config.")
    code, _, said = vostrack(*segment("-o", "out", "--resume", "--overwrite"))
    assert code == 2
    assert "exclude each other" in said


@pytest.mark.parametrize("look", [["--overlay-labels"], ["--overlay-style", "cutout"]])
def test_a_look_without_an_overlay_is_refused(vostrack: Run, look: list[str]) -> None:
    code, _, said = vostrack(*segment("--no-overlay", *look))
    assert code == 2
    assert "there is no overlay with --no-overlay" in " ".join(said.split())


# What cannot be done: one line on stderr, and an exit code for its class.


def test_a_clip_that_cannot_be_read(vostrack: Run) -> None:
    refused(vostrack(*segment(clip="none.mp4")), 5, "none.mp4")
    Path("text.mp4").write_text("this is not a video\n" * 50)
    refused(vostrack(*segment(clip="text.mp4")), 5, "text.mp4")
    data = Path("clip.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: len(data) // 2])
    refused(vostrack(*segment(clip="cut.mp4")), 5, "cut.mp4")
    Path("empty").mkdir()
    refused(vostrack(*segment(clip="empty")), 5, "empty")
    assert not list(Path().glob("*_vostrack"))


def test_a_clip_that_breaks_off(vostrack: Run) -> None:
    clip = write_video(Path("noise.mp4"), noise(12, (48, 64)), container_options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    refused(vostrack(*segment(clip="noise.mp4")), 5, "breaks off at frame")
    assert not list(Path("noise_vostrack").rglob("*.part"))


def test_a_mask_that_cannot_be_used(vostrack: Run) -> None:
    write_mask(Path("other.png"), truth()[:40])
    refused(vostrack(*segment(mask="other.png")), 4, "other.png", "64x40", "64x48")
    refused(vostrack(*segment(mask="none.png")), 4, "none.png")
    refused(vostrack(*segment(mask="9:first.png")), 4, "mask for frame 9")
    refused(vostrack(*segment(mask="clip.mp4")), 4, "clip.mp4")
    Path("a.json").write_text("{}")
    for clip in ("first.png", "a.json"):
        changed = f"clip.mp4 and {clip} have changed places: the video is the clip"
        refused(vostrack(*segment(mask="clip.mp4", clip=clip)), 4, changed)
        refused(vostrack("mask", "check", "clip.mp4", clip), 4, changed)
    assert not list(Path().glob("*_vostrack"))


def test_a_mask_without_a_background(vostrack: Run) -> None:
    colors = np.where(truth()[..., None] > 0, [253, 231, 36], [68, 1, 84]).astype(np.uint8)
    Image.fromarray(colors).save("map.png")
    use = "if that is the background, use --background 68,1,84, if it is an object, --no-background"
    refused(vostrack(*segment(mask="map.png")), 4, "map.png has no background: (68, 1, 84) covers", use)
    refused(vostrack(*segment("--background", "blueish", mask="map.png")), 2, "--background: expected a colour such as")
    assert not list(Path().glob("*_vostrack"))
    for color in ("68,1,84", "440154"):
        assert vostrack(*segment("--background", color, "--overwrite", mask="map.png"))[0] == 0
        assert json.loads(Path("clip_vostrack/summary.json").read_text())["reading"]["background"] == [68, 1, 84]
        with Image.open("clip_vostrack/masks/00000.png") as first:
            np.testing.assert_array_equal(np.asarray(first), truth() > 0)
    Image.fromarray(truth() == 0).save("inverted.png")
    refused(vostrack(*segment("--overwrite", mask="inverted.png")), 4, "if that is the background, use --invert-mask")
    assert vostrack(*segment("--overwrite", "--invert-mask", mask="inverted.png"))[0] == 0
    with Image.open("clip_vostrack/masks/00000.png") as first:
        np.testing.assert_array_equal(np.asarray(first), truth() > 0)


def test_names_and_values_that_do_not_exist(vostrack: Run) -> None:
    refused(vostrack(*segment(method="fakes")), 2, "unknown method 'fakes'; did you mean 'fake'?")
    refused(vostrack(*segment("--preset", "slo")), 2, "did you mean 'slow'?")
    refused(vostrack(*segment("--set", "step=3")), 2, "did you mean 'steps'?")
    refused(vostrack(*segment("--set", "steps=many")), 2, "must be a whole number (at least 1), not 'many'")
    refused(vostrack(*segment("--set", "steps")), 2, "expected KEY=VALUE, not 'steps'")
    refused(vostrack(*segment("--device", "gpu")), 2, "unknown device 'gpu'", "cuda")
    refused(vostrack(*segment("--weights", "fake-2")), 8, "did you mean 'fake-1'?")
    assert not list(Path().glob("*_vostrack"))


def test_a_method_without_a_network_wants_no_weights(vostrack: Run) -> None:
    refused(vostrack(*segment("--weights", "random", method="copy")), 2, "copy has no network: leave --weights out")
    assert vostrack(*segment(method="copy"))[0] == 0


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).nets])
def test_a_method_without_weights(vostrack: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr("vostrack.weights.search_path", lambda: [tmp_path / "weights", tmp_path / "none"])
    refused(vostrack(*segment(method=name)), 8, f"no weights for method '{name}'", "--weights")


def test_weights_of_another_method(vostrack: Run, tmp_path: Path) -> None:
    path = write_weights(tmp_path / "others", method="anchors")
    refused(vostrack(*segment("--weights", str(path))), 8, "holds weights for 'anchors', not for 'fake'")


def test_an_output_folder_that_cannot_be_written(vostrack: Run) -> None:
    Path("file").write_text("")
    refused(vostrack(*segment("-o", "file")), 6, "file")
    refused(vostrack(*segment("-o", "file/out")), 6, "file/out")
    refused(vostrack(*segment("-o", ".")), 6, "lies in the output folder")
    refused(vostrack(*segment("-o", "x" * 300)), 6, "too long")
    assert Path("file").read_text() == ""


def test_a_full_disk(vostrack: Run, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(190 << 10))
    write_video(Path("noise.mp4"), noise(30, (48, 64)), options={"crf": "18"})
    refused(vostrack(*segment("-o", str(small_disk / "out"), clip="noise.mp4")), 6, "the disk is full", "bytes free")
    assert not list(small_disk.rglob("*.part"))
    assert not list(small_disk.rglob("overlay.mp4"))


def test_a_disk_that_is_read_only(vostrack: Run, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(vostrack(*segment("-o", str(small_disk / "other"))), 6, "read-only")


def test_options_that_are_missing_or_malformed_are_errors_of_usage(vostrack: Run) -> None:
    for arguments, words in (
        (
            ["segment", "clip.mp4"],
            "error: missing option '--mask' / '-m'; to make one, save a frame with `vostrack frame`",
        ),
        (["segment", "clip.mp4", "first.png"], "missing option '--mask' / '-m'; did you mean --mask first.png?"),
        (["segment", "clip.mp4", "first.png", "--size", "240"], "; did you mean --mask first.png?"),
        (["segment"], "error: missing argument"),
        (segment("--size", "15"), "from 16 to 8192, or full"),
        (segment("--size", "²"), "from 16 to 8192, or full"),
        (segment("--nothing"), "error: no such option"),
        (segment("--direction", "fwd"), "error: invalid value for '--direction': 'fwd' is not one of"),
        (["segment", "--size"], "error: option '--size' requires an argument"),
    ):
        code, printed, said = vostrack(*arguments)
        refused((code, printed, said), 2, words, "(see `vostrack")


def test_debug_shows_the_traceback_wherever_it_stands(vostrack: Run) -> None:
    for arguments in (["--debug", *segment(clip="none.mp4")], segment("--debug", clip="none.mp4")):
        with pytest.raises(Exception, match=r"none\.mp4"):
            vostrack(*arguments)
    code, _, said = vostrack("--debug", "segment", "clip.mp4")
    assert code == 2, "how a command is used needs no traceback"
    assert said.startswith("error: missing option '--mask'")


def test_debug_ends_a_process_with_a_traceback(tmp_path: Path) -> None:
    code, printed, said = finish(start(["--debug", *segment(clip="none.mp4")], tmp_path / "log"), tmp_path / "log")
    assert (code, printed) == (1, "")
    assert "Traceback" in said
    assert "InputError" in said


# The terminal.


class Terminal:
    """A progress bar as on a terminal, with what it drew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.path = tmp_path / "drawn"
        file = self.path.open("w", encoding="utf-8")
        plain = Console
        monkeypatch.setattr(console, "Console", lambda stderr: plain(file=file, force_terminal=True, width=100))
        self.file = file

    def drawn(self) -> str:
        self.file.close()
        return self.path.read_text()


def test_progress_is_drawn_on_a_terminal_only(vostrack: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("[bold]x.mp4").write_bytes(Path("clip.mp4").read_bytes())
    terminal = Terminal(monkeypatch, tmp_path)
    assert vostrack(*segment(clip="[bold]x.mp4"))[0] == 0
    drawn = terminal.drawn()
    assert "[bold]x.mp4" in drawn
    assert "4/4" in drawn


def test_quiet_draws_nothing(vostrack: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = Terminal(monkeypatch, tmp_path)
    assert vostrack(*segment("-q"))[0] == 0
    assert terminal.drawn() == ""
