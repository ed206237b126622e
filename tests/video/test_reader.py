from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from torch import Tensor

from tests.video.media import (
    RATE,
    difference,
    jpeg,
    noise,
    pixels,
    ramp,
    read,
    refusal,
    solid,
    write_video,
)
from vostrack.errors import InputError
from vostrack.notes import Code
from vostrack.types import FrameStream
from vostrack.video.pixels import PictureConverter
from vostrack.video.reader import number_notes, open_clip, read_header


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "count"),
    [
        ("mp4", "libx264", "yuv420p", 8),
        ("mp4", "mpeg4", "yuv420p", 8),
        ("mov", "prores_ks", "yuv422p10le", 8),
        ("mkv", "libvpx-vp9", "yuv420p", None),
        ("webm", "libvpx-vp9", "yuv420p", None),
        ("avi", "mjpeg", "yuvj420p", 8),
        ("avi", "libx264", "yuv420p", 8),
        ("gif", "gif", "gray", 8),
        ("ts", "libx264", "yuv420p", None),
        ("h264", "libx264", "yuv420p", None),
        ("flv", "flv", "yuv420p", None),
        ("wmv", "wmv2", "yuv420p", None),
        ("apng", "apng", "rgb24", None),
    ],
)
def test_frames_come_in_order_with_their_times(
    tmp_path: Path, ending: str, codec: str, pix_fmt: str, count: int | None
) -> None:
    path = write_video(tmp_path / f"clip.one.{ending}", ramp(8), codec, pix_fmt)

    clip, frames = read(path)

    assert isinstance(clip, FrameStream)
    assert (clip.name, clip.size, clip.stored_size) == ("clip.one", (48, 64), (48, 64))
    assert (clip.fps, clip.count) == (RATE, count)
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.name for frame in frames] == [f"{index:05d}" for index in range(8)]
    assert [frame.time for frame in frames] == [Fraction(index, RATE) for index in range(8)]
    assert all(difference(frame, image) <= 6 for frame, image in zip(frames, ramp(8), strict=True))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("first", [0, 5000])
def test_times_of_a_variable_frame_rate_are_exact(tmp_path: Path, ending: str, first: int) -> None:
    stamps = [0, 7, 40, 41, 500, 1033]
    path = tmp_path / f"clip.{ending}"
    write_video(
        path,
        ramp(6),
        stamps=[first + stamp for stamp in stamps],
        time_base=Fraction(1, 1000),
        container_options={"video_track_timescale": "1000"} if ending == "mp4" else None,
    )
    _, frames = read(path)
    assert [frame.time for frame in frames] == [Fraction(stamp, 1000) for stamp in stamps]


def test_frames_that_are_trimmed_away_are_neither_shown_nor_counted(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(
        path,
        ramp(10),
        stamps=range(-4, 6),
        options={"bf": "0"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    clip, frames = read(path)
    assert (clip.count, len(frames), clip.notes) == (6, 6, [])
    assert difference(frames[0], ramp(5)[4]) <= 6


def test_frames_do_not_share_memory(tmp_path: Path) -> None:
    with open_clip(write_video(tmp_path / "clip.mp4", ramp(8))) as clip:
        frames = iter(clip)
        first = next(frames)
        before = first.image.clone()
        for frame in frames:
            frame.image.zero_()
    assert first.image.equal(before)


def test_frames_are_decoded_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    convert = PictureConverter.__call__

    def count_and_convert(self: PictureConverter, picture: av.VideoFrame) -> Tensor:
        converted.append(picture.pts)
        return convert(self, picture)

    monkeypatch.setattr(PictureConverter, "__call__", count_and_convert)
    with open_clip(write_video(tmp_path / "clip.avi", ramp(12), "mjpeg")) as clip:
        for count, _ in enumerate(clip, start=1):
            assert len(converted) == count


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        cover = container.add_stream("mjpeg", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for stream, size in ((cover, (480, 640)), (video, (48, 64)), (video, (48, 64))):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(solid((9, 9, 9), size), format="rgb24")))
        for stream in (cover, video):
            container.mux(stream.encode(None))
    clip, frames = read(path)
    assert (clip.size, len(frames)) == ((48, 64), 2)


def test_a_second_video_is_said(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        for width in (64, 32):
            stream = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for stream in container.streams.video:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(solid((9, 9, 9), (48, stream.width)), format="rgb24"))
            )
            container.mux(stream.encode(None))
    clip, _ = read(path)
    assert "the file has 2 videos: that of 64x48 (stream 0) is used" in clip.notes[0]


def test_a_damaged_clip_is_mended_in_one_way(tmp_path: Path) -> None:
    whole, path = write_video(tmp_path / "whole.mp4", ramp(8)).read_bytes(), tmp_path / "clip.mp4"
    for share in (0.1, 0.3, 0.6, 0.9):  # its index is at the end
        path.write_bytes(whole[: int(share * len(whole))])
        assert "undamaged copy" in (said := refusal(path))
        with pytest.raises(InputError) as caught:
            read_header(path)
        assert str(caught.value).partition(": ")[2].endswith(said.partition("found: ")[2])
    start, end = whole.find(b"mdat") + 4, whole.find(b"moov") - 4
    path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    assert refusal(path).endswith("; get an undamaged copy, or convert it first")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame(format="s16", layout=stream.layout.name, samples=800)
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert "no video stream (found: audio)" in refusal(path)


def song(path: Path, codec: str = "mjpeg", disposition: int = 0) -> Path:
    """A sound with one picture."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream(codec, rate=RATE)
        assert isinstance(cover, av.VideoStream)
        cover.width, cover.height, cover.pix_fmt = 64, 48, {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        cover.disposition = Disposition(disposition)
        audio = container.add_stream("aac", rate=8000)
        silence = np.zeros((audio.layout.nb_channels, 1024), np.float32)
        sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout=audio.layout.name)
        sound.sample_rate = 8000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(solid((9, 9, 9)), format="rgb24")))
        container.mux(cover.encode(None))
    return path


def test_sound_with_a_cover_is_no_video(tmp_path: Path) -> None:
    path = song(tmp_path / "song.mp4", disposition=av.stream.Disposition.attached_pic)
    assert "has no video stream (found: audio, a cover picture)" in refusal(path)


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_a_cover_that_is_not_marked_as_one_is_no_video(tmp_path: Path, codec: str) -> None:
    assert "is sound with a single image, such as a cover, or" in refusal(song(tmp_path / "song.mov", codec))


def test_one_frame_beside_sound_is_pointed_out(tmp_path: Path) -> None:
    clip, frames = read(song(tmp_path / "song.mkv", "libx264"))
    assert len(frames) == 1
    assert clip.notes[0] == "one frame beside sound: this may be a cover picture, not a clip"


def test_tags_that_are_not_unicode_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, ramp(2), setup=lambda stream: stream.metadata.update(title="a clip by ZZZZ"))
    path.write_bytes(path.read_bytes().replace(b"ZZZZ", b"\xe9\xff\xfe\xe9"))
    assert len(read(path)[1]) == 2


@pytest.mark.parametrize("name", ["missing.mp4", "missing\nline.mp4", "\0.mp4", "a" * 5000])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "expected a video file or a folder of images" in refusal(f"{tmp_path}/{name}")


def test_a_similar_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "lucia.mp4").touch()
    meant = refusal(tmp_path / "lucia.mov")
    assert meant == f"cannot find clip '{tmp_path / 'lucia.mov'}'; did you mean {tmp_path / 'lucia.mp4'}?"


def test_masks_with_the_number_of_another_frame_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(3, 7):
        Image.new("RGB", (8, 8)).save(tmp_path / "frames" / f"{number:05}.png")
    with open_clip(tmp_path / "frames") as clip:
        masks: dict[int, object] = {0: "m/00005.png", 1: "4.png", 2: "9.png", 3: np.zeros((8, 8))}
        (note,) = number_notes(masks, clip)
        assert note == "00005.png is used for frame 0; if it is of frame 2, give it as 2:00005.png"
        assert note.code is Code.MASK_NUMBER
    with open_clip(write_video(tmp_path / "clip.mp4", ramp(8))) as clip:
        assert number_notes({0: Path("00000.png"), 1: "1.png", 2: "00003.png", 3: "8.png", 4: "mask.png"}, clip) == []
        assert [note.split()[0] for note in number_notes({0: "00005.png", 3: "2.png"}, clip)] == ["00005.png", "2.png"]


def test_the_number_of_another_frame_is_seen_in_any_name(tmp_path: Path) -> None:
    with open_clip(write_video(tmp_path / "clip.mp4", ramp(10) * 4)) as clip:
        for name in ("h30.png", "clip_00030_mask.png", "clip 30.png"):
            (note,) = number_notes({0: Path(name)}, clip)
            assert note == f"{name} is used for frame 0; if it is of frame 30, give it as 30:{name}"
            assert number_notes({30: name, 29: Path("29.png")}, clip) == []
        plain = ("dog2.png", "mask_v12.png", "dog_30p.png", "IMG_2041.png", "20230112_1200.png", "first.png")
        assert number_notes(dict(zip((0, 3, 4, 5, 6, 7), plain, strict=True)), clip) == []
    for number in range(1032, 1042):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "frames" / f"shot_{number}.png")
    with open_clip(tmp_path / "frames") as clip:
        (note,) = number_notes({0: "shot_1036.png", 1: "shot_1033_mask.png", 2: "frames_00002_mask.png"}, clip)
        assert note == "shot_1036.png is used for frame 0; if it is of frame 4, give it as 4:shot_1036.png"


@pytest.mark.parametrize("name", ["%05d.jpg", "%d.png", "*.jpg", "0000?.png", "[0-9]*.png"])
def test_a_pattern_is_refused_with_the_folder_to_give(tmp_path: Path, name: str) -> None:
    assert f"stands for many files; give the folder '{tmp_path}'" in refusal(tmp_path / name)


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    assert len(read(write_video(tmp_path / "clip [1080p] %d.mp4", ramp(2)))[1]) == 2


def test_standard_input_is_refused() -> None:
    assert "cannot be read from a pipe" in refusal("-")


@pytest.mark.parametrize("address", ["https://example.org/clip.mp4", "s3://bucket/clip.mp4"])
def test_an_address_that_became_a_path_is_still_called_one(address: str) -> None:
    assert refusal(Path(address)) == (
        f"{address!r} is an address, and only files on this machine are read; download it first"
    )


def test_a_lack_of_file_descriptors_is_no_fault_of_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    path = write_video(tmp_path / "clip.mp4", ramp(2))
    monkeypatch.setattr("vostrack.video.container.io.FileIO", exhausted)
    assert "too many open files; raise the limit (ulimit -n)" in refusal(path)
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    monkeypatch.setattr("vostrack.video.images.Image.open", exhausted)
    assert "too many open files; raise the limit (ulimit -n)" in refusal(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    assert "neither a file nor a folder" in refusal(tmp_path / "clip.mp4")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    path = write_video(tmp_path / "clip.mp4", ramp(2))
    monkeypatch.setattr("vostrack.video.container.io.FileIO", forbidden)
    assert "Permission denied" in refusal(path)


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.mp4"
    path.write_text("no video")
    assert r"a\nb.mp4" in refusal(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tiff", "gif", "avif"])
@pytest.mark.parametrize("name", ["image", "image.mjpeg", "image.mp4", "image.jpg"])
def test_a_single_image_is_refused_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / name, kind)
    assert (
        "is a single image, or only its first can be read; put the images of a clip into a folder, each as a file"
        in refusal(tmp_path / name)
    )


@pytest.mark.parametrize("pages", [1, 3])
def test_images_within_a_document_are_no_clip(tmp_path: Path, pages: int) -> None:
    images = [Image.fromarray(image) for image in ramp(pages)]
    images[0].save(tmp_path / "pages.pdf", save_all=True, append_images=images[1:])
    assert "a file of another kind, such as a PDF, that holds JPEG images; " in refusal(tmp_path / "pages.pdf")


@pytest.mark.parametrize("text", ["#EXTM3U\nclip.mp4\n", "ffconcat version 1.0\nfile clip.mp4\n"])
def test_a_list_of_other_files_is_refused_under_any_name(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "clip.mp4", ramp(2))
    (tmp_path / "list.mp4").write_text(text)
    assert "is a list that names other files; give the video itself" in refusal(tmp_path / "list.mp4")


def test_two_versions_of_one_photo_are_a_single_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (32, 32)).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert "is a single image" in refusal(path)


@pytest.mark.parametrize("name", ["clip.mjpeg", "clip.jpg", "clip.mp4", "clip"])
def test_motion_jpeg_without_a_container_is_a_clip_under_any_name(tmp_path: Path, name: str) -> None:
    images = ramp(4)
    (tmp_path / name).write_bytes(b"".join(jpeg(image) for image in images))
    clip, frames = read(tmp_path / name)
    assert [difference(frame, image) <= 6 for frame, image in zip(frames, images, strict=True)] == [True] * 4
    assert clip.notes == []


def test_images_in_one_file_are_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.bin"
    for image in ramp(4):
        Image.fromarray(image).save(tmp_path / "image.png")
        path.write_bytes((path.read_bytes() if path.exists() else b"") + (tmp_path / "image.png").read_bytes())
    _, frames = read(path)
    assert [difference(frame, image) for frame, image in zip(frames, ramp(4), strict=True)] == [0] * 4


@pytest.mark.parametrize("ending", ["webp", "gif", "png", "avif"])
def test_an_animation_is_a_clip_with_its_own_times(tmp_path: Path, ending: str) -> None:
    images = [Image.fromarray(image) for image in ramp(4)]
    path = tmp_path / f"clip.{ending}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 40, 120, 40], lossless=True)
    clip, frames = read(path)
    assert (clip.name, clip.size, clip.notes) == ("clip", (48, 64), [])
    assert [frame.time for frame in frames] == [0, Fraction(1, 25), Fraction(2, 25), Fraction(5, 25)]
    assert [frame.name for frame in frames] == ["00000", "00001", "00002", "00003"]
    assert all(difference(frame, image) <= 6 for frame, image in zip(frames, ramp(4), strict=True))


def test_an_animation_that_is_cut_off_is_an_error_that_says_where(tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    images = [Image.fromarray(image) for image in noise(4)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    path.write_bytes(path.read_bytes()[:-9000])
    assert "animation" in refusal(path)
    assert "cannot be read" in refusal(path)


def test_a_clip_is_read_once(tmp_path: Path) -> None:
    with open_clip(write_video(tmp_path / "clip.mp4", ramp(2))) as clip:
        assert len(list(clip)) == 2
        with pytest.raises(RuntimeError, match="read already"):
            iter(clip)


def test_close_may_be_called_again_and_ends_reading(tmp_path: Path) -> None:
    clip = open_clip(write_video(tmp_path / "clip.mp4", ramp(8)))
    frames = iter(clip)
    next(frames)
    clip.close()
    clip.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(frames)
    with pytest.raises(RuntimeError, match="closed"):
        iter(clip)


@pytest.mark.parametrize("damaged", [False, True])
def test_files_are_closed(tmp_path: Path, damaged: bool) -> None:
    path = write_video(tmp_path / "clip.mp4", ramp(2))
    if damaged:
        path.write_bytes(path.read_bytes()[:-500])
    before = len(os.listdir("/proc/self/fd"))
    try:
        read(path)
    except InputError:
        assert damaged
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.data
def test_every_development_clip_is_read_whole(dev_data: Path) -> None:
    for path in sorted((dev_data / "clips").glob("*.mp4"))[:12]:
        clip, frames = read(path)
        assert len(frames) == clip.count
        assert clip.fps is not None
        assert abs(float(frames[-1].time) - (len(frames) - 1) / clip.fps) < 0.3
        assert pixels(frames[-1]).std() > 1
