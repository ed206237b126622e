"""Long work in one process, and several at once: memory, threads and open files stay as they are.

Each scenario has a process of its own, and is judged by what it holds, never by time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest

from tests import fakes
from tests.forks import finish, fork
from tests.runs import results

MOST_MIB = 0.5
"""That what is allocated may grow by, over the second half of what is done, along its slope."""

MOST_AT_ALL = 2048
"""MiB of a process, whatever it does at these sizes."""


_BLOCK = 64
"""Bytes of a small object of Python, about."""


class _MallInfo(ctypes.Structure):
    """What glibc's malloc says of itself."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "free", "fast", "mappings", "mapped", "most", "fast_bytes", "used", "unused", "top"
    )]  # fmt: skip


def allocated() -> float:
    """MiB that this process has allocated and not given back: a steadier measure than the pages that it occupies."""
    gc.collect()
    told = ctypes.CDLL(None).mallinfo2
    told.restype = _MallInfo
    info = told()
    return (info.used + info.mapped + _BLOCK * sys.getallocatedblocks()) / 2**20


def growth(mib: list[float]) -> float:
    """MiB that memory grows by over the second half of equally spaced samples, along the line that fits them best."""
    half = np.array(mib[len(mib) // 2 :])
    return float(np.polyfit(np.arange(len(half)), half, 1)[0] * (len(half) - 1)) if len(half) > 1 else 0.0


def colors(count: int, ids: range) -> Iterator[np.ndarray]:
    """Frames, uint8 (48, 64, 3), whose brightness changes, as a generator holds them."""
    first = pixels(ids)
    picture = np.stack((first, 255 - first, first // 2), 2)
    for index in range(count):
        yield np.roll(picture, index % 5, 1)


def pixels(ids: range) -> np.ndarray:
    """A label map, uint8 (48, 64), of as many objects, each in several places."""
    return np.resize(np.array([*ids], np.uint8), (24, 32)).repeat(2, 0).repeat(2, 1)


def followed(count: int, objects: int, method: str) -> list[float]:
    """Follow objects through frames of a generator; MiB on the way."""
    import vostrack

    said, ids, every = [], range(1, objects + 1), max(1, count // 50)
    name, _, preset = method.partition(":")
    predictions = vostrack.track(
        colors(count, ids), {0: pixels(ids)}, method=name, preset=preset or "default", direction="forward",
        no_background=True,
    )  # fmt: skip
    for prediction in predictions:
        assert len(prediction.labels.ids) == objects
        if prediction.index % every == every - 1:
            said.append(allocated())
    return said


def write_clip(path: Path, count: int) -> Path:
    """A video of any length, one frame after the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = fakes.SIZE
        for picture in islice(cycle(fakes.pictures(24)), count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def files(count: int) -> list[float]:
    """Follow through a clip, from file to files; MiB on the way."""
    import vostrack

    said: list[float] = []

    class Watch(vostrack.Callbacks):
        def progress(self, done: int, total: int | None) -> None:
            if done % max(1, count // 50) == 0:
                said.append(allocated())

    with TemporaryDirectory() as folder:
        clip = write_clip(Path(folder, "clip.mp4"), count)
        vostrack.segment(clip, fakes.truth(), Path(folder, "out"), method=fakes.NAME, callbacks=Watch())
    return said


def runs(count: int) -> list[float]:
    """Runs in one process, one of ten of which fails; MiB after each."""
    import vostrack

    said, kept = [], list[tuple[int, int]]()
    with TemporaryDirectory() as folder:
        clip = fakes.write_clip(Path(folder, "clip.mp4"), 4)
        for index in range(count):
            mask = fakes.truth() if index % 10 != 5 else np.zeros((9, 9), np.uint8)
            out = Path(folder, "out")
            try:
                vostrack.segment(clip, mask, out, method=fakes.NAME, overwrite=True)
            except vostrack.VostrackError:
                assert index % 10 == 5
            said.append(allocated())
            kept.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    assert max(kept[1:]) <= kept[1], f"threads and open files grow: {kept[1]} to {max(kept)}"
    return said


def _alone(log: Path, scenario: Callable[..., list[float]], arguments: tuple[Any, ...]) -> None:
    """Run a scenario in this process, and write down what it held."""
    patch = pytest.MonkeyPatch()
    fakes.register(patch, log / "weights")
    gc.freeze()  # what was there before need not be looked at each time
    said = scenario(*arguments)
    (log / "held").write_text(json.dumps([said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10]))


def one(root: Path, name: str, scenario: Callable[..., list[float]], *arguments: Any) -> bool:
    """Run a scenario in a process of its own; whether it holds."""
    log = root / "".join(character if character.isalnum() else "_" for character in name)
    process = fork(log, _alone, log, scenario, arguments)
    process.join()
    code, _, said = finish(process, log)
    if code:
        print(f"{name}: ended with {code}\n{said}")
        return False
    mib, most = json.loads((log / "held").read_text())
    grown = growth(mib)
    holds = grown <= MOST_MIB and most <= MOST_AT_ALL
    print(f"{name}: {most:.0f} MiB, {grown:+.2f} MiB over the second half{'' if holds else ': IT GROWS'}", flush=True)
    return holds


def together(root: Path) -> bool:
    """Four processes at once, each with its folder, then two with one; whether all ends as it should."""
    fakes.register(pytest.MonkeyPatch(), root / "weights")
    clip, mask = fakes.write_clip(root / "clip.mp4", 6), fakes.write_mask(root / "first.png")
    words = ["segment", clip, "-m", mask, "--method", fakes.NAME, "-q", "-o"]
    apart = [fakes.start([*words, root / f"out{n}"], root / f"log{n}") for n in range(4)]
    ended = [finish(process, root / f"log{n}")[0] for n, process in enumerate(apart)]
    same = all(results(root / f"out{n}") == results(root / "out0") for n in range(4))
    holder = fakes.start([*words, root / "both"], root / "first", hold=2)
    assert fakes.held(holder, root / "first")
    second = finish(fakes.start([*words, root / "both", "--overwrite"], root / "second"), root / "second")
    holder.terminate()
    stopped = finish(holder, root / "first")[0]
    holds = ended == [0] * 4 and same and second[0] == 9 and "in use by process" in second[2] and stopped == 143
    print(
        f"four at once: {ended}, {'equal' if same else 'OTHER'} masks; two on one folder: {stopped}, {second[0]}",
        flush=True,
    )
    return holds


def main(arguments: list[str]) -> int:
    """Run all scenarios; 1 if one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability soak", description=__doc__)
    parser.add_argument("--frames", type=int, default=300, help="of a clip [300]")
    parser.add_argument("--runs", type=int, default=20, help="in one process [20]")
    parser.add_argument(
        "--method", default="", help="also follow with this one, as best:fast, through a tenth of the frames"
    )
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        tenth = given.frames // 10
        held = [
            one(root, f"{given.frames} frames in memory", followed, given.frames, 2, fakes.NAME),
            one(root, f"{given.frames} frames, files to files", files, given.frames),
            one(root, f"254 objects, {tenth} frames", followed, tenth, 254, fakes.NAME),
            one(root, f"{given.runs} runs in one process", runs, given.runs),
        ]
        if given.method:
            held.append(one(root, f"{tenth} frames of {given.method}", followed, tenth, 2, given.method))
        held.append(together(root))
    return int(not all(held))
