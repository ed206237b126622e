from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from vostrack.notes import Code, Note
from vostrack.run.segment import with_names
from vostrack.run.signs import FrameSigns, Sign
from vostrack.run.summary import ObjectLog, doubts, peak_rss_mb
from vostrack.types import Frame, LabelMap, Prediction


def log(areas: Mapping[int, Sequence[int | None]], followed: ObjectLog | None = None) -> ObjectLog:
    """A log of objects with these areas, frame by frame; None before the object is known."""
    followed = followed or ObjectLog()
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
    hidden = "object 2 has no mask from frame 1 to frame 2, and one again from frame 3 on"
    assert list(log({2: [3, 0, 0, 3, 3]}).notes()) == [hidden]
    assert list(log({2: [3, 0, 3]}).notes()) == ["object 2 has no mask in frame 1, and one again from frame 2 on"]
    lines = list(log({2: [3, 0] * 8 + [1]}).notes())
    assert len(lines) == 6
    assert lines[-1] == "object 2 has no mask 3 more times"


def test_an_object_that_comes_back_after_it_was_said_to_be_gone_is_noted() -> None:
    areas = {2: [3, 0, 0, 3, 3, 0, 0, 3], 1: [0, 0, 1, 1, 1, 1, 1, 1]}
    gone = {2: [(1, 2), (5, 6)], 1: [(0, 1)]}
    (note,) = log(areas, ObjectLog(gone, given=[7])).notes()
    assert (note.code, note) == (
        Code.OBJECT_BACK,
        "object 2 came back at frame 3, after frames in which it was said to be gone",
    )
    (note,) = log({2: [3, 0, 0, 3]}, ObjectLog({2: [(1, 1)]})).notes()
    assert note == "object 2 has no mask in frame 2, and one again from frame 3 on"


def test_notes_say_what_objects_are_called() -> None:
    note = with_names(Note(Code.OBJECT_SWAPPED, "object 2 may have swapped with object 12 at frame 3"), {2: "dog\n"})
    assert note == "object 2 (dog\\n) may have swapped with object 12 at frame 3"
    assert note.code is Code.OBJECT_SWAPPED


def test_an_object_that_was_never_there_has_no_frames() -> None:
    followed = log({2: [0, 0]})
    assert followed.objects()["2"]["first_frame"] is None
    assert followed.objects()["2"]["mean_area"] == 0.0
    assert list(followed.notes()) == []


def seen(frame: int, **objects: Sign) -> FrameSigns:
    return FrameSigns(frame, 0.0, {int(number[1:]): sign for number, sign in objects.items()})


def still(**changes: Any) -> Sign:
    return replace(Sign(100, 0.01, 0.5, 0.5, 0.05, 3.0, 0.9, 1), **changes)


def doubted(*frames: FrameSigns, given: int = 0, cuts: Sequence[int] = ()) -> list[tuple[str, str]]:
    prompts = {given: LabelMap(torch.zeros(4, 4, dtype=torch.uint8), (1, 2))}
    return [(str(note.code), str(note)) for note in doubts(frames, prompts, cuts)]


def test_an_object_that_floods_the_frame_is_reported_once() -> None:
    flood = still(area=900, share=0.5)
    assert doubted(seen(0, _1=still()), seen(1, _1=still()), seen(2, _1=flood), seen(3, _1=flood)) == [
        ("object-flooded", "object 1 floods the frame at frame 2: 9 times its given mask")
    ]
    large = still(area=900, share=0.1)
    assert not doubted(seen(0, _1=still()), seen(1, _1=still()), seen(2, _1=large))


def test_an_object_that_jumps_is_reported_unless_there_is_a_reason() -> None:
    frames = [seen(frame, _1=still(x=0.5 + 0.4 * (frame > 2), kept=0.0 if frame == 3 else 0.9)) for frame in range(6)]
    assert doubted(*frames) == [("object-jumped", "object 1 jumped at frame 3, by 40% of the frame's short side")]
    assert not doubted(*frames, cuts=[3])
    assert not doubted(*frames, given=3)
    moved = [seen(frame, _1=still(x=0.5 + 0.1 * frame, kept=0.05)) for frame in range(4)]
    assert not doubted(*moved)  # it is fast, but no farther than its own size


def test_an_object_that_is_where_another_one_was_is_reported() -> None:
    swapped = seen(2, _1=still(was=2, kept=0.0), _2=still(was=1, kept=0.0))
    assert [text for _, text in doubted(seen(0, _1=still(), _2=still()), seen(1, _1=still(), _2=still()), swapped)] == [
        "object 1 may have swapped with object 2 at frame 2",
        "object 2 may have swapped with object 1 at frame 2",
    ]


def test_peak_memory_is_that_of_this_process_in_mebibytes() -> None:
    before = peak_rss_mb()
    assert before is not None
    assert 20 < before < 100_000
