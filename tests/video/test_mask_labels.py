"""Tests for `vostrack.video.mask_labels`: which kinds of image mean what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter

from tests.video.mask_samples import BLUE, FULL, GREEN, RED, SIZE, WHITE, Pixels, boxes, check, png16, read
from vostrack.errors import MaskError
from vostrack.video.masks import read_mask
from vostrack.video.palette import PALETTE, palette_image

_in_place = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def maps(ids: st.SearchStrategy[int]) -> st.SearchStrategy[Pixels]:
    """Label maps of any shape with at least one object."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
    return shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=ids)).filter(
        lambda pixels: bool(((pixels > 0) & (pixels < 255)).any())
    )


class TestRoundTrips:
    @given(pixels=maps(st.integers(0, 255)))
    @_in_place
    def test_palette(self, tmp_path: Path, pixels: Pixels) -> None:
        check(read(tmp_path, palette_image(pixels), reading=FULL), pixels)

    @given(pixels=maps(st.integers(0, 15) | st.just(255)))
    @_in_place
    def test_grey_with_small_ids(self, tmp_path: Path, pixels: Pixels) -> None:
        check(read(tmp_path, pixels, reading=FULL), pixels)

    @given(pixels=maps(st.integers(0, 254)))
    @_in_place
    def test_grey_with_any_ids_in_solid_areas(self, tmp_path: Path, pixels: Pixels) -> None:
        assume(len(np.unique(pixels)) <= 128)
        check(read(tmp_path, pixels.repeat(3, 0).repeat(3, 1), reading=FULL), pixels.repeat(3, 0).repeat(3, 1))

    @given(pixels=maps(st.integers(0, 255)))
    @_in_place
    def test_palette_colours(self, tmp_path: Path, pixels: Pixels) -> None:
        # With white, the palette's few greys look like a grey mask.
        assume(255 not in pixels or not set(np.unique(pixels)) <= {0, 7, 56, 63, 255})
        check(read(tmp_path, PALETTE[pixels], reading=FULL), pixels)

    @given(pixels=maps(st.integers(0, 15) | st.just(255)))
    @_in_place
    def test_sixteen_bits(self, tmp_path: Path, pixels: Pixels) -> None:
        check(read(tmp_path, np.where(pixels == 255, 65535, pixels).astype(np.uint16), reading=FULL), pixels)

    @given(pixels=maps(st.integers(0, 254)))
    @settings(_in_place, max_examples=15)
    def test_folder_of_binaries(self, tmp_path_factory: pytest.TempPathFactory, pixels: Pixels) -> None:
        folder = tmp_path_factory.mktemp("objects")
        for number in set(np.unique(pixels).tolist()) - {0}:
            Image.fromarray(pixels == number).save(folder / f"obj_{number}.png")
        check(read_mask(folder, pixels.shape, no_background=True), pixels)

    def test_gif_by_its_colours(self, tmp_path: Path) -> None:
        pixels = boxes(3, 9, 200)
        check(read(tmp_path, Image.fromarray(PALETTE[pixels]), "mask.gif"), pixels)
        check(read(tmp_path, palette_image(pixels), "mask.gif"), pixels)

    @pytest.mark.parametrize("ending", ["tif", "bmp", "webp"])
    def test_other_formats(self, tmp_path: Path, ending: str) -> None:
        pixels = boxes(3, 9, 200)
        options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
        check(read(tmp_path, PALETTE[pixels], f"mask.{ending}", **options), pixels)


class TestValues:
    @pytest.mark.parametrize("value", [1, 7, 128, 254, 255])
    def test_single_grey_value(self, tmp_path: Path, value: int) -> None:
        check(read(tmp_path, boxes(value)), boxes(1 if value == 255 else value))

    def test_one_bit(self, tmp_path: Path) -> None:
        check(read(tmp_path, boxes(1) > 0), boxes(1))

    def test_grey_painted_in_even_steps_is_objects(self, tmp_path: Path) -> None:
        mask = read(tmp_path, boxes(128, 255))
        check(mask, boxes(1, 2))
        assert mask.notes == ("evenly spread grey values became objects: 128 = 1, 255 = 2",)

    def test_white_beside_grey_ids_is_void(self, tmp_path: Path) -> None:
        mask = read(tmp_path, boxes(1, 2, 255))
        check(mask, boxes(1, 2, 255))
        assert "255 is void" in mask.notes[0]

    def test_void_alone_in_a_palette_is_an_object(self, tmp_path: Path) -> None:
        mask = read(tmp_path, palette_image(boxes(255)))
        check(mask, boxes(1))
        assert "taken as object 1" in mask.notes[0]

    def test_palette_in_another_order_is_pointed_out(self, tmp_path: Path) -> None:
        image = Image.fromarray(boxes(1), "L")
        image.putpalette([255, 255, 255, 0, 0, 0])
        assert "index 1 that is black" in read(tmp_path, image).notes[0]

    def test_sixteen_bits_over_the_whole_range(self, tmp_path: Path) -> None:
        check(read(tmp_path, boxes(1).astype(np.uint16) * 65535), boxes(1))

    @pytest.mark.parametrize("step", [256, 257])
    @pytest.mark.parametrize("values", [(1,), (1, 2), (3, 254), (7, 255), (255,)])
    def test_ids_that_were_moved_to_upper_bytes(self, tmp_path: Path, step: int, values: tuple[int, ...]) -> None:
        eight = read(tmp_path, boxes(*values), "eight.png")
        check(read(tmp_path, boxes(*values).astype(np.uint16) * np.uint16(step)), eight.labels.pixels.numpy())

    @pytest.mark.parametrize("white", [255, 65535])
    def test_ids_in_colours_of_sixteen_bits(self, tmp_path: Path, white: int) -> None:
        ids = boxes(3, 7)[..., None].repeat(3, 2).astype(np.uint16)
        opaque = np.full((*SIZE, 1), white)
        for values in (ids, np.dstack([ids, opaque])):
            (tmp_path / "mask.png").write_bytes(png16(values))
            check(read_mask(tmp_path / "mask.png", SIZE), boxes(3, 7))
        (tmp_path / "mask.png").write_bytes(png16(ids * 257))
        check(read_mask(tmp_path / "mask.png", SIZE), boxes(3, 7))

    def test_float_tiff(self, tmp_path: Path) -> None:
        check(read(tmp_path, Image.fromarray(boxes(3).astype(np.float32)), "mask.tif"), boxes(3))
        with pytest.raises(MaskError, match="fractions"):
            read(tmp_path, Image.fromarray(boxes(3).astype(np.float32) / 2), "mask.tif")

    @pytest.mark.parametrize(
        ("kind", "white"), [(np.float32, 1.0), (np.float32, 255.0), (np.uint16, 4095), (np.uint16, 1023)]
    )
    def test_a_soft_matte_of_any_depth(self, tmp_path: Path, kind: type[np.generic], white: float) -> None:
        soft = np.asarray(Image.fromarray(boxes(255)).filter(ImageFilter.GaussianBlur(1))) / 255
        matte = (soft * white).astype(kind)
        mask = read(tmp_path, Image.fromarray(matte), "mask.tif")
        assert mask.labels.ids == (1,)
        assert (mask.labels.pixels.numpy() != (soft >= 0.5)).mean() < 0.05

    @pytest.mark.parametrize("grey", [20, 60, 200])
    def test_white_beside_a_painted_grey_is_a_question(self, tmp_path: Path, grey: int) -> None:
        with pytest.raises(MaskError, match="255 may be an object or void: number the objects"):
            read(tmp_path, boxes(grey, WHITE[0]))

    def test_ids_in_the_alpha_channel_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError, match="an alpha channel of values up to 2 of 255: save ids as a grey image"):
            read(tmp_path, np.dstack([boxes(0, 0), boxes(0, 0), boxes(0, 0), boxes(1, 2)]))

    def test_soft_edges_in_the_palette_of_a_program_are_no_objects(self, tmp_path: Path) -> None:
        size = (SIZE[1] * 8, SIZE[0] * 8)
        disc = Image.new("L", size)
        ImageDraw.Draw(disc).ellipse((40, 30, 160, 150), fill=255)
        soft = disc.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX).convert("RGB").convert("P")
        assert len(np.unique(np.asarray(soft))) > 3
        assert read(tmp_path, soft).labels.ids == (1,)

    def test_a_colour_that_is_transparent_is_background(self, tmp_path: Path) -> None:
        image = np.full((*SIZE, 3), 255, np.uint8)
        image[boxes(1) == 1] = RED
        Image.fromarray(image).save(tmp_path / "key.png", transparency=(255, 255, 255))
        check(read_mask(tmp_path / "key.png", SIZE), boxes(1))

    def test_white_on_black(self, tmp_path: Path) -> None:
        mask = read(tmp_path, boxes(WHITE))
        check(mask, boxes(1))
        assert mask.notes == ()

    def test_own_colours_are_numbered_in_order(self, tmp_path: Path) -> None:
        mask = read(tmp_path, boxes(RED, BLUE, WHITE))
        check(mask, boxes(2, 1, 3))
        assert mask.notes == ("colours became objects: #0000ff = 1, #ff0000 = 2, #ffffff = 3",)

    def test_grey_valued_colours_are_ids(self, tmp_path: Path) -> None:
        check(read(tmp_path, boxes((1, 1, 1), (2, 2, 2))), boxes(1, 2))

    def test_cmyk(self, tmp_path: Path) -> None:
        check(read(tmp_path, Image.fromarray(boxes(RED, BLUE)).convert("CMYK"), "mask.tif"), boxes(2, 1))


class TestLossy:
    @pytest.mark.parametrize("name", ["mask.jpg", "mask.webp"])
    def test_small_ids_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(MaskError, match=r"holds values up to \d+ alone, and compression blurs such small ids"):
            read(tmp_path, boxes(1, 2, 5), name)

    def test_larger_ids_are_pointed_out(self, tmp_path: Path) -> None:
        mask = read(tmp_path, boxes(60, 150).repeat(4, 0).repeat(4, 1), "mask.jpg", quality=95)
        assert len(mask.labels.ids) == 2
        assert mask.notes[-1] == "ids in a lossy format may be off by a little; save them as a PNG"


class TestAlpha:
    def test_cutout_of_a_photo(self, tmp_path: Path) -> None:
        photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        mask = read(tmp_path, np.dstack([photo, boxes(255)]))
        check(mask, boxes(1))
        assert "alpha" in mask.notes[0]

    @pytest.mark.parametrize("color", [(0, 0, 0), (90, 90, 90), RED, WHITE])
    def test_silhouette_of_any_colour_is_object_1(self, tmp_path: Path, color: tuple[int, int, int]) -> None:
        image = np.zeros((*SIZE, 4), np.uint8)
        image[..., :3], image[..., 3] = color, boxes(255)
        check(read(tmp_path, image), boxes(1))

    def test_flat_colours(self, tmp_path: Path) -> None:
        hidden = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        shape = boxes(255, 255, 255)
        colors = np.where(shape[..., None] > 0, boxes(RED, GREEN, (0, 0, 0)), hidden)
        check(read(tmp_path, np.dstack([colors, shape])), boxes(2, 1, 0))

    def test_constant_alpha_is_ignored(self, tmp_path: Path) -> None:
        for alpha in (255, 0):
            image = np.dstack([boxes(255), np.full(SIZE, alpha, np.uint8)])
            check(read(tmp_path, Image.fromarray(image, "LA")), boxes(1))

    def test_grey_with_alpha(self, tmp_path: Path) -> None:
        image = np.dstack([boxes(3, 4), boxes(255, 255)])
        check(read(tmp_path, Image.fromarray(image, "LA")), boxes(3, 4))
