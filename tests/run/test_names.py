"""Names of objects in what a run writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.fakes import NAME, truth, write_clip
from tests.runs import Stop, StopAfter
from vostrack.errors import MaskError
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
RED, GREEN = (255, 0, 0), (0, 255, 0)
NAMES = {RED: "dog", GREEN: "cat"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 4)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels, (one, other) = np.zeros((*truth().shape, 3), np.uint8), np.unique(truth())[1:]
    pixels[truth() == one], pixels[truth() == other] = RED, GREEN
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def told(summary: dict[str, Any]) -> dict[str, Any]:
    return {number: (each["name"], each["color"]) for number, each in summary["objects"].items()}


def run(clip: Path, mask: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, mask, out, method=NAME, **settings)


def test_names_and_colours_are_in_the_summary(clip: Path, mask: Path, tmp_path: Path) -> None:
    summary = run(clip, mask, tmp_path / "named", names=NAMES)
    assert told(summary) == {"1": ("dog", "#ff0000"), "2": ("cat", "#00ff00")}
    assert told(json.loads((tmp_path / "named" / "summary.json").read_text())) == told(summary)
    assert told(run(clip, mask, tmp_path / "plain")) == {"1": (None, "#00ff00"), "2": (None, "#ff0000")}
    with pytest.raises(MaskError, match="no mask has #0000ff, which is named bird"):
        run(clip, mask, tmp_path / "none", names={(0, 0, 255): "bird"})
    assert not (tmp_path / "none").exists()


def test_names_are_on_the_overlay(clip: Path, mask: Path, tmp_path: Path) -> None:
    overlays = []
    for name in ("dog", "cat"):
        run(clip, mask, tmp_path / name, names={RED: name, GREEN: "other"}, overlay_labels=True)
        overlays.append((tmp_path / name / "overlay.mp4").read_bytes())
    assert overlays[0] != overlays[1]


@pytest.mark.parametrize("labels", [True, False])
def test_a_complete_run_may_get_other_names(labels: bool, clip: Path, mask: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"overlay_labels": labels}
    run(clip, mask, tmp_path / "fresh", names={RED: "wolf", GREEN: "lynx"}, **options)
    first = run(clip, mask, tmp_path / "out", names=NAMES, **options)
    again = run(clip, mask, tmp_path / "out", names={RED: "wolf", GREEN: "lynx"}, resume=True, **options)
    assert told(again) == {"1": ("wolf", "#ff0000"), "2": ("lynx", "#00ff00")}
    assert again["seconds_per_frame"] == first["seconds_per_frame"], "nothing was followed again"
    overlays = [(tmp_path / name / "overlay.mp4").read_bytes() for name in ("fresh", "out")]
    assert overlays[0] == overlays[1]
    assert told(json.loads((tmp_path / "out" / "summary.json").read_text())) == told(again)


def test_an_interrupted_run_may_go_on_with_other_names(clip: Path, mask: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(clip, mask, tmp_path / "out", names=NAMES, callbacks=StopAfter(2))
    summary = run(clip, mask, tmp_path / "out", names={RED: "wolf", GREEN: "lynx"}, resume=True)
    assert told(summary) == {"1": ("wolf", "#ff0000"), "2": ("lynx", "#00ff00")}


def test_track_gives_colours_the_ids_of_their_order(clip: Path, mask: Path) -> None:
    found = next(iter(vostrack.track(clip, mask, method=NAME, names=NAMES)))
    first, second = np.unique(truth())[1:]
    assert np.array_equal(found.mask, np.where(truth() == first, 1, np.where(truth() == second, 2, 0)))
