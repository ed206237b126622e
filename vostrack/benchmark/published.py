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
        values: figures by the names of ours, as shares, error rates in percent.
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


_RPM = "RPM-Net (2020)"
_MAST = "Self-supervised VOS (2020)"
_ANCHORS = "Dense Unsupervised Learning (2021)"
_MATCH = "VideoMatch (2018)"
_RPM_DATA = "YouTube-VOS and DAVIS-2016, no labels"
_YOUTUBE = "YouTube-VOS, no labels"
_MINUTES = "100 videos, 11 minutes, no labels"
_ADAPTED = "momentum memory and online adaptation"
_LABELS_16 = "DAVIS-2016 training set, with labels"
_LABELS_17 = "DAVIS-2017 training set, with labels"

PUBLISHED = (
    Published("davis17", "val", "RPM-Net", _RPM_DATA, f"{_RPM}, Table 2", {"J_mean": 0.357, "F_mean": 0.388}),
    Published("davis17", "val", "RPM-Net with CRF", _RPM_DATA, f"{_RPM}, Table 2", {"J_mean": 0.410, "F_mean": 0.422}),
    Published("davis17", "val", _ADAPTED, _YOUTUBE, f"{_MAST}, Table 4", _means(0.707, 0.682, 0.778, 0.731, 0.835)),
    Published("davis17", "val", _ADAPTED, _MINUTES, f"{_MAST}, Table 4", _means(0.654, 0.640, 0.716, 0.667, 0.758)),
    Published("davis17", "val", "anchors", _YOUTUBE, f"{_ANCHORS}, Table 1", _means(0.693, 0.671, 0.812, 0.716, 0.849)),
    Published("davis17", "val", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 4", {"J_mean": 0.565}),
    Published("davis17", "val", "VideoMatch, tuned online", _LABELS_17, f"{_MATCH}, Table 4", {"J_mean": 0.614}),
    Published("davis17", "val", "random network", "nothing", f"{_ANCHORS}, Table 1", {"J&F": 0.431}),
    Published("davis16", "val", "VideoMatch", _LABELS_16, f"{_MATCH}, Table 1", {"J_mean": 0.810}),
    Published("davis16", "val", "VideoMatch without update", _LABELS_16, f"{_MATCH}, Table 1", {"J_mean": 0.792}),
    Published("segtrack2", "all", "RPM-Net", _RPM_DATA, f"{_RPM}, Table 3", {"J_mean": 0.452}),
    Published("segtrack2", "all", "RPM-Net with CRF", _RPM_DATA, f"{_RPM}, Table 3", {"J_mean": 0.484}),
    Published("youtube-objects", "all", "RPM-Net", _RPM_DATA, f"{_RPM}, Table 3", {"J_class_mean": 0.562}),
    Published("youtube-objects", "all", "RPM-Net with CRF", _RPM_DATA, f"{_RPM}, Table 3", {"J_class_mean": 0.574}),
    Published("youtube-objects", "all", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 2", {"J_class_mean": 0.797}),
    Published("jumpcut", "all", "VideoMatch", _LABELS_17, f"{_MATCH}, Table 3", {"error": 8.73}),
)


def published(dataset: str, split: str) -> list[Published]:
    """The rows for a split of a dataset."""
    return [row for row in PUBLISHED if (row.dataset, row.split) == (dataset, split)]
