"""The page with clips of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.batch.clips import frame
from tests.runs import until
from tests.video.media import write_video
from tests.web.tabs import IN_A_BROWSER, SECONDS, Tab, served
from vostrack.web.session import Session, drawn_in
from vostrack.web.shapes import polygon

pytestmark = IN_A_BROWSER


def large(folder: Path) -> Path:
    return write_video(folder / "large.mp4", [frame(index, (1080, 1920)) for index in range(3)])


def turned(folder: Path) -> Path:
    images = [frame(index, (48, 80)) for index in range(3)]
    return write_video(folder / "phone.mp4", images, setup=lambda stream: stream.set_display_rotation(90))


def pictures(folder: Path) -> Path:
    (folder / "shot").mkdir()
    for index in range(3):
        Image.fromarray(frame(index)).save(folder / f"shot/s_{1001 + index}.png")
    return folder / "shot"


@pytest.mark.parametrize(("write", "size"), [(large, (1080, 1920)), (turned, (80, 48)), (pictures, (48, 64))])
def test_what_is_drawn_on_it_is_saved_at_its_size(
    browser: Any, tmp_path: Path, write: Callable[[Path], Path], size: tuple[int, int]
) -> None:
    session = Session.open(write(tmp_path))
    height, width = size
    corners = [(0.2 * width, 0.2 * height), (0.7 * width, 0.2 * height), (0.5 * width, 0.8 * height)]
    try:
        with served(session) as address:
            tab = Tab(browser, address, size=size, count=3)
            tab.press("End", "p")
            tab.expect(tab.page.locator("#frame")).to_have_value("2")
            tab.click(*corners)
            tab.press("Enter")
            assert until(lambda: bool(session.labels(2).any()), SECONDS)
            tab.press("Control+s")
            tab.expect(tab.page.locator("#status")).to_contain_text("Saved: 1 mask")
            assert tab.errors == []
            tab.page.context.close()
        with Image.open(drawn_in(session.out) / "00002.png") as image:
            found, expected = np.array(image) == 1, np.zeros(size, np.bool_)
        area = polygon(size, corners)
        expected[area.box] = area.inside
        assert (found & expected).sum() / (found | expected).sum() > 0.9
    finally:
        session.close()


def test_a_long_clip(browser: Any, tmp_path: Path) -> None:
    count = 2000
    images = [np.full((48, 64, 3), index % 200, np.uint8) for index in range(count)]
    session = Session.open(write_video(tmp_path / "long.mp4", images, options={"preset": "ultrafast"}))
    try:
        with served(session) as address:
            tab = Tab(browser, address, count=count)
            at = tab.page.locator("#frame")
            for keys, shown in ((("End",), "1999"), (("ArrowLeft",) * 3, "1996"), (("Home",), "0")):
                tab.press(*keys)
                tab.expect(at).to_have_value(shown)
            box = tab.page.locator("#time").bounding_box()
            tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 8)
            tab.expect(at).not_to_have_value("0")
            number = int(at.input_value())
            assert 850 < number < 1050
            tab.drag((20, 16), (40, 16))
            assert until(lambda: session.document.frames == [number], SECONDS)
            assert tab.errors == []
            tab.page.context.close()
    finally:
        session.close()
