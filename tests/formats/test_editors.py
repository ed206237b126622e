"""What editors import: movies with alpha, mattes, cut-outs and EXR files, read back by FFmpeg, Pillow and OpenEXR."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.fakes import pictures, register, truth
from tests.formats.samples import exported, write_masks
from tests.video.media import write_video
from vostrack.notes import Code

SIZE = (47, 63)
TIMES = (0, 1, 2, 5, 6, 9)
COUNT = len(TIMES)
PIXELS = {"prores4444": "rgba64le", "ffv1": "rgba", "webm": "rgba"}
MOVIES = {"prores4444": ".mov", "ffv1": ".mkv", "webm": ".webm", "matte-movie": ".mov"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of a clip of an odd size, whose frames last differently long."""
    folder = tmp_path_factory.mktemp("clip")
    frames = [picture[: SIZE[0], : SIZE[1]] for picture in pictures(COUNT)]
    write_video(folder / "clip.mkv", frames, codec="ffv1", pix_fmt="bgr0", stamps=TIMES)
    return write_masks(folder / "run", [mask(index) for index in range(COUNT)])


def mask(index: int) -> np.ndarray:
    return truth(index)[: SIZE[0], : SIZE[1]]


def export(run: Path, name: str, out: Path, **settings: Any) -> dict[str, Any]:
    return vostrack.export(run, name, out, clip=run.parent / "clip.mkv", **settings)


def decoded(path: Path, pixels: str) -> Iterator[tuple[Fraction, np.ndarray]]:
    """Times and pictures, from 0 to 1, of a movie, by the decoder that knows of transparency."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        decoder: Any = video.codec_context
        if decoder.name == "vp9":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        for packet in container.demux(video):
            for frame in decoder.decode(packet if packet.size else None):
                yield (
                    frame.pts * video.time_base,
                    frame.to_ndarray(format=pixels) / (65535 if "16" in pixels or "64" in pixels else 255),
                )


def alpha_of(path: Path, name: str) -> list[tuple[Fraction, np.ndarray]]:
    """Times, and from 0 to 1 what is opaque in a movie, or white in a grey one."""
    if name == "matte-movie":
        return list(decoded(path, "gray"))
    return [(time, values[..., 3]) for time, values in decoded(path, PIXELS[name])]


@pytest.mark.parametrize("name", MOVIES)
def test_a_movie_has_the_masks_the_size_and_the_times_of_the_clip(name: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"a{MOVIES[name]}"
    export(run, name, out, hard=True)
    found = alpha_of(out, name)
    times = [time for time, _ in found]
    assert times == pytest.approx([number / 25 for number in TIMES], abs=0.001)
    for index, (_, covered) in enumerate(found):
        assert covered.shape == SIZE
        assert np.abs(covered - (mask(index) > 0)).mean() < 0.01
        assert np.array_equal(covered > 0.5, mask(index) > 0) or name == "webm"


@pytest.mark.parametrize("name", PIXELS)
def test_a_movie_has_the_colours_of_the_clip(name: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"a{MOVIES[name]}"
    export(run, name, out)
    with vostrack.open_clip(run.parent / "clip.mkv") as clip:
        for frame, (_, values) in zip(clip, decoded(out, PIXELS[name]), strict=True):
            error = values[..., :3] * 255 - frame.image.permute(1, 2, 0).numpy()
            assert np.abs(error).max() < 1e-9 or name != "ffv1"
            for number in (0, 3, 200):  # where chroma has half the size, edges and noise are not as they were
                assert np.abs(np.median(error[mask(frame.index) == number], 0)).max() < 8


def test_each_object_can_have_a_movie(run: Path, tmp_path: Path) -> None:
    export(run, "ffv1", tmp_path / "movies", each=True, hard=True, range=(2, 4))
    for number in (3, 200):
        found = alpha_of(tmp_path / "movies" / f"object_{number}.mkv", "ffv1")
        assert [time for time, _ in found] == pytest.approx([0, 3 / 25, 4 / 25], abs=0.001)
        for index, (_, covered) in enumerate(found, 2):
            assert np.array_equal(covered == 1, mask(index) == number)


@pytest.mark.parametrize(("name", "kept"), [("prores4444", True), ("ffv1", True), ("webm", False)])
def test_sound_is_copied_where_the_container_can_hold_it(name: str, kept: bool, tmp_path: Path) -> None:
    clip = with_sound(write_video(tmp_path / "mute.mp4", pictures(10)), tmp_path / "clip.mp4")
    run = write_masks(tmp_path / "run", [truth(index) for index in range(10)])
    out = tmp_path / f"a{MOVIES[name]}"
    made = vostrack.export(run, name, out, clip=clip)
    codes = [note["code"] for note in made["notes"]]
    assert (str(Code.AUDIO_LEFT_OUT) in codes) is not kept
    assert sound(out) == (sound(clip) if kept else [])


@pytest.mark.parametrize("name", MOVIES)
def test_the_timecode_of_the_clip_is_kept(name: str, tmp_path: Path) -> None:
    def start(stream: Any) -> None:
        stream.metadata["timecode"] = "10:59:59:24"

    clip = write_video(tmp_path / "clip.mov", pictures(6), setup=start)
    run = write_masks(tmp_path / "run", [truth(index) for index in range(6)])
    for first, expected in ((0, "10:59:59:24"), (3, "11:00:00:02")):
        out = tmp_path / f"{first}{MOVIES[name]}"
        vostrack.export(run, name, out, clip=clip, range=(first, 5), hard=True)
        with av.open(str(out)) as container:
            tags = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
            kinds = [stream.type for stream in container.streams]
        assert tags["timecode"] == expected
        assert (kinds[1:] == ["data"]) == (MOVIES[name] == ".mov"), "the track that editors read"


def with_sound(mute: Path, path: Path) -> Path:
    """A clip with noise of 0.4 seconds."""
    with av.open(str(mute)) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        tone: Any = container.add_stream("aac", rate=48000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)
        wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 48 * 400)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for packet in (*tone.encode(frame), *tone.encode(None)):
            container.mux(packet)
    return path


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size] if container.streams.audio else []


@pytest.mark.parametrize("bits", [8, 16])
def test_a_matte_is_a_folder_for_each_object(bits: int, run: Path, tmp_path: Path) -> None:
    export(run, "matte", tmp_path / "mattes", bits=bits, hard=True, only=[200], start_number=1001)
    files = sorted((tmp_path / "mattes" / "object_200").iterdir())
    assert [file.name for file in files] == [f"{number:05d}.png" for number in range(1001, 1001 + COUNT)]
    for index, file in enumerate(files):
        with Image.open(file) as image:
            assert image.mode == ("L" if bits == 8 else "I;16")
            assert np.array_equal(np.array(image), (mask(index) == 200) * ((1 << bits) - 1))


def test_cut_outs_are_the_frame_where_objects_are(run: Path, tmp_path: Path) -> None:
    export(run, "png-rgba", tmp_path / "cut", hard=True)
    with vostrack.open_clip(run.parent / "clip.mkv") as clip:
        for frame in clip:
            with Image.open(tmp_path / "cut" / f"{frame.name}.png") as image:
                values, inside = np.array(image), mask(frame.index) > 0
            assert np.array_equal(values[..., 3], inside * 255)
            assert np.array_equal(values[inside][:, :3], frame.image.permute(1, 2, 0).numpy()[inside])
            assert not values[~inside].any()


@pytest.mark.needs("OpenEXR", "exr")
def test_objects_are_layers_of_an_exr_file(run: Path, tmp_path: Path) -> None:
    import OpenEXR

    export(run, "exr", tmp_path / "exr", hard=True, range=(1, 2), start_number=1001)
    file = OpenEXR.File(str(tmp_path / "exr" / "01002.exr"), separate_channels=True)
    channels = file.channels()
    assert sorted(channels) == ["B", "G", "R", "object_200.Y", "object_3.Y"]
    assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION
    assert file.header()["framesPerSecond"] == Fraction(25)
    for number in (3, 200):
        assert np.array_equal(channels[f"object_{number}.Y"].pixels, mask(2) == number)
    with vostrack.open_clip(run.parent / "clip.mkv") as clip:
        image = [frame.image.numpy() for frame in clip][2] / 255
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    for name, expected in zip("RGB", linear, strict=True):
        assert np.abs(channels[name].pixels - expected).max() < 1e-3


def test_soft_edges_come_from_what_the_run_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, tmp_path / "weights")
    for name, settings in (("soft", {}), ("hard", {"hard": True}), ("wide", {"grow": 2}), ("slim", {"grow": -2})):
        vostrack.export(finished, "matte", tmp_path / name, bits=16, only=["dog"], **settings)
    vostrack.export(finished, "matte", tmp_path / "blurred", only=["dog"], feather=2.0, hard=True)

    def read(name: str, index: int) -> np.ndarray:
        with Image.open(tmp_path / name / "dog" / f"{index:05d}.png") as image:
            return np.array(image) / (255 if name == "blurred" else 65535)

    for index in range(1, 8):
        soft, hard, wide, slim, blurred = (read(name, index) for name in ("soft", "hard", "wide", "slim", "blurred"))
        assert set(np.unique(hard)) == {0, 1}
        assert len(np.unique(soft)) > 20
        assert np.abs(soft - hard).mean() < 0.03
        assert ((soft > 0.5) == (hard > 0.5)).mean() > 0.98
        assert (slim <= soft).all()
        assert (soft <= wide).all()
        assert slim.sum() < soft.sum() < wide.sum()
        assert blurred.sum() == pytest.approx(hard.sum(), rel=0.05)
        assert ((blurred > 0.1) & (blurred < 0.9)).sum() > 40


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (700, 3), (7, 5)])
def test_soft_edges_of_the_smallest_and_the_fullest_masks(size: tuple[int, int], tmp_path: Path) -> None:
    single, full = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    single[-1, -1] = 1
    with exported([single, full, 0 * full], "matte", "", grow=1, feather=0.5) as path:
        for index, expected in enumerate((single, full, 0 * full)):
            with Image.open(path / "object_1" / f"{index:05d}.png") as image:
                found = np.array(image)
            assert found.shape == size
            assert found.any() == expected.any()
            assert (found == 255).all() or index != 1


def test_a_rough_rim_becomes_soft_and_thin_lines_stay() -> None:
    pixels = np.zeros((90, 120), np.uint8)
    pixels[20:70, 20:60] = pixels[25:66:5, 60] = pixels[44, 70:110] = 1
    with exported([pixels], "matte", "") as path, Image.open(path / "object_1" / "00000.png") as image:
        found = np.array(image)
    assert (found[25:66:5, 60] < 200).all(), "they would look like dots"
    assert (found[44, 70:110] == 255).all()
