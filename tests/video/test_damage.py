"""What is said of a video that is damaged, or that lost frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.media import RATE, noise, pixels, ramp, read, write_video
from vostrack.video.damage import Damage, Places

BUILDS_ON = "those that build on them may look broken too"


def moving(count: int) -> list[np.ndarray]:
    """A texture that moves, so that its frames build on one another."""
    image = np.kron(noise(1, (16, 40))[0], np.ones((4, 4, 1), np.uint8))
    return [image[:, index : index + 96] for index in range(count)]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def overwritten(path: Path, packet: int, size: int) -> Path:
    """Overwrites bytes in the middle of a packet, by its number in the file."""
    data, payload = path.read_bytes(), packets(path)[packet]
    middle = len(payload) // 2
    at = data.index(payload[middle : middle + 40])
    path.write_bytes(data[:at] + b"\xff" * size + data[at + size :])
    return path


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        ("mp4", "libx264"),
        ("ts", "libx264"),
        ("mkv", "libx264"),
        ("avi", "mpeg4"),
        ("mpg", "mpeg2video"),
        ("mov", "prores_ks"),
        ("avi", "mjpeg"),
        ("wmv", "wmv2"),
    ],
)
def test_damaged_frames_are_counted_and_named(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"clip.{ending}"
    write_video(path, noise(12), codec, setup=lambda stream: setattr(stream.codec_context, "max_b_frames", 0))
    whole, before = read(path)
    clip, frames = read(overwritten(path, 7, size=400 if codec == "prores_ks" else 40))
    assert len(frames) == len(before) == 12
    assert all(np.array_equal(pixels(frames[index]), pixels(before[index])) for index in range(7))
    assert clip.notes == [*whole.notes, f"damaged frames: 1 (7); {BUILDS_ON}"]


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "libx264"), ("ts", "mpeg2video"), ("webm", "libvpx-vp9")])
def test_frames_that_were_lost_show_in_the_times_of_the_others(tmp_path: Path, ending: str, codec: str) -> None:
    stamps = [index for index in range(40) if index not in (12, 13, 30)]
    clip, frames = read(write_video(tmp_path / f"clip.{ending}", ramp(1) * 37, codec, stamps=stamps))
    assert len(frames) == 37
    assert clip.notes == ["missing frames: 3, by the times of the others; after frame 11, 27"]


def test_a_rate_that_varies_is_no_damage(tmp_path: Path) -> None:
    stamps = [0, 40, 71, 120, 300, 340, 420, 500]
    clip, _ = read(write_video(tmp_path / "clip.mkv", ramp(8), stamps=stamps, time_base=Fraction(1, 1000)))
    assert clip.notes == []


@pytest.mark.parametrize("share", [0.3, 0.85])
def test_an_end_that_is_missing_is_noted(tmp_path: Path, share: float) -> None:
    path = write_video(tmp_path / "clip.mkv", noise(50))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    clip, frames = read(path)
    late = 2 - len(frames) / RATE
    assert clip.notes[-1] == f"the last frame ends {late:.2f} s before the file says: the end may be missing"


def test_packets_without_a_picture_are_noted(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:keyint=10:min-keyint=10:scenecut=0:bframes=0"}
    path = write_video(tmp_path / "clip.ts", noise(30), "libx265", options=options)
    data = path.read_bytes()
    for number in (10, 20):  # without a key frame, what follows cannot be decoded
        at = data.index(packets(path)[number][100:160])
        data = data[: at - 120] + b"\0" * 120 + data[at:]
    path.write_bytes(data)
    clip, frames = read(path)
    assert len(frames) < 28
    assert [note for note in clip.notes if "frames" in note]


def without_start(path: Path, target: Path, dropped: int) -> Path:
    """Copies a video without its first packets."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[dropped:-1]:
            packet.stream = stream
            container.mux(packet)
    return target


@pytest.mark.parametrize(
    ("ending", "codec", "lost"),
    [
        ("mkv", "libx264", 9),
        ("ts", "mpeg2video", 9),
        ("avi", "libx264", 9),
        ("mkv", "libvpx-vp9", 9),
        ("mkv", "mpeg4", 0),
    ],
)
def test_a_start_that_is_missing_is_said(tmp_path: Path, ending: str, codec: str, lost: int) -> None:
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    path = write_video(tmp_path / f"whole.{ending}", moving(30), codec, options=options)
    assert read(path)[0].notes == []
    clip, frames = read(without_start(path, tmp_path / f"cut.{ending}", 1))
    assert len(frames) == 29 - lost
    what = f"{lost} frames cannot be decoded; frame 0 is the first that can"
    builds = "frame 0 builds on frames before it, and may look broken"
    assert clip.notes[0] == f"the start is missing: {what if lost else builds}"


def test_places_are_named_in_runs() -> None:
    places = Places()
    for index in (3, 5, 6, 7, 9, 10):
        places.add(index)
    assert (str(places), places.count) == ("3, 5 to 7, 9 to 10", 6)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=300).map(sorted))
def test_places_are_counted_and_fit_on_a_line(indices: list[int]) -> None:
    places = Places()
    for index in indices:
        places.add(index)
    assert places.count == len(indices)
    assert len(str(places)) < 200


def test_gaps_in_time_are_frames_that_are_missing() -> None:
    damage = Damage(Fraction(1, 25), Fraction(1, 1000))
    times = [Fraction(index, 25) for index in range(60) if index not in (20, 21)]
    for index, time in enumerate(times):
        damage.add(index, time, index in (4, 5))
    assert damage.notes() == [
        f"damaged frames: 2 (4 to 5); {BUILDS_ON}",
        "missing frames: 2, by the times of the others; after frame 19",
    ]
