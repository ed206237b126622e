"""Tests for `vostrack.video.masks`."""

from __future__ import annotations

import errno
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.video.mask_samples import BLUE, GREEN, RED, SIZE, WHITE, Pixels, boxes, check, read
from vostrack.errors import MaskError
from vostrack.types import LabelMap
from vostrack.video.ground import Reading
from vostrack.video.masks import GivenMask, read_mask, read_prompts
from vostrack.video.palette import PALETTE, palette_image


class TestFolders:
    def test_natural_order_where_names_have_no_numbers(self, tmp_path: Path) -> None:
        for name, value in (("ear.png", 1), ("Dog.png", 2)):
            Image.fromarray(boxes(1, 2) == value).save(tmp_path / name)
        (tmp_path / "readme.txt").write_text("x")
        (tmp_path / ".hidden.png").write_bytes(b"")
        mask = read_mask(tmp_path, SIZE)
        check(mask, boxes(2, 1))
        assert mask.notes == ("files became objects in the order of their names: Dog.png = 1, ear.png = 2",)

    def test_later_file_covers_earlier(self, tmp_path: Path) -> None:
        Image.fromarray(boxes(255, 255)).save(tmp_path / "2.png")
        Image.fromarray(boxes(0, 255)).save(tmp_path / "10.png")
        mask = read_mask(tmp_path, SIZE)
        check(mask, boxes(2, 10))
        assert mask.notes == ("70 pixels belong to several files; the later file has them",)

    def test_empty_file_and_void(self, tmp_path: Path) -> None:
        Image.fromarray(boxes(0)).save(tmp_path / "1.png")
        palette_image(boxes(5, 255)).save(tmp_path / "2.png")
        mask = read_mask(tmp_path, SIZE)
        check(mask, boxes(2, 255))
        assert mask.notes == ("1.png is empty: there is no object 1",)

    def test_masks_of_frames_are_no_objects(self, tmp_path: Path) -> None:
        for frame in range(5):
            Image.fromarray(boxes(255)).save(tmp_path / f"{frame:05}.png")
        with pytest.raises(MaskError, match="seems to hold the masks of 5 frames"):
            read_mask(tmp_path, SIZE)

    def test_several_objects_in_a_file(self, tmp_path: Path) -> None:
        palette_image(boxes(1, 2)).save(tmp_path / "00000.png")
        with pytest.raises(MaskError, match="2 objects, but a folder needs one file per object"):
            read_mask(tmp_path, SIZE)

    @pytest.mark.parametrize("count", [0, 255])
    def test_wrong_number_of_files(self, tmp_path: Path, count: int) -> None:
        for number in range(count):
            (tmp_path / f"{number}.png").touch()
        with pytest.raises(MaskError, match=f"holds {count} images"):
            read_mask(tmp_path, SIZE)


class TestErrors:
    def test_a_similar_name_is_offered(self, tmp_path: Path) -> None:
        (tmp_path / "first.png").touch()
        with pytest.raises(MaskError, match=r"frist.png is missing; did you mean .*first.png\?$"):
            read_mask(tmp_path / "frist.png", SIZE)

    def test_missing_and_not_a_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.png", tmp_path / "a\0b", Path("/dev/zero"), tmp_path / ("x" * 300)):
            with pytest.raises(MaskError):
                read_mask(path, SIZE)

    @pytest.mark.parametrize("value", [0, 255])
    def test_no_object(self, tmp_path: Path, value: int) -> None:
        pixels = np.full(SIZE, value, np.uint8) if value == 0 else boxes((224, 224, 192))
        with pytest.raises(MaskError, match="has no object"):
            read(tmp_path, pixels)

    def test_too_large_ids(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError, match="has the value 300: ids go up to 254"):
            read(tmp_path, np.full(SIZE, 300, np.uint16))

    def test_too_many_colours(self, tmp_path: Path) -> None:
        places = np.arange(1, 301)
        colors = 42 * np.stack([places % 7, places // 7 % 7, places // 49], axis=1).astype(np.uint8)
        parts = colors.reshape(3, 10, 10, 3).repeat(3, 1).repeat(3, 2)
        masks: dict[int, GivenMask] = {
            i: Image.fromarray(np.pad(part, ((i, 2 - i), (i, 2 - i), (0, 0)))) for i, part in enumerate(parts)
        }
        with pytest.raises(MaskError, match="with mask of frame 2 there are more than 254 objects"):
            read_prompts(masks, (32, 32), Reading(no_background=True))

    def test_message_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a\nb.png"
        path.write_bytes(b"no image")
        with pytest.raises(MaskError) as error:
            read_mask(path, SIZE)
        assert "\n" not in str(error.value)
        assert "a\\nb.png is not an image" in str(error.value)

    def test_photo(self, dev_data: Path) -> None:
        with pytest.raises(MaskError, match="looks like a picture, not a mask"):
            read_mask(dev_data / "davis16/JPEGImages/480p/dog/00000.jpg", (480, 854))


class TestFormats:
    @pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0", "icc_profile": b"profile"}, {"save_all": True}])
    def test_ids_in_a_lossless_webp(self, tmp_path: Path, options: dict[str, Any]) -> None:
        ids = np.stack([boxes(1, 2, 7)] * 3, axis=2)
        more: dict[str, Any] = {"append_images": [Image.fromarray(ids * 3)]} if "save_all" in options else {}
        check(read(tmp_path, ids, "mask.webp", lossless=True, **options, **more), ids[..., 0])

    def test_a_lossy_webp_is_cleaned(self, tmp_path: Path) -> None:
        image = np.stack([np.kron(boxes(255), np.ones((8, 8), np.uint8))] * 3, axis=2)
        mask = read(tmp_path, image, "mask.webp", quality=40)
        assert mask.labels.ids == (1,)

    def test_avif_is_an_image(self, tmp_path: Path) -> None:
        image = np.stack([np.kron(boxes(255), np.ones((8, 8), np.uint8))] * 3, axis=2)
        assert read(tmp_path, image, "mask.avif", quality=90).labels.ids == (1,)

    def test_a_lack_of_file_descriptors_is_no_fault_of_the_mask(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(path: Path, mode: str) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        Image.fromarray(boxes(1)).save(tmp_path / "mask.png")
        monkeypatch.setattr(Path, "open", exhausted)
        with pytest.raises(MaskError, match=r"too many open files; raise the limit \(ulimit -n\)"):
            read_mask(tmp_path / "mask.png", SIZE)


def check_boxes(labels: LabelMap, *ids: int) -> None:
    np.testing.assert_array_equal(labels.pixels.numpy(), boxes(*ids))


class TestPrompts:
    def save(self, folder: Path, name: str, image: Pixels) -> str:
        Image.fromarray(image).save(folder / name)
        return str(folder / name)

    def test_several_frames_in_any_order(self, tmp_path: Path) -> None:
        later, first = self.save(tmp_path, "l.png", boxes(7)), self.save(tmp_path, "f.png", boxes(1, 2, 255))
        prompts, notes, *_ = read_prompts({120: later, 5: first}, SIZE)
        assert [(frame, labels.ids) for frame, labels in prompts.items()] == [(5, (1, 2)), (120, (7,))]
        assert notes == [
            "f.png: grey values are object ids, and 255 is void, not an object",
        ]
        assert read_prompts({}, SIZE) == ({}, [], {}, {}, [])

    def test_a_colour_keeps_the_id_of_the_first_mask(self, tmp_path: Path) -> None:
        first = self.save(tmp_path, "f.png", boxes(RED, WHITE))
        colors = [(WHITE,), (RED,), (WHITE, RED, BLUE)]
        others = [self.save(tmp_path, f"{place}.png", boxes(*part)) for place, part in enumerate(colors)]
        prompts, notes, *_ = read_prompts(dict(enumerate([first, *others])), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1, 2), (2,), (1,), (1, 2, 3)]
        check_boxes(prompts[3], 2, 1, 3)
        assert notes[0] == "f.png: colours became objects: #ff0000 = 1, #ffffff = 2"
        assert notes[1] == "0.png: colours became objects: #ffffff = 2"
        assert notes[3] == "2.png: colours became objects: #ff0000 = 1, #ffffff = 2, #0000ff = 3"

    def test_a_free_colour_leaves_ids_of_the_palette_alone(self, tmp_path: Path) -> None:
        paths = [
            self.save(tmp_path, "0.png", PALETTE[boxes(9, 1)]),
            self.save(tmp_path, "1.png", boxes((0, 0, 0), (0, 0, 0), RED)),
        ]
        prompts, _, *_ = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1, 9), (2,)]

    def test_nearly_the_same_colour_of_another_mask(self, tmp_path: Path) -> None:
        paths = [
            self.save(tmp_path, "0.png", boxes((200, 0, 90), (200, 6, 90))),
            self.save(tmp_path, "1.png", boxes((200, 9, 90))),
            self.save(tmp_path, "2.png", boxes((205, 0, 95), (0, 0, 0), (100, 0, 90))),
        ]
        prompts, _, *_ = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1, 2), (1,), (1, 3)]

    @pytest.mark.parametrize("place", [0, 2])
    def test_a_slightly_other_colour_is_a_question(self, tmp_path: Path, place: int) -> None:
        paths = [
            self.save(tmp_path, "first.png", boxes(RED, BLUE)),
            self.save(tmp_path, "later.png", boxes(*[(0, 0, 0)] * place, (0xE5, 0, 0))),
        ]
        with pytest.raises(MaskError) as error:
            read_prompts({0: paths[0], 40: paths[1]}, SIZE)
        assert str(error.value) == (
            "later.png adds #e50000, which is much like #ff0000 of an earlier mask: paint it in #ff0000 if it is "
            "that object; if it is a new one, paint both in this mask"
        )

    def test_a_new_colour_in_the_place_of_an_object_is_a_question(self, tmp_path: Path) -> None:
        paths = [self.save(tmp_path, f"{index}.png", boxes(color, BLUE)) for index, color in enumerate((RED, GREEN))]
        with pytest.raises(MaskError, match="adds #00ff00, which is in the place of #ff0000"):
            read_prompts(dict(enumerate(paths)), SIZE)

    def test_colours_much_alike_in_one_mask_are_two_objects(self, tmp_path: Path) -> None:
        paths = [self.save(tmp_path, f"{i}.png", boxes(RED, *[(0xE5, 0, 0)] * i)) for i in range(2)]
        prompts, _, *_ = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1,), (1, 2)]

    def test_palette_colours_keep_their_ids(self, tmp_path: Path) -> None:
        places = ((1,), (0, 9), (0, 0, 200))
        paths = [self.save(tmp_path, f"{place[-1]}.png", PALETTE[boxes(*place)]) for place in places]
        prompts, notes, *_ = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1,), (9,), (200,)]
        assert notes == []


class TestPages:
    @pytest.mark.parametrize("ending", ["tif", "gif", "png"])
    def test_only_the_first_is_read_and_a_note_says_so(self, tmp_path: Path, ending: str) -> None:
        pages = [Image.fromarray(boxes(color)) for color in (RED, GREEN)]
        mask = read(tmp_path, pages[0], f"mask.{ending}", save_all=True, append_images=pages[1:])
        check(mask, boxes(1))
        assert "it has several pages or frames, and the first alone is read; save others as files of their own" in (
            mask.notes
        )


class TestRealMasks:
    def test_davis(self, dev_data: Path) -> None:
        for name, ids in {
            "davis16/Annotations/480p/dog/00000.png": (1,),
            "davis17-dev/Annotations/480p/bmx-trees/00000.png": (1, 2),
            "davis16-train/Annotations/480p/bear/00077.png": (1,),
        }.items():
            mask = read_mask(dev_data / name, (480, 854))
            assert mask.labels.ids == ids
            assert mask.notes == ()


_in_place = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestSizes:
    def refusal(self, folder: Path, found: tuple[int, int], size: tuple[int, int], **options: object) -> str:
        Image.fromarray(np.full(found, 255, np.uint8)).save(folder / "m.png")
        with pytest.raises(MaskError) as error:
            read_mask(folder / "m.png", size, **options)  # type: ignore[arg-type]
        return str(error.value)

    def test_other_size_of_the_same_shape(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, (72, 128), (108, 192))
        wanted = "m.png is 128x72, the clip is 192x108: draw it on a frame of the clip, or use `resize_mask=True`"
        assert wanted in message

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

    def test_a_label_map_is_resized_too(self) -> None:
        mask = LabelMap(torch.from_numpy(boxes(3, 200)), (3, 7, 200))
        with pytest.raises(MaskError, match="the mask of frame 0 is 32x24, the clip is 64x48"):
            read_prompts({0: mask}, (48, 64))
        prompts, notes, *_ = read_prompts({0: mask}, (48, 64), Reading(resize_mask=True))
        np.testing.assert_array_equal(prompts[0].pixels.numpy(), boxes(3, 200).repeat(2, 0).repeat(2, 1))
        assert prompts[0].ids == (3, 7, 200)
        assert notes == ["mask of frame 0: resized from 32x24 to 64x48"]

    def test_mask_with_the_pixels_of_an_anamorphic_video(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, (72, 96), (72, 128), stored_size=(72, 96))
        assert "before its pixels are made square" in message
        mask = read_mask(tmp_path / "m.png", (72, 128), stored_size=(72, 96), resize=True, no_background=True)
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
            with pytest.raises(MaskError, match=f"{side}x{side}|exceeds limit"):
                read_mask(tmp_path / "m.png", (64, 64), resize=resize)


def encoded(ending: str) -> bytes:
    image = palette_image(boxes(1, 2)) if ending in ("png", "gif") else Image.fromarray(boxes(RED, BLUE))
    file = io.BytesIO()
    image.save(file, ending)
    return file.getvalue()


FILES = {ending: encoded(ending) for ending in ("png", "jpeg", "webp", "tiff", "bmp", "gif")}


def assert_mask_or_error(path: Path, data: bytes) -> None:
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
        assert_mask_or_error(tmp_path / "m.png", data)
        assert_mask_or_error(tmp_path / "m.png", FILES[ending][:16] + data)

    @pytest.mark.parametrize("ending", sorted(FILES))
    def test_truncated(self, tmp_path: Path, ending: str) -> None:
        data = FILES[ending]
        for part in range(32):
            assert_mask_or_error(tmp_path / "m.png", data[: len(data) * part // 32])

    @given(ending=st.sampled_from(sorted(FILES)), changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255))))
    @settings(_in_place, max_examples=150)
    def test_changed_bytes(self, tmp_path: Path, ending: str, changes: list[tuple[int, int]]) -> None:
        data = bytearray(FILES[ending])
        for place, value in changes:
            data[place % len(data)] = value
        if ending == "png":
            data = bytearray(with_checksums(bytes(data)))
        assert_mask_or_error(tmp_path / "m.png", bytes(data))


def with_checksums(png: bytes) -> bytes:
    """Repair the checksums of a PNG, so that changed headers reach the decoder."""
    out, place = png[:8], 8
    while place + 12 <= len(png):
        length = min(struct.unpack(">I", png[place : place + 4])[0], len(png) - place - 12)
        body = png[place + 4 : place + 8 + length]
        out += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return out
