"""Figures that the papers of the methods give for whole datasets, with where they stand and what was trained on.

They stand beside our own for orientation and are never mixed with them: data, training sets and networks differ.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a paper's table.

    Attributes:
        dataset: key in `DATASETS`.
        method: as the paper calls it.
        trained_on: with what, and whether with labels.
        source: paper and table.
        values: figures by the names of ours, as shares, error rates in percent; "s/frame" on the paper's GPU.
    """

    dataset: str
    split: str
    method: str
    trained_on: str
    source: str
    values: dict[str, float]


def _means(both: float, region: float, region_recall: float, contour: float, contour_recall: float) -> dict[str, float]:
    pairs = {"J_mean": region, "J_recall": region_recall, "F_mean": contour, "F_recall": contour_recall}
    return {"J&F": both, **pairs}


def _timed(region: float, seconds: float) -> dict[str, float]:
    return {"J_mean": region, "s/frame": seconds}


def _three(both: float, region: float, contour: float) -> dict[str, float]:
    return {"J&F": both, "J_mean": region, "F_mean": contour}


def _seen_and_unseen(overall: float, *parts: float) -> dict[str, float]:
    """Figures of YouTube-VOS's server: of all, then J and F of categories seen and of categories unseen in training."""
    return {"overall": overall} | dict(zip(("J_seen", "F_seen", "J_unseen", "F_unseen"), parts, strict=True))


_RPM = "RPM-Net (2020)"
_MAST = "Self-supervised VOS (2020)"
_DENSE = "Dense Unsupervised Learning (2021)"
_MATCH = "VideoMatch (2018)"
_RPM_DATA = "YouTube-VOS and DAVIS-2016, no labels"
_YOUTUBE = "YouTube-VOS, no labels"
_OXUVA = "OxUvA, no labels"
_TRACKING = "TrackingNet, no labels"
_KINETICS = "Kinetics-400, no labels"
_MINUTES = "100 videos, 11 minutes, no labels"
_IMAGES = "100 images, no labels"
_MEMORY = "momentum memory"
_ADAPTED = f"{_MEMORY} and online adaptation"
_BARE = "VideoMatch without update and outlier removal"
_LABELS_16 = "DAVIS-2016 training set, with labels"
_LABELS_17 = "DAVIS-2017 training set, with labels"


def _rpm_net(
    method: str, region: float, contour: float, segtrack: float, objects: float, seconds: float | None = None
) -> tuple[Published, ...]:
    """A line of Table 2, of Table 4 if that has it too, and of Table 3 of RPM-Net."""
    data = "nothing" if method == _COPY else _RPM_DATA
    table, time = ("Table 4", {"s/frame": seconds}) if seconds else ("Table 2", {})
    return (
        Published("davis17", "val", method, data, f"{_RPM}, {table}", {"J_mean": region, "F_mean": contour} | time),
        Published("segtrack2", "all", method, data, f"{_RPM}, Table 3", {"J_mean": segtrack}),
        Published("youtube-objects", "all", method, data, f"{_RPM}, Table 3", {"J_class_mean": objects}),
    )


_COPY = "copy of the first mask"

PUBLISHED = (
    *_rpm_net(_COPY, 0.221, 0.236, 0.319, 0.542),
    *_rpm_net("RPM-Net with convolutions", 0.317, 0.335, 0.416, 0.552, 0.02),
    *_rpm_net("RPM-Net with dilated convolutions", 0.308, 0.331, 0.418, 0.544),
    *_rpm_net("RPM-Net", 0.357, 0.388, 0.452, 0.562, 0.09),
    *_rpm_net("RPM-Net with CRF", 0.410, 0.422, 0.484, 0.574, 0.55),
    Published("davis17", "val", "pairwise", _YOUTUBE, f"{_MAST}, Table 1", _three(0.604, 0.587, 0.620)),
    Published("davis17", "val", _MEMORY, _YOUTUBE, f"{_MAST}, Table 1", _three(0.682, 0.665, 0.699)),
    *(
        Published("davis17", "val", method, data, f"{_MAST}, Table 3", {"J_mean": region, "F_mean": contour})
        for method, data, region, contour in (
            ("pairwise", _MINUTES, 0.547, 0.578),
            (_MEMORY, _MINUTES, 0.625, 0.655),
            ("pairwise", _IMAGES, 0.537, 0.562),
            (_MEMORY, _IMAGES, 0.600, 0.631),
            (_ADAPTED, _IMAGES, 0.621, 0.645),
        )
    ),
    Published("davis17", "val", _ADAPTED, _YOUTUBE, f"{_MAST}, Table 4", _means(0.707, 0.682, 0.778, 0.731, 0.835)),
    Published("davis17", "val", _ADAPTED, _MINUTES, f"{_MAST}, Table 4", _means(0.654, 0.640, 0.716, 0.667, 0.758)),
    Published(
        "ytvos18", "valid", _ADAPTED, _YOUTUBE, f"{_MAST}, Table 5", _seen_and_unseen(0.673, 0.672, 0.679, 0.632, 0.706)
    ),
    Published("davis17", "val", "anchors", _OXUVA, f"{_DENSE}, Table 1", _means(0.653, 0.634, 0.761, 0.672, 0.797)),
    Published("davis17", "val", "anchors", _YOUTUBE, f"{_DENSE}, Table 1", _means(0.693, 0.671, 0.812, 0.716, 0.849)),
    Published("davis17", "val", "anchors", _TRACKING, f"{_DENSE}, Table 1", _means(0.694, 0.671, 0.809, 0.717, 0.848)),
    Published("davis17", "val", "anchors", _KINETICS, f"{_DENSE}, Table 1", _means(0.687, 0.667, 0.814, 0.707, 0.841)),
    Published("davis17", "val", "random network", "nothing", f"{_DENSE}, Table 1", {"J&F": 0.431}),
    *(
        Published("ytvos18", "valid", "anchors", data, f"{_DENSE}, Table 2", _seen_and_unseen(*figures))
        for data, figures in (
            (_YOUTUBE, (0.699, 0.696, 0.713, 0.650, 0.735)),
            (_KINETICS, (0.706, 0.699, 0.713, 0.665, 0.748)),
            (_TRACKING, (0.707, 0.702, 0.719, 0.663, 0.745)),
        )
    ),
    Published("davis17", "val", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 4", _timed(0.565, 0.35)),
    Published("davis17", "val", "VideoMatch, tuned online", _LABELS_17, f"{_MATCH}, Table 4", _timed(0.614, 2.62)),
    Published("davis16", "val", "VideoMatch", _LABELS_16, f"{_MATCH}, Table 1", _timed(0.810, 0.32)),
    Published("davis16", "val", _BARE, _LABELS_16, f"{_MATCH}, Table 1", _timed(0.792, 0.17)),
    Published("youtube-objects", "all", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 2", {"J_class_mean": 0.797}),
    Published("jumpcut", "all", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 3", {"error": 8.73}),
)


def published(dataset: str, split: str) -> list[Published]:
    """The rows for a split of a dataset."""
    return [row for row in PUBLISHED if (row.dataset, row.split) == (dataset, split)]
