"""What is typed for masks and sizes."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
import typer

from vostrack.cli.segment import parse_masks
from vostrack.cli.settings import parse_color, parse_moment, parse_names, parse_range
from vostrack.errors import MaskError


@pytest.mark.parametrize(
    ("text", "frame", "path"),
    [
        ("a.png", None, "a.png"),
        ("0:a.png", 0, "a.png"),
        ("120:b/a:1.png", 120, "b/a:1.png"),
        (r"C:\x.png", None, r"C:\x.png"),
        (r"7:C:\x.png", 7, r"C:\x.png"),
        ("-1:a.png", None, "-1:a.png"),
        ("x:a.png", None, "x:a.png"),
        ("٣:a.png", None, "٣:a.png"),
        (f"{'9' * 5000}:a.png", None, f"{'9' * 5000}:a.png"),
    ],
)
def test_a_mask_may_name_its_frame(text: str, frame: int | None, path: str) -> None:
    assert parse_masks([text]) == {frame: Path(path)}


def test_a_file_with_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("3:a.png").touch()
    assert parse_masks(["3:a.png"]) == {None: Path("3:a.png")}
    Path("a.png").touch()
    assert parse_masks(["3:a.png"]) == {3: Path("a.png")}


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(MaskError, match="empty name"):
        parse_masks([" "])


def test_a_frame_and_its_mask_in_the_wrong_order_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mask.png").touch()
    with pytest.raises(MaskError, match=re.escape("the frame comes first: 5:mask.png")):
        parse_masks(["mask.png:5"])
    with pytest.raises(MaskError, match="5: names no mask"):
        parse_masks(["5:"])


@pytest.mark.parametrize("number", ["0.5", "-1", "1,5", "-12s"])
def test_what_is_no_frame_number_is_refused(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_masks([f"{number}:mask.png"]) == {None: Path(f"{number}:mask.png")}, (
        "no such file: a name like any other"
    )
    Path("mask.png").touch()
    with pytest.raises(MaskError, match=rf"^{number} is not the number of a frame: give a whole number from 0"):
        parse_masks([f"{number}:mask.png"])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("40", 40),
        ("12.5s", Fraction("12.5")),
        ("0s", Fraction(0)),
        ("00:00:12.5", Fraction("12.5")),
        ("1:02:03", Fraction(3723)),
        ("00:60:00", None),
        ("0:12", None),
        ("12.s", None),
        ("-1", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_a_frame_and_a_time(text: str, moment: object) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (None, None),
        ("40-60", (40, 60)),
        ("40-", (40, None)),
        ("-60", (None, 60)),
        ("40", (40, 40)),
        ("1.5s-4s", (Fraction("1.5"), Fraction(4))),
        ("00:00:01.5-", (Fraction("1.5"), None)),
    ],
)
def test_a_range(text: str | None, ends: object) -> None:
    assert parse_range(text) == ends


@pytest.mark.parametrize("text", ["", "-", "a", "1-2-3", "1.5-4", "40-x", "--4", "9" * 5000])
def test_no_range(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected frames such as 40-60"):
        parse_range(text)


def test_a_mask_may_name_a_time_or_a_frame_of_a_folder() -> None:
    names = [f"shot_{number}.jpg" for number in range(1001, 1009)]
    found = parse_masks(["12.5s:a.png", "00:00:13:b.png", "shot_1004:c.png", "shot_1006.jpg:d.png", "7:e.png"], names)
    expected = {Fraction("12.5"): "a.png", Fraction(13): "b.png", 3: "c.png", 5: "d.png", 7: "e.png"}
    assert found == {moment: Path(path) for moment, path in expected.items()}
    assert parse_masks(["a.png", "0:b.png"]) == {None: Path("a.png"), 0: Path("b.png")}


def test_a_number_may_be_the_name_of_a_frame() -> None:
    assert parse_masks(["1004:a.png"], [f"{number}.jpg" for number in range(1001, 1009)]) == {3: Path("a.png")}
    assert parse_masks(["00004:a.png"], [f"{number:05d}.jpg" for number in range(9)]) == {4: Path("a.png")}
    names = [f"{number}.jpg" for number in range(1, 9)]
    with pytest.raises(MaskError, match=re.escape("4 is frame 4, which is 5.jpg, and 4.jpg, which is frame 3: give")):
        parse_masks(["4:a.png"], names)
    assert parse_masks(["4.jpg:a.png", "5.jpg:b.png"], names) == {3: Path("a.png"), 4: Path("b.png")}
    assert parse_masks(["0:a.png"], names) == {0: Path("a.png")}


def test_two_masks_for_a_frame_are_refused() -> None:
    with pytest.raises(MaskError, match=re.escape("two masks for frame 7: a.png and b.png; give")):
        parse_masks(["7:a.png", "7:b.png"])


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("128", 128),
        ("0", 0),
        ("68,1,84", (68, 1, 84)),
        ("white", (255, 255, 255)),
        ("#440154", (68, 1, 84)),
        ("440154", (68, 1, 84)),
        ("#fff", (255, 255, 255)),
    ],
)
def test_a_colour(text: str, color: object) -> None:
    assert parse_color(text) == color


def test_names_of_objects() -> None:
    texts = ["dog=#ff0000", "cat = 2", "a=b=white", "bird=left.png", "fox=0,128,0"]
    expected = {(255, 0, 0): "dog", 2: "cat", (255, 255, 255): "a=b", "left.png": "bird", (0, 128, 0): "fox"}
    assert list(parse_names(texts).items()) == list(expected.items())
    assert parse_names(None) == {}


@pytest.mark.parametrize("text", ["dog", "=2", "dog=", " =2"])
def test_no_name(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected NAME=COLOUR or NAME=ID"):
        parse_names([text])


def test_two_names_for_a_colour_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="has two names, 'dog' and 'cat'"):
        parse_names(["dog=#ff0000", "cat=ff0000"])


@pytest.mark.parametrize("text", ["", "whitish", "256", "1,2", "1,2,300", "-1", "1,2,3,4", "9" * 5000, "#12345"])
def test_no_colour(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a colour such as white, 68,1,84 or #440154"):
        parse_color(text)
