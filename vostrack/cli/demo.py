"""`vostrack demo`: makes a clip, segments it and says how well that went, without any footage of the user's."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vostrack.cli.benchmark_tables import print_json
from vostrack.cli.console import FrameBar, Stopped
from vostrack.cli.help import Json, Method, OverlayLabels, OverlayStyle, Overwrite, Weights, in_input, in_output
from vostrack.errors import OutputExistsError
from vostrack.files import OutputRoot, lock_folder, read_json, shown
from vostrack.methods import DEFAULT, registered
from vostrack.video.look import Style

if TYPE_CHECKING:
    from vostrack.benchmark.score import Scores

_PARTS = ("clip.mp4", "first.png", "truth", "result")
_RECORD = Path(".vostrack", "demo.json")
_MOST_FRAMES = 2000


@dataclass(frozen=True)
class _Record:
    """What is kept of a demo: how many frames it has."""

    frames: int


def demo(
    frames: Annotated[int, in_input("--frames", metavar="N", min=3, max=_MOST_FRAMES, help="Length of the clip.")] = 36,
    size: Annotated[int, in_input("--size", metavar="PX", min=48, max=1080, help="Height of the clip.")] = 240,
    out: Annotated[Path, in_output("--out", "-o", metavar="DIR", help="Output folder.")] = Path("vostrack_demo"),
    overlay_style: OverlayStyle = Style.TINT,
    overlay_labels: OverlayLabels = False,
    overwrite: Overwrite = False,
    json: Json = False,
    method: Method = DEFAULT,
    weights: Weights = None,
) -> None:
    """Follow objects through a synthetic clip, and score the result.

    Examples:
        vostrack demo
        vostrack demo --method anchors --out demo_anchors

    The clip and its true masks are made on the spot. It takes about a minute on two CPU cores.
    """
    from vostrack.methods import load_method

    start = time.perf_counter()
    if method in registered():
        _refuse(out, overwrite)
    load_method(method, weights=weights)  # fails, where it does, before anything is written
    try:
        with lock_folder(out):
            _refuse(out, overwrite)  # another demo may have held the lock until now
            look = {"overlay_style": overlay_style, "overlay_labels": overlay_labels}
            report, scores = _run(out, method, weights, frames, size, look)
    except Stopped as stop:
        stop.args = ("start again with the same command",)
        raise
    if json:
        print_json(report)
    else:
        print(_message(out, method, scores, time.perf_counter() - start))


def _run(
    out: Path, method: str, weights: str | None, frames: int, size: int, look: dict[str, Any]
) -> tuple[dict[str, Any], Scores]:
    """Make the clip, segment it and score the masks; a report for `--json` and the scores."""
    from vostrack.benchmark.result_folders import FolderPair
    from vostrack.benchmark.score import Scores, score_folder
    from vostrack.run.segment import segment
    from vostrack.video.synthetic import clip_size, write_clip

    height, width = clip_size(size)
    what = f"making a clip of {frames} frames, {width}x{height}, and following its objects with {method}"
    print(what, file=sys.stderr)
    _begin(out, frames)
    with FrameBar("making the clip") as bar:
        names = [path.name for path in write_clip(out, frames, (height, width), bar.progress)]
    clip, first, truth, result = (out / name for name in _PARTS)
    with FrameBar("following") as bar:
        options = {"method": method, "weights": weights, "size": None, "overwrite": True, **look}
        summary = segment(clip, first, result, callbacks=bar, **options)
    scores = Scores(
        tuple(score_folder(FolderPair("demo", result / "masks", truth, dict(zip(names, names, strict=True))))[0])
    )
    files = {"clip": clip, "first_mask": first, "truth": truth}
    files |= {"masks": result / "masks", "overlay": result / "overlay.mp4"}
    report = {name: str(path) for name, path in files.items()}
    return report | {"synthetic": True, "scores": scores.to_json(), "summary": summary}, scores


def _refuse(out: Path, overwrite: bool) -> None:
    """Raise `OutputExistsError` where results would be replaced unasked; a demo that did not end may be."""
    root = OutputRoot(out)
    unfinished = root.at(_RECORD).exists() and not root.at("result/summary.json").exists()
    there = [name for name in _PARTS if root.at(name).exists()]
    if there and not overwrite and not unfinished:
        raise OutputExistsError(f"{shown(out)} holds {there[0]} already: choose another --out, or --overwrite")


def _begin(out: Path, frames: int) -> None:
    """Clear away the true masks of an earlier demo, which may be more than the new ones, and record this one."""
    root = OutputRoot(out)
    if root.at(_RECORD).exists():
        earlier = 0
        with contextlib.suppress(OSError, ValueError):
            earlier = min(read_json(root.at(_RECORD), _Record).frames, _MOST_FRAMES)
        root.remove("result/summary.json")
        for index in range(earlier):
            root.remove(f"truth/{index:05d}.png")
    root.write_json(_RECORD, {"frames": frames})


def _message(out: Path, method: str, scores: Scores, seconds: float) -> str:
    """What a newcomer should know, in six lines."""
    total = scores.total()
    chosen = "" if method == DEFAULT else f" --method {method}"
    folder = shown(out)
    return (
        f"J&F {total['J&F']:.3f} of 1 (J {total['J_mean']:.3f}, F {total['F_mean']:.3f}), "
        f"{len(scores.objects)} objects, {seconds:.0f} s\n"
        "The clip is synthetic: all works, but this says nothing of the accuracy on real footage.\n"
        f"Look at   {folder}/result/overlay.mp4\n"
        f"Masks     {folder}/result/masks, from {folder}/clip.mp4 and {folder}/first.png; true ones: {folder}/truth\n"
        f"Next      vostrack segment VIDEO.mp4 --mask FIRST.png{chosen}\n"
        f"          (FIRST.png: objects of the first frame, each in a colour of its own, as in {folder}/first.png)"
    )
