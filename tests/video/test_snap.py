"""Tests for `vostrack.video.snap`, and for what masks with soft edges become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter

from tests.video.mask_samples import Pixels, boxes, check, read
from vostrack.errors import MaskError
from vostrack.video.palette import PALETTE
from vostrack.video.snap import flatten, interior

GRAY_COLORS = {"black": 0, "grey": 128, "white": 255}


def scene(colors: list[object], scale: int = 8) -> Image.Image:
    """Discs of the given colours in a row, each touching the next, on black; drawn large, without smoothing."""
    image = Image.new("L" if isinstance(colors[0], int) else "RGB", (120 * scale, 60 * scale))
    draw = ImageDraw.Draw(image)
    for place, color in enumerate(colors):
        left = (8 + 22 * place) * scale
        draw.ellipse((left, 15 * scale, left + 28 * scale, 43 * scale), fill=color)  # type: ignore[arg-type]
    return image


def smooth(colors: list[object]) -> Image.Image:
    return scene(colors).resize((120, 60), Image.Resampling.BOX)


def touching(colors: tuple[object, ...]) -> Image.Image:
    """Three rectangles that touch one another, on black."""
    image = Image.new("L" if isinstance(colors[0], int) else "RGB", (240, 160))
    for color, box in zip(colors, ((20, 20, 100, 80), (100, 20, 180, 80), (60, 80, 140, 140)), strict=True):
        ImageDraw.Draw(image).rectangle(box, fill=color)  # type: ignore[arg-type]
    return image


def difference(mask: Pixels, colors: list[object], expected: list[int]) -> int:
    """How many pixels of a mask differ from the drawing without smoothing whose colours have the expected ids."""
    numbers = np.asarray(scene(list(expected)).resize((120, 60), Image.Resampling.NEAREST))
    return int((mask != numbers).sum())


class TestSoftEdges:
    @pytest.mark.parametrize(
        ("colors", "ids"),
        [
            ([255], [1]),
            ([128, 255], [1, 2]),
            ([40, 90, 200], [40, 90, 200]),
            ([(255, 255, 255)], [1]),
            ([(255, 0, 0), (0, 255, 0), (128, 128, 0)], [3, 1, 2]),
            ([tuple(color) for color in PALETTE[[1, 2, 200]].tolist()], [1, 2, 200]),
        ],
    )
    def test_antialiased_discs(self, tmp_path: Path, colors: list[object], ids: list[int]) -> None:
        mask = read(tmp_path, smooth(colors))
        assert mask.labels.ids == tuple(sorted(ids))
        assert f"were snapped to the nearest of {len(ids) + 1} labels" in mask.notes[0]
        # Only pixels that an edge cuts in halves may fall to either side.
        assert difference(mask.labels.pixels.numpy(), colors, ids) < 40 * len(ids)

    def test_edge_is_where_the_colour_is_half(self, tmp_path: Path) -> None:
        image = smooth([255])
        check(read(tmp_path, image), np.asarray(image) >= 128)

    def test_note_counts_pixels_and_values(self, tmp_path: Path) -> None:
        image = smooth([255])
        between = np.asarray(image)[(np.asarray(image) > 0) & (np.asarray(image) < 255)]
        assert read(tmp_path, image).notes == (
            f"{len(between)} pixels of {len(np.unique(between))} in-between values (anti-aliased edges or compression) "
            "were snapped to the nearest of 2 labels",
        )

    def test_one_grey_between_black_and_white(self, tmp_path: Path) -> None:
        image = boxes(255)
        image[4:14, 9] = 127
        check(read(tmp_path, image), boxes(1) * (image == 255))

    def test_edge_of_two_colours_does_not_become_a_third(self, tmp_path: Path) -> None:
        image = np.zeros((40, 60, 3), np.uint8)
        image[5:35, 5:20], image[5:35, 20:35], image[5:15, 45:55] = (254, 0, 0), (0, 254, 0), (127, 127, 0)
        soft = Image.fromarray(image.repeat(8, 0).repeat(8, 1)[:, 4:-4]).resize((59, 40), Image.Resampling.BOX)
        mask = read(tmp_path, soft)
        assert (mask.labels.pixels[:, :40] == 2).sum() <= 30  # the column of exactly this colour
        assert len(mask.labels.ids) == 3

    def test_thin_strokes(self, tmp_path: Path) -> None:
        image = Image.new("L", (480, 240))
        ImageDraw.Draw(image).line((10, 10, 470, 200), fill=255, width=6)
        mask = read(tmp_path, image.resize((120, 60), Image.Resampling.BOX))
        assert mask.labels.ids == (1,)
        assert mask.labels.pixels.sum() > 100

    @pytest.mark.parametrize("radius", [1, 4, 8])
    def test_feathered(self, tmp_path: Path, radius: int) -> None:
        image = Image.new("L", (240, 160))
        ImageDraw.Draw(image).rectangle((60, 40, 180, 120), fill=255)
        mask = read(tmp_path, image.filter(ImageFilter.GaussianBlur(radius)))
        assert mask.labels.ids == (1,)
        assert (mask.labels.pixels.numpy() != (np.asarray(image) > 0)).mean() < 0.01

    @pytest.mark.parametrize("radius", [1, 3])
    @pytest.mark.parametrize(
        "colors",
        [
            (200, 40, 90),
            (180, 20, 100),
            ((255, 255, 255), (0, 0, 255), (128, 128, 255)),
            ((255, 0, 0), (0, 255, 0), (128, 128, 0)),
        ],
    )
    def test_feathered_objects_have_no_rims_of_a_third(
        self, tmp_path: Path, colors: tuple[object, ...], radius: int
    ) -> None:
        image = touching(colors)
        sharp = read(tmp_path, image).labels.pixels.numpy()
        soft = read(tmp_path, image.filter(ImageFilter.GaussianBlur(radius))).labels.pixels.numpy()
        assert (soft != sharp).sum() < 20 + 60 * radius

    def test_even_areas_that_become_soft_edges_are_pointed_out(self, tmp_path: Path) -> None:
        mask = read(tmp_path, touching((180, 60, 120)).filter(ImageFilter.GaussianBlur(5)))
        assert mask.labels.ids == (1,)
        assert "even areas of 60, 120 were taken for soft edges; if they are objects, draw with" in mask.notes[1]

    def test_cubic_scaling_with_overshoot(self, tmp_path: Path) -> None:
        small = boxes((236, 95, 103), (153, 199, 148), (250, 200, 99))
        mask = read(tmp_path, Image.fromarray(small).resize((128, 96), Image.Resampling.BICUBIC))
        assert mask.labels.ids == (1, 2, 3)


class TestCompression:
    @pytest.mark.parametrize("quality", [30, 75, 95])
    @pytest.mark.parametrize("ending", ["jpg", "webp"])
    def test_palette_colours(self, tmp_path: Path, quality: int, ending: str) -> None:
        colors: list[object] = [tuple(color) for color in PALETTE[[4, 2]].tolist()]
        image = scene(colors, 4)
        mask = read(tmp_path, image, f"mask.{ending}", quality=quality)
        assert len(mask.labels.ids) == 2
        if quality > 30:
            assert mask.labels.ids == (2, 4)

    @pytest.mark.parametrize("quality", [10, 50, 95])
    def test_white(self, tmp_path: Path, quality: int) -> None:
        image = scene([255], 4)
        mask = read(tmp_path, image, "mask.jpg", quality=quality)
        assert mask.labels.ids == (1,)
        assert (mask.labels.pixels.numpy() != (np.asarray(image) > 0)).sum() < 20


class TestExact:
    def test_thin_objects_stay(self, tmp_path: Path) -> None:
        image = boxes(100, 200)
        image[18], image[20], image[22, ::2] = 150, 40, 250
        check(read(tmp_path, image), image)

    def test_thin_colours_stay(self, tmp_path: Path) -> None:
        image = boxes((255, 0, 0), (0, 255, 0))
        image[18], image[20] = (0, 0, 255), (255, 255, 0)
        assert read(tmp_path, image).labels.ids == (1, 2, 3, 4)

    def test_many_thin_objects_are_pointed_out(self, tmp_path: Path) -> None:
        image = boxes(1)
        image[15:24] = np.arange(2, 11)[:, None]
        assert read(tmp_path, image).notes[0].startswith("9 of 10 objects are nowhere 3 pixels wide")

    @given(image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 3]))))
    def test_nothing_is_lost(self, image: Pixels) -> None:
        flat = flatten(image)
        if flat is not None and not flat.moved:
            np.testing.assert_array_equal(flat.colors[flat.index], image)


class TestPictures:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_noise(self, channels: int) -> None:
        assert flatten(np.random.default_rng(0).integers(0, 256, (60, 80, channels), dtype=np.uint8)) is None

    def test_depth_map(self) -> None:
        image = np.linspace(0, 127, 854).astype(np.uint8)[None].repeat(480, 0)
        image[200:300, 300:400] = 220
        assert flatten(image[..., None]) is None

    def test_every_colour_once(self) -> None:
        values = np.arange(300 * 300)
        assert flatten(np.stack([values % 256, values // 256 % 256, values >> 16], 1).astype(np.uint8)[None]) is None

    def test_message(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        with pytest.raises(MaskError, match="looks like a picture, not a mask"):
            read(tmp_path, noise)

    def test_photos(self, dev_data: Path, tmp_path: Path) -> None:
        for path in sorted((dev_data / "davis16/JPEGImages/480p").glob("*/00000.jpg"))[:6]:
            with Image.open(path) as photo:
                assert flatten(np.asarray(photo), lossy=True) is None
                assert flatten(np.asarray(photo.convert("L"))[..., None]) is None
                assert flatten(np.asarray(photo.resize((1280, 720), Image.Resampling.BICUBIC))) is None


@given(labels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 1)))
def test_interior_is_where_the_neighbourhood_is_uniform(labels: Pixels) -> None:
    height, width = labels.shape
    for row in range(height):
        for column in range(width):
            around = labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert interior(labels)[row, column] == (around == labels[row, column]).all()
