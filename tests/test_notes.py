from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

import vostrack
from vostrack.notes import NOTE, WARNING, Code, Note, by_severity

ROOT = Path(vostrack.__file__).parent


@pytest.fixture(scope="module")
def used() -> set[str]:
    """The names of all codes that some module makes notes with."""
    sources = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if path.name != "notes.py"]
    return set(re.findall(r"\bNote\(\s*Code\.(\w+)", "".join(sources)))


@pytest.mark.parametrize("code", Code)
def test_every_code_is_used(code: Code, used: set[str]) -> None:
    assert code.name in used
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", str(code))
    assert code.severity in (WARNING, NOTE)


def test_a_note_is_its_line_and_keeps_its_code() -> None:
    note = Note(Code.MASK_LATE, "late")
    assert (note, note.of("a.png"), note.of("a.png").code) == ("late", "a.png: late", Code.MASK_LATE)
    same = copy.deepcopy(note)  # as between processes
    assert (same, same.code) == ("late", Code.MASK_LATE)


def test_a_summary_tells_warnings_from_notes() -> None:
    notes = [Note(Code.MASK_SNAPPED, "one"), Note(Code.MASK_LATE, "two")]
    assert by_severity(notes) == {
        "warnings": [{"code": "mask-late", "text": "two"}],
        "notes": [{"code": "mask-snapped", "text": "one"}],
    }
