from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vostrack.video.clock import Clock


def times(stamps: list[int | None]) -> list[float]:
    """What a clock of 10 ticks a second and 1 frame a second makes of stamps."""
    clock = Clock(Fraction(1, 10), Fraction(1))
    return [float(clock.read(stamp)) for stamp in stamps]


def test_stamps_that_rise_are_kept_from_the_first_frame_on() -> None:
    assert times([70, 75, 95, 195]) == [0, 0.5, 2.5, 12.5]


def test_the_first_frame_may_have_a_negative_stamp() -> None:
    assert times([-20, -10, 5]) == [0, 1, 2.5]


def test_a_missing_stamp_is_one_frame_after_the_last() -> None:
    assert times([None, None, None]) == [0, 1, 2]
    assert times([100, None, 120]) == [0, 1, 2]


def test_stamps_that_begin_late_continue_from_the_frames_before() -> None:
    assert times([None, None, 5000, 5010]) == [0, 1, 2, 3]


def test_a_repeated_stamp_leaves_those_after_it_as_they_are() -> None:
    assert times([0, 10, 10, 20, 30]) == [0, 1, 1.1, 2, 3]


def test_stamps_that_start_anew_follow_the_last_frame() -> None:
    assert times([0, 10, 20, 0, 10, 20]) == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_time_always_rises(stamps: list[int | None]) -> None:
    clock = Clock(Fraction(1, 90000), Fraction(1001, 30000))
    read = [clock.read(stamp) for stamp in stamps]
    assert read[:1] in ([], [0])
    assert all(before < after for before, after in pairwise(read))
