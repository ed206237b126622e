from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests import steps
from tests.adapt.clips import SMALL
from tests.fakes import IDS, NAME, pictures, truth, write_clip, write_mask
from tests.runs import Stop, StopAfter, labels, results
from tests.video.media import write_video
from vostrack.cli.settings import parse_gone
from vostrack.errors import InputError, MaskError, MethodError, OutputError, VostrackError
from vostrack.methods import METHODS
from vostrack.notes import Note
from vostrack.run import passes
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 12
LAST = COUNT - 1


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


def run(clip: Path, masks: Any, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, masks, out, **{"method": NAME, "outputs": (), **settings})


def folder(path: Path, images: list[np.ndarray]) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:05d}.png")
    return path


def overlap(found: np.ndarray, index: int, number: int) -> float:
    one, other = found == number, truth(index) == number
    return float((one & other).sum() / (one | other).sum())


class Told(Callbacks):
    def __init__(self) -> None:
        self.notes, self.phases = list[Note](), list[str]()
        self.done = dict[str, list[int]]()

    def note(self, note: Note) -> None:
        self.notes.append(note)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def progress(self, done: int, total: int | None) -> None:
        self.done.setdefault(self.phases[-1] if self.phases else "", []).append(done)


# Directions.


@pytest.mark.parametrize("direction", ["both", "backward"])
def test_backwards_over_a_clip_is_forwards_over_the_reversed_one(direction: str, tmp_path: Path) -> None:
    images = pictures(COUNT)
    run(folder(tmp_path / "a", images), {LAST: truth(LAST)}, tmp_path / "back", direction=direction)
    run(folder(tmp_path / "b", images[::-1]), truth(LAST), tmp_path / "forth")
    for index in range(COUNT):
        assert np.array_equal(labels(tmp_path / "back", index), labels(tmp_path / "forth", LAST - index))


def test_frames_before_between_and_after_given_masks_are_followed(clip: Path, tmp_path: Path) -> None:
    summary = run(clip, {3: truth(3), 8: truth(8)}, tmp_path / "out")
    assert summary["warnings"] == []
    for index in range(COUNT):
        found = labels(tmp_path / "out", index)
        assert min(overlap(found, index, number) for number in IDS) > 0.7
    assert np.array_equal(labels(tmp_path / "out", 3), truth(3))
    assert np.array_equal(labels(tmp_path / "out", 8), truth(8))
    assert summary["objects"]["3"]["visible_frames"] == COUNT


def test_one_way_leaves_the_other_side_empty_and_says_so(clip: Path, tmp_path: Path) -> None:
    for direction, empty in (("forward", range(4)), ("backward", range(5, COUNT))):
        told = Told()
        run(clip, {4: truth(4)}, tmp_path / direction, direction=direction, callbacks=told)
        assert [index for index in range(COUNT) if not labels(tmp_path / direction, index).any()] == list(empty)
        assert "mask-late" in [str(note.code) for note in told.notes]


def test_between_two_masks_the_nearer_one_decides(tmp_path: Path) -> None:
    images = pictures(1) * COUNT  # nothing moves, so each side goes on with what its mask says
    swapped = np.where(truth() == 3, 200, np.where(truth() == 200, 3, 0)).astype(np.uint8)
    run(folder(tmp_path / "a", images), {0: truth(), LAST: swapped}, tmp_path / "out")
    for index in range(COUNT):
        found = labels(tmp_path / "out", index)
        nearer = truth() if index < COUNT / 2 else swapped
        assert (found == nearer).mean() > 0.95


def test_an_object_that_is_given_late_is_followed_back_beside_the_others(clip: Path, tmp_path: Path) -> None:
    first = np.where(truth() == 200, 200, 0).astype(np.uint8)
    late = np.where(truth(7) == 3, 3, 0).astype(np.uint8)
    run(clip, {0: first, 7: late}, tmp_path / "out", outputs=("objects", "probs"))
    for index in range(COUNT):
        found = labels(tmp_path / "out", index)
        assert min(overlap(found, index, number) for number in IDS) > 0.6
    with np.load(tmp_path / "out" / "probs" / "00003.npz") as file:
        assert file["ids"].tolist() == [200, 3]
        assert np.abs(file["probs"].astype(float).sum(0) - 1).max() < 2e-3
    assert len(list((tmp_path / "out" / "objects" / "3").iterdir())) == COUNT


def test_a_clip_that_cannot_be_entered_in_the_middle_gives_the_same_masks(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.avi"):
        path = write_video(tmp_path / name, pictures(COUNT), "ffv1", "bgr0")
        told = Told()
        run(path, {LAST: truth(LAST)}, tmp_path / f"{name}.out", callbacks=told)
        assert ["clip-spooled"] * name.endswith("avi") == [str(note.code) for note in told.notes]
    assert results(tmp_path / "a.mkv.out") == results(tmp_path / "a.avi.out")


def test_an_engine_of_its_own_is_followed_both_ways(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, steps.NAME, steps.PATH)
    run(clip, {0: truth(), LAST: truth()}, tmp_path / "out", method=steps.NAME)
    assert all(labels(tmp_path / "out", index).any() for index in range(COUNT))


def test_the_adaptation_and_the_refinement_see_both(
    clip: Path, tmp_path: Path, small_adaptation: None, fake_crf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CRF", "identity")
    given = {5: truth(5), LAST: truth(LAST)}
    many: dict[str, dict[str, Any]] = {
        "clip": {"adapt": "clip", "adapt_settings": SMALL},
        "live": {"adapt": "live", "adapt_settings": SMALL},
        "crf": {"refine": "crf"},
    }
    for name, settings in many.items():
        out = tmp_path / name
        run(clip, given, out, **settings)
        assert all(labels(out, index).any() for index in range(COUNT))


@pytest.mark.parametrize("direction", ["both", "backward"])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("stop", [("following backwards", 4), ("segmenting", 5), ("", 7)])
def test_a_run_that_was_stopped_in_either_pass_goes_on(
    stop: tuple[str, int], keep: bool, direction: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", 0.0)
    given = {6: truth(6), LAST: truth(LAST)}
    settings: dict[str, Any] = {"direction": direction, "keep": keep, "outputs": ("overlay", "probs")}
    run(clip, given, tmp_path / "whole", **settings)

    class StopIn(Told):
        def progress(self, done: int, total: int | None) -> None:
            if stop == (self.phases[-1] if stop[0] else "", done):
                raise Stop

    with pytest.raises(Stop):
        run(clip, given, tmp_path / "out", callbacks=StopIn(), **settings)
    told = Told()
    run(clip, given, tmp_path / "out", resume=True, callbacks=told, **settings)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    if stop[0] == "segmenting":
        assert "following backwards" not in told.phases, "that pass is done"
    hidden = [
        {p.relative_to(o): p.read_bytes() for p in o.rglob("cells/*/*")} for o in (tmp_path / "out", tmp_path / "whole")
    ]
    assert hidden[0] == hidden[1]
    assert bool(hidden[0]) == keep


def test_what_is_kept_is_replaced_with_the_run_and_a_damaged_file_is_told(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(clip, {LAST: truth(LAST)}, out, callbacks=StopAfter(COUNT + 0))
    kept = out / ".vostrack" / "cells" / "backward" / "00003.png"
    assert kept.is_file()
    kept.write_bytes(b"no image")
    with pytest.raises(OutputError, match=r"00003\.png is damaged .*overwrite=True"):
        run(clip, {LAST: truth(LAST)}, out, resume=True)
    other = out / ".vostrack" / "cells" / "backward" / "mine.png"
    other.write_bytes(b"of somebody else")
    run(clip, truth(), out, overwrite=True)
    assert not kept.exists()
    assert other.exists()


def test_how_much_will_be_kept_is_said_where_it_is_much(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "MUCH", 1500)
    for masks, keep, said in (
        ({LAST: truth(LAST)}, True, True),
        ({0: truth()}, True, False),
        ({LAST: truth()}, False, False),
    ):
        told, out = Told(), tmp_path / f"{keep} {len(masks)} {min(masks)}"
        run(clip, masks, out, keep=keep, callbacks=told)
        assert ("run-keeps" in [str(note.code) for note in told.notes]) == said
    kept = sum(path.stat().st_size for path in (tmp_path / f"True 1 {LAST}").rglob("cells/*/*.png"))
    assert kept > 1500


def test_another_direction_is_another_run(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(clip, {LAST: truth(LAST)}, tmp_path / "out", callbacks=StopAfter(3))
    with pytest.raises(OutputError, match="direction"):
        run(clip, {LAST: truth(LAST)}, tmp_path / "out", resume=True, direction="backward")
    with pytest.raises(VostrackError, match="both, forward"):
        run(clip, truth(), tmp_path / "new", direction="sideways")


def test_frames_in_memory_are_followed_both_ways_where_they_can_be_read_twice(clip: Path) -> None:
    images = pictures(COUNT)
    found = {}
    for name, frames in (("list", images), ("array", np.stack(images)), ("generator", (image for image in images))):
        told = Told()
        found[name] = [p.mask for p in vostrack.track(frames, {LAST: truth(LAST)}, method=NAME, callbacks=told)]
        assert [str(note.code) for note in told.notes] == ["run-forward", "mask-late"] * (name == "generator")
    assert all(mask.any() for mask in found["list"])
    assert all(map(np.array_equal, found["list"], found["array"]))
    assert not any(mask.any() for mask in found["generator"][:-1])
    assert all(p.mask.any() for p in vostrack.track(clip, {LAST: truth(LAST)}, method=NAME))
    with pytest.raises(InputError, match="read only once"):
        vostrack.track(iter(images), {LAST: truth(LAST)}, method=NAME, direction="backward")


# Objects that are gone.


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adapt": "clip", "adapt_settings": SMALL},
        {"adapt": "live", "adapt_settings": SMALL},
        {"direction": "forward"},
    ],
)
def test_an_object_that_is_gone_is_in_no_mask_and_comes_back(
    settings: dict[str, Any], clip: Path, tmp_path: Path, small_adaptation: None
) -> None:
    gone = {3: [(4, 6)], 200: [(10, None)]}
    run(clip, {0: truth(), 8: truth(8)}, tmp_path / "out", gone=gone, **settings)
    for index in range(COUNT):
        found = labels(tmp_path / "out", index)
        for number, frames in ((3, range(4, 7)), (200, range(10, COUNT))):
            assert index not in frames or not (found == number).any()
            assert index in frames or "adapt" in settings or overlap(found, index, number) > 0.5


def test_an_empty_mask_of_a_later_frame_says_that_all_are_gone(clip: Path, tmp_path: Path) -> None:
    empty = write_mask(tmp_path / "empty.png", np.zeros_like(truth()))
    run(clip, {0: truth(), 5: empty}, tmp_path / "out")
    assert [index for index in range(COUNT) if not labels(tmp_path / "out", index).any()] == [5]
    with pytest.raises(MaskError, match="has no object"):
        run(clip, {0: empty, 5: truth(5)}, tmp_path / "other")


def test_objects_are_named_by_id_or_by_their_file(clip: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, number in (("dog", 3), ("cat", 200)):
        Image.fromarray(((truth() == number) * 255).astype(np.uint8)).save(masks / f"{name}.png")
    run(clip, masks, tmp_path / "out", gone=parse_gone(["dog@4-", "1@2"]))
    record = json.loads((tmp_path / "out" / ".vostrack" / "run.json").read_text())
    assert record["gone"] == {"1": [[2, 2]], "2": [[4, None]]}
    with pytest.raises(MaskError, match=r"no object horse; there are: 1 \(cat\), 2 \(dog\)"):
        run(clip, masks, tmp_path / "new", gone={"horse": [(0, 1)]})


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ({9: [(1, 2)]}, "no object 9; there are: 3, 200"),
        ({3: [(2, 1)]}, "from frame 2 to frame 1"),
        ({3: [(-1, 1)]}, "from frame -1"),
        ({3: [(12, None)]}, "gone from frame 12 on, but the clip ends with frame 11"),
        ({3: [(2, 40)]}, "gone from frame 2 to frame 40, but the clip ends with frame 11"),
        ({3: [(0, 2)]}, "gone at frame 0, and the mask of that frame shows it"),
    ],
)
def test_what_cannot_be_is_refused(gone: Any, said: str, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=said):
        run(clip, truth(), tmp_path / "out", gone=gone)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", ["3@2-", {3: (2, 4)}, {3: 2}, [3], {3: [(2,)]}])
def test_spans_of_another_type_are_refused_with_what_they_should_be(gone: Any, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="the first and the last frame of spans by object, such as"):
        run(clip, truth(), tmp_path / "out", gone=gone)


def test_spans_are_read_from_text() -> None:
    assert parse_gone(["dog@131-160", "dog@170-", "2@-79", "a@b@0"]) == {
        "dog": [(131, 160), (170, None)],
        2: [(0, 79)],
        "a@b": [(0, 0)],
    }
    for text in ("dog", "dog@", "dog@-", "@3", "dog@3--4", "dog@x", "dog@1234567890"):
        with pytest.raises(Exception, match="expected OBJECT@FIRST-LAST"):
            parse_gone([text])
