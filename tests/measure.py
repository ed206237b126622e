"""Accuracy and speed over a folder laid out like DAVIS; the figures in docs/benchmarks.md come from here.

    python -m tests.measure DAVIS --method anchors --size 240 --jobs 2
    python -m tests.measure DAVIS --method anchors --size 240 --jobs 2 --random

`DAVIS` holds `JPEGImages/480p/SEQ` and `Annotations/480p/SEQ`. `--random` takes the method's network as it is
initialised with seed 0 instead of trained weights. Each job is a process with `--threads` threads.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from vostrack.benchmark.datasets.mask_folders import read_mask as read_truth
from vostrack.benchmark.score import Scores, SequenceScorer
from vostrack.cli.settings import parse_settings
from vostrack.methods import build_net, configure, load_method, method_class
from vostrack.methods.base import Method
from vostrack.nets.fusion import for_inference
from vostrack.propagate import Propagator
from vostrack.types import Clip
from vostrack.video.masks import read_prompts
from vostrack.video.reader import open_clip


def load(options: argparse.Namespace) -> Method[Any]:
    changes = parse_settings(options.set, configure(options.method, options.preset), options.method, "--set")
    if not options.random:
        return load_method(options.method, weights=options.weights, preset=options.preset, settings=changes)[0]
    torch.manual_seed(0)
    factory = method_class(options.method)
    return factory(for_inference(build_net(options.method)), configure(options.method, options.preset, changes))


def measure(options: argparse.Namespace, sequence: str) -> tuple[list[Any], float, int]:
    """Scores of the objects, seconds of the model, frames."""
    torch.set_num_threads(options.threads)
    truths = options.root / "Annotations" / options.truth / sequence
    masks = sorted(truths.glob("*.png"))[: options.limit]
    engine = Propagator(load(options), options.size or None)
    scorer, seconds = SequenceScorer(sequence), 0.0
    with open_clip(options.root / "JPEGImages" / "480p" / sequence) as clip:
        prompts, _ = read_prompts([str(masks[0])], clip.size)
        predictions = engine.run(Clip(clip, prompts))
        for path in masks:
            start = time.perf_counter()
            prediction = next(predictions)
            seconds += time.perf_counter() - start
            scorer.add(prediction.labels.pixels.numpy(), read_truth(path), path.stem)
    return scorer.finish(), seconds, len(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--method", default="anchors")
    parser.add_argument("--weights")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--size", type=int, default=240, help="0 for full")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--sequences", nargs="*")
    parser.add_argument("--limit", type=int, help="only the first so many frames of each sequence")
    parser.add_argument("--truth", default="480p", help="folder below Annotations")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.sequences or sorted(path.name for path in (options.root / "JPEGImages" / "480p").iterdir())
    objects, seconds, frames = [], 0.0, 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for scores, took, count in pool.map(measure, [options] * len(names), names):
            objects += scores
            seconds, frames = seconds + took, frames + count
            for score in scores:
                row = score.values()
                print(f"| {score.name} | {row['J_mean']:.3f} | {row['F_mean']:.3f} | {took / count:.2f} |", flush=True)
    scores = Scores(objects, False)
    total = scores.total()
    print(f"| mean | {total['J_mean']:.3f} | {total['F_mean']:.3f} | {seconds / frames:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({**scores.to_json(), "seconds_per_frame": seconds / frames}, indent=1))


if __name__ == "__main__":
    main()
