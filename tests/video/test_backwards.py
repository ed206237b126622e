from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.video.media import noise, read, write_video
from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video import backwards
from vostrack.video.backwards import InexactSeek, open_backwards

COUNT = 70


def moving(count: int = COUNT) -> list[np.ndarray]:
    """Images that show their number, and hardly compress."""
    images = noise(count, (64, 96))
    for index, image in enumerate(images):
        image[:8] = 3 * index
    return images


def same(one: Frame, other: Frame) -> bool:
    return (one.index, one.time, one.name) == (other.index, other.time, other.name) and torch.equal(
        one.image, other.image
    )


def check(path: Path, last: int, *, seek: bool = True) -> None:
    """Fails unless reading back from a frame gives what reading forwards gives, in the other order."""
    _, forwards = read(path)
    with open_backwards(path, last, seek) as clip:
        back = list(clip)
        assert clip.size == (forwards[0].image.shape[1], forwards[0].image.shape[2])
    assert [frame.index for frame in back] == list(range(last, -1, -1))
    assert all(map(same, back, forwards[last::-1]))


VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"g": "30", "bf": "3"}},
    "open.mp4": {"options": {"x264-params": "open-gop=1:keyint=30:min-keyint=30:bframes=3:scenecut=0"}},
    "hevc.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "open-gop=1:keyint=30:min-keyint=30:bframes=3"},
    },
    "one.mp4": {},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "30"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "ffv1.mkv": {"codec": "ffv1"},
    "prores.mov": {"codec": "prores_ks"},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "h264.ts": {"options": {"g": "30", "bf": "3"}},
    "vfr.mp4": {"stamps": [index * index + index for index in range(COUNT)], "time_base": Fraction(1, 1000)},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_is_read_backwards_by_its_key_frames(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, moving(), **VIDEOS[name])
    if not name.endswith(".ts"):
        check(path, COUNT - 1)
        check(path, 40)
    check(path, 33, seek=False)


@pytest.mark.parametrize("name", ["mpeg2.ts", "h264.ts", "mpeg4.avi", "mjpeg.avi"])
def test_frames_are_right_or_it_says_that_they_may_not_be(name: str, tmp_path: Path) -> None:
    codec = {"mpeg2": "mpeg2video", "h264": "libx264"}.get(name.split(".")[0], name.split(".")[0])
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, moving(), codec, pix_fmt, options={"g": "12"})
    try:
        check(path, COUNT - 1)
    except InexactSeek:
        check(path, COUNT - 1, seek=False)


@pytest.mark.parametrize("start", range(8))
def test_a_damaged_video_gives_the_same_frames_or_is_not_entered_in_the_middle(start: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving(), options={"g": "30", "bf": "3"})
    data = bytearray(path.read_bytes())
    place = len(data) * (start + 1) // 10
    data[place : place + 400] = noise(1, (10, 40))[0].tobytes()[:400]
    path.write_bytes(data)
    count = len(read(path)[1])
    try:
        check(path, count - 1)
    except InexactSeek:
        check(path, count - 1, seek=False)


def test_a_video_that_was_trimmed_is_read_as_it_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving(), options={"g": "30"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        video = source.streams.video[0]
        out = cut.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.pts is not None and packet.dts is not None and packet.duration:
                packet.pts, packet.dts = packet.pts - 20 * packet.duration, packet.dts - 20 * packet.duration
                packet.stream = out
                cut.mux(packet)
    try:
        check(tmp_path / "cut.mp4", 20)
    except InexactSeek:
        check(tmp_path / "cut.mp4", 20, seek=False)


def test_a_folder_and_an_animation_are_read_backwards(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    images = [Image.fromarray(image) for image in moving(12)]
    for index, image in enumerate(images):
        image.save(folder / f"x{index}.png")
    check(folder, 11)
    check(folder, 5)
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=40, lossless=True)
    check(tmp_path / "a.webp", 9)


@pytest.mark.parametrize("seek", [True, False])
def test_frames_that_are_many_go_through_a_file(seek: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backwards, "IN_MEMORY", 4 * 64 * 96 * 3)
    check(write_video(tmp_path / "a.mp4", moving()), 50, seek=seek)


def test_a_clip_that_is_shorter_begins_with_its_last_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving(12))
    with open_backwards(path, 20) as clip, pytest.raises(InexactSeek):
        list(clip)
    with open_backwards(path, 20, seek=False) as clip:
        assert [frame.index for frame in clip] == list(range(11, -1, -1))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", moving(12))
    real: Callable[..., Any] = tempfile.TemporaryFile

    def full(**settings: Any) -> Any:
        file = real(**settings)

        class Full:
            def __enter__(self) -> Full:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def write(self, data: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    monkeypatch.setattr(backwards, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with open_backwards(path, 11) as clip, pytest.raises(InputError, match=r"no room .* set TMPDIR"):
        list(clip)
