"""The page in a browser: what is drawn with pointer and keys, and read from what the server saved."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import until
from vostrack.web.session import Session
from vostrack.web.shapes import brushed
from vostrack.web.things import Step

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("playwright", "dev"),
    pytest.mark.needs("uvicorn", "edit"),
    pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM on this machine"),
]

HEIGHT, WIDTH = 48, 64
SECONDS = 120


@pytest.fixture
def address(session: Session) -> Iterator[str]:
    """Where the page of the session is served."""
    import uvicorn

    from vostrack.web.app import Page

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        page = Page(session, (host,))
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert until(lambda: server.started)
        yield f"http://{host}/{page.token}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * SECONDS)
        yield opened
        opened.close()


class Tab:
    """A page in a tab, with the frame's pixels in the place of the screen's; fails on errors in its console."""

    def __init__(self, browser: Any, address: str, ratio: float = 1) -> None:
        from playwright.sync_api import expect

        expect.set_options(timeout=1000 * SECONDS)
        self.expect = expect
        self.errors: list[str] = []
        context = browser.new_context(viewport={"width": 1200, "height": 760}, device_scale_factor=ratio)
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        expect(self.page.locator("#of")).to_have_text("of 12")
        self.zoom, self.left, self.top = 1.0, 0.0, 0.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the frame is on the screen."""
        box = self.page.locator("#view").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left, top = (box["width"] - WIDTH * scale) / 2, (box["height"] - HEIGHT * scale) / 2
        # Zooming leaves the middle of the frame where it is.
        x, y = ((x - WIDTH / 2) * self.zoom + WIDTH / 2, (y - HEIGHT / 2) * self.zoom + HEIGHT / 2)
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=6)
        self.page.mouse.up()

    def click(self, *points: tuple[float, float]) -> None:
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


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    opened = Tab(browser, address)
    yield opened
    assert opened.errors == []


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def drawn(own: np.ndarray) -> bool:
    return bool(own.any())


def waited(session: Session, condition: Callable[[np.ndarray], bool], frame: int = 0) -> np.ndarray:
    """The object 1 of a frame, once it is as it should be."""
    assert until(lambda: bool(condition(session.labels(frame) == 1)), SECONDS), session.labels(frame).sum()
    return session.labels(frame) == 1


@pytest.mark.parametrize(("ratio", "zoom"), [(1, False), (2, False), (2, True)])
def test_a_brush_stroke_covers_what_was_meant(
    browser: Any, address: str, session: Session, ratio: float, zoom: bool
) -> None:
    tab = Tab(browser, address, ratio)
    tab.add()
    tab.page.locator("#radius").fill("4")
    if zoom:
        tab.page.mouse.move(*tab.at(WIDTH / 2, HEIGHT / 2))
        tab.press("Shift+ArrowLeft", "Shift+ArrowRight")
        tab.press("+", "+")
        tab.zoom = 1.25**2
    points = [(20.0, 16.0), (40.0, 16.0), (40.0, 30.0)]
    tab.drag(*points)
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    area = brushed((HEIGHT, WIDTH), points, 4)
    expected[area.box] = area.inside
    found = waited(session, drawn)
    assert overlap(found, expected) > 0.93
    assert tab.errors == []


def test_outlines_by_corners_by_hand_and_along_edges(tab: Tab, session: Session) -> None:
    square = np.zeros((HEIGHT, WIDTH), np.bool_)
    square[10:30, 8:28] = True
    tab.add()
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30), (8, 30))
    tab.press("Enter")
    assert overlap(waited(session, drawn), square) > 0.95
    tab.press("Control+z")
    waited(session, lambda own: not own.any())
    tab.press("l")
    tab.drag((8, 10), (28, 10), (28, 30), (8, 30))
    assert overlap(waited(session, drawn), square) > 0.9
    tab.press("Control+z")
    waited(session, lambda own: not own.any())
    tab.press("s")  # clicks beside the edge, which the wire finds
    for point in ((8, 10), (18, 10), (28, 11), (28, 20), (27, 30), (18, 29), (8, 29)):
        tab.page.mouse.move(*tab.at(*point))
        tab.click(point)
    tab.press("Enter")
    assert overlap(waited(session, drawn), square) > 0.85


def test_undo_goes_back_to_the_same_bytes_and_a_reload_loses_nothing(tab: Tab, session: Session) -> None:
    tab.add()
    tab.drag((20, 16), (40, 16))
    first = waited(session, drawn).copy()
    tab.press("e")
    tab.drag((30, 16), (32, 18))
    waited(session, lambda own: own.sum() < first.sum())
    second = session.labels(0).tobytes()
    tab.press("Control+z")
    waited(session, lambda own: bool((own == first).all()))
    tab.page.reload()
    tab.expect(tab.page.locator("#objects li")).to_have_count(1)
    tab.expect(tab.page.locator("#banner")).to_be_hidden()
    tab.press("Control+y")
    assert until(lambda: session.labels(0).tobytes() == second, SECONDS)


def test_a_region_is_proposed_and_painted(tab: Tab, session: Session) -> None:
    tab.add()
    tab.press("r")
    tab.click((18, 20))
    tab.expect(tab.page.locator("#status")).to_contain_text("Enter paints")
    assert not session.labels(0).any()
    tab.press("Enter")
    square = np.zeros((HEIGHT, WIDTH), np.bool_)
    square[10:30, 8:28] = True
    assert overlap(waited(session, drawn), square) > 0.9


def test_an_answer_that_was_overtaken_is_not_shown(tab: Tab, session: Session) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append((route, route.fetch())) if not held else route.continue_()

    tab.page.route("**/state?*", hold)
    while not held:
        tab.page.wait_for_timeout(50)
    tab.add()
    route, answer = held[0]
    with tab.page.expect_response("**/state?*"):
        route.fulfill(response=answer)
    tab.page.wait_for_timeout(300)  # it is taken in, and the page does not ask again yet
    tab.drag((20, 16), (40, 16))
    assert until(lambda: bool(session.labels(0).any()), SECONDS)
    assert [*session.document.things] == [1]


def test_all_of_it_with_keys_alone(tab: Tab, session: Session) -> None:
    tab.add()
    tab.press("[", "x", *["Control+ArrowRight"] * 2, "x")
    found = waited(session, drawn)
    assert found[HEIGHT // 2, WIDTH // 2 : WIDTH // 2 + 20].all()
    tab.press("ArrowRight", "ArrowRight")
    tab.expect(tab.page.locator("#frame")).to_have_value("2")
    tab.press("End")
    tab.expect(tab.page.locator("#frame")).to_have_value("11")
    tab.press("?")
    tab.expect(tab.page.locator("#help")).to_be_visible()
    tab.page.keyboard.press("Escape")
    tab.expect(tab.page.locator("#help")).to_be_hidden()


def test_a_second_tab_can_only_look(tab: Tab, browser: Any, address: str, session: Session) -> None:
    other = Tab(browser, address)
    other.expect(other.page.locator("#banner")).to_contain_text("you can only look")
    tab.add()
    other.expect(other.page.locator("#objects li")).to_have_count(1)
    other.drag((20, 16), (40, 16))
    time.sleep(1)
    assert not session.labels(0).any()


def test_drawn_followed_and_corrected(tab: Tab, session: Session) -> None:
    """With the method that copies masks, which needs no time."""
    preset = session.follow
    session.follow = lambda wanted: preset(type(wanted)(method="copy", first=wanted.first, last=wanted.last))  # type: ignore[method-assign]
    tab.add()
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30), (8, 30))
    tab.press("Enter")
    waited(session, drawn)
    tab.page.locator("#follow").click()
    tab.expect(tab.page.locator("#work")).to_have_text("Followed.", timeout=240_000)
    tab.press("End", "e")
    tab.expect(tab.page.locator("#frame")).to_have_value("11")
    tab.drag((10, 12), (12, 14))
    waited(session, lambda own: 0 < own.sum() < 380, 11)
    tab.page.locator("#follow").click()
    tab.expect(tab.page.locator("#work")).to_have_text("Followed.", timeout=240_000)
    assert until(lambda: session.work.progress.number == 2 and not session.work.progress.running, SECONDS)
    assert (session.predicted(11) == session.labels(11)).all()
    tab.page.locator("#format").select_option("matte")
    tab.page.locator("#export").click()
    tab.expect(tab.page.locator("#exported")).to_contain_text("written", timeout=120_000)
    assert Path(f"{session.out}_matte").is_dir()


def test_names_cannot_become_markup(tab: Tab, session: Session) -> None:
    session.do(Step("add", name="<img src=x onerror=alert(1)>"))
    tab.expect(tab.page.locator("#objects .name")).to_have_text("<img src=x onerror=alert(1)>")
    assert tab.page.locator("#objects img").count() == 0
