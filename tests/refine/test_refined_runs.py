"""Refinement from end to end: `segment`, its command, and resuming."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.fakes import IDS, SIZE, FakeMethod, fake_method, finish, held, start, truth, write_clip, write_mask
from tests.refine.scenes import needs_package
from tests.runs import Stop, StopAfter, labels, results, until
from vostrack import cli
from vostrack.errors import MethodError, OutputError, VostrackError
from vostrack.ops.eight_bits import from_codes, to_codes
from vostrack.ops.labels import one_hot
from vostrack.run import passes
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment
from vostrack.video.reader import open_clip

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 10


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write_mask(tmp_path / "first.png")


def run(clip: Path, masks: Any, out: Path, callbacks: Callbacks | None = None, **settings: Any) -> dict[str, Any]:
    return segment(
        clip, masks, out, callbacks=callbacks, **{"method": "fake", "refine": "crf", "direction": "forward"} | settings
    )


run_refined = run


def refined(plain: np.ndarray) -> np.ndarray:
    """What the fake package makes of a mask: it takes the channels the other way round."""
    return np.where(plain == 0, 200, np.where(plain == 200, 0, plain)).astype(np.uint8)


# What a run writes.


@pytest.mark.usefixtures("fake_crf")
def test_masks_are_refined_but_for_given_ones_and_the_method_never_sees_them(
    clip: Path, mask: Path, tmp_path: Path
) -> None:
    late = write_mask(tmp_path / "late.png", truth(4))
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(clip, {0: mask, 4: late}, plain, refine=None)
    summary = run(clip, {0: mask, 4: late}, out, outputs=("objects", "overlay"))
    for index in range(COUNT):
        before = labels(plain, index)
        assert np.array_equal(labels(out, index), before if index in (0, 4) else refined(before))
        single = out / "objects" / "200" / f"{index:05d}.png"
        assert single.exists()
    areas = [int((labels(out, index) == 200).sum()) for index in range(COUNT)]
    assert summary["objects"]["200"]["largest_area"] == max(areas) > SIZE[0] * SIZE[1] / 2
    assert (out / "overlay.mp4").read_bytes() != (plain / "overlay.mp4").read_bytes()


@pytest.mark.usefixtures("fake_crf")
def test_with_feedback_each_frame_is_refined_once_and_the_method_goes_on_with_it(
    clip: Path, mask: Path, tmp_path: Path
) -> None:
    plain, out, twin = tmp_path / "plain", tmp_path / "out", fake_method()
    run(clip, mask, plain)
    summary = run(clip, mask, out, refine_settings={"feedback": True}, outputs=("masks", "probs"))
    assert np.array_equal(labels(out, 1), labels(plain, 1))
    assert not np.array_equal(labels(out, COUNT - 1), labels(plain, COUNT - 1))
    assert summary["refine"]["feedback"] is True
    assert summary["seconds_per_frame"]["refine"] > 0
    with open_clip(clip) as frames, torch.no_grad():
        images = [frame.image.float() / 255 for frame in frames]
    state = twin.begin(twin.encode(images[0]), one_hot(torch.from_numpy(truth()), IDS))
    for index, image in enumerate(images[1:], 1):
        features = twin.encode(image)
        cells = from_codes(to_codes(twin.predict(state, features)))
        pixels = twin.enlarge(cells, image).clamp(min=1e-5).flip(0)  # what the fake package makes of them
        pixels = pixels / pixels.sum(0)
        assert np.array_equal(np.array([0, *IDS])[pixels.argmax(0)], labels(out, index))
        fed = F.avg_pool2d(pixels[None], 4)[0]
        fed = torch.where(fed.argmax(0) == cells.argmax(0), cells, fed)
        state = twin.remember(state, features, from_codes(to_codes(fed)))


@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_with_feedback_all_probabilities_have_one_size(clip: Path, mask: Path, tmp_path: Path, direction: str) -> None:
    late = write_mask(tmp_path / "late.png", truth(5))
    options: dict[str, Any] = {"direction": direction, "outputs": ("masks", "probs")}
    run(clip, {2: mask, 5: late}, tmp_path / "out", refine_settings={"feedback": True}, size=24, **options)
    files = sorted((tmp_path / "out" / "probs").iterdir())
    assert [np.load(path)["probs"].shape[1:] for path in files] == [SIZE] * COUNT


@pytest.mark.usefixtures("fake_crf")
def test_feedback_needs_a_method_that_can_and_no_adaptation(
    clip: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = {"feedback": True}
    with pytest.raises(MethodError, match="feedback and an adaptation exclude each other"):
        run(clip, mask, tmp_path / "out", refine_settings=feedback, adapt="live")
    monkeypatch.delattr(FakeMethod, "shrink")
    with pytest.raises(MethodError, match="fake has no `shrink` and cannot go on with refined masks"):
        run(clip, mask, tmp_path / "out", refine_settings=feedback)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fake_crf")
def test_frames_before_the_first_mask_stay_empty(clip: Path, tmp_path: Path) -> None:
    late = write_mask(tmp_path / "late.png", truth(4))
    run(clip, {4: late}, tmp_path / "out")
    assert not any(labels(tmp_path / "out", index).any() for index in range(4))
    assert np.array_equal(labels(tmp_path / "out", 4), truth(4))


@pytest.mark.usefixtures("fake_crf")
def test_probabilities_that_are_written_are_the_refined_ones(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, mask, out, outputs=("probs",), size=24)
    for index in range(COUNT):
        with np.load(out / "probs" / f"{index:05d}.npz") as file:
            probs, ids = file["probs"], file["ids"]
        assert probs.shape == (3, *SIZE), "they are refined at the size of the source"
        if index:
            assert np.array_equal(np.array([0, *ids])[probs.argmax(0)], labels(out, index))
    run(clip, mask, tmp_path / "bare", size=24)
    assert not (tmp_path / "bare" / "probs").exists()


@pytest.mark.usefixtures("fake_crf")
def test_the_summary_says_how_it_was_refined(clip: Path, mask: Path, tmp_path: Path) -> None:
    summary = run(clip, mask, tmp_path / "out", refine_settings={"iterations": 7})
    assert summary["refine"]["name"] == "crf"
    assert summary["refine"]["iterations"] == 7
    assert summary["refine"]["bilateral_sxy"] == 40
    assert summary["seconds_per_frame"]["refine"] > 0
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())


@needs_package
def test_noise_at_the_edges_goes(clip: Path, mask: Path, tmp_path: Path) -> None:
    def overlap(folder: Path) -> float:
        found = [(labels(folder, i) == number, truth(i) == number) for i in range(1, COUNT) for number in IDS]
        return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in found]))

    run(clip, mask, tmp_path / "plain", refine=None)
    run(clip, mask, tmp_path / "out")
    assert overlap(tmp_path / "out") > overlap(tmp_path / "plain") + 0.02
    assert overlap(tmp_path / "out") > 0.9


# Runs that break off.


@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize(("seconds", "feedback"), [(0.0, False), (20.0, False), (0.0, True)])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    clip: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, feedback: bool
) -> None:
    run = partial(run_refined, refine_settings={"feedback": feedback})
    monkeypatch.setattr(passes, "SAVE_SECONDS", seconds)
    outputs = ("masks", "overlay", "objects", "probs")
    late = write_mask(tmp_path / "late.png", np.where(truth(5) == 3, 7, 0).astype(np.uint8))
    masks = {0: mask, 5: late}
    plain, out = tmp_path / "plain", tmp_path / "out"
    expected = run(clip, masks, plain, outputs=outputs)
    for count in (1, 4, 2, 6, COUNT):
        with pytest.raises(Stop):
            run(clip, masks, out, StopAfter(count), outputs=outputs, resume=True)
        assert (out / ".vostrack" / "state.safetensors").exists()
        assert len(list((out / "masks").iterdir())) >= count
    summary = run(clip, masks, out, outputs=outputs, resume=True)
    assert results(out) == results(plain)
    assert summary["objects"] == expected["objects"]


def test_resuming_with_another_refinement_is_refused(clip: Path, mask: Path, tmp_path: Path, fake_crf: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(clip, mask, out, StopAfter(3))
    for changes in ({"refine": None}, {"refine_settings": {"iterations": 3}}, {"refine_settings": {"feedback": True}}):
        with pytest.raises(OutputError, match=r"this changed: refine\b"):
            run(clip, mask, out, resume=True, **changes)
    assert run(clip, mask, out, resume=True)["frames"] == COUNT


@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize(("order", "words"), [("fail", r"crf failed \(wrong\)"), ("die", "ended with code -9")])
def test_a_refinement_that_fails_stops_the_run(
    clip: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_CRF", order)
    out = tmp_path / "out"
    with pytest.raises(VostrackError, match=words):
        run(clip, mask, out)
    assert not (out / "summary.json").exists()
    assert not (out / "overlay.mp4").exists()
    assert not list(out.rglob("*.part"))
    monkeypatch.delenv("FAKE_CRF")
    assert run(clip, mask, out, resume=True)["frames"] == COUNT


def test_a_missing_package_stops_before_anything_is_written(
    clip: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(VostrackError, match=r"pip install 'vostrack\[crf\]'"):
        run(clip, mask, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def processes(mark: str) -> list[int]:
    """Processes whose command line has a text in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_text(errors="replace") and int(path.parts[2]) != os.getpid():
                found.append(int(path.parts[2]))
        except OSError:
            continue
    return found


@pytest.mark.slow
@needs_package
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="NO /proc on this machine")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_or_killed_leaves_no_process_and_can_go_on(
    mask: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    clip, out = write_clip(tmp_path / "long.mp4", 20), tmp_path / "out"
    mark = str(float(f"41.{os.getpid()}"))  # a width that no other process has, as it is written: without last zeros
    given = ["segment", clip, "-m", mask, "--method", "fake", "--refine", "crf", "--refine-set"]
    command = [*given, f"bilateral-sxy={mark}", "--no-overlay"]
    process = start([*command, "-o", out], tmp_path / "log", hold=10, save_seconds=0)
    assert held(process, tmp_path / "log")
    assert processes(f'"bilateral_sxy": {mark}')
    assert process.pid
    os.kill(process.pid, number)
    ended, printed, said = finish(process, tmp_path / "log")
    assert (ended, printed) == (code, "")
    assert "Traceback" not in said
    assert until(lambda: not processes(f'"bilateral_sxy": {mark}'))
    assert 4 < len(list(out.glob("masks/*.png"))) < 20
    for arguments in ([*command, "-o", out, "--resume"], [*command, "-o", tmp_path / "plain"]):
        assert finish(start(arguments, tmp_path / "log"), tmp_path / "log")[0] == 0
    assert results(out) == results(tmp_path / "plain")


# Python and the command line.


@pytest.mark.usefixtures("fake_crf")
def test_the_example_of_the_page_runs(
    clip: Path, mask: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "refinement.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(clip.parent)
    clip.rename("dog.mp4")
    exec(compile(example.replace("anchors", "fake"), "refinement.md", "exec"), {})  # noqa: S102
    counts = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(counts) == COUNT
    assert counts[0] == (truth() > 0).sum() < min(counts[1:])


@pytest.mark.usefixtures("fake_crf")
def test_the_command_takes_refinements(
    clip: Path, mask: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["segment", str(clip), "-m", str(mask), "--method", "fake", "-o", str(tmp_path / "out")]
    assert cli.run([*command, "--refine", "crf", "--refine-set", "gaussian-sxy=2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["refine"]["gaussian_sxy"] == 2
    assert cli.run([*command, "--refine", "crf", "--refine-feedback", "--overwrite", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["refine"]["feedback"] is True
    assert cli.run([*command, "--refine", "crf", "--overwrite"]) == 0
    assert ", refine 0." in capfd.readouterr().err
    for arguments, code, words in (
        (["--refine", "crv"], 2, "did you mean 'crf'?"),
        (["--refine", "crf", "--refine-set", "x=1"], 2, "unknown setting of crf 'x'"),
        (["--refine-feedback"], 2, "there is no refinement to set feedback of"),
        (["--refine-set", "iterations=1"], 2, "there is no refinement to set iterations of"),
        (["--refine", "crf", "--refine-set", "iterations"], 2, "--refine-set"),
    ):
        assert cli.run([*command, "--overwrite", *arguments]) == code
        assert words in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    assert cli.run([*command, "--refine", "crf", "--overwrite"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: the refinement crf needs pydensecrf2")
    assert line.endswith("pip install 'vostrack[crf]'")
