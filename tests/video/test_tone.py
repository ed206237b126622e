from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.media import difference, pixels, read, solid, write_video, yuv
from vostrack.notes import Code
from vostrack.video.tone import ToneMapper

BT2020 = 9
TRANSFERS = {"PQ": 16, "HLG": 18}
PATCHES = np.random.default_rng(0).integers(0, 1024, (60, 3)) * 64
PATCHES[:10] = np.linspace(0, 65535, 10)[:, None]
PATCHES[10:16] = [[65535, 0, 0], [0, 65535, 0], [0, 0, 65535], [30000, 0, 0], [40000, 30000, 2000], [1, 1, 1]]


def pq_signal(light: float) -> float:
    """ST 2084, equation 5.2, of cd/m2."""
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def pq_light(signal: float) -> float:
    """ST 2084, equation 4.1."""
    root = signal ** (1 / 78.84375)
    return 10000 * (max(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def hlg_lights(signals: list[float]) -> list[float]:
    """BT.2100, tables 5: inverse OETF and OOTF, of a display of 1,000 cd/m2."""
    scene = [s * s / 3 if s <= 0.5 else (math.exp((s - 0.55991073) / 0.17883277) + 0.28466892) / 12 for s in signals]
    luma = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2]
    return [1000 * luma**0.2 * part if luma else 0.0 for part in scene]


def eetf(light: float) -> float:
    """BT.2390, from 1,000 to 203 cd/m2, without a lift of black."""
    share = pq_signal(light) / pq_signal(1000)
    most = pq_signal(203) / pq_signal(1000)
    knee = 1.5 * most - 0.5
    if share >= knee:
        t = (share - knee) / (1 - knee)
        share = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return pq_light(share * pq_signal(1000))


def mapped(signals: list[float], kind: str, wide: bool) -> list[float]:
    """What a colour becomes, from 0 to 255, step by step from the recommendations."""
    lights = [min(pq_light(s), 1000) for s in signals] if kind == "PQ" else hlg_lights(signals)
    gain = eetf(max(lights)) / max(lights) / 203 if max(lights) else 0
    r, g, b = (light * gain for light in lights)
    if wide:
        r, g, b = (
            1.6605 * r - 0.5876 * g - 0.0728 * b,
            -0.1246 * r + 1.1329 * g - 0.0083 * b,
            -0.0182 * r - 0.1006 * g + 1.1187 * b,
        )
    return [255 * min(max(part, 0), 1) ** (1 / 2.4) for part in (r, g, b)]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("kind", TRANSFERS)
def test_colours_are_those_of_the_recommendations(kind: str, wide: bool) -> None:
    planes = list(PATCHES.T.astype(np.uint16)[:, None])
    found = np.stack([plane[0] for plane in ToneMapper(kind == "HLG", wide)(planes)], 1)
    wanted = [mapped([value / 65535 for value in patch], kind, wide) for patch in PATCHES.tolist()]
    assert np.abs(found - np.array(wanted)).max() < 1.5


def test_a_picture_in_bands_is_what_its_rows_are() -> None:
    rows = np.random.default_rng(1).integers(0, 65536, (3, 7, 50000)).astype(np.uint16)
    mapper = ToneMapper(False)
    whole = mapper(list(rows))
    for number in range(7):
        alone = mapper([plane[number : number + 1] for plane in rows])
        assert all(np.array_equal(a[number], b[0]) for a, b in zip(whole, alone, strict=True))


def test_white_of_both_kinds_is_as_bright() -> None:
    white = [
        ToneMapper(hlg)([np.full((1, 1), round(share * 65535), np.uint16)] * 3)
        for hlg, share in [(False, 0.58), (True, 0.75)]
    ]
    values = [int(plane[0, 0]) for planes in white for plane in planes]
    assert max(values) - min(values) <= 1
    assert 220 < min(values) < 240


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx265", "yuv420p10le"), ("ffv1", "yuv444p10le"), ("ffv1", "gbrp10le")]
)
@pytest.mark.parametrize("kind", TRANSFERS)
def test_a_clip_of_high_range_looks_as_in_standard_range_and_says_so(
    tmp_path: Path, kind: str, codec: str, pix_fmt: str
) -> None:
    ramp = np.broadcast_to(np.linspace(0, 65535, 128)[None, :, None], (64, 128, 3)).astype(np.uint16)
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format="rgb48le")
    picture = source.reformat(format=pix_fmt, dst_colorspace="bt2020" if pix_fmt.startswith("yuv") else None)

    def tagged(stream: av.VideoStream) -> None:
        context = stream.codec_context
        context.color_trc, context.color_primaries = TRANSFERS[kind], BT2020
        if pix_fmt.startswith("yuv"):
            context.colorspace, context.color_range = BT2020, 1

    # without bframes=0, libx265 now and then leaves the decoding time of a lone picture unset
    options = {"x265-params": "log-level=none:crf=4:bframes=0"} if codec == "libx265" else {}
    clip, frames = read(write_video(tmp_path / "clip.mkv", [picture], codec, pix_fmt, setup=tagged, options=options))

    notes = {note.code: str(note) for note in clip.notes}
    assert notes.keys() == {Code.CLIP_BITS, Code.CLIP_HDR}
    assert notes[Code.CLIP_HDR] == f"high dynamic range ({kind}), tone-mapped to standard range"
    shown = pixels(frames[0])[32].astype(int)
    assert shown[0].max() <= 3
    assert shown[-1].min() >= 253
    assert (np.diff(shown[:, 1]) >= -1).all()
    assert np.abs(shown - [mapped([x / 127] * 3, kind, True) for x in range(128)]).max() <= 5


def test_ten_bits_of_standard_range_stay_as_they_are(tmp_path: Path) -> None:
    pictures = [yuv((200, 100, 50), BT2020, full=False, pix_fmt="yuv420p10le")]

    def tagged(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_trc = BT2020, 14

    clip, frames = read(write_video(tmp_path / "clip.mkv", pictures, "ffv1", "yuv420p10le", setup=tagged))
    assert difference(frames[0], solid((200, 100, 50), (32, 32))) <= 1
    assert clip.notes == ["10-bit source, reduced to 8 bits"]
