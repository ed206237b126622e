from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fakes import IDS, pictures, read_labels, truth, write_mask
from tests.runs import results
from tests.video.media import write_video
from vostrack.errors import Cancelled, VostrackError
from vostrack.run.callbacks import Callbacks
from vostrack.run.cuts import beyond_cuts, cut_notes, cuts
from vostrack.run.segment import segment
from vostrack.run.update import undo, update
from vostrack.types import LabelMap

CUT, COUNT = 6, 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The pictures, and from a frame on the same before another ground."""
    images = pictures(COUNT)
    for image in images[CUT:]:
        image[(image > 80).all(axis=2)] += 100
    return write_video(tmp_path / "clip.mp4", images, options={"crf": "12"})


def given(*ids: int) -> LabelMap:
    return LabelMap(torch.zeros(4, 4, dtype=torch.uint8), ids)


def test_a_cut_stands_out_and_a_flash_or_a_pan_does_not() -> None:
    def found(*changes: float) -> list[int]:
        return cuts(dict(enumerate(changes, 7)))

    assert found(0, 0.02, 0.03, 0.4, 0.02, 0.02) == [10]
    assert found(0, 0.02, 0.4, 0.4, 0.02) == []  # a flash: there and back
    assert found(0, 0.2, 0.3, 0.25, 0.3, 0.2) == []
    assert found(0, 0.01, 0.05, 0.01) == []
    assert found(0, 0.5) == [8]
    assert found() == []


def test_an_object_is_gone_in_shots_without_a_mask_of_it() -> None:
    prompts = {3: given(1), 12: given(1, 2)}
    assert beyond_cuts([10, 20], prompts, {1: [(5, 6)]}) == {1: [(5, 6), (20, None)], 2: [(0, 9), (20, None)]}
    assert beyond_cuts([], prompts, {1: [(5, 6)]}) == {1: [(5, 6)]}


def test_cuts_without_a_mask_after_them_are_told_and_not_without_end() -> None:
    assert list(cut_notes([], {0: given(1)}, stopped=False)) == []
    assert len(list(cut_notes([10, 20], {12: given(1)}, stopped=False))) == 1
    assert "masks are empty" in next(cut_notes([10], {0: given(1)}, stopped=True))
    assert len(list(cut_notes(list(range(10, 100, 10)), {0: given(1)}, stopped=False))) == 6


@pytest.mark.usefixtures("fake_method")
def test_objects_go_on_across_a_cut_with_a_warning_or_stop(clip: Path, tmp_path: Path) -> None:
    mask, seen = write_mask(tmp_path / "first.png"), {}
    for way in ("continue", "stop"):
        out = tmp_path / way
        summary = segment(clip, mask, out, method="fake", on_cut=way)
        seen[way] = [set(np.unique(read_labels(out / "masks" / f"{index:05d}.png"))) for index in range(COUNT)]
        texts = [warning["text"] for warning in summary["warnings"] if warning["code"] == "clip-cut"]
        assert len(texts) == 1
        assert f"frame {CUT} " in texts[0]
        assert summary["on_cut"] == way
    assert seen["stop"] == [{0, *IDS}] * CUT + [{0}] * (COUNT - CUT)
    assert seen["continue"][:CUT] == seen["stop"][:CUT]
    assert any(ids != {0} for ids in seen["continue"][CUT:])


@pytest.mark.usefixtures("fake_method")
def test_after_a_cut_a_new_mask_goes_on(clip: Path, tmp_path: Path) -> None:
    masks = {0: write_mask(tmp_path / "first.png"), CUT + 2: write_mask(tmp_path / "later.png", truth(CUT + 2))}
    summary = segment(clip, masks, tmp_path / "out", method="fake", on_cut="stop")
    assert "clip-cut" not in [warning["code"] for warning in summary["warnings"]]
    assert IDS[0] in read_labels(tmp_path / "out" / "masks" / f"{CUT:05d}.png")


@pytest.mark.usefixtures("fake_method")
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
@pytest.mark.parametrize(
    ("before", "correction", "after"),
    [
        ({0}, {"masks": {CUT + 2}}, {0, CUT + 2}),
        ({CUT + 2}, {"masks": {1}}, {1, CUT + 2}),
        ({0, CUT + 2}, {"drop_masks": [CUT + 2]}, {0}),
        ({0, CUT + 2}, {"gone": {IDS[0]: [(CUT + 4, None)]}}, {0, CUT + 2}),
        ({0}, {"masks": {3}}, {0, 3}),
    ],
)
def test_an_update_of_a_run_that_stops_at_cuts_is_a_run_with_the_same_inputs(
    before: set[int], correction: dict[str, Any], after: set[int], direction: str, clip: Path, tmp_path: Path
) -> None:
    def run(frames: set[int], out: str, **settings: Any) -> dict[str, bytes]:
        masks = {frame: truth(frame) for frame in frames}
        segment(clip, masks, tmp_path / out, method="fake", on_cut="stop", direction=direction, **settings)
        return results(tmp_path / out)

    was, fresh = run(before, "out"), run(after, "fresh", gone=correction.get("gone"))
    masks = {frame: truth(frame) for frame in correction.get("masks", ())}
    summary = update(tmp_path / "out", **(correction | {"masks": masks}))
    assert results(tmp_path / "out") == fresh
    assert summary["on_cut"] == "stop"
    undo(tmp_path / "out")
    assert results(tmp_path / "out") == was


@pytest.mark.usefixtures("fake_method")
def test_a_wrong_way_is_refused_and_the_search_can_be_cancelled(clip: Path, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "first.png")
    with pytest.raises(VostrackError, match="way to go on"):
        segment(clip, mask, tmp_path / "out", method="fake", on_cut="halt")
    watch = Callbacks()
    watch.cancelled = lambda: True  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        segment(clip, mask, tmp_path / "out", method="fake", on_cut="stop", callbacks=watch)
