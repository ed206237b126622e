from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.forks import fork
from tests.runs import labels, results, until
from vostrack import InputError, MaskError, OutputError, OutputExistsError, read_mask, segment, update
from vostrack.cli.edit import command
from vostrack.ops.color import rgb_to_lab
from vostrack.run.folder import OutputFolder
from vostrack.run.place import default_folder
from vostrack.run.request import Request
from vostrack.types import VOID
from vostrack.video.masks import read_prompts
from vostrack.video.palette import palette_image
from vostrack.web.changes import ONCE
from vostrack.web.document import JOURNAL, Document
from vostrack.web.frames import FrameCache
from vostrack.web.session import Session, Wanted, drawn_in, held
from vostrack.web.strokes import decoded, encoded
from vostrack.web.things import Step
from vostrack.web.work import Progress

SQUARE = [[8.0, 10.0], [28.0, 10.0], [28.0, 30.0], [8.0, 30.0]]
COPY = Wanted(method="copy")
SIGHTS = [
    [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    [[0.367, 0.861, -0.228], [0.28, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
]
"""What people without one kind of cone see, in linear light. Paper: Machado et al., 2009, table 1."""


def draw(session: Session, frame: int = 0) -> None:
    if not session.document.things:
        session.do(Step("add", name="dog", color="#ff0000"))
    session.do(Step("polygon", frame, 1, SQUARE))


def followed(session: Session, wanted: Wanted = COPY) -> None:
    session.follow(wanted)
    assert until(lambda: not session.work.progress.running, 240)
    assert session.work.progress.error == ""


def test_frames_come_in_any_order_and_end_where_the_clip_does(session: Session) -> None:
    last, first = session.frames.jpeg(11), session.frames.jpeg(0)
    assert (last[:2], first[:2], last == first) == (b"\xff\xd8", b"\xff\xd8", False)
    assert (session.frames.count, session.frames.ready) == (12, 12)
    with pytest.raises(InputError, match="no frame 12"):
        session.frames.jpeg(12, seconds=5)


def test_what_cannot_be_followed(session: Session) -> None:
    with pytest.raises(MaskError, match="nothing is drawn"):
        session.follow(COPY)
    draw(session)
    with pytest.raises(MaskError, match="no frame 12"):
        session.do(Step("brush", 12, 1, [[1, 1]], radius=2))
    with pytest.raises(MaskError, match="follow first"):
        session.export("coco")
    with pytest.raises(MaskError, match="no object 7"):
        session.do(Step("gone", 3, 7))
    with pytest.raises(MaskError, match="are no frames"):
        session.do(Step("gone", 5, 1, last=3))


@pytest.mark.slow
def test_drawn_followed_corrected_gone_and_exported(session: Session, clip: Path, tmp_path: Path) -> None:
    draw(session)
    followed(session)
    assert session.is_followed
    assert (session.predicted(11) == 1).sum() == 400
    # The same by hand.
    mask = drawn_in(session.out) / "00000.png"
    segment(clip, mask, tmp_path / "by_hand", method="copy", names={1: "dog"})
    assert results(session.out) == results(tmp_path / "by_hand")
    with pytest.raises(MaskError, match="nothing has changed"):
        session.follow(COPY)

    session.do(Step("erase", 6, 1, [[8, 10]], radius=5))  # begins with what was predicted
    assert 300 < (session.labels(6) == 1).sum() < 400
    session.do(Step("gone", 9, 1))
    assert not session.labels(9).any()
    followed(session)
    assert [int((session.predicted(frame) == 1).sum()) for frame in (9, 11)] == [0, 0]
    assert (session.predicted(7) == session.labels(6)).all()
    told = session.state()
    assert (told["followed"], told["drawn"], told["things"][0]["gone"]) == (True, [0, 6], ((9, None),))
    assert "--gone 1@9-" in told["command"]
    assert told["command"].startswith("vostrack segment ")
    assert told["command"].endswith(f"-o {session.out}_again")
    found = session.findings()
    assert (len(found["confidence"]["1"]), found["cuts"]) == (12, [])
    assert Path(session.export("matte")).is_dir()
    session.document.undo()
    assert not session.labels(11).any(), "until it is followed"
    followed(session)
    assert (session.predicted(11) == session.labels(6)).all()


@pytest.mark.slow
def test_what_was_said_of_a_run_is_taken_over_and_back(clip: Path, tmp_path: Path) -> None:
    mask, out = tmp_path / "masks/dog.png", tmp_path / "run"
    masks: dict[int, Path | np.ndarray] = {0: mask, 7: np.zeros((48, 64), np.uint8)}
    segment(clip, masks, out, method="copy", names={255: "dog"}, gone={"dog": [(4, 5), (8, None)]})
    session = Session.open(out)
    with pytest.raises(MaskError, match="nothing has changed"):
        session.follow(COPY)
    assert session.document.things[1].gone == ((4, 5), (8, None))
    session.do(Step("here", 8, 1))
    session.close()
    again = Session.open(out)
    try:
        assert again.document.things[1].gone == ((4, 5),), "what was said last counts"
        again.do(Step("rename", id=1, name="wolf"))
        with pytest.raises(MaskError, match="follow first"):
            again.export("coco")
        followed(again)
        assert [bool(again.predicted(frame).any()) for frame in (3, 5, 6, 11)] == [True, False, True, True]
        assert Request.kept_in(OutputFolder(out))[1].names == {1: "wolf"}
        with pytest.raises(MaskError, match="nothing has changed"):
            again.follow(COPY)
    finally:
        again.close()


@pytest.mark.slow
def test_how_a_run_is_followed_stays_until_all_is_followed_anew(session: Session) -> None:
    draw(session)
    followed(session)
    assert session.state()["wanted"]["method"] == "copy"
    session.do(Step("clear", 6, 1))
    followed(session, Wanted("best", "fast"))
    assert session.state()["wanted"]["method"] == "copy"
    followed(session, Wanted("copy", size=24, anew=True))
    assert session.state()["wanted"]["size"] == 24
    assert Request.kept_in(OutputFolder(session.out))[0].config.size == 24


@pytest.mark.slow
def test_the_engine_that_people_use_follows_and_corrects(session: Session) -> None:
    draw(session)
    followed(session, Wanted(preset="fast"))
    truth = np.zeros((48, 64), np.bool_)
    truth[10:30, 8 + 11 : 28 + 11] = True
    found = session.predicted(11) == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    before = [session.predicted(frame) for frame in (3, 11)]
    session.do(Step("erase", 8, 1, [[20.0, 12.0], [30.0, 12.0]], radius=3))
    followed(session, Wanted(preset="fast", first=6))
    assert (session.predicted(8) == session.labels(8)).all()
    assert [(session.predicted(frame) == was).all() for frame, was in zip((3, 11), before, strict=True)] == [
        True,
        False,
    ]
    assert session.state()["wanted"]["preset"] == "fast"


@pytest.mark.slow
def test_a_choice_of_frames_holds_for_one_time(session: Session) -> None:
    draw(session, 1)
    session.do(Step("clear", 0, 1))
    followed(session)
    assert [bool((session.labels(frame) == 1).any()) for frame in (0, 2)] == [False, True]
    other = [[30.0, 10.0], [40.0, 10.0], [40.0, 30.0]]
    session.do(Step("polygon", 3, 1, other))
    followed(session, Wanted(first=3, last=5))
    assert (session.predicted(6) == session.labels(1)).all()
    session.do(Step("clear", 1, 1))  # now 3 is the first one that shows it
    session.do(Step("polygon", 4, 1, other[::-1]))
    followed(session)
    assert not session.labels(0).any()
    assert (session.predicted(2) == session.labels(3)).all()
    assert (session.predicted(11) == session.labels(4)).all()


def test_frames_that_were_locked_elsewhere_stay_locked(clip: Path, tmp_path: Path) -> None:
    mask = tmp_path / "masks/dog.png"
    segment(clip, mask, tmp_path / "run", method="copy")
    update(tmp_path / "run", {5: mask}, lock_ranges=[(0, 4)])
    with closing(Session.open(tmp_path / "run")) as session:
        draw(session, 8)
        followed(session)
        assert Request.kept_in(OutputFolder(session.out))[0].locks.frames == ((0, 4),)


def test_a_run_with_settings_that_the_page_lacks_is_not_begun_anew(clip: Path, tmp_path: Path) -> None:
    mask = tmp_path / "masks/dog.png"
    segment(clip, mask, tmp_path / "run", method="mast-mem", settings={"radius": 3}, size=48, outputs=["masks"])
    with closing(Session.open(tmp_path / "run")) as session, pytest.raises(MaskError, match="does not have"):
        session.follow(Wanted(anew=True))


@pytest.fixture
def run_with_void(clip: Path, tmp_path: Path) -> Path:
    """A run from a mask that leaves a row of pixels open, above the square."""
    pixels = np.zeros((48, 64), np.uint8)
    pixels[10:30, 8:28], pixels[9, 8:28] = 1, VOID
    image = palette_image(pixels)
    image.save(tmp_path / "open.png")
    segment(clip, tmp_path / "open.png", tmp_path / "run", method="copy")
    return tmp_path / "run"


def test_what_a_mask_leaves_open_is_no_object(run_with_void: Path) -> None:
    with closing(Session.open(run_with_void)) as session:
        assert [*session.document.things] == [1]
        assert session.document.ids(0) == {1}
        with pytest.raises(MaskError, match="nothing has changed"):
            session.follow(COPY)
        draw(session, 6)
        session.do(Step("lock", id=1, locked=True))
        assert session.older() == {}, "the same square"
        session.do(Step("lock", id=1, locked=False))
        session.do(Step("erase", 0, points=[[8, 9], [28, 9]], radius=1))
        assert session.older() == {1: ((0, 5),)}
        followed(session)
        assert session.older() == {}
        assert (session.predicted(3) == session.labels(0)).all()


def test_a_mask_with_open_pixels_is_followed_from_the_page(clip: Path, run_with_void: Path) -> None:
    given = read_prompts({0: run_with_void.with_name("open.png")}, (48, 64))
    with closing(Session.open(clip, given=given)) as session:
        followed(session)
        assert results(session.out) == results(run_with_void)


def test_what_is_older_is_told_before_the_clip_is_read(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = tmp_path / "masks/dog.png"
    segment(clip, {0: mask, 11: mask}, tmp_path / "run", method="copy")

    def late(*_: object) -> str:
        raise InputError("it takes too long")

    monkeypatch.setattr(FrameCache, "name", late)
    with closing(Session.open(tmp_path / "run")) as session:
        assert (session.predicted(8) == session.labels(0)).all()
        session.do(Step("begin", 8, data=encoded(session.predicted(8))))
        session.do(Step("lock", id=1, locked=True))
        assert session.state()["older"] == {}


def test_a_result_that_cannot_be_read_is_read_again(clip: Path, tmp_path: Path) -> None:
    mask, away = tmp_path / "masks/dog.png", tmp_path / "away.png"
    segment(clip, {0: mask, 5: mask}, tmp_path / "run", method="copy")
    update(tmp_path / "run", {9: mask}, lock=[1], lock_ranges=[(0, 4)])
    with closing(Session.open(tmp_path / "run")) as session:
        session.do(Step("begin", 8, data=encoded(session.predicted(8))))
        for name in ("00005", "00008"):
            result = tmp_path / f"run/masks/{name}.png"
            result.rename(away)
            assert session.older() in ({}, {1: ((8, 8),)})
            away.rename(result)
            assert session.older() == {}


def test_a_refusal_while_something_is_followed_keeps_no_choice(clip: Path, tmp_path: Path) -> None:
    segment(clip, tmp_path / "masks/dog.png", tmp_path / "run", method="copy")
    with closing(Session.open(tmp_path / "run")) as session:
        session.do(Step("erase", 6, 1, [[8, 10]], radius=5))
        session.work.progress = Progress(1, running=True)
        with pytest.raises(MaskError, match="stop it first"):
            session.follow(Wanted(first=5, last=9))
        assert not (drawn_in(session.out) / ONCE).exists()


def test_what_is_older_is_followed_in_the_frames_that_are_chosen_alone(session: Session) -> None:
    draw(session)
    session.do(Step("add"))
    session.do(Step("polygon", 0, 2, [[40.0, 30.0], [60.0, 30.0], [60.0, 44.0]]))
    followed(session)
    before = session.predicted(0)
    session.do(Step("erase", 3, 1, [[8, 10]], radius=5))
    session.do(Step("erase", 8, 2, [[60, 44]], radius=3))
    with pytest.raises(MaskError, match="nothing that may change has changed"):
        session.follow(Wanted(changed=True, first=4, last=7))
    followed(session, Wanted(changed=True, first=2, last=6))
    locks = Request.kept_in(OutputFolder(session.out))[0].locks
    assert (locks.objects, locks.frames) == ((2,), ((0, 2), (7, 11)))
    changed = [bool((session.predicted(frame) != before).any()) for frame in range(12)]
    assert changed == [3 <= frame <= 6 for frame in range(12)]
    assert session.older() == {2: ((8, None),)}


@pytest.mark.parametrize(
    "text",
    [
        '{"objects": [true]}',
        '{"objects": [1e300]}',
        '{"objects": null}',
        '{"frames": ["12"]}',
        '{"frames": [[1, 2, 3]]}',
        '{"frames": [[null, 1]]}',
        "[]",
    ],
)
def test_a_choice_that_others_wrote_is_refused(clip: Path, text: str) -> None:
    folder = drawn_in(default_folder(clip))
    folder.mkdir()
    (folder / ONCE).write_text(text)
    with pytest.raises(OutputError, match="move it away"):
        Session.open(clip)


def test_a_link_in_the_place_of_what_is_drawn_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    drawn_in(default_folder(clip)).symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError, match="is a link"), held(default_folder(clip)):
        pass
    assert not [*(tmp_path / "theirs").iterdir()]


@pytest.mark.slow
def test_a_stroke_that_is_refused_leaves_redo_alone(session: Session) -> None:
    draw(session)
    followed(session)
    session.do(Step("lock", id=1, locked=True))
    session.do(Step("add"))
    session.document.undo()
    with pytest.raises(MaskError):
        session.do(Step("brush", 3, 7, [[30.0, 10.0]], 4))
    assert 3 not in session.document.frames
    session.document.redo()
    assert [*session.document.things] == [1, 2]


def test_saving_writes_what_is_drawn_and_deletes_what_is_not(session: Session) -> None:
    draw(session)
    draw(session, 3)
    folder = drawn_in(session.out)
    assert [*session.save().values()] == [folder / "00000.png", folder / "00003.png"]
    np.testing.assert_array_equal(read_mask(folder / "00003.png", (48, 64)).labels.pixels.numpy(), session.labels(3))
    session.document.undo()
    session.save()
    assert sorted(path.name for path in folder.glob("*.png")) == ["00000.png"]


@pytest.mark.slow
def test_a_run_is_gone_on_with(clip: Path, tmp_path: Path) -> None:
    mask = tmp_path / "masks/dog.png"
    segment(clip, mask, tmp_path / "run", method="copy", names={255: "dog"})
    session = Session.open(tmp_path / "run")
    try:
        assert [(thing.id, thing.name) for thing in session.document.things.values()] == [(1, "dog")]
        assert (session.labels(0) == 1).sum() == 400
        assert session.clip == clip
        session.do(Step("clear", 4, 1))
    finally:
        session.close()
    again = Session.open(tmp_path / "run")
    try:
        assert (again.document.frames, again.labels(4).any()) == ([0, 4], False)
    finally:
        again.close()


@pytest.mark.parametrize("told", ["warnings", "damaged"])
def test_what_was_said_of_a_run_is_told_again(told: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    masks: dict[int, Path | np.ndarray] = {0: tmp_path / "masks/dog.png", 11: np.zeros((48, 64), np.uint8)}
    summary = segment(clip, masks, out, method="copy", direction="forward", gone={1: [(3, 4)]})
    assert summary["notes"], "it is seen again after it was gone"
    said = [("warning", each) for each in summary["warnings"]] + [("note", each) for each in summary["notes"]]
    if told == "damaged":
        (out / "summary.json").write_text(json.dumps({**summary, "notes": [{"code": 3}]}))
        said = []
    with closing(Session.open(out)) as session:
        notes = session.state()["work"]["notes"]
    assert [*notes] == [(each["code"], severity, each["text"]) for severity, each in said]


@pytest.mark.slow
def test_a_run_of_a_part_with_numbers_of_its_own(clip: Path, tmp_path: Path) -> None:
    part: dict[str, Any] = {"method": "copy", "range": (2, 9), "start_number": 1001}
    segment(clip, {2: tmp_path / "masks/dog.png"}, tmp_path / "run", **part)
    session = Session.open(tmp_path / "run")
    session.command = command
    try:
        assert [bool(session.labels(frame).any()) for frame in (1, 2, 9, 10)] == [False, True, True, False]
        with pytest.raises(MaskError, match="the run covers frames 2 to 9"):
            draw(session, 1)
        session.do(Step("erase", 6, 1, [[8, 10]], radius=5))
        followed(session)
        assert (session.predicted(9) == session.labels(6)).all()
        assert "--range 2-9 --start-number 1001" in session.state()["command"]
        masks: dict[int, Path | np.ndarray] = {frame: session.labels(frame) for frame in (2, 6)}
        segment(clip, masks, tmp_path / "by_hand", **part)
        assert results(session.out) == results(tmp_path / "by_hand")
        followed(session, Wanted("copy", size=24, anew=True))
        assert Request.kept_in(OutputFolder(session.out))[0].span == session.span
    finally:
        session.close()


@pytest.mark.slow
def test_stopping_keeps_what_is_done_and_the_page_goes_on(session: Session) -> None:
    draw(session)
    session.follow(COPY)
    with pytest.raises(MaskError, match="stop it first"):
        session.follow(COPY)
    session.work.stop()
    assert until(lambda: not session.work.progress.running, 240)
    followed(session)


def strokes() -> Iterator[Step]:
    """A person who never rests."""
    yield Step("add", name="dog", color="#ff0000")
    for number in itertools.count():
        x, y = 8.0 + number % 40, 8.0 + number % 30
        yield Step("brush" if number % 3 else "erase", number % 4, 1, [[x, y], [x + 8, y + 4]], radius=4)
        if number % 7 == 0:
            yield Step("gone" if number % 2 else "here", 8 + number % 4, 1)


def draw_on(clip: Path) -> None:
    """Draw and save, and tell how much was done."""
    session = Session.open(clip)
    done = session.document.count
    for step in itertools.islice(strokes(), done, None):
        session.do(step)
        print(session.document.count, flush=True)
        session.save()


@pytest.mark.slow
def test_killed_while_it_saves(clip: Path, tmp_path: Path) -> None:
    folder, told = drawn_in(default_folder(clip)), tmp_path / "log/out"
    chance, expected, steps = random.Random(0), Document((48, 64), tmp_path / "again"), strokes()
    for _ in range(6):
        told.unlink(missing_ok=True)
        process = fork(told.parent, draw_on, clip)
        least = expected.count + 3
        while f"{least}\n" not in (told.read_text() if told.exists() else ""):
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        with held(default_folder(clip)), closing(Session.open(clip)) as session:
            assert session.document.count >= int(told.read_text().split("\n")[-2])
            while expected.count < session.document.count:
                expected.do(next(steps))
            assert session.document.things == expected.things
            for frame in range(4):
                assert (session.document.labels(frame) == expected.labels(frame)).all()
            for path in folder.glob("*.png"):
                assert np.array(Image.open(path)).max() <= 1
            paths = session.save()
        assert {path.name for path in folder.iterdir()} == {JOURNAL, *(path.name for path in paths.values())}


def test_a_folder_of_others_is_left_alone_and_two_pages_do_not_share_one(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "other/masks").mkdir(parents=True)
    with pytest.raises(OutputError):
        Session.open(clip, tmp_path / "other")
    with held(tmp_path / "out"), pytest.raises(OutputExistsError), held(tmp_path / "out"):
        pass


def test_clicks_propose_the_square(session: Session) -> None:
    data = session.propose(Step("region", 0, points=[[18.0, 20.0], [50.0, 40.0]], data="10"))
    found, square = decoded(data, (48, 64)) > 0, np.zeros((48, 64), np.bool_)
    square[10:30, 8:28] = True
    assert (found & square).sum() / (found | square).sum() > 0.9
    for wanted in ("0", "x", "11", ""):
        with pytest.raises(MaskError):
            session.propose(Step("region", 0, points=[[1.0, 1.0]], data=wanted))


def test_a_session_ends_at_once(clip: Path) -> None:
    session = Session.open(clip)
    start = time.monotonic()
    session.close()
    session.close()
    assert time.monotonic() - start < 30


def test_a_stroke_looks_at_no_other_frame(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in (0, 3, 5):
        draw(session, frame)
    session.state()
    seen, picture = set(), Document.picture

    def watched(document: Document, frame: int) -> np.ndarray:
        seen.add(frame)
        return picture(document, frame)

    monkeypatch.setattr(Document, "picture", watched)
    session.do(Step("erase", 3, 1, [[8, 10]], radius=5))
    assert "-m 3:" in session.state()["command"]
    assert seen == {3}


@pytest.mark.slow
def test_what_is_older_than_its_mask_is_told_until_it_is_followed_again(session: Session) -> None:
    draw(session)
    session.do(Step("add", name="cat"))
    session.do(Step("polygon", 0, 2, [[40.0, 30.0], [60.0, 30.0], [60.0, 44.0]]))
    assert session.state()["older"] == {}, "nothing was followed yet"
    followed(session)
    assert session.state()["older"] == {}
    session.do(Step("erase", 6, 1, [[8, 10]], radius=5))
    assert session.state()["older"] == {1: ((6, None),)}
    session.do(Step("erase", 3, 2, [[60, 44]], radius=3))
    assert session.state()["older"] == {1: ((6, None),), 2: ((3, None),)}
    session.document.undo()
    session.do(Step("gone", 9, 2))
    assert session.state()["older"][2] == ((9, None),)
    session.document.undo()
    session.do(Step("erase", 3, 2, [[60, 44]], radius=3))
    followed(session)
    assert session.state()["older"] == {}
    session.do(Step("clear", 0, 2))
    assert session.state()["older"] == {2: ((0, 2),)}
    session.document.undo()
    session.do(Step("delete", id=1))
    assert session.state()["older"] == {1: ((0, None),)}


@pytest.mark.slow
def test_a_correction_reaches_the_next_mask_and_its_object_alone(clip: Path, session: Session) -> None:
    draw(session)
    session.do(Step("add", name="cat"))
    session.do(Step("polygon", 0, 2, [[40.0, 30.0], [60.0, 30.0], [60.0, 44.0]]))
    session.do(Step("begin", 8, data=encoded(session.labels(0))))
    followed(session)
    before = [session.predicted(frame) for frame in range(12)]
    session.do(Step("erase", 4, 1, [[8, 10]], radius=5))
    session.do(Step("erase", 10, 2, [[60, 44]], radius=3))
    followed(session, Wanted(objects=[1], changed=True))
    assert session.state()["command"].startswith('# as with "All anew": what was kept as it was is followed again\n')
    assert [bool((session.predicted(frame) != before[frame]).any()) for frame in range(12)] == [
        4 <= frame <= 6
        for frame in range(12)  # 7 is nearer to the next mask
    ]
    assert all(((session.predicted(frame) == 2) == (before[frame] == 2)).all() for frame in range(12))
    assert session.state()["older"] == {2: ((10, None),)}
    followed(session, Wanted(changed=True))
    assert (session.predicted(11) == session.labels(10)).all()
    assert session.state()["older"] == {}
    for number, at in ((1, 20), (2, 50)):
        session.do(Step("erase", 4, number, [[at, 32 if number == 2 else 20]], radius=3))
    followed(session, Wanted(objects=[1], changed=True))
    assert session.state()["older"] == {2: ((4, 7),)}, "its mask was given, and not followed"
    followed(session, Wanted(changed=True))
    assert (session.predicted(4) == session.labels(4)).all()
    assert session.state()["older"] == {}
    session.close()
    with closing(Session.open(clip)) as again:  # what was spared once is not locked for good
        assert not any(thing.locked for thing in again.document.things.values())
        again.do(Step("clear", 2, 1))
        followed(again, Wanted(changed=True))
        assert [bool((again.predicted(frame) == 1).any()) for frame in (1, 2, 3, 4)] == [True, False, True, True]
        assert Request.kept_in(OutputFolder(again.out))[0].locks.frames == ((0, 1), (4, 11))
        again.do(Step("rename", id=1, name="wolf"))
        followed(again, Wanted(changed=True))
        assert Request.kept_in(OutputFolder(again.out))[1].names[1] == "wolf"
        with pytest.raises(MaskError, match="nothing has changed"):
            again.follow(Wanted(changed=True))
        again.do(Step("erase", 4, 1, [[20, 20]], radius=5))
        again.do(Step("lock", id=1, locked=True))
        with pytest.raises(MaskError, match="nothing that may change has changed"):
            again.follow(Wanted(changed=True))


CAT = [[40.0, 30.0], [60.0, 30.0], [60.0, 44.0]]


@pytest.fixture
def two(session: Session) -> Session:
    """The session, with two objects that were followed."""
    draw(session)
    session.do(Step("add", name="cat"))
    session.do(Step("polygon", 0, 2, CAT))
    followed(session)
    return session


def test_a_correction_is_of_the_objects_that_were_touched_alone(two: Session, clip: Path, tmp_path: Path) -> None:
    two.do(Step("erase", 6, 1, [[8, 10]], radius=5))
    assert (two.document.ids(6), two.older()) == ({1}, {1: ((6, None),)})
    assert (two.labels(6) == 2).any(), "what was predicted is shown below"
    saved = read_mask(two.save()[6], (48, 64)).labels
    assert saved.ids == (1,)
    two.do(Step("gone", 5, 2))
    assert not (two.labels(6) == 2).any()
    two.do(Step("here", 8, 2))
    followed(two)
    assert Request.kept_in(OutputFolder(two.out))[1].labels[6].ids == (1,)
    assert dict(two.findings()["confidence"]["2"])[9] < 1
    masks = {frame: drawn_in(two.out) / f"{frame:05d}.png" for frame in (0, 6)}
    names: dict[Any, str] = {1: "dog", 2: "cat"}
    said: dict[str, Any] = {"gone": {2: [(5, 7)]}, "direction": "both"}
    segment(clip, masks, tmp_path / "by_hand", method="copy", names=names, **said)
    assert results(two.out) == results(tmp_path / "by_hand")


def test_what_is_predicted_below_a_correction_follows_what_is_drawn_elsewhere(two: Session) -> None:
    two.do(Step("erase", 6, 1, [[8, 10]], radius=5))
    followed(two)
    two.do(Step("erase", 3, 2, [[60, 44]], radius=3))
    followed(two, Wanted(changed=True))
    for frame in (3, 6, 11):
        assert ((two.labels(frame) == 2) == (two.labels(3) == 2)).all()
    before = two.labels(6)
    two.do(Step("brush", 6, 1, [[58.0, 40.0]], radius=2, only="background"))
    assert ((two.labels(6) == 2) == (before == 2)).all(), "as it is now, not as it was when the frame was drawn on"
    two.document.undo()
    assert (two.labels(6) == before).all()


def test_an_object_that_is_painted_over_stays_what_it_was_elsewhere(two: Session) -> None:
    before = two.predicted(6)
    two.do(Step("brush", 6, 1, [[45.0, 31.0], [59.0, 31.0]], radius=2))
    assert two.document.ids(6) == {1}
    after = two.labels(6)
    assert (after[before != after] == 1).all()
    two.do(Step("clear", 8, 2))
    assert (two.document.ids(8), two.document.erased(8)) == (set(), {2})
    assert two.state()["drawn"] == [0, 6, 8]
    assert "--gone 2@8-8" in two.state()["command"]
    assert "-m 8:" not in two.state()["command"], "an empty mask would say that nothing is there"
    followed(two, Wanted(changed=True))
    assert (two.predicted(6) == after).all()
    assert [{*np.unique(two.predicted(frame)).tolist()} for frame in (5, 8, 9)] == [{0, 1, 2}, {0, 1}, {0, 1, 2}]
    two.do(Step("polygon", 8, 2, CAT))
    assert two.document.erased(8) == set()


def test_a_journal_whose_corrections_were_of_all_objects_means_what_it_did(two: Session, clip: Path) -> None:
    seen = encoded(two.predicted(6))
    for step in (Step("begin", 6, data=seen, opens=True), Step("erase", 6, 1, [[8, 10]], radius=5)):
        two.document.do(step)
    followed(two)
    assert Request.kept_in(OutputFolder(two.out))[1].labels[6].ids == (1, 2)
    two.close()
    with closing(Session.open(clip)) as again, pytest.raises(MaskError, match="nothing has changed"):
        again.follow(COPY)


def test_frames_that_a_correction_spared_can_be_followed_after_all(two: Session, clip: Path, tmp_path: Path) -> None:
    two.do(Step("erase", 6, 1, [[8, 10]], radius=5))
    followed(two, Wanted(method="copy", changed=True))
    before = two.predicted(5)
    followed(two, Wanted(method="copy", first=0, last=6))
    assert (two.predicted(5) != before).any(), "nearer to the mask that was corrected"
    segment(clip, two.save(), tmp_path / "fresh", method="copy", names={1: "dog", 2: "cat"})
    assert all((two.predicted(frame) == labels(tmp_path / "fresh", frame)).all() for frame in range(12))


def test_what_was_drawn_by_mistake_is_not_older_than_it_is(session: Session) -> None:
    draw(session)
    session.do(Step("add", name="cat"))
    session.do(Step("polygon", 0, 2, CAT))
    session.do(Step("clear", 0, 1))
    followed(session)
    assert session.older() == {}


def test_a_frame_that_an_older_page_gave_an_empty_mask_is_as_it_was(two: Session, clip: Path) -> None:
    seen = encoded(two.predicted(6))
    for step in (Step("begin", 6, data=seen, opens=True), Step("clear", 6, 1), Step("clear", 6, 2)):
        two.document.do(step)
    two.close()
    update(two.out, {6: np.zeros((48, 64), np.uint8)}, gone={1: [(6, 6)], 2: [(6, 6)]})
    with closing(Session.open(clip)) as again:
        assert again.older() == {}
        again.export("davis")


def test_all_anew_keeps_how_the_run_was_made(clip: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"outputs": ["masks"], "on_cut": "stop", "keep": False, "direction": "forward"}
    segment(clip, tmp_path / "masks/dog.png", tmp_path / "run", method="copy", size=24, **settings)
    with closing(Session.open(tmp_path / "run")) as session:
        before = Request.kept_in(OutputFolder(session.out))[0]
        told = session.state()["wanted"]
        assert (told["method"], told["preset"], told["size"], told["direction"]) == ("copy", "default", 24, "forward")
        followed(session, Wanted(told["method"], told["preset"], told["size"], told["direction"], anew=True))
        assert Request.kept_in(OutputFolder(session.out))[0] == before


def test_colours_that_are_offered_are_bright_and_differ_for_everybody(session: Session) -> None:
    for _ in range(6):
        session.do(Step("add"))
    colors = np.array(
        [[int(each.color[at : at + 2], 16) for at in (1, 3, 5)] for each in session.document.things.values()]
    )
    light = np.where(colors <= 10, colors / 3294, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    sights = [np.eye(3), *SIGHTS]
    for sight in sights:
        seen = torch.from_numpy(np.clip(light @ np.array(sight).T, 0, 1) ** (1 / 2.2)).float().T[:, None]
        lab = rgb_to_lab(seen)[:, 0].T.numpy()
        apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(6)
        assert apart.min() > 15
        assert lab[:, 0].min() > 45
    session.do(Step("delete", id=2))
    session.do(Step("add"))
    assert session.document.things[2].color == "#38dcff", "that of one that went is free again"


@pytest.mark.slow
def test_colours_may_be_exchanged_after_following(session: Session) -> None:
    draw(session)
    session.do(Step("add", name="cat", color="#0000ff"))
    session.do(Step("polygon", 0, 2, [[40.0, 30.0], [60.0, 30.0], [60.0, 44.0]]))
    followed(session)
    for number, color in ((1, "#0000ff"), (2, "#ff0000")):
        session.do(Step("recolor", id=number, color=color))
    session.do(Step("erase", 6, 1, [[8, 10]], radius=5))
    followed(session)
    assert (session.predicted(6) == session.labels(6)).all()
    assert (session.predicted(11) == session.labels(6)).all()
