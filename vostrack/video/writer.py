"""Writes what the engine predicts: masks, a file for each object, probabilities, and a video to look at.

A writer takes predictions in the order of the clip. `ThreadedWriter` runs several beside the model, in one thread that
cannot hang or lose an error. Files appear under their final names only when they are complete (`vostrack.files`), and
equal predictions give equal bytes. Knows nothing of methods; replacing results is the caller's choice.
"""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Protocol, Self

import numpy as np
from PIL import Image

from vostrack.errors import OutputError
from vostrack.files import OutputRoot, shown, write_bytes
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.look import Look
from vostrack.video.overlay import OverlayWriter
from vostrack.video.palette import palette_image


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go, and what they are made from.

    Attributes:
        folder: the output folder.
        source: the video file, for the overlay's timing and audio; None for a folder of images.
        fps: average frame rate, where known.
        keep: whether files of frames that are there stay as they are.
        look: of the overlay.
    """

    folder: Path
    source: Path | None = None
    fps: Fraction | None = None
    keep: bool = False
    look: Look | None = None


class Writer(Protocol):
    """Writes one kind of output.

    Attributes:
        notes: one line for each thing that a user may want to know ("no audio: ...").
    """

    notes: list[Note]

    def write(self, prediction: Prediction) -> None:
        """Write a frame; frames come in order. Raises `OutputError`."""
        ...

    def finish(self) -> None:
        """Complete the output. Raises `OutputError`."""
        ...

    def abort(self) -> None:
        """Drop what is partial; may be called at any time and more than once."""
        ...


class FileWriter:
    """Writes files that belong to one frame each, such as masks."""

    def __init__(
        self, folder: Path, render: Callable[[Prediction], Iterator[tuple[str, bytes]]], keep: bool = False
    ) -> None:
        """Take the output folder and a function that gives paths below it, and their contents, for a prediction."""
        self.notes: list[Note] = []
        self._root = OutputRoot(folder)
        self._render, self._keep = render, keep

    def write(self, prediction: Prediction) -> None:
        """Write the files of a frame, replacing what is there unless that is kept."""
        for name, data in self._render(prediction):
            path = self._root.new(name).final
            if not (self._keep and path.is_file()):
                write_bytes(path, data)

    def finish(self) -> None:
        """Nothing to do: each file is complete when `write` returns."""

    def abort(self) -> None:
        """Nothing to do: no file is ever partial."""


def mask_files(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
    """The label map as a palette PNG: `masks/<frame>.png`, ids as indices."""
    yield f"masks/{_safe(prediction.frame.name)}.png", _png(palette_image(prediction.labels.pixels.cpu().numpy()))


def object_files(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
    """A black and white PNG for each object, visible or not: `objects/<id>/<frame>.png`, 0 and 255."""
    pixels = prediction.labels.pixels.cpu().numpy()
    for number in prediction.labels.ids:
        mask = np.where(pixels == number, np.uint8(255), np.uint8(0))
        yield f"objects/{number}/{_safe(prediction.frame.name)}.png", _png(Image.fromarray(mask))


def prob_files(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
    """The probabilities: `probs/<frame>.npz` with `probs`, float16 (K, h, w), and `ids`, uint8 (K - 1,)."""
    if prediction.probs is None:
        raise ValueError("the output 'probs' needs predictions that carry probabilities")
    arrays = {
        "probs": prediction.probs.cpu().numpy().astype("<f2"),
        "ids": np.array(prediction.labels.ids, np.uint8),
    }
    buffer = io.BytesIO()
    # np.savez stores the time of day, and a resumed run must give the same bytes.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            # Higher levels take three times as long and make probabilities no smaller.
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
    yield f"probs/{_safe(prediction.frame.name)}.npz", buffer.getvalue()


def _safe(name: str) -> str:
    """A frame's name, which may come from a user's file, if it is the name of a file and nothing else."""
    if name in ("", ".", "..") or any(c in name for c in "/\\\0") or PurePath(name).name != name:
        raise OutputError(f"the frame name '{shown(name)}' cannot be part of a file name; rename the frame")
    return name


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Label maps are long runs: this is as fast as level 1 and smaller than level 6, which takes twice as long.
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[Destination], Writer]] = {
    "masks": lambda to: FileWriter(to.folder, mask_files, to.keep),
    "objects": lambda to: FileWriter(to.folder, object_files, to.keep),
    "probs": lambda to: FileWriter(to.folder, prob_files, to.keep),
    "overlay": lambda to: OverlayWriter(to.folder, source=to.source, fps=to.fps, look=to.look),
}


class ThreadedWriter:
    """Runs writers in one background thread, so that encoding and disk work go on beside the model.

    Used as a context it finishes at the end of the block, or aborts when the block fails. A prediction must not be
    changed after it was given to `write`.

    Attributes:
        seconds: time spent writing, in whichever thread.
    """

    def __init__(self, writers: Sequence[Writer], depth: int = 8) -> None:
        """Start the thread.

        Args:
            writers: all get each prediction, in this order.
            depth: how many predictions may wait; `write` blocks while there are more.
        """
        self.seconds = 0.0
        self._writers = tuple(writers)
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None
        self._stopped = False
        # The pool's thread is no daemon: Python lets it end its work at exit, and a wait for it ends even if it fails.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vostrack-writer")

    @property
    def notes(self) -> list[Note]:
        """The notes of all writers; complete after `finish`."""
        return [note for writer in self._writers for note in writer.notes]

    def write(self, prediction: Prediction) -> None:
        """Queue a prediction; raises here what went wrong with an earlier one."""
        self._wait(self._depth - 1)
        self._waiting.append(self._pool.submit(self._write, prediction))

    def flush(self) -> None:
        """Wait until everything that was queued is on the disk; raises what went wrong."""
        self._wait(0)

    def finish(self) -> None:
        """Wait for the rest and complete all outputs; when anything fails, all are aborted and the error is raised."""
        try:
            self._wait(0)
            with self._timed():
                for writer in self._writers:
                    writer.finish()
        except BaseException:
            self.abort()
            raise
        self._pool.shutdown()

    def abort(self) -> None:
        """Stop after the file at hand and drop what is partial; may be called more than once."""
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)
        for writer in self._writers:
            writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self.abort()

    def _wait(self, most: int) -> None:
        """Wait until at most so many predictions are waiting; raises the thread's error, also one after the other."""
        while self._error is None and len(self._waiting) > most:
            self._waiting.popleft().result()
        if self._error is not None:
            raise self._error

    def _write(self, prediction: Prediction) -> None:
        """In the thread: write a prediction, unless an earlier one failed."""
        try:
            with self._timed():
                for writer in self._writers:
                    if self._stopped:
                        return
                    writer.write(prediction)
        except BaseException as error:
            self._error = error
            self._stopped = True

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
