from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.video.media import difference, pixels, read, solid, write_video
from vostrack.errors import InputError
from vostrack.notes import Code
from vostrack.types import Frame
from vostrack.video import fields
from vostrack.video.backwards import InexactSeek, open_backwards
from vostrack.video.fields import deinterlaced
from vostrack.video.playback import Playback
from vostrack.video.reader import open_clip

WHOLE = Playback(deinterlace=True)
TOP_FIRST, BOTTOM_FIRST = 2, 3
SIZE = (64, 96)


def bar(moment: int) -> np.ndarray:
    """A white bar, 12 wide, that moves by 3 a field."""
    image = solid((20, 40, 60), SIZE)
    left = 3 * moment % 80
    image[8:56, left : left + 12] = 235
    return image


def woven(count: int, top_first: bool = True) -> list[np.ndarray]:
    """Pictures of two moments each."""
    images = []
    for index in range(count):
        image = bar(2 * index)
        image[top_first::2] = bar(2 * index + 1)[top_first::2]
        images.append(image)
    return images


def combs(image: np.ndarray) -> float:
    """How much rows differ from those two away less than from their neighbours."""
    rows = image[10:54, :, 0].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def tagged(order: int) -> Callable[[av.VideoStream], None]:
    return lambda stream: setattr(stream.codec_context, "field_order", order)


def h264(path: Path, count: int, **options: str) -> Path:
    """A clip whose pictures are flagged: for the encoder, one that does not say has the bottom field first."""
    return write_video(
        path,
        woven(count, top_first=False),
        pix_fmt="yuv444p",
        options={"crf": "2", "x264-params": "tff=1", "bf": "2", **options},
    )


def frames_of(path: Path, playback: Playback = WHOLE) -> list[Frame]:
    with open_clip(path, playback) as clip:
        return list(clip)


def as_told(frame: Frame) -> tuple[int, Fraction, str]:
    return frame.index, frame.time, frame.name


def test_a_clip_with_flagged_pictures_is_said_to_be_interlaced_and_deinterlaced_on_demand(tmp_path: Path) -> None:
    path = h264(tmp_path / "a.mp4", 6)
    clip, plain = read(path)
    assert [note.code for note in clip.notes] == [Code.CLIP_INTERLACED]
    with open_clip(path, WHOLE) as clip:
        whole = list(clip)
    assert clip.notes == []
    assert list(map(as_told, whole)) == list(map(as_told, plain))
    for index, (one, other) in enumerate(zip(plain, whole, strict=True)):
        assert combs(pixels(one)) > 5
        assert combs(pixels(other)) < 1
        assert np.abs(pixels(other).astype(int) - bar(2 * index)).mean() < 3


@pytest.mark.parametrize("order", [TOP_FIRST, BOTTOM_FIRST])
def test_the_order_of_fields_may_be_told_by_the_stream_alone(tmp_path: Path, order: int) -> None:
    top_first = order == TOP_FIRST
    path = write_video(tmp_path / "a.mkv", woven(5, top_first), "ffv1", "yuv444p", setup=tagged(order))
    clip, _ = read(path)
    assert [note.code for note in clip.notes] == [Code.CLIP_INTERLACED]
    for index, frame in enumerate(frames_of(path)):
        assert np.abs(pixels(frame).astype(int) - bar(2 * index)).mean() < 2


def test_a_clip_without_tags_is_deinterlaced_as_well_and_still_areas_stay(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", woven(5), "ffv1", "yuv444p")
    clip, plain = read(path)
    assert clip.notes == []
    for one, other in zip(plain, frames_of(path), strict=True):
        assert combs(pixels(other)) < combs(pixels(one)) / 5
        assert np.array_equal(pixels(other)[:3], pixels(one)[:3])


@pytest.mark.parametrize(("options", "count"), [({"g": "30"}, 70), ({"g": "30", "bf": "0"}, 31), ({}, 1), ({}, 2)])
def test_frames_are_the_same_backwards(tmp_path: Path, options: dict[str, str], count: int) -> None:
    path = h264(tmp_path / "a.mp4", count, **options)
    forwards = frames_of(path)
    assert len(forwards) == count
    for seek, last, first in [(True, count - 1, 0), (False, count - 1, 0), (True, count // 2, count // 4)]:
        with open_backwards(path, last, seek, first, WHOLE) as clip:
            back = list(clip)
        assert list(map(as_told, back)) == list(map(as_told, forwards[first : last + 1][::-1]))
        assert all(
            np.array_equal(a.image, b.image) for a, b in zip(back, forwards[first : last + 1][::-1], strict=True)
        )


def test_frames_before_a_part_do_not_change_it(tmp_path: Path) -> None:
    path = h264(tmp_path / "a.mp4", 8)
    with open_clip(path, WHOLE) as clip:
        clip.images_from = 5
        part = list(clip)[5:]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(part, frames_of(path)[5:], strict=True))


def test_pictures_keep_their_colours(tmp_path: Path) -> None:
    def full(stream: av.VideoStream) -> None:
        stream.codec_context.color_range, stream.codec_context.colorspace = 2, 1

    path = write_video(tmp_path / "a.mkv", [solid((200, 100, 50))] * 3, "ffv1", "yuv444p", setup=full)
    assert [np.unique(pixels(frame) - pixels(read(path)[1][0])).tolist() for frame in frames_of(path)] == [[0]] * 3


def test_an_error_comes_after_what_came_before_it(tmp_path: Path) -> None:
    with av.open(str(h264(tmp_path / "a.mp4", 5))) as container:
        video = container.streams.video[0]

        def broken() -> Any:
            yield from ((picture, index == 1) for index, picture in enumerate(container.decode(video)))
            raise ValueError("the end is missing")

        whole = deinterlaced(broken(), video)
        assert [next(whole)[1] for _ in range(5)] == [False, True, False, False, False]
        with pytest.raises(ValueError, match="the end"):
            next(whole)


def test_pictures_of_another_kind_go_another_way() -> None:
    with av.open(str(Path(__file__)), "r", "rawvideo", {"video_size": "2x2", "pixel_format": "gray"}) as container:
        video = container.streams.video[0]
        kinds = ["yuv420p", "yuv420p", "yuv422p", "gray", "gray"]
        given = [(av.VideoFrame(32, 16 + 16 * (kind == "gray"), kind), False) for kind in kinds]
        found = [(whole.format.name, whole.height) for whole, _ in deinterlaced(given, video)]
    assert found == [("yuv420p", 16), ("yuv420p", 16), ("yuv422p", 16), ("gray", 32), ("gray", 32)]


def test_ways_to_read_that_there_are_not_are_refused() -> None:
    with pytest.raises(InputError, match="deinterlace must be True or False"):
        Playback(deinterlace=1)  # type: ignore[arg-type]
    for rate in ("25", True, 0, -1, 1001, 10**999, 1e-9, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps is a number over 0 and up to 1000"):
            Playback(fps=rate)  # type: ignore[arg-type]
    for record in ({"fps": "1e999999999"}, {"fps": "0"}, {"fps": "1/0"}, {"fps": [1]}, {"deinterlace": "yes"}):
        with pytest.raises((InputError, ValueError, TypeError)):
            Playback.of(record)


def test_a_way_to_read_is_kept_as_json() -> None:
    for playback in (Playback(), Playback(True), Playback(fps=Fraction(24000, 1001)), Playback(fps=23.976)):
        assert Playback.of(playback.record()) == playback
    assert Playback(fps=23.976).rate == Fraction(2997, 125)
    assert Playback.of({}) == Playback()


@pytest.mark.parametrize(("codec", "pix_fmt"), [("qtrle", "rgb24"), ("qtrle", "argb"), ("v210", "yuv422p10le")])
def test_formats_that_the_filter_does_not_take_are_converted(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", [solid((200, 100, 50))] * 3, codec, pix_fmt)
    assert [difference(frame, solid((200, 100, 50))) <= 2 for frame in frames_of(path)] == [True] * 3


def test_a_filter_that_fails_is_an_error_of_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such format")

    path = h264(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(fields, "Graph", broken)
    with pytest.raises(InputError, match=r"breaks off at frame 0, after 0.00 s: no such format"):
        frames_of(path)
    with open_backwards(path, 2, playback=WHOLE) as clip, pytest.raises(InexactSeek, match="no such format"):
        list(clip)
