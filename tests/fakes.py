"""A method of thirty lines that follows colours, with weights and clips: it carries the tests of the engine."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tests.forks import finish as finish
from tests.forks import fork
from tests.video.media import write_video
from vostrack.benchmark.runner import Variant
from vostrack.config import Config, setting
from vostrack.files import sha256
from vostrack.methods import METHODS
from vostrack.methods.base import Method, Objective
from vostrack.run.pipeline import PipelineConfig
from vostrack.video.palette import palette_image
from vostrack.weights import Adopt, save_weights

NAME, PATH = "fake", "tests.fakes:FakeMethod"
IDS = (3, 200)
SIZE = (48, 64)
STRIDE = 4


@dataclass(frozen=True)
class Entry:
    """What a file that anyone may have written is expected to hold."""

    name: str
    size: int
    scores: dict[str, float]
    note: str | None = None
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class FakeConfig(Config):
    rate: float = setting(0.1, "how fast means move", low=0, high=1)
    steps: int = setting(1, "steps to take", low=1, unit="steps")
    soft: bool = setting(True, "whether it is soft")
    scales: tuple[int, ...] = setting((1, 2), "scales to look at", low=1)


@dataclass(frozen=True)
class FakeState:
    means: Tensor
    seen: int


class FakeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1))


class FakeMethod:
    """Nearest mean colour; the means move with what was found, so that a run depends on all of its frames."""

    name: ClassVar[str] = NAME
    paper: ClassVar[str] = "none"
    presets: ClassVar[Mapping[str, FakeConfig]] = {"default": FakeConfig(), "slow": FakeConfig(rate=0.01)}
    state_type = FakeState
    nets: ClassVar[Mapping[str, type[nn.Module]]] = {"default": FakeNet}
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[Objective] | None] = None
    stride = STRIDE

    def __init__(self, net: nn.Module, config: FakeConfig) -> None:
        self.net, self.config = net, config
        self.scale = float(net.get_parameter("scale").detach())

    def encode(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image[None], STRIDE, ceil_mode=True)[0]

    def begin(self, features: Tensor, labels: Tensor, state: FakeState | None = None) -> FakeState:
        weights = F.interpolate(labels[None], features.shape[1:], mode="area")[0] ** 4
        means = _means(features, weights)
        absent = weights.sum((1, 2)) == 0
        means[absent] = 9.0
        if state is not None:
            known = absent[: len(state.means)]
            means[: len(known)][known] = state.means[known]
        return FakeState(means, 0)

    def predict(self, state: FakeState, features: Tensor) -> Tensor:
        distance = (features[None] - state.means[:, :, None, None]).square().sum(1)
        return (-self.scale * distance).softmax(0)

    def remember(self, state: FakeState, features: Tensor, probs: Tensor) -> FakeState:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        _hold_at_frame()
        found = _means(features, probs**4)
        return replace(state, means=state.means.lerp(found, self.config.rate), seen=state.seen + 1)

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        return F.interpolate(probs[None], image.shape[1:], mode="bilinear")[0]

    def shrink(self, probs: Tensor) -> Tensor:
        return F.avg_pool2d(probs[None], STRIDE, ceil_mode=True)[0]


def forget(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Let the fake method say that it forgets what lies so many frames back, or before a given mask."""

    def forgets(self: FakeMethod, state: FakeState, ahead: int | None) -> bool:
        return ahead is None or ahead > frames

    def passed(self: FakeMethod, state: FakeState, probs: Tensor) -> FakeState:
        return replace(state, seen=state.seen + 1)

    monkeypatch.setattr(FakeMethod, "forgets", forgets, raising=False)
    monkeypatch.setattr(FakeMethod, "passed", passed, raising=False)


def _means(features: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("chw,khw->kc", features, weights) / weights.sum((1, 2)).clamp(min=1e-6)[:, None]


def fake_method(preset: str = "default") -> Method[Any]:
    net = FakeNet()
    nn.init.constant_(net.scale, 40.0)
    return FakeMethod(net, FakeMethod.presets[preset])


def variant(**config: Any) -> Variant:
    """A variant of the fake method."""
    return Variant(PipelineConfig(method=NAME, **config), NAME)


def write_weights(folder: Path, method: str = NAME, name: str = "fake-1") -> Path:
    """A folder with a manifest and a weights file; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_weights(fake_method().net, method, path, {"steps": 3})
    row = {"name": name, "method": method, "file": path.name, "sha256": sha256(path), "licence": "Apache-2.0"}
    lines = [f'{key} = "{value}"' for key, value in (row | {"trained_on": "nothing"}).items()]
    text = "\n".join(["[[weights]]", *lines, f"bytes = {path.stat().st_size}", "[weights.scores]", "J = 0.5", ""])
    (folder / "manifest.toml").write_text(text)
    return path


def register(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the fake method and its weights, which are written to a folder, what the package finds."""
    monkeypatch.setitem(METHODS, NAME, PATH)
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(folder))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no test cuts the power, and it takes most of the time
    write_weights(folder)


def pictures(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A red and a green square that move over a grey ground with texture; uint8 (H, W, 3)."""
    ground = np.random.default_rng(0).integers(90, 120, (*size, 3), np.uint8)
    images = []
    for index in range(count):
        image = ground.copy()
        for (top, left), color in zip(corners(index), ((220, 20, 20), (20, 220, 20)), strict=True):
            image[top : top + 16, left : left + 16] = color
        images.append(image)
    return images


def corners(index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top left corners of both squares."""
    return (4, 4 + index % 24), (28, 40 - index % 24)


def truth(index: int = 0, ids: Sequence[int] = IDS, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The label map of a picture, uint8 (H, W), of both objects or of the first one alone."""
    pixels = np.zeros(size, np.uint8)
    for (top, left), number in zip(corners(index), ids, strict=False):
        pixels[top : top + 16, left : left + 16] = number
    return pixels


def write_clip(path: Path, count: int = 12, size: tuple[int, int] = SIZE) -> Path:
    """The pictures as a video."""
    path.write_bytes(_movie(path.suffix, count, size))
    return path


@cache
def _movie(suffix: str, count: int, size: tuple[int, int]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"clip{suffix}"
        return write_video(path, pictures(count, size), options={"crf": "12", "preset": "ultrafast"}).read_bytes()


def write_mask(path: Path, pixels: np.ndarray | None = None) -> Path:
    """A palette mask, by default of the first picture."""
    palette_image(truth() if pixels is None else pixels).save(path)
    return path


def read_labels(path: Path) -> np.ndarray:
    """The ids in a mask that was written; decodes all of it."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def start(arguments: Sequence[object], log: Path, hold: int = 0, **settings: float) -> ForkServerProcess:
    """Start the command line with the fake method in a process of its own, which takes no second to start.

    Args:
        arguments: of the command line.
        log: folder for what it prints, "out" and "err".
        hold: the process, and each that it starts, stops at its frame of this number until a signal comes; see `held`.
        settings: `save_seconds`, `frame_seconds`, and `file_limit` in bytes; `small` makes the network of an adaptation
            a small one, which holds at `hold_step` of its training.
    """
    log.mkdir(parents=True, exist_ok=True)
    (log / "held").unlink(missing_ok=True)
    os.mkfifo(log / "held")
    environment = {
        "VOSTRACK_WEIGHTS": os.environ["VOSTRACK_WEIGHTS"],
        "FAKE_SECONDS": str(settings.get("frame_seconds", 0.0)),
        "FAKE_HOLD": str(hold),
        "FAKE_HELD": str(log / "held"),
    }
    return fork(log, _command, [str(text) for text in arguments], environment, settings)


def held(process: ForkServerProcess, log: Path) -> bool:
    """Wait until a process stops where `start` told it to; false if it ended instead."""
    with _reading(log) as pipe:
        return pipe in wait([process.sentinel, pipe], 60)


def ended(log: Path) -> bool:
    """Wait until a process that held is gone, and all that it had started for its work."""
    with _reading(log) as pipe:
        while True:
            with suppress(BlockingIOError):
                if not os.read(pipe, 9):
                    return True
            if not wait([pipe], 60):
                return False


@contextmanager
def _reading(log: Path) -> Iterator[int]:
    pipe = os.open(log / "held", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield pipe
    finally:
        os.close(pipe)


@cache
def _held_pipe() -> int:
    return os.open(os.environ["FAKE_HELD"], os.O_RDWR)


def _hold() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    os.write(_held_pipe(), b".")
    os.read(reading, 1)  # any signal that Python handles, also one that came before this line


_frames = itertools.count(1)


def _hold_at_frame() -> None:
    if hold := int(os.environ.get("FAKE_HOLD", "0")):
        _held_pipe()  # open for as long as this process is there
        if next(_frames) == hold:
            _hold()


def _command(arguments: list[str], environment: Mapping[str, str], settings: Mapping[str, float]) -> None:
    os.environ.update(environment)
    from vostrack import cli
    from vostrack.run import passes

    METHODS[NAME] = PATH
    os.fsync = lambda fd: None
    passes.SAVE_SECONDS = settings.get("save_seconds", 20.0)
    if "small" in settings:
        _small_adaptation(int(settings.get("hold_step", 0)))
    if "file_limit" in settings:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(settings["file_limit"]),) * 2)
    sys.argv = ["vostrack", *arguments]
    cli.main()


def _small_adaptation(hold_step: int) -> None:
    """So that steps are quick, and a test can stop the training of an adaptation while it is under way."""
    from tests.adapt.clips import narrow_net
    from vostrack.adapt.model import AppearanceModel

    narrow_net(pytest.MonkeyPatch())
    AppearanceModel.step = _holding(AppearanceModel.step, hold_step)  # type: ignore[method-assign]


def _holding(function: Callable[..., Any], hold: int) -> Callable[..., Any]:
    """The function, but its call of this number holds."""
    calls = itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(calls) == hold:
            _hold()
        return function(*arguments)

    return counted
