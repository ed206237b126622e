"""A method of thirty lines that follows colours, with weights and clips: it carries the tests of the engine."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

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
        found = _means(features, probs**4)
        return replace(state, means=state.means.lerp(found, self.config.rate), seen=state.seen + 1)

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        return F.interpolate(probs[None], image.shape[1:], mode="bilinear")[0]


def _means(features: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("chw,khw->kc", features, weights) / weights.sum((1, 2)).clamp(min=1e-6)[:, None]


def fake_method(preset: str = "default") -> Method[Any]:
    net = FakeNet()
    nn.init.constant_(net.scale, 40.0)
    return FakeMethod(net, FakeMethod.presets[preset])  # type: ignore[return-value]


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
    return write_video(path, pictures(count, size), options={"crf": "12", "preset": "ultrafast"})


def write_mask(path: Path, pixels: np.ndarray | None = None) -> Path:
    """A palette mask, by default of the first picture."""
    palette_image(truth() if pixels is None else pixels).save(path)
    return path


def read_labels(path: Path) -> np.ndarray:
    """The ids in a mask that was written; decodes all of it."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


_FORKS = multiprocessing.get_context("forkserver")


def start(arguments: Sequence[object], log: Path, **settings: float) -> ForkServerProcess:
    """Start the command line with the fake method in a process of its own, which takes no second to start.

    Args:
        arguments: of the command line.
        log: folder for what it prints, "out" and "err".
        settings: `save_seconds`, `frame_seconds`, `step_seconds` of a training step of adaptation, whose network is
            then a small one, and `file_limit` in bytes.
    """
    _FORKS.set_forkserver_preload(["tests.fakes", "pytest", "vostrack.run.segment", "vostrack.cli"])
    log.mkdir(parents=True, exist_ok=True)
    environment = {"VOSTRACK_WEIGHTS": os.environ["VOSTRACK_WEIGHTS"]}
    process = _FORKS.Process(target=_child, args=([str(text) for text in arguments], log, environment, settings))
    process.start()
    return process


def _child(arguments: list[str], log: Path, environment: Mapping[str, str], settings: Mapping[str, float]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = io.TextIOWrapper(io.FileIO(1, "w")), io.TextIOWrapper(io.FileIO(2, "w"))
    os.environ.update(environment, FAKE_SECONDS=str(settings.get("frame_seconds", 0.0)))
    from vostrack import cli
    from vostrack.run import passes

    METHODS[NAME] = PATH
    os.fsync = lambda descriptor: None
    torch.set_num_threads(1)
    passes.SAVE_SECONDS = settings.get("save_seconds", 20.0)
    if "step_seconds" in settings:
        _slow_small_adaptation(settings["step_seconds"])
    if "file_limit" in settings:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(settings["file_limit"]),) * 2)
    sys.argv = ["vostrack", *arguments]
    try:
        cli.main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _slow_small_adaptation(seconds: float) -> None:
    """So that a test can stop a training while it is under way."""
    from tests.adapt.clips import narrow_net
    from vostrack.adapt.model import AppearanceModel

    narrow_net(pytest.MonkeyPatch())
    step = AppearanceModel.step

    def slow(model: AppearanceModel, sample: Any) -> float:
        time.sleep(seconds)
        return step(model, sample)

    AppearanceModel.step = slow  # type: ignore[method-assign]


def finish(process: ForkServerProcess, log: Path) -> tuple[int, str, str]:
    """Wait for a process; its exit code, stdout and stderr."""
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode, (log / "out").read_text(), (log / "err").read_text()
