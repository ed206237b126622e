"""Which frames of a clip a run is over, and which frame a time means."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.video.media import RATE, difference, ramp, read, write_video
from vostrack.errors import InputError, MaskError
from vostrack.video.images import ArrayStream
from vostrack.video.ranges import Span, choose
from vostrack.video.reader import open_clip

COUNT = 10
STEP = Fraction(1, RATE)


@pytest.fixture(params=["video", "folder", "animation"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    images = ramp(COUNT)
    if request.param == "video":
        return write_video(tmp_path / "clip.mp4", images)
    if request.param == "animation":
        pictures = [Image.fromarray(image) for image in images]
        pictures[0].save(tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=40, lossless=True)
        return tmp_path / "clip.webp"
    (tmp_path / "clip").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "clip" / f"shot_{1001 + index}.png")
    return tmp_path / "clip"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mkv", ramp(COUNT))


@pytest.mark.parametrize("span", [Span(0, 3), Span(4, 6), Span(9, 9), Span(7)])
def test_frames_of_a_part_are_those_of_the_whole(clip: Path, span: Span) -> None:
    _, whole = read(clip)
    expected = whole[span.first : COUNT if span.last is None else span.last + 1]
    with span.of(open_clip(clip)) as part:
        found = list(part)
        assert part.count == len(expected)
    assert [(each.index, each.time, each.name) for each in found] == [(f.index, f.time, f.name) for f in expected]
    assert all(bool((one.image == other.image).all()) for one, other in zip(found, expected, strict=True))


def test_frames_before_a_part_have_no_image_and_those_after_it_are_not_read() -> None:
    given = []

    def frames() -> Any:
        for index, image in enumerate(ramp(COUNT)):
            given.append(index)
            yield image if index in (0, 3, 4) else "no image"

    with Span(3, 4).of(ArrayStream(frames())) as part:
        assert [difference(frame, ramp(COUNT)[frame.index]) for frame in part] == [0, 0]
    assert given == [0, 1, 2, 3, 4]


def test_what_stands_for_an_image_is_known_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vostrack.video.images.no_image", lambda: torch.empty(3, 0, 0, dtype=torch.uint8))
    with Span(2, 3).of(ArrayStream(ramp(4))) as part:
        assert [frame.index for frame in part] == [2, 3]


def test_results_may_have_numbers_of_their_own(clip: Path) -> None:
    with Span(4, 6, start_number=1001).of(open_clip(clip)) as part:
        assert [(frame.index, frame.name) for frame in part] == [(4, "01001"), (5, "01002"), (6, "01003")]


def test_the_whole_clip_is_the_clip_itself(video: Path) -> None:
    with open_clip(video) as stream:
        assert choose(video, None, np.zeros((2, 2)))[0].of(stream) is stream


@pytest.mark.parametrize(
    ("chosen", "span"),
    [
        (None, Span()),
        ((4, None), Span(4)),
        ((None, 6), Span(0, 6)),
        ((4, 4), Span(4, 4)),
        ((4 * STEP, 6 * STEP), Span(4, 6)),
        ((4 * STEP - STEP / 2, 6 * STEP + STEP / 2), Span(4, 6)),
        ((4 * STEP + STEP / 2, None), Span(5)),
        ((4 * STEP + STEP / 2,) * 2, Span(4, 4)),
        ((Fraction(0), COUNT * STEP), Span(0, 9)),
    ],
)
def test_a_range_is_of_frames_or_of_times(video: Path, chosen: Any, span: Span) -> None:
    assert choose(video, chosen, {})[0] == span


def test_a_time_means_the_frame_that_is_shown_then(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "c.mkv", ramp(4), stamps=[0, 1, 7, 8])
    masks: Any = {STEP * 3: "a", STEP * 7: "b", Fraction(0): "c"}
    assert choose(clip, None, masks)[1] == {1: "a", 2: "b", 0: "c"}


def test_a_mask_without_a_frame_is_for_the_first_of_the_range(video: Path) -> None:
    assert choose(video, (4, None), "a.png")[1] == {4: "a.png"}
    masks: Any = {None: "a.png", 6: "b.png"}
    assert choose(video, (STEP * 4, None), masks)[1] == {4: "a.png", 6: "b.png"}


@pytest.mark.parametrize(
    ("chosen", "masks", "error", "words"),
    [
        ((6, 4), {}, InputError, "goes backwards, from frame 6 to frame 4: exchange its ends"),
        ((Fraction(2), Fraction(1)), {}, InputError, "goes backwards, from 2 s to 1 s"),
        ((4 * STEP + STEP / 4, 4 * STEP + STEP / 2), {}, InputError, "no frame appears from 0.17 s to 0.18 s"),
        ((4, Fraction(1)), {}, InputError, "two frames or two times"),
        ((-1, None), {}, InputError, "no frame -1: frames count from 0"),
        ((1.5, None), {}, InputError, r"by time as Fraction\('12.5'\), not by 1.5"),
        ([4, 6], {}, InputError, r"such as \(40, 60\)"),
        ((Fraction(9), None), {}, InputError, "the clip ends at 0.400 s, before 9 s"),
        ((4, 6), {3: "a"}, MaskError, "mask for frame 3, and the range is 4 to 6: widen it"),
        ((4, 6), {7: "a"}, MaskError, "mask for frame 7"),
        ((4, None), {None: "a.png", 4: "b.png"}, MaskError, "two masks for frame 4: a.png and b.png; give"),
        (None, {STEP * 4: "a", 4: "b"}, MaskError, "two masks for frame 4: a and b"),
        (None, {Fraction(9): "a"}, InputError, "the clip ends at 0.400 s, before 9 s"),
    ],
)
def test_what_is_no_range_is_refused(video: Path, chosen: Any, masks: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        choose(video, chosen, masks)


def test_folders_and_frames_in_memory_have_no_times(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    for frames, what in ((tmp_path, "a folder of images has no times"), ([], "frames in memory have no times")):
        with pytest.raises(InputError, match=f"{what}: give the number of a frame for 1.5 s"):
            choose(frames, (Fraction("1.5"), None), {})


def test_a_range_beyond_the_clip_is_refused_where_its_length_is_known(clip: Path) -> None:
    for span, fix in ((Span(10), "give one that starts before that"), (Span(4, 10), "end it there, or leave its end")):
        with open_clip(clip) as stream, pytest.raises(InputError, match=f"ends with frame 9: {fix}"):
            span.of(stream)


def test_a_range_beyond_a_clip_of_unknown_length_is_told_at_its_end() -> None:
    with Span(4, 20).of(ArrayStream(iter(ramp(COUNT)))) as part:
        assert len(list(part)) == 6
        assert [str(note.code) for note in part.notes] == ["range-cut-off"]
    with Span(10).of(ArrayStream(iter(ramp(COUNT)))) as part, pytest.raises(InputError, match="starts before that"):
        list(part)
