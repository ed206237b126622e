from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.forks import fork
from tests.runs import until
from vostrack import InputError
from vostrack.types import Frame
from vostrack.video.stream import ClipStream, no_image
from vostrack.web.frames import FrameCache

COUNT = 2000


class Counting(ClipStream):
    """Frames that are as bright as their number says."""

    def __init__(self, breaks: int | None = None) -> None:
        super().__init__("counting")
        self.size = self.stored_size = (16, 24)
        self.fps, self.count, self._breaks = Fraction(25), None, breaks

    def _frames(self) -> Iterator[Frame]:
        for index in range(COUNT):
            if index == self._breaks:
                raise InputError("it breaks off")
            image = torch.full((3, 16, 24), index % 251, dtype=torch.uint8)
            yield Frame(index, Fraction(index, 25), image if index >= self.images_from else no_image(), f"{index:05d}")

    def _release(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def read(cache: FrameCache) -> bool:
    return until(lambda: cache.ready == cache.count == COUNT, 60)


def test_frames_in_any_order_in_little_room(folder: Path) -> None:
    opened: list[Counting] = []

    def again() -> Counting:
        opened.append(Counting())
        return opened[-1]

    with FrameCache(Counting) as cache:
        assert read(cache)
        expected = [cache.jpeg(index) for index in range(COUNT)]
        assert cache.name(COUNT - 1) == "01999"
    with FrameCache(again, room=50 * len(expected[0])) as cache:
        chance = random.Random(0)
        for index in [0, COUNT - 1, *(chance.randrange(COUNT) for _ in range(20))]:
            assert cache.jpeg(index) == expected[index]
        assert read(cache)
        before = len(opened)
        for index in range(900, 1300):  # played from here, it is opened once
            assert cache.jpeg(index) == expected[index]
        assert len(opened) <= before + 1
        assert len([*folder.rglob("*.jpg")]) <= 60
        with pytest.raises(InputError, match="no frame 2000"):
            cache.jpeg(COUNT)
    assert not [*folder.iterdir()]


def test_a_disk_that_is_full_holds_fewer_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[Path, bytes], int] = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if len([*folder.rglob("*.jpg")]) >= 30:
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with FrameCache(Counting) as cache:
        assert read(cache)
        assert [cache.jpeg(index)[:2] for index in (0, 1500, 3)] == [b"\xff\xd8"] * 3
        assert cache.error == ""


def test_a_clip_that_breaks_off_ends_there(folder: Path) -> None:
    with FrameCache(lambda: Counting(breaks=70), room=3000) as cache:
        assert until(lambda: cache.count == 70)
        assert cache.error == "it breaks off"
        assert cache.jpeg(69)[:2] == cache.jpeg(0)[:2] == b"\xff\xd8"
        with pytest.raises(InputError, match="it breaks off"):
            cache.jpeg(70)


def never_closed(folder: Path) -> None:
    """A page that goes on until it is killed."""
    tempfile.tempdir = str(folder)
    cache = FrameCache(Counting)
    cache.jpeg(0)
    print("ready", flush=True)
    time.sleep(600)


def test_what_a_killed_page_has_left_goes_and_what_others_hold_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "vostrack-frames-link").symlink_to(tmp_path)
    (folder / "vostrack-frames-new").mkdir()
    log = tmp_path / "log/out"
    with FrameCache(Counting) as other:
        process = fork(log.parent, never_closed, folder)
        try:
            assert until(lambda: log.exists() and "ready" in log.read_text(), 60)
        finally:
            process.kill()
            process.join()
        before = {*folder.glob("vostrack-frames-*/*.jpg")}
        with FrameCache(Counting):
            left = before & {*folder.glob("vostrack-frames-*/*.jpg")}
        assert {path.parent for path in before} > {path.parent for path in left}
        assert other.jpeg(0)
    assert sorted(path.name[16:] for path in folder.glob("vostrack-frames-*")) == ["link", "new"]
