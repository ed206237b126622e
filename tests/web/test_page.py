"""The page in a browser: what is drawn with pointer and keys, and read from what the server saved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import until
from tests.web.tabs import HEIGHT, IN_A_BROWSER, SECONDS, WIDTH, Tab
from vostrack.web.session import Session, drawn_in
from vostrack.web.shapes import brushed
from vostrack.web.things import Step
from vostrack.web.work import Progress

pytestmark = IN_A_BROWSER


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
    waited(session, drawn)
    tab.press("Control+s")
    tab.expect(tab.page.locator("#status")).to_contain_text("Saved: 1 mask")
    with Image.open(drawn_in(session.out) / "00000.png") as image:
        found = np.array(image) == 1
    assert overlap(found, expected) > 0.93
    assert (found == (session.labels(0) == 1)).all()
    assert tab.errors == []
    tab.page.context.close()


@pytest.mark.parametrize(("ratio", "zoom"), [(1, False), (2, True)])
def test_outlines_by_corners_by_hand_and_along_edges(
    browser: Any, address: str, session: Session, ratio: float, zoom: bool
) -> None:
    tab = Tab(browser, address, ratio)
    square = np.zeros((HEIGHT, WIDTH), np.bool_)
    square[10:30, 8:28] = True
    tab.add()
    if zoom:
        tab.page.mouse.move(*tab.at(WIDTH / 2, HEIGHT / 2))
        tab.press("Shift+ArrowLeft", "Shift+ArrowRight", "+")
        tab.zoom = 1.25
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
    assert tab.errors == []
    tab.page.context.close()


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
    tab.reload()
    tab.expect(tab.page.locator("#objects li")).to_have_count(1)
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
    follow = session.follow
    session.follow = lambda wanted: follow(type(wanted)(method="copy"))  # type: ignore[method-assign]
    tab.press("Control+Enter")
    tab.expect(tab.page.locator("#work")).to_have_text("Followed.", timeout=240_000)
    tab.page.locator("#split").focus()
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.type("matte")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Enter")
    tab.expect(tab.page.locator("#exported")).to_contain_text("Written", timeout=120_000)
    assert [*session.out.parent.glob("dog_vostrack_matte*")]
    tab.press("ArrowRight", "ArrowRight")
    tab.expect(tab.page.locator("#frame")).to_have_value("2")
    tab.press("End")
    tab.expect(tab.page.locator("#frame")).to_have_value("11")
    tab.press("?")
    tab.expect(tab.page.locator("#help")).to_be_visible()
    tab.expect(tab.page.locator("#keys kbd", has_text="Ctrl+Z")).to_have_text("Ctrl+Z")
    tab.expect(tab.page.locator("#keys kbd", has_text="Shift+←")).to_have_text("Shift+←")
    tab.page.keyboard.press("Escape")
    tab.expect(tab.page.locator("#help")).to_be_hidden()


def test_keys_are_those_of_the_page_again_once_a_field_is_left(tab: Tab, session: Session) -> None:
    frame = tab.page.locator("#frame")
    frame.fill("3")
    frame.press("Enter")
    tab.expect(tab.page.locator("#view")).to_be_focused()
    tab.page.keyboard.press("n")
    tab.expect(tab.page.locator("#objects li")).to_have_count(1)
    assert [*session.document.things] == [1]
    tab.page.locator("#style").select_option("outline")  # by a program: neither pointer nor keys
    tab.expect(tab.page.locator("#view")).to_be_focused()
    tab.page.locator("#onion").click()
    tab.expect(tab.page.locator("#view")).to_be_focused()
    preset = tab.page.locator("#preset")
    preset.focus()  # chosen from by the pointer, as it was
    tab.page.keyboard.press("b")
    tab.expect(preset).to_have_value("accurate")


def test_undo_shows_where_it_was(tab: Tab, session: Session) -> None:
    tab.add()
    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.press("ArrowRight", "ArrowRight", "Control+z")
    tab.expect(tab.page.locator("#status")).to_contain_text("Taken back: a step on frame 0")
    tab.expect(tab.page.locator("#frame")).to_have_value("0")
    assert not session.labels(0).any()


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
    session.follow = lambda wanted: preset(type(wanted)("copy", direction=wanted.direction, changed=wanted.changed))  # type: ignore[method-assign]
    tab.add()
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30), (8, 30))
    tab.press("Enter")
    waited(session, drawn)
    tab.page.locator("#direction").select_option("forward")
    tab.expect(tab.page.locator("#export")).to_have_attribute("title", re.compile("Follow first"))
    tab.page.locator("#follow").click()
    tab.expect(tab.page.locator("#work")).to_have_text("Followed.", timeout=240_000)
    assert session.wanted.direction == "forward"
    tab.expect(tab.page.locator("#direction")).to_be_disabled()
    tab.press("End", "e")
    tab.expect(tab.page.locator("#frame")).to_have_value("11")
    tab.drag((10, 12), (12, 14))
    waited(session, lambda own: 0 < own.sum() < 380, 11)
    work = tab.page.locator("#work")
    tab.expect(work).to_have_text("Changed since it was followed: object 1 (from 11 on).")
    tab.expect(tab.page.locator("#time")).to_have_attribute(
        "aria-valuetext", re.compile("changed since it was followed")
    )
    tab.page.locator("#follow").click()
    tab.expect(work).to_have_text("Followed.", timeout=240_000)
    assert until(lambda: session.work.progress.number == 2 and not session.work.progress.running, SECONDS)
    assert (session.predicted(11) == session.labels(11)).all()
    assert session.state()["older"] == {}
    tab.page.locator("#format").select_option("matte")
    tab.page.locator("#export").click()
    tab.expect(tab.page.locator("#exported")).to_contain_text("Written", timeout=120_000)
    assert Path(f"{session.out}_matte").is_dir()


def test_the_end_of_an_outline_starts_no_run(tab: Tab, session: Session) -> None:
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30))
    tab.page.keyboard.down("Enter")
    waited(session, drawn)
    tab.page.keyboard.down("Enter")  # a key that is held repeats itself
    tab.page.keyboard.up("Enter")
    tab.press("Enter", "Control+s")
    tab.expect(tab.page.locator("#status")).to_contain_text("Saved: 1 mask")
    assert session.work.progress.number == 0


FIXED = "#tools button, #add, #follow, #stop, #anew, #mask-buttons button, #radius, #export, footer button, #speed"


def test_buttons_stay_where_they_are(tab: Tab, session: Session) -> None:
    def places() -> list[list[float]]:
        script = (
            "all => all.map(each => each.getBoundingClientRect()).map(box => [box.x, box.y, box.width, box.height])"
        )
        found: list[list[float]] = tab.page.locator(FIXED).evaluate_all(script)
        return found

    tab.shown()
    start = places()
    for name in ("dog", "cat with a name that is quite long", "bird", "fish", "fox"):
        session.do(Step("add", name=name))
    tab.expect(tab.page.locator("#objects li")).to_have_count(5)
    tab.expect(tab.page.locator("#objects li[aria-current]")).to_be_in_viewport(ratio=0.9)
    assert places() == start
    tab.drag((20, 16), (40, 16))
    waited(session, lambda _: bool(session.labels(0).any()))
    notes = (("object-vanished", "warning", "object 1 vanished at frame 3"),) * 9
    for state in (
        Progress(1, True, "following", 3, 12, notes),
        Progress(1, notes=notes, error="this failed " * 20),
        Progress(2, stopped=True),
    ):
        session.work.progress = state
        tab.expect(tab.page.locator("#notes li")).to_have_count(len(state.notes))
        assert places() == start
    tab.press("k")
    tab.expect(tab.page.locator("#play")).to_contain_text("pause")
    assert places() == start


def test_a_small_window_shows_how_to_follow(tab: Tab, session: Session) -> None:
    tab.page.set_viewport_size({"width": 900, "height": 600})
    tab.page.evaluate("() => document.querySelector('aside').scrollTo(0, 0)")
    footer = tab.page.locator("footer").bounding_box()
    for button in ("#follow", "#stop"):
        box = tab.page.locator(button).bounding_box()
        assert box["y"] + box["height"] <= footer["y"]
    session.do(Step("add", name="dog"))
    row, rows = tab.page.locator("#objects li").bounding_box(), tab.page.locator("#objects").bounding_box()
    assert rows["height"] % row["height"] == 0


def test_notes_are_in_words_of_the_page(tab: Tab, session: Session) -> None:
    session.do(Step("add", name="dog"))
    session.work.progress = Progress(notes=(("object-vanished", "warning", "object 1 vanished at frame 3"),))
    tab.expect(tab.page.locator("#notes li")).to_have_text("dog vanished at frame 3")
    assert "object-vanished" not in tab.page.locator("#told").inner_text()


def test_doubtful_frames_come_in_the_order_in_which_masks_would_help(tab: Tab, session: Session) -> None:
    found = {"confidence": {}, "suggested": [7, 2, 9], "cuts": []}
    session.findings = lambda: found  # type: ignore[method-assign]
    preset = session.follow
    session.follow = lambda wanted: preset(type(wanted)("copy"))  # type: ignore[method-assign]
    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.page.locator("#follow").click()
    tab.expect(tab.page.locator("#suggested")).to_be_enabled(timeout=240_000)
    for number, frame in enumerate((7, 2, 9), 1):
        tab.press("j")
        tab.expect(tab.page.locator("#frame")).to_have_value(str(frame))
        tab.expect(tab.page.locator("#status")).to_contain_text(f"Doubtful frame {number} of 3; first comes")
        tab.press("Home")
    assert session.document.frames == [0], "looking draws nothing"


def test_a_stroke_ends_where_the_pointer_was_let_go(tab: Tab, session: Session) -> None:
    """Also if there was no object, and the server takes its time to make one."""
    held: list[Any] = []
    tab.page.locator("#radius").fill("4")
    tab.page.route("**/do?*", lambda route: held.append(route))
    tab.drag((20, 16), (40, 16))
    tab.drag((20, 26), (40, 26))
    tab.page.mouse.move(*tab.at(10, 40), steps=4)
    assert until(lambda: tab.page.wait_for_timeout(20) or bool(held), SECONDS)
    held[0].continue_()
    tab.page.unroute("**/do?*")
    found = waited(session, lambda own: bool(own[16, 30] and own[26, 30]))
    assert [*session.document.things] == [1]
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    for row in (16, 26):
        area = brushed((HEIGHT, WIDTH), [(20.0, row), (40.0, row)], 4)
        expected[area.box] |= area.inside
    assert overlap(found, expected) > 0.9


def test_one_finger_draws_and_two_zoom(tab: Tab, session: Session) -> None:
    touch = tab.page.context.new_cdp_session(tab.page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(tab.at(*point) for point in points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    tab.page.locator("#radius").fill("2")
    fingers("touchStart", (32, 24))
    fingers("touchStart", (32, 24), (42, 24))
    fingers("touchMove", (22, 24), (42, 24))
    fingers("touchEnd")
    fingers("touchStart", (32, 24))
    fingers("touchMove", (42, 24))
    fingers("touchEnd")
    found = waited(session, drawn)
    assert [*session.document.things] == [1]
    assert found.any(0).sum() < 12, "a way of ten pixels is five and a brush in a frame that is twice as large"
    assert session.document.count == 2, "an object, and one stroke"


def test_a_pen_draws(tab: Tab, session: Session) -> None:
    pen = tab.page.context.new_cdp_session(tab.page)
    tab.shown()
    tab.page.locator("#radius").fill("3")
    for kind, x in (("mousePressed", 20), ("mouseMoved", 30), ("mouseMoved", 40), ("mouseReleased", 40)):
        left, top = tab.at(x, 16)
        told = {"type": kind, "x": left, "y": top, "pointerType": "pen", "button": "left", "buttons": 1, "force": 0.7}
        pen.send("Input.dispatchMouseEvent", {**told, "clickCount": 1})
    found = waited(session, drawn)
    assert found[16, 20:40].all()
    assert found.any(1).sum() <= 7


def test_a_frame_that_was_moved_is_drawn_on_where_the_pointer_is(tab: Tab, session: Session) -> None:
    radius = tab.page.locator("#radius")
    tab.shown()
    tab.page.mouse.move(*tab.at(32, 24))
    tab.page.mouse.wheel(0, -100)
    assert int(radius.input_value()) == 13
    radius.fill("3")
    tab.page.locator("#view").focus()
    tab.page.keyboard.down(" ")
    x, y = tab.at(32, 24)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 60, y + 30, steps=3)
    tab.page.mouse.up()
    tab.page.keyboard.up(" ")
    assert session.document.count == 0
    tab.page.mouse.move(*(place + far for place, far in zip(tab.at(20, 16), (60, 30), strict=True)))
    tab.page.mouse.down()
    tab.page.mouse.move(*(place + far for place, far in zip(tab.at(40, 16), (60, 30), strict=True)), steps=4)
    tab.page.mouse.up()
    found = waited(session, drawn)
    area = brushed((HEIGHT, WIDTH), [(20.0, 16.0), (40.0, 16.0)], 3)
    assert overlap(found[area.box], area.inside) > 0.8


def test_styles_hidden_objects_and_the_frame_beside(tab: Tab, session: Session) -> None:
    def seen(x: float, y: float) -> list[int]:
        script = """([x, y]) => { const view = document.getElementById("view"), box = view.getBoundingClientRect();
          return [...view.getContext("2d").getImageData(x - box.left, y - box.top, 1, 1).data]; }"""
        found: list[int] = tab.page.evaluate(script, tab.at(x, y))
        return found

    tab.shown()
    assert until(lambda: seen(30, 16)[3] == 255, SECONDS)
    bare = seen(30, 16)
    tab.drag((20, 16), (40, 16), (60, 44))
    waited(session, drawn)
    assert until(lambda: seen(30, 16) != bare, SECONDS)
    tab.page.locator("#objects button[aria-label^=Hide]").click()
    assert until(lambda: seen(30, 16) == bare, SECONDS)
    tab.page.locator("#objects button[aria-label^=Show]").click()
    assert until(lambda: seen(30, 16) != bare, SECONDS)
    tab.page.locator("#style").select_option("cutout")
    assert until(lambda: seen(4, 44)[:3] == [96, 96, 96], SECONDS)
    tab.press("v", "k")
    tab.expect(tab.page.locator("#plain")).to_be_visible()
    tab.expect(tab.page.locator("#frame")).to_have_value("11")


def test_the_outline_of_the_frame_before_and_the_whole_frame_again(tab: Tab, session: Session) -> None:
    def shown() -> str:
        found: str = tab.page.evaluate("() => document.getElementById('view').toDataURL()")
        return found

    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.page.mouse.move(*tab.at(30, 16))
    tab.press("ArrowRight")
    tab.expect(tab.page.locator("#frame")).to_have_value("1")
    tab.shown()
    bare = shown()
    tab.press("o")
    assert until(lambda: shown() != bare, SECONDS)
    tab.press("o")
    assert until(lambda: shown() == bare, SECONDS)
    tab.page.keyboard.down("Control")
    tab.page.mouse.wheel(0, -300)
    tab.page.keyboard.up("Control")
    assert until(lambda: shown() != bare, SECONDS)
    tab.press("0")
    assert until(lambda: shown() == bare, SECONDS)


def test_what_is_begun_stays_on_its_frame(tab: Tab, session: Session) -> None:
    tab.press("p")
    tab.click((8, 10), (28, 10))
    tab.press("ArrowRight")
    tab.expect(tab.page.locator("#status")).to_contain_text("Something is begun")
    tab.click((28, 30))
    tab.press("Enter")
    waited(session, drawn)
    tab.press("ArrowRight")
    tab.expect(tab.page.locator("#frame")).to_have_value("1")
    assert session.document.frames == [0]


def test_undo_takes_back_corners_before_steps(tab: Tab, session: Session) -> None:
    tab.add()
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30), (50, 40))
    tab.press("Control+z", "Enter")
    own = waited(session, drawn)
    assert not own[30:, 30:].any()
    tab.click((8, 10), (28, 10))
    tab.press("Control+z", "Control+z")
    assert session.document.count == 2
    tab.press("Control+z")
    waited(session, lambda own: not own.any())
    assert [*session.document.things] == [1]


@pytest.mark.parametrize("key", ["b", "Control+Enter", "Control+y", "k"])
def test_nothing_else_is_done_while_something_is_begun(key: str, tab: Tab, session: Session) -> None:
    tab.press("p")
    tab.click((8, 10), (28, 10), (28, 30))
    tab.press(key)
    status = tab.page.locator("#status")
    tab.expect(status).to_contain_text("Something is begun")
    tab.press("Escape")
    tab.expect(status).to_be_empty()
    tab.click((8, 10), (28, 10), (28, 30))
    tab.press(key, "Enter")
    waited(session, drawn)
    assert session.work.progress.number == 0


def test_what_is_hidden_is_shown_when_it_is_drawn_on(tab: Tab, session: Session) -> None:
    tab.add()
    tab.page.locator("#objects button[aria-label^=Hide]").click()
    tab.drag((20, 16), (40, 16))
    tab.expect(tab.page.locator("#status")).to_have_text("Drawn on, and shown again: object 1.")
    tab.expect(tab.page.locator("#objects button[aria-label^=Hide]")).to_be_visible()
    assert drawn(session.labels(0) == 1)


def test_a_locked_object_is_kept(tab: Tab, session: Session) -> None:
    session.do(Step("add", name="dog"))
    session.do(Step("lock", id=1, locked=True))
    status = tab.page.locator("#status")
    tab.page.locator("#objects button[aria-label^=Delete]").click()
    tab.expect(status).to_have_text("dog is locked: unlock it first")
    tab.press("Shift+ArrowLeft")
    tab.drag((20, 16), (40, 16))
    tab.expect(status).to_have_text("dog is locked: unlock it first")
    assert session.document.count == 2
    tab.page.locator("#objects button[aria-label^=Unlock]").click()
    tab.page.locator("#objects button[aria-label^=Delete]").click()
    tab.expect(status).to_contain_text("Deleted in all masks")


def test_it_says_at_once_that_it_stops(tab: Tab, session: Session) -> None:
    session.work.progress = Progress(1, True, "following", 3, 12)
    stop = tab.page.locator("#stop")
    stop.click()
    tab.expect(stop).to_have_text("Stopping …")
    tab.expect(stop).to_be_disabled()
    session.work.progress = Progress(1, stopped=True)
    tab.expect(stop).to_have_text("Stop")
    assert tab.page.locator("#follow").is_enabled()


def test_a_page_that_is_loaded_again_shows_what_it_showed(tab: Tab, session: Session) -> None:
    for name in ("dog", "cat"):
        session.do(Step("add", name=name))
    tab.expect(tab.page.locator("#objects li")).to_have_count(2)
    tab.press("1", "ArrowRight", "ArrowRight")
    tab.expect(tab.page.locator("#frame")).to_have_value("2")
    tab.reload()
    tab.expect(tab.page.locator("#frame")).to_have_value("2")
    tab.expect(tab.page.locator("#objects li[aria-current] .name")).to_have_text("dog")
    assert session.document.frames == [], "nothing is drawn by that"


def test_what_is_said_of_a_frame_goes_with_it(tab: Tab, session: Session) -> None:
    status = tab.page.locator("#status")
    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.press("Control+z")
    tab.expect(status).to_contain_text("Taken back")
    tab.press("ArrowRight", "r")
    tab.expect(status).to_be_empty()
    tab.click((18, 20))
    tab.expect(status).to_contain_text("Enter paints")
    tab.press("Escape")
    tab.expect(status).to_be_empty()
    held: list[Any] = []
    tab.page.route("**/frame/2.jpg?*", lambda route: held.append(route))
    tab.press("ArrowRight")
    tab.page.mouse.click(*tab.at(20, 16))
    tab.expect(status).to_have_text("Frame 2 is still coming.")
    held[0].continue_()
    tab.expect(status).to_be_empty()
    assert not session.document.frames, "a frame that is not there is not drawn on"


def test_an_object_is_gone_and_here_again(tab: Tab, session: Session) -> None:
    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.page.locator("#frame").fill("4")
    tab.page.locator("#frame").press("Enter")

    def gone() -> object:
        return session.document.things[1].gone

    tab.press("g")
    assert until(lambda: gone() == ((4, None),), SECONDS)
    tab.press("ArrowRight", "h")
    assert until(lambda: gone() == ((4, 4),), SECONDS)
    tab.press("u")
    tab.expect(tab.page.locator("#status")).to_contain_text("would be gone")
    tab.press("Control+z")
    assert until(lambda: gone() == ((4, None),), SECONDS)
    tab.reload()
    tab.press("Control+z")
    assert until(lambda: gone() == (), SECONDS)


def test_saved_by_a_key(tab: Tab, session: Session) -> None:
    tab.drag((20, 16), (40, 16))
    waited(session, drawn)
    tab.press("Control+s")
    tab.expect(tab.page.locator("#status")).to_contain_text("Saved: 1 mask")
    with Image.open(drawn_in(session.out) / "00000.png") as image:
        assert (np.array(image) == session.labels(0)).all()


@pytest.mark.needs("axe_playwright_python", "dev")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(scheme: str, tab: Tab, session: Session) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab.page.emulate_media(color_scheme=scheme)
    for press in ("", "n", "g", "?"):
        if press:
            tab.press(press)
            tab.page.wait_for_timeout(300)
        found = Axe().run(tab.page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious]


def test_an_object_is_renamed(tab: Tab, session: Session) -> None:
    tab.add()
    tab.page.locator("#objects button[aria-label^=Rename]").click()
    tab.expect(tab.page.locator("#ask-value")).to_have_value("object 1")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#objects .name").dblclick()
    tab.page.keyboard.type("dog")
    tab.page.keyboard.press("Enter")
    tab.expect(tab.page.locator("#objects .name")).to_have_text("dog")
    assert session.document.count == 2


def test_names_cannot_become_markup(tab: Tab, session: Session) -> None:
    session.do(Step("add", name="<img src=x onerror=alert(1)>"))
    tab.expect(tab.page.locator("#objects .name")).to_have_text("<img src=x onerror=alert(1)>")
    assert tab.page.locator("#objects img").count() == 0
