"""The Python API: frames and masks from memory, callbacks, and the places that it is called from."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vostrack
from tests.fakes import IDS, NAME, PATH, SIZE, pictures, truth, write_clip, write_mask
from vostrack.methods import METHODS
from vostrack.types import Frame

pytestmark = pytest.mark.usefixtures("fake_method")
COUNT = 8


def masks_of(frames: Any, masks: Any, **options: Any) -> list[np.ndarray]:
    return [prediction.mask for prediction in vostrack.track(frames, masks, method=NAME, **options)]


@pytest.fixture
def expected() -> list[np.ndarray]:
    return masks_of(pictures(COUNT), truth())


# Frames.


@pytest.mark.parametrize("kind", ["array", "tensor", "image", "frame", "generator", "tuple", "strided", "opened"])
def test_frames_of_every_kind_give_the_same_masks(kind: str, expected: list[np.ndarray], tmp_path: Path) -> None:
    images = pictures(COUNT)
    if kind == "opened":
        folder = tmp_path / "frames"
        folder.mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{index}.png")
        frames: Any = vostrack.open_clip(folder)
        assert all(map(np.array_equal, masks_of(folder, truth()), expected))
        assert all(map(np.array_equal, masks_of(str(folder), truth()), expected))
    else:
        frames = {
            "array": images,
            "tensor": [torch.from_numpy(image).permute(2, 0, 1) for image in images],
            "image": [Image.fromarray(image) for image in images],
            "frame": [Frame(0, Fraction(0), torch.from_numpy(i).permute(2, 0, 1), "any") for i in images],
            "generator": (image for image in images),
            "tuple": tuple(images),
            "strided": [np.repeat(image, 2, axis=1)[:, ::2] for image in images],
        }[kind]
    found = masks_of(frames, truth())
    assert len(found) == COUNT
    assert all(map(np.array_equal, found, expected))


def test_predictions_say_which_frame_and_which_objects() -> None:
    predictions = list(vostrack.track(pictures(3), {1: truth(1)}, method=NAME, direction="forward"))
    assert [prediction.index for prediction in predictions] == [0, 1, 2]
    assert [prediction.ids for prediction in predictions] == [(), IDS, IDS]
    assert not predictions[0].mask.any()
    assert np.array_equal(predictions[1].mask, truth(1))
    assert (predictions[2].mask.dtype, predictions[2].mask.shape) == (np.uint8, SIZE)


def test_memory_of_a_frame_may_be_used_again(expected: list[np.ndarray]) -> None:
    def frames() -> Iterator[np.ndarray]:
        buffer = np.empty((*SIZE, 3), np.uint8)
        for image in pictures(COUNT):
            buffer[:] = image
            yield buffer

    predictions = list(vostrack.track(frames(), truth(), method=NAME))
    assert all(np.array_equal(p.mask, mask) for p, mask in zip(predictions, expected, strict=True))
    assert not torch.equal(predictions[0].frame.image, predictions[-1].frame.image)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((*SIZE, 4), np.uint8), r"drop the alpha channel with image\[..., :3\]"),
        (np.zeros((*SIZE, 3), np.float32), r"float32 \(48, 64, 3\): expected a uint8 array .* by \(255 \* image\)"),
        (np.zeros(SIZE, np.uint8), "repeat a grey image three times"),
        (np.zeros((3, *SIZE), np.uint8), r"image.transpose\(1, 2, 0\)"),
        (torch.zeros(*SIZE, 3, dtype=torch.uint8), r"image.permute\(2, 0, 1\)"),
        (torch.zeros(3, *SIZE), "float32"),
        (np.full((*SIZE, 3), 200.0), r"values up to 200 become that by image\.round\(\)\.astype\(np\.uint8\)"),
        (
            torch.full((3, *SIZE), 200.0).bfloat16(),
            r"up to 200 become that by image\.round\(\)\.to\(torch\.uint8\)",
        ),
        (np.full((*SIZE, 3), 200), r"values up to 200 become that by image\.astype\(np\.uint8\)"),
        (np.full((*SIZE, 3), 4000, np.uint16), r"by \(image >> 4\)\.astype\(np\.uint8\)"),
        (np.ones((*SIZE, 3), bool), "values up to 1"),
        (np.full((*SIZE, 3), np.nan), "from nan to nan, so scale them to 0 to 255 first"),
        (np.zeros((0, 4, 3), np.uint8), "frames of 4x0"),
        ("a.png", r"is a str: expected .*; give the folder that the images lie in, or open each with PIL\.Image\.open"),
        (Path("a.png"), "give the folder that the images lie in"),
        (None, "is a NoneType: expected"),
    ],
)
def test_frames_that_could_be_misread_are_refused(frame: Any, words: str) -> None:
    with pytest.raises(vostrack.InputError, match=words):
        vostrack.track([frame], truth(), method=NAME)
    later = vostrack.track([pictures(1)[0], frame], truth(), method=NAME)
    with pytest.raises(vostrack.InputError, match="frame 1"):
        list(later)


def test_frames_of_another_size_and_no_frames_are_refused() -> None:
    with pytest.raises(vostrack.InputError, match="frame 1 is 64x47, the first is 64x48"):
        masks_of([pictures(1)[0], pictures(1)[0][:47]], truth())
    with pytest.raises(vostrack.InputError, match="there are no frames"):
        masks_of([], truth())
    with pytest.raises(vostrack.InputError, match="a path or an iterable, such as a list of arrays, not int"):
        masks_of(3, truth())


@pytest.mark.parametrize("frame", [pictures(1)[0], torch.zeros(3, *SIZE), Image.fromarray(pictures(1)[0])], ids=type)
def test_one_frame_instead_of_a_list_is_refused(frame: Any) -> None:
    with pytest.raises(vostrack.InputError, match=r"this is one frame, .* put its frames into a list"):
        vostrack.track(frame, truth(), method=NAME)


# Masks.


@pytest.mark.parametrize(
    "mask",
    [
        truth(),
        truth().astype(np.int64),
        truth()[::-1, ::-1].copy()[::-1, ::-1],
        torch.from_numpy(truth()),
        vostrack.LabelMap(torch.from_numpy(truth()), IDS),
        {0: truth()},
        {np.int64(0): truth()},
    ],
    ids=["uint8", "int64", "strided", "tensor", "labels", "by frame", "by numpy frame"],
)
def test_masks_of_every_kind_mean_the_same(mask: Any, expected: list[np.ndarray]) -> None:
    assert all(map(np.array_equal, masks_of(pictures(COUNT), mask), expected))


def test_what_is_background_can_be_said() -> None:
    mask = truth()
    with pytest.raises(vostrack.MaskError, match="the mask of frame 0 has no background: 9 covers"):
        vostrack.track(pictures(1), np.where(mask == 0, 9, mask), method=NAME)
    for other, options in (
        (np.where(mask == 0, 9, mask), {"background": 9}),
        (mask[::2, ::2], {"resize_mask": True}),
    ):
        assert np.array_equal(masks_of(pictures(1), other, **options)[0], mask)
    inverted = masks_of(pictures(1), mask == 0, invert_mask=True)
    assert np.array_equal(inverted[0], mask > 0)
    wrong: tuple[dict[str, Any], ...] = (
        {"background": "white"},
        {"invert_mask": 1},
        {"no_background": None},
        {"resize_mask": "yes"},
    )
    for options in wrong:
        with pytest.raises(vostrack.MaskError, match=f"{next(iter(options))} must be"):
            vostrack.track(pictures(1), mask, method=NAME, **options)


def test_masks_may_be_images_and_paths(expected: list[np.ndarray], tmp_path: Path) -> None:
    path = write_mask(tmp_path / "first.png")
    with Image.open(path) as image:
        for mask in (path, str(path), image):
            assert all(map(np.array_equal, masks_of(pictures(COUNT), mask), expected))


@pytest.mark.parametrize("white", [np.uint8(255), np.bool_(True)])
def test_white_alone_and_true_are_object_1(white: Any) -> None:
    (prediction,) = vostrack.track(pictures(1), np.where(truth() > 0, white, 0 * white), method=NAME)
    assert prediction.ids == (1,)
    assert np.array_equal(prediction.mask, (truth() > 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (truth().astype(np.float32), "float32"),
        (np.where(truth() > 0, 300, 0), "holds 300, and object ids go from 1 to 254"),
        (np.where(truth() > 0, -1, 0), "holds -1"),
        (np.stack([truth()] * 3, 2), r"uint8 \(48, 64, 3\): expected \(H, W\)"),
        (truth()[:40], "64x40, the clip is 64x48"),
        (np.zeros(SIZE, np.uint8), "no object"),
        ([1, 2], r"int64 \(2,\)"),
        (object(), "expected"),
        ({"first": truth()}, r"by frame index, such as \{0: mask\}"),
        ({}, "no mask was given"),
        ({-1: truth()}, "frames count from 0"),
        ({5: truth()}, "the clip ends with frame 1"),
    ],
)
def test_masks_that_could_be_misread_are_refused(mask: Any, words: str) -> None:
    with pytest.raises(vostrack.MaskError, match=words):
        vostrack.track(pictures(2), mask, method=NAME)


@pytest.mark.parametrize("ids", [(0,), (255,), (1, 1), (3, 256), (1.0,)])
def test_a_label_map_has_ids_from_1_to_254(ids: Any) -> None:
    with pytest.raises(vostrack.MaskError, match="whole numbers from 1 to 254"):
        vostrack.LabelMap(torch.zeros(2, 2, dtype=torch.uint8), ids)


def test_a_label_map_holds_a_tensor_of_listed_ids() -> None:
    for pixels in (truth(), torch.zeros(2, 2), torch.zeros(2, dtype=torch.uint8)):
        with pytest.raises(vostrack.MaskError, match="holds a uint8 tensor"):
            vostrack.LabelMap(pixels, (1,))  # type: ignore[arg-type]
    with pytest.raises(vostrack.MaskError, match=r"mask of frame 0 holds 200, which is not among its ids \(3,\)"):
        masks_of(pictures(1), vostrack.LabelMap(torch.from_numpy(truth()), (3,)))


def test_a_mask_beyond_a_clip_of_unknown_length_is_refused_at_its_end() -> None:
    predictions = vostrack.track((image for image in pictures(3)), {0: truth(), 9: truth()}, method=NAME)
    with pytest.raises(vostrack.MaskError, match="mask for frame 9, but the clip ends with frame 2"):
        list(predictions)


# Settings.


def test_settings_are_typed_and_wrong_ones_say_what_was_expected() -> None:
    slow = masks_of(pictures(COUNT), truth(), settings={"rate": 0.01})
    assert all(map(np.array_equal, slow, masks_of(pictures(COUNT), truth(), preset="slow")))
    for settings, words in (({"rates": 1.0}, "did you mean 'rate'"), ({"rate": "high"}, "rate must be a number")):
        with pytest.raises(vostrack.MethodError, match=words):
            masks_of(pictures(1), truth(), settings=settings)
    with pytest.raises(vostrack.MethodError, match="unknown method"):
        vostrack.track(pictures(1), truth(), method="none")


# Stopping.


class Watch(vostrack.Callbacks):
    def __init__(self, stop_at: int = 10**9) -> None:
        self.seen: list[tuple[int, int | None]] = []
        self.notes: list[str] = []
        self.stop_at = stop_at

    def progress(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def cancelled(self) -> bool:
        return len(self.seen) >= self.stop_at


def test_callbacks_hear_of_progress_and_notes() -> None:
    watch = Watch()
    mask = np.where(truth() == 3, 128, np.where(truth() == 200, 255, 0)).astype(np.uint8)
    list(vostrack.track(pictures(3), Image.fromarray(mask), method=NAME, callbacks=watch))
    assert watch.seen == [(1, 3), (2, 3), (3, 3)]
    assert watch.notes == ["mask of frame 0: evenly spread grey values became objects: 128 = 1, 255 = 2"]
    unknown = Watch()
    list(vostrack.track(iter(pictures(2)), truth(), method=NAME, callbacks=unknown))
    assert unknown.seen == [(1, None), (2, None)]


def test_a_run_can_be_cancelled_and_goes_on(tmp_path: Path) -> None:
    clip, mask = write_clip(tmp_path / "clip.mp4", COUNT), write_mask(tmp_path / "first.png")
    with pytest.raises(vostrack.Cancelled, match="cancelled after 3 of 8"):
        vostrack.segment(clip, mask, tmp_path / "out", method=NAME, callbacks=Watch(3))
    summary = vostrack.segment(clip, mask, tmp_path / "out", method=NAME, resume=True)
    assert summary["frames"] == COUNT
    with pytest.raises(vostrack.Cancelled, match="cancelled after 2 of all"):
        list(vostrack.track(iter(pictures(COUNT)), truth(), method=NAME, callbacks=Watch(2)))


@pytest.mark.parametrize("source", ["generator", "clip"])
def test_a_loop_that_is_left_early_leaves_nothing_behind(source: str, tmp_path: Path) -> None:
    before = threading.active_count()
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for image in pictures(COUNT):
            read += 1
            yield image

    clip = write_clip(tmp_path / "clip.mp4", COUNT) if source == "clip" else frames()
    predictions = vostrack.track(clip, truth(), method=NAME)
    for prediction in predictions:
        if prediction.index == 2:
            break
    predictions.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert source == "clip" or read == 3, "a generator is asked for no frame that nobody wants"


# Threads, processes and many runs.


def test_threads_do_not_disturb_each_other(expected: list[np.ndarray]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: masks_of(pictures(COUNT), truth()), range(8)):
            assert all(map(np.array_equal, found, expected))


def in_process(weights: str) -> list[np.ndarray]:
    os.environ["VOSTRACK_WEIGHTS"] = weights
    METHODS[NAME] = PATH
    return masks_of(pictures(COUNT), truth())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["spawn", "forkserver"])
def test_processes_give_the_same(way: str, expected: list[np.ndarray]) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context(way)) as pool:
        found = pool.submit(in_process, os.environ["VOSTRACK_WEIGHTS"]).result(120)
    assert all(map(np.array_equal, found, expected))


_FORKS = """
import multiprocessing, os, sys
import numpy as np, torch
import vostrack
from tests.fakes import NAME, PATH, pictures, truth
from vostrack.methods import METHODS

METHODS[NAME] = PATH
torch.set_num_threads(2)
run = lambda: [p.mask for p in vostrack.track(pictures(8), truth(), method=NAME)]
expected = run()

def same():
    torch.set_num_threads(1)
    sys.exit(0 if all(map(np.array_equal, run(), expected)) else 1)

def refused():
    try:
        run()
    except vostrack.VostrackError as error:
        sys.exit(0 if "'spawn' or 'forkserver', or call torch.set_num_threads(1)" in str(error) else 1)

for work in (refused, same):
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0, (work.__name__, process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK on this system")
def test_a_forked_process_works_or_says_why_not() -> None:
    # In a process of its own: a fork of the one that runs the tests would take its locks along.
    done = subprocess.run(
        [sys.executable, "-c", _FORKS], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr


def test_asyncio_runs_it_in_a_thread(tmp_path: Path) -> None:
    clip, mask = write_clip(tmp_path / "clip.mp4", COUNT), write_mask(tmp_path / "first.png")

    async def both() -> list[dict[str, Any]]:
        runs = (asyncio.to_thread(vostrack.segment, clip, mask, tmp_path / out, method=NAME) for out in ("a", "b"))
        return await asyncio.gather(*runs)

    assert [summary["frames"] for summary in asyncio.run(both())] == [COUNT, COUNT]
    names = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / "masks").iterdir()]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="NO /proc: descriptors cannot be counted")
def test_a_hundred_runs_leave_no_thread_and_no_descriptor_behind(tmp_path: Path) -> None:
    clip, mask = write_clip(tmp_path / "clip.mp4", 2), write_mask(tmp_path / "first.png")

    def once() -> None:
        list(vostrack.track(pictures(2), truth(), method=NAME))
        vostrack.segment(clip, mask, tmp_path / "out", method=NAME, outputs=["masks"], overwrite=True)

    once()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        once()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


# What is of the wrong type is said in the call.


@pytest.mark.parametrize("size", [4, 0, -5, 240.5, "240", (240, 427), True, 9000])
def test_a_working_size_that_makes_no_sense_is_refused(size: Any) -> None:
    with pytest.raises(vostrack.MethodError, match=r"size must be .*16 to 8192[)]?, not"):
        vostrack.track(pictures(1), truth(), method=NAME, size=size)
    with pytest.raises(vostrack.MethodError, match="size must be"):
        vostrack.Propagator(vostrack.load_method(NAME)[0], size=size)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": None}, "method must be a name such as 'best', not None"),
        ({"refine": True}, "refine must be a name such as 'crf', not True"),
        ({"settings": "radius=8"}, "settings must be values by name, such as {'radius': 8}, not 'radius=8'"),
        ({"settings": ["radius"]}, "settings must be values by name"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(vostrack.MethodError) as caught:
        vostrack.track(pictures(1), truth(), **{"method": NAME, **given})
    assert words in str(caught.value)


def test_callbacks_are_an_object(tmp_path: Path) -> None:
    for wrong in (Watch, 0, list[int]()):
        with pytest.raises(vostrack.VostrackError, match="an object of a class derived from"):
            vostrack.track(pictures(1), truth(), method=NAME, callbacks=wrong)  # type: ignore[arg-type]


def test_segment_says_that_frames_in_memory_are_for_track(tmp_path: Path) -> None:
    with pytest.raises(vostrack.InputError, match="use track for frames"):
        vostrack.segment(pictures(1), truth(), method=NAME)  # type: ignore[arg-type]
    with pytest.raises(vostrack.VostrackError, match="outputs must be a list"):
        vostrack.segment(tmp_path, truth(), method=NAME, outputs=None)  # type: ignore[arg-type]


def test_public_names_are_listed() -> None:
    assert set(vostrack.__all__) <= set(dir(vostrack))


@pytest.mark.parametrize("wrong", [{"callbacks": "x"}, {"device": 3}, {"weights": 3}, {"resume": "no"}])
def test_a_wrong_argument_does_no_harm_to_earlier_results(wrong: dict[str, Any], tmp_path: Path) -> None:
    clip, mask = write_clip(tmp_path / "clip.mp4", 2), write_mask(tmp_path / "first.png")
    vostrack.segment(clip, mask, tmp_path / "out", method=NAME)
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(vostrack.VostrackError, match="must be"):
        vostrack.segment(clip, mask, tmp_path / "out", **{"method": NAME, "overwrite": True, **wrong})
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="NO /proc: descriptors cannot be counted")
def test_a_loop_that_never_began_releases_its_clip(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3)
    before = len(os.listdir("/proc/self/fd"))
    predictions = vostrack.track(clip, truth(), method=NAME)
    predictions.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(predictions) == []
