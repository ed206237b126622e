from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vostrack.errors import OutputError
from vostrack.notes import Code, Note
from vostrack.types import Frame, LabelMap, Prediction
from vostrack.video.palette import PALETTE
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter, Writer

IDS = (3, 200)


def prediction(index: int = 0, name: str | None = None, *, probs: bool = True) -> Prediction:
    """A frame with object 3 and void; object 200 is not visible."""
    torch.manual_seed(index)
    labels = torch.zeros(20, 31, dtype=torch.uint8)
    labels[2:9, 4 : 12 + index] = 3
    labels[15:, :2] = 255
    image = torch.randint(0, 256, (3, 20, 31), dtype=torch.uint8)
    frame = Frame(index, Fraction(index, 24), image, f"{index:05d}" if name is None else name)
    return Prediction(frame, LabelMap(labels, IDS), torch.rand(3, 5, 8).softmax(0) if probs else None)


def write(kind: str, folder: Path, *predictions: Prediction) -> None:
    writer = WRITERS[kind](Destination(folder))
    for given in predictions:
        writer.write(given)
    writer.finish()
    assert writer.notes == []


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_masks_are_palette_images_that_hold_the_ids(tmp_path: Path) -> None:
    given = [prediction(0), prediction(1), prediction(2, "img_2")]
    write("masks", tmp_path, *given)
    assert set(tree(tmp_path)) == {"masks/00000.png", "masks/00001.png", "masks/img_2.png"}
    for each in given:
        with Image.open(tmp_path / "masks" / f"{each.frame.name}.png") as image:
            assert image.mode == "P"
            assert (np.asarray(image) == each.labels.pixels.numpy()).all()
            assert image.getpalette() == PALETTE.flatten().tolist()
            assert tuple(np.asarray(image.convert("RGB"))[3, 5]) == tuple(PALETTE[3])


def test_every_id_has_a_black_and_white_image_in_every_frame(tmp_path: Path) -> None:
    given = [prediction(0), prediction(1)]
    write("objects", tmp_path, *given)
    assert set(tree(tmp_path)) == {f"objects/{number}/{name}.png" for number in IDS for name in ("00000", "00001")}
    for each in given:
        for number in IDS:
            with Image.open(tmp_path / "objects" / str(number) / f"{each.frame.name}.png") as image:
                assert image.mode == "L"
                assert (np.asarray(image) == 255 * (each.labels.pixels.numpy() == number)).all()


def test_probabilities_load_without_pickle(tmp_path: Path) -> None:
    given = prediction(1)
    write("probs", tmp_path, given)
    assert set(tree(tmp_path)) == {"probs/00001.npz"}
    with np.load(tmp_path / "probs" / "00001.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"probs", "ids"}
        assert arrays["probs"].dtype == np.float16
        assert arrays["probs"].shape == (3, 5, 8)
        assert given.probs is not None
        assert np.abs(arrays["probs"] - given.probs.numpy()).max() < 5e-4
        assert tuple(arrays["ids"]) == IDS
    with pytest.raises(ValueError, match="probabilities"):
        write("probs", tmp_path, prediction(probs=False))


@pytest.mark.parametrize("kind", WRITERS)
def test_same_predictions_give_the_same_bytes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    given = [prediction(0), prediction(1)]
    write(kind, tmp_path / "a", *given)
    local = time.localtime
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    monkeypatch.setattr(time, "localtime", lambda *_: local(2_000_000_000))
    write(kind, tmp_path / "b", *given)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != {}


@pytest.mark.parametrize("kind", ["masks", "objects", "probs"])
@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/a", "a/b", "a\\b", "a\0b", "a/"])
def test_frame_names_cannot_lead_out_of_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(OutputError, match="rename the frame") as caught:
        write(kind, tmp_path / "out" / "deep", prediction(0, name))
    assert "\0" not in str(caught.value)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["...", "a.b", "ä ö", "-x", "a\nb", "~", "x" * 200])
def test_unusual_frame_names_are_kept(tmp_path: Path, name: str) -> None:
    write("masks", tmp_path, prediction(0, name))
    assert set(tree(tmp_path)) == {f"masks/{name}.png"}


def test_name_that_is_too_long_is_explained(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        write("masks", tmp_path, prediction(0, "x" * 300))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("kind", "link"), [("masks", "masks"), ("objects", "objects"), ("objects", "objects/3")])
def test_link_below_the_output_folder_is_not_followed(tmp_path: Path, kind: str, link: str) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside, target_is_directory=True)
    with pytest.raises(OutputError, match="link"):
        write(kind, out, prediction())
    assert tree(outside) == {}


def test_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real", target_is_directory=True)
    write("masks", tmp_path / "out", prediction())
    assert set(tree(tmp_path / "real")) == {"masks/00000.png"}


def test_file_in_the_way_of_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "masks").write_bytes(b"mine")
    with pytest.raises(OutputError, match="a file of this name is in the way"):
        write("masks", tmp_path, prediction())
    assert tree(tmp_path) == {"masks": b"mine"}


class Recorder:
    """A writer that remembers what was called, and does as it is told for the frame `at`."""

    def __init__(
        self, at: int = -1, act: Callable[[], object] = lambda: None, finishing: Callable[[], object] = lambda: None
    ):
        self.notes = [Note(Code.MASK_LATE, "a note")]
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self._at, self._act, self._finishing = at, act, finishing

    def write(self, prediction: Prediction) -> None:
        self.threads.add(threading.get_ident())
        if prediction.frame.index == self._at:
            self._act()
        self.calls.append(prediction.frame.index)

    def finish(self) -> None:
        self._finishing()
        self.calls.append("finish")

    def abort(self) -> None:
        self.calls.append("abort")


def fail() -> None:
    raise OutputError("cannot write 3")


def alive() -> bool:
    return any(thread.name.startswith("vostrack-writer") for thread in threading.enumerate())


def within(seconds: float, act: Callable[[], None]) -> None:
    """Run something in a thread that may not hang."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def test_all_writers_get_all_frames_in_order_in_another_thread() -> None:
    writers = [Recorder(), Recorder()]
    with ThreadedWriter(writers, depth=2) as threaded:
        for index in range(20):
            threaded.write(prediction(index))
    for writer in writers:
        assert writer.calls == [*range(20), "finish"]
        assert threading.get_ident() not in writer.threads
    assert writers[0].threads == writers[1].threads
    assert threaded.notes == ["a note", "a note"]
    assert not alive()


def test_the_caller_goes_on_while_frames_are_written_but_not_for_ever() -> None:
    gate = threading.Event()
    writer = Recorder(0, lambda: gate.wait(20))
    threaded = ThreadedWriter([writer], depth=3)
    for index in range(3):
        threaded.write(prediction(index))
    blocked = threading.Thread(target=threaded.write, args=(prediction(3),), daemon=True)
    blocked.start()
    blocked.join(0.2)
    assert blocked.is_alive()
    assert writer.calls == []
    gate.set()
    blocked.join(20)
    threaded.finish()
    assert writer.calls == [0, 1, 2, 3, "finish"]


def test_error_of_the_thread_reaches_the_caller_and_nothing_more_is_written() -> None:
    writers = [Recorder(), Recorder(3, fail), Recorder()]

    def work() -> None:
        with ThreadedWriter(writers, depth=2) as threaded:
            for index in range(1000):
                threaded.write(prediction(index % 10))

    with pytest.raises(OutputError, match="cannot write 3"):
        within(20, work)
    assert writers[0].calls == [0, 1, 2, 3, "abort"]
    assert writers[1].calls == writers[2].calls == [0, 1, 2, "abort"]
    assert not alive()


def test_error_while_the_queue_is_full_does_not_hang() -> None:
    gate = threading.Event()

    def late() -> None:
        gate.wait(20)
        raise OutputError("cannot write 0")

    writer = Recorder(0, late)
    threaded = ThreadedWriter([writer], depth=2)
    for index in range(2):
        threaded.write(prediction(index))
    threading.Timer(0.2, gate.set).start()
    for _ in range(2):  # and again: the error does not get lost
        with pytest.raises(OutputError, match="cannot write 0"):
            within(20, lambda: threaded.write(prediction(2)))
    with pytest.raises(OutputError, match="cannot write 0"):
        within(20, threaded.finish)
    assert writer.calls == ["abort"]
    assert not alive()


def test_error_of_the_last_frame_is_raised_by_finish() -> None:
    writer = Recorder(3, fail)
    threaded = ThreadedWriter([writer], depth=8)
    for index in range(4):
        threaded.write(prediction(index))
    with pytest.raises(OutputError, match="cannot write 3"):
        within(20, threaded.finish)
    assert writer.calls == [0, 1, 2, "abort"]


def test_error_of_finish_aborts_all_writers() -> None:
    writers = [Recorder(), Recorder(finishing=fail), Recorder()]
    threaded = ThreadedWriter(writers)
    threaded.write(prediction())
    with pytest.raises(OutputError, match="cannot write 3"):
        threaded.finish()
    assert [writer.calls for writer in writers] == [[0, "finish", "abort"], [0, "abort"], [0, "abort"]]
    assert not alive()


def test_abort_drops_what_waits_and_may_be_repeated() -> None:
    gate = threading.Event()
    writers = [Recorder(0, lambda: gate.wait(20)), Recorder()]
    threaded = ThreadedWriter(writers, depth=8)
    for index in range(6):
        threaded.write(prediction(index))
    threading.Timer(0.1, gate.set).start()
    within(20, threaded.abort)
    within(20, threaded.abort)
    assert writers[0].calls == [0, "abort", "abort"]
    assert writers[1].calls == ["abort", "abort"]
    assert not alive()


def test_failing_block_aborts(tmp_path: Path) -> None:
    def work(threaded: ThreadedWriter) -> None:
        with threaded:
            for index in range(3):
                threaded.write(prediction(index))
            raise KeyboardInterrupt

    threaded = ThreadedWriter([WRITERS["overlay"](Destination(tmp_path))])
    with pytest.raises(KeyboardInterrupt):
        work(threaded)
    assert tree(tmp_path) == {}
    assert not alive()


def test_seconds_count_writing_and_not_waiting() -> None:
    writer = Recorder(1, lambda: time.sleep(0.2), finishing=lambda: time.sleep(0.1))
    with ThreadedWriter([writer]) as threaded:
        threaded.write(prediction(0))
        time.sleep(0.3)
        threaded.write(prediction(1))
    assert 0.29 < threaded.seconds < 0.58


FORGOTTEN = """
import sys
from fractions import Fraction
from pathlib import Path
import torch
from vostrack.types import Frame, LabelMap, Prediction
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter
image = torch.zeros(3, 20, 31, dtype=torch.uint8)
threaded = ThreadedWriter([WRITERS["masks"](Destination(Path(sys.argv[1])))])
for index in range(5):
    frame = Frame(index, Fraction(index), image, f"{index:05d}")
    threaded.write(Prediction(frame, LabelMap(image[0], ())))
raise SystemExit(5)
"""


@pytest.mark.slow
def test_process_that_ends_without_finish_neither_hangs_nor_loses_queued_frames(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORGOTTEN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (5, "")
    assert len(tree(tmp_path)) == 5


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_stops_the_run_and_leaves_complete_files(tmp_path: Path, kind: str) -> None:
    """On a real disk of 64 KiB, where root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        noise = torch.randint(0, 2, (400, 400), dtype=torch.uint8) * 3
        image = torch.randint(0, 256, (3, 400, 400), dtype=torch.uint8)

        def work() -> None:
            with ThreadedWriter([WRITERS[kind](Destination(disk))]) as threaded:
                for index in range(40):
                    frame = Frame(index, Fraction(index, 24), image, f"{index:05d}")
                    threaded.write(Prediction(frame, LabelMap(noise, (3,)), torch.rand(2, 60, 60)))

        with pytest.raises(OutputError, match=r"disk is full \(at least [\d,]+ bytes needed, [\d,]+ bytes free\)"):
            within(30, work)
        left = tree(disk)
        assert "overlay.mp4" not in left
        assert not [name for name in left if ".part" in name]
        for name, data in left.items():
            if name.endswith(".png"):
                Image.open(io.BytesIO(data)).load()
            else:
                np.load(io.BytesIO(data))["probs"]
        assert left or kind == "overlay"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_writers_implement_the_protocol(tmp_path: Path) -> None:
    writers: list[Writer] = [make(Destination(tmp_path)) for make in WRITERS.values()]
    for writer in writers:
        writer.abort()
        writer.finish()
    assert tree(tmp_path) == {}
