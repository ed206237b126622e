"""Tests for `vostrack.video.masks`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video.mask_samples import BLUE, RED, SIZE, WHITE, Pixels, boxes, check, read
from vostrack.errors import MaskError
from vostrack.video.masks import read_mask, read_prompts
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
        with pytest.raises(MaskError, match="has the id 300, and ids go up to 254"):
            read(tmp_path, np.full(SIZE, 300, np.uint16))

    def test_too_many_colours(self, tmp_path: Path) -> None:
        paths = []
        for part in range(3):
            color = 3 + 12 * np.stack([np.arange(100) // 10, np.arange(100) % 10, np.full(100, 9 + 2 * part)], axis=1)
            Image.fromarray(color.astype(np.uint8).reshape(10, 10, 3).repeat(3, 0).repeat(3, 1)).save(
                tmp_path / f"{part}.png"
            )
            paths.append(tmp_path / f"{part}.png")
        with pytest.raises(MaskError, match="300 colours, and at most 254 objects"):
            read_prompts(dict(enumerate(paths)), (30, 30))

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


class TestPrompts:
    def save(self, folder: Path, name: str, image: Pixels) -> str:
        Image.fromarray(image).save(folder / name)
        return str(folder / name)

    def test_several_frames_in_any_order(self, tmp_path: Path) -> None:
        later, first = self.save(tmp_path, "l.png", boxes(7)), self.save(tmp_path, "f.png", boxes(1, 2, 255))
        prompts, notes = read_prompts({120: later, 5: first}, SIZE)
        assert [(frame, labels.ids) for frame, labels in prompts.items()] == [(5, (1, 2)), (120, (7,))]
        assert notes == ["f.png: grey values are object ids, and 255 is void, not an object"]
        assert read_prompts({}, SIZE) == ({}, [])

    def test_a_colour_is_the_same_object_in_all_masks(self, tmp_path: Path) -> None:
        first = self.save(tmp_path, "f.png", boxes(RED, WHITE))
        others = [self.save(tmp_path, f"{place}.png", boxes(color)) for place, color in enumerate((WHITE, RED, BLUE))]
        prompts, notes = read_prompts(dict(enumerate([first, *others])), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(2, 3), (3,), (2,), (1,)]
        assert notes[1] == "0.png: colours became objects: #ffffff = 3"

    def test_nearly_the_same_colour_of_another_mask(self, tmp_path: Path) -> None:
        paths = [
            self.save(tmp_path, "0.png", boxes((200, 0, 90), (200, 6, 90))),
            self.save(tmp_path, "1.png", boxes((200, 9, 90))),
            self.save(tmp_path, "2.png", boxes((205, 0, 95), (100, 0, 90))),
        ]
        prompts, _ = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(2, 3), (2,), (1, 2)]

    def test_palette_colours_keep_their_ids(self, tmp_path: Path) -> None:
        paths = [self.save(tmp_path, f"{number}.png", PALETTE[boxes(number)]) for number in (1, 9, 200)]
        prompts, notes = read_prompts(dict(enumerate(paths)), SIZE)
        assert [labels.ids for labels in prompts.values()] == [(1,), (9,), (200,)]
        assert notes == []


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
