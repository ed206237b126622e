"""What exports cost: `python docs/measure_exports.py RUN [FORMAT ...]` prints milliseconds a frame.

For movies it prints too what the encoder alone takes for the same pictures, in the same process and with as many
threads, and the ratio of the two. Use a run of some 60 frames, since weights are loaded once.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av

import vostrack
from vostrack.formats import FORMATS
from vostrack.video.movie import Encoding, add_video

TIMES = 3


class Cost(NamedTuple):
    """What something takes, in milliseconds a frame: by the clock, and of the processor in all threads."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:7.1f} ms a frame ({self.processor:.1f} of the processor)"


def main(run: str, *names: str) -> None:
    """Measure each format that is one file, or those that are named."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS.values():
            if not kind.ending or kind.ending == ".zip" or (names and kind.name not in names):
                continue
            export = partial(vostrack.export, run, kind.name, Path(folder, f"a{kind.ending}"), overwrite=True)
            made = export()  # also loads what is loaded once
            encoding: Encoding | None = getattr(kind.writer(), "encoding", None)
            if encoding is None:
                print(f"{kind.name:14} {least(made['frames'], export)[0]}", flush=True)
                continue
            pictures = list(decoded(Path(made["out"]), encoding))
            ours, bare = least(made["frames"], export, partial(encode, pictures, encoding, Path(folder, "bare")))
            print(f"{kind.name:14} {ours}; encoder alone {bare}: {ours.wall / bare.wall:.2f} times", flush=True)


def least(frames: int, *works: Callable[[], object]) -> list[Cost]:
    """The least cost of each of several works over some frames, which are measured by turns."""
    costs = [list[Cost]() for _ in works]
    for _ in range(TIMES):
        for work, found in zip(works, costs, strict=True):
            start = time.perf_counter(), time.process_time()
            work()
            wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
            found.append(Cost(wall * 1e3 / frames, processor * 1e3 / frames))
    return [min(found) for found in costs]


def decoded(path: Path, encoding: Encoding) -> Iterator[av.VideoFrame]:
    """The pictures of a movie, as its encoder was given them but for what it lost."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        decoder: Any = video.codec_context
        if encoding.codec == "libvpx-vp9":  # the other decoder does not know of alpha
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        for packet in container.demux(video):
            for frame in decoder.decode(packet if packet.size else None):
                yield frame.reformat(format=encoding.pixels)


def encode(pictures: list[av.VideoFrame], encoding: Encoding, out: Path) -> None:
    """Encode pictures and nothing else."""
    tick = Fraction(1, 24)
    with av.open(str(out), "w", format=encoding.container) as container:
        stream = add_video(container, encoding, (pictures[0].height, pictures[0].width), 1 / tick, tick, threads=1)
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(*sys.argv[1:])
