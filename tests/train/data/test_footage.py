"""Which of the footage is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from vostrack.errors import DatasetError
from vostrack.train.data.footage import Source, drawn

SOURCES = [Source(Path(f"{number}.mp4")) for number in range(20)]


def test_a_seed_draws_the_same_clips_in_their_order_and_another_seed_others() -> None:
    """As for training with 100 videos (Zhu et al., section 4.4)."""
    chosen = [drawn(SOURCES, 5, seed) for seed in range(100)]
    assert chosen[3] == drawn(SOURCES, 5, 3)
    assert all(sorted(some, key=SOURCES.index) == some and len(set(some)) == 5 for some in chosen)
    assert {source for some in chosen for source in some} == set(SOURCES)
    assert drawn(SOURCES, 20, 0) == SOURCES


def test_more_clips_than_there_are_are_refused() -> None:
    with pytest.raises(DatasetError, match="there are 20 clips and images, and `clips` asks for 21"):
        drawn(SOURCES, 21, 0)
