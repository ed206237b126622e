"""The page of a session in a tab of a browser."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.batch.clips import SIZE
from tests.runs import until
from vostrack.web.session import Session

HEIGHT, WIDTH = SIZE
SECONDS = 120
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.needs("playwright", "dev"),
    pytest.mark.needs("uvicorn", "edit"),
    pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM on this machine"),
]
"""Marks of a test that needs one."""


@contextmanager
def served(session: Session) -> Iterator[str]:
    """Where the page of a session is served."""
    import uvicorn

    from vostrack.web.app import Page

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        page = Page(session, (host,))
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert until(lambda: server.started, SECONDS)
        try:
            yield f"http://{host}/{page.token}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * SECONDS)
        try:
            yield opened
        finally:
            opened.close()


class Tab:
    """A page in a tab, with the frame's pixels in the place of the screen's; fails on errors in its console."""

    def __init__(
        self, browser: Any, address: str, ratio: float = 1, size: tuple[int, int] = SIZE, count: int = 12
    ) -> None:
        """Open a page of a clip of so many frames of a size (H, W)."""
        from playwright.sync_api import expect

        expect.set_options(timeout=1000 * SECONDS)
        self.expect = expect
        self.errors: list[str] = []
        context = browser.new_context(viewport={"width": 1200, "height": 760}, device_scale_factor=ratio)
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        expect(self.page.locator("#of")).to_have_text(f"of {count}", timeout=1000 * SECONDS)
        self.zoom, self.size = 1.0, size

    def _said(self, message: Any) -> None:
        """Keep errors, but for answers that refuse something, which the page says in words."""
        if message.type == "error" and "status of 422" not in message.text:
            self.errors.append(message.text)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the frame is on the screen."""
        box = self.page.locator("#view").bounding_box()
        height, width = self.size
        scale = min(box["width"] / width, box["height"] / height)
        left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
        # Zooming leaves the middle of the frame where it is.
        x, y = (x - width / 2) * self.zoom + width / 2, (y - height / 2) * self.zoom + height / 2
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def shown(self) -> None:
        """Wait until the pixels of the frame are there."""
        self.expect(self.page.locator("#loading")).to_have_js_property("hidden", True)

    def reload(self) -> None:
        self.page.reload()
        self.shown()
        self.expect(self.page.locator("#banner")).to_be_hidden()

    def drag(self, *points: tuple[float, float]) -> None:
        self.shown()
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=6)
        self.page.mouse.up()

    def click(self, *points: tuple[float, float]) -> None:
        self.shown()
        for point in points:
            self.page.mouse.click(*self.at(*point))

    def press(self, *keys: str) -> None:
        self.page.locator("#view").focus()
        for key in keys:
            self.page.keyboard.press(key)

    def add(self) -> None:
        count = self.page.locator("#objects li").count()
        self.press("n")
        self.expect(self.page.locator("#objects li")).to_have_count(count + 1)
