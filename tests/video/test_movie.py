from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.forks import finish, fork
from vostrack.errors import OutputError
from vostrack.notes import Note
from vostrack.types import Frame, LabelMap, Prediction
from vostrack.video.drawing import draw_overlay
from vostrack.video.movie import later_timecode
from vostrack.video.overlay import OverlayWriter
from vostrack.video.reader import open_clip

FINE = Fraction(1, 15360)
VFR = [Fraction(n, 1000) for n in (0, 40, 60, 400, 433, 1000)]


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth picture that says which frame it is, uint8 (H, W, 3)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [rows * 120 // size[0] + 60, columns * 120 // size[1] + 60, np.full(size, 40 + index * 20 % 180)]
    return np.stack(planes, -1).astype(np.uint8)


def make_source(
    path: Path,
    times: Sequence[Fraction],
    *,
    audio: str | None = None,
    video: str = "libx264",
    options: dict[str, str] | None = None,
    last: Fraction = Fraction(1, 10),
    sound: tuple[float, float] = (0.0, 1.2),
    start: Fraction = Fraction(0),
    size: tuple[int, int] = (48, 64),
) -> Path:
    """A clip with a tone that starts and ends at `sound` seconds; the pictures start at `start`."""
    with av.open(path, "w") as container:
        base = {".webm": Fraction(1, 1000), ".mkv": Fraction(1, 1000), ".avi": Fraction(1, 25)}.get(path.suffix, FINE)
        stream = container.add_stream(
            video, rate=25, width=size[1], height=size[0], options=options or {}, time_base=base
        )
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        tone = container.add_stream(audio, rate=48000) if audio else None
        if tone is not None:
            assert isinstance(tone, av.AudioStream)
            tone.layout = "mono"
        ends = [*times[1:], times[-1] + last]
        held: list[av.Packet[Any]] = []
        for index, (time, end) in enumerate(zip(times, ends, strict=True)):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            frame.pts, frame.time_base = round((start + time) / base), base
            frame.duration = round((end - time) / base)
            held += stream.encode(frame)
        held += stream.encode(None)
        final = round((start + times[-1]) / base)
        for packet in held:
            if packet.pts == final:
                packet.duration = round(last / base)
        if tone is not None:
            assert isinstance(tone, av.AudioStream)
            held += tone_packets(tone, *sound)
        for packet in sorted(held, key=lambda packet: seconds(packet.dts, packet.time_base)):
            container.mux(packet)
    return path


def seconds(count: int | None, base: Fraction | None) -> Fraction:
    assert count is not None
    assert base is not None
    return count * base


def tone_packets(stream: av.AudioStream, begin: float, end: float) -> Iterator[av.Packet[av.AudioStream]]:
    stream.codec_context.open()
    step = stream.codec_context.frame_size or 1024
    rate = 48000
    form = stream.codec_context.format.name
    for offset in range(round(begin * rate), round(end * rate), step):
        wave = np.sin(np.arange(offset, offset + step) * 440 * 2 * np.pi / rate)[None]
        kind, loudest = {"flt": ("f4", 1), "s16": ("i2", 2**15 - 1), "s32": ("i4", 2**31 - 1)}[form.rstrip("p")]
        samples = (wave / 2 * loudest).astype(kind)
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = offset, rate, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def predictions(times: Sequence[Fraction], size: tuple[int, int] = (48, 64)) -> list[Prediction]:
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[10:30, 8:40] = 2
    return [
        Prediction(
            Frame(i, time, torch.from_numpy(picture(i, size).transpose(2, 0, 1).copy()), f"{i:05d}"),
            LabelMap(labels, (2,)),
        )
        for i, time in enumerate(times)
    ]


def overlay(
    folder: Path, given: Sequence[Prediction], source: Path | None = None, fps: Fraction | None = None
) -> tuple[Path, list[Note]]:
    writer = OverlayWriter(folder, source=source, fps=fps)
    for prediction in given:
        writer.write(prediction)
    writer.finish()
    return folder / "overlay.mp4", writer.notes


def shown_times(path: Path) -> tuple[list[Fraction], Fraction]:
    """Times of the frames, and how long the last one lasts."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        last = frames[-1]
        return [seconds(f.pts, f.time_base) for f in frames], seconds(last.duration, last.time_base)


def audio_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(path) as container:
        if not container.streams.audio:
            return []
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.pts is not None]


def follow(source: Path, count: int | None = None) -> tuple[list[Prediction], Fraction | None]:
    """What the engine would give for a source."""
    with open_clip(source) as clip:
        frames = list(itertools.islice(clip, count))
        labels = LabelMap(torch.zeros(clip.size, dtype=torch.uint8), ())
        return [Prediction(frame, labels) for frame in frames], clip.fps


AUDIO = {
    "aac.mp4": ("aac", "libx264"),
    "mp3.mp4": ("libmp3lame", "libx264"),
    "ac3.mkv": ("ac3", "libx264"),
    "opus.webm": ("libopus", "libvpx"),
    "flac.mkv": ("flac", "libx264"),
    "aac.ts": ("aac", "libx264"),
    "pcm.mov": ("pcm_s16le", "libx264"),
}


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("start", [Fraction(0), Fraction(3, 10)])
def test_times_and_audio_of_a_variable_rate_source_are_kept(tmp_path: Path, name: str, start: Fraction) -> None:
    audio, video = AUDIO[name]
    source = make_source(tmp_path / name, VFR, audio=audio, video=video, start=start)
    given, fps = follow(source)
    path, notes = overlay(tmp_path / "out", given, source, fps)
    assert notes == []
    times, _ = shown_times(path)
    assert len(times) == len(VFR)
    assert times == [prediction.frame.time for prediction in given]
    before, after = audio_packets(source), audio_packets(path)
    assert len(after) > 10
    if name != "aac.ts":  # MPEG-TS wraps each packet in a header of its own
        assert [data for _, data in after] == [data for _, data in before]
    first = min(shown_times(source)[0])
    assert len(before) == len(after)
    assert all(abs((a - first) - b) < Fraction(3, 2000) for (a, _), (b, _) in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["aac.mp4", "pcm.mov"])
def test_a_part_of_a_clip_begins_at_0_with_the_audio_that_belongs_to_it(tmp_path: Path, name: str) -> None:
    audio, video = AUDIO[name]
    source = make_source(tmp_path / name, VFR, audio=audio, video=video)
    given, fps = follow(source)
    first, last = given[2].frame.time, given[4].frame.time
    path, notes = overlay(tmp_path / "out", given[2:4], source, fps)
    assert notes == []
    assert shown_times(path) == ([0, given[3].frame.time - first], last - given[3].frame.time)
    start = min(shown_times(source)[0])
    before, after = audio_packets(source), audio_packets(path)
    part = [(time - start - first, data) for time, data in before if first <= time - start < last]
    assert len(part) == len(after) > 0
    assert [data for _, data in part] == [data for _, data in after]
    assert all(abs(a - b) < Fraction(3, 2000) for (a, _), (b, _) in zip(part, after, strict=True))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}], ids=["in order", "reordered"])
def test_last_frame_lasts_as_long_as_in_the_source(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    last = Fraction(1, 4)
    source = make_source(tmp_path / name, VFR, last=last, options=options)
    given, fps = follow(source)
    path, _ = overlay(tmp_path / "out", given, source, fps)
    times, lasts = shown_times(path)
    assert times == [prediction.frame.time for prediction in given]
    assert lasts == shown_times(source)[1]
    # With reordered frames, neither container says exactly when the last one ends.
    assert name == "clip.mkv" or options["bf"] == "3" or lasts == last


def test_packets_of_the_overlay_are_not_reordered(tmp_path: Path) -> None:
    path, _ = overlay(tmp_path, predictions([Fraction(i, 24) for i in range(20)]))
    with av.open(path) as container:
        packets = [(p.pts, p.dts) for p in container.demux(video=0) if p.pts is not None]
    assert len(packets) == 20
    assert all(pts == dts for pts, dts in packets)
    assert packets[0] == (0, 0)


@pytest.mark.parametrize("fps", [None, Fraction(30000, 1001), Fraction(60), Fraction(24000, 1001)])
def test_folder_of_images_gives_a_constant_rate(tmp_path: Path, fps: Fraction | None) -> None:
    rate = fps or Fraction(24)
    given = predictions([i / rate for i in range(10)])
    path, _ = overlay(tmp_path, given, fps=fps)
    times, lasts = shown_times(path)
    assert times == [i / rate for i in range(10)]
    assert lasts == 1 / rate


def test_one_frame_lasts_one_frame(tmp_path: Path) -> None:
    path, _ = overlay(tmp_path, predictions([Fraction(0)]))
    assert shown_times(path) == ([Fraction(0)], Fraction(1, 24))


def test_no_frame_gives_no_file(tmp_path: Path) -> None:
    path, _ = overlay(tmp_path, [])
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (47, 64), (1, 1), (33, 1)])
def test_colours_and_size_are_those_of_the_drawing(tmp_path: Path, size: tuple[int, int]) -> None:
    given = predictions([Fraction(0), Fraction(1, 24)], size)
    path, _ = overlay(tmp_path, given)
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    height, width = size
    assert (frames[0].height, frames[0].width) == (height + height % 2, width + width % 2)
    assert (frames[0].colorspace, frames[0].color_range, frames[0].color_primaries, frames[0].color_trc) == (1, 1, 1, 1)
    for prediction, frame in zip(given, frames, strict=True):
        drawn = draw_overlay(prediction.frame.image, prediction.labels.pixels.numpy())
        seen = frame.to_ndarray(format="rgb24")
        # The padding repeats the border.
        assert np.abs(seen[-1].astype(int) - seen[-2 if height > 1 else -1]).mean() < 12
        difference = np.abs(seen[:height, :width].astype(int) - drawn)
        # Half the colour resolution: lines of one pixel are off, surfaces are not.
        assert np.median(difference) <= 4
        assert difference.mean() < 8


def copy_overlay(source: Path, folder: Path) -> None:
    given, fps = follow(source)
    overlay(folder, given, source, fps)


def test_same_predictions_give_the_same_pictures(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clip.mp4", VFR, audio="aac")
    given, fps = follow(source)
    paths = [overlay(tmp_path / str(run), given, source, fps)[0] for run in range(2)]
    process = fork(tmp_path / "log", copy_overlay, source, tmp_path / "2")
    assert finish(process, tmp_path / "log") == (0, "", "")
    movies = [decoded(path) for path in (*paths, tmp_path / "2" / "overlay.mp4")]
    assert movies[0][0] == movies[1][0] == movies[2][0]
    # Not byte for byte: x264 encodes the same pictures otherwise now and then.
    assert all(np.abs(movie[1] - movies[0][1]).mean() < 2 for movie in movies)


def decoded(movie: Path) -> tuple[list[int | None], np.ndarray]:
    with av.open(str(movie)) as container:
        frames = list(container.decode(video=0))
    return [each.pts for each in frames], np.stack([each.to_ndarray(format="rgb24") for each in frames]).astype(
        np.int16
    )


def test_number_of_threads_does_not_depend_on_the_machine(tmp_path: Path) -> None:
    path, _ = overlay(tmp_path, predictions([Fraction(0)], (480, 64)))
    assert b" threads=1 " in path.read_bytes()  # x264 notes its options in the stream


def test_index_comes_first_so_that_the_file_streams(tmp_path: Path) -> None:
    data = overlay(tmp_path, predictions([Fraction(0)]))[0].read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("name", "audio"), [("clip.mov", "pcm_alaw"), ("clip.nut", "pcm_mulaw")])
def test_audio_that_mp4_cannot_hold_is_left_out_with_a_note(tmp_path: Path, name: str, audio: str) -> None:
    source = make_source(tmp_path / name, VFR, audio=audio)
    given, fps = follow(source)
    path, notes = overlay(tmp_path / "out", given, source, fps)
    assert notes == [f"no audio in the overlay: an MP4 file cannot hold {audio}"]
    assert audio_packets(path) == []
    assert shown_times(path)[0] == [prediction.frame.time for prediction in given]


def test_source_that_is_gone_costs_the_audio_only(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clip.mp4", VFR, audio="aac")
    given, fps = follow(source)
    source.unlink()
    path, notes = overlay(tmp_path / "out", given, source, fps)
    assert len(notes) == 1
    assert "clip.mp4 cannot be read again" in notes[0]
    assert [round(time, 3) for time in shown_times(path)[0]] == VFR


def test_source_that_is_cut_costs_only_the_audio_behind_the_cut(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clip.mkv", VFR, audio="ac3")
    given, fps = follow(source)
    before = audio_packets(source)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    path, _ = overlay(tmp_path / "out", given, source, fps)
    after = audio_packets(path)
    assert 0 < len(after) < len(before)
    assert shown_times(path)[0] == VFR


def test_damaged_audio_does_not_cost_the_video(tmp_path: Path) -> None:
    source = make_source(tmp_path / "clip.ts", VFR, audio="aac")
    data = bytearray(source.read_bytes())
    with av.open(source) as container:
        marks = [data.index(bytes(p)[:20]) for p in container.demux(audio=0) if p.pts is not None and p.size > 20]
    for mark in marks[10:]:
        data[mark + 1 : mark + 4] = b"\xf1\xff\xff"  # a sampling rate that does not exist
    source.write_bytes(data)
    given, fps = follow(source)
    path, notes = overlay(tmp_path / "out", given, source, fps)
    assert len(notes) == 1
    assert "clip.ts is damaged" in notes[0]
    assert shown_times(path)[0] == [prediction.frame.time for prediction in given]
    assert 8 < len(audio_packets(path)) < len(marks)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_audio_ends_with_the_video_when_only_the_first_frames_are_written(tmp_path: Path, name: str) -> None:
    times = [Fraction(i, 25) for i in range(50)]
    source = make_source(tmp_path / name, times, audio="ac3", sound=(0, 2), last=Fraction(1, 25))
    given, fps = follow(source, 10)
    path, _ = overlay(tmp_path / "out", given, source, fps)
    after = audio_packets(path)
    assert Fraction(35, 100) < after[-1][0] < Fraction(41, 100)


@pytest.mark.parametrize(
    ("name", "audio", "options"),
    [("clip.mp4", "aac", {}), ("clip.avi", "libmp3lame", {"bf": "0"}), ("clip.avi", "ac3", {"bf": "3"})],
)
def test_audio_that_lasts_longer_than_the_video_is_kept(
    tmp_path: Path, name: str, audio: str, options: dict[str, str]
) -> None:
    times = [Fraction(i, 25) for i in range(20)]
    source = make_source(tmp_path / name, times, audio=audio, sound=(0, 3), last=Fraction(1, 25), options=options)
    given, fps = follow(source)
    path, _ = overlay(tmp_path / "out", given, source, fps)
    before, after = audio_packets(source), audio_packets(path)
    assert [data for _, data in after] == [data for _, data in before]
    assert after[-1][0] > Fraction(28, 10)
    # AVI keeps no presentation times: with reordered frames, its first one is shown late.
    assert options.get("bf") == "3" or abs(after[0][0] - before[0][0]) < Fraction(1, 1000)
    assert shown_times(path)[0] == [prediction.frame.time for prediction in given]


def test_nothing_has_the_final_name_before_the_end_and_abort_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "overlay.mp4").write_bytes(b"old")
    writer = OverlayWriter(tmp_path, source=None, fps=None)
    for prediction in predictions([Fraction(i, 24) for i in range(30)]):
        writer.write(prediction)
    assert (tmp_path / "overlay.mp4").read_bytes() == b"old"
    assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
    writer.abort()
    writer.abort()
    assert {path.name for path in tmp_path.iterdir()} == {"overlay.mp4"}
    assert (tmp_path / "overlay.mp4").read_bytes() == b"old"
    OverlayWriter(tmp_path, source=None, fps=None).abort()


def test_times_that_fall_together_are_kept_apart(tmp_path: Path) -> None:
    given = predictions([Fraction(0), Fraction(1, 10**7), Fraction(1, 25)])
    times, _ = shown_times(overlay(tmp_path, given)[0])
    assert times == [0, Fraction(1, 90000), Fraction(1, 25)]


def test_paths_that_look_like_addresses_or_patterns_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path / "clip.mp4", VFR, audio="aac")
    odd = source.rename(tmp_path / "http:clip%03d.mp4")
    monkeypatch.chdir(tmp_path)
    given, fps = follow(odd)
    path, notes = overlay(Path("file:out%d"), given, Path(odd.name), fps)
    assert notes == []
    assert len(audio_packets(path.absolute())) == len(audio_packets(odd))


def test_folder_that_is_a_file_or_final_name_that_is_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    given = predictions([Fraction(0)])
    with pytest.raises(OutputError, match="file of this name"):
        overlay(tmp_path / "file", given)
    (tmp_path / "out" / "overlay.mp4").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder of this name is in the way"):
        overlay(tmp_path / "out", given)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["overlay.mp4"]


def write_limited(folder: Path, size: int) -> None:
    """Overlays that may have so many bytes at most, from none to one too few; prints how many of them failed."""
    import resource

    folder.mkdir()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    given = predictions([Fraction(i, 24) for i in range(40)], (96, 128))
    failed: list[str] = []
    for limit in [*range(0, size, max(size // 12, 1)), size - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        writer = OverlayWriter(folder, source=None, fps=None)
        try:
            for prediction in given:
                writer.write(prediction)
            writer.finish()
        except OutputError as error:
            failed.append(str(error))
            writer.abort()
        assert not list(folder.iterdir()), limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert all("larger than" in text for text in failed), failed
    print(len(failed))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_every_limit_of_the_file_size_is_noticed(tmp_path: Path) -> None:
    path, _ = overlay(tmp_path, predictions([Fraction(i, 24) for i in range(40)], (96, 128)))
    size = path.stat().st_size
    path.unlink()
    log = tmp_path / "log"
    code, printed, said = finish(fork(log, write_limited, tmp_path / "out", size), log)
    assert code == 0, said
    assert int(printed) >= 12


NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "expected"),
    [
        ("01:00:00:00", 0, Fraction(24), "01:00:00:00"),
        ("01:00:00:23", 1, Fraction(24), "01:00:01:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:00;00", 17982, NTSC, "00:10:00;00"),
        ("00:00:00;00", 1800, NTSC, "00:01:00;02"),
        ("00:00:59;59", 1, 2 * NTSC, "00:01:00;04"),
        ("00:00:59;24", 1, Fraction(25), "00:01:00;00"),
        ("23:59:59;29", 1, NTSC, "00:00:00;00"),
        ("00:00:00:25", 0, Fraction(25), None),
        ("24:00:00:00", 0, Fraction(25), None),
        ("0:00:00:00", 0, Fraction(25), None),
        ("", 0, Fraction(25), None),
        ("00:00:00:00", 0, Fraction(1000), None),
    ],
)
def test_timecodes_go_on(timecode: str, frames: int, rate: Fraction, expected: str | None) -> None:
    assert later_timecode(timecode, frames, rate) == expected
