"""Training resumes exactly, keeps its limits, and computes a batch in micro_batches as it should."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.samples import ALONE, CPU, Mean, run
from vostrack.device import choose_precision
from vostrack.errors import InputError, OutputError
from vostrack.methods.base import Batch
from vostrack.methods.recipe import Recipe
from vostrack.train.data.cache import FrameCache
from vostrack.train.loop import CHECKPOINT, METRICS, train
from vostrack.train.reports import EvaluationReport
from vostrack.train.settings import TrainConfig, learning_rate, share_done


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def scores(objective: Mean) -> Callable[[], dict[str, float]]:
    """An evaluation that depends on the weights, and on random numbers of its own."""

    def evaluate() -> dict[str, float]:
        torch.rand(3)
        weight = objective.module.state_dict()["0.weight"]
        return {"x": float(weight.sum()), "y": float(weight.square().sum())}

    return evaluate


@pytest.mark.parametrize(
    "settings",
    [{}, {"micro_batches": 2}, {"precision": "bf16"}, {"precision": "16"}, {"evaluate_every": 2}],
    ids=lambda settings: "-".join(map(str, settings.values())) or "plain",
)
def test_a_run_that_was_stopped_gives_the_same_losses_and_weights(
    cache: FrameCache, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe = Recipe(steps=9, batch=2)
    whole, first, second = Mean(), Mean(), Mean()
    evaluated: list[dict[str, Any]] = [
        {"evaluate": scores(one)} if "evaluate_every" in settings else {} for one in (whole, first, second)
    ]
    expected = run(whole, cache, tmp_path / "whole", recipe, settings, **evaluated[0])
    early = run(first, cache, tmp_path / "parts", recipe, settings, stop=4, **evaluated[1])
    late = run(second, cache, tmp_path / "parts", recipe, settings, **evaluated[2])
    assert early + late == expected
    assert_same(whole.module, second.module)
    one, other = ([{**row, "seconds": 0} for row in metrics(tmp_path / folder)] for folder in ("whole", "parts"))
    assert one == other
    assert [row["step"] for row in one if "losses" in row] == list(range(1, 10))


def test_steps_after_the_last_checkpoint_of_a_killed_run_are_made_again(cache: FrameCache, tmp_path: Path) -> None:
    recipe = Recipe(steps=6, batch=1)
    run(Mean(), cache, tmp_path / "run", recipe, stop=3)
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write('{"step": 4, "losses": {"loss": -1}}\n{"step": 5, "losses": {"loss": -1}}\n{"step"')
    run(Mean(), cache, tmp_path / "run", recipe)
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["losses"]["loss"] > 0 for row in rows)


def test_an_evaluation_after_the_last_checkpoint_of_a_killed_run_is_made_again(
    cache: FrameCache, tmp_path: Path
) -> None:
    settings = (Recipe(steps=2, batch=1), {"evaluate_every": 1})
    one = Mean()
    run(one, cache, tmp_path / "run", *settings, evaluate=scores(one))
    expected = metrics(tmp_path / "run")
    (tmp_path / "run" / CHECKPOINT).unlink()
    other = Mean()
    lines = (tmp_path / "run" / METRICS).read_text().splitlines(keepends=True)
    (tmp_path / "run" / METRICS).write_text(lines[0])
    run(other, cache, tmp_path / "run", *settings, evaluate=scores(other))
    assert [row["step"] for row in metrics(tmp_path / "run")] == [row["step"] for row in expected] == [0, 1, 1, 2, 2]


def test_an_error_in_the_middle_of_a_step_leaves_the_checkpoint_before_it(cache: FrameCache, tmp_path: Path) -> None:
    class Failing(Mean):
        calls_left = 3

        def after_step(self) -> None:
            super().after_step()
            if self.calls_left == 0:
                raise RuntimeError("the optimiser has stepped, and the copy has followed")
            self.calls_left -= 1

    settings = (Recipe(steps=6, batch=2), {"save_minutes": 0.0})
    expected = run(Mean(), cache, tmp_path / "whole", *settings)
    with pytest.raises(RuntimeError, match="stepped"):
        run(Failing(), cache, tmp_path, *settings)
    again = Failing()
    again.calls_left = 9
    assert run(again, cache, tmp_path, *settings) == expected[3:]


def test_a_checkpoint_of_other_settings_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    run(Mean(), cache, tmp_path / "run", Recipe(steps=4, batch=1), stop=2, settings={"sizes": {"crop": (1, 2)}})
    with pytest.raises(InputError, match=r"other settings \(batch, sizes\)"):
        run(Mean(), cache, tmp_path / "run", Recipe(steps=4, batch=2), settings={"sizes": {"crop": (1, 3)}})
    limits = {"max_minutes": 9, "save_minutes": 1, "patience": 3, "picture_minutes": 0}
    recipe = Recipe(steps=4, batch=1)
    assert len(run(Mean(), cache, tmp_path / "run", recipe, limits, settings={"sizes": {"crop": (1, 2)}})) == 2


def test_a_damaged_checkpoint_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    run(Mean(), cache, tmp_path / "run", Recipe(steps=4, batch=1), stop=2)
    path = tmp_path / "run" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot resume"):
        run(Mean(), cache, tmp_path / "run", Recipe(steps=4, batch=1))
    torch.save({"settings": {}, "step": 1}, path)
    with pytest.raises(InputError, match="other settings"):
        run(Mean(), cache, tmp_path / "run", Recipe(steps=4, batch=1))


def test_a_full_disk_is_said_and_the_last_checkpoint_stays(cache: FrameCache, small_disk: Path) -> None:
    recipe = Recipe(steps=4, batch=1)
    run(Mean(), cache, small_disk, recipe, stop=2)
    before = (small_disk / CHECKPOINT).read_bytes()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))  # what is left is enough for the metrics
    with pytest.raises(OutputError, match="disk is full"):
        run(Mean(), cache, small_disk, recipe)
    assert (small_disk / CHECKPOINT).read_bytes() == before
    filler.write_bytes(bytes(100))
    assert len(run(Mean(), cache, small_disk, recipe)) == 2


def test_a_checkpoint_that_would_run_code_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        run(Mean(), cache, tmp_path / "run", Recipe(steps=2, batch=1))
    assert not (tmp_path / "ran").exists()


def test_time_ends_a_run_and_takes_the_learning_rate_down(cache: FrameCache, tmp_path: Path) -> None:
    recipe = Recipe(steps=10**6, batch=1)
    losses = run(Mean(), cache, tmp_path / "run", recipe, {"max_minutes": 0.005})
    assert 1 <= len(losses) < 10**5
    shares = [share_done(recipe, TrainConfig(max_minutes=0.005), 500, seconds, 0.0) for seconds in (0, 0.15, 0.3, 9)]
    assert shares == pytest.approx([0.0005, 0.5, 1.0, 1.0])
    assert [learning_rate(1.0, "cosine", 500, done) for done in shares] == pytest.approx(
        [1.0, 0.505, 0.01, 0.01], rel=1e-4
    )


def test_the_learning_rate_falls_over_what_decoding_leaves_of_the_minutes() -> None:
    recipe, config = Recipe(steps=10**6), TrainConfig(max_minutes=1)
    shares = [share_done(recipe, config, 0, seconds, 20.0) for seconds in (20.0, 40.0, 60.0)]
    assert shares == pytest.approx([0.0, 0.5, 1.0])
    assert share_done(recipe, config, 0, 70.0, 70.0) == 1.0


def test_what_was_decoded_for_counts_in_all_parts_of_a_run(cache: FrameCache, tmp_path: Path) -> None:
    recipe, settings = Recipe(steps=10**6, batch=1), {"max_minutes": 1.0}
    assert len(run(Mean(), cache, tmp_path / "run", recipe, settings, stop=2, decoding=20.0)) == 2
    assert len(run(Mean(), cache, tmp_path / "run", recipe, settings, stop=3, decoding=30.0)) == 1
    rows = metrics(tmp_path / "run")
    assert [row["seconds"] // 10 for row in rows] == [2, 2, 5]
    assert all(row["done"] < 0.3 for row in rows)
    assert run(Mean(), cache, tmp_path / "run", recipe, settings, decoding=20.0) == []


@pytest.mark.parametrize(
    ("schedule", "twin"),
    [
        ("cosine", lambda share: 0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2),
        ("poly", lambda share: (1 - share) ** 0.9),
    ],
)
def test_the_learning_rate_follows_its_schedule_after_a_warm_up(schedule: str, twin: Callable[[float], float]) -> None:
    recipe, config = Recipe(steps=100, schedule=schedule), TrainConfig()
    rates = [learning_rate(2.0, schedule, step, share_done(recipe, config, step, 0.0, 0.0)) for step in range(100)]
    assert rates == pytest.approx([2.0 * twin(step / 100) * min(1, (step + 1) / 20) for step in range(100)])
    assert min(rates) > 0


def test_a_loss_that_is_not_finite_ends_the_run_before_it_spoils_the_weights(cache: FrameCache, tmp_path: Path) -> None:
    objective = Mean(float("nan"))
    with pytest.raises(OutputError, match="lower `lr`"):
        run(objective, cache, tmp_path / "run", Recipe(steps=2, batch=1))
    assert torch.equal(objective.module.state_dict()["0.weight"], Mean().module.state_dict()["0.weight"])
    assert not (tmp_path / "run" / CHECKPOINT).exists()


# --- micro_batches ---


class Plain(Mean):
    """Without batch statistics and randomness, so that it does not matter how a batch is divided."""

    def __init__(self) -> None:
        super().__init__()
        self.module.set_submodule("1", nn.Identity())

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        frames = batch.frames.flatten(0, 1)
        return {"loss": (self.module(frames) - frames).square().mean()}


def test_shares_of_a_batch_have_the_gradients_of_the_batch(cache: FrameCache, tmp_path: Path) -> None:
    whole, parts = Plain(), Plain()
    one, other = (
        run(objective, cache, tmp_path / str(micro_batches), Recipe(steps=1, batch=6), {"micro_batches": micro_batches})
        for objective, micro_batches in ((whole, 1), (parts, 3))
    )
    assert other == pytest.approx(one, rel=1e-5)
    for name, parameter in whole.module.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parts.module.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-7)


def test_running_averages_are_means_over_the_shares(cache: FrameCache, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watched(Mean):
        def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
            losses = super().losses(batch, generator)
            seen.append(self.module.get_buffer("1.running_mean").clone())
            return losses

    objective = Watched()
    start = objective.module.get_buffer("1.running_mean").clone()
    run(objective, cache, tmp_path / "run", Recipe(steps=1, batch=4), {"micro_batches": 2})
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])
    expected = start + ((seen[0] - start) + (seen[1] - start)) / 2
    torch.testing.assert_close(objective.module.get_buffer("1.running_mean"), expected, rtol=0, atol=1e-7)


# --- evaluation ---


def test_the_best_evaluation_is_known_and_patience_ends_the_run(cache: FrameCache, tmp_path: Path) -> None:
    values = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    recipe, config = Recipe(steps=50, batch=1), TrainConfig(evaluate_every=3, patience=2)
    reports = list(train(Mean(), recipe, cache, config, tmp_path, ALONE, lambda: {"x": next(values), "y": 0.1}))
    found = [report for report in reports if isinstance(report, EvaluationReport)]
    assert [report.step for report in found] == [0, 3, 6, 9]
    assert [report.best for report in found] == [True, True, False, False]
    assert [report.mean for report in found] == pytest.approx([0.2, 0.3, 0.25, 0.3])
    assert reports[-1] is found[-1]
    assert [row["mean"] for row in metrics(tmp_path) if "mean" in row] == [report.mean for report in found]
    assert list(train(Mean(), recipe, cache, config, tmp_path, ALONE, lambda: {"x": next(values)})) == []


def test_the_end_of_a_run_is_evaluated_once(cache: FrameCache, tmp_path: Path) -> None:
    for steps, expected in ((4, [0, 4]), (5, [0, 4, 5])):
        folder = tmp_path / str(steps)
        folder.mkdir()
        recipe, config = Recipe(steps=steps, batch=1), TrainConfig(evaluate_every=4)
        reports = list(train(Mean(), recipe, cache, config, folder, ALONE, lambda: {"x": 0.1}))
        assert [report.step for report in reports if isinstance(report, EvaluationReport)] == expected


# --- precision ---


def test_losses_are_computed_at_the_asked_precision(cache: FrameCache, tmp_path: Path) -> None:
    kinds = {}
    for precision in ("32", "bf16", "16"):

        class Watched(Mean):
            def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
                kinds[precision] = self.module[0](batch.frames[:, 0]).dtype  # type: ignore[index]  # noqa: B023
                return super().losses(batch, generator)

        objective = Watched()
        run(objective, cache, tmp_path / precision, Recipe(steps=2, batch=2), {"precision": precision})
        assert objective.module.get_parameter("0.weight").dtype == torch.float32
    assert kinds == {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "32")])
def test_precision_is_chosen_for_the_device(fast: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vostrack.device.has_fast_bfloat16", lambda device: fast)
    assert choose_precision("auto", CPU) == chosen
    assert choose_precision("bf16", CPU) == "bf16"


def test_compiling_is_asked_of_the_module_and_its_parts(
    cache: FrameCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda part: compiled.append(part))
    objective = Mean()
    run(objective, cache, tmp_path / "plain", Recipe(steps=1, batch=1))
    assert compiled == []
    run(objective, cache, tmp_path / "run", Recipe(steps=1, batch=1), {"compile": True})
    assert compiled == [objective.module, *objective.module.children()]


@pytest.mark.parametrize(
    "change",
    [
        {"step": "many"},
        {"step": -1},
        {"step": 2**70},
        {"seconds": math.nan},
        {"seconds": "long"},
        {"best": "good"},
        {"best": math.nan},
        {"stale": None},
    ],
    ids=str,
)
def test_a_checkpoint_without_a_position_is_refused(change: dict[str, Any], cache: FrameCache, tmp_path: Path) -> None:
    recipe, path = Recipe(steps=4, batch=1), tmp_path / "run" / CHECKPOINT
    run(Mean(), cache, tmp_path / "run", recipe, stop=2)
    state = torch.load(path, weights_only=True)
    state["position"] |= change
    torch.save(state, path)
    with pytest.raises(InputError, match="cannot resume"):
        run(Mean(), cache, tmp_path / "run", recipe)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": "1"}', '{"step": NaN}', "9" * 5000, '{"step": []}'])
def test_hostile_lines_of_the_metrics_are_dropped(line: str, cache: FrameCache, tmp_path: Path) -> None:
    recipe = Recipe(steps=4, batch=1)
    run(Mean(), cache, tmp_path / "run", recipe, stop=2)
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write(f"{line}\n")
    run(Mean(), cache, tmp_path / "run", recipe)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3, 4]
