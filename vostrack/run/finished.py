"""A run that is finished, read again frame by frame: its masks, and, where wanted, its clip and how sure it was.

A folder of palette PNGs is read in the same way, without what a run knows beside its masks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vostrack.errors import InputError, OutputError
from vostrack.files import lock_folder, nearest, read_json, shown
from vostrack.methods import Direction, method_class
from vostrack.propagate import Propagator, known_ids
from vostrack.run.folder import OutputFolder, fingerprint
from vostrack.run.kept import BothWays, KeptCells
from vostrack.run.pipeline import PipelineConfig, load_pipeline
from vostrack.run.place import HIDDEN, MOVES, check_clip
from vostrack.run.request import Request
from vostrack.run.steps import finish_moves
from vostrack.types import VOID, Frame, LabelMap, Prediction
from vostrack.video.ground import Color
from vostrack.video.masks import Prompts
from vostrack.video.palette import read_ids
from vostrack.video.playback import NORMAL
from vostrack.video.ranges import Span
from vostrack.video.reader import open_clip
from vostrack.video.series import frame_files
from vostrack.video.stream import no_image, size_text


@dataclass(frozen=True)
class _Summary:
    """What must be known of a run."""

    frames: int
    clip: dict[str, Any]
    objects: dict[str, Any] = field(default_factory=dict)


class Finished:
    """A finished run.

    Attributes:
        path: its folder.
        names: of its frames, in order.
        first: index of the first one in its clip.
        size: (H, W) of its masks.
        objects: names by id, in the order of ids.
        source: its clip; None where that is not known.
    """

    def __init__(self, path: Path, clip: Path | None = None, fps: Fraction | float | None = None) -> None:
        """Read what there is.

        Args:
            path: output folder of a run, or `masks` in it, or a folder of palette PNGs.
            clip: where the clip is, if not where it was.
            fps: of a folder of images, if not that of the run.

        Raises:
            OutputError: the run is damaged or not complete.
            InputError: there is no such folder, or nothing in it.
        """
        path = _run_of(path)
        self.path, self.first = path, 0
        self.source: Path | None = None
        self._request: Request | None = None
        self._clip_record: dict[str, Any] = {}
        self._stamp = self._now()
        if (path / HIDDEN).is_dir():
            self._read_run()
        elif path.is_dir():
            self._read_folder()
        else:
            what = f"{shown(path)} is a file" if path.exists() else f"cannot find {shown(path)}"
            raise InputError(f"{what}{nearest(path) or ': give the output folder of a run'}")
        if clip is not None:
            check_clip(clip)
        self.source = clip or self.source
        known = self._request.playback if self._request else NORMAL
        self._playback = known if fps is None else replace(known, fps=fps)
        height, width = self._mask(self._paths[0], None).shape
        self.size = (height, width)
        self._images = self._image_names()

    def _read_run(self) -> None:
        if (self.path / MOVES).exists():
            with lock_folder(self.path):
                finish_moves(self.path)
        folder = OutputFolder(self.path)
        request, self._given = Request.kept_in(folder)
        try:
            summary: _Summary = read_json(self.path / "summary.json", _Summary)
        except FileNotFoundError:
            raise OutputError(f"the run in {shown(self.path)} is not complete: resume it first") from None
        except (OSError, ValueError) as error:
            raise OutputError(f"{shown(self.path / 'summary.json')} is damaged: {shown(error)}") from error
        self.names = folder.frame_names()
        if not self.names or len(self.names) != summary.frames:
            raise OutputError(f"{shown(self.path)} lacks frames that its summary counts: resume the run")
        self._paths = [self.path / "masks" / f"{name}.png" for name in self.names]
        ids = known_ids(self._given.labels, 0, Direction.BOTH)
        self.objects = {number: self._given.names.get(number) or f"object_{number}" for number in sorted(ids)}
        self.first, self.source, self._clip_record = request.span.first, request.source, summary.clip
        self._request = request

    def _read_folder(self) -> None:
        if not any(path.suffix.lower() == ".png" for path in self.path.iterdir()):
            what = f"{shown(self.path)} is not the output folder of a run, and holds no palette PNGs"
            raise InputError(f"{what}: give one that does")
        self._paths, _ = frame_files(self.path)
        self.names, self._given = [path.stem for path in self._paths], Prompts({}, [], {}, {}, [])
        ids = {int(number) for path in self._paths for number in np.unique(self._mask(path, None))}
        self.objects = {number: f"object_{number}" for number in sorted(ids - {0})}

    @property
    def colors(self) -> dict[int, Color]:
        """What objects were painted in, by id, where that is known."""
        return self._given.colors

    def frames(self, span: Span, images: bool, soft: bool) -> Generator[Prediction, None, None]:
        """Some frames.

        Args:
            span: of the clip; its frames must be among those of the run.
            images: whether frames have images; else they are empty, and the clip is not read.
            soft: whether predictions have probabilities (K, h, w), at the working size, where the run kept any; but for
                frames whose mask was given.

        Raises:
            OutputError: a mask is damaged.
            InputError: the clip cannot be read, or is another one.
        """
        said = self._probabilities() if soft else lambda frame: None
        for frame in self._read(span) if images else self._blank(span):
            mask = torch.from_numpy(self._mask(self._paths[frame.index - self.first], self.size))
            ids, probs = said(frame) or (tuple(self.objects), None)
            yield Prediction(frame, LabelMap(mask, ids), probs)

    @property
    def is_run(self) -> bool:
        """Whether it is the output folder of a run."""
        return self._request is not None

    @property
    def is_soft(self) -> bool:
        """Whether the run kept how sure it was."""
        return self._request is not None and self._request.keep

    def rate(self) -> Fraction | None:
        """Average frame rate of the clip."""
        with open_clip(self._known_source(), self._playback) as clip:
            return clip.fps

    def image_name(self, index: int, name: str) -> str:
        """Name of the image that a frame is in: its own, in a folder of images."""
        return self._images[index] if index < len(self._images) else f"{name}.jpg"

    def digest(self) -> str:
        """Hash of what was asked for, and of sizes and times of all masks, which change where one is retouched."""
        hashed = hashlib.sha256(repr((self._now(), list(self._given.labels), sorted(self.objects.items()))).encode())
        for path in self._paths:
            with contextlib.suppress(OSError):  # whoever reads it says why
                info = os.stat(path)
                hashed.update(repr((path.name, info.st_size, info.st_mtime_ns)).encode("utf-8", "surrogateescape"))
        return hashed.hexdigest()

    def check_same(self) -> None:
        """Raise `OutputError` where the run was changed since it was opened."""
        if self._now() != self._stamp:
            raise OutputError(f"the run in {shown(self.path)} was changed meanwhile: export it again")

    def _now(self) -> tuple[int, int] | None:
        try:
            info = os.stat(self.path / "summary.json")
        except OSError:
            return None
        return info.st_mtime_ns, info.st_ino

    def _known_source(self) -> Path:
        if self.source is None:
            raise InputError(f"{shown(self.path)} does not say which clip it is of: give it as `clip`")
        check_clip(self.source)
        return self.source

    def _image_names(self) -> list[str]:
        if self.source is None or not self.source.is_dir():
            return []
        return [path.name for path in frame_files(self.source)[0]]

    def _blank(self, span: Span) -> Iterator[Frame]:
        for index in range(span.first, (span.last or 0) + 1):
            yield Frame(index, Fraction(0), no_image(), self.names[index - self.first])

    def _read(self, span: Span) -> Iterator[Frame]:
        source = self._known_source()
        if self._clip_record:
            now = fingerprint(source)
            if {**now, "name": ""} != {**self._clip_record, "name": ""}:
                raise InputError(f"{shown(source)} is another clip than the run was over: give that one as `clip`")
        with span.of(open_clip(source, self._playback)) as clip:
            if clip.size != self.size:
                raise InputError(
                    f"{shown(source)} is {size_text(clip.size)}, and the masks are {size_text(self.size)}: "
                    "give the clip that they are of as `clip`"
                )
            for frame in clip:
                yield Frame(frame.index, frame.time, frame.image, self.names[frame.index - self.first])

    def _probabilities(self) -> Callable[[Frame], tuple[tuple[int, ...], torch.Tensor] | None]:
        """What gives the ids that the run followed in a frame, and its probabilities; None where it predicted none."""
        request, given = self._request, self._given
        assert request is not None
        pipeline = load_pipeline(_unfitted(request.config))
        engine = Propagator(pipeline.method, request.config.size, pipeline.device)
        forward, backward = (
            KeptCells(OutputFolder(self.path).cells, way, given.labels, engine.grid(self.size))
            for way in (Direction.FORWARD, Direction.BACKWARD)
        )
        both = BothWays(given.labels, backward, request.direction)

        def said(frame: Frame) -> tuple[tuple[int, ...], torch.Tensor] | None:
            if frame.index in given.labels:
                return None
            merged = both.merged(frame.index, forward.read(frame.index))
            return merged and (merged.ids, engine.probabilities(merged.cells, frame.image))

        return said

    def _mask(self, path: Path, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
        """A mask, uint8 (H, W), whose ids are those of objects; raises `OutputError`."""
        try:
            pixels = read_ids(path, grey=not self.is_run)
            if size is not None and pixels.shape != size:
                raise ValueError("it has another size than the first one")
        except (OSError, ValueError, InputError) as error:
            fix = "; resume the run to mend it" if self.is_run else ""
            raise OutputError(f"{shown(path)} cannot be exported: {shown(error)}{fix}") from error
        pixels[pixels == VOID] = 0
        if size is not None and not {0, *self.objects} >= set(np.flatnonzero(np.bincount(pixels.ravel())).tolist()):
            raise OutputError(f"{shown(path)} holds an object that the run does not know")
        return pixels


def _run_of(path: Path) -> Path:
    """The run that a folder of masks belongs to, which knows their names and their clip; else the folder."""
    place = path if path.name else Path(os.path.abspath(path))
    run = place.parent
    return run if place.name == "masks" and (run / HIDDEN).is_dir() and (run / "summary.json").is_file() else path


def _unfitted(config: PipelineConfig) -> PipelineConfig:
    """A config whose method does not fit what it says to the edges of the image; `formats.alpha` does."""
    fits = all(hasattr(preset, "edge_radius") for preset in method_class(config.method).presets.values())
    return replace(config, settings={**config.settings, "edge_radius": 0}) if fits else config
