from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vostrack import OutputError
from vostrack.batch.manifest import Manifest, Outline, Shard, failures, latest, manifests
from vostrack.batch.report import Counts, status_of, write_report
from vostrack.batch.task import Result, Status


def ended(name: str, **more: Any) -> Result:
    return Result(name, f"{name}.mp4", **({"status": Status.DONE, "key": "k"} | more))


def batch(folder: Path, *results: Result, shard: Shard | None = None, clips: int = 4, names: str = "") -> Manifest:
    manifest = Manifest(folder, shard)
    with manifest.locked(Outline(clips, names=[*names])):
        for result in results:
            manifest.add(result)
    return manifest


def test_what_needs_a_look_comes_first(tmp_path: Path) -> None:
    low, failed = ended("low", confidence=0.2), ended("failed", status=Status.FAILED, message="why")
    warned = ended("warned", confidence=0.9, warnings=[{"code": "clip-cut", "text": "a cut"}])
    batch(tmp_path, ended("good", confidence=0.9), warned, low, failed)
    assert write_report(tmp_path) == Counts(done=3, failed=1, left=0, warned=1)
    names = [clip["name"] for clip in json.loads((tmp_path / "batch.json").read_text())["clips"]]
    assert names == ["failed", "low", "warned", "good"]


def test_shards_are_taken_together_and_the_latest_end_counts(tmp_path: Path) -> None:
    batch(tmp_path, ended("a", ended=1.0, status=Status.FAILED), ended("b", ended=2.0), shard=Shard(1, 2), clips=3)
    batch(tmp_path, ended("c", ended=3.0), shard=Shard(2, 2), clips=2)
    batch(tmp_path, ended("a", ended=4.0), clips=1)
    results, _ = status_of(tmp_path)
    assert {result.name: result.status for result, _ in results} == dict.fromkeys("abc", Status.DONE)


def test_lists_that_others_have_written(tmp_path: Path) -> None:
    """Nothing in a list is trusted: not its shape, its names, nor what it says."""
    evil = [
        ended("<script>alert(1)</script>", message="\x1b[31m", status=Status.FAILED),
        ended("../../etc", confidence=0.1),
        ended("linked", confidence=0.3),
    ]
    manifest = batch(tmp_path, *evil)
    (tmp_path / "linked").symlink_to("/")
    with (tmp_path / "batch.jsonl").open("a") as file:
        file.write('{"name": 3}\nnot json\n[1]\n{"name": "x", "clip": "x", "key": "", "status": "odd"}\n')
    assert [result.name for result in manifest.results()] == [result.name for result in evil]
    write_report(tmp_path)
    page = (tmp_path / "batch.html").read_text()
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "data:image" not in page
    assert "overlay.mp4" not in page


def test_a_folder_in_the_place_of_a_list_is_said(tmp_path: Path) -> None:
    manifest = batch(tmp_path)
    (tmp_path / "batch.jsonl").mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        list(manifest.results())
    with pytest.raises(OutputError, match="not a regular file"), manifest.locked(Outline(1)):
        pass


def test_the_picture_of_a_clip_is_shown_if_it_is_one(tmp_path: Path) -> None:
    for name in ("good", "odd"):
        (tmp_path / name / ".vostrack").mkdir(parents=True)
        (tmp_path / name / "summary.json").touch()
    Image.new("RGB", (40, 30)).save(tmp_path / "good/.vostrack/worst.jpg")
    (tmp_path / "odd/.vostrack/worst.jpg").write_text("<svg>")
    (tmp_path / "good/overlay.mp4").touch()
    batch(tmp_path, ended("good"), ended("odd"))
    write_report(tmp_path)
    page = (tmp_path / "batch.html").read_text()
    assert page.count("data:image/jpeg") == 1
    assert page.count('href="good/overlay.mp4"') == 1


def test_what_an_update_has_changed_is_read_again(tmp_path: Path) -> None:
    batch(tmp_path, ended("a", confidence=0.2, warnings=[{"code": "clip-cut", "text": "a cut"}]))
    (tmp_path / "a").mkdir()
    summary = {
        "frames": 4,
        "out": "a",
        "method": "best",
        "preset": "fast",
        "outputs": ["masks"],
        "objects": {"1": {"lowest_confidence": 0.8}, "2": {"lowest_confidence": 0.7}},
        "seconds_per_frame": dict.fromkeys(("decode", "model", "adapt", "refine", "write", "total"), 1.0),
        "peak_rss_mb": None,
        "warnings": [],
    }
    (tmp_path / "a/summary.json").write_text(json.dumps(summary))
    write_report(tmp_path)
    (clip,) = json.loads((tmp_path / "batch.json").read_text())["clips"]
    assert (clip["confidence"], clip["warnings"], clip["objects"]) == (0.7, [], 2)
    summary["objects"] = {"1": {"lowest_confidence": "high"}}
    (tmp_path / "a/summary.json").write_text(json.dumps(summary))
    write_report(tmp_path)
    (clip,) = json.loads((tmp_path / "batch.json").read_text())["clips"]
    assert clip["confidence"] == 0.2, "a summary that is damaged changes nothing"


def test_a_clip_whose_results_were_begun_again_is_not_done(tmp_path: Path) -> None:
    batch(tmp_path, ended("a"), ended("b"), clips=2)
    (tmp_path / "a").mkdir()
    assert status_of(tmp_path)[1] == Counts(done=1, failed=0, left=1, warned=0)


def test_clips_that_are_not_in_the_plan_are_told_apart(tmp_path: Path) -> None:
    batch(tmp_path, ended("a", status=Status.FAILED, confidence=0.1), ended("b"), clips=2, names="ab")
    batch(tmp_path, ended("c"), ended("d", status=Status.FAILED, message="why"), clips=4, names="bcde")
    counts = write_report(tmp_path)
    assert counts == Counts(done=2, failed=1, left=1, warned=0, others=1)
    assert str(counts) == "2 clips done, 1 failed, 1 left; 1 more clip here is not in the plan"
    told = json.loads((tmp_path / "batch.json").read_text())["clips"]
    assert [(clip["name"], clip["in_plan"]) for clip in told] == [("d", True), ("b", True), ("c", True), ("a", False)]
    table = (tmp_path / "batch.csv").read_text().splitlines()
    assert [row.rpartition(",")[2] for row in table] == ["in_plan", "yes", "yes", "yes", "no"]
    page = (tmp_path / "batch.html").read_text()
    assert "2 of 4 clips are done" in page
    assert page.count("not in the plan") == 2
    (again,) = (results for _, results in failures(manifests(tmp_path)))
    assert [result.name for result in again] == ["d"]


def test_shards_have_parts_of_one_plan(tmp_path: Path) -> None:
    batch(tmp_path, ended("a"), shard=Shard(1, 2), clips=1, names="a")
    batch(tmp_path, ended("b"), shard=Shard(2, 2), clips=2, names="bc")
    assert status_of(tmp_path)[1] == Counts(done=2, failed=0, left=1, warned=0)


def test_a_folder_without_a_batch(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no batch"):
        manifests(tmp_path)
    (tmp_path / ".batch/all").mkdir(parents=True)
    (tmp_path / ".batch/all/plan.json").write_text("[]")
    with pytest.raises(OutputError, match="holds no batch"):
        status_of(tmp_path)
    assert latest(manifests(tmp_path)) == {}


def test_what_a_killed_report_has_not_finished_goes_with_the_next(tmp_path: Path) -> None:
    batch(tmp_path, ended("dog"))
    left = tmp_path / ".batch/report/.vostrack-1.part"
    left.parent.mkdir()
    left.write_text("{")
    before = {path.name for path in tmp_path.iterdir()}
    write_report(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - before == {"batch.html", "batch.csv", "batch.json"}
    assert not list(left.parent.iterdir())
