from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch

from vostrack.run.summary import ObjectLog, peak_rss_mb
from vostrack.types import Frame, LabelMap, Prediction


def log(areas: Mapping[int, Sequence[int | None]]) -> ObjectLog:
    """A log of objects with these areas, frame by frame; None before the object is known."""
    followed = ObjectLog()
    for index in range(len(next(iter(areas.values())))):
        pixels = torch.zeros(20, 20, dtype=torch.uint8)
        ids = tuple(object_id for object_id, sizes in areas.items() if sizes[index] is not None)
        for row, object_id in enumerate(ids):
            pixels[row, : areas[object_id][index]] = object_id
        frame = Frame(index, Fraction(index), torch.zeros(3, 20, 20, dtype=torch.uint8), str(index))
        followed.add(Prediction(frame, LabelMap(pixels, ids)))
    return followed


def test_objects_have_first_and_last_frame_and_areas() -> None:
    found = log({200: [None, 4, 6, 0, 5, 0], 3: [1, 1, 1, 1, 1, 1]}).objects()
    assert list(found) == ["3", "200"]
    assert found["200"] == {
        "first_frame": 1,
        "last_frame": 4,
        "visible_frames": 3,
        "mean_area": 5.0,
        "smallest_area": 4,
        "largest_area": 6,
    }
    assert found["3"]["last_frame"] == 5


def test_an_object_that_vanishes_is_reported() -> None:
    assert list(log({2: [3, 3, 0, 0], 1: [1, 1, 1, 1]}).notes()) == ["object 2 vanished at frame 2"]


def test_times_out_of_sight_are_reported_but_not_without_end() -> None:
    assert list(log({2: [3, 0, 0, 3, 3]}).notes()) == ["object 2 was out of sight from frame 1 to frame 2"]
    assert list(log({2: [3, 0, 3]}).notes()) == ["object 2 was out of sight in frame 1"]
    lines = list(log({2: [3, 0] * 8 + [1]}).notes())
    assert len(lines) == 6
    assert lines[-1] == "object 2 was out of sight 3 more times"


def test_an_object_that_was_never_there_has_no_frames() -> None:
    followed = log({2: [0, 0]})
    assert followed.objects()["2"]["first_frame"] is None
    assert followed.objects()["2"]["mean_area"] == 0.0
    assert list(followed.notes()) == []


def test_peak_memory_is_that_of_this_process_in_mebibytes() -> None:
    before = peak_rss_mb()
    assert before is not None
    assert 20 < before < 100_000
