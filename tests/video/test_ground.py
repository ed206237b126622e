"""Tests for `vostrack.video.ground`: masks as programs write them, whose background is not plainly black."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.video.mask_samples import BLUE, RED, SIZE, WHITE, Pixels, boxes, check, read
from vostrack.errors import MaskError
from vostrack.video.ground import Reading
from vostrack.video.masks import read_mask, read_prompts
from vostrack.video.palette import palette_image

WIDE = (90, 160)


def on(ground: npt.ArrayLike, *values: npt.ArrayLike) -> Pixels:
    """The boxes of `boxes` on another ground than black."""
    placed = boxes(*range(1, len(values) + 1))
    image = np.empty((*SIZE, *np.shape(ground)), np.uint8)
    image[:] = ground
    for number, value in enumerate(values, 1):
        image[placed == number] = value
    return image


def layer(
    colors: list[tuple[int, int, int]], hidden: npt.ArrayLike = (0, 0, 0), opacity: float = 1, scale: int = 4
) -> Pixels:
    """Discs with smooth edges on transparency, RGBA of `WIDE`, as paint programs save a layer.

    Args:
        colors: of the discs.
        hidden: the colour under alpha 0.
        opacity: of the brush.
        scale: how finely edges are smoothed.
    """
    image = np.zeros((*WIDE, 4), np.uint8)
    image[..., :3] = hidden
    for place, color in enumerate(colors):
        disc = Image.new("L", (WIDE[1] * scale, WIDE[0] * scale))
        left = 20 + 50 * place
        ImageDraw.Draw(disc).ellipse((left * scale, 20 * scale, (left + 40) * scale, 60 * scale), fill=255)
        alpha = np.asarray(disc.resize(WIDE[::-1], Image.Resampling.BOX)) * opacity
        image[alpha > 0, :3] = color
        image[..., 3] = np.maximum(image[..., 3], alpha.astype(np.uint8))
    return image


def refusal(folder: Path, image: Image.Image | Pixels, name: str = "mask.png") -> str:
    with pytest.raises(MaskError) as error:
        read(folder, image, name)
    return str(error.value)


def areas(pixels: np.ndarray) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(pixels, return_counts=True)), strict=True))


class TestPaintPrograms:
    @pytest.mark.parametrize("hidden", [(0, 0, 0), WHITE, (90, 40, 10)])
    @pytest.mark.parametrize("premultiplied", [False, True])
    def test_smooth_colours_on_transparency(self, tmp_path: Path, hidden: npt.ArrayLike, premultiplied: bool) -> None:
        image = layer([RED, BLUE], hidden)
        if premultiplied:
            image[..., :3] = image[..., :3] * (image[..., 3:] / 255)
        mask = read(tmp_path, image)
        found = areas(mask.labels.pixels.numpy())
        assert set(found) == {0, 1, 2}
        assert "colours became objects: #0000ff = 1, #ff0000 = 2" in mask.notes
        assert not any("opaque" in note for note in mask.notes)
        assert found[1] == pytest.approx(np.pi * 20**2, rel=0.05)
        assert found[2] == pytest.approx(np.pi * 20**2, rel=0.05)

    def test_blended_where_two_colours_meet(self, tmp_path: Path) -> None:
        image = layer([RED])
        red = image[..., 3] > 0
        rows, columns = np.nonzero(red & (np.arange(WIDE[1]) >= 40))
        for row, column in zip(rows, columns, strict=True):
            share = min((column - 40) / 8, 1)
            image[row, column, :3] = (int(255 * (1 - share)), 0, int(255 * share))
        found = areas(read(tmp_path, image).labels.pixels.numpy())
        assert set(found) == {0, 1, 2}
        assert found[0] > 0.9 * (WIDE[0] * WIDE[1] - red.sum())

    def test_marker_that_is_not_opaque(self, tmp_path: Path) -> None:
        found = areas(read(tmp_path, layer([RED, BLUE], opacity=0.45)).labels.pixels.numpy())
        assert set(found) == {0, 1, 2}
        assert found[1] == pytest.approx(np.pi * 20**2, rel=0.05)

    def test_marker_beside_an_opaque_brush_is_pointed_out(self, tmp_path: Path) -> None:
        image = np.where(np.arange(WIDE[1])[:, None] < 65, layer([RED, BLUE]), layer([RED, BLUE], opacity=0.45))
        mask = read(tmp_path, image.astype(np.uint8))
        assert mask.labels.ids == (1,)
        assert "areas that are 45% opaque are background, as others are 100%" in " ".join(mask.notes)

    def test_grainy_brushes_are_pointed_out(self, tmp_path: Path) -> None:
        image = layer([RED, BLUE])
        grain = np.random.default_rng(0).normal(0, 40, (*WIDE, 3))
        image[..., :3] = np.clip(image[..., :3] + grain, 0, 255)
        mask = read(tmp_path, image)
        assert mask.labels.ids == (1,)
        assert "its colours are not flat, so all that is opaque became one object" in " ".join(mask.notes)

    def test_black_painted_on_transparency_is_pointed_out(self, tmp_path: Path) -> None:
        mask = read(tmp_path, layer([RED, (0, 0, 0)]))
        assert mask.labels.ids == (1,)
        assert "black is background where it is opaque too" in " ".join(mask.notes)

    @pytest.mark.parametrize("ground", [WHITE, (40, 90, 200)])
    def test_painted_over_an_opaque_ground(self, tmp_path: Path, ground: tuple[int, int, int]) -> None:
        image = on(ground, RED, (0, 255, 0))
        said = refusal(tmp_path, image)
        assert f"mask.png has no background: {ground} covers 82% of the frame and 100% of its border" in said
        assert f"use `background={ground}`, if it is an object, `no_background=True`" in said
        check(read(tmp_path, image, reading={"background": ground}), boxes(2, 1))

    def test_erased_from_an_opaque_photo(self, tmp_path: Path) -> None:
        photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        image = np.dstack([photo, 255 - boxes(255)])
        assert "use `invert_mask=True`" in refusal(tmp_path, image)
        check(read(tmp_path, image, reading={"invert": True}), boxes(1))

    @pytest.mark.parametrize("transparent", [False, True])
    def test_smooth_edges_reduced_to_a_palette(self, tmp_path: Path, transparent: bool) -> None:
        image = layer([RED, BLUE])
        if not transparent:
            image = (image[..., :3] * (image[..., 3:] / 255)).astype(np.uint8)
        method = Image.Quantize.FASTOCTREE if transparent else Image.Quantize.MEDIANCUT
        mask = read(tmp_path, Image.fromarray(image).quantize(64, method, dither=Image.Dither.NONE))
        found = areas(mask.labels.pixels.numpy())
        assert set(found) == {0, 1, 2}
        assert found[1] == pytest.approx(np.pi * 20**2, rel=0.05)


class TestMattingTools:
    @pytest.mark.parametrize("ground", [(0, 0, 0), WHITE, (0, 177, 64)])
    @pytest.mark.parametrize("name", ["bmx-trees", "soapbox"])
    def test_cutout_on_a_ground(self, dev_data: Path, tmp_path: Path, name: str, ground: tuple[int, int, int]) -> None:
        with Image.open(dev_data / f"davis16/Annotations/480p/{name}/00000.png") as image:
            inside = np.asarray(image)[..., None] > 0
        with Image.open(dev_data / f"davis16/JPEGImages/480p/{name}/00000.jpg") as photo:
            cutout = np.where(inside, np.asarray(photo), ground).astype(np.uint8)
        assert "looks like a picture, not a mask" in refusal(tmp_path, cutout)

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    @pytest.mark.parametrize("blur", [0, 2])
    def test_television_range(self, tmp_path: Path, ending: str, mode: str, blur: int) -> None:
        image = Image.new("L", WIDE[::-1], 16)
        ImageDraw.Draw(image).ellipse((-20, 20, 90, 110), fill=235)
        sharp = np.asarray(image) == 235
        image = image.filter(ImageFilter.GaussianBlur(blur))
        mask = read(tmp_path, image.convert(mode), f"mask.{ending}")
        assert mask.labels.ids == (1,)
        assert ((mask.labels.pixels.numpy() == 1) != sharp).mean() < 0.01
        assert "grey values from 16 to 235 were taken as black to white" in mask.notes

    @pytest.mark.parametrize("quality", [75, 85, 95])
    def test_colours_in_television_range(self, dev_data: Path, tmp_path: Path, quality: int) -> None:
        with Image.open(dev_data / "davis17-dev/Annotations/480p/bmx-trees/00000.png") as image:
            ids = np.asarray(image)
        colors = np.array([(16, 16, 16), (16, 16, 235), (235, 16, 16)], np.uint8)
        mask = read(tmp_path, colors[ids], "mask.jpg", quality=quality)
        assert mask.labels.ids == (1, 2)
        assert (mask.labels.pixels.numpy() != ids).mean() < 0.001

    def test_trimap_in_television_range(self, tmp_path: Path) -> None:
        check(read(tmp_path, on(16, 126, 235)), boxes(1, 2))

    def test_inverted(self, tmp_path: Path) -> None:
        matte = Image.new("L", WIDE[::-1], 255)
        ImageDraw.Draw(matte).ellipse((40, 20, 110, 110), fill=0)  # it touches the border
        matte = matte.filter(ImageFilter.GaussianBlur(1))
        said = refusal(tmp_path, matte)
        assert "if that is the background, use `invert_mask=True`, if it is an object, `no_background=True`" in said
        mask = read(tmp_path, matte, reading={"invert": True})
        assert mask.labels.ids == (1,)
        assert mask.labels.pixels[50, 75] == 1
        assert mask.labels.pixels[5, 5] == 0

    def test_inverted_within_a_frame(self, tmp_path: Path) -> None:
        image = np.zeros(WIDE, np.uint8)
        image[2:-2, 2:-2] = 255
        image[40:50, 70:80] = 0
        assert "255 covers 92% of the frame and 0% of its border" in refusal(tmp_path, image)

    def test_margin_around_the_frame(self, tmp_path: Path) -> None:
        image = np.full((*WIDE, 3), WHITE, np.uint8)
        image[2:-2, 2:-2] = 0
        image[40:50, 70:80] = RED
        assert "(255, 255, 255) covers 7% of the frame and 100% of its border" in refusal(tmp_path, image)

    def test_several_objects_are_not_inverted(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError, match="has 2 objects, and only one can be inverted: name the ground by"):
            read(tmp_path, boxes(1, 2), reading={"invert": True})


class TestPlottingLibraries:
    # The lowest and the highest colour of matplotlib's maps.
    @pytest.mark.parametrize(
        ("low", "high"),
        [
            ((68, 1, 84), (253, 231, 36)),  # viridis
            ((31, 119, 180), (23, 190, 207)),  # tab10
            ((0, 0, 127), (127, 0, 0)),  # jet
            ((13, 8, 135), (240, 249, 33)),  # plasma
        ],
    )
    @pytest.mark.parametrize("alpha", [False, True])
    def test_colour_maps(
        self, tmp_path: Path, low: tuple[int, int, int], high: tuple[int, int, int], alpha: bool
    ) -> None:
        image = on(low, high)
        if alpha:  # imsave writes it
            image = np.dstack([image, np.full(SIZE, 255, np.uint8)])
        assert f"use `background={low}`" in refusal(tmp_path, image)
        check(read(tmp_path, image, reading={"background": low}), boxes(1))

    @pytest.mark.parametrize("low", [(0, 0, 3), (10, 0, 0)])  # magma, hot
    def test_colour_maps_from_nearly_black(self, tmp_path: Path, low: tuple[int, int, int]) -> None:
        mask = read(tmp_path, on(low, (252, 253, 191)))
        check(mask, boxes(1))
        assert mask.notes[0] == f"{low}, nearly black, is the background"


class TestLabellingTools:
    @pytest.mark.parametrize("ground", [(1, 1, 1), (12, 9, 14)])
    def test_nearly_black_ground(self, tmp_path: Path, ground: tuple[int, int, int]) -> None:
        check(read(tmp_path, on(ground, RED, WHITE)), boxes(1, 2))
        check(read(tmp_path, on(ground, WHITE)), boxes(1))

    def test_classes_from_one(self, tmp_path: Path) -> None:
        mask = read(tmp_path, on(1, 2, 3))
        check(mask, boxes(2, 3))
        assert mask.notes == ("1, nearly black, is the background",)

    def test_ground_that_is_not_the_darkest(self, tmp_path: Path) -> None:
        image = on(2, 1, 3)
        assert "2 covers 82% of the frame" in refusal(tmp_path, image)
        check(read(tmp_path, image, reading={"background": 2}), boxes(1, 3))

    def test_white_ground(self, tmp_path: Path) -> None:
        assert "use `invert_mask=True`" in refusal(tmp_path, on(255, 0))
        check(read(tmp_path, on(255, 0), reading={"invert": True}), boxes(1))
        check(read(tmp_path, on(255, 0), reading={"background": 255}), boxes(1))
        check(read(tmp_path, on(255, 0, 100), reading={"background": 255}), boxes(1, 2))
        check(read(tmp_path, on(WHITE, RED, (0, 0, 0)), reading={"background": WHITE}), boxes(2, 1))

    def test_palette_sorted_by_a_program(self, tmp_path: Path) -> None:
        image = Image.fromarray(on((0, 0, 0), RED, BLUE)).quantize(8)
        assert sorted(set(np.asarray(image).ravel().tolist())) == [0, 1, 2]
        for order in itertools.permutations(range(3)):
            sorted_ = image.remap_palette([*order])
            by_index = not any((sorted_.getpalette() or [])[:3])
            mask = read(tmp_path, sorted_)
            assert mask.labels.ids == (1, 2)
            assert mask.labels.pixels.numpy()[4:14, 9].max() == 0
            if not by_index:
                check(mask, boxes(2, 1))

    def test_palette_with_a_transparent_ground(self, tmp_path: Path) -> None:
        image = palette_image(on(5, 0, 1))
        check(read(tmp_path, image, transparency=5), boxes(0, 1))

    def test_palette_whose_ground_has_another_index(self, tmp_path: Path) -> None:
        image = palette_image(on(3, 0, 1))
        assert "use `background=3`" in refusal(tmp_path, image)
        for background in (3, (128, 128, 0)):
            mask = read(tmp_path, image, reading={"background": background})
            check(mask, boxes(2, 1))
            assert "0 is not the background: it became object 2" in mask.notes

    def test_palette_with_colours_of_its_own_for_the_ground(self, tmp_path: Path) -> None:
        image = Image.fromarray(boxes(1, 2), "L")
        image.putpalette([120, 120, 120, 180, 120, 120, 6, 230, 230])  # as of ADE20K
        check(read(tmp_path, image), boxes(1, 2))

    def test_unlabelled_pixels_around_are_void(self, tmp_path: Path) -> None:
        image = on(255, 1)
        assert "255 covers 91% of the frame" in refusal(tmp_path, palette_image(image))
        check(read(tmp_path, palette_image(image), reading={"background": 255}), boxes(1))

    def test_every_pixel_of_an_object(self, tmp_path: Path) -> None:
        image = np.repeat([[3, 4]], SIZE[0], 0).repeat(SIZE[1] // 2, 1).astype(np.uint8)
        assert "mask.png has no background: 3 covers 50%" in refusal(tmp_path, palette_image(image))
        check(read(tmp_path, palette_image(image), reading={"no_background": True}), image)

    def test_files_of_a_folder(self, tmp_path: Path) -> None:
        Image.fromarray(255 - boxes(255)).save(tmp_path / "1.png")
        with pytest.raises(MaskError, match=r"1\.png has no background"):
            read_mask(tmp_path, SIZE)
        check(read_mask(tmp_path, SIZE, invert=True), boxes(1))
        halves = np.arange(SIZE[1]) < 16
        for number, part in enumerate((halves, ~halves), 1):
            Image.fromarray(np.broadcast_to(part, SIZE)).save(tmp_path / f"{number}.png")
        with pytest.raises(MaskError, match="leave no background: leave out that of the ground"):
            read_mask(tmp_path, SIZE)


class TestArrays:
    def test_a_ground_that_does_not_reach_all_sides(self) -> None:
        image = on(2, 1, 3)
        image[:2] = 0  # the values of OpenCV's grabCut: 2 is probably background
        with pytest.raises(MaskError, match="2 covers 73% of the frame and 69% of its border"):
            read_prompts({0: image}, SIZE)

    def test_ground_of_another_value(self) -> None:
        for image, words in ((on(1, 2), "`background=1`"), (boxes(1) == 0, "`invert_mask=True`")):
            with pytest.raises(MaskError, match=words):
                read_prompts({0: image}, SIZE)
        labels = read_prompts({0: on(1, 2)}, SIZE, Reading(background=1))[0][0]
        np.testing.assert_array_equal(labels.pixels.numpy(), boxes(2))
        with pytest.raises(MaskError, match="has nothing of the background 3; it has 1, 2"):
            read_prompts({0: on(1, 2)}, SIZE, Reading(background=3))


class TestObjectsThatFillTheFrame:
    def test_is_said(self, tmp_path: Path) -> None:
        assert "paint the background black, or use `no_background=True`" in refusal(
            tmp_path, np.full(SIZE, 255, np.uint8)
        )
        check(read(tmp_path, np.full(SIZE, 255, np.uint8), reading={"no_background": True}), np.full(SIZE, 1))
        check(read(tmp_path, on(1, 2), reading={"no_background": True}), on(1, 2))

    def test_large_objects_are_read_as_ever(self, tmp_path: Path) -> None:
        image = Image.new("L", (160, 90))
        ImageDraw.Draw(image).ellipse((-30, 10, 190, 190), fill=255)  # touches three sides, over half of the frame
        mask = read(tmp_path, image)
        assert mask.labels.ids == (1,)
        assert mask.notes == ()

    def test_real_masks(self, dev_data: Path) -> None:
        files = sorted((dev_data / "davis16/Annotations/480p").glob("*/*.png"))
        assert len(files) > 100
        for path in files[::40]:
            with Image.open(path) as image:
                has_object = np.asarray(image).any()
                size = (image.height, image.width)
            if has_object:
                assert read_mask(path, size).notes == ()


@pytest.mark.parametrize("background", [256, -1, True, "white", (1, 2), (0, 0, 300), 1.5, [1, 2, 3]])
def test_wrong_backgrounds(background: object) -> None:
    with pytest.raises(MaskError, match="background must be a number from 0 to 255 or three of them"):
        Reading(background=background)  # type: ignore[arg-type]


@pytest.mark.parametrize("light", [255, 250])
@pytest.mark.parametrize("square", [4, 16])
def test_a_chequered_ground_is_called_one(light: int, square: int, tmp_path: Path) -> None:
    """Screenshots of a cutout, and cutouts saved without transparency, show the squares that stand for it."""
    image = np.where((np.indices(WIDE) // square).sum(0)[..., None] % 2, 204, light).repeat(3, 2).astype(np.uint8)
    image[20:60, 50:100] = RED
    assert "has a chequered ground, which some programs save in place of transparency" in refusal(tmp_path, image)
