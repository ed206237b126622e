"""Timing presets: parts by a clock of the test's own, objects made from a mask, and the way through the program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import steps
from tests.fakes import NAME, FakeMethod, fake_method, truth, write_clip
from vostrack.benchmark.speed import SpeedTask, frames_to_fill, recommended, run_task, split, time_presets, timed
from vostrack.errors import InputError, MaskError, MethodError
from vostrack.methods import METHODS, configure
from vostrack.methods.base import Shrinking
from vostrack.run.callbacks import Callbacks
from vostrack.run.pipeline import PipelineConfig
from vostrack.types import LabelMap

CPU = torch.device("cpu")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(FakeMethod):
    """Takes its time by a clock, and calls one of its functions from another."""

    clock: Clock

    def encode(self, image: Tensor) -> Tensor:
        self.clock.now += 3
        return super().encode(image)

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        self.encode(image)
        self.clock.now += 4
        return super().enlarge(probs, image)


def given(ids: tuple[int, ...] = (3, 200)) -> LabelMap:
    return LabelMap(torch.from_numpy(truth(ids=ids)), ids)


def task(folder: Path, frames: int = 3, length: int = 12) -> SpeedTask:
    return SpeedTask(PipelineConfig(method=NAME), write_clip(folder / "c.mp4", length), given(), (4, 1, 2), frames)


def test_each_part_gets_the_time_that_its_function_takes() -> None:
    fake, clock, spent = fake_method(), Clock(), {"encode": [0.5], "match": [], "remember": [], "enlarge": []}
    method = Slow(fake.net, fake.config)
    method.clock = clock
    watched, image = timed(method, spent, CPU, clock), torch.rand(3, 16, 16)
    features = watched.encode(image)
    state = watched.begin(features, torch.eye(2).reshape(2, 2, 1, 1).expand(2, 2, 16, 16)[:, 0])
    probs = watched.predict(state, features)
    watched.remember(state, features, probs)
    assert torch.equal(watched.enlarge(probs, image), fake.enlarge(probs, image))
    assert spent == {"encode": [0.5, 3], "match": [0], "remember": [0], "enlarge": [7]}, "not what enlarge calls"
    assert isinstance(watched, Shrinking)
    assert watched.name == method.name
    method.encode(image)
    assert len(spent["encode"]) == 2, "the method itself is as it was"


@pytest.mark.parametrize("count", [1, 3, 4, 16])
def test_a_mask_is_cut_into_objects_of_one_area(count: int) -> None:
    mask = given()
    mask.pixels[0] = 255
    parts = split(mask, count)
    assert parts.ids == tuple(range(1, count + 1))
    assert torch.equal(parts.pixels > 0, (mask.pixels > 0) & (mask.pixels < 255))
    areas = torch.bincount(parts.pixels.flatten().int())[1:]
    assert areas.sum() == 2 * 16 * 16
    assert areas.max() - areas.min() <= count


def test_a_mask_with_so_many_objects_is_taken_as_it_is() -> None:
    assert split(given(), 2).ids == (3, 200)
    with pytest.raises(MaskError, match="512 pixels, too few for 600 objects"):
        split(given(), 600)


def test_the_memory_is_full_after_the_frames_that_a_method_looks_back() -> None:
    best = {"context": 4, "spacing": 2}
    assert [frames_to_fill(configure("best", settings=best | each)) for each in ({}, {"context": 0})] == [7, 1]
    assert frames_to_fill(fake_method().config) == 5


@pytest.mark.usefixtures("fake_method")
def test_a_preset_is_timed_with_each_number_of_objects(tmp_path: Path) -> None:
    timings = run_task(task(tmp_path))
    assert [(each.preset, each.objects) for each in timings] == [("default", count) for count in (1, 2, 4)]
    for each in timings:
        assert list(each.parts) == ["decode", "encode", "match", "remember", "enlarge", "write"]
        assert min(*each.parts.values(), each.seconds) > 0
        assert each.to_json()["fps"] == pytest.approx(1 / each.seconds, rel=0.01)
        assert each.peak_gpu_mb is None


@pytest.mark.usefixtures("fake_method")
def test_a_clip_that_does_not_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="c has 6 frames, and it takes 7"):
        run_task(task(tmp_path, length=6))
    assert run_task(task(tmp_path, length=7))


@pytest.mark.usefixtures("fake_method")
def test_what_cannot_be_timed_is_said_before_anything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a preset is timed")

    monkeypatch.setattr("vostrack.benchmark.speed.run_all", refuse)
    enough = task(tmp_path)
    with pytest.raises(InputError, match="short has 6 frames, and it takes 7"):
        time_presets([enough, replace(enough, clip=write_clip(tmp_path / "short.mp4", 6))], Callbacks())
    with pytest.raises(MaskError, match="too few for 600 objects"):
        time_presets([enough, replace(enough, objects=(1, 600))], Callbacks())


def test_a_method_that_does_all_in_one_step_has_no_parts_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, steps.NAME, steps.PATH)
    with pytest.raises(MethodError, match="steps does all in one step"):
        run_task(replace(task(tmp_path), pipeline=PipelineConfig(method=steps.NAME)))


@pytest.mark.slow
@pytest.mark.usefixtures("fake_method")
def test_presets_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    done = list[tuple[int, int | None]]()

    class Log(Callbacks):
        def progress(self, count: int, total: int | None) -> None:
            done.append((count, total))

    torch.ones(1 << 28)  # a gigabyte that is none of theirs
    timings = time_presets([task(tmp_path)], Log())
    assert len(timings) == 3
    assert done == [(1, 1)]
    assert timings[0].peak_rss_mb is None or timings[0].peak_rss_mb < 1000


@pytest.mark.parametrize(("limit", "name"), [(9, None), (10, "fast"), (29, "balanced"), (30, "accurate")])
def test_the_most_accurate_preset_that_is_done_in_time_is_recommended(limit: float, name: str | None) -> None:
    assert recommended({"fast": 10, "balanced": 20, "accurate": 30}, limit) == name
    assert recommended({"fast": 25, "accurate": 20}, 22) == "accurate", "whichever took longer"
