"""`vostrack speed`: a table in 80 columns, JSON, a preset that fits, and what cannot be timed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import register, write_clip, write_mask
from vostrack.benchmark.speed import Timing
from vostrack.cli import run

PARTS = dict.fromkeys(("decode", "encode", "match", "remember", "enlarge", "write"), 12.3456)


def timings(tasks: Sequence[Any], callbacks: object, seconds: dict[str, float]) -> list[Timing]:
    return [
        Timing(task.pipeline.preset, count, PARTS, seconds[task.pipeline.preset], 12345.6, None)
        for task in tasks
        for count in sorted(set(task.objects))
    ]


@pytest.fixture(autouse=True)
def takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Says how many seconds a frame presets take; nothing is run."""
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 10)
    write_mask(tmp_path / "first.png")

    def say(**seconds: float) -> None:
        monkeypatch.setattr("vostrack.benchmark.speed.time_presets", partial(timings, seconds=seconds))

    say(fast=30, balanced=90, accurate=120, default=1, slow=100)
    return say


CLIP = ["speed", "clip.mp4", "--mask", "first.png"]


def test_a_table_in_80_columns_and_the_preset_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CLIP, "--objects", "1,16"]) == 0
    printed, said = capsys.readouterr()
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("clip.mp4: 64x48, 2 objects; best, size 480, ")
    rows = [line.split() for line in lines[3:12]]
    assert [(row[0], row[1]) for row in rows] == [
        (name, count) for name in ("fast", "balanced", "accurate") for count in ("1", "2", "16")
    ]
    assert rows[0][2:] == [*["12.35"] * 6, "30.00", "0.033", "12346"]
    assert rows[6][2:] == [*["12.35"] * 6, "120.00", "0.008", "12346"], "with as many digits as the others"
    text = " ".join(lines[13:])
    assert "All 10 frames, 2 objects: fast 5 min, balanced 15 min, accurate 20 min." in text
    assert "Recommended: fast, the most accurate within 10 min." in text
    assert said.splitlines()[-1] == "next: vostrack segment clip.mp4 --mask first.png --preset fast"


def test_annotations_are_masks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shapes = [
        {"label": name, "points": [[x, 10], [x + 9, 10], [x, 30]], "shape_type": "polygon"}
        for name, x in (("dog", 5), ("cat", 20), ("cow", 40))
    ]
    content = {"shapes": shapes, "imagePath": "00002.jpg", "imageHeight": 48, "imageWidth": 64}
    (tmp_path / "00002.json").write_text(json.dumps(content))
    assert run(["speed", "clip.mp4", "--mask", "00002.json"]) == 0
    assert "64x48, 3 objects" in capsys.readouterr().out


def test_where_none_fits_the_quickest_and_a_smaller_size_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CLIP, "--minutes", "4"]) == 0
    printed, said = capsys.readouterr()
    assert "None is done within 4 min." in " ".join(printed.splitlines())
    assert said.splitlines()[-1].endswith("--preset fast --size 240")


def test_presets_of_another_method_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CLIP, "--method", "fake", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {each["preset"] for each in report["timings"]} == {"default"}, "it has none of the others"
    assert [each["objects"] for each in report["timings"]] == [1, 2, 4, 16]
    assert report["timings"][0].items() >= {"seconds": 1, "fps": 1, "peak_rss_mb": 12345.6, "peak_gpu_mb": None}.items()
    assert (report["frames"], report["frame_size"], report["method"]) == (10, [48, 64], "fake")
    assert report["estimate"] == {"frames": 10, "seconds": {"default": 10}}
    assert report["recommended"] == "default"
    assert run([*CLIP, "--method", "fake", "--preset", "default", "--preset", "slow", "--size", "96"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("--preset default --method fake --size 96")


def test_without_a_clip_that_of_the_demo_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["speed", "--size", "48", "--frames", "1", "--objects", "4"]) == 0
    printed, said = capsys.readouterr()
    assert printed.startswith("clip of the demo: 86x48, 1 object;")
    assert "\n300 frames, 1 object: fast 2.5 h" in printed
    assert "vostrack segment VIDEO.mp4 --mask FIRST.png --preset fast" in said


def test_a_device_is_timed_at_each_size_and_in_both_precisions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[tuple[Any, ...]]()

    def note(tasks: Sequence[Any], callbacks: object) -> list[Timing]:
        asked.extend((t.pipeline.settings["precision"], t.pipeline.size, t.mask.size, t.objects) for t in tasks)
        return timings(tasks, callbacks, {"fast": 1, "balanced": 2, "accurate": 4})

    monkeypatch.setattr("vostrack.benchmark.speed.time_presets", note)
    command = ["speed", "device", "--sizes", "48,64", "--objects", "1,3", "--frames", "1", "--device", "cpu"]
    assert run([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.items() >= {"method": "best", "device": "cpu", "gpu": None, "timed_frames": 1}.items()
    rows = [(row["size"], row["precision"], row["preset"], row["objects"]) for row in report["timings"]]
    names = ("fast", "balanced", "accurate")
    sizes = ([48, 86], [64, 114])
    assert rows == [(s, p, n, k) for s in sizes for p in ("32", "auto") for n in names for k in (1, 3)]
    assert asked == [(p, None, tuple(s), (1, 3)) for s in sizes for p in ("32", "auto") for _ in names]
    assert run([*command, "--preset", "fast", "--precision", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].split() == ["86x48", "32", "fast", "1", *["12.346"] * 3, "1.000", "1.00", "12346"]
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip.mp4"], "go together"),
        (["--mask", "first.png"], "go together"),
        ([*CLIP[1:], "--objects", "1,none"], "such as 1,4,16"),
        ([*CLIP[1:], "--objects", "0"], "from 1 to 254"),
        ([*CLIP[1:], "--preset", "quickest"], "quickest"),
        (["device", "--sizes", "48,much"], "--sizes: expected a number of pixels"),
        (["device", "--preset", "quickest", "--sizes", "48", "--frames", "1"], "quickest"),
    ],
)
def test_what_cannot_be_timed_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["speed", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_windows_against_all_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "32", "--width", "40", "--channels", "4", "--repeats", "1"]
    assert run(["speed", "dense", *size, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] == 1
    assert run(["speed", "dense", *size]) == 0
    assert "equal labels           100.0000%" in capsys.readouterr().out
