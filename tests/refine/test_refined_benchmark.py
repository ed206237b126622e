"""Refined variants of methods in the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import fakes
from tests.benchmark import trees
from tests.fakes import read_labels
from vostrack.benchmark.datasets.table import open_dataset
from vostrack.benchmark.runner import run_benchmark
from vostrack.cli.variants import parse_variants
from vostrack.errors import MethodError, OutputExistsError
from vostrack.run.pipeline import PipelineConfig

pytestmark = pytest.mark.usefixtures("fake_method")


def test_variants_can_be_refined() -> None:
    plain, other, full = parse_variants(["fake", "fake,refine=crf", "fake:slow,rate=0.2,refine=crf,refine-size=240"])
    assert (plain.pipeline.refine, plain.name) == (None, "fake")
    assert (other.pipeline, other.name) == (PipelineConfig(method="fake", refine="crf"), "fake-crf")
    assert full.pipeline.settings == {"rate": 0.2}
    assert (full.pipeline.refine, full.pipeline.refine_settings) == ("crf", {"size": 240})
    assert full.name.startswith("fake-slow-crf-")
    assert len({fakes.variant(refine="crf", refine_settings={"size": n}).name for n in (1, 2)}) == 2


@pytest.mark.usefixtures("fake_crf")
def test_the_benchmark_refines(tmp_path: Path) -> None:
    dataset = open_dataset("davis16", trees.davis16(tmp_path / "davis"))
    variants = parse_variants(["fake", "fake,refine=crf"])
    report = run_benchmark(dataset, variants, tmp_path / "out")
    assert report["variants"]["fake"]["settings"]["refine"] is None
    assert report["variants"]["fake-crf"]["settings"]["refine"]["name"] == "crf"
    times = {name: row["seconds_per_frame"] for name, row in report["timing"]["variants"].items()}
    assert times["fake"]["refine"] == 0 < times["fake-crf"]["refine"]
    for sequence in dataset.sequences:
        plain, other = (tmp_path / "out" / v.name / "Annotations" / sequence.name for v in variants)
        for index, path in enumerate(sorted(plain.iterdir())):
            before, after = torch.from_numpy(read_labels(path)), torch.from_numpy(read_labels(other / path.name))
            assert torch.equal(after, before if index == 0 else 1 - before)
    again = run_benchmark(dataset, variants, tmp_path / "out")
    assert again["timing"]["variants"]["fake-crf"]["verified"] == [s.name for s in dataset.sequences]
    assert again["variants"] == report["variants"]
    with pytest.raises(MethodError, match="unknown setting of crf"):
        run_benchmark(dataset, parse_variants(["fake,refine=crf,refine-x=1"]), tmp_path / "out")


def test_results_from_before_there_were_refinements_are_not_refused(tmp_path: Path) -> None:
    dataset = open_dataset("davis16", trees.davis16(tmp_path / "davis"))
    run_benchmark(dataset, [fakes.variant()], tmp_path / "out")
    settings = tmp_path / "out" / "fake" / ".vostrack" / "settings"
    kept = json.loads(settings.read_text())
    del kept["refine"]
    settings.write_text(json.dumps(kept))
    run_benchmark(dataset, [fakes.variant()], tmp_path / "out")
    kept["size"] = 77
    settings.write_text(json.dumps(kept))
    with pytest.raises(OutputExistsError, match=r"\(size from 77 to 480\)"):
        run_benchmark(dataset, [fakes.variant()], tmp_path / "out")
