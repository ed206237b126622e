from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.fakes import pictures, truth, write_clip, write_mask
from tests.video.media import write_video
from vostrack.cli import run as command
from vostrack.errors import InputError, OutputError
from vostrack.run.confidence import CSV, Row
from vostrack.run.review import review
from vostrack.run.segment import segment
from vostrack.run.suggestions import best_frames, read_rows, suggest
from vostrack.run.update import update

COUNT = 12


@pytest.fixture
def run(fake_method: None, tmp_path: Path) -> Path:
    """A complete run of a clip whose name is markup."""
    clip = write_clip(tmp_path / "<b>clip.mp4", COUNT)
    segment(clip, write_mask(tmp_path / "first.png"), tmp_path / "out", method="fake")
    return tmp_path / "out"


def rows(*values: float, number: int = 1) -> list[Row]:
    return [Row(frame, number, value, 10) for frame, value in enumerate(values)]


def test_a_mask_is_suggested_where_it_raises_most_and_the_next_one_apart() -> None:
    falling = rows(*(1 - 0.01 * frame for frame in range(90)))
    (first, second, third) = best_frames(falling, [0], 3)
    assert 45 <= first.frame <= 75  # a third of the way from the end
    assert min(abs(first.frame - second.frame), second.frame) >= 10
    assert first.gain > second.gain > third.gain > 0
    dip = rows(*(0.3 if 40 <= frame < 50 else 0.9 for frame in range(90)))
    assert 40 <= best_frames(dip, [0], 1)[0].frame < 50


def test_nothing_is_suggested_close_to_given_masks_or_where_nothing_is_to_gain() -> None:
    assert best_frames(rows(*[1.0] * 20), [0], 3) == []
    assert best_frames(rows(1.0), [0], 3) == []
    low = rows(1.0, *[0.9] * 30, *[0.2] * 4, 1.0)
    for each in best_frames(low, [0, 35], 3):
        assert min(each.frame, 35 - each.frame) >= 4
    gone = rows(*[0.7] * 10, *[1.0] * 30)
    assert [each.frame < 10 for each in best_frames(gone, [0], 9)] == [True]


def test_the_object_that_is_least_sure_is_named_and_all_count() -> None:
    one, other = rows(*[0.9] * 40), rows(*[0.9] * 20, *[0.4] * 20, number=2)
    found = best_frames([*one, *other], [0], 1)
    assert found[0].number == 2
    assert found[0].frame >= 20


def test_a_long_clip_is_looked_at_in_steps() -> None:
    found = best_frames(rows(*(1 - frame / 10_000 for frame in range(5_000))), [0], 2)
    assert len(found) == 2


def test_the_page_holds_all_that_it_shows(run: Path) -> None:
    page = review(run)
    text = page.read_text()
    assert page == run / "review.html"
    assert "<b>clip" not in text
    assert "&lt;b&gt;clip.mp4" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text
    assert text.count("<polyline") == 4
    assert text.count('src="data:image/jpeg;base64,') >= 2
    commands = html.unescape(text)
    frame = suggest(run)[0].frame
    assert f"vostrack update {run} -m {frame}:frame-{frame}_mask.png" in commands
    assert f"vostrack frame '{run.parent}/<b>clip.mp4' {frame} -o frame-{frame}.png" in commands
    assert review(run).read_text() == text


def test_warnings_are_on_the_page_and_escaped(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["warnings"] = [{"code": "x", "text": "<script>"}, "odd"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert "&lt;script&gt;" in review(run).read_text()
    for odd in (3, None, {"code": "x"}):
        (run / "summary.json").write_text(json.dumps({**summary, "warnings": odd}))
        review(run)


def test_a_clip_that_was_moved_is_named(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.mp4"
    (tmp_path / "<b>clip.mp4").rename(moved)
    with pytest.raises(InputError):
        review(run)
    page = review(run, tmp_path / "page.html", clip=moved)
    assert f"vostrack frame {moved}" in page.read_text()


def test_what_is_no_complete_run_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for function in (review, suggest):
        with pytest.raises(OutputError):
            function(tmp_path / "empty")
    for text in (
        "",
        "frame,object\n1,2\n",
        "frame,object,confidence,area\n1,2,7,3\n",
        "frame,object,confidence,area\nx,2,1,3\n",
        "frame,object,confidence,area\n1,999,1,3\n",
        f"frame,object,confidence,area\n{1 << 70},2,1,3\n",
        f"frame,object,confidence,area\n1,2,1,{'x' * 200_000}\n",
    ):
        (run / CSV).write_text(text)
        with pytest.raises(OutputError, match="cannot be read"):
            suggest(run)
    (run / CSV).unlink()
    with pytest.raises(OutputError, match="no complete run"):
        read_rows(run)


def test_confidence_is_made_again_where_it_is_missing(run: Path, tmp_path: Path) -> None:
    before = (run / CSV).read_bytes()
    (run / CSV).unlink()
    segment(tmp_path / "<b>clip.mp4", tmp_path / "first.png", run, method="fake", resume=True)
    assert (run / CSV).read_bytes() == before


def test_the_commands_print_frames_and_write_pages(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["suggest", str(run), "-n", "1"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{suggest(run)[0].frame}\n"
    assert "vostrack update" in told.err
    page = tmp_path / "page.html"
    assert command(["review", str(run), "-o", str(page)]) == 0
    assert command(["review", str(run), "-o", str(page)]) != 0
    assert command(["review", str(run), "-o", str(page), "--overwrite"]) == 0
    shutil.rmtree(run)
    assert command(["review", str(run)]) != 0


def test_objects_are_called_by_their_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = {row.number for row in read_rows(run)}
    update(run, names={number: f"<i>dog {number}" for number in ids})
    found = suggest(run)[0]
    assert found.name == f"<i>dog {found.number}"
    assert command(["suggest", str(run), "-n", "1"]) == 0
    assert f"frame {found.frame}: {found.name}, confidence" in capsys.readouterr().err
    cards = re.findall(r"<figcaption>frame.*?</figcaption>", review(run).read_text(), re.DOTALL)
    assert cards
    assert all(f"&lt;i&gt;dog {number} " in card for number in ids for card in cards)


@pytest.mark.usefixtures("fake_method")
def test_an_object_that_was_lost_is_found_by_confidence_and_page(tmp_path: Path) -> None:
    images = pictures(30)
    for index in range(18, 24):  # something of much the same colour covers the upper half
        images[index][:24] = (190, 40, 40)
    clip = write_video(tmp_path / "clip.mp4", images, options={"crf": "12"})
    summary = segment(clip, write_mask(tmp_path / "first.png", truth(0)), tmp_path / "out", method="fake")
    worst = summary["objects"]["3"]
    assert 18 <= worst["lowest_confidence_frame"] < 24
    assert worst["lowest_confidence"] < worst["mean_confidence"] - 0.05
