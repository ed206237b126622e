"""Folders that other people and programs have written: what is read from them, and what is refused."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmark.sequences import binary, clip, folders, save, scored
from vostrack.benchmark.score import score_folders
from vostrack.errors import DatasetError, VostrackError
from vostrack.video.palette import palette_image


def test_files_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    expected = score_folders(results, truth)
    for name in ("00000.png", "00099.png", "._00001.png", "notes.txt"):
        (results / "cat" / name).write_bytes(b"no image")
    (results / "cat" / "00005.png").unlink()
    save(results, clip(1), "extra")
    (truth / ".hidden").mkdir()
    for name in (".hidden/00000.png", "cat/._00001.png"):
        (truth / name).write_bytes(b"no image")
    (truth / "cat" / "Thumbs.db").write_bytes(b"")
    assert score_folders(results, truth).objects == expected.objects


def test_sparse_truth_and_names_without_zeros_are_in_order(tmp_path: Path) -> None:
    found, wanted = clip(1), clip(2)
    found[1] = np.zeros_like(found[1])
    for folder, maps in (("results", found), ("truth", wanted)):
        (tmp_path / folder / "dog").mkdir(parents=True)
        for number, labels in enumerate(maps):
            Image.fromarray(labels).save(tmp_path / folder / "dog" / f"{5 * number}.png")
    (one, other) = score_folders(tmp_path / "results", tmp_path / "truth").objects
    assert [one.values, other.values] == [row.values for row in scored(found, wanted)]
    assert one.curves["frames"] == ["5", "10", "15", "20"]


def test_images_of_every_mode_are_read(tmp_path: Path) -> None:
    truth = save(tmp_path / "truth", clip(2, 9))
    found = clip(1, 9)
    results = save(tmp_path / "results", found)
    expected = score_folders(results, truth)
    for number, labels in enumerate(found):
        image, path = Image.fromarray(labels), results / "dog" / f"{number:05d}.png"
        if number % 2:
            image.putpalette([0, 0, 0, 200, 10, 10, 9, 99, 0])
            image.save(path, bits=(8, 2)[number % 4 == 3])
        else:
            mode = ("L", "LA", "RGB", "RGBA")[number // 2 % 4]
            image.convert(mode).save(path)
    assert score_folders(results, truth) == expected


def test_colours_of_davis_are_ids(tmp_path: Path) -> None:
    """As files are saved whose palette a program has resolved."""
    truth = save(tmp_path / "truth", clip(2, ids=(1, 7, 200)))
    found = clip(1, ids=(1, 7, 200))
    results = save(tmp_path / "results", found)
    expected = score_folders(results, truth)
    for number, labels in enumerate(found):
        image = palette_image(labels).convert(("RGB", "RGBA")[number % 2])
        image.save(results / "dog" / f"{number:05d}.png")
    assert score_folders(results, truth) == expected
    for number, labels in enumerate(clip(2, ids=(1, 7, 200))):
        colors = np.array(palette_image(labels).convert("RGB"))
        Image.fromarray(np.where(colors == 192, 191, colors).astype(np.uint8)).save(truth / "dog" / f"{number:05d}.png")
    assert score_folders(results, truth) == expected


def test_what_is_transparent_is_background(tmp_path: Path) -> None:
    truth, found = save(tmp_path / "truth", clip(2)), clip(1)
    results = save(tmp_path / "results", found)
    expected = score_folders(results, truth)
    for number, labels in enumerate(found):
        image = palette_image(labels).convert("RGB")
        image.paste((255, 0, 255), mask=Image.fromarray(np.where(labels == 0, 255, 0).astype(np.uint8)))
        image.putalpha(Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)))
        image.save(results / "dog" / f"{number:05d}.png")
    assert score_folders(results, truth) == expected


def test_black_and_white_images_are_binary(tmp_path: Path) -> None:
    found, wanted = clip(1, ids=(1,)), clip(2, ids=(1,))
    for folder, maps in (("results", found), ("truth", wanted)):
        save(tmp_path / folder, maps)
        for number, labels in enumerate(binary(maps)):
            Image.fromarray(labels).convert("1").save(tmp_path / folder / "dog" / f"{number:05d}.png")
    assert list(score_folders(tmp_path / "results", tmp_path / "truth").objects) == scored(found, wanted)


def header(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims a size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (b"GIF89a" + bytes(50), "cannot identify"),
        (header(8200, 8200), "8200x8200 is more than"),
        (header(12000, 12000), "exceeds limit"),
        (header(60000, 60000), "exceeds limit"),
        (header(31, 24), "truncated|incomplete"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    results, truth = folders(tmp_path)
    (results / "cat" / "00002.png").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        score_folders(results, truth)
    assert "00002.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_colours_and_16_bit_are_refused(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    Image.new("RGB", (31, 24), (200, 0, 0)).save(results / "cat" / "00001.png")
    with pytest.raises(DatasetError, match="found colours that are not DAVIS's: save it as a palette"):
        score_folders(results, truth)
    Image.new("I;16", (31, 24)).save(results / "cat" / "00001.png")
    with pytest.raises(DatasetError, match="found mode I"):
        score_folders(results, truth)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    (results / "cat" / "00002.png").unlink()
    os.mkfifo(results / "cat" / "00002.png")
    with pytest.raises(DatasetError, match="not a file"):
        score_folders(results, truth)


def test_same_folder_is_refused(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    (tmp_path / "link").symlink_to(truth)
    for other in (truth, tmp_path / "link", truth / "cat" / ".."):
        with pytest.raises(DatasetError, match="same folder"):
            score_folders(other, truth)
    (results / "linked").symlink_to(truth / "cat")
    (truth / "linked").symlink_to(truth / "cat")
    with pytest.raises(DatasetError, match="same folder"):
        score_folders(results, truth)


def test_gaps_are_named(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    for number in (1, 4):
        (results / "emu" / f"{number:05d}.png").unlink()
    with pytest.raises(DatasetError, match=r"emu lacks 00001\.png, 00004\.png of 4 scored frames"):
        score_folders(results, truth)
    for number in range(8):
        save(truth, clip(1), f"sequence{number}")
    with pytest.raises(DatasetError, match=r"lacks sequence0, .*, sequence4 and 3 more of 11 sequences"):
        score_folders(results, truth)
    with pytest.raises(DatasetError, match="unknown sequence 'dogs'; did you mean 'dog'"):
        score_folders(results, truth, sequences=["dogs"])


def test_folders_of_another_layout_are_refused(tmp_path: Path) -> None:
    results, truth = folders(tmp_path)
    with pytest.raises(DatasetError, match=r"cannot read folder .*nowhere"):
        score_folders(results, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"cannot read folder .*nowhere"):
        score_folders(tmp_path / "nowhere", truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="expected folders of PNG files"):
        score_folders(results, tmp_path / "empty")


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", None])
def test_a_number_of_jobs_that_is_none_is_refused(jobs: Any, tmp_path: Path) -> None:
    with pytest.raises(VostrackError, match="jobs must be a whole number, 1 or more"):
        score_folders(*folders(tmp_path), jobs=jobs)
