"""What a method notices to be out of sight is in no mask, and the method goes on as if it were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vostrack
from tests.fakes import IDS, NAME, FakeMethod, truth, write_clip
from tests.runs import Stop, StopAfter, labels, results
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT, SEEN = 12, 6


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def hiding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first object is out of sight some frames after a given mask."""

    def hidden(self: FakeMethod, state: Any, features: Tensor, probs: Tensor) -> Tensor:
        return torch.arange(len(probs) - 1) < int(state.seen >= SEEN - 1)

    monkeypatch.setattr(FakeMethod, "hidden", hidden, raising=False)


def run(clip: Path, masks: list[int], out: Path, **settings: Any) -> dict[str, bytes]:
    segment(clip, {index: truth(index) for index in masks}, out, method=NAME, outputs=["probs"], **settings)
    return results(out)


def test_what_is_hidden_is_in_no_mask_and_is_told(clip: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run(clip, [0], tmp_path / "plain")
    request.getfixturevalue("hiding")
    run(clip, [0], tmp_path / "out")
    for index in range(COUNT):
        found, plain = labels(tmp_path / "out", index), labels(tmp_path / "plain", index)
        gone = index >= SEEN
        assert (IDS[0] in found) == (not gone)
        assert np.array_equal(found == IDS[1], plain == IDS[1])
        assert np.array_equal(found, plain) or gone
    warnings = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert f"object {IDS[0]} vanished at frame {SEEN}" in [warning["text"] for warning in warnings]


@pytest.mark.usefixtures("hiding")
def test_what_one_direction_sees_is_there(clip: Path, tmp_path: Path) -> None:
    run(clip, [0, COUNT - 1], tmp_path / "out")
    assert all(IDS[0] in labels(tmp_path / "out", index) for index in range(COUNT))
    run(clip, [COUNT - 1], tmp_path / "back", direction="backward")
    there = [IDS[0] in labels(tmp_path / "back", index) for index in range(COUNT)]
    assert there == [index >= SEEN for index in range(COUNT)]


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
@pytest.mark.parametrize(("before", "masks", "drop"), [([0], [9], []), ([10], [1], []), ([0, 9], [], [9])])
def test_an_update_and_a_resumed_run_hide_the_same(
    before: list[int], masks: list[int], drop: list[int], direction: str, clip: Path, tmp_path: Path
) -> None:
    after = [index for index in [*before, *masks] if index not in drop]
    fresh = run(clip, after, tmp_path / "fresh", direction=direction)
    run(clip, before, tmp_path / "out", direction=direction)
    vostrack.update(tmp_path / "out", {index: truth(index) for index in masks}, drop_masks=drop)
    assert results(tmp_path / "out") == fresh
    with pytest.raises(Stop):
        run(clip, after, tmp_path / "again", direction=direction, callbacks=StopAfter(8))
    assert run(clip, after, tmp_path / "again", direction=direction, resume=True) == fresh
