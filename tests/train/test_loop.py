"""Training resumes exactly, keeps its limits, and reads footage as it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vostrack.errors import DatasetError, InputError, OutputError
from vostrack.methods.base import ClipSpec
from vostrack.train.data import FrameCache, build_cache, draw_clips, find_sources
from vostrack.train.loop import CHECKPOINT, METRICS, TrainConfig, learning_rate, train

CPU = torch.device("cpu")


class Mean:
    """Learns the mean colour of clips: a real objective in a few lines."""

    learning_rate = 0.1
    clips = ClipSpec(frames=2, gap=2, crop=8)

    def __init__(self, target: float = 0.0) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.steps = 0
        self.target = target

    def losses(self, frames: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.rand((), generator=generator)
        out = self.module(frames.flatten(0, 1))
        return {"loss": (out - frames.flatten(0, 1) - 0.01 * noise).square().mean() + self.target}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate)

    def after_step(self) -> None:
        self.steps += 1


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Two folders of frames: a gradient that drifts, and noise."""
    generator = np.random.default_rng(0)
    for name, size in (("a", (20, 30)), ("b", (24, 18))):
        folder = tmp_path / "footage" / name
        folder.mkdir(parents=True)
        for index in range(6):
            pixels = (
                generator.integers(0, 255, (*size, 3), dtype=np.uint8)
                if name == "b"
                else np.full((*size, 3), 30 * index, np.uint8)
            )
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "footage"


@pytest.fixture
def cache(footage: Path, tmp_path: Path) -> FrameCache:
    return build_cache(find_sources([footage]), tmp_path / "cache")


def run(objective: Any, cache: FrameCache, folder: Path, config: TrainConfig, stop: int | None = None) -> list[float]:
    folder.mkdir(exist_ok=True)
    steps, losses = train(objective, cache, config, folder, CPU), []
    for report in steps:
        losses.append(report.losses["loss"])
        if report.step == stop:
            steps.close()
            break
    return losses


def test_a_run_that_was_stopped_gives_the_same_losses_and_weights(cache: FrameCache, tmp_path: Path) -> None:
    config = TrainConfig(steps=9, batch=2)
    whole, first, second = Mean(), Mean(), Mean()
    expected = run(whole, cache, tmp_path / "whole", config)
    early = run(first, cache, tmp_path / "parts", config, stop=4)
    late = run(second, cache, tmp_path / "parts", config)
    assert early + late == expected
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, second.module.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / METRICS).read_text().splitlines()]
    assert steps == list(range(1, 10))


def test_steps_after_the_last_checkpoint_of_a_killed_run_are_made_again(cache: FrameCache, tmp_path: Path) -> None:
    config = TrainConfig(steps=6, batch=1)
    run(Mean(), cache, tmp_path / "run", config, stop=3)
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write('{"step": 4, "losses": {"loss": -1}}\n{"step": 5, "losses": {"loss": -1}}\n{"step"')
    run(Mean(), cache, tmp_path / "run", config)
    rows = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["losses"]["loss"] > 0 for row in rows)


def test_a_checkpoint_of_other_settings_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    run(Mean(), cache, tmp_path / "run", TrainConfig(steps=4, batch=1), stop=2)
    with pytest.raises(InputError, match="other settings"):
        run(Mean(), cache, tmp_path / "run", TrainConfig(steps=4, batch=2))


def test_a_damaged_checkpoint_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    run(Mean(), cache, tmp_path / "run", TrainConfig(steps=4, batch=1), stop=2)
    path = tmp_path / "run" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot resume"):
        run(Mean(), cache, tmp_path / "run", TrainConfig(steps=4, batch=1))


def test_a_checkpoint_that_would_run_code_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        run(Mean(), cache, tmp_path / "run", TrainConfig(steps=2, batch=1))
    assert not (tmp_path / "ran").exists()


def test_time_ends_a_run_and_takes_the_learning_rate_down(cache: FrameCache, tmp_path: Path) -> None:
    config = TrainConfig(steps=10**6, batch=1, max_minutes=0.005)
    losses = run(Mean(), cache, tmp_path / "run", config)
    assert 1 <= len(losses) < 10**5
    assert learning_rate(1.0, 500, 0.0, config) == pytest.approx(1.0)
    assert learning_rate(1.0, 500, 0.15, config) == pytest.approx(0.505)
    assert learning_rate(1.0, 500, 0.3, config) == pytest.approx(0.01)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(cache: FrameCache, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="lower --lr"):
        run(Mean(float("nan")), cache, tmp_path / "run", TrainConfig(steps=2, batch=1))


def test_clips_have_the_asked_shape_and_depend_on_the_generator_alone(cache: FrameCache) -> None:
    spec = ClipSpec(frames=3, gap=2, crop=16)
    first, again, other = (draw_clips(cache, spec, 4, torch.Generator().manual_seed(seed), CPU) for seed in (1, 1, 2))
    assert first.shape == (4, 3, 3, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_frames_of_a_clip_come_in_order_of_time(cache: FrameCache) -> None:
    spec = ClipSpec(frames=4, gap=1, crop=8)
    for seed in range(12):
        clips = draw_clips(cache, spec, 1, torch.Generator().manual_seed(seed), CPU)[0]
        if (clips[0] == clips[0, 0, 0, 0]).all():  # the clip whose brightness is its time
            levels = clips.mean((1, 2, 3))
            assert (levels.diff() > 0).all()
            return
    pytest.fail("the drifting clip was never drawn")


def test_a_clip_shorter_than_asked_repeats_frames(cache: FrameCache) -> None:
    clips = draw_clips(cache, ClipSpec(frames=20, gap=3, crop=8), 2, torch.Generator().manual_seed(0), CPU)
    assert clips.shape[1] == 20


def test_the_cache_is_used_again_for_the_same_sources_only(footage: Path, tmp_path: Path) -> None:
    build_cache(find_sources([footage]), tmp_path / "cache")
    stamp = (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns
    build_cache(find_sources([footage]), tmp_path / "cache")
    assert (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns == stamp
    smaller = build_cache([footage / "a"], tmp_path / "cache")
    assert [clip.name for clip in smaller.clips] == ["a"]


def test_footage_that_cannot_be_read_is_left_out_and_named(footage: Path, tmp_path: Path) -> None:
    (footage / "broken.mp4").write_text("not a video")
    notes: list[str] = []
    cache = build_cache(
        find_sources([footage]), tmp_path / "cache", progress=lambda done, total, note: notes.append(note)
    )
    assert len(cache.clips) == 2
    assert any("broken.mp4" in note for note in notes)


def test_a_folder_without_footage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no videos"):
        find_sources([tmp_path])
    with pytest.raises(DatasetError, match="no folder"):
        find_sources([tmp_path / "missing"])


def test_a_damaged_cache_is_an_error(footage: Path, tmp_path: Path) -> None:
    build_cache(find_sources([footage]), tmp_path / "cache")
    (tmp_path / "cache" / "frames.u8").write_bytes(b"short")
    with pytest.raises(DatasetError, match="damaged"):
        FrameCache(tmp_path / "cache")
