"""Online adaptation from end to end: `segment`, its command, and runs that break off in any phase."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.adapt.clips import SMALL
from tests.fakes import finish, held, pictures, read_labels, start, truth, write_clip, write_mask
from tests.runs import Stop, labels, results
from vostrack import Clip, Propagator, cli, load_method, open_clip, read_mask
from vostrack.adapt.adaptation import Adaptation
from vostrack.adapt.config import AdaptConfig
from vostrack.adapt.model import AppearanceModel
from vostrack.errors import MethodError, OutputError, OutputExistsError
from vostrack.ops.grid import resize
from vostrack.run import passes
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method", "small_adaptation")
COUNT = 7
STEPS = SMALL["iterations"]
OPTIONS = dict(SMALL)
ALL = ("masks", "overlay", "objects", "probs")
KEPT = {"run.json", "frames.jsonl", "request.json", "given", "cells", "signs.jsonl"}
PHASES = ("following", "training", "segmenting")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def masks(tmp_path: Path) -> dict[int, Path]:
    """The first mask has both objects, and the one of frame 4 another object in the place of the first."""
    late = write_mask(tmp_path / "late.png", np.where(truth(4) == 3, 7, 0).astype(np.uint8))
    return {0: write_mask(tmp_path / "first.png"), 4: late}


class Watch(Callbacks):
    """Notes phases and counts, and raises at one of them, if so told."""

    def __init__(self, at: tuple[str, int] | None = None) -> None:
        self.at, self.entered, self.seen = at, "", dict[str, list[tuple[int, int | None]]]()

    def phase(self, name: str) -> None:
        self.entered = name
        assert name not in self.seen
        self.seen[name] = []

    def progress(self, done: int, total: int | None) -> None:
        self.seen.setdefault(self.entered, []).append((done, total))
        if (self.entered, done) == self.at:
            raise Stop


def run(
    clip: Path, masks: Any, out: Path, adapt: str | None = "clip", watch: Watch | None = None, **settings: Any
) -> dict[str, Any]:
    watch = watch or Watch()
    given: dict[str, Any] = {"method": "fake", "adapt": adapt, "adapt_settings": OPTIONS if adapt else {}}
    return segment(clip, masks, out, callbacks=watch, **{"direction": "forward"} | given | settings)


def hidden(out: Path) -> set[str]:
    return {path.name for path in (out / ".vostrack").iterdir()}


def probabilities(out: Path, index: int) -> torch.Tensor:
    with np.load(out / "probs" / f"{index:05d}.npz") as file:
        return torch.from_numpy(file["probs"].astype(np.float32))


# What a run writes.


@pytest.mark.parametrize("form", ["clip", "live"])
def test_masks_are_those_of_the_adaptation(form: str, clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    summary = run(clip, masks, tmp_path / "out", form)
    prompts = {0: read_mask(masks[0], (48, 64)).labels, 4: read_mask(masks[4], (48, 64)).labels}
    adaptation = Adaptation(prompts, AdaptConfig(**SMALL))
    with open_clip(clip) as frames:
        predictions = Propagator(load_method("fake")[0]).run(Clip(frames, prompts))
        found = [(adaptation.live if form == "live" else adaptation.watch)(p) for p in predictions]
    if form == "clip":
        assert len(list(adaptation.train())) == STEPS
        found = [adaptation.apply(p.frame) for p in found]
    for index, prediction in enumerate(found):
        assert np.array_equal(labels(tmp_path / "out", index), prediction.labels.pixels.numpy()), index
    assert summary["adapt"].items() >= {"form": form, **SMALL, "learning_rate": 2e-4}.items()
    assert summary["seconds_per_frame"]["adapt"] > 0
    assert summary["objects"]["7"]["first_frame"] == 4
    assert hidden(tmp_path / "out") == KEPT
    run(clip, masks, tmp_path / "plain", None)
    assert results(tmp_path / "plain") != results(tmp_path / "out")


def test_two_passes_say_where_they_are(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    watch = Watch()
    run(clip, masks, tmp_path / "out", watch=watch)
    assert list(watch.seen) == list(PHASES)
    for phase, count in zip(PHASES, (COUNT, STEPS, COUNT), strict=True):
        assert [done for done, _ in watch.seen[phase]] == list(range(1, count + 1))
    assert {total for _, total in watch.seen["training"]} == {STEPS}
    live = Watch()
    run(clip, masks, tmp_path / "live", "live", live)
    assert list(live.seen) == [""]


@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize("form", ["clip", "live"])
def test_what_is_adapted_is_refined_behind_that(form: str, clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    run(clip, masks, plain, form, outputs=("probs",), size=24)
    summary = run(clip, masks, out, form, outputs=("probs",), size=24, refine="crf")
    assert summary["seconds_per_frame"]["refine"] > 0
    for index in range(COUNT):
        before, after = probabilities(plain, index), probabilities(out, index)
        assert before.shape == (3 + (index >= 4), 24, 32), "adapted ones have the working resolution"
        assert torch.allclose(before.sum(0), torch.ones(24, 32), atol=1e-2)
        before = resize(before[None], (48, 64), antialias=True)[0]
        # The fake refinement takes the channels the other way round, but for frames with a given mask.
        assert torch.allclose(after, before if index in (0, 4) else before.flip(0), atol=1e-2)
        if index not in (0, 4):
            ids = torch.tensor([0, 3, 200, 7][: len(after)])
            assert np.mean(ids[after.argmax(0)].numpy() == labels(out, index)) > 0.99, "but for float16"


@pytest.mark.parametrize("form", ["clip", "live"])
def test_a_clip_of_one_frame(form: str, masks: dict[int, Path], tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    Image.fromarray(pictures(1)[0]).save(folder / "only.png")
    assert run(folder, masks[0], tmp_path / "out", form)["frames"] == 1
    assert np.array_equal(read_labels(tmp_path / "out" / "masks" / "only.png"), truth())


@pytest.mark.parametrize("form", ["clip", "live"])
def test_frames_before_the_first_mask_stay_empty(form: str, clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    run(clip, {4: masks[4]}, tmp_path / "out", form, outputs=("probs",))
    assert not any(labels(tmp_path / "out", index).any() for index in range(4))
    assert np.array_equal(labels(tmp_path / "out", 4) > 0, truth(4) == 3)


def test_a_live_adaptation_that_the_clip_is_too_short_for_says_so(
    clip: Path, masks: dict[int, Path], tmp_path: Path
) -> None:
    options = {**OPTIONS, "live_warm_up": 8, "live_steps": 1}
    summary = run(clip, masks[0], tmp_path / "out", "live", adapt_settings=options)
    run(clip, masks[0], tmp_path / "plain", None)
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    text = "the adaptation had no effect: 5 of 8 steps to warm up were done"
    assert {"code": "adapt-idle", "text": text} in summary["warnings"]
    text = "4 steps of adaptation are few and can make masks worse: 100 or more are advised"
    assert {"code": "adapt-short", "text": text} in run(clip, masks, tmp_path / "two")["warnings"]


def test_settings_that_go_with_no_adaptation_are_refused(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    for settings, words in (
        ({"adapt": "life"}, "did you mean 'live'"),
        ({"adapt": None, "adapt_settings": OPTIONS}, "no adaptation was chosen for size, "),
        ({"adapt": None, "adapt_preset": "paper"}, "no adaptation was chosen for the preset paper"),
        ({"adapt_preset": "papers"}, "unknown preset of the adaptation 'papers'; did you mean 'paper'"),
        ({"adapt_settings": {"steps": 1}}, "unknown setting of adaptation 'steps'"),
        ({"adapt_settings": {"size": 1}}, "size must be from 64 to 2048, not 1"),
    ):
        with pytest.raises(MethodError, match=re.escape(words)):
            run(clip, masks, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


# Runs that break off.


@pytest.mark.slow
@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize("seconds", [0.0, 20.0])
@pytest.mark.parametrize("form", ["clip", "live"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    form: str, clip: Path, masks: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", seconds)
    plain, out = tmp_path / "plain", tmp_path / "out"
    settings: dict[str, Any] = {"outputs": ALL, "refine": "crf"}
    expected = run(clip, masks, plain, form, **settings)
    stops = [("", 1), ("resuming", 1), ("segmenting", 6)]
    if form == "clip":
        stops = [(phase, count) for phase, end in zip(PHASES, (COUNT, STEPS, COUNT), strict=True) for count in (1, end)]
        stops.insert(3, ("training", 2))
    for at in stops:
        with pytest.raises(Stop):
            run(clip, masks, out, form, Watch(at), **settings, resume=True)
        assert (out / ".vostrack" / "state.safetensors").exists()
        assert (out / "masks").exists() == (at[0] in ("", "resuming", "segmenting"))
        if not (out / "masks").exists():
            with pytest.raises(OutputExistsError, match="holds an unfinished run already"):
                run(clip, masks, out, form, **settings)
    last = Watch()
    summary = run(clip, masks, out, form, last, **settings, resume=True)
    assert list(last.seen) == ["resuming", "segmenting"]
    assert results(out) == results(plain)
    assert summary["objects"] == expected["objects"]
    assert hidden(out) == hidden(plain) == KEPT


def test_a_folder_of_images_goes_on_as_well(masks: dict[int, Path], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, picture in enumerate(pictures(COUNT)):
        Image.fromarray(picture).save(folder / f"f{index}.png")
    run(folder, masks, tmp_path / "plain")
    for at in (("following", 5), ("training", 3), ("segmenting", 5)):
        with pytest.raises(Stop):
            run(folder, masks, tmp_path / "out", watch=Watch(at), resume=True)
    run(folder, masks, tmp_path / "out", resume=True)
    assert results(tmp_path / "out") == results(tmp_path / "plain")


@pytest.mark.parametrize("seconds", [0.0, pytest.param(20.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("owner", "name", "phase"),
    [
        (Adaptation, "watch", "following"),
        (AppearanceModel, "step", "training"),
        (Adaptation, "apply", "segmenting"),
        (Adaptation, "live", ""),
    ],
)
def test_what_breaks_without_a_warning_is_done_again_from_the_last_save(
    clip: Path,
    masks: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    owner: Any,
    name: str,
    phase: str,
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", seconds)
    form = "clip" if phase else "live"
    run(clip, masks, tmp_path / "plain", form)
    whole, calls = getattr(owner, name), 0

    def breaks(*arguments: Any) -> Any:
        nonlocal calls
        result = whole(*arguments)
        calls += 1
        if calls == 3:
            raise Stop  # as by a second Ctrl-C: what is half done must not be saved
        return result

    monkeypatch.setattr(owner, name, breaks)
    with pytest.raises(Stop):
        run(clip, masks, tmp_path / "out", form)
    monkeypatch.setattr(owner, name, whole)
    watch = Watch()
    run(clip, masks, tmp_path / "out", form, watch, resume=True)
    if phase == "training":  # the end of the first pass was saved in any case, and the steps were with no seconds
        assert watch.seen[phase][0][0] == (1 if seconds else 3)
    elif phase == "segmenting":
        assert list(watch.seen) == [phase] if seconds else ["resuming", phase]
    assert results(tmp_path / "out") == results(tmp_path / "plain")


def test_other_settings_cannot_go_on(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(clip, masks, out, watch=Watch(("training", 2)))
    for changes in ({"adapt": "live"}, {"adapt_settings": {**OPTIONS, "seed": 1}}, {"adapt_preset": "paper"}):
        with pytest.raises(OutputError, match=r"this changed: adapt\b"):
            run(clip, masks, out, resume=True, **changes)
    with pytest.raises(OutputError, match=r"this changed: adapt\b"):
        run(clip, masks, out, None, resume=True)
    assert run(clip, masks, out, None, overwrite=True)["adapt"] is None
    assert hidden(out) == KEPT


@pytest.mark.parametrize("text", ["", "[]", '{"next_frame": true}', '{"next_frame": -1}', "\udcff"])
def test_a_damaged_note_of_the_second_pass_is_refused(
    clip: Path, masks: dict[int, Path], tmp_path: Path, text: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(clip, masks, out, watch=Watch(("segmenting", 2)))
    (out / ".vostrack" / "second_pass.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(OutputError, match=r"second_pass.json is damaged .*`overwrite=True`"):
        run(clip, masks, out, resume=True)


def test_state_that_a_kill_left_behind_a_complete_run_goes(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, masks, out)
    (out / ".vostrack" / "state.safetensors").write_bytes(b"large")
    run(clip, masks, out, resume=True)
    assert hidden(out) == KEPT


COMMAND = ["--method", "fake", "--no-overlay"]


@pytest.mark.slow
def test_a_process_that_is_stopped_in_the_training_can_go_on(masks: dict[int, Path], tmp_path: Path) -> None:
    clip, out, log = write_clip(tmp_path / "long.mp4", 12), tmp_path / "out", tmp_path / "log"
    sets = [text for key, value in OPTIONS.items() for text in ("--adapt-set", f"{key}={value}")]
    command: list[Any] = ["segment", clip, "-m", masks[0], *COMMAND, "--adapt", *sets]
    process = start([*command, "-o", out], log, hold_step=3, small=True, save_seconds=0)
    assert held(process, log)
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    ended, _, said = finish(process, log)
    assert (ended, "Traceback" in said) == (130, False)
    assert "stopping after this step" in said
    assert "go on with the same command and --resume" in said
    assert not (out / "masks").exists()
    for arguments in ([*command, "-o", out, "--resume"], [*command, "-o", tmp_path / "plain"]):
        ended, _, said = finish(start(arguments, log, small=True), log)
        assert (ended, "Traceback" in said) == (0, False)
    assert results(out) == results(tmp_path / "plain")
    assert len(results(out)) == 13
    assert hidden(out) == KEPT


# The command line.


def test_the_command_takes_adaptations(
    clip: Path, masks: dict[int, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["segment", str(clip), "-m", str(masks[0]), *COMMAND, "-o", str(tmp_path / "out"), "--overwrite"]
    small = [text for key, value in OPTIONS.items() for text in ("--adapt-set", f"{key.replace('_', '-')}={value}")]
    assert cli.run([*command, "--adapt", *small, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["adapt"]["form"] == "clip"
    assert cli.run([*command, "--adapt-live", "--adapt-preset", "paper", *small]) == 0
    assert ", adapt 0." in capfd.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["adapt"]["capacity"] == 128
    assert cli.run(command) == 0
    assert ", adapt 0." not in capfd.readouterr().err
    for arguments, words in (
        (["--adapt", "--adapt-live"], "exclude each other"),
        (["--adapt-set", "size=64"], "it needs --adapt or --adapt-live"),
        (["--adapt-preset", "paper"], "it needs --adapt or --adapt-live"),
        (["--adapt", "--adapt-preset", "papr"], "did you mean 'paper'"),
        (["--adapt", "--adapt-set", "size"], "--adapt-set"),
        (["--adapt", "--adapt-set", "x=1"], "unknown setting of adaptation 'x'"),
    ):
        assert cli.run([*command, *arguments]) == 2
        assert words in capfd.readouterr().err
