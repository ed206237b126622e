"""Tests for `vostrack.video.mask_image`: sizes, and files that are damaged or hostile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.video.mask_samples import BLUE, RED, SIZE, boxes, check
from vostrack.errors import MaskError
from vostrack.video.masks import read_mask
from vostrack.video.palette import palette_image

_in_place = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestSizes:
    def refusal(self, folder: Path, found: tuple[int, int], size: tuple[int, int], **options: object) -> str:
        Image.fromarray(np.full(found, 255, np.uint8)).save(folder / "m.png")
        with pytest.raises(MaskError) as error:
            read_mask(folder / "m.png", size, **options)  # type: ignore[arg-type]
        return str(error.value)

    def test_other_size_of_the_same_shape(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, (72, 128), (108, 192))
        assert "m.png is 128x72, the clip is 192x108: draw it on a frame of the clip, or use --resize-mask" in message

    @pytest.mark.parametrize("resize", [False, True])
    def test_other_shape(self, tmp_path: Path, resize: bool) -> None:
        assert "another shape" in self.refusal(tmp_path, (96, 128), (108, 192), resize=resize)

    @pytest.mark.parametrize("resize", [False, True])
    def test_turned(self, tmp_path: Path, resize: bool) -> None:
        assert "turned by 90 degrees: rotate" in self.refusal(tmp_path, (72, 128), (128, 72), resize=resize)
        message = self.refusal(tmp_path, (72, 128), (128, 72), resize=resize, stored_size=(72, 128))
        assert "the video is shown rotated as 72x128" in message
        assert "matches the stored frame 128x72: rotate the mask" in message

    def test_resize_keeps_values(self, tmp_path: Path) -> None:
        palette_image(boxes(3, 200)).save(tmp_path / "m.png")
        mask = read_mask(tmp_path / "m.png", (48, 64), resize=True)
        check(mask, boxes(3, 200).repeat(2, 0).repeat(2, 1))
        assert mask.notes == ("resized from 32x24 to 64x48",)

    def test_mask_with_the_pixels_of_an_anamorphic_video(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, (72, 96), (72, 128), stored_size=(72, 96))
        assert "before its pixels are made square" in message
        mask = read_mask(tmp_path / "m.png", (72, 128), stored_size=(72, 96), resize=True)
        assert mask.labels.size == (72, 128)

    @pytest.mark.parametrize("ending", ["png", "tif", "webp"])
    def test_exif_rotation_is_applied(self, tmp_path: Path, ending: str) -> None:
        image = Image.fromarray(np.rot90(boxes(255)).copy(), "L")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / f"m.{ending}", exif=exif)
        check(read_mask(tmp_path / f"m.{ending}", SIZE), boxes(1))

    @pytest.mark.parametrize("resize", [False, True])
    def test_huge_claims_are_refused_before_decoding(self, tmp_path: Path, resize: bool) -> None:
        for side in (8200, 12000, 65535):
            header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
            chunk = b"IHDR" + header
            data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
            (tmp_path / "m.png").write_bytes(data + b"\0\0\0\0IDAT")
            with pytest.raises(MaskError):
                read_mask(tmp_path / "m.png", (64, 64), resize=resize)


def encoded(ending: str) -> bytes:
    image = palette_image(boxes(1, 2)) if ending in ("png", "gif") else Image.fromarray(boxes(RED, BLUE))
    file = io.BytesIO()
    image.save(file, ending)
    return file.getvalue()


FILES = {ending: encoded(ending) for ending in ("png", "jpeg", "webp", "tiff", "bmp", "gif")}


def try_to_read(path: Path, data: bytes) -> None:
    """Either a valid mask or a `MaskError` of one line comes out."""
    path.write_bytes(data)
    for resize in (False, True):
        message, mask = "", None
        try:
            mask = read_mask(path, SIZE, resize=resize)
        except MaskError as error:
            message = str(error)
        assert "\n" not in message
        assert mask is None or (mask.labels.size == SIZE and mask.labels.ids)


class TestHostileFiles:
    @given(ending=st.sampled_from(sorted(FILES)), data=st.binary(max_size=200))
    @_in_place
    def test_random_bytes(self, tmp_path: Path, ending: str, data: bytes) -> None:
        try_to_read(tmp_path / "m.png", data)
        try_to_read(tmp_path / "m.png", FILES[ending][:16] + data)

    @pytest.mark.parametrize("ending", sorted(FILES))
    def test_truncated(self, tmp_path: Path, ending: str) -> None:
        data = FILES[ending]
        for part in range(32):
            try_to_read(tmp_path / "m.png", data[: len(data) * part // 32])

    @given(ending=st.sampled_from(sorted(FILES)), changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255))))
    @settings(_in_place, max_examples=150)
    def test_changed_bytes(self, tmp_path: Path, ending: str, changes: list[tuple[int, int]]) -> None:
        data = bytearray(FILES[ending])
        for place, value in changes:
            data[place % len(data)] = value
        if ending == "png":
            data = bytearray(with_checksums(bytes(data)))
        try_to_read(tmp_path / "m.png", bytes(data))


def with_checksums(png: bytes) -> bytes:
    """Repair the checksums of a PNG, so that changed headers reach the decoder."""
    out, place = png[:8], 8
    while place + 12 <= len(png):
        length = min(struct.unpack(">I", png[place : place + 4])[0], len(png) - place - 12)
        body = png[place + 4 : place + 8 + length]
        out += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return out
