from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.runs import results, until
from vostrack import InputError, MaskError, OutputError, OutputExistsError, segment
from vostrack.web.document import Step
from vostrack.web.session import Session, Wanted, drawn_in, held

SQUARE = [[8.0, 10.0], [28.0, 10.0], [28.0, 30.0], [8.0, 30.0]]
COPY = Wanted(method="copy")


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
        session.say_gone(7, 3, None)
    with pytest.raises(MaskError, match="are no frames"):
        session.say_gone(1, 5, 3)


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
    session.say_gone(1, 9, None)
    followed(session)
    assert [int((session.predicted(frame) == 1).sum()) for frame in (9, 11)] == [0, 0]
    assert (session.predicted(7) == session.labels(6)).all()
    told = session.state()
    assert (told["followed"], told["drawn"], told["gone"]) == (True, [0, 6], {"1": [(9, None)]})
    assert "--gone 1@9-" in told["command"]
    assert len(session.findings()["confidence"]["1"]) == 12
    assert Path(session.export("matte")).is_dir()


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


@pytest.mark.slow
def test_stopping_keeps_what_is_done_and_the_page_goes_on(session: Session) -> None:
    draw(session)
    session.follow(COPY)
    with pytest.raises(MaskError, match="stop it first"):
        session.follow(COPY)
    session.work.stop()
    assert until(lambda: not session.work.progress.running, 240)
    followed(session)


def test_a_folder_of_others_is_left_alone_and_two_pages_do_not_share_one(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "other/masks").mkdir(parents=True)
    with pytest.raises(OutputError):
        Session.open(clip, tmp_path / "other")
    with held(tmp_path / "out"), pytest.raises(OutputExistsError), held(tmp_path / "out"):
        pass


def test_clicks_propose_the_square(session: Session) -> None:
    from vostrack.web.document import decoded

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
