"""Curves of an adaptation: they say what runs of as many steps say, and the truth is not learned from.

Zhu et al., section 4.2: (a) J&F between the network's masks and the propagated ones, (b) between them and the truth,
with that of the propagated masks as a baseline.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.adapt.clips import SMALL, narrow_net
from tests.benchmark import trees
from vostrack import cli
from vostrack.benchmark.adaptation import LearningCurve, mean_curve, run_adaptation_curves
from vostrack.benchmark.datasets.table import open_dataset
from vostrack.benchmark.runner import run_benchmark
from vostrack.benchmark.score import score_folders
from vostrack.cli.variants import parse_variants
from vostrack.errors import DatasetError, MethodError

pytestmark = pytest.mark.usefixtures("fake_weights")
VARIANT = "fake,adapt=clip" + "".join(f",adapt-{key}={value}" for key, value in SMALL.items())


@pytest.fixture(autouse=True)
def small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_net(monkeypatch)


def curves_of(data: Path, out: Path, text: str = VARIANT, every: int = 2) -> list[LearningCurve]:
    return run_adaptation_curves(open_dataset("davis16", data), parse_variants([text])[0], out, every)


def test_each_point_is_what_a_run_of_as_many_steps_scores(tmp_path: Path) -> None:
    data, out = trees.davis16(tmp_path / "davis"), tmp_path / "out"
    curves = curves_of(data, tmp_path / "curves")
    assert [curve.sequence for curve in curves] == ["cat", "dog", "mean"]
    assert {curve.steps for curve in curves} == {(2, 4)}
    short, whole, plain = parse_variants([VARIANT.replace("iterations=4", "iterations=2"), VARIANT, "fake"])
    report = run_benchmark(open_dataset("davis16", data), [short, whole, plain], out)["variants"]
    for position, curve in enumerate(curves[:-1]):
        values = [report[v.name]["sequences"][curve.sequence]["J&F"] for v in (short, whole, plain)]
        assert [*curve.adapted, curve.alone] == pytest.approx(values)
        agreement = score_folders(out / whole.name / "Annotations", out / plain.name / "Annotations")
        assert curve.agreement[-1] == pytest.approx(
            (agreement.objects[position].values["J_mean"] + agreement.objects[position].values["F_mean"]) / 2
        )


def test_the_truth_is_not_learned_from(tmp_path: Path) -> None:
    data = trees.davis16(tmp_path / "davis", names=("cat",))
    (before,) = curves_of(data, tmp_path / "before")
    for index in range(1, 6):
        trees.mask(data / "Annotations" / "480p" / "cat" / f"{index:05d}.png", 0, (2,), binary=True)
    (after,) = curves_of(data, tmp_path / "after")
    assert after.agreement == before.agreement
    assert after.adapted != before.adapted
    assert after.alone < before.alone


def test_mean_and_best() -> None:
    first = LearningCurve("a", 0.5, (10, 20, 30), (0.2, 0.8, 0.8), (0.3, 0.4, 0.9))
    second = LearningCurve("b", 0.7, (10, 20, 30), (0.6, 0.4, 0.2), (0.5, 0.6, 0.7))
    assert first.best == (0.8, 20)
    mean = mean_curve([first, second])
    assert mean.alone == pytest.approx(0.6)
    assert mean.adapted == pytest.approx((0.4, 0.6, 0.5))
    assert mean.agreement == pytest.approx((0.4, 0.5, 0.8))
    assert mean.best[1] == 20


@pytest.mark.parametrize("text", ["fake", "fake,adapt=live", "fake,adapt=clip,refine=crf"])
def test_only_an_adaptation_in_two_passes_has_steps(text: str, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="adapt=clip"):
        curves_of(trees.davis16(tmp_path / "davis"), tmp_path / "out", text)
    assert not (tmp_path / "out").exists()


def test_no_truth_and_too_few_steps_are_refused(tmp_path: Path) -> None:
    (variant,) = parse_variants([VARIANT])
    with pytest.raises(DatasetError, match="no true masks"):
        run_adaptation_curves(open_dataset("ytvos18", trees.ytvos(tmp_path / "ytvos")), variant, tmp_path / "out")
    with pytest.raises(MethodError, match="1 to 4 steps, not every 5"):
        curves_of(trees.davis16(tmp_path / "davis"), tmp_path / "out", every=5)


def test_command_prints_a_table_and_writes_a_page_of_its_own(tmp_path: Path) -> None:
    data, out = trees.davis16(tmp_path / "davis", names=("cat", "<i>")), tmp_path / "out"
    options = ["--root", str(data), "--allow-subset", "--method", VARIANT, "--every", "1", "--out", str(out)]
    result = CliRunner().invoke(cli.app, ["benchmark", "adaptation", "davis16", *options])
    assert result.exit_code == 0, result.output
    assert "after 4" in result.stdout
    figures = json.loads((out / "adaptation.json").read_text())
    assert [curve["sequence"] for curve in figures["curves"]] == ["cat", "<i>", "mean"]
    page = (out / "adaptation.html").read_text()
    assert page.count("<polyline") == 9
    assert page.count("<img") == 2 * (1 + 4)
    assert "<i>" not in page
    printed = CliRunner().invoke(cli.app, ["benchmark", "adaptation", "davis16", *options, "--json"])
    assert json.loads(printed.stdout) == figures["curves"]
