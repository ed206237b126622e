"""Names of objects in what a run writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.fakes import NAME, truth, write_clip
from tests.runs import Stop, StopAfter, results
from vostrack.errors import MaskError
from vostrack.notes import Note
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment
from vostrack.video.object_names import Painted

pytestmark = pytest.mark.usefixtures("fake_method")
RED, GREEN = (255, 0, 0), (0, 255, 0)
NAMES = {RED: "dog", GREEN: "cat"}


def painted(index: int = 0) -> Image.Image:
    """The objects of a frame, red and green."""
    labels = truth(index)
    pixels, (one, other) = np.zeros((*labels.shape, 3), np.uint8), np.unique(labels)[1:]
    pixels[labels == one], pixels[labels == other] = RED, GREEN
    return Image.fromarray(pixels)


class Heard(Callbacks):
    """Notes so far."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, note: Note) -> None:
        self.notes.append(str(note))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 4)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    painted().save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def told(summary: dict[str, Any]) -> dict[str, Any]:
    return {number: (each["name"], each["color"]) for number, each in summary["objects"].items()}


def asked(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / ".vostrack" / "request.json").read_text()))


def run(clip: Path, mask: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, mask, out, method=NAME, **settings)


def test_names_and_colours_are_in_the_summary(clip: Path, mask: Path, tmp_path: Path) -> None:
    summary = run(clip, mask, tmp_path / "named", names=NAMES)
    assert told(summary) == {"1": ("dog", "#ff0000"), "2": ("cat", "#00ff00")}
    assert told(json.loads((tmp_path / "named" / "summary.json").read_text())) == told(summary)
    assert told(run(clip, mask, tmp_path / "plain")) == {"1": (None, "#00ff00"), "2": (None, "#ff0000")}
    with pytest.raises(MaskError, match=r"no mask has the colour #0000ff \(named bird\)"):
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


def test_objects_of_one_name_are_noted(clip: Path, mask: Path, tmp_path: Path) -> None:
    heard = Heard()
    run(clip, mask, tmp_path / "out", names=NAMES)
    vostrack.update(tmp_path / "out", names={1: "cat"}, callbacks=heard)
    run(clip, mask, tmp_path / "fresh", names={RED: "cat", GREEN: "cat"}, callbacks=heard)
    assert heard.notes.count("objects 1, 2 are called cat: it is their class") == 2


def test_track_gives_colours_the_ids_of_their_order(clip: Path, mask: Path) -> None:
    found = next(iter(vostrack.track(clip, mask, method=NAME, names=NAMES)))
    first, second = np.unique(truth())[1:]
    assert np.array_equal(found.mask, np.where(truth() == first, 1, np.where(truth() == second, 2, 0)))


@pytest.mark.parametrize("labels", [True, False])
def test_a_run_gets_other_names_by_an_update(labels: bool, clip: Path, mask: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", {"overlay_labels": labels, "outputs": ("overlay", "probs")}
    first = run(clip, mask, out, names=NAMES, **options)
    (out / "review.html").write_text("a page")
    was, heard = results(out), Heard()
    others: dict[Painted, str] = {1: "wolf", "cat": "lynx"}
    summary = vostrack.update(out, names=others, callbacks=heard)
    fresh = run(clip, mask, tmp_path / "fresh", names={RED: "wolf", GREEN: "lynx"}, **options)
    assert "no mask changed; names are 1 = wolf, 2 = lynx" in heard.notes
    assert "review.html showed the run as it was before, and is put aside: make it again" in heard.notes
    assert results(out) == results(tmp_path / "fresh")
    assert summary["objects"] == fresh["objects"]
    assert summary["seconds_per_frame"] == first["seconds_per_frame"], "nothing was followed again"
    assert asked(out)["names"] == asked(tmp_path / "fresh")["names"]
    exported = vostrack.export(out, "coco", tmp_path / "a.json", only=["lynx"])
    assert exported["objects"] == {"2": "lynx"}
    vostrack.export(out, "cvat", tmp_path / "a.xml")
    colours = dict(re.findall("<name>(wolf|lynx)</name><color>(.*?)</color>", (tmp_path / "a.xml").read_text()))
    assert colours == {"wolf": "#ff0000", "lynx": "#00ff00"}
    with pytest.raises(MaskError, match="nothing changes"):
        vostrack.update(out, names={1: "wolf"})
    vostrack.update(out, {3: painted(3)}, names={RED: "fox"}, gone={"lynx": [(2, 2)]})
    vostrack.undo(out)
    assert told(json.loads((out / "summary.json").read_text())) == told(summary)
    vostrack.undo(out)
    assert results(out) == was
    assert asked(out)["names"] == {"1": "dog", "2": "cat"}
    assert (out / "review.html").read_text() == "a page"


def test_names_come_with_the_masks_of_an_update(clip: Path, mask: Path, tmp_path: Path) -> None:
    out, later = tmp_path / "out", painted(3)
    run(clip, mask, out)
    later.paste((0, 0, 255), (50, 40, 60, 46))
    summary = vostrack.update(out, {3: later}, names={RED: "dog", (0, 0, 255): "bird"})
    assert {name for name, _ in told(summary).values()} == {"dog", None, "bird"}
    assert told(summary)["2"] == ("dog", "#ff0000"), "ids stay"
    assert told(summary)["3"] == ("bird", "#0000ff")
    wrong: list[tuple[dict[Painted, str], str]] = [
        ({9: "cow"}, "no mask has the id or grey 9 .named cow.: there are 3 objects, 1, 2, 3"),
        ({2: "dog", RED: "cat"}, "object 2 has two names, dog and cat"),
    ]
    for names, said in wrong:
        with pytest.raises(MaskError, match=said):
            vostrack.update(out, names=names)


def test_the_first_mask_given_again_keeps_the_ids_of_its_colours(clip: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(clip, mask, out, names=NAMES)
    with pytest.raises(MaskError, match="nothing changes"):
        vostrack.update(out, {0: mask})
    touched = np.array(painted())
    touched[np.argwhere((touched == RED).all(2))[0][0]] = 0
    Image.fromarray(touched).save(tmp_path / "touched.png")
    assert told(vostrack.update(out, {0: tmp_path / "touched.png"})) == {
        "1": ("dog", "#ff0000"),
        "2": ("cat", "#00ff00"),
    }
    first = np.array(Image.open(out / "masks" / "00000.png"))
    assert (first[(touched == RED).all(2)] == 1).all()
