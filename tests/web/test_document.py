from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vostrack import MaskError, OutputError, read_mask
from vostrack.files import OutputRoot
from vostrack.web.document import JOURNAL, Document
from vostrack.web.strokes import encoded
from vostrack.web.things import Step

SIZE = (24, 32)
SQUARE = [[4.0, 4.0], [14.0, 4.0], [14.0, 12.0], [4.0, 12.0]]


def document(folder: Path) -> Document:
    made = Document(SIZE, folder)
    made.do(Step("add", name="dog", color="#ff0000"))
    made.do(Step("add", name="cat"))
    return made


def state(made: Document) -> Any:
    return made.things, {frame: made.labels(frame).tolist() for frame in made.frames}


def test_what_is_saved_is_what_the_command_line_reads(tmp_path: Path) -> None:
    made = document(tmp_path / "edit")
    made.do(Step("polygon", 7, 1, SQUARE))
    made.do(Step("brush", 7, 2, [[20.0, 20.0]], radius=3))
    path = made.save(tmp_path / "masks", 7)
    np.testing.assert_array_equal(read_mask(path, SIZE).labels.pixels.numpy(), made.labels(7))
    with Image.open(path) as image:
        assert (path.name, image.mode, image.convert("RGB").getpixel((5, 5))) == ("00007.png", "P", (255, 0, 0))
    assert (made.labels(7) == 1).sum() == 80


def test_erasing_filling_and_clearing(tmp_path: Path) -> None:
    made = document(tmp_path)
    made.do(Step("polygon", 0, 1, SQUARE))
    made.do(Step("erase", 0, 0, [[9.0, 8.0]], radius=2))
    hole = 80 - int((made.labels(0) == 1).sum())
    assert 9 <= hole <= 16
    made.do(Step("holes", 0, 1))
    assert (made.labels(0) == 1).sum() == 80
    made.do(Step("fill", 0, 2, [[5, 5]]))
    assert set(np.unique(made.labels(0))) == {0, 2}
    made.do(Step("grow", 0, 2, radius=1))
    assert (made.labels(0) == 2).sum() == 80 + 36
    made.do(Step("grow", 0, 2, radius=-1))
    made.do(Step("smooth", 0, 2, radius=1))
    assert 76 <= (made.labels(0) == 2).sum() <= 80
    made.do(Step("clear", 0, 2))
    assert not made.labels(0).any()
    assert made.frames == [0]  # an empty mask says that nothing is there


def test_objects_are_named_coloured_merged_and_deleted(tmp_path: Path) -> None:
    made = document(tmp_path)
    made.do(Step("polygon", 0, 1, SQUARE))
    made.do(Step("brush", 3, 2, [[20.0, 20.0]], radius=3))
    made.do(Step("rename", id=1, name="wolf"))
    made.do(Step("recolor", id=1, color="#00ff00"))
    assert (made.things[1].name, made.things[1].color) == ("wolf", "#00ff00")
    made.do(Step("merge", id=2, other=1))
    assert set(np.unique(made.labels(3))) == {0, 1}
    made.do(Step("delete", id=1))
    assert (list(made.things), made.labels(0).any(), made.labels(3).any()) == ([], False, False)
    for _ in range(2):
        made.undo()
    assert (list(made.things), set(np.unique(made.labels(3)))) == ([1, 2], {0, 2})


def test_locked_objects_and_the_background_alone(tmp_path: Path) -> None:
    made = document(tmp_path)
    made.do(Step("polygon", 0, 1, SQUARE))
    made.do(Step("lock", id=1, locked=True))
    made.do(Step("brush", 0, 2, [[9.0, 8.0]], radius=30))
    assert (made.labels(0) == 1).sum() == 80
    assert (made.labels(0) == 2).sum() == SIZE[0] * SIZE[1] - 80
    made.do(Step("lock", id=1, locked=False))
    made.do(Step("clear", 0, 2))
    made.do(Step("brush", 0, 2, [[9.0, 8.0]], radius=30, only="background"))
    assert (made.labels(0) == 1).sum() == 80


@pytest.mark.parametrize(
    "step",
    [
        Step("paint", 0, 1, SQUARE),
        Step("brush", 0, 9, [[1, 1]], radius=1),
        Step("brush", 0, 1, [], radius=1),
        Step("brush", 0, 1, [[1, 1, 1]], radius=1),
        Step("brush", 0, 1, [[1, 1]], radius=5000),
        Step("brush", 0, 1, [[1e9, 1]], radius=1),
        Step("brush", -1, 1, [[1, 1]], radius=1),
        Step("polygon", 0, 1, SQUARE[:2]),
        Step("fill", 0, 1, [[-3, 2]]),
        Step("region", 0, 1, data="no picture"),
        Step("region", 0, 1, data=encoded(np.zeros((3, 3), np.uint8))),
        Step("begin", 0, data=encoded(np.full(SIZE, 77, np.uint8))),
        Step("brush", 0, 1, [[1, 1]], radius=1, only="2"),
        Step("add", id=1),
        Step("add", id=255),
        Step("add", name="a\x1bb"),
        Step("add", color="red"),
        Step("add", color="#000000"),
        Step("rename", id=9),
        Step("recolor", id=1, color="#fff"),
        Step("merge", id=1, other=1),
        Step("merge", id=1, other=7),
        Step("gone", 3, 1, last=2),
        Step("gone", 3, 9),
        Step("here", 3, 9),
    ],
    ids=str,
)
def test_what_cannot_be_done_changes_nothing(tmp_path: Path, step: Step) -> None:
    made = document(tmp_path)
    before, written = state(made), (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(MaskError):
        made.do(step)
    assert (state(made), (tmp_path / JOURNAL).read_bytes()) == (before, written)


NUMBERS = st.integers(0, 30)
STEPS = st.one_of(
    st.builds(
        Step,
        st.just("brush"),
        st.integers(0, 2),
        st.integers(1, 2),
        st.lists(st.tuples(NUMBERS, NUMBERS).map(list), min_size=1, max_size=3),
        st.floats(0.5, 5),
    ),
    st.builds(Step, st.just("grow"), st.integers(0, 2), st.integers(1, 2), radius=st.integers(-2, 2).map(float)),
    st.builds(Step, st.just("merge"), id=st.just(2), other=st.just(1)),
    st.builds(Step, st.just("lock"), id=st.integers(1, 2), locked=st.booleans()),
    st.builds(Step, st.sampled_from(["gone", "here"]), NUMBERS, st.integers(1, 2), last=st.none() | NUMBERS),
    st.just("undo"),
    st.just("redo"),
)


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=14))
def test_a_journal_gives_all_of_it_again_and_undo_goes_back_to_the_start(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step | str]
) -> None:
    folder = tmp_path_factory.mktemp("edit")
    made = Document(SIZE, folder)
    start = state(made)
    for step in [Step("add"), Step("add"), *steps]:
        if isinstance(step, Step):
            with contextlib.suppress(MaskError):  # an object that has become part of another
                made.do(step)
        else:
            getattr(made, step)()
    again = Document(SIZE, folder)
    assert (state(again), again.can_undo, again.can_redo) == (state(made), made.can_undo, made.can_redo)
    end = state(made)
    while made.can_undo:
        made.undo()
    assert state(made) == start
    while again.can_redo:
        again.redo()
    while made.can_redo:
        made.redo()
    assert state(made) == state(again)
    assert made.can_undo or end == start


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.none() | st.integers(0, 6)), max_size=6))
def test_where_an_object_is_gone(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[bool, int, int | None]]
) -> None:
    made, gone = document(tmp_path_factory.mktemp("edit")), np.zeros(40, np.bool_)
    for is_gone, first, more in said:
        last = None if more is None else first + more
        made.do(Step("gone" if is_gone else "here", first, 1, last=last))
        gone[first : None if last is None else last + 1] = is_gone
    spans = made.things[1].gone
    assert [made.things[1].is_gone(frame) for frame in range(40)] == gone.tolist()
    assert len(spans) == int((np.diff(np.pad(gone, 1).astype(int)) == 1).sum()), "no two spans touch"


def test_an_object_is_not_both_drawn_and_gone(tmp_path: Path) -> None:
    made = document(tmp_path)
    made.do(Step("polygon", 5, 1, SQUARE))
    with pytest.raises(MaskError, match="dog is drawn at frame 5, where it would be gone"):
        made.do(Step("gone", 3, 1))
    made.do(Step("gone", 6, 1))
    with pytest.raises(MaskError, match="dog is drawn at frame 9"):
        made.do(Step("polygon", 9, 1, SQUARE))
    made.do(Step("polygon", 9, 2, SQUARE))
    with pytest.raises(MaskError, match="dog is drawn at frame 9"):
        made.do(Step("merge", id=2, other=1))
    made.do(Step("here", 8, 1))
    assert made.things[1].gone == ((6, 7),)
    made.undo()
    made.undo()
    made.undo()
    assert made.things[1].gone == ()
    assert made.told == {1}
    made.do(Step("lock", id=1, locked=True))
    with pytest.raises(MaskError, match="dog is locked"):
        made.do(Step("gone", 6, 1))


@pytest.mark.parametrize("away", [Step("delete", id=2), Step("merge", id=2, other=1)], ids=str)
def test_an_object_takes_nothing_over_from_one_that_had_its_id(tmp_path: Path, away: Step) -> None:
    made, shown = document(tmp_path), np.ones(SIZE, np.uint8)
    shown[:12] = 2
    for frame in (3, 4):
        made.do(Step("begin", frame, data=encoded(shown)))
    made.do(Step("clear", 4, 2))
    made.do(away)
    made.do(Step("add", name="new"))
    made.do(Step("polygon", 0, 2, SQUARE))
    for each in (made, Document(SIZE, tmp_path)):
        assert [each.erased(frame) for frame in (3, 4)] == [frozenset(), frozenset()]
        assert 2 in each.told, "a run that says where the other was gone does not mean it"
        for _ in range(3):
            each.undo()
        assert [each.erased(frame) for frame in (3, 4)] == [frozenset(), {2}]
        each.redo()
        assert each.erased(4) == frozenset()
        each.undo()
        each.undo()
        assert each.erased(4) == frozenset()
        for _ in range(4):
            each.redo()


def test_a_line_that_a_kill_cut_off_is_a_step_that_was_not_done(tmp_path: Path) -> None:
    made = document(tmp_path)
    made.do(Step("polygon", 0, 1, SQUARE))
    before = state(made)
    made.do(Step("brush", 0, 2, [[20.0, 20.0]], radius=3))
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[:-5])
    again = Document(SIZE, tmp_path)
    assert state(again) == before
    again.do(Step("brush", 0, 2, [[9, 9]], radius=3))
    assert state(Document(SIZE, tmp_path)) == state(again)


def test_what_is_left_of_a_step_that_could_not_be_written_down_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = document(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def half(root: OutputRoot, name: str, text: str) -> None:
        with root.at(name).open("a") as file:
            file.write(text[:5])
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(OutputRoot, "append", half)
        patch.setattr(os, "truncate", fails)
        for _ in range(2):
            with pytest.raises(OutputError):
                made.do(Step("polygon", 0, 1, SQUARE))
    made.do(Step("brush", 0, 2, [[9, 9]], radius=3))
    assert state(Document(SIZE, tmp_path)) == state(made)


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"kind": "brush", "id": 9}', '{"kind": "add", "id": 3e9}'])
def test_a_journal_of_others_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / JOURNAL).write_text(f"{text}\n")
    with pytest.raises(OutputError, match=r"move .* away"):
        Document(SIZE, tmp_path)


def test_the_beginning_of_a_frame_is_taken_back_with_its_first_stroke(tmp_path: Path) -> None:
    made = document(tmp_path)
    predicted = np.zeros(SIZE, np.uint8)
    predicted[2:5, 2:5] = 2
    made.do(Step("begin", 9, data=encoded(predicted), opens=True))
    made.do(Step("brush", 9, 1, [[20.0, 20.0]], radius=2))
    after = state(made)
    made.undo()
    assert made.frames == []
    made.redo()
    assert state(made) == after


def test_of_what_was_predicted_only_what_is_touched_is_drawn(tmp_path: Path) -> None:
    made, predicted = document(tmp_path), np.zeros(SIZE, np.uint8)
    predicted[2:5, 2:5], predicted[10:15, 10:15] = 1, 2
    stroke = Step("brush", 9, 1, [[12.0, 11.0]], radius=1)
    made.lay(stroke, predicted)
    made.do(stroke)
    assert (made.ids(9), made.erased(9)) == ({1}, set())
    assert not (made.labels(9) == 2).any()
    there = made.over(9, predicted)
    assert ((there == 2) == ((predicted == 2) & (there != 1))).all()
    made.do(Step("gone", 3, 2))
    made.undo()
    made.do(Step("erase", 9, 0, [[14.0, 14.0]], radius=1))
    assert made.ids(9) == {1, 2}
    assert (made.over(9, np.zeros(SIZE, np.uint8)) == made.labels(9)).all()
    with pytest.raises(MaskError, match="cat is drawn at frame 9"):
        made.do(Step("gone", 3, 2))
    made.undo()
    made.do(Step("merge", id=2, other=1))
    assert (made.labels(9) == 1).sum() == 9 + 25
    assert state(Document(SIZE, tmp_path)) == state(made)


def test_a_stroke_that_touches_nothing_says_nothing(tmp_path: Path) -> None:
    made, predicted = document(tmp_path), np.zeros(SIZE, np.uint8)
    predicted[2:5, 2:5] = 1
    for step in (Step("erase", 4, 1, [[9.0, 9.0]], radius=1), Step("brush", 4, 2, [[3.0, 3.0]], only="background")):
        made.lay(step, predicted)
        made.do(step)
        assert (made.frames, made.ids(4), made.erased(4)) == ([], set(), set())


def test_what_a_lock_keeps_from_being_done_is_refused(tmp_path: Path) -> None:
    made, predicted = document(tmp_path), np.zeros(SIZE, np.uint8)
    predicted[2:5, 2:5] = 1
    made.do(Step("polygon", 0, 1, SQUARE))
    made.do(Step("lock", id=1, locked=True))
    count = made.count
    for step in (
        Step("erase", 4, 1, [[3.0, 3.0]], radius=1),
        Step("brush", 4, 2, [[3.0, 3.0]], radius=1),
        Step("brush", 4, 1, [[9.0, 9.0]], radius=1),
        Step("delete", id=1),
        Step("merge", id=1, other=2),
        Step("merge", id=2, other=1),
    ):
        with pytest.raises(MaskError, match="dog is locked: unlock it first"):
            made.lay(step, predicted) if step.points else made.do(step)
        with pytest.raises(MaskError, match="dog is locked: unlock it first"):
            made.do(replace(step, frame=0, points=[[9.0, 8.0]] if step.points else []))
    assert (made.count, made.frames) == (count, [0])
    made.do(Step("brush", 0, 2, [[9.0, 8.0]], radius=30))
    assert (made.labels(0) == 1).sum() == 80


def test_a_mask_that_was_given_stays_when_a_stroke_is_taken_back(tmp_path: Path) -> None:
    made = document(tmp_path)
    given = np.zeros(SIZE, np.uint8)
    given[2:5, 2:5] = 2
    for frame in (0, 9):
        made.do(Step("begin", frame, data=encoded(given)))
    made.do(Step("brush", 0, 1, [[20.0, 20.0]], radius=2))
    made.undo()
    assert made.frames == [0, 9]
    np.testing.assert_array_equal(made.labels(9), given)


def test_a_full_disk_costs_only_the_step_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = document(tmp_path)
    before, append = state(made), OutputRoot.append

    def half(self: OutputRoot, name: str, text: str) -> None:
        append(self, name, text[: len(text) // 2])
        raise OutputError("the disk is full")

    monkeypatch.setattr(OutputRoot, "append", half)
    with pytest.raises(OutputError):
        made.do(Step("polygon", 0, 1, SQUARE))
    monkeypatch.setattr(OutputRoot, "append", append)
    assert state(made) == before
    made.do(Step("brush", 0, 2, [[20.0, 20.0]], radius=3))
    assert state(Document(SIZE, tmp_path)) == state(made)
