"""Movies with transparency for editors, at the size, the times and with the audio of the clip.

Colours are those of whole frames, not multiplied by alpha ("straight").
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from torch import Tensor

from vostrack.formats.alpha import alpha, in_bits
from vostrack.formats.base import Bools, Shot
from vostrack.formats.drawings import (
    MOST_IMAGES,
    MOST_KEPT,
    Drawing,
    Drawings,
    checked_name,
    checked_size,
    kept,
    titled,
)
from vostrack.formats.pictures import layers, white
from vostrack.notes import Note
from vostrack.types import Prediction
from vostrack.video.container import BROKEN, open_container, shown_stream
from vostrack.video.movie import Encoding, MovieWriter
from vostrack.video.stream import first_line

_WAITING = 2
"""Pictures that wait to be encoded."""

Alpha = npt.NDArray[np.float32]


class _Movies:
    """Writes one movie, or one for each object, in a folder; encodes in a thread of its own.

    Attributes:
        notes: what became of the audio, where it could not be kept.
    """

    encoding: ClassVar[Encoding]
    ending: ClassVar[str]

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self._shot, self._layers = shot, layers(shot, shot.options.each)
        self._movies: Mapping[str, MovieWriter] = {
            stem: MovieWriter(
                shot.out / f"{stem}{self.ending}" if stem else Path(shot.out),
                self.encoding,
                source=shot.source,
                fps=shot.fps,
                called=stem or "the movie",
                advice="choose another format",
            )
            for stem in self._layers
        }
        self.notes = list[Note]()
        for movie in self._movies.values():
            movie.notes = self.notes
        self._scaler = VideoReformatter()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vostrack-encoder")
        self._waiting: deque[Future[None]] = deque()

    def write(self, prediction: Prediction) -> None:
        """Hand a frame to the encoder; raises what went wrong with an earlier one."""
        for stem, movie in self._movies.items():
            covered = alpha(prediction, self._layers[stem], self._shot.options)
            picture = self.picture(prediction.frame.image, covered)
            while len(self._waiting) >= _WAITING:
                self._waiting.popleft().result()
            self._waiting.append(self._pool.submit(movie.write, picture, prediction.frame.time))

    @abstractmethod
    def picture(self, image: Tensor, covered: Alpha) -> av.VideoFrame:
        """What is encoded of an image, uint8 (3, H, W), and what is opaque in it, in [0, 1]."""

    def finish(self) -> None:
        """Complete all."""
        while self._waiting:
            self._waiting.popleft().result()
        self._pool.shutdown()
        for movie in self._movies.values():
            movie.finish()

    def abort(self) -> None:
        """Drop all."""
        self._pool.shutdown(cancel_futures=True)
        for movie in self._movies.values():
            movie.abort()

    def transparent(self, image: Tensor, alpha: npt.NDArray[Any], opaque: str) -> av.VideoFrame:
        """An image uint8 (3, H, W) in BT.709 and limited range, with alpha (H, W).

        Args:
            image: that is encoded.
            alpha: as many bits as the encoding has of it.
            opaque: its pixels without their alpha.
        """
        rgb, frame = _blank(image, "gbrp"), _blank(image, self.encoding.pixels)
        for plane, channel in zip(rgb.planes, (1, 2, 0), strict=True):
            _samples(plane, np.uint8)[:] = image[channel].numpy()
        yuv = self._scaler.reformat(
            rgb, format=opaque, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        for plane, source in zip(frame.planes[:3], yuv.planes, strict=True):
            _samples(plane, alpha.dtype)[:] = _samples(source, alpha.dtype)
        _samples(frame.planes[3], alpha.dtype)[:] = alpha
        return frame


def _blank(image: Tensor, pixels: str) -> av.VideoFrame:
    """A picture of the size of an image (3, H, W), not yet filled; if in YUV, in BT.709 and limited range."""
    frame = av.VideoFrame(int(image.shape[2]), int(image.shape[1]), pixels)
    if pixels.startswith("yuv"):  # ProRes has this in each picture
        frame.colorspace = frame.color_primaries = frame.color_trc = frame.color_range = 1
    return frame


def _samples(plane: VideoPlane, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """The samples of a plane (H, W), to be read and written."""
    rows: npt.NDArray[Any] = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
    return rows[:, : plane.width]


class Prores4444(_Movies):
    """ProRes 4444 with alpha."""

    ending = ".mov"
    encoding = Encoding(
        *("mov", "a MOV file", "prores_ks", "yuva444p10le"),
        {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
    )

    def picture(self, image: Tensor, covered: Alpha) -> av.VideoFrame:
        """In YUV of 10 bits, as is alpha."""
        return self.transparent(image, in_bits(covered, 10), "yuv444p10le")


class Webm(_Movies):
    """VP9 with alpha of 8 bits."""

    ending = ".webm"
    encoding = Encoding(
        *("webm", "a WebM file", "libvpx-vp9", "yuva420p"),
        {"crf": "18", "b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "0"},
    )

    def picture(self, image: Tensor, covered: Alpha) -> av.VideoFrame:
        """In YUV, with colours of half the size."""
        return self.transparent(image, in_bits(covered, 8), "yuv420p")


class Ffv1(_Movies):
    """FFV1, lossless, with alpha of 8 bits."""

    ending = ".mkv"
    encoding = Encoding("matroska", "an MKV file", "ffv1", "bgra", {"level": "3"})

    def picture(self, image: Tensor, covered: Alpha) -> av.VideoFrame:
        """As it is, pixel by pixel."""
        frame = _blank(image, "bgra")
        pixels = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(frame.height, -1, 4)[:, : frame.width]
        for number, channel in enumerate((2, 1, 0)):
            pixels[..., number] = image[channel].numpy()
        pixels[..., 3] = in_bits(covered, 8)
        return frame


class MatteMovie(_Movies):
    """A grey movie in ProRes 422 HQ: white where objects are."""

    ending = ".mov"
    encoding = Encoding(*("mov", "a MOV file", "prores_ks", "yuv422p10le"), {"profile": "hq", "vendor": "apl0"})

    def picture(self, image: Tensor, covered: Alpha) -> av.VideoFrame:
        """Luma from 64 to 940, and no colour: 10 bits of limited range."""
        frame = _blank(image, "yuv422p10le")
        luma, *chroma = (_samples(plane, np.uint16) for plane in frame.planes)
        luma[:] = np.rint(covered * 876 + 64)
        for plane in chroma:
            plane[:] = 512
        return frame


def read(paths: Sequence[Path], place: Path) -> Drawings:
    """Masks in movies with transparency or in black and white; several movies show an object each.

    Raises:
        ValueError: one cannot be read, or is none of these.
    """
    names = titled(path.stem for path in paths) if len(paths) > 1 else {paths[0].stem: ("", None)}
    images: dict[int, Drawing] = {}
    left = MOST_KEPT
    for path in paths:
        name, track = names[path.stem]
        try:
            for index, mask in enumerate(_mattes(path)):
                left -= mask.size
                if index >= MOST_IMAGES or left < 0:
                    raise ValueError("it is too long to be held in memory: cut out the frames that matter")
                size = checked_size(mask.shape[0], mask.shape[1], "it")
                old = images.get(index, Drawing("", (), size, index))
                if old.size != size:
                    raise ValueError("it has another size than the others")
                shape = [kept(mask, name and checked_name(name, "it"), track, f"frame {index}")] if mask.any() else []
                images[index] = Drawing("", [*old.shapes, *shape], size, index)
        except (*BROKEN, ValueError) as error:
            raise ValueError(f"{path.name}: {first_line(error)}") from error
    return Drawings(place, "a movie", list(images.values()), begins=True)


def _mattes(path: Path) -> Iterator[Bools]:
    """What each frame of a movie covers, (H, W): by its alpha where that ever differs, else by its brightness."""
    transparent = False
    with open_container(path) as container:
        video = shown_stream(container)
        if video is None:
            raise ValueError("it has no video")
        decoder: Any = video.codec_context
        if video.metadata.get("alpha_mode") == "1":  # the usual decoder of VP9 drops it
            decoder = av.CodecContext.create("libvpx-vp9" if decoder.name.startswith("vp9") else "libvpx", "r")
        for packet in container.demux(video):
            for frame in decoder.decode(packet if packet.size else None):
                if any(component.is_alpha for component in frame.format.components):
                    alpha_values = frame.to_ndarray(format="rgba")[..., 3]
                    transparent |= bool(alpha_values.min() < 255)
                    if transparent:
                        yield alpha_values > 127
                        continue
                yield white(frame.to_ndarray(format="rgb24"))
