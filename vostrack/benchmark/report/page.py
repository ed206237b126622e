"""`report.html`: the results of a benchmark to look at, in one file that needs no network.

Gathers what `report.html.j2` lays out; computes nothing that is not in `results.json` already.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vostrack.benchmark.compare import Comparison, paired
from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, frame_order, read_mask
from vostrack.benchmark.datasets.table import Dataset, titled
from vostrack.benchmark.published import published
from vostrack.benchmark.results import RESULTS, TABLE
from vostrack.benchmark.sequence_run import MASKS, open_frames
from vostrack.errors import OutputError
from vostrack.files import OutputRoot
from vostrack.methods import FLOOR
from vostrack.run.pages import jpeg, jpeg_address, templates
from vostrack.types import VOID
from vostrack.video.drawing import draw_overlay

REPORT = "report.html"
TEMPLATES = templates(__package__)
FOUND, MISSED, TAKEN = (0, 158, 115), (230, 159, 0), (204, 121, 167)
"""Colours of pixels that are right, that lack, and that belong to something else."""

_WIDTH = 360

Frames = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Values by variant, sequence and frame."""


def write_report(out: Path, dataset: Dataset, report: Mapping[str, Any]) -> Path:
    """Write the report of a benchmark.

    Args:
        out: folder of the results; the masks of its variants are read again for the pictures.
        dataset: that was run.
        report: what is in `results.json`.

    Returns:
        The file.

    Raises:
        VostrackError: a frame or a mask cannot be read, or the report cannot be written.
    """
    variants, timing, root = report["variants"], report["timing"], OutputRoot(out)
    main, figure = ("J&F", "J") if dataset.distance is None else ("error", "error")
    papers = published(dataset.name, dataset.split) if dataset.distance in (None, 16) else []
    frames = {name: _by_frame(variant, figure) for name, variant in variants.items()}
    seconds = {name: timing["variants"][name]["seconds_per_frame"]["model"] for name in variants}
    text = TEMPLATES.get_template(f"{REPORT}.j2").render(
        title=titled(dataset.spec.title, dataset.split),
        notes=report["dataset"]["notes"],
        dataset=dataset,
        variants=variants,
        machine=timing["machine"],
        seconds=seconds,
        papers=papers,
        cited=list(dict.fromkeys(key for paper in papers for key in paper.values)),
        main=main,
        figure=figure,
        by_sequence=_by_sequence(root, dataset, variants, main),
        comparisons=_comparisons(dataset, variants, main),
        speed=[(name, math.log10(max(seconds[name], 1e-4)), _value(v["total"], main)) for name, v in variants.items()],
        attributes=_attributes(variants, main),
        curves=[_curves(frames, sequence) for sequence in dataset.sequences],
        worst={
            name: _worst(dataset, root, name, frames[name], figure == "error") if name != FLOOR else []
            for name in variants
        },
        keys=((FOUND, "right"), (MISSED, "missed"), (TAKEN, "wrongly taken")),
        submissions={name: link for name in variants if (link := _link(root, name, "submission.zip"))},
        files=[name for name in (RESULTS, TABLE) if _link(root, name)],
    )
    root.write(REPORT, text.encode(errors="backslashreplace"))
    return out / REPORT


def _link(root: OutputRoot, *parts: str) -> str | None:
    """Address of what lies below the folder of results, from there; None if it is not there or is a link."""
    with contextlib.suppress(OutputError):
        path = root.at(Path(*parts))
        if path.exists():
            return "/".join(quote(part, safe="") for part in parts) + "/" * path.is_dir()
    return None


def _by_sequence(
    root: OutputRoot, dataset: Dataset, variants: Mapping[str, Any], main: str
) -> list[tuple[str, list[float | None], list[str | None]]]:
    """For each sequence its figures, and the addresses of its masks, by variant."""
    return [
        (
            sequence.name,
            [variant["sequences"][sequence.name].get(main) for variant in variants.values()],
            [_link(root, name, MASKS, sequence.name) for name in variants],
        )
        for sequence in dataset.sequences
    ]


def _comparisons(dataset: Dataset, variants: Mapping[str, Any], main: str) -> list[Comparison]:
    """Every two variants but the floor side by side, where they have a sequence in common."""
    figures = {
        name: {key: value for key, row in variant["sequences"].items() if (value := row.get(main)) is not None}
        for name, variant in variants.items()
    }
    return [
        paired((one, other), figures[one], figures[other], main, str(len(dataset.sequences)))
        for one, other in combinations((name for name in variants if name != FLOOR), 2)
        if figures[one].keys() & figures[other].keys()
    ]


def _value(values: Mapping[str, Any], key: str) -> float:
    """A figure; 0 where nothing was scored."""
    return float(values.get(key) or 0.0)


def _attributes(variants: Mapping[str, Any], main: str) -> dict[str, list[float]]:
    """Figures of all variants, by attribute."""
    names = dict.fromkeys(
        key for variant in variants.values() for key, values in variant["attributes"].items() if values
    )
    return {key: [_value(variant["attributes"].get(key, {}), main) for variant in variants.values()] for key in names}


def _by_frame(variant: Mapping[str, Any], figure: str) -> dict[str, dict[str, float]]:
    """Values of frames by sequence and frame, means over the objects that count there."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in variant["objects"]:
        frames = found.setdefault(row["sequence"], {})
        for frame, value in zip(row["curves"]["frames"], row["curves"][figure], strict=True):
            frames.setdefault(frame, []).append(value)
    return {
        sequence: {frame: sum(frames[frame]) / len(frames[frame]) for frame in sorted(frames, key=frame_order)}
        for sequence, frames in found.items()
    }


def _curves(frames: Frames, sequence: Sequence) -> tuple[Sequence, list[tuple[str, Mapping[str, float]]], float]:
    """A sequence, values by frame of each variant, and the topmost value of their plot."""
    lines = [(name, values.get(sequence.name, {})) for name, values in frames.items()]
    return sequence, lines, max([1.0, *(value for _, line in lines for value in line.values())])


def _worst(
    dataset: Dataset, root: OutputRoot, variant: str, values: Mapping[str, Mapping[str, float]], error: bool
) -> list[dict[str, Any]]:
    """The worst frame of each of the six sequences that have the worst ones."""
    found = []
    for sequence in dataset.sequences:
        # Those of an earlier run may be gone by now.
        links = {
            frame: _link(root, variant, MASKS, sequence.name, f"{frame}.png") for frame in values.get(sequence.name, {})
        }
        if frames := [frame for frame, link in links.items() if link]:
            there = values[sequence.name]
            badness, frame = min((-there[frame] if error else there[frame], frame) for frame in frames)
            found.append((badness, frame, sequence, links[frame]))
    return [
        {
            "what": f"{sequence.name}, frame {frame}",
            "value": abs(badness),
            "link": link,
            "pictures": _pictures(sequence, root.path / variant / MASKS / sequence.name, frame),
        }
        for badness, frame, sequence, link in sorted(found, key=lambda row: row[:2])[:6]
    ]


def _pictures(sequence: Sequence, masks: Path, frame: str) -> tuple[str, str]:
    """The truth over a frame, and the errors over the same frame, as addresses for `<img>` that need no network."""
    with open_frames(sequence, [frame]) as stream:
        image = next(given.image for given in stream if given.name == frame).numpy().transpose(1, 2, 0)
    truth = read_labels(sequence.truths[frame], sequence.masks, keep_void=sequence.ignore_void)
    found = read_mask(masks / f"{frame}.png")
    return as_address(draw_overlay(image, truth)), as_address(draw_errors(image, truth, found))


def draw_errors(image: Labels, truth: Labels, found: Labels) -> Labels:
    """A frame, uint8 (H, W, 3), in grey, with what a label map has right, lacks and wrongly takes in colours."""
    drawn = np.repeat(0.45 * image.mean(axis=2, keepdims=True), 3, axis=2)
    objects, right = (truth > 0) & (truth != VOID), truth == found
    for where, color in ((objects & right, FOUND), (objects & ~right, MISSED), ((truth == 0) & (found > 0), TAKEN)):
        drawn[where] += 0.55 * np.asarray(color)
    return drawn.clip(0, 255).astype(np.uint8)


def as_address(pixels: Labels) -> str:
    """A small picture of an image, uint8 (H, W, 3), as an address for `<img>` that needs no network."""
    return jpeg_address(jpeg(pixels, _WIDTH))
