"""Reading JSON and TOML that anyone may have written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Entry
from vostrack.files import open_regular, parse_json, read_json, read_toml


def test_what_is_of_the_declared_shape_is_built(tmp_path: Path) -> None:
    text = '{"name": "a", "size": 3, "scores": {"J": 1}, "parts": [1, 2], "unknown": []}'
    expected = Entry("a", 3, {"J": 1.0}, None, (1, 2))
    assert parse_json(text, Entry) == expected
    (tmp_path / "a.json").write_text(f"[{text}]")
    assert read_json(tmp_path / "a.json", list[Entry]) == [expected]
    (tmp_path / "a.toml").write_text('name = "a"\nsize = 3\nparts = [1, 2]\n[scores]\nJ = 1\n')
    assert read_toml(tmp_path / "a.toml", Entry) == expected
    assert parse_json('{"a": [null]}') == {"a": [None]}


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[" * 100_000, Any, "nested too deeply"),
        ('{"a":' * 100_000, Any, "nested too deeply"),
        ("nonsense", Any, "Expecting value"),
        ('"\\ud800"', str, "surrogates"),
        ('{"a": ["\\ud800"]}', Any, "surrogates"),
        ('{"name": "a", "size": 3}', Entry, "it lacks 'scores'"),
        ('{"name": 1, "size": 3, "scores": {}}', Entry, "name is int, expected str"),
        ('{"name": "a", "size": true, "scores": {}}', Entry, "size is bool, expected int"),
        ('{"name": "a", "size": 3, "scores": {"J": "high"}}', Entry, "J is str, expected float"),
        ('{"name": "a", "size": 3, "scores": []}', Entry, "scores is list, expected dict"),
        ("[1, [2]]", list[int], "an entry of it is list, expected int"),
        ("[]", Entry, "it is list, expected Entry"),
        ("NaN", float, "not finite"),
        ("9" * 400, float, "expected float"),
        ("9" * 400, int, "more than 64 bits"),
        ("9" * 5000, int, "digits"),
    ],
)
def test_what_is_not_is_a_value_error(text: str, kind: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text, kind)


def test_toml_that_is_hostile_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text, words in (
        ("a = " + "[" * 50_000, "deeply|Invalid"),
        ("a = inf", "not finite"),
        ("a = 'b'", "expected float"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_toml(path, dict[str, float])


def test_what_is_no_regular_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises((ValueError, OSError)):
            open_regular(path)
    (tmp_path / "large.json").write_text("1" * 100)
    with pytest.raises(ValueError, match="more than 50 bytes"):
        read_json(tmp_path / "large.json", int, most=50)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
