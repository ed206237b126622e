from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests import fakes
from tests.fakes import NAME, truth, write_clip, write_mask
from tests.runs import Stop, labels, results
from vostrack.errors import MaskError, OutputError, VostrackError
from vostrack.run import passes
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 12
LAST = COUNT - 1
OUTPUTS = ("overlay", "objects")

Calls = Callable[[str], list[int]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


def run(clip: Path, masks: Any, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, masks, out, **{"method": NAME, "outputs": OUTPUTS, **settings})


def record(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / ".vostrack" / "run.json").read_text()))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts the calls of a method from now on."""

    def counted(name: str) -> list[int]:
        found, called = list[int](), getattr(fakes.FakeMethod, name)
        monkeypatch.setattr(fakes.FakeMethod, name, lambda *given: (found.append(1), called(*given))[1])
        return found

    return counted


def everything(out: Path) -> dict[str, bytes]:
    """Results and what is kept of cells."""
    cells = {str(path.relative_to(out)): path.read_bytes() for path in (out / ".vostrack" / "cells").rglob("*.png")}
    return results(out) | cells


def changed(number: int, index: int) -> np.ndarray:
    """The truth, but an object is elsewhere, so that it matters whether the mask was looked at."""
    pixels = truth(index)
    pixels[pixels == number] = 0
    pixels[20:26, 2:20] = number
    return pixels


CASES: dict[str, tuple[dict[int, np.ndarray], dict[str, Any], dict[int, np.ndarray], dict[str, Any]]] = {
    "a mask": ({0: truth()}, {"masks": {6: truth(6)}}, {0: truth(), 6: truth(6)}, {}),
    "another mask": ({0: truth(), 6: changed(3, 6)}, {"masks": {6: truth(6)}}, {0: truth(), 6: truth(6)}, {}),
    "an earlier mask": ({6: truth(6)}, {"masks": {2: changed(3, 2)}}, {2: changed(3, 2), 6: truth(6)}, {}),
    "a dropped mask": ({0: truth(), 6: changed(3, 6)}, {"drop_masks": [6]}, {0: truth()}, {}),
    "the last one dropped": (
        {0: truth(), 5: truth(5), 9: changed(3, 9)},
        {"drop_masks": [9]},
        {0: truth(), 5: truth(5)},
        {},
    ),
    "gone": ({0: truth(), 9: truth(9)}, {"gone": {3: [(4, 6)]}}, {0: truth(), 9: truth(9)}, {"gone": {3: [(4, 6)]}}),
    "gone to the end": ({0: truth()}, {"gone": {3: [(4, None)]}}, {0: truth()}, {"gone": {3: [(4, None)]}}),
    "an object": (
        {0: np.where(truth() == 3, 3, 0).astype(np.uint8)},
        {"masks": {5: np.where(truth(5) == 200, 200, 0).astype(np.uint8)}},
        {0: np.where(truth() == 3, 3, 0).astype(np.uint8), 5: np.where(truth(5) == 200, 200, 0).astype(np.uint8)},
        {},
    ),
}


@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_an_update_is_a_run_with_the_same_inputs(case: str, direction: str, clip: Path, tmp_path: Path) -> None:
    before, correction, after, settings = CASES[case]
    run(clip, before, tmp_path / "out", direction=direction)
    was = everything(tmp_path / "out")
    summary = vostrack.update(tmp_path / "out", **correction)
    fresh = run(clip, after, tmp_path / "fresh", direction=direction, **settings)
    assert everything(tmp_path / "out") == everything(tmp_path / "fresh")
    assert record(tmp_path / "out") == record(tmp_path / "fresh")
    assert summary["objects"] == fresh["objects"]
    assert summary["out"] == str(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    again = run(clip, after, tmp_path / "out", direction=direction, resume=True, **settings)
    assert again == summary, "it is complete"
    vostrack.undo(tmp_path / "out")
    assert everything(tmp_path / "out") == was
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(tmp_path / "out")


def test_what_was_said_of_an_object_that_is_gone_is_taken_back(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth(), 9: truth(9)}, out, gone={3: [(2, 4), (6, 6)], 200: [(5, 5)]})
    vostrack.update(out, gone={3: [(3, 4)]}, drop_gone=[3])
    run(clip, {0: truth(), 9: truth(9)}, tmp_path / "fresh", gone={3: [(3, 4)], 200: [(5, 5)]})
    assert everything(out) == everything(tmp_path / "fresh")
    assert record(out) == record(tmp_path / "fresh")
    with pytest.raises(MaskError, match="there is no object 7"):
        vostrack.update(out, drop_gone=[7])


@pytest.mark.parametrize("settings", [{"outputs": ("probs",)}, {"range": (2, 9)}, {"keep": False}, {"start_number": 7}])
def test_an_update_goes_on_as_the_run_was_asked_for(settings: dict[str, Any], clip: Path, tmp_path: Path) -> None:
    run(clip, {3: truth(3)}, tmp_path / "out", **settings)
    vostrack.update(tmp_path / "out", {7: truth(7)})
    vostrack.update(tmp_path / "out", {8: truth(8)})
    run(clip, {3: truth(3), 7: truth(7), 8: truth(8)}, tmp_path / "fresh", **settings)
    assert everything(tmp_path / "out") == everything(tmp_path / "fresh")


def test_only_what_can_change_is_computed(clip: Path, tmp_path: Path, calls: Calls) -> None:
    run(clip, truth(), tmp_path / "out", direction="forward")
    predicted = calls("predict")
    vostrack.update(tmp_path / "out", {8: truth(8)})
    assert len(predicted) == COUNT - 9, "what is behind the mask"


def one(number: int, index: int) -> np.ndarray:
    return np.where(truth(index) == number, number, 0).astype(np.uint8)


def test_where_an_object_is_gone_matters_only_to_what_knows_it(clip: Path, tmp_path: Path, calls: Calls) -> None:
    masks = {0: truth(), 3: changed(3, 3), 9: one(200, 9)}
    run(clip, masks, tmp_path / "out", direction="both")
    predicted = calls("predict")
    vostrack.update(tmp_path / "out", gone={3: [(5, None)]})
    assert len(predicted) == COUNT - 5, "nothing that is followed backwards knew it there"
    run(clip, masks, tmp_path / "fresh", direction="both", gone={3: [(5, None)]})
    assert everything(tmp_path / "out") == everything(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("direction", "masks", "update", "held"),
    [
        ("both", {0: one(200, 0), 5: one(3, 5)}, {"drop_masks": [5], "lock": [200]}, ()),
        ("both", {0: one(200, 0), 5: one(3, 5)}, {"masks": {5: one(200, 5)}, "lock": [200]}, ()),
        ("forward", {5: truth(5), 7: truth(7)}, {"drop_masks": [5], "lock_ranges": [(9, 11)]}, (9, 10, 11)),
        ("backward", {4: truth(4), 8: truth(8)}, {"drop_masks": [8], "lock_ranges": [(0, 1)]}, (0, 1)),
    ],
)
def test_what_is_not_followed_any_more_is_in_no_mask_whatever_is_locked(
    direction: str, masks: Any, update: Any, held: tuple[int, ...], clip: Path, tmp_path: Path
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    run(clip, masks, out, direction=direction, outputs=())
    vostrack.update(out, **update)
    left = {frame: mask for frame, mask in masks.items() if frame not in update.get("drop_masks", ())}
    run(clip, left | update.get("masks", {}), fresh, direction=direction, outputs=())
    for index in set(range(COUNT)) - {*held}:
        assert {*np.unique(labels(out, index))} <= {*np.unique(labels(fresh, index)), *update.get("lock", ())}
    vostrack.update(out, {10: truth(10)})


def test_a_name_outlives_the_mask_that_told_of_it(clip: Path, tmp_path: Path) -> None:
    run(clip, {0: truth(), 4: one(3, 4)}, tmp_path / "out", names={3: "dog", 200: "cat"})
    summary = vostrack.update(tmp_path / "out", {6: truth(6)}, drop_masks=[0])
    assert {key: each["name"] for key, each in summary["objects"].items()} == {"3": "dog", "200": "cat"}


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_masks_that_stay_as_they_are_are_not_made(direction: str, clip: Path, tmp_path: Path, calls: Calls) -> None:
    out = tmp_path / "out"
    run(clip, truth(), out, direction=direction, outputs=())
    vostrack.update(out, {4: changed(3, 4)}, lock=[200], lock_ranges=[(0, 3)])
    before = [labels(out, index) for index in range(COUNT)]
    enlarged = calls("enlarge")
    vostrack.update(out, gone={200: [(9, None)]}, lock_ranges=[(0, 8)], unlock=True)
    assert len(enlarged) == COUNT - 9 + 1, "and one for the mask that was given"
    after = [labels(out, index) for index in range(COUNT)]
    assert all(np.array_equal(one, other) for one, other in zip(before[:9], after[:9], strict=True))
    assert not any((each == 200).any() for each in after[9:])
    vostrack.update(out, unlock=True)
    run(
        clip,
        {0: truth(), 4: changed(3, 4)},
        tmp_path / "fresh",
        outputs=(),
        direction=direction,
        gone={200: [(9, None)]},
    )
    assert everything(out) == everything(tmp_path / "fresh")


@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
def test_what_only_locked_frames_need_is_not_computed(direction: str, clip: Path, tmp_path: Path, calls: Calls) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    run(clip, {LAST: truth(LAST), 0: truth()}, out, direction=direction, outputs=())
    before = [labels(out, index) for index in range(COUNT)]
    predicted = calls("predict")
    vostrack.update(out, {6: changed(3, 6)}, lock_ranges=[(0, 4), (9, LAST)])
    assert len(predicted) == {"both": 2 + 1, "forward": 2, "backward": 1}[direction], "nor is the frame of the new mask"
    masks = {0: truth(), 6: changed(3, 6), LAST: truth(LAST)}
    run(clip, masks, fresh, direction=direction, outputs=())
    for index in range(COUNT):
        expected = labels(fresh, index) if 5 <= index <= 8 else before[index]
        assert np.array_equal(labels(out, index), expected)
    vostrack.update(out, {2: truth(2)}, lock_ranges=[(0, 1), (5, LAST)], unlock=True)
    vostrack.update(out, unlock=True)
    run(clip, masks | {2: truth(2)}, fresh, direction=direction, outputs=(), overwrite=True)
    assert everything(out) == everything(fresh)
    for _ in range(3):
        vostrack.undo(out)
    assert all(np.array_equal(labels(out, index), before[index]) for index in range(COUNT))


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_where_all_is_locked_or_gone_nothing_is_computed(
    direction: str, clip: Path, tmp_path: Path, calls: Calls
) -> None:
    out = tmp_path / "out"
    run(clip, truth(), out, direction=direction)
    before = [labels(out, index) for index in range(COUNT)]
    predicted = calls("predict")
    vostrack.update(out, gone={3: [(5, None)]}, lock=[200], lock_ranges=[(0, 4)])
    assert not predicted
    for index in range(COUNT):
        left = np.where(before[index] == 3, 0, before[index]) if index >= 5 else before[index]
        assert np.array_equal(labels(out, index), left)
    vostrack.update(out, unlock=True)
    run(clip, truth(), tmp_path / "fresh", direction=direction, gone={3: [(5, None)]})
    assert everything(out) == everything(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_any_updates_with_locks_end_in_the_run_with_all_that_was_said(seed: int, clip: Path, tmp_path: Path) -> None:
    chance, out = random.Random(seed), tmp_path / "out"
    settings: dict[str, Any] = {"outputs": (), "direction": chance.choice(["both", "both", "forward", "backward"])}
    masks, gone = {chance.randrange(COUNT): truth(), chance.randrange(COUNT): truth()}, dict[Any, Any]()
    run(clip, masks, out, **settings)
    for _ in range(4):
        frame, number = chance.randrange(COUNT), chance.choice([3, 200])
        drawn = changed if frame in masks else one  # no object goes
        correction: dict[str, Any] = {"masks": {frame: drawn(number, frame)}}
        if chance.random() < 0.3 and frame not in masks and number not in gone:
            correction = {"gone": {number: [(frame, chance.choice([frame, None]))]}}
        first = chance.randrange(COUNT)
        spans = [(0, first - 1)] * (first > 0) + [(chance.randrange(first, COUNT), LAST)][: chance.randrange(2)]
        before = [labels(out, index) for index in range(COUNT)]
        locks: dict[str, Any] = {"lock": [203 - number] * chance.randrange(2), "lock_ranges": spans}
        try:
            vostrack.update(out, **correction, **locks, unlock=chance.random() < 0.8)
        except MaskError:  # an object that is drawn where it is gone
            continue
        masks |= correction.get("masks", {})
        gone |= correction.get("gone", {})
        for index in {index for a, b in spans for index in range(a, b + 1)}:
            assert np.array_equal(labels(out, index), before[index])
        for index, was in enumerate(before if locks["lock"] else ()):
            assert np.array_equal(labels(out, index) == 203 - number, was == 203 - number)
    with contextlib.suppress(MaskError):  # nothing is locked
        vostrack.update(out, unlock=True)
    run(clip, masks, tmp_path / "fresh", gone=gone, **settings)
    assert everything(out) == everything(tmp_path / "fresh")


def test_features_that_the_method_forgets_are_not_computed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    run(clip, truth(), tmp_path / "out", direction="forward")
    fakes.forget(monkeypatch, 3)
    encoded = calls("encode")
    vostrack.update(tmp_path / "out", gone={3: [(8, 9)]})
    assert len(encoded) == 1 + 3 + COUNT - 8
    vostrack.update(tmp_path / "out", drop_gone=[3])
    encoded.clear()
    vostrack.update(tmp_path / "out", {8: truth(8)})
    assert len(encoded) == 1 + COUNT - 8, "a mask lets the method forget all before"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "sorted palette", "clear"])
def test_a_retouched_mask_may_be_saved_in_its_colours(mode: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    path = out / "masks" / "00002.png"
    with Image.open(path) as image:
        retouched = image.copy()
    retouched.paste(3, (50, 40, 60, 44))
    wanted = np.array(retouched)
    if mode == "sorted palette":
        retouched = retouched.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=5)
        assert not np.array_equal(np.array(retouched), wanted)
    elif mode == "clear":
        pixels = np.array(retouched.convert("RGBA"))
        pixels[wanted == 0] = (9, 9, 9, 0)
        retouched = Image.fromarray(pixels)
    else:
        retouched = retouched.convert(mode)
    retouched.save(path)
    assert vostrack.export(out, "davis", tmp_path / "exported")["frames"] == COUNT
    vostrack.update(out, {6: truth(6)}, lock_ranges=[(2, 2)])
    assert np.array_equal(labels(out, 2), wanted)


def test_a_retouched_mask_with_other_colours_is_told_with_the_fix(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    path = out / "masks" / "00002.png"
    with Image.open(path) as image:
        soft = image.convert("RGB").resize((70, 50)).resize(image.size)
    for given, said in (
        (soft, "colours of no object: paint with a hard brush"),
        (soft.convert("L"), "another kind of"),
    ):
        given.save(path)
        with pytest.raises(OutputError, match=rf"^\S*00002\.png is damaged \(.*{said}.*\); mend it, or remove it and"):
            vostrack.update(out, {6: truth(6)}, lock_ranges=[(2, 2)])


def test_what_is_locked_stays_as_it_is_on_the_disk(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    retouched = labels(out, 2)
    retouched[40:44, 50:60] = 3
    write_mask(out / "masks" / "00002.png", retouched)
    before = [labels(out, index) for index in range(COUNT)]
    summary = vostrack.update(out, {6: changed(200, 6)}, lock=[3], lock_ranges=[(0, 1), (10, 10)])
    assert summary["locks"] == {"objects": [3], "frames": [[0, 1], [10, 10]]}
    after = [labels(out, index) for index in range(COUNT)]
    for index in range(COUNT):
        assert np.array_equal(after[index] == 3, before[index] == 3)
        if index in (0, 1, 10):
            assert np.array_equal(after[index], before[index])
    assert not np.array_equal(after[6], before[6])
    with Image.open(out / "objects" / "3" / "00002.png") as image:
        assert np.array_equal(np.array(image) > 0, retouched == 3)


def test_colours_and_names_mean_the_objects_of_before(clip: Path, tmp_path: Path) -> None:
    colors = {3: (250, 40, 10), 200: (10, 60, 250)}

    def painted(index: int) -> Image.Image:
        image = np.zeros((*truth().shape, 3), np.uint8)
        for number, color in colors.items():
            image[truth(index) == number] = color
        return Image.fromarray(image)

    run(clip, {0: painted(0)}, tmp_path / "out")
    only = np.zeros((*truth().shape, 3), np.uint8)
    only[truth(6) == 3] = colors[3]
    vostrack.update(tmp_path / "out", {6: Image.fromarray(only)})
    run(clip, {0: painted(0), 6: Image.fromarray(only)}, tmp_path / "fresh")
    assert everything(tmp_path / "out") == everything(tmp_path / "fresh")


@pytest.mark.parametrize("stop", [("following backwards", 3), ("segmenting", 5)])
def test_an_update_that_was_stopped_leaves_the_run_and_goes_on(
    stop: tuple[str, int], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", 0.0)
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    was = everything(out)

    class StopIn(Callbacks):
        entered = ""

        def phase(self, name: str) -> None:
            self.entered = name

        def progress(self, done: int, total: int | None) -> None:
            if (self.entered, done) == stop:
                raise Stop

    with pytest.raises(Stop):
        vostrack.update(out, {8: changed(3, 8)}, callbacks=StopIn())
    assert everything(out) == was
    with pytest.raises(Stop):
        vostrack.update(out, {8: truth(8)}, callbacks=StopIn())
    vostrack.update(out, {8: truth(8)})
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "fresh")
    assert everything(out) == everything(tmp_path / "fresh")
    assert not (out / ".vostrack" / "next").exists()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A context in which an exchange breaks off after so many moves."""

    @contextmanager
    def context(moves: int) -> Iterator[None]:
        rename, left = Path.rename, moves

        def breaking(path: Path, target: Any) -> Any:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", breaking)
            with pytest.raises(KeyboardInterrupt):
                yield

    return context


@pytest.mark.parametrize("moves", range(0, 14, 4))
def test_the_call_that_was_broken_off_in_its_exchange_is_done_when_it_is_repeated(
    moves: int, broken: Any, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth(), 3: changed(3, 3)}, out)
    was = everything(out)
    correction: dict[str, Any] = {"masks": {8: truth(8)}, "drop_masks": [3]}
    with broken(moves):
        vostrack.update(out, **correction)
    summary = vostrack.update(out, **correction)
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "fresh")
    assert everything(out) == everything(tmp_path / "fresh")
    assert summary == json.loads((out / "summary.json").read_text())
    with pytest.raises(MaskError, match="no mask was given for frame 3"):
        vostrack.update(out, **correction)
    with broken(moves):
        vostrack.undo(out)
    vostrack.undo(out)
    assert everything(out) == was
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(out)
    assert everything(out) == was


@pytest.mark.parametrize("moves", [0, 1, 4, 7])
def test_other_names_are_exchanged_as_a_whole(moves: int, broken: Any, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    was = everything(out)
    with broken(moves):
        vostrack.update(out, names={3: "dog"})
    assert vostrack.update(out, names={3: "dog"})["objects"]["3"]["name"] == "dog"
    assert everything(out) == was, "nothing else changed"
    with broken(moves):
        vostrack.undo(out)
    vostrack.undo(out)
    assert everything(out) == was
    with pytest.raises(MaskError, match="there is no object dog"):
        vostrack.update(out, gone={"dog": [(3, 4)]})
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(out)


@pytest.mark.parametrize("moves", range(0, 14, 2))
def test_an_exchange_that_was_broken_off_is_finished(moves: int, broken: Any, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    with broken(moves):
        vostrack.update(out, {8: truth(8)})
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "fresh")
    run(clip, {0: truth(), 8: truth(8)}, out, resume=True)
    assert everything(out) == everything(tmp_path / "fresh")
    vostrack.undo(out)
    assert record(out)["masks"].keys() == {"0"}


def test_what_a_kill_left_of_what_was_undone_goes_with_the_next_call(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    left = out / ".vostrack/undone/masks/00000.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(out)
    assert not (out / ".vostrack/undone").exists()


def test_a_run_that_is_replaced_has_no_earlier_version(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    vostrack.update(out, {8: truth(8)})
    run(clip, {0: truth()}, out, overwrite=True)
    with pytest.raises(OutputError, match="no update to undo"):
        vostrack.undo(out)


def test_what_cannot_be_is_refused_in_one_line(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="not the output folder of a run"):
        vostrack.update(tmp_path, {3: truth(3)})
    run(clip, {0: truth()}, out)
    for correction, said in (
        ({}, "nothing changes"),
        ({"masks": {0: truth()}}, "nothing changes"),
        ({"masks": {40: truth()}}, "clip ends with frame 11"),
        ({"drop_masks": [5]}, "no mask was given for frame 5; there are masks for 0"),
        ({"drop_masks": [0]}, "no mask is left"),
        ({"gone": {9: [(1, 2)]}}, "no object 9"),
        ({"masks": {3: truth(3)}, "lock": ["dog"]}, "no object dog; there are: 3, 200"),
        ({"masks": {3: truth(3)}, "lock_ranges": [(4, 2)]}, "cannot be locked"),
    ):
        with pytest.raises(MaskError, match=said):
            vostrack.update(out, **correction)
    other = write_clip(tmp_path / "other.mp4", COUNT + 1)
    with pytest.raises(OutputError, match=r"this changed: clip"):
        vostrack.update(out, {3: truth(3)}, clip=other)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": ["masks", "shell"]},
        {"clip": 3},
        {"config": {"method": "fake", "evil": 1}},
        {"config": {"method": 3}},
        {"span": [0, None]},
        {"gone": {"x": [[0, 1]]}},
        {"ids": {"0": [3, 3]}},
        {"ids": {"7": [3]}},
        {"ids": {"-1": [3]}},
        {"style": "none"},
        {"direction": "up"},
        {"colors": {"3": [1, 2]}},
        {"reading": {"background": "x"}},
    ],
)
def test_a_request_that_was_tampered_with_is_one_line(change: dict[str, Any], clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    path = out / ".vostrack" / "request.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = everything(out)
    with pytest.raises(VostrackError):
        vostrack.update(out, {8: truth(8)})
    assert everything(out) == before


def test_given_masks_that_were_tampered_with_are_one_line(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    path = out / ".vostrack" / "given" / "00000.png"
    for image in (Image.new("L", (5, 5)), Image.new("RGB", (64, 48)), Image.new("L", (64, 48), 9)):
        image.save(path)
        with pytest.raises(VostrackError):
            vostrack.update(out, {8: truth(8)})
    (out / ".vostrack" / "moves.json").write_text(
        '{"come_from": "..", "go_to": "/tmp", "coming": ["masks"], "going": []}'
    )
    with pytest.raises(OutputError, match="other files than ours"):
        vostrack.undo(out)


def test_objects_that_change_places_in_a_correction_are_told(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    swapped = truth(5)
    swapped[truth(5) == 3], swapped[truth(5) == 200] = 200, 3
    codes = [each["code"] for each in vostrack.update(out, {5: swapped})["warnings"]]
    assert "mask-swapped" in codes
    vostrack.undo(out)
    codes = [each["code"] for each in vostrack.update(out, {5: truth(5)})["warnings"]]
    assert "mask-swapped" not in codes


def test_masks_that_cannot_be_compared_are_an_error_of_the_output(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)

    def fails(*_: object, **options: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(filecmp, "cmp", fails)
        with pytest.raises(OutputError, match=r"masks in .* cannot be read"):
            vostrack.update(out, {8: truth(8)})
    vostrack.update(out, {8: truth(8)})


def test_a_record_that_cannot_be_read_is_one_line(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, {0: truth()}, out)
    (out / ".vostrack/run.json").write_text("{")
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        vostrack.update(out, {8: truth(8)})
