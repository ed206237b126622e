"""Small datasets in the layouts of the real ones, with the pictures that the fake method follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests import fakes
from vostrack.video.palette import palette_image

SIZE = fakes.SIZE


def frames(folder: Path, count: int, names: Sequence[str] | None = None) -> None:
    """JPEG frames 00000.jpg and so on, or of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(fakes.pictures(count)):
        name = names[index] if names else f"{index:05d}"
        Image.fromarray(picture).save(folder / f"{name}.jpg", quality=95)


def mask(path: Path, index: int, ids: Sequence[int] = (1, 2), binary: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = fakes.truth(index, ids)
    if binary:
        Image.fromarray(np.where(labels > 0, np.uint8(255), np.uint8(0))).save(path)
    else:
        palette_image(labels).save(path)


def masks(folder: Path, count: int, ids: Sequence[int] = (1, 2), binary: bool = False, step: int = 1) -> None:
    for index in range(0, count, step):
        mask(folder / f"{index:05d}.png", index, ids, binary)


def davis16(root: Path, names: Sequence[str] = ("cat", "dog"), count: int = 6) -> Path:
    lines = []
    for name in names:
        frames(root / "JPEGImages" / "480p" / name, count)
        masks(root / "Annotations" / "480p" / name, count, (1,), binary=True)
        pair = "/JPEGImages/480p/{0}/{1:05d}.jpg /Annotations/480p/{0}/{1:05d}.png "
        lines += [pair.format(name, index) for index in range(count)]
    write(root / "ImageSets" / "480p" / "val.txt", lines)
    return root


def davis17(root: Path, split: str = "val", names: Sequence[str] = ("cat", "dog"), count: int = 6) -> Path:
    for name in names:
        frames(root / "JPEGImages" / "480p" / name, count)
        masks(root / "Annotations" / "480p" / name, 1 if split == "test-dev" else count)
    write(root / "ImageSets" / "2017" / f"{split}.txt", names)
    return root


def ytvos(root: Path, split: str = "valid", count: int = 6) -> Path:
    """One video: object 2 appears with the third frame; the last frame is not listed."""
    names = [f"{5 * index:05d}" for index in range(count)]
    frames(root / split / "JPEGImages" / "a1b2", count, names)
    folder = root / split / "Annotations" / "a1b2"
    for index, name in enumerate(names):
        if split == "train" or index in (0, 2):
            mask(folder / f"{name}.png", index, (1, 2) if index >= 2 else (1,))
    listed = {"1": {"category": "cat", "frames": names[:-1]}, "2": {"category": "dog", "frames": names[2:-1]}}
    (root / split / "meta.json").write_text(json.dumps({"videos": {"a1b2": {"objects": listed}}}))
    return root


def mose(root: Path, split: str = "valid", count: int = 6) -> Path:
    """One video; the validation split has its first mask alone."""
    frames(root / split / "JPEGImages" / "0a1b", count)
    masks(root / split / "Annotations" / "0a1b", 1 if split == "valid" else count)
    return root


def lvos(root: Path, split: str = "valid", count: int = 6) -> Path:
    """One video of every fifth frame with names of eight digits; object 2 appears with the third."""
    names = [f"{5 * index + 1:08d}" for index in range(count)]
    frames(root / split / "JPEGImages" / "7QkMj", count, names)
    for index, name in enumerate(names):
        if split != "test" or index in (0, 2):
            mask(root / split / "Annotations" / "7QkMj" / f"{name}.png", index, (1, 2) if index >= 2 else (1,))
    return root


def vost(root: Path, count: int = 6) -> Path:
    """One video with masks of every other frame, the left margin of which is to be ignored."""
    name, names = "555_tear_foil", [f"frame{6 * index:05d}" for index in range(count)]
    frames(root / "JPEGImages" / name, count, names)
    folder = root / "Annotations" / name
    folder.mkdir(parents=True)
    for index in range(0, count, 2):
        labels = fakes.truth(index, (1, 2)).astype(np.uint8)
        labels[:, :4] = 255
        palette_image(labels).save(folder / f"{names[index]}.png")
    write(root / "ImageSets" / "val.txt", [name])
    return root


def segtrack2(root: Path, count: int = 5) -> Path:
    """A sequence with one object, and one with a folder for each of two."""
    for name in ("bird", "bmx"):
        frames(root / "JPEGImages" / name, count)
    masks(root / "GroundTruth" / "bird", count, (1,), binary=True)
    for index in range(count):
        for number in (1, 2):
            labels = np.where(fakes.truth(index, (1, 2)) == number, np.uint8(230), np.uint8(9))
            path = root / "GroundTruth" / "bmx" / str(number) / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(path)
    return root


def youtube_objects(root: Path, count: int = 12) -> Path:
    for name in ("cat_0001", "dog_0003"):
        frames(root / "JPEGImages" / name, count)
        masks(root / "Annotations" / name, count, (1,), binary=True, step=5)
    return root


def jumpcut(root: Path, count: int = 40) -> Path:
    frames(root / "JPEGImages" / "bear", count)
    masks(root / "Annotations" / "bear", count, (1,), binary=True)
    return root


def folder(root: Path, count: int = 6) -> Path:
    frames(root / "JPEGImages" / "240p" / "mine", count)
    masks(root / "Annotations" / "240p" / "mine", count, (3, 200))
    return root


def videos(root: Path, count: int = 6) -> Path:
    (root / "clips").mkdir(parents=True)
    fakes.write_clip(root / "clips" / "mine.mp4", count)
    masks(root / "Annotations" / "mine", count, (3, 200))
    return root


def write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


TREES: Mapping[str, Callable[..., Path]] = {
    "davis16": davis16,
    "davis17": davis17,
    "ytvos18": ytvos,
    "ytvos19": ytvos,
    "mose": mose,
    "mose2": mose,
    "lvos": lvos,
    "lvos2": lvos,
    "vost": vost,
    "segtrack2": segtrack2,
    "youtube-objects": youtube_objects,
    "jumpcut": jumpcut,
    "folder": folder,
}
