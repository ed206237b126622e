"""What updates must not lose or mix up: what was said before, locks, files of others, earlier versions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests import fakes
from tests.fakes import NAME, truth, write_clip
from tests.runs import Stop, StopAfter, labels, results
from vostrack.errors import OutputError, VostrackError
from vostrack.files import OutputRoot
from vostrack.run import passes
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 12
BLACK = np.zeros_like(truth())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(clip: Path, masks: Any, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, masks, out, **{"method": NAME, "outputs": (), **settings})


def only(number: int, index: int) -> np.ndarray:
    return np.where(truth(index) == number, number, 0).astype(np.uint8)


def elsewhere(number: int, index: int) -> np.ndarray:
    pixels = truth(index)
    pixels[pixels == number] = 0
    pixels[20:26, 2:20] = number
    return pixels


def painted(color: tuple[int, int, int], number: int, index: int) -> Image.Image:
    image = np.zeros((*truth().shape, 3), np.uint8)
    image[truth(index) == number] = color
    return Image.fromarray(image)


# What was said before.


SAID: dict[str, tuple[dict[int, Any], dict[str, Any], dict[int, Any], dict[str, Any]]] = {
    "an object that joins a clip with an empty mask": (
        {0: only(3, 0), 4: BLACK},
        {"masks": {8: only(200, 8)}},
        {0: only(3, 0), 4: BLACK, 8: only(200, 8)},
        {},
    ),
    "a mask in the place of an empty one": (
        {0: truth(), 4: BLACK},
        {"masks": {4: truth(4)}},
        {0: truth(), 4: truth(4)},
        {},
    ),
    "an empty mask dropped": ({0: truth(), 4: BLACK}, {"drop_masks": [4]}, {0: truth()}, {}),
    "the mask of an object dropped, where one is empty": (
        {0: only(3, 0), 4: BLACK, 8: only(200, 8)},
        {"drop_masks": [8]},
        {0: only(3, 0), 4: BLACK},
        {},
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_an_update_is_a_run_with_all_that_was_said(case: str, clip: Path, out: Path, tmp_path: Path) -> None:
    before, correction, after, settings = SAID[case]
    run(clip, before, out)
    vostrack.update(out, **correction)
    run(clip, after, tmp_path / "fresh", **settings)
    assert results(out) == results(tmp_path / "fresh")


def test_what_was_said_of_an_object_goes_with_its_last_mask(clip: Path, out: Path, tmp_path: Path) -> None:
    run(clip, {0: only(3, 0), 8: only(200, 8)}, out, gone={200: [(2, 3)]})
    vostrack.update(out, drop_masks=[8])
    run(clip, {0: only(3, 0)}, tmp_path / "fresh")
    assert results(out) == results(tmp_path / "fresh")


def test_a_colour_is_free_again_when_its_mask_is_dropped(clip: Path, out: Path) -> None:
    red, green, blue = painted((255, 0, 0), 3, 0), painted((0, 255, 0), 200, 8), painted((0, 0, 255), 200, 8)
    run(clip, {0: red, 8: green}, out, names={(0, 255, 0): "cat"})
    vostrack.update(out, drop_masks=[8])
    summary = vostrack.update(out, {8: blue})
    told = {each["color"]: each["name"] for each in summary["objects"].values()}
    assert told == {"#ff0000": None, "#0000ff": None}


def test_a_mask_in_the_place_of_another_is_not_compared_with_that(clip: Path, out: Path, tmp_path: Path) -> None:
    red, green, blue = painted((255, 0, 0), 3, 0), painted((0, 255, 0), 200, 8), painted((0, 0, 255), 200, 9)
    run(clip, {0: red, 8: green}, out)
    vostrack.update(out, {8: blue})
    run(clip, {0: red, 8: blue}, tmp_path / "fresh")
    assert np.array_equal(labels(out, 8) > 0, labels(tmp_path / "fresh", 8) > 0)


def test_an_update_that_was_stopped_goes_on_where_features_are_forgotten(
    clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", 0.0)
    fakes.forget(monkeypatch, 3)
    run(clip, truth(), out, direction="forward")
    with pytest.raises(Stop):
        vostrack.update(out, {10: truth(10)}, callbacks=StopAfter(4))
    vostrack.update(out, {10: truth(10)})
    assert np.array_equal(labels(out, 10), truth(10))


# Locks.


def test_what_is_locked_stays_so_in_later_updates_until_it_is_let_go(clip: Path, out: Path, tmp_path: Path) -> None:
    run(clip, {0: truth()}, out)
    before = [labels(out, index) for index in range(COUNT)]
    vostrack.update(out, {4: elsewhere(3, 4)}, lock=[3])
    summary = vostrack.update(out, gone={200: [(9, None)]})
    assert summary["locks"]["objects"] == [3]
    assert all(np.array_equal(labels(out, index) == 3, before[index] == 3) for index in range(COUNT))
    vostrack.update(out, unlock=True)
    run(clip, {0: truth(), 4: elsewhere(3, 4)}, tmp_path / "fresh", gone={200: [(9, None)]})
    assert results(out) == results(tmp_path / "fresh")


def test_locked_frames_lose_an_object_whose_last_mask_is_dropped(clip: Path, out: Path) -> None:
    run(clip, {0: only(3, 0), 8: only(200, 8)}, out)
    vostrack.update(out, drop_masks=[8], lock_ranges=[(0, 5)])
    vostrack.update(out, {9: only(3, 9)})
    assert all(200 not in labels(out, index) for index in range(COUNT))


def test_probabilities_say_what_the_masks_of_locked_frames_say(clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out, outputs=("probs",), direction="forward")
    vostrack.update(out, {4: elsewhere(3, 4)}, lock_ranges=[(0, 11)])
    for index in range(COUNT):
        with np.load(out / "probs" / f"{index:05d}.npz") as file:
            assert np.array_equal(np.array([0, *file["ids"]])[file["probs"].argmax(0)], labels(out, index))


# What lies about.


def test_what_is_left_of_another_update_is_not_used(clip: Path, out: Path, tmp_path: Path) -> None:
    run(clip, {0: truth()}, out)
    run(clip, {0: truth(), 8: elsewhere(3, 8)}, tmp_path / "other")
    shutil.copytree(tmp_path / "other" / ".vostrack" / "cells", out / ".vostrack" / "next" / ".vostrack" / "cells")
    vostrack.update(out, {8: truth(8)})
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "fresh")
    assert results(out) == results(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["next", "next/.vostrack/cells/forward", "steps"])
def test_nothing_is_written_through_a_link(name: str, clip: Path, out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run(clip, {0: truth()}, out)
    place = out / ".vostrack" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside)
    with contextlib.suppress(VostrackError):
        vostrack.update(out, {8: truth(8)})
    assert not list(outside.iterdir())


def test_versions_are_numbered_on(clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out)
    vostrack.update(out, {4: truth(4)})
    vostrack.update(out, {6: truth(6)})
    shutil.rmtree(out / ".vostrack" / "steps" / "0001")
    vostrack.update(out, {8: truth(8)})
    for expected in ({"0", "4", "6"}, {"0", "4"}):
        vostrack.undo(out)
        assert json.loads((out / ".vostrack" / "run.json").read_text())["masks"].keys() == expected


def test_files_of_others_stay_where_they_are(clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out, outputs=("objects",))
    mine = ["masks/NOTES.txt", "masks/other.png", "objects/3/x.txt"]
    for name in mine:
        (out / name).write_text("mine")
    vostrack.update(out, {4: truth(4)})
    (out / "masks" / "after.txt").write_text("mine")
    vostrack.undo(out)
    vostrack.update(out, {4: truth(4)})
    run(clip, {0: truth()}, out, overwrite=True)
    assert all((out / name).read_text() == "mine" for name in (*mine, "masks/after.txt"))


def test_an_earlier_version_does_not_come_back_in_the_place_of_another_run(
    clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clip, {0: truth()}, out)
    vostrack.update(out, {8: truth(8)})

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputRoot, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run(clip, {2: truth(2)}, out, overwrite=True)
    run(clip, {2: truth(2)}, out, overwrite=True)
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(out)


@pytest.mark.parametrize("size", [(1, 3), (16, 36 + 3), (32, 36)])
@pytest.mark.parametrize("value", [0, 255])
def test_cells_of_another_size_are_refused(size: tuple[int, int], value: int, clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out)
    Image.new("L", size, value).save(out / ".vostrack" / "cells" / "forward" / "00003.png")
    with pytest.raises(OutputError, match="damaged"):
        vostrack.update(out, {8: truth(8)})


def test_a_damaged_record_is_refused(clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out)
    for text in ("", "[]", "null"):
        (out / ".vostrack" / "run.json").write_text(text)
        with pytest.raises(OutputError, match=r"run\.json is damaged"):
            vostrack.update(out, {8: truth(8)})


@pytest.mark.parametrize(
    "odd", [{"objects": None}, {"objects": []}, {"objects": {"3": []}}, {"outputs": None}, {"outputs": [3]}], ids=str
)
def test_a_damaged_summary_gets_no_names(odd: dict[str, Any], clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out)
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps({**summary, **odd}))
    with pytest.raises(OutputError, match=r"summary\.json is damaged"):
        vostrack.update(out, names={3: "dog"})


@pytest.mark.parametrize("text", ["", "nowhere", "9" * 30])
def test_where_cells_are_old_is_read_with_care(text: str, clip: Path, out: Path, tmp_path: Path) -> None:
    run(clip, {0: truth()}, out, direction="forward")
    vostrack.update(out, {4: elsewhere(3, 4)}, lock_ranges=[(6, 11)])
    stale = out / ".vostrack/cells/forward/stale"
    assert stale.read_text() == "6"
    stale.write_text(text)
    with pytest.raises(OutputError, match="stale is damaged") if not text.isdigit() else contextlib.nullcontext():
        vostrack.update(out, gone={200: [(9, None)]})


def test_cells_without_a_label_are_refused(clip: Path, out: Path) -> None:
    run(clip, {0: truth()}, out)
    path = out / ".vostrack" / "cells" / "forward" / "00003.png"
    with Image.open(path) as image:
        size = image.size
    Image.new("L", size, 0).save(path)
    with pytest.raises(OutputError, match="without a label"):
        vostrack.update(out, {8: truth(8)})


def test_where_files_cannot_have_two_names_they_are_copied(
    clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", none)
    run(clip, {0: truth()}, out)
    vostrack.update(out, {8: truth(8)})
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "fresh")
    assert results(out) == results(tmp_path / "fresh")
