"""Runs over a part of a clip, and results with numbers of their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.adapt.clips import narrow_net
from tests.fakes import NAME, pictures, read_labels, truth, write_clip, write_mask
from tests.runs import Stop, StopAfter, results
from tests.video.media import RATE, read
from vostrack.errors import InputError, MaskError, OutputError
from vostrack.run.callbacks import Callbacks
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 12
OUTPUTS = ("masks", "overlay", "objects", "probs")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", COUNT)


@pytest.fixture
def masks(tmp_path: Path) -> dict[int, Path]:
    return {4: write_mask(tmp_path / "fourth.png", truth(4)), 6: write_mask(tmp_path / "sixth.png", truth(6))}


def run(clip: Path, masks: Any, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, masks, out, method=NAME, **settings)


def test_a_range_gives_what_the_whole_clip_gives_there(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    watch = Callbacks()
    watch.progress = lambda done, total: seen.append((done, total))  # type: ignore[method-assign]
    whole = run(clip, masks, tmp_path / "whole", outputs=("masks", "objects", "probs"))
    part = run(clip, masks, tmp_path / "part", outputs=OUTPUTS, range=(4, 8), callbacks=watch)
    expected = {name: data for name, data in results(tmp_path / "whole").items() if "00004" <= name[-9:-4] <= "00008"}
    found = results(tmp_path / "part")
    _, frames = read(tmp_path / "part" / "overlay.mp4")
    del found["overlay.mp4"], found["confidence.csv"]
    assert found == expected
    assert (len(frames), frames[0].time, frames[1].time) == (5, 0, Fraction(1, RATE))
    assert seen == [(done, 3) for done in range(1, 4)] + [(done, 5) for done in range(1, 6)], "back from 6, then all"
    assert (part["frames"], part["range"], whole["range"]) == (5, [4, 8], None)
    assert part["objects"]["3"]["first_frame"] == 4
    assert part["objects"]["3"]["last_frame"] == 8
    assert [note["code"] for note in part["warnings"]] == [], "the first mask is that of the first frame"


def test_a_part_is_followed_backwards_to_its_first_frame(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    later = {6: masks[6]}
    run(clip, later, tmp_path / "whole", outputs=("masks",))
    part = run(clip, later, tmp_path / "part", outputs=("masks",), range=(4, 8))
    expected = {name: data for name, data in results(tmp_path / "whole").items() if "00004" <= name[-9:-4] <= "00008"}
    found = results(tmp_path / "part")
    del found["confidence.csv"]
    assert found == expected
    assert read_labels(tmp_path / "part" / "masks" / "00004.png").any()
    assert part["warnings"] == []
    with pytest.raises(Stop):
        run(clip, later, tmp_path / "out", outputs=("masks",), range=(4, 8), callbacks=StopAfter(2))
    run(clip, later, tmp_path / "out", outputs=("masks",), range=(4, 8), resume=True)
    assert results(tmp_path / "out") == results(tmp_path / "part"), "and the same confidence"


def test_a_mask_alone_is_of_the_first_frame_and_times_mean_frames(
    clip: Path, masks: dict[int, Path], tmp_path: Path
) -> None:
    run(clip, masks, tmp_path / "frames", range=(4, 8))
    times: Any = {None: masks[4], Fraction(6, RATE): masks[6]}
    timed = run(clip, times, tmp_path / "times", range=(Fraction(4, RATE), Fraction(8, RATE)))
    assert results(tmp_path / "frames") == results(tmp_path / "times")
    assert (timed["range"], set(timed["masks"])) == ([4, 8], {"4", "6"})


def test_a_part_that_was_stopped_goes_on_to_the_same_bytes(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"outputs": OUTPUTS, "range": (4, 10)}
    run(clip, masks, tmp_path / "plain", **options)
    for count in (1, 4, 2):
        with pytest.raises(Stop):
            run(clip, masks, tmp_path / "out", callbacks=StopAfter(count), resume=True, **options)
    with pytest.raises(OutputError, match=r"cannot resume.*range from \[4, 10\] to \[4, 11\]"):
        run(clip, masks, tmp_path / "out", resume=True, range=(4, 11), outputs=OUTPUTS)
    run(clip, masks, tmp_path / "out", resume=True, **options)
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    (tmp_path / "out" / "objects" / "3" / "00010.png").unlink()
    run(clip, masks, tmp_path / "out", resume=True, **options)
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    again = run(clip, masks, tmp_path / "out", resume=True, overlay_labels=True, **options)
    assert (again["frames"], again["overlay"]["labels"]) == (7, True)


@pytest.mark.slow
def test_a_part_that_was_adapted_to_goes_on_to_the_same_bytes(
    clip: Path, masks: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_net(monkeypatch)
    options: dict[str, Any] = {"range": (4, 10), "adapt": "clip", "adapt_settings": {"iterations": 3}}
    run(clip, masks, tmp_path / "plain", **options)
    for count in (5, 2, 6):
        with pytest.raises(Stop):
            run(clip, masks, tmp_path / "out", callbacks=StopAfter(count), resume=True, **options)
    run(clip, masks, tmp_path / "out", resume=True, **options)
    assert results(tmp_path / "out") == results(tmp_path / "plain")


def test_results_are_numbered_from_where_it_is_asked_for(tmp_path: Path, masks: dict[int, Path]) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, image in enumerate(pictures(8)):
        Image.fromarray(image).save(folder / f"shot_{index + 100}.png")
    named = run(folder, masks, tmp_path / "named", range=(4, 6))
    numbered = run(folder, masks, tmp_path / "numbered", range=(4, 6), start_number=1001)
    assert sorted(path.name for path in (tmp_path / "named" / "masks").iterdir()) == [
        f"shot_{number}.png" for number in (104, 105, 106)
    ]
    found = [read_labels(tmp_path / "numbered" / "masks" / f"0100{number}.png") for number in (1, 2, 3)]
    expected = [read_labels(tmp_path / "named" / "masks" / f"shot_{number}.png") for number in (104, 105, 106)]
    assert all(map(np.array_equal, found, expected))
    assert (named["start_number"], numbered["start_number"], numbered["range"]) == (None, 1001, [4, 6])
    with pytest.raises(InputError, match="start_number must be a whole number from 0, not -1"):
        run(folder, masks, tmp_path / "negative", range=(4, 6), start_number=-1)


def test_the_numbers_on_the_overlay_are_those_of_the_files(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    for name, start in (("own", None), ("same", 4), ("other", 1001)):
        run(clip, masks, tmp_path / name, range=(4, 8), start_number=start, overlay_labels=True)
    overlays = [(tmp_path / name / "overlay.mp4").read_bytes() for name in ("own", "same", "other")]
    assert overlays[0] == overlays[1]
    assert overlays[0] != overlays[2]


def test_what_lies_outside_leaves_nothing_behind(clip: Path, masks: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MaskError, match="mask for frame 4, and the range is 5 to 8"):
        run(clip, masks, out, range=(5, 8))
    with pytest.raises(InputError, match="the range is 4 to 12, and the clip ends with frame 11"):
        run(clip, masks, out, range=(4, 12))
    assert not out.exists()


@pytest.mark.parametrize("kind", ["path", "generator", "opened"])
def test_track_follows_a_part_of_every_kind_of_frames(kind: str, clip: Path, masks: dict[int, Path]) -> None:
    expected = list(vostrack.track(clip, masks, method=NAME))[4:9] if kind != "generator" else None
    frames: Any = {"path": clip, "generator": iter(pictures(COUNT)), "opened": None}[kind]
    if kind == "opened":
        frames = vostrack.open_clip(clip)
    found = list(vostrack.track(frames, masks, method=NAME, range=(4, 8)))
    assert [prediction.index for prediction in found] == [4, 5, 6, 7, 8]
    assert np.array_equal(found[0].mask, truth(4))
    if expected:
        assert all(np.array_equal(one.mask, other.mask) for one, other in zip(found, expected, strict=True))
