"""Movies with transparency for editors, at the size, the times and with the audio of the clip.

Colours are those of whole frames, not multiplied by alpha ("straight").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt

from vostrack.formats.alpha import alpha, in_bits
from vostrack.formats.base import Bools, Shot, picture
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
from vostrack.video.movie import Encoding, MovieWriter, limited
from vostrack.video.stream import first_line


def _rgba(values: npt.NDArray[Any]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(values, format="rgba" if values.dtype == np.uint8 else "rgba64le")


_PRORES = Encoding(
    "mov",
    "a MOV file",
    "prores_ks",
    "yuva444p10le",
    lambda values: limited(_rgba(values), "yuva444p10le"),
    {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
)
_GREY = Encoding(
    "mov",
    "a MOV file",
    "prores_ks",
    "yuv422p10le",
    lambda values: limited(av.VideoFrame.from_ndarray(values, format="gray16le"), "yuv422p10le"),
    {"profile": "hq", "vendor": "apl0"},
)
_FFV1 = Encoding(
    "matroska", "an MKV file", "ffv1", "bgra", lambda values: _rgba(values).reformat(format="bgra"), {"level": "3"}
)
_VP9 = Encoding(
    "webm",
    "a WebM file",
    "libvpx-vp9",
    "yuva420p",
    lambda values: limited(_rgba(values), "yuva420p"),
    {"crf": "18", "b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "0"},
)


class _Movies:
    """Writes one movie, or one for each object, in a folder.

    Attributes:
        notes: what became of the audio, where it could not be kept.
    """

    encoding: ClassVar[Encoding]
    ending: ClassVar[str]
    bits: ClassVar[int] = 8

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

    def write(self, prediction: Prediction) -> None:
        """Encode a frame."""
        for stem, movie in self._movies.items():
            covered = alpha(prediction, self._layers[stem], self._shot.options)
            movie.write(self.picture(prediction, covered), prediction.frame.time)

    def picture(self, prediction: Prediction, covered: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """What is encoded of a frame, (H, W, 4), with as many bits as alpha has in the movie."""
        values = in_bits(covered, self.bits)[..., None]
        image = picture(prediction)
        return np.concatenate((image if self.bits == 8 else image.astype(np.uint16) * 257, values), 2)

    def finish(self) -> None:
        """Complete all."""
        for movie in self._movies.values():
            movie.finish()

    def abort(self) -> None:
        """Drop all."""
        for movie in self._movies.values():
            movie.abort()


class Prores4444(_Movies):
    """ProRes 4444 with alpha."""

    encoding, ending, bits = _PRORES, ".mov", 16


class Ffv1(_Movies):
    """FFV1, lossless, with alpha of 8 bits."""

    encoding, ending = _FFV1, ".mkv"


class Webm(_Movies):
    """VP9 with alpha of 8 bits."""

    encoding, ending = _VP9, ".webm"


class MatteMovie(_Movies):
    """A grey movie in ProRes 422 HQ: white where objects are."""

    encoding, ending, bits = _GREY, ".mov", 16

    def picture(self, prediction: Prediction, covered: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The matte, (H, W)."""
        return in_bits(covered, self.bits)


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
