"""The picture of README: `vostrack demo --size 480 && python -m docs.write_picture` takes it of a page of that run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page as Tab

from tests.web.tabs import chromium, served
from vostrack.web.session import Session, drawn_in
from vostrack.web.things import Step

RUN = Path("vostrack_demo/result")
PICTURE = Path(__file__).parent / "pictures" / "page.webp"
OBJECTS = {1: ("star", "#ff4d5e"), 2: ("cushion", "#35d07f"), 3: ("stone", "#4d8dff")}
FRAME = 20


def main() -> None:
    """Open the run on the page, and take a picture of it."""
    shutil.rmtree(drawn_in(RUN), ignore_errors=True)
    session = Session.open(RUN)
    for number, (name, color) in OBJECTS.items():
        session.do(Step("rename", id=number, name=name))
        session.do(Step("recolor", id=number, color=color))
    with served(session) as address, chromium() as browser:
        data = _taken(browser.new_page(viewport={"width": 1240, "height": 740}), address)
    session.close()
    Image.open(io.BytesIO(data)).convert("RGB").save(PICTURE, quality=80, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


def _taken(tab: Tab, address: str) -> bytes:
    tab.goto(address)
    tab.wait_for_timeout(3000)
    tab.locator("#frame").fill(str(FRAME))
    tab.locator("#frame").press("Enter")
    tab.wait_for_timeout(2000)
    tab.mouse.move(640, 350)
    tab.wait_for_timeout(500)
    return tab.screenshot()


if __name__ == "__main__":
    main()
