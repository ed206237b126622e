"""Footage is found and decoded as it should, with its masks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fakes import pictures
from tests.train.samples import write_image, write_labelled
from tests.video.media import write_video
from vostrack.errors import DatasetError, OutputError, OutputExistsError
from vostrack.files import lock_folder
from vostrack.run.callbacks import Callbacks
from vostrack.train.data.cache import FrameCache, build_cache
from vostrack.train.data.footage import Source, find_footage, find_labelled, find_stills
from vostrack.train.data.thinning import estimated


class Heard(Callbacks):
    """Keeps the notes; may raise where a number of sources is done, as a kill would."""

    def __init__(self, end: int | None = None) -> None:
        self.notes: list[str] = []
        self.end = end

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, done: int, total: int | None) -> None:
        if done == self.end:
            raise KeyboardInterrupt


def labelled(root: Path, folder: Path) -> FrameCache:
    return build_cache(find_labelled([root]), folder)


def test_the_cache_is_used_again_for_the_same_sources_only(footage: Path, tmp_path: Path) -> None:
    build_cache(find_footage([footage]), tmp_path / "cache")
    stamp = (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns
    build_cache(find_footage([footage]), tmp_path / "cache")
    assert (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns == stamp
    smaller = build_cache([Source(footage / "a")], tmp_path / "cache")
    assert [clip.name for clip in smaller.clips] == ["a"]


def test_a_cache_of_an_earlier_version_is_built_again(footage: Path, tmp_path: Path) -> None:
    first = build_cache(find_footage([footage]), tmp_path / "cache")
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    (tmp_path / "cache" / "index.json").write_text(json.dumps(index | {"version": 1}))
    with pytest.raises(DatasetError, match="damaged"):
        FrameCache(tmp_path / "cache")
    assert build_cache(find_footage([footage]), tmp_path / "cache").digest == first.digest


def test_footage_that_cannot_be_read_is_left_out_and_named(footage: Path, tmp_path: Path) -> None:
    (footage / "broken.mp4").write_text("not a video")
    heard = Heard()
    cache = build_cache(find_footage([footage]), tmp_path / "cache", callbacks=heard)
    assert len(cache.clips) == 2
    assert any("broken.mp4" in note for note in heard.notes)


def test_a_source_that_breaks_off_leaves_nothing_behind(footage: Path, tmp_path: Path) -> None:
    write_image(footage / "a" / "7.png", np.zeros((9, 9, 3)))
    cache = build_cache(find_footage([footage]), tmp_path / "cache")
    (clip,) = cache.clips
    with Image.open(footage / "b" / "4.png") as image:
        expected = np.asarray(image)
    assert np.array_equal(cache.frames(clip, [4])[0].permute(1, 2, 0).numpy(), expected)


def test_a_folder_without_footage_is_an_error(tmp_path: Path) -> None:
    for find, missing in ((find_footage, "no videos"), (find_stills, "no images"), (find_labelled, "no masks")):
        with pytest.raises(DatasetError, match=missing):
            find([tmp_path])
        with pytest.raises(DatasetError, match="no folder"):
            find([tmp_path / "missing"])


def test_a_damaged_cache_is_an_error(footage: Path, tmp_path: Path) -> None:
    build_cache(find_footage([footage]), tmp_path / "cache")
    (tmp_path / "cache" / "frames.u8").write_bytes(b"short")
    with pytest.raises(DatasetError, match="damaged"):
        FrameCache(tmp_path / "cache")
    with pytest.raises(DatasetError, match="damaged"):
        build_cache(find_footage([footage]), tmp_path / "cache")


def test_video_is_thinned_and_small(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "x.mp4", pictures(25))
    cache = build_cache(find_footage([tmp_path / "data"]), tmp_path / "cache", short_side=24)
    (clip,) = cache.clips
    assert (clip.count, clip.height, clip.width) == (9, 24, 32)  # every third of 25 a second
    limited = build_cache(find_footage([tmp_path / "data"]), tmp_path / "cache", short_side=24, limit=4)
    assert torch.equal(limited.frames(limited.clips[0], range(4)), cache.frames(clip, range(4)))
    assert limited.clips[0].count == 4


def test_every_frame_is_kept_where_the_source_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "x.mp4", pictures(25))
    (plain,) = find_footage([tmp_path / "data"])
    whole = replace(plain, all_frames=True)
    assert estimated(whole, 24) == (25, 3 * 24 * 32)
    cache = build_cache([whole], tmp_path / "cache", short_side=24)
    assert cache.frame_count == 25
    thinned = build_cache([plain], tmp_path / "cache", short_side=24)  # the other one is not taken for it
    assert thinned.frame_count == 9
    every_third = build_cache([whole], tmp_path / "again", short_side=24)
    frames = every_third.frames(every_third.clips[0], range(0, 25, 3))
    assert torch.equal(frames, thinned.frames(thinned.clips[0], range(9)))


# --- size and time ---


def test_the_size_is_said_before_decoding_and_bounded_in_all_clips(footage: Path, tmp_path: Path) -> None:
    heard, sources = Heard(), find_footage([footage])
    whole = build_cache(sources, tmp_path / "cache", callbacks=heard)
    assert heard.notes == [f"decoding 2 clips: about 1 MB in {tmp_path / 'cache'}"]
    assert whole.size == 6 * 3 * (20 * 30 + 24 * 18)
    bounded = build_cache(sources, tmp_path / "cache", most=12_000, callbacks=heard)
    assert "the first 61% of each clip are kept" in heard.notes[-1]
    assert [clip.count for clip in bounded.clips] == [3, 3]
    assert torch.equal(bounded.frames(bounded.clips[1], range(3)), whole.frames(whole.clips[1], range(3)))
    assert build_cache(sources, tmp_path / "cache", most=10**6).size == whole.size
    assert build_cache(sources, tmp_path / "cache", most=5000, callbacks=heard).size == 2 * 3 * 20 * 30
    assert "1 of 2 clips are in" in heard.notes[-1]


def test_a_larger_bound_changes_nothing_where_all_fits(footage: Path, tmp_path: Path) -> None:
    build_cache(find_footage([footage]), tmp_path / "cache", most=10**6)
    stamp = (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns
    for most in (10**5, 10**7):
        build_cache(find_footage([footage]), tmp_path / "cache", most=most)
        assert (tmp_path / "cache" / "frames.u8").stat().st_mtime_ns == stamp


def test_footage_of_unknown_length_ends_at_the_bound(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vostrack.train.data.cache.estimated", lambda *source: (0, 0))
    heard, sources = Heard(), find_footage([footage])
    for _ in range(2):  # it is said each time
        cache = build_cache(sources, tmp_path / "cache", most=15_000, callbacks=heard)
        assert [clip.count for clip in cache.clips] == [6, 3]
        assert "2 of 2 clips are in" in heard.notes[-1]
    with pytest.raises(DatasetError, match="none of 2 sources could be read in the time and the size"):
        build_cache(sources, tmp_path / "cache", most=2000)
    assert [clip.count for clip in build_cache(sources, tmp_path / "cache").clips] == [6, 6]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_estimates_are_what_is_kept(kind: str, tmp_path: Path) -> None:
    write_video(tmp_path / f"x.{kind}", pictures(25))
    source = Source(tmp_path / f"x.{kind}")
    assert estimated(source, 24) == (9, 3 * 24 * 32)
    assert build_cache([source], tmp_path / "cache", 24).frame_count == 9


def test_decoding_ends_with_its_time_and_keeps_what_is_there(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("vostrack.train.data.cache.time.monotonic", lambda: float(next(clock)))
    heard = Heard()
    cache = build_cache(find_footage([footage]), tmp_path / "cache", until=11, callbacks=heard)
    assert [clip.count for clip in cache.clips] == [6, 3]
    assert "the time for decoding was over" in heard.notes[-1]
    with pytest.raises(DatasetError, match="in the time"):
        build_cache(find_footage([footage]), tmp_path / "other", until=0)


def test_decoding_that_was_stopped_goes_on(footage: Path, tmp_path: Path) -> None:
    sources, folder = find_footage([footage]), tmp_path / "cache"
    whole = build_cache(sources, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        build_cache(sources, folder, callbacks=Heard(1))
    with (folder / "frames.u8").open("ab") as file:
        file.write(b"half a frame")
    (folder / ".vostrack-0123.part").touch()
    with pytest.raises(DatasetError, match="damaged"):
        FrameCache(folder)
    heard = Heard()
    assert build_cache(sources, folder, callbacks=heard).digest == whole.digest
    assert "decoding 1 clip:" in heard.notes[0]
    assert (folder / "frames.u8").read_bytes() == (tmp_path / "whole" / "frames.u8").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["frames.u8", "index.json", "labels.u8"]


@pytest.mark.parametrize("change", [{"count": 10**12}, {"offset": -1}, {"height": 0}])
def test_an_unfinished_cache_whose_index_is_damaged_begins_anew(
    change: dict[str, int], footage: Path, tmp_path: Path
) -> None:
    folder, sources = tmp_path / "cache", find_footage([footage])
    with pytest.raises(KeyboardInterrupt):
        build_cache(sources, folder, callbacks=Heard(1))
    index = json.loads((folder / "index.json").read_text())
    index["clips"][0] |= change
    (folder / "index.json").write_text(json.dumps(index))
    cache = build_cache(sources, folder)
    assert [clip.count for clip in cache.clips] == [6, 6]
    assert (folder / "frames.u8").stat().st_size == cache.size


def test_nothing_is_decoded_into_a_cache_in_use_but_a_finished_one_is_shared(footage: Path, tmp_path: Path) -> None:
    folder, sources = tmp_path / "cache", find_footage([footage])
    with lock_folder(folder):
        (folder / ".vostrack-0123.part").touch()
        with pytest.raises(OutputExistsError, match="in use by"):
            build_cache(sources, folder)
        assert (folder / ".vostrack-0123.part").exists()
        assert not (folder / "frames.u8").exists()
    build_cache(sources, folder)
    with lock_folder(folder):
        assert len(build_cache(sources, folder).clips) == 2


def test_a_cache_that_is_trained_on_outlives_one_of_other_footage(footage: Path, tmp_path: Path) -> None:
    old = build_cache(find_footage([footage]), tmp_path / "cache")
    before = old.frames(old.clips[1], range(6)).clone()
    build_cache([Source(footage / "a")], tmp_path / "cache")
    assert torch.equal(old.frames(old.clips[1], range(6)), before)


def test_a_disk_that_fills_up_is_said(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        write_image(tmp_path / "data" / "x" / f"{index}.png", np.full((200, 200, 3), index))
    sources = find_footage([tmp_path / "data"])
    for estimate in (estimated, lambda *source: (0, 0)):  # before decoding, and in it
        monkeypatch.setattr("vostrack.train.data.cache.estimated", estimate)
        with pytest.raises(OutputError, match="disk is full"):
            build_cache(sources, small_disk / "cache")


# --- masks ---


def test_masks_are_no_footage(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis")
    assert [source.path.name for source in find_footage([root])] == ["one", "two"]


def test_labels_lie_beside_their_frames(tmp_path: Path) -> None:
    cache = labelled(write_labelled(tmp_path / "davis"), tmp_path / "cache")
    assert [clip.name for clip in cache.clips] == ["one", "two"]
    for clip in cache.clips:
        frames, labels = cache.frames(clip, range(6)), cache.labels(clip, range(6))
        assert torch.equal(labels, (frames[:, 0] == 200).byte())
        assert torch.equal(frames[3, 1], torch.arange(40, dtype=torch.uint8)[:, None].expand(40, 60))


def test_255_is_void_where_there_are_other_objects(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis", value=255, names=("one",))
    write_image(root / "Annotations" / "480p" / "one" / "00002.png", np.full((40, 60), 3))
    cache = labelled(root, tmp_path / "cache")
    labels = cache.labels(cache.clips[0], [1, 2])
    assert labels[0].unique().tolist() == [0, 255]
    assert labels[1].unique().tolist() == [3]


def test_of_labelled_clips_the_frames_with_masks_are_kept(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis", count=8, names=("one",))
    for index in (0, 3, 4):
        (root / "Annotations" / "480p" / "one" / f"{index:05d}.png").unlink()
    cache = labelled(root, tmp_path / "cache")
    (clip,) = cache.clips
    assert clip.count == 5
    lefts = [int((labels[20] == 1).nonzero()[0]) for labels in cache.labels(clip, range(5))]
    assert lefts == [15 - 8 + 4 * index for index in (1, 2, 5, 6, 7)]


def test_labels_shrink_with_their_frames_and_stay_labels(tmp_path: Path) -> None:
    cache = build_cache(find_labelled([write_labelled(tmp_path / "davis", value=7)]), tmp_path / "cache", short_side=20)
    clip = cache.clips[0]
    labels = cache.labels(clip, [0])[0]
    assert labels.shape == cache.frames(clip, [0]).shape[2:] == (20, 30)
    expected = np.zeros((20, 30), np.uint8)
    expected[6:14, 3:12] = 7
    assert abs((labels.numpy() == 7).sum() - (expected == 7).sum()) <= 12
    assert labels.unique().tolist() == [0, 7]


def test_videos_can_have_masks_too(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "clips").mkdir(parents=True)
    write_video(root / "clips" / "seq.mp4", pictures(6))
    for index in range(6):
        write_image(root / "Annotations" / "480p" / "seq" / f"{index:05d}.png", np.full((48, 64), index))
    assert find_labelled([root]) == [Source(root / "clips" / "seq.mp4", root / "Annotations" / "480p" / "seq")]
    cache = labelled(root, tmp_path / "cache")
    assert cache.labels(cache.clips[0], range(6)).amax((1, 2)).tolist() == [0, 1, 2, 3, 4, 5]


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis")
    write_image(root / "Annotations" / "480p" / "two" / "00001.png", np.zeros((9, 9)))
    heard = Heard()
    cache = build_cache(find_labelled([root]), tmp_path / "cache", callbacks=heard)
    assert [clip.name for clip in cache.clips] == ["one"]
    assert torch.equal(cache.labels(cache.clips[0], [5])[0], (cache.frames(cache.clips[0], [5])[0, 0] == 200).byte())
    assert any("00001.png" in note and "[9, 9]" in note for note in heard.notes)


def test_masks_whose_frames_are_a_link_that_leads_nowhere_are_left_out_and_named(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis", names=("one", "two", "three"))
    shutil.rmtree(root / "JPEGImages" / "480p" / "two")
    (root / "JPEGImages" / "480p" / "two").symlink_to("nowhere")
    shutil.rmtree(root / "JPEGImages" / "480p" / "three")
    (root / "three.mp4").symlink_to("nowhere.mp4")
    heard = Heard()
    cache = build_cache(find_labelled([root]), tmp_path / "cache", callbacks=heard)
    assert [clip.name for clip in cache.clips] == ["one"]
    assert sum("left out: cannot find clip" in note for note in heard.notes) == 2


def test_masks_without_frames_are_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "Annotations" / "seq" / "00000.png", np.zeros((9, 9)))
    with pytest.raises(DatasetError, match=r"not its frames: expected JPEGImages"):
        find_labelled([tmp_path])


# --- stills ---


def test_stills_are_clips_of_one_frame(tmp_path: Path) -> None:
    for name in ("x.png", "deeper/x.png", "deeper/y.png"):
        write_image(tmp_path / "stills" / name, np.full((60, 80, 3), len(name)))
    cache = build_cache(find_stills([tmp_path / "stills"]), tmp_path / "cache", short_side=20)
    assert [(clip.count, clip.height, clip.width) for clip in cache.clips] == [(1, 30, 40)] * 3
    assert [int(cache.frames(clip, [0]).max()) for clip in cache.clips] == [5, 12, 12]


def test_only_a_cuda_device_holds_a_cache_and_only_one_that_fits(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build_cache(find_footage([footage]), tmp_path / "cache")
    cuda, held, size = torch.device("cuda"), [], 6 * 3 * (20 * 30 + 24 * 18)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: held.append(device) or tensor)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size - 1, 10**12))
    cache.hold_where_it_fits(cuda)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size, 10**12))
    cache.hold_where_it_fits(torch.device("cpu"))
    assert held == []
    cache.hold_where_it_fits(cuda)
    assert held == [cuda]


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1},
        {"offset": 10**9},
        {"offset": 2**70},
        {"labels": 10**9},
        {"labels": -5},
        {"count": 0},
        {"count": -1},
        {"height": -1, "width": -1},
        {"height": "3"},
        {"height": None},
        {"name": 5},
        {"name": "\ud800"},
        {"binary": 3},
    ],
    ids=str,
)
def test_an_index_that_leads_out_of_the_cache_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    labelled(write_labelled(tmp_path / "data"), tmp_path / "cache")
    path = tmp_path / "cache" / "index.json"
    index = json.loads(path.read_text())
    index["clips"][0] |= change
    path.write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="delete it to build it again"):
        FrameCache(tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"version": 2, "made_from": 3, "clips": {}}', "9" * 5000])
def test_an_index_that_is_none_is_built_again(text: str, footage: Path, tmp_path: Path) -> None:
    first = build_cache(find_footage([footage]), tmp_path / "cache")
    (tmp_path / "cache" / "index.json").write_text(text)
    with pytest.raises(DatasetError, match="is not a frame cache"):
        FrameCache(tmp_path / "cache")
    assert build_cache(find_footage([footage]), tmp_path / "cache").digest == first.digest


def test_frames_that_cannot_be_mapped_are_one_line(
    cache: FrameCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **options: object) -> None:
        raise RuntimeError("unable to open file in read-only mode: Permission denied (13)")

    monkeypatch.setattr(torch, "from_file", fails)
    with pytest.raises(DatasetError, match=r"frames\.u8 cannot be read .*Permission denied"):
        FrameCache(tmp_path / "cache")
