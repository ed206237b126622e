"""`report.html`: the results of a benchmark to look at, in one file that needs no network.

Gathers what `report.html.j2` lays out; computes nothing that is not in `results.json` already.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, frame_order, read_mask
from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.published import published
from vostrack.benchmark.sequence_run import MASKS, open_frames
from vostrack.files import OutputRoot
from vostrack.types import VOID
from vostrack.video.overlay import draw_overlay

REPORT = "report.html"
TEMPLATES = Environment(
    loader=PackageLoader(__package__, ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
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
    variants, timing = report["variants"], report["timing"]
    main, figure = ("J&F", "J") if dataset.distance is None else ("error", "error")
    frames = {name: _by_frame(variant, figure) for name, variant in variants.items()}
    seconds = {name: timing["variants"][name]["seconds_per_frame"]["model"] for name in variants}
    text = TEMPLATES.get_template(f"{REPORT}.j2").render(
        title=f"{dataset.spec.title} {dataset.split}",
        notes=report["dataset"]["notes"],
        dataset=dataset,
        variants=variants,
        machine=timing["machine"],
        seconds=seconds,
        papers=published(dataset.name, dataset.split) if dataset.distance in (None, 16) else [],
        main=main,
        figure=figure,
        rows=[(s.name, [v["sequences"][s.name].get(main) for v in variants.values()]) for s in dataset.sequences],
        speed=[(name, math.log10(max(seconds[name], 1e-4)), _value(v["total"], main)) for name, v in variants.items()],
        attributes=_attributes(variants, main),
        curves=[_curves(frames, sequence) for sequence in dataset.sequences],
        worst={name: _worst(dataset, out / name / MASKS, frames[name], figure == "error") for name in variants},
        keys=((FOUND, "right"), (MISSED, "missed"), (TAKEN, "wrongly taken")),
    )
    OutputRoot(out).write(REPORT, text.encode())
    return out / REPORT


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
    dataset: Dataset, masks: Path, values: Mapping[str, Mapping[str, float]], error: bool
) -> list[dict[str, Any]]:
    """The worst frame of each of the six sequences that have the worst ones."""
    found = []
    for sequence in dataset.sequences:
        # Those of an earlier run may be gone by now.
        there = values.get(sequence.name, {})
        if frames := {frame: there[frame] for frame in there if (masks / sequence.name / f"{frame}.png").is_file()}:
            badness, frame = min((-value if error else value, frame) for frame, value in frames.items())
            found.append((badness, frame, sequence))
    return [
        {
            "what": f"{sequence.name}, frame {frame}",
            "value": abs(badness),
            "pictures": _pictures(sequence, masks / sequence.name, frame),
        }
        for badness, frame, sequence in sorted(found, key=lambda row: row[:2])[:6]
    ]


def _pictures(sequence: Sequence, masks: Path, frame: str) -> tuple[str, str]:
    """The truth over a frame, and the errors over the same frame, as addresses for `<img>` that need no network."""
    with open_frames(sequence, [frame]) as stream:
        image = next(given.image for given in stream if given.name == frame).numpy().transpose(1, 2, 0)
    truth = read_labels(sequence.truths[frame], sequence.masks, keep_void=sequence.ignore_void)
    found = read_mask(masks / f"{frame}.png")
    return _address(draw_overlay(image, truth)), _address(_errors(image, truth, found))


def _errors(image: Labels, truth: Labels, found: Labels) -> Labels:
    drawn = np.repeat(0.45 * image.mean(axis=2, keepdims=True), 3, axis=2)
    objects, right = (truth > 0) & (truth != VOID), truth == found
    for where, color in ((objects & right, FOUND), (objects & ~right, MISSED), ((truth == 0) & (found > 0), TAKEN)):
        drawn[where] += 0.55 * np.asarray(color)
    return drawn.clip(0, 255).astype(np.uint8)


def _address(pixels: Labels) -> str:
    image = Image.fromarray(pixels)
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
