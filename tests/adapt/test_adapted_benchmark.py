"""Adapted variants of methods in the benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import fakes
from tests.adapt.clips import SMALL
from tests.benchmark import trees
from vostrack.benchmark.datasets.table import Dataset, open_dataset
from vostrack.benchmark.runner import run_benchmark
from vostrack.cli.variants import parse_variants
from vostrack.errors import MethodError
from vostrack.run.pipeline import PipelineConfig
from vostrack.run.segment import segment

pytestmark = pytest.mark.usefixtures("fake_method", "small_adaptation")
OPTIONS = dict(SMALL)
SETTINGS = "".join(f",adapt-{key}={value}" for key, value in SMALL.items())


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset("davis16", trees.davis16(tmp_path / "davis"))


def test_variants_can_be_adapted() -> None:
    texts = ["fake,adapt=clip", "fake,adapt=live", "fake,adapt=clip,refine=crf", "fake,adapt=clip,adapt-preset=paper"]
    variants = parse_variants(texts)
    assert [v.name for v in variants] == ["fake-adapt", "fake-adapt-live", "fake-adapt-crf", "fake-adapt-paper"]
    assert variants[2].pipeline == PipelineConfig(method="fake", adapt="clip", refine="crf")
    (full,) = parse_variants(["fake:slow,rate=0.2,adapt=live,adapt-half-life=9,refine=crf,refine-size=240"])
    config = full.pipeline
    assert config.settings == {"rate": 0.2}
    assert (config.adapt, config.adapt_settings) == ("live", {"half_life": 9.0})
    assert config.refine_settings == {"size": 240}
    assert full.name.startswith("fake-slow-adapt-live-crf-")
    options: tuple[dict[str, Any], ...] = {"adapt_settings": {"size": 240}}, {"refine_settings": {"size": 240}}
    assert len({fakes.variant(adapt="clip", refine="crf", **given).name for given in options}) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("fake_crf")
@pytest.mark.parametrize("form", ["clip", "live"])
def test_the_benchmark_adapts_as_segment_does(form: str, dataset: Dataset, tmp_path: Path) -> None:
    variants = parse_variants([f"fake,adapt={form}{SETTINGS}", f"fake,adapt={form}{SETTINGS},refine=crf"])
    report = run_benchmark(dataset, variants, tmp_path / "out")
    for variant in variants:
        described = report["variants"][variant.name]["settings"]["adapt"]
        assert described.items() >= {"form": form, **SMALL}.items()
        times = report["timing"]["variants"][variant.name]["seconds_per_frame"]
        assert min(times["adapt"], times["model"], times["decode"]) > 0
        assert (times["refine"] > 0) == (variant.pipeline.refine is not None)
        for sequence in dataset.sequences:
            mask = dataset.root / "Annotations" / "480p" / sequence.name / "00000.png"
            segment(
                sequence.source,
                mask,
                tmp_path / "one",
                method="fake",
                adapt=form,
                adapt_settings=OPTIONS,
                refine=variant.pipeline.refine,
                outputs=("masks",),
                overwrite=True,
            )
            for path in sorted((tmp_path / "one" / "masks").iterdir()):
                assert (tmp_path / "out" / variant.name / "Annotations" / sequence.name / path.name).read_bytes() == (
                    path.read_bytes()
                )
    again = run_benchmark(dataset, variants, tmp_path / "out")
    assert again["timing"]["variants"][variants[0].name]["verified"] == [s.name for s in dataset.sequences]
    assert again["variants"] == report["variants"]


def test_only_listed_frames_are_written_but_all_are_learned_from(tmp_path: Path) -> None:
    dataset = open_dataset("ytvos18", trees.ytvos(tmp_path / "yt"))
    (sequence,) = dataset.sequences
    report = run_benchmark(dataset, parse_variants([f"fake,adapt=clip{SETTINGS}", "fake"]), tmp_path / "out")
    frames = {row["frames"] for row in report["timing"]["variants"].values()}
    assert len(frames) == 1
    (folder,) = (path for path in (tmp_path / "out").glob("fake-adapt-*/Annotations/*"))
    listed = {path.name for path in (tmp_path / "out" / "fake" / "Annotations" / sequence.name).iterdir()}
    assert {path.name for path in folder.iterdir()} == listed
    assert len(listed) < frames.pop()


def test_results_of_other_settings_are_not_taken(dataset: Dataset, tmp_path: Path) -> None:
    for words in ("adapt=life", "adapt=clip,adapt-x=1", "adapt-size=64", "adapt=clip,adapt-preset=papr"):
        with pytest.raises(MethodError, match="adaptation"):
            run_benchmark(dataset, parse_variants([f"fake,{words}"]), tmp_path / "out")
    run_benchmark(dataset, [fakes.variant()], tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "fake" / ".vostrack" / "settings").read_text())
    assert kept["adapt"] is None
