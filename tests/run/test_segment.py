from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests import steps
from tests.fakes import (
    IDS,
    SIZE,
    corners,
    finish,
    pictures,
    read_labels,
    start,
    truth,
    write_clip,
    write_mask,
)
from tests.runs import Stop, StopAfter, results
from tests.video.media import noise, read, write_video
from vostrack.device import choose_device
from vostrack.errors import InputError, MaskError, OutputError, OutputExistsError, VostrackError
from vostrack.files import write_bytes
from vostrack.methods import METHODS
from vostrack.notes import Note, by_severity
from vostrack.run.callbacks import Callbacks
from vostrack.run.pipeline import changes
from vostrack.run.place import default_folder
from vostrack.run.segment import segment
from vostrack.video import writer

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 12
LONG = 30
BESIDE = {"overlay.mp4", "summary.json", "confidence.csv"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write_mask(tmp_path / "first.png")


def run(clip: Path, mask: Any, out: Path | None = None, **settings: Any) -> dict[str, Any]:
    return segment(clip, mask, out, method="fake", **settings)


def tree(folder: Path, *, summary: bool = False) -> dict[str, bytes]:
    """All files below a folder, by path; the summary holds times and differs from run to run."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if summary or name != "summary.json"}


def shown(folder: Path) -> set[str]:
    return {name for name in tree(folder, summary=True) if not name.startswith(".vostrack/")}


def whole(folder: Path) -> None:
    """Fail unless every result decodes and nothing partial is left."""
    assert not list(folder.rglob("*.part"))
    assert not (folder / ".vostrack.lock").exists()
    for path in folder.glob("masks/*.png"):
        assert read_labels(path).shape == SIZE
    if (folder / "overlay.mp4").exists():
        assert read(folder / "overlay.mp4")[1]


def interrupted(clip: Path, mask: Path, out: Path, count: int, **settings: Any) -> None:
    """A run that its caller stops after so many frames."""
    with pytest.raises(Stop):
        run(clip, mask, out, callbacks=StopAfter(count), **settings)
    assert not (out / "summary.json").exists()
    assert not (out / "overlay.mp4").exists()


# What a run writes.


def drawn(movie: Path) -> np.ndarray:
    with av.open(str(movie)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.int16)


def test_a_video_gets_a_mask_for_each_frame_an_overlay_and_a_summary(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int | None]] = []
    watch = Callbacks()
    watch.progress = lambda done, total: seen.append((done, total))  # type: ignore[method-assign]
    summary = run(clip, mask, out, callbacks=watch)
    assert shown(out) == {f"masks/{index:05d}.png" for index in range(COUNT)} | BESIDE
    assert np.array_equal(read_labels(out / "masks" / "00000.png"), truth())
    last = read_labels(out / "masks" / f"{COUNT - 1:05d}.png")
    for object_id in IDS:
        true = truth(COUNT - 1) == object_id
        assert ((last == object_id) & true).sum() / ((last == object_id) | true).sum() > 0.7
    movie, frames = read(out / "overlay.mp4")
    assert (movie.size, len(frames)) == (SIZE, COUNT)
    assert [done for done, _ in seen] == list(range(1, COUNT + 1))
    assert summary == json.loads((out / "summary.json").read_text())
    whole(out)


def test_the_summary_says_what_was_done(clip: Path, mask: Path, tmp_path: Path) -> None:
    summary = run(clip, mask, tmp_path / "out", settings={"rate": 0.2}, size=32)
    assert summary["frames"] == COUNT
    assert summary["frame_size"] == list(SIZE)
    assert summary["method"] == "fake"
    assert summary["config"] == {"rate": 0.2, "steps": 1, "soft": True, "scales": [1, 2]}
    assert summary["size"] == 32
    assert summary["weights"]["name"] == "fake-1"
    assert len(summary["weights"]["sha256"]) == 64
    assert set(summary["seconds_per_frame"]) == {"decode", "model", "adapt", "refine", "write", "total"}
    assert summary["seconds_per_frame"]["refine"] == 0
    assert summary["seconds_per_frame"]["adapt"] == 0
    assert (summary["adapt"], summary["refine"]) == (None, None)
    assert all(value >= 0 for value in summary["seconds_per_frame"].values())
    assert summary["seconds_per_frame"]["total"] >= summary["seconds_per_frame"]["model"]
    assert summary["peak_rss_mb"] > 20
    assert {"vostrack", "torch", "python", "device", "clip", "masks", "preset", "outputs"} <= set(summary)
    for object_id in IDS:
        found = summary["objects"][str(object_id)]
        assert (found["first_frame"], found["last_frame"]) == (0, COUNT - 1)
        assert 100 < found["smallest_area"] <= found["mean_area"] <= found["largest_area"] < 500
    assert (summary["warnings"], summary["notes"]) == ([], [])


def test_an_object_that_vanishes_is_in_the_summary(tmp_path: Path, mask: Path) -> None:
    images = pictures(COUNT)
    for index in range(7, COUNT):
        top, left = corners(index)[1]
        images[index][top : top + 16, left : left + 16] = 105
    clip = write_video(tmp_path / "clip.mp4", images, options={"crf": "12"})
    notes: list[Note] = []
    watch = Callbacks()
    watch.note = notes.append  # type: ignore[method-assign, assignment]
    summary = run(clip, mask, tmp_path / "out", callbacks=watch)
    assert {"code": "object-vanished", "text": "object 200 vanished at frame 7"} in summary["warnings"]
    assert {key: summary[key] for key in ("warnings", "notes")} == by_severity(notes)
    assert summary["objects"]["200"]["last_frame"] == 6


def test_a_folder_of_images_keeps_its_names(tmp_path: Path, mask: Path) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    for name, picture in zip(("x2", "x10", "x11 é"), pictures(3), strict=True):
        Image.fromarray(picture).save(source / f"{name}.png")
    before = tree(source)
    out = tmp_path / "out"
    summary = run(source, mask, out)
    assert shown(out) == {f"masks/{name}.png" for name in ("x2", "x10", "x11 é")} | BESIDE
    assert summary["frames"] == 3
    assert tree(source) == before


def test_other_outputs_are_written_when_they_are_asked_for(clip: Path, tmp_path: Path) -> None:
    late = write_mask(tmp_path / "late.png", truth(2))
    out = tmp_path / "out"
    run(clip, {2: late}, out, outputs=("objects", "probs"), direction="forward")
    assert not (out / "overlay.mp4").exists()
    assert len(list((out / "masks").iterdir())) == len(list((out / "probs").iterdir())) == COUNT
    assert {path.name for path in (out / "objects").iterdir()} == {"3", "200"}
    assert len(list((out / "objects" / "200").iterdir())) == COUNT - 2
    with np.load(out / "probs" / "00005.npz") as file:
        assert file["probs"].shape == (3, *SIZE)
        assert file["ids"].tolist() == list(IDS)
    with np.load(out / "probs" / "00000.npz") as file:
        assert file["probs"].shape == (1, *SIZE)


def test_results_lie_beside_the_clip_by_default(clip: Path, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    assert run(Path("clip.mp4"), mask)["frames"] == COUNT
    assert (clip.parent / "clip_vostrack" / "summary.json").is_file()
    frames = clip.parent / "a.frames"
    frames.mkdir()
    assert default_folder(frames) == clip.parent / "a.frames_vostrack"
    monkeypatch.chdir(frames)
    assert default_folder(Path()) == default_folder(Path("../a.frames")) == clip.parent / "a.frames_vostrack"


# What a run refuses.


def test_nothing_is_replaced_unless_it_is_asked_for(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, mask, out)
    before = tree(out, summary=True)
    with pytest.raises(OutputExistsError, match=r"holds masks already.*`resume=True`.*`overwrite=True`"):
        run(clip, mask, out)
    assert tree(out, summary=True) == before


@pytest.mark.parametrize("name", ["masks", "overlay.mp4", "summary.json", "confidence.csv"])
def test_results_of_others_are_not_replaced_unasked(clip: Path, mask: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks").rename(tmp_path / "out" / name)
    for resume in (False, True):
        with pytest.raises(OutputExistsError, match=f"holds {name} already"):
            run(clip, mask, tmp_path / "out", resume=resume)


def test_overwriting_clears_a_longer_run_but_no_files_of_others(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    theirs = {"masks/mine.png": b"1", "masks/00099.png": b"2", "notes.txt": b"3", "objects/3/x.txt": b"4"}
    run(clip, mask, out, outputs=("objects", "probs", "overlay"), overwrite=True)
    for name, data in theirs.items():
        (out / name).write_bytes(data)
    run(write_clip(tmp_path / "short.mp4", 4), mask, out, overwrite=True, outputs=("masks",))
    assert shown(out) == {f"masks/{index:05d}.png" for index in range(4)} | {"summary.json", "confidence.csv", *theirs}
    assert {name: (out / name).read_bytes() for name in theirs} == theirs


def test_an_overlay_of_somebody_else_survives_a_run_without_overlay(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, mask, out, outputs=("masks",))
    (out / "overlay.mp4").write_bytes(b"theirs")
    run(clip, mask, out, outputs=("masks",), overwrite=True)
    assert (out / "overlay.mp4").read_bytes() == b"theirs"


def test_inputs_inside_the_output_folder_are_refused(clip: Path, mask: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(pictures(1)[0]).save(frames / "a.png")
    for source, out in ((clip, tmp_path), (clip, tmp_path / "link"), (frames, frames), (frames, tmp_path)):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="lies in the output folder"):
                run(source, mask, out, overwrite=overwrite)
    (frames / "a.png").unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["matte.mov", "masks.PNG", "mask.tiff", "a.bmp", "a.webp", "clip.m4v", "result.zip"])
def test_results_go_to_a_folder_and_not_to_a_file(name: str, clip: Path, mask: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="looks like a file, and results are a folder"):
        run(clip, mask, tmp_path / name)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    run(clip, mask, tmp_path / name)


def test_a_link_in_the_output_folder_is_not_followed(clip: Path, mask: Path, tmp_path: Path) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "00000.png").write_bytes(b"theirs")
    run(clip, mask, out)
    shutil.rmtree(out / "masks")
    (out / "masks").symlink_to(theirs)
    with pytest.raises(OutputError, match="is a link"):
        run(clip, mask, out, overwrite=True)
    assert tree(theirs) == {"00000.png": b"theirs"}


def test_masks_that_do_not_fit_leave_nothing_behind(clip: Path, mask: Path, tmp_path: Path) -> None:
    wrong = write_mask(tmp_path / "wrong.png", truth()[:40])
    for masks, words in (
        ({}, "no mask was given"),
        (wrong, "64x40"),
        ({0: mask, COUNT: mask}, f"mask for frame {COUNT}, but the clip ends with frame {COUNT - 1}"),
        (tmp_path / "none.png", r"none\.png"),
    ):
        with pytest.raises(MaskError, match=words):
            run(clip, masks, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_outputs_and_devices_are_refused(clip: Path, mask: Path, tmp_path: Path) -> None:
    with pytest.raises(VostrackError, match="unknown output 'overly'; did you mean 'overlay'"):
        run(clip, mask, tmp_path / "out", outputs=("overly",))
    for name in ("gpu", "cuda:x", "cpu:", ""):
        with pytest.raises(VostrackError, match="unknown device"):
            choose_device(name)
    for name in ("cuda:99", "cpu:1"):
        with pytest.raises(VostrackError, match="not available on this machine"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}


# Runs that break off.


def test_an_interrupted_run_goes_on_to_the_same_bytes(clip: Path, mask: Path, tmp_path: Path) -> None:
    outputs = ("masks", "overlay", "objects", "probs")
    late = write_mask(tmp_path / "late.png", np.where(truth(5) == 3, 7, 0).astype(np.uint8))
    masks = {0: mask, 5: late}
    plain, out = tmp_path / "plain", tmp_path / "out"
    expected = run(clip, masks, plain, outputs=outputs)
    for count in (1, 4, 2, 6, COUNT):  # 2 is among the frames that were done before
        with pytest.raises(Stop):
            run(clip, masks, out, callbacks=StopAfter(count), outputs=outputs, resume=True)
        whole(out)
    summary = run(clip, masks, out, outputs=outputs, resume=True)
    assert results(out) == results(plain)
    assert not (out / ".vostrack" / "state.safetensors").exists()
    for key in ("objects", "frames", "warnings", "notes", "masks", "config"):
        assert summary[key] == expected[key]
    assert summary["seconds_per_frame"]["model"] < 1


def test_a_summary_of_warnings_without_codes_is_given_again(clip: Path, mask: Path, tmp_path: Path) -> None:
    run(clip, mask, tmp_path / "out")
    path = tmp_path / "out" / "summary.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("notes", "overlay")}
    path.write_text(json.dumps(old | {"warnings": ["object 1 vanished at frame 7"]}))
    assert run(clip, mask, tmp_path / "out", resume=True)["warnings"] == ["object 1 vanished at frame 7"]


def test_an_overlay_in_another_look_is_drawn_again_from_the_masks(clip: Path, mask: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"overlay_style": "outline", "overlay_labels": True}
    fresh = run(clip, mask, tmp_path / "fresh", **options)
    first = run(clip, mask, tmp_path / "out")
    with pytest.raises(Stop):
        run(clip, mask, tmp_path / "out", resume=True, callbacks=StopAfter(2), **options)
    assert run(clip, mask, tmp_path / "out", resume=True) == json.loads(json.dumps(first)), "it is as it was"
    again = run(clip, mask, tmp_path / "out", resume=True, **options)
    assert (first["overlay"], again["overlay"]) == ({"style": "tint", "labels": False}, fresh["overlay"])
    assert again["seconds_per_frame"] == first["seconds_per_frame"], "nothing was followed again"
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_an_interrupted_run_may_go_on_with_an_overlay_in_another_look(clip: Path, mask: Path, tmp_path: Path) -> None:
    fresh = run(clip, mask, tmp_path / "fresh", overlay_style="cutout")
    with pytest.raises(Stop):
        run(clip, mask, tmp_path / "out", callbacks=StopAfter(3))
    assert run(clip, mask, tmp_path / "out", resume=True, overlay_style="cutout")["overlay"] == fresh["overlay"]
    overlays = [(tmp_path / name / "overlay.mp4").read_bytes() for name in ("out", "fresh")]
    assert overlays[0] == overlays[1]


def test_a_wrong_look_is_refused_and_none_is_in_the_summary_of_no_overlay(
    clip: Path, mask: Path, tmp_path: Path
) -> None:
    with pytest.raises(VostrackError, match="did you mean 'outline'"):
        run(clip, mask, tmp_path / "out", overlay_style="outlines")
    with pytest.raises(VostrackError, match="overlay_labels must be True or False"):
        run(clip, mask, tmp_path / "out", overlay_labels=1)
    assert run(clip, mask, tmp_path / "out", outputs=["masks"], overlay_style="cutout")["overlay"] is None


def test_a_method_whose_state_cannot_be_saved_starts_anew_and_says_so(
    clip: Path, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, steps.NAME, steps.PATH)
    monkeypatch.setattr("vostrack.run.passes.SAVE_SECONDS", 0.0)
    plain, out = tmp_path / "plain", tmp_path / "out"
    masks = {2: mask}
    before = segment(clip, masks, plain, method=steps.NAME)["notes"]
    for count in (2, 6, 4):  # the first one before there is a mask, and a state
        with pytest.raises(Stop):
            segment(clip, masks, out, method=steps.NAME, resume=True, callbacks=StopAfter(count))
    summary = segment(clip, masks, out, method=steps.NAME, resume=True)
    assert results(out) == results(plain)
    anew = "steps cannot go on in the middle of a clip: it follows the clip anew"
    assert summary["notes"] == [*before, {"code": "run-anew", "text": anew}]
    assert segment(clip, masks, out, method=steps.NAME, resume=True) == json.loads(json.dumps(summary))


def test_resuming_a_complete_run_gives_its_summary(clip: Path, mask: Path, tmp_path: Path) -> None:
    first = run(clip, mask, tmp_path / "out")
    before = tree(tmp_path / "out", summary=True)
    assert run(clip, mask, tmp_path / "out", resume=True) == json.loads(json.dumps(first))
    assert tree(tmp_path / "out", summary=True) == before


@pytest.mark.parametrize("gone", ["masks/00009.png", "masks", "objects/200", "probs/00011.npz", "overlay.mp4"])
def test_missing_files_of_a_complete_run_are_made_again(clip: Path, mask: Path, tmp_path: Path, gone: str) -> None:
    out, outputs = tmp_path / "out", ("masks", "objects", "probs", "overlay")
    run(clip, mask, out, outputs=outputs)
    before = results(out)
    for path in list((out / gone).iterdir()) if (out / gone).is_dir() else [out / gone]:
        path.unlink()
    retouched = out / "objects" / "3" / "00002.png"
    retouched.write_bytes(b"theirs")
    with pytest.raises(Stop):  # a refill that is stopped begins anew, and keeps what it made
        run(clip, mask, out, outputs=outputs, resume=True, callbacks=StopAfter(6))
    retouched.write_bytes(b"theirs again")
    summary = run(clip, mask, out, outputs=outputs, resume=True)
    assert "run-refilled" in {note["code"] for note in (*summary["warnings"], *summary["notes"])}
    assert retouched.read_bytes() == b"theirs again"
    retouched.write_bytes(before["objects/3/00002.png"])
    assert results(out) == before
    assert run(clip, mask, out, outputs=outputs, resume=True) == json.loads((out / "summary.json").read_text())


def test_what_is_made_again_of_a_complete_run_follows_masks_that_were_retouched(
    clip: Path, mask: Path, tmp_path: Path
) -> None:
    """Missing objects, the overlay and the summary, where files are missing and where another look is wanted."""
    out, outputs = tmp_path / "out", ("masks", "objects", "overlay")
    run(clip, mask, out, outputs=outputs)
    retouched = write_mask(out / "masks" / "00005.png", truth(5, ids=(3,)))
    before = retouched.read_bytes()
    (out / "objects" / "200" / "00005.png").unlink()
    summary = run(clip, mask, out, outputs=outputs, resume=True)
    assert retouched.read_bytes() == before
    with Image.open(out / "objects" / "200" / "00005.png") as image:
        assert image.getbbox() is None
    refilled = drawn(out / "overlay.mp4")
    looks = [run(clip, mask, out, outputs=outputs, resume=True, overlay_style=look) for look in ("outline", "tint")]
    # Not byte for byte: x264 encodes the same pictures otherwise now and then.
    assert np.abs(drawn(out / "overlay.mp4") - refilled).mean() < 2
    write_mask(out / "masks" / "00006.png", truth(6, ids=(3,)))
    looks.append(run(clip, mask, out, outputs=outputs, resume=True, overlay_style="outline"))
    for told, frames, count in ((summary, "in frame 5", 1), (looks[1], "in frame 5", 1), (looks[2], "5 to frame 6", 2)):
        assert told["objects"]["200"]["visible_frames"] == COUNT - count
        (hidden,) = [note["text"] for note in told["warnings"] if note["code"] == "object-hidden"]
        assert f"{frames}, and one again" in hidden
    retouched.write_bytes(b"no mask")
    (out / "overlay.mp4").unlink()
    with pytest.raises(OutputError, match=r"00005\.png is damaged .*remove it to have it made again"):
        run(clip, mask, out, outputs=outputs, resume=True)


def test_resuming_what_was_never_begun_begins(clip: Path, mask: Path, tmp_path: Path) -> None:
    assert run(clip, mask, tmp_path / "out", resume=True)["frames"] == COUNT
    (tmp_path / "killed" / ".vostrack").mkdir(parents=True)
    assert run(clip, mask, tmp_path / "killed", resume=True)["frames"] == COUNT


def test_another_number_of_threads_is_told_with_what_sets_it() -> None:
    assert changes({"threads": 2}, {"threads": 1}) == "threads from 2 to 1 (set OMP_NUM_THREADS=2)"


def test_what_follows_from_another_preset_is_not_listed() -> None:
    before = {"size": 480, "preset": "default", "config": {"axes": 128}, "weights": {"name": "best"}}
    now = {"size": 240, "preset": "fast", "config": {"axes": 64}, "weights": {"name": "best-fast"}}
    assert changes(before, now) == 'preset from "default" to "fast", size from 480 to 240'


def test_resuming_with_other_inputs_or_settings_names_what_differs(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(clip, mask, out, 5)
    before = tree(out)
    other = write_mask(tmp_path / "other.png", truth(1))
    longer = write_clip(tmp_path / "longer.mp4", 13)
    for changed, words in (
        ({"mask": other}, r"the mask of frame 0 \(.*other\.png\)"),
        ({"mask": {0: mask, 4: other}}, r"the mask of frame 4 \(.*other\.png\)"),
        ({"clip": longer}, "clip"),
        ({"size": 16}, "size from 480 to 16"),
        ({"preset": "slow"}, 'preset from "default" to "slow"'),
        ({"outputs": ("masks",)}, "outputs"),
        ({"no_background": True}, "reading"),
    ):
        arguments: dict[str, Any] = {"clip": clip, "mask": mask, "out": out} | changed
        with pytest.raises(OutputError, match=rf"cannot resume in .*, since this changed: .*{words}.*; use"):
            run(**arguments, resume=True)
    with pytest.raises(OutputError, match=r'since this changed: method from "fake" to "copy"; use'):
        segment(clip, mask, out, method="copy", resume=True)
    assert tree(out) == before
    assert run(clip, mask, out, resume=True)["frames"] == COUNT


@pytest.mark.parametrize(
    "damage", ["one bit", "cut", "empty", "missing", "smaller", "no palette", "other objects", "folder"]
)
def test_a_mask_that_was_damaged_meanwhile_is_not_resumed_from(
    clip: Path, mask: Path, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "out"
    interrupted(clip, mask, out, 6)
    path = out / "masks" / "00002.png"
    data = path.read_bytes()
    path.unlink()
    if damage in ("cut", "empty"):
        path.write_bytes(data[: len(data) - 60 if damage == "cut" else 0])
    elif damage == "one bit":
        path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    elif damage == "smaller":
        write_mask(path, truth()[:40])
    elif damage == "no palette":
        Image.fromarray(truth()).save(path)
    elif damage == "other objects":
        write_mask(path, truth(ids=(3, 9)))
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(OutputError, match=r"cannot resume: .*00002\.png is damaged"):
        run(clip, mask, out, resume=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("state.safetensors", b""),
        ("state.safetensors", b"\xff" * 50),
        ("run.json", b"{"),
        ("run.json", b"[1]"),
        ("run.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_state_or_record_is_named(clip: Path, mask: Path, tmp_path: Path, name: str, data: bytes) -> None:
    out = tmp_path / "out"
    interrupted(clip, mask, out, 6)
    (out / ".vostrack" / name).write_bytes(data)
    with pytest.raises(OutputError, match=rf"{name.replace('.', '[.]')}.*start again with `overwrite=True`") as caught:
        run(clip, mask, out, resume=True)
    assert len(str(caught.value).splitlines()) == 1
    assert run(clip, mask, out, overwrite=True)["frames"] == COUNT


def test_a_clip_that_breaks_off_says_so_and_keeps_complete_files(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", noise(20, SIZE), container_options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    mask = write_mask(tmp_path / "first.png")
    with pytest.raises(InputError) as caught:
        run(clip, mask, tmp_path / "out")
    assert not isinstance(caught.value, MaskError)
    whole(tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_an_error_of_a_writer_stops_the_run(mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "long.mp4", 40)
    wrote: list[Path] = []
    plain = write_bytes

    def fail(path: Path, data: bytes) -> None:
        wrote.append(path)
        if len(wrote) == 3:
            raise OutputError("no more room")
        plain(path, data)

    monkeypatch.setattr(writer, "write_bytes", fail)
    done = 0

    class Count(Callbacks):
        def progress(self, index: int, total: int | None) -> None:
            nonlocal done
            done = index
            time.sleep(0.01)

    with pytest.raises(OutputError, match="no more room"):
        run(clip, mask, tmp_path / "out", callbacks=Count())
    assert done < 20
    assert len(wrote) == 3
    whole(tmp_path / "out")


# Processes of their own.


@pytest.fixture
def job(tmp_path: Path, mask: Path) -> list[object]:
    """A command line that takes a while."""
    clip = write_clip(tmp_path / "long.mp4", LONG)
    return ["segment", clip, "-m", mask, "-o", tmp_path / "out", "--method", "fake"]


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.002)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_a_frame_and_it_can_go_on(
    job: list[object], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(job, tmp_path / "log", frame_seconds=0.05)
    wait_for(out / "masks" / "00004.png")
    assert process.pid
    os.kill(process.pid, number)
    ended, printed, said = finish(process, tmp_path / "log")
    assert ended == code
    assert printed == ""
    assert said.splitlines()[-1] == "stopped: go on with the same command and --resume"
    assert "Traceback" not in said
    assert 4 < len(list(out.glob("masks/*.png"))) < LONG
    whole(out)
    assert (out / ".vostrack" / "state.safetensors").exists()
    assert finish(start([*job, "--resume"], tmp_path / "log"), tmp_path / "log")[0] == 0
    assert len(list(out.glob("masks/*.png"))) == LONG


@pytest.mark.slow
def test_a_second_process_in_the_same_folder_is_refused(job: list[object], tmp_path: Path) -> None:
    # Slow enough to be at work for as long as the others take, on a busy machine too; then it is told to stop.
    first = start(job, tmp_path / "one", frame_seconds=0.5)
    wait_for(tmp_path / "out" / "masks" / "00001.png")
    for flag in ("--overwrite", "--resume"):
        code, _, said = finish(start([*job, flag], tmp_path / "two"), tmp_path / "two")
        assert code == 9
        assert "is in use by" in said
        assert len(said.splitlines()) == 1
    assert first.pid
    os.kill(first.pid, signal.SIGTERM)
    assert finish(first, tmp_path / "one")[0] == 143
    whole(tmp_path / "out")


def test_a_file_that_cannot_grow_ends_the_run_with_one_line(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "noise.mp4", noise(40, SIZE), options={"crf": "18"})
    job = ["segment", clip, "-m", write_mask(tmp_path / "first.png"), "-o", tmp_path / "out", "--method", "fake"]
    code, printed, said = finish(start(job, tmp_path / "log", file_limit=40_000), tmp_path / "log")
    assert (code, printed) == (6, "")
    assert len(said.splitlines()) == 1
    assert "overlay.mp4" in said
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    whole(tmp_path / "out")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    size, peaks = (160, 240), []
    mask = write_mask(tmp_path / "first.png", truth(size=size))
    for count in (60, 600):
        clip = write_clip(tmp_path / f"{count}.mp4", count, size)
        job = ["segment", clip, "-m", mask, "--method", "fake", "--json"]
        code, printed, said = finish(start(job, tmp_path / "log"), tmp_path / "log")
        assert code == 0, said
        peaks.append(json.loads(printed)["peak_rss_mb"])
    assert peaks[1] < 1.05 * peaks[0], "600 frames of this size would be 69 MiB"
