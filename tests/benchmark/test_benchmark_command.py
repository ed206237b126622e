"""`vostrack benchmark`: processes, kills and interruptions, tables."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests import fakes
from tests.benchmark import trees
from tests.benchmark.runs import FAKE, davis, files
from vostrack import cli
from vostrack.benchmark.runner import run_benchmark
from vostrack.cli.benchmark_tables import print_results
from vostrack.errors import VostrackError

pytestmark = pytest.mark.usefixtures("fake_weights")


@pytest.mark.slow
def test_errors_come_out_of_processes_and_end_them(tmp_path: Path) -> None:
    dataset = davis(tmp_path)
    (dataset.root / "JPEGImages" / "480p" / "dog" / "00003.jpg").write_bytes(b"no image")
    with pytest.raises(VostrackError, match=r"dog.*00003\.jpg"):
        run_benchmark(dataset, FAKE, tmp_path / "out", jobs=2)
    assert not [process for process in multiprocessing.active_children() if "Spawn" in process.name]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_run_goes_on_to_the_same_bytes(jobs: int, tmp_path: Path) -> None:
    dataset = davis(tmp_path, names=("cat", "dog", "emu"), count=12)
    whole, out, log = tmp_path / "whole", tmp_path / "out", tmp_path / "log"
    arguments = ["benchmark", "davis17", "--root", dataset.root, "--method", "fake", "--jobs", jobs, "--out", out]
    run_benchmark(dataset, FAKE, whole, floor=True)
    # The third sequence of 11 frames to predict, at least for one of two processes.
    process = fakes.start(arguments, log, hold=28 if jobs == 1 else 16)
    assert fakes.held(process, log)
    process.kill()
    # A process of the pool that went on would write beside those of the next run.
    assert fakes.ended(log)
    assert 0 < len(list((out / "fake").rglob("*.png"))) < 36
    assert cli.run([str(argument) for argument in arguments[:-4]] + ["--out", str(out)]) == 0
    there, expected = files(out), files(whole)
    assert there.keys() == expected.keys()
    assert {name for name in there if there[name] != expected[name]} <= {
        "results.json",
        "fake/results.json",
        "copy/results.json",
    }
    reports = [json.loads(data) for data in (there["results.json"], expected["results.json"])]
    assert reports[0] == reports[1]
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_without_a_terminal_says_what_it_begins_and_how_to_go_on(number: int, tmp_path: Path) -> None:
    dataset, out, log = davis(tmp_path, count=24), tmp_path / "out", tmp_path / "log"
    arguments = ["benchmark", "davis17", "--root", dataset.root, "--method", "fake", "--out", out]
    process = fakes.start(arguments, log, hold=5)
    assert fakes.held(process, log)
    os.kill(process.pid or 0, number)
    began = f"benchmark: fake over DAVIS-2017, 2 sequences; results go to {out}"
    assert fakes.finish(process, log) == (128 + number, "", f"{began}\nstopped: go on with the same command\n")


def test_many_variants_have_a_row_each_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"anchors-paper-adapt-crf-{number:08x}" for number in range(20)]
    row = {"J&F": 0.5, "J_mean": 0.4567, "F_decay": -0.1}
    variant = {"total": row, "sequences": {"dog": row, "cat": row}, "settings": {"weights": {"sha256": None}}}
    about = {"title": "DAVIS-2017", "split": "val", "distance": None, "subset": None, "submission": False}
    seconds = {"seconds_per_frame": {"model": 0.5, "adapt": 0.0, "total": 0.75}}
    report = {
        "dataset": about | {"sequences": ["dog", "cat"]},
        "variants": dict.fromkeys(names, variant),
        "timing": {"variants": dict.fromkeys(names, seconds)},
    }
    print_results(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in names:
        (line,) = (line for line in lines if name in line)
        assert line.split()[1:] == ["0.5000", "0.4567", "-0.1000", "0.7500"]
    print_results(report | {"variants": {names[0]: variant}, "timing": {"variants": {names[0]: seconds}}})
    assert "cat" in capsys.readouterr().out, "a few have a column each, and a row a sequence"


def command(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["benchmark", *map(str, arguments)])


def test_command_prints_a_table(tmp_path: Path) -> None:
    root = davis(tmp_path).root
    out = tmp_path / "out"
    run = command("davis17", "--root", root, "--method", "fake", "--method", "fake:slow", "--out", out)
    assert run.exit_code == 0, run.output
    text = " ".join(run.stdout.split())
    assert "DAVIS-2017 val, subset of 2 of 30" in text
    assert "fake-slow" in text
    assert "adapt s/frame" not in run.output, "nothing was spent on it"
    for word in ("cat", "J&F", "J mean", "F decay", "model s/frame", "weights fake-1"):
        assert word in text
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["object"] for row in rows] == ["cat_1", "cat_2", "dog_1", "dog_2"] * 3
    assert {row["variant"] for row in rows} == {"fake", "fake-slow", "copy"}


def test_command_chooses_sequences_and_prints_json(tmp_path: Path) -> None:
    root = davis(tmp_path).root
    run = command("--root", root, "davis17", "--method", "fake", "--sequences", "dog", "-o", tmp_path / "o", "--json")
    report = json.loads(run.stdout)
    assert report["dataset"]["sequences"] == ["dog"]
    assert report["variants"]["fake"]["settings"]["size"] == 480


def test_submission_has_a_table_without_scores(tmp_path: Path) -> None:
    run = command("ytvos18", "--root", trees.ytvos(tmp_path / "data"), "--method", "fake", "-o", tmp_path / "out")
    assert run.exit_code == 0, run.output
    assert "not scored: no masks but the given ones" in " ".join(run.stdout.split())


def test_wrong_roots_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["benchmark", "davis16", "--root", str(tmp_path / "no"), "--method", "fake"]) == 5
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "expected JPEGImages/480p/SEQUENCE" in errors


def test_the_command_says_what_to_do_with_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, out = davis(tmp_path, count=3), tmp_path / "out"
    command = ["benchmark", "davis17", "--root", str(dataset.root), "--out", str(out), "--method", "fake"]
    assert cli.run(command) == 0
    assert f"next: open {out / 'report.html'}; the same command with another --method" in capsys.readouterr().err
    assert cli.run([*command, "--method", "fake:slow"]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("next: is the difference more than noise? vostrack benchmark compare ")
    assert cli.run(line.split("vostrack ")[1].split()) == 0
