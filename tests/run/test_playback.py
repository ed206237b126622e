"""How a clip is read, from what is asked for to what is made of a run later."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import vostrack
from tests.fakes import NAME, pictures, truth
from tests.runs import results
from tests.video.media import write_video
from vostrack.cli import run as command
from vostrack.errors import InputError, OutputError, VostrackError
from vostrack.run.finished import Finished
from vostrack.run.segment import segment
from vostrack.types import Prediction
from vostrack.video.ranges import Span

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 6
WHOLE = vostrack.Playback(deinterlace=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """An interlaced clip."""
    images = pictures(COUNT + 1)
    for image, later in pairwise(images):
        image[1::2] = later[1::2]
    path = tmp_path / "clip.mkv"
    return write_video(
        path, images[:COUNT], "ffv1", "yuv444p", setup=lambda it: setattr(it.codec_context, "field_order", 2)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(pictures(COUNT)):
        Image.fromarray(image).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path / "frames"


def run(clip: Path, masks: Any, out: Path, **settings: Any) -> dict[str, Any]:
    return segment(clip, masks, out, **{"method": NAME, "outputs": (), **settings})


def images(predictions: Any) -> list[np.ndarray]:
    return [each.frame.image.numpy() if isinstance(each, Prediction) else each.image.numpy() for each in predictions]


def rate(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


def test_a_run_and_all_that_reads_it_see_whole_frames(clip: Path, tmp_path: Path) -> None:
    with vostrack.open_clip(clip, WHOLE) as stream:
        whole = images(stream)
    with vostrack.open_clip(clip) as stream:
        assert not np.array_equal(whole, images(stream))
    out = tmp_path / "out"
    summary = run(clip, {3: truth(3)}, out, deinterlace=True, on_cut="stop")
    assert summary["playback"] == {"deinterlace": True, "fps": None}
    assert "clip-interlaced" not in json.dumps(summary["warnings"])

    tracked = list(vostrack.track(clip, {3: truth(3)}, method=NAME, deinterlace=True))
    assert np.array_equal(images(tracked), whole)
    assert np.array_equal(
        [each.mask for each in tracked], [np.array(Image.open(p)) for p in sorted(out.glob("masks/*"))]
    )
    assert np.array_equal(images(Finished(out).frames(Span(0, COUNT - 1), True, True)), whole)
    assert f"vostrack frame {clip} 5 --deinterlace -o" in vostrack.review(out).read_text()
    assert command(["frame", str(clip), "2", "--deinterlace", "-o", str(tmp_path / "2.png")]) == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "2.png")).transpose(2, 0, 1), whole[2])


def test_an_update_reads_as_the_run_did(clip: Path, tmp_path: Path) -> None:
    run(clip, truth(), tmp_path / "a", deinterlace=True)
    vostrack.update(tmp_path / "a", {4: truth(4)})
    run(clip, {0: truth(), 4: truth(4)}, tmp_path / "b", deinterlace=True)
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_run_goes_on_only_as_it_began(clip: Path, tmp_path: Path) -> None:
    run(clip, truth(), tmp_path / "a", deinterlace=True)
    assert run(clip, truth(), tmp_path / "a", deinterlace=True, resume=True)["frames"] == COUNT
    with pytest.raises(OutputError, match=r"playback\.deinterlace from true to false"):
        run(clip, truth(), tmp_path / "a", resume=True)


def test_a_folder_is_shown_at_a_rate_that_exports_take_over_or_replace(folder: Path, tmp_path: Path) -> None:
    out, movie = tmp_path / "out", tmp_path / "a.mkv"
    summary = run(folder, truth(), out, outputs=("overlay",), fps=Fraction(24000, 1001))
    assert summary["playback"]["fps"] == "24000/1001"
    assert rate(out / "overlay.mp4") == Fraction(24000, 1001)
    vostrack.export(out, "ffv1", movie, hard=True)
    assert rate(movie) == Fraction(24000, 1001)
    vostrack.export(out, "ffv1", movie, hard=True, fps=50, overwrite=True)
    assert rate(movie) == 50
    with pytest.raises(OutputError, match=r"playback\.fps"):
        run(folder, truth(), out, outputs=("overlay",), fps=25, resume=True)


def test_a_rate_is_typed_as_people_write_it(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(truth()).save(tmp_path / "mask.png")
    common = ["segment", str(folder), "-m", str(tmp_path / "mask.png"), "--method", NAME, "-o", str(tmp_path / "out")]
    assert command([*common, "--fps", "30000/1001"]) == 0
    assert rate(tmp_path / "out" / "overlay.mp4") == Fraction(30000, 1001)
    for text, code in [("24/0", 2), ("many", 2), ("-1", 2), ("0", 5), ("1001", 5)]:
        assert command([*common, "--overwrite", "--fps", text]) == code
    export = ["export", str(tmp_path / "out"), "-f", "matte-movie", "-o", str(tmp_path / "a.mov"), "--fps", "12.5"]
    assert command(export) == 0
    assert rate(tmp_path / "a.mov") == Fraction(25, 2)


def test_what_a_clip_has_of_its_own_or_cannot_have_is_refused(clip: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a video, which has a frame rate of its own: leave out `fps`"):
        run(clip, truth(), tmp_path / "a", fps=25)
    with pytest.raises(InputError, match="only videos are interlaced"):
        run(folder, truth(), tmp_path / "a", deinterlace=True)
    with pytest.raises(InputError, match="given by its path"):
        vostrack.track(pictures(2), truth(), method=NAME, deinterlace=True)
    run(clip, truth(), tmp_path / "a")
    with pytest.raises(InputError, match="leave out `fps`"):
        vostrack.export(tmp_path / "a", "ffv1", tmp_path / "a.mkv", fps=25)
    with pytest.raises(VostrackError, match="coco has no frame rate"):
        vostrack.export(tmp_path / "a", "coco", tmp_path / "a.json", fps=25)
