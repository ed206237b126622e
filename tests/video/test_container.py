"""What `open_clip` does with video files that are damaged, or made to do harm."""

from __future__ import annotations

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.media import corners, difference, jpeg, noise, ramp, read, refusal, solid, write_packets, write_video
from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video.container import Clock
from vostrack.video.reader import open_clip


def test_a_file_whose_index_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", noise(20))
    path.write_bytes(path.read_bytes()[:-2000])
    assert "expected a complete video" in refusal(path)


def test_a_file_that_is_cut_inside_a_frame_says_so(tmp_path: Path) -> None:
    path = write_packets(tmp_path / "clip.avi", [jpeg(image) for image in noise(20)], (64, 96))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip, frames = read(path)
    assert 8 <= len(frames) <= 11
    assert clip.notes == [
        f"damaged frames: 1 ({len(frames) - 1}); those that build on them may look broken too",
        f"the file promises 20 frames, {len(frames)} could be decoded",
    ]


def test_frames_that_the_container_promised_in_vain_are_noted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", noise(20), "mpeg4", container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        sixth = container.streams.video[0].index_entries[6].pos
    path.write_bytes(path.read_bytes()[:sixth])
    clip, frames = read(path)
    assert len(frames) == 6
    assert clip.notes == ["the file promises 20 frames, 6 could be decoded"]


def test_a_damaged_frame_is_an_error_that_says_which(tmp_path: Path) -> None:
    pictures = [jpeg(image) for image in noise(8)]
    pictures[5] = b"\0" * 400
    path = write_packets(tmp_path / "clip.avi", pictures, (64, 96))
    frames: list[Frame] = []
    with pytest.raises(InputError, match=r"breaks off at frame 5, after 0\.16 s"), open_clip(path) as clip:
        frames.extend(clip)
    assert len(frames) == 5


def test_a_stream_that_starts_in_the_middle_is_read_from_the_first_frame_that_can_be(tmp_path: Path) -> None:
    pictures = [b"\0" * 400, b"\1" * 400, jpeg(corners()), jpeg(solid((9, 9, 9), (48, 80)))]
    clip, frames = read(write_packets(tmp_path / "clip.avi", pictures, (48, 80)))
    assert [frame.index for frame in frames] == [0, 1]
    assert frames[0].time == 0
    assert difference(frames[0], corners()) <= 12
    assert clip.notes == ["the start is missing: 2 frames cannot be decoded; frame 0 is the first that can"]


def test_a_video_without_a_frame_that_can_be_decoded_is_refused(tmp_path: Path) -> None:
    assert "cannot be decoded" in refusal(write_packets(tmp_path / "clip.avi", [b"\0" * 400] * 3, (48, 80)))


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.y4m"
    path.write_text("YUV4MPEG2 W64 H48 F25:1\n")
    assert "holds no frame" in refusal(path)


def test_a_change_of_size_is_refused_where_it_happens(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", ramp(3))
    large = write_video(tmp_path / "large.h264", ramp(3, (96, 80)))
    path = tmp_path / "clip.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert "changes its size at frame 3: 80x96 after 64x48" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is no video " * 100, "expected a complete video"),
        (os.urandom(50_000), "expected a complete video"),
        (b"", "is empty"),
    ],
    ids=["text", "garbage", "empty"],
)
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_text_is_not_drawn_as_a_film(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a line\n" * 100)
    assert "is a text file" in refusal(path)


@pytest.mark.parametrize(("ending", "codec", "step"), [("mp4", "libx264", 97), ("wmv", "wmv2", 17)])
def test_damage_ends_in_an_input_error_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, codec: str, step: int
) -> None:
    whole = write_video(tmp_path / f"whole.{ending}", noise(4, (32, 32)), codec).read_bytes()
    path = tmp_path / f"clip.{ending}"
    refused = 0
    for start in range(0, 2000, step):
        path.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
        try:
            read(path)
        except InputError:
            refused += 1
    assert refused
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", ["W9000 H9000", "W4000 H4000 A1000:1"])
def test_a_header_does_not_decide_how_much_memory_is_taken(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "clip.y4m"
    frame = b"FRAME\n" + b"\0" * (4000 * 4000 * 3 // 2 if "A" in shape else 100)
    path.write_bytes(f"YUV4MPEG2 {shape} F25:1 Ip C420jpeg\n".encode() + frame)
    assert "67108864 pixels are accepted" in refusal(path)


def test_a_stream_may_not_grow_over_the_limit_of_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vostrack.video.container.DECODER_OPTIONS", {"max_pixels": "10000"})
    small = write_video(tmp_path / "small.h264", ramp(3), options={"tune": "zerolatency"})
    large = write_video(tmp_path / "large.h264", ramp(3, (480, 640)), options={"tune": "zerolatency"})
    path = tmp_path / "clip.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert "changes its size" not in refusal(path), "the decoder took the large frame in"


@pytest.mark.parametrize("name", ["list.mp4", "list.ffconcat"])
def test_a_list_may_not_open_other_files(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "clip.mp4", ramp(2))
    path = tmp_path / name
    path.write_text("ffconcat version 1.0\nfile clip.mp4\n")
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 2, "FFmpeg itself would follow this list"
    assert refusal(path)


def test_a_playlist_may_not_open_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.ts", noise(20))
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nclip.ts\n#EXT-X-ENDLIST\n")
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 20, "FFmpeg itself would follow this list"
    assert "names other files" in refusal(path)
    monkeypatch.setattr("vostrack.video.reader.PLAYLISTS", set())
    monkeypatch.setattr("vostrack.video.reader._LISTS", ())
    assert "cannot be opened" in refusal(path)


@pytest.mark.parametrize("address", ["http://example.org/clip.mp4", "file:///clip.mp4", "rtsp://camera"])
def test_addresses_are_refused(address: str) -> None:
    assert "download it first" in refusal(address)


def times(stamps: list[int | None]) -> list[float]:
    """What a clock of 10 ticks a second and 1 frame a second makes of stamps."""
    clock = Clock(Fraction(1, 10), Fraction(1))
    return [float(clock.read(stamp)) for stamp in stamps]


def test_stamps_that_rise_are_kept_from_the_first_frame_on() -> None:
    assert times([70, 75, 95, 195]) == [0, 0.5, 2.5, 12.5]


def test_the_first_frame_may_have_a_negative_stamp() -> None:
    assert times([-20, -10, 5]) == [0, 1, 2.5]


def test_a_missing_stamp_is_one_frame_after_the_last() -> None:
    assert times([None, None, None]) == [0, 1, 2]
    assert times([100, None, 120]) == [0, 1, 2]


def test_stamps_that_begin_late_continue_from_the_frames_before() -> None:
    assert times([None, None, 5000, 5010]) == [0, 1, 2, 3]


def test_a_repeated_stamp_leaves_those_after_it_as_they_are() -> None:
    assert times([0, 10, 10, 20, 30]) == [0, 1, 1.1, 2, 3]


def test_stamps_that_start_anew_follow_the_last_frame() -> None:
    assert times([0, 10, 20, 0, 10, 20]) == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_time_always_rises(stamps: list[int | None]) -> None:
    clock = Clock(Fraction(1, 90000), Fraction(1001, 30000))
    read = [clock.read(stamp) for stamp in stamps]
    assert read[:1] in ([], [0])
    assert all(before < after for before, after in pairwise(read))
