"""What is typed for masks and sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from vostrack.cli.segment import parse_masks
from vostrack.cli.settings import parse_color
from vostrack.errors import MaskError


@pytest.mark.parametrize(
    ("text", "frame", "path"),
    [
        ("a.png", 0, "a.png"),
        ("0:a.png", 0, "a.png"),
        ("120:b/a:1.png", 120, "b/a:1.png"),
        (r"C:\x.png", 0, r"C:\x.png"),
        (r"7:C:\x.png", 7, r"C:\x.png"),
        ("-1:a.png", 0, "-1:a.png"),
        ("x:a.png", 0, "x:a.png"),
        ("٣:a.png", 0, "٣:a.png"),
        (f"{'9' * 5000}:a.png", 0, f"{'9' * 5000}:a.png"),
    ],
)
def test_a_mask_may_name_its_frame(text: str, frame: int, path: str) -> None:
    assert parse_masks([text]) == {frame: Path(path)}


def test_a_file_with_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("3:a.png").touch()
    assert parse_masks(["3:a.png"]) == {0: Path("3:a.png")}
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


@pytest.mark.parametrize("number", ["0.5", "-1", "1,5", "12s"])
def test_what_is_no_frame_number_is_refused(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_masks([f"{number}:mask.png"]) == {0: Path(f"{number}:mask.png")}, "no such file: a name like any other"
    Path("mask.png").touch()
    with pytest.raises(MaskError, match=rf"^{number} is not the number of a frame: give a whole number from 0"):
        parse_masks([f"{number}:mask.png"])


def test_two_masks_for_a_frame_are_refused() -> None:
    with pytest.raises(MaskError, match=re.escape("two masks for frame 0: a.png and b.png; give")):
        parse_masks(["a.png", "0:b.png"])


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


@pytest.mark.parametrize("text", ["", "whitish", "256", "1,2", "1,2,300", "-1", "1,2,3,4", "9" * 5000, "#12345"])
def test_no_colour(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a colour such as white, 68,1,84 or #440154"):
        parse_color(text)
