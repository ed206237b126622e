"""Random clips: where they come from in time and space, and that labels are cut as frames are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.train.samples import CPU, write_image, write_labelled
from vostrack.errors import DatasetError
from vostrack.methods.base import Batch, ClipSpec
from vostrack.ops.grid import resize
from vostrack.train.data.batches import choose, cut, pick
from vostrack.train.data.cache import FrameCache, build_cache
from vostrack.train.data.footage import find_labelled, find_stills


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_batch(cache: FrameCache, spec: ClipSpec, count: int, source: torch.Generator) -> Batch:
    return cut(cache, spec, choose(cache, spec, count, source), CPU)


def test_clips_have_the_asked_shape_and_depend_on_the_generator_alone(cache: FrameCache) -> None:
    spec = ClipSpec(frames=3, gap=2, crop=16)
    first, again, other = (random_batch(cache, spec, 4, generator(seed)) for seed in (1, 1, 2))
    assert first.frames.shape == (4, 3, 3, 16, 16)
    assert first.labels is None
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)
    assert first.frames.min() >= 0
    assert first.frames.max() <= 1


def test_any_part_of_a_batch_can_be_cut_alone(cache: FrameCache) -> None:
    spec = ClipSpec(frames=2, gap=2, crop=16)
    crops = choose(cache, spec, 6, generator())
    whole = random_batch(cache, spec, 6, generator()).frames
    assert torch.equal(cut(cache, spec, crops[1::3], CPU).frames, whole[1::3])


def test_frames_of_a_clip_come_in_order_of_time(cache: FrameCache) -> None:
    spec = ClipSpec(frames=4, gap=1, crop=8)
    for seed in range(12):
        clips = random_batch(cache, spec, 1, generator(seed)).frames[0]
        if (clips[0] == clips[0, 0, 0, 0]).all():  # the clip whose brightness is its time
            levels = clips.mean((1, 2, 3))
            assert (levels.diff() > 0).all()
            return
    pytest.fail("the drifting clip was never chosen")


def test_a_clip_shorter_than_asked_repeats_frames(cache: FrameCache) -> None:
    clips = random_batch(cache, ClipSpec(frames=20, gap=3, crop=8), 2, generator()).frames
    assert clips.shape[1] == 20


def test_picks_stay_in_the_clip_and_within_the_gap() -> None:
    source = generator()
    for count, frames, gap in ((17, 5, 4), (9, 5, 4), (5, 5, 4), (3, 5, 4), (1, 3, 2), (2, 2, 100), (50, 3, 100)):
        spec = ClipSpec(frames=frames, gap=gap, crop=8)
        for _ in range(60):
            picks = pick(count, spec, source)
            steps = [later - earlier for earlier, later in pairwise(picks)]
            assert picks[0] >= 0
            assert picks[-1] < count
            assert all((0 if count < frames else 1) <= step <= gap for step in steps)


def test_a_gap_in_frames_of_the_source_is_kept_to_where_there_is_room() -> None:
    source = generator()
    for count, frames, gap, wanted in ((30, 2, 5, 5), (6, 2, 5, 5), (4, 2, 5, 3), (30, 3, 7, 7)):
        spec = ClipSpec(frames=frames, gap=2, source_gap=gap, crop=8)
        picks = [pick(count, spec, source) for _ in range(300)]
        assert {later - earlier for each in picks for earlier, later in pairwise(each)} == {wanted}
        assert {each[0] for each in picks} == set(range(count - wanted * (frames - 1)))


def test_whole_frames_are_squeezed_and_never_mirrored(cache: FrameCache) -> None:
    spec = ClipSpec(frames=2, gap=1, crop=16, whole=True)
    for seed in range(12):
        (crop,) = crops = choose(cache, spec, 1, generator(seed))
        found = cut(cache, spec, crops, CPU).frames[0]
        whole = cache.frames(crop.clip, crop.indices).float() / 255
        torch.testing.assert_close(found, resize(whole, (16, 16), antialias=True))


def test_a_gap_beyond_the_clip_means_any_distance() -> None:
    source, spec = generator(), ClipSpec(frames=2, gap=100, crop=8)
    pairs = [pick(5, spec, source) for _ in range(4000)]
    counts = torch.bincount(torch.tensor([second - first for first, second in pairs]), minlength=6)
    assert counts[0] == counts[5] == 0
    assert (counts[1:5] - 1000).abs().max() < 150
    starts = torch.bincount(torch.tensor([first for first, second in pairs if second == first + 1]), minlength=4)
    assert (starts - counts[1] / 4).abs().max() < 75


# --- labels ---


@pytest.fixture
def labelled(tmp_path: Path) -> FrameCache:
    return build_cache(find_labelled([write_labelled(tmp_path / "davis")]), tmp_path / "labelled")


def test_labels_are_cut_by_the_window_of_their_frames(labelled: FrameCache) -> None:
    spec = ClipSpec(frames=3, gap=2, crop=40, scale=(0.3, 1.0), labels=True)
    flips = set()
    for seed in range(6):
        (crop,) = crops = choose(labelled, spec, 1, generator(seed))
        batch = cut(labelled, spec, crops, CPU)
        assert batch.labels is not None
        assert batch.labels.shape == (1, 3, 40, 40)
        assert batch.labels.dtype == torch.uint8
        agree = (batch.labels == 1) == (batch.frames[:, :, 0] > 100 / 255)
        assert agree.float().mean() > 0.97  # but for pixels that straddle the border of an object
        flips.add(crop.flip)
    assert flips == {False, True}


def test_windows_show_objects_where_labels_are_wanted(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis")
    cache = build_cache(find_labelled([root]), tmp_path / "cache")
    seen = {}
    for wanted in (True, False):
        spec = ClipSpec(frames=2, gap=1, crop=16, scale=(0.3, 0.3), labels=wanted)
        crops = choose(cache, spec, 100, generator())
        labels = cut(cache, replace(spec, labels=True), crops, CPU).labels
        assert labels is not None
        seen[wanted] = float((labels == 1).flatten(2).any(2).all(1).float().mean())
    assert seen[True] > 0.95
    assert seen[False] < 0.7


def test_frames_without_objects_can_be_drawn_all_the_same(tmp_path: Path) -> None:
    cache = build_cache(find_labelled([write_labelled(tmp_path / "davis", value=0)]), tmp_path / "cache")
    batch = random_batch(cache, ClipSpec(frames=2, gap=1, crop=16, labels=True), 3, generator())
    assert batch.labels is not None
    assert not batch.labels.any()


def test_beyond_the_frame_its_border_is_repeated_and_labels_are_void(labelled: FrameCache) -> None:
    # Frames are 40 x 60, so that this window is 60 pixels high and wide: one side fits, the other does not.
    spec = ClipSpec(frames=1, gap=1, crop=60, scale=(1.5, 1.5), labels=True)
    tops = set()
    for seed in range(5):
        (crop,) = crops = choose(labelled, spec, 1, generator(seed))
        batch = cut(labelled, spec, crops, CPU)
        assert batch.labels is not None
        rows = torch.arange(60) + crop.top
        inside = (rows >= 0) & (rows < 40)
        assert int(inside.sum()) == 40
        void = batch.labels[0, 0] == 255
        assert torch.equal(void, ~inside[:, None].expand(60, 60))
        assert torch.equal(batch.frames[0, 0, 1, :, 0], rows.clamp(0, 39) / 255)
        tops.add(crop.top)
    assert len(tops) > 2
    assert all(-20 <= top <= 0 for top in tops)


def test_footage_without_masks_is_an_error_where_they_are_needed(cache: FrameCache) -> None:
    with pytest.raises(DatasetError, match="no masks"):
        random_batch(cache, ClipSpec(frames=2, gap=1, crop=8, labels=True), 1, generator())


# --- stills ---


def test_stills_move(tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    write_image(tmp_path / "stills" / "x.png", torch.stack((3 * x, 4 * y, 0 * x), -1).numpy())
    cache = build_cache(find_stills([tmp_path / "stills"]), tmp_path / "cache")
    spec = ClipSpec(frames=4, gap=3, crop=32)
    crops = choose(cache, spec, 3, generator())
    clips, again = (cut(cache, spec, crops, CPU).frames for _ in range(2))
    assert clips.shape == (3, 4, 3, 32, 32)
    assert torch.equal(clips, again)
    assert len({crop.seed for crop in crops}) == 3
    for clip in clips:
        assert ((clip[1:] - clip[:-1]).abs().amax((1, 2, 3)) > 0.01).all()
