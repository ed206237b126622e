"""Tests for `vostrack.video.shared_ids`, by way of `read_prompts`; masks in colours alone are in `test_masks.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.video.mask_samples import BLUE, GREEN, RED, SIZE, WHITE, boxes
from vostrack.errors import MaskError
from vostrack.types import LabelMap
from vostrack.video.masks import GivenMask, read_prompts
from vostrack.video.palette import PALETTE, palette_image

NONE, SHARED = (0, 0, 0), (0, 128, 0)
REDDISH = Image.fromarray(boxes(1, 2))
REDDISH.putpalette([*NONE, *RED, *GREEN])
IN_COLORS, IN_PALETTE = Image.fromarray(boxes(RED, GREEN)), PALETTE[boxes(1, 2)]


def image(*values: npt.ArrayLike) -> Image.Image:
    return Image.fromarray(boxes(*values))


class TestKindsOfMasks:
    """Object A is the first box, B the second."""

    @pytest.mark.parametrize(
        ("first", "later", "message"),
        [
            (
                image(1, 2),
                image(0, 255),
                "adds white, which is in the place of object 2 .* with 2 if it is that object and 3 if",
            ),
            (image(1, 2), image(0, 1), "adds object 1, which is in the place of object 2"),
            (palette_image(boxes(1, 2)), image(0, 255), "adds .*, which is in the place of object 2"),
            (image(1, 2), boxes(0, 1) == 1, "adds .*, which is in the place of object 2"),
            (Image.fromarray(IN_PALETTE), image(NONE, WHITE), "adds #ffffff, which is in the place of #008000"),
            (Image.fromarray(IN_PALETTE), image(NONE, (0, 160, 0)), "adds #00a000, which is .* #008000"),
            (image(GREEN, RED), image(0, 255), "adds white, which is in the place of #ff0000 .* paint it in #ff0000"),
            (image(1, 2), image(NONE, RED), "adds #ff0000, which is in the place of object 2"),
            (image(255), IN_COLORS, "adds #ff0000, which is in the place of object 1"),
            (image(7), image(255), "adds white, .* with 7 if it is that object and 2 if"),
            (image(1, 2), image(255, 128), "adds .*, which is in the place of object"),
            (IN_COLORS, image(1, 2), "shows 1, the id of #00ff00 .*, in the place of #ff0000, whose id is 2: paint"),
            (IN_COLORS, image(0, 2), "shows 2, the id of #ff0000 .*, in the place of #00ff00, whose id is 1: paint"),
            (IN_COLORS, palette_image(boxes(1, 2)), "shows 1, the id of #00ff00 .*, in the place of #ff0000"),
        ],
    )
    def test_another_id_in_the_place_of_an_object_is_a_question(
        self, first: GivenMask, later: GivenMask, message: str
    ) -> None:
        with pytest.raises(MaskError, match=rf"^mask of frame 40 {message}"):
            read_prompts({0: first, 40: later}, SIZE)

    @pytest.mark.parametrize(
        ("first", "later", "ids"),
        [
            (REDDISH, IN_COLORS, (1, 2)),
            (IN_COLORS, REDDISH, (2, 1)),
            (REDDISH, image(NONE, GREEN), (0, 2)),
            (IN_COLORS, palette_image(boxes(2, 1)), (2, 1)),
            (IN_COLORS, palette_image(boxes(0, 2)), (0, 2)),
            (IN_COLORS, image(2, 1), (2, 1)),
            (IN_COLORS, image(0, 0, 2), (0, 0, 2)),
            (IN_COLORS, image(1, 0, 2), (1, 0, 2)),
            (image(1, 2), image(2, 1), (2, 1)),
            (image(1, 2), palette_image(boxes(2, 1)), (2, 1)),
            (image(1, 2), image(0, 2), (0, 2)),
            (image(1, 2), image(7), (7,)),
            (image(1, 2), palette_image(boxes(0, 1)), (0, 1)),
            (image(1, 2), image(0, 3), (0, 3)),
            (image(1, 2), image(255), (1,)),
            (image(1, 2), image(0, 0, 255), (0, 0, 1)),
            (image(1, 2), image(RED), (1,)),
            (image(1, 2), image(NONE, NONE, RED, BLUE), (0, 0, 4, 3)),
            (image(255), image(GREEN, RED), (1, 2)),
            (image(255), image(0, 0, 255), (0, 0, 1)),
            (image(128, 255), image(255, 128), (2, 1)),
            (image(128, 255), image(0, 255), (0, 2)),
            (image(128, 255), image(128), (1,)),
            (image(128, 255), image(130, 250), (1, 2)),
            (image(128, 255), image(0, 255, 85, 170), (0, 2, 3, 4)),
            (image(RED, WHITE), image(0, 255), (0, 2)),
            (image(RED, (128, 128, 128)), image(0, 128), (0, 1)),
            (image(1, 2), Image.fromarray(np.stack([boxes(0, 2)] * 3, axis=2)), (0, 2)),
            (Image.fromarray(IN_PALETTE), image(NONE, SHARED), (0, 2)),
            (Image.fromarray(IN_PALETTE), image(NONE, NONE, WHITE), (0, 0, 1)),
            (LabelMap(torch.from_numpy(boxes(1, 2)), (1, 2)), palette_image(boxes(2, 1)), (2, 1)),
        ],
    )
    def test_ids_that_are_plain_are_taken(self, first: GivenMask, later: GivenMask, ids: tuple[int, ...]) -> None:
        labels = read_prompts({0: first, 40: later}, SIZE)[0][40]
        np.testing.assert_array_equal(labels.pixels.numpy(), boxes(*ids))

    def test_files_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        for name, value in (("a/dog", 1), ("a/ear", 2), ("b/ear", 2)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(boxes(1, 2) == value).save(tmp_path / f"{name}.png")
        prompts, notes, *_ = read_prompts({0: tmp_path / "a", 40: tmp_path / "b"}, SIZE)
        np.testing.assert_array_equal(prompts[40].pixels.numpy(), boxes(0, 2))
        assert notes[-1] == "b: ids with regard to earlier masks: ear.png = 2"

    @pytest.mark.parametrize("answer", [image(0, 2), image(0, 3), image(1, 2)])
    def test_answers_to_the_question_are_taken(self, answer: Image.Image) -> None:
        assert read_prompts({0: image(1, 2), 40: answer}, SIZE)[0][40].ids
