"""Comparison of results: changes by sequence, and an interval that tells noise from gain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vostrack import cli
from vostrack.benchmark.compare import compare, interval
from vostrack.benchmark.results import FORMAT
from vostrack.errors import InputError


def results(folder: Path, values: Mapping[str, float], variants: int = 1, name: str = "v", **dataset: Any) -> Path:
    """A folder with results of these J&F, or of these error rates where there is a distance."""
    jump = dataset.get("distance") is not None
    rows = {name: {"error": value} if jump else {"J_mean": value, "F_mean": value} for name, value in values.items()}
    report = {
        "format": FORMAT,
        "dataset": {
            "name": "davis16",
            "split": "val",
            "distance": None,
            "subset": f"subset of {len(values)} of 20",
            "sequences": list(values),
            **dataset,
        },
        "variants": {f"{name}{index}": {"sequences": rows} for index in range(variants)},
    }
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(report))
    return folder


BEFORE = {f"s{index:02d}": 0.5 + 0.02 * index for index in range(13)}


def shifted(scale: float, offset: float) -> dict[str, float]:
    noise = np.random.default_rng(1).normal(0, 1, len(BEFORE))
    return {name: value + offset + scale * float(n) for (name, value), n in zip(BEFORE.items(), noise, strict=True)}


def test_gain_is_told_from_noise(tmp_path: Path) -> None:
    before = results(tmp_path / "before", BEFORE)
    gain = compare(before, results(tmp_path / "gain", shifted(0.01, 0.05)))
    assert (gain.verdict, gain.figure, gain.subset) == ("better", "J&F", "subset of 13 of 20")
    assert 0 < gain.low < gain.mean < gain.high
    assert [row.change for row in gain.differences] == sorted(row.change for row in gain.differences)
    noise = compare(before, results(tmp_path / "noise", shifted(0.1, 0.0)))
    assert noise.low < 0 < noise.high
    assert noise.verdict.startswith("no difference")
    loss = compare(tmp_path / "gain" / "results.json", before)
    assert loss.verdict == "worse"
    assert (loss.mean, loss.low, loss.high) == pytest.approx((-gain.mean, -gain.high, -gain.low), abs=2e-3)


def test_two_methods_are_not_before_and_after(tmp_path: Path) -> None:
    one, other = results(tmp_path / "a", BEFORE, name="a"), results(tmp_path / "b", shifted(0.01, 0.05), name="b")
    found = compare(one, other)
    assert (found.names, found.verdict) == (("a0", "b0"), "b0 is better than a0")
    assert compare(other, one).verdict == "a0 is worse than b0"
    assert compare(one, one).names == ("before", "after")
    for text in (run_compare(one, other), json.dumps(compare(one, other).to_json())):
        assert "before" not in text
        assert "after" not in text
    assert "b0 against a0: 13 better, 0 worse, 0 the same" in run_compare(one, other)


def run_compare(one: Path, other: Path) -> str:
    run = CliRunner().invoke(cli.app, ["benchmark", "compare", str(one), str(other)])
    assert run.exit_code == 0, run.output
    return " ".join(run.stdout.split())


def test_less_error_is_better(tmp_path: Path) -> None:
    before = results(tmp_path / "a", BEFORE, distance=16)
    after = results(tmp_path / "b", shifted(0.01, -0.05), distance=16)
    found = compare(before, after)
    assert (found.verdict, found.figure) == ("better", "error")
    assert found.mean < 0
    assert found.differences[0].change == max(row.change for row in found.differences)


def test_pairs_stay_together() -> None:
    """The spread between sequences is no spread of the difference."""
    low, high = interval([0.01] * 9)
    assert (low, high) == pytest.approx((0.01, 0.01))


def test_interval_is_that_of_the_mean() -> None:
    changes = np.random.default_rng(3).normal(0.1, 1, 200).tolist()
    low, high = interval(changes)
    half = 1.96 * np.std(changes) / np.sqrt(200)
    assert (low, high) == pytest.approx((np.mean(changes) - half, np.mean(changes) + half), abs=0.02)
    assert interval(changes) == (low, high)


def test_one_sequence_shows_nothing(tmp_path: Path) -> None:
    found = compare(results(tmp_path / "a", {"dog": 0.1}), results(tmp_path / "b", {"dog": 0.9}))
    assert found.verdict == "fewer than 6 sequences cannot tell"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["low"] is None


def test_common_sequences_are_compared_and_the_others_named(tmp_path: Path) -> None:
    first = results(tmp_path / "a", {"cat": 0.5, "dog": 0.5, "emu": 0.5})
    second = results(tmp_path / "b", {"dog": 0.6, "emu": 0.7, "fox": 0.1})
    found = compare(first, second)
    assert [row.sequence for row in found.differences] == ["dog", "emu"]
    assert found.left_out == ("cat", "fox")
    assert found.subset == "subset of 2 of 20"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dataset": {"split": "train"}}, "different datasets: split is val and train"),
        ({"values": {"x": 0.5}}, "no scored sequence in common"),
        ({"variants": 2}, r"holds 2 variants: choose one of .*b/v0, .*b/v1"),
        ({"text": "{"}, "cannot read results"),
        ({"text": "[]"}, "was not written by"),
        ({"text": "{}"}, "not written by `vostrack benchmark`"),
        ({"text": json.dumps({"format": FORMAT, "dataset": {}})}, "is damaged"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    first = results(tmp_path / "a", {"dog": 0.5})
    second = results(
        tmp_path / "b", other.get("values", {"dog": 0.5}), other.get("variants", 1), **other.get("dataset", {})
    )
    if "text" in other:
        (second / "results.json").write_text(other["text"])
    with pytest.raises(InputError, match=message):
        compare(first, second)


def test_results_that_are_not_there_come_with_a_similar_name(tmp_path: Path) -> None:
    first = results(tmp_path / "mast-mem", BEFORE)
    with pytest.raises(InputError, match=r"there are no results in .*mastmem; did you mean .*mast-mem\?$"):
        compare(first, tmp_path / "mastmem")
    with pytest.raises(InputError, match=r"there are no results in [^ ]*: it has no results.json$"):
        compare(first, tmp_path)


def test_command_shows_changes_and_the_interval(tmp_path: Path) -> None:
    first, second = results(tmp_path / "a", BEFORE), results(tmp_path / "b", shifted(0.01, 0.05) | {"s00": 0.1})
    run = CliRunner().invoke(cli.app, ["benchmark", "compare", str(first), str(second)])
    assert run.exit_code == 0, run.output
    text = " ".join(run.stdout.split())
    assert "subset of 13 of 20" in text
    assert "12 better, 1 worse, 0 the same" in text
    assert "95 % interval" in text
    run = CliRunner().invoke(cli.app, ["benchmark", "compare", str(first), str(second), "--json"])
    assert json.loads(run.stdout)["differences"][0]["sequence"] == "s00"


@pytest.mark.parametrize(
    "change",
    [
        ("0.5", "9" * 400),
        ("0.5", "9" * 5000),
        ("0.5", "1e300"),
        ("0.5", "NaN"),
        ("0.5", "Infinity"),
        ("0.5", '"high"'),
        ("0.5", "[" * 100_000),
        ('"dog"', '"\\ud800"'),
        ('"davis16"', "[]"),
        ('"distance": null', '"distance": {}'),
        ('"subset": "subset of 1 of 20"', '"subset": 3'),
        ('"sequences": ["dog"]', '"sequences": 5'),
        ('"sequences": {"dog"', '"sequences": [], "x": {"dog"'),
    ],
    ids=lambda change: f"{change[1][:20]}",
)
def test_hostile_results_are_one_line(
    change: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = results(tmp_path / "a", {"dog": 0.5}), results(tmp_path / "b", {"dog": 0.5})
    path = second / "results.json"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    for arguments in ((first, second), (second, first), (second, second)):
        assert cli.run(["benchmark", "compare", *map(str, arguments)]) == 5
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert "unexpected" not in line
        assert len(line) < 600


@pytest.mark.parametrize("name", ["[red]a[/red]", "a\x1b[31m", "a\udc80", "[/]", "a\nb"])
def test_names_in_results_are_shown_as_they_are(name: str, tmp_path: Path) -> None:
    first, second = results(tmp_path / "a", {name: 0.5}), results(tmp_path / "b", {name: 0.5, f"{name}x": 0.5})
    run = CliRunner().invoke(cli.app, ["benchmark", "compare", str(first), str(second)])
    assert run.exit_code == 0, run.output
    assert "\x1b" not in run.output
    assert "a" in run.output or name == "[/]"
