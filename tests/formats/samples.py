"""Masks to export: folders of palette PNGs, which `export` takes in a run's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import vostrack
from vostrack.run.given import Known, choose_masks
from vostrack.video.masks import Prompts, read_prompts
from vostrack.video.palette import palette_image

SIZE = (6, 8)
BOX = [1, 1, 4, 1, 4, 3, 1, 3]
"""A polygon over rows 1 and 2 and columns 1 to 3."""


def clips() -> st.SearchStrategy[list[np.ndarray]]:
    """One to three small masks of one size, none empty: holes, single pixels, objects that touch the border."""
    sides = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
    masks = sides.flatmap(lambda shape: arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 7, 254])))
    return masks.filter(np.any).map(lambda array: [array[..., n].copy() for n in range(array.shape[2])])


def write_masks(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    """A folder of masks, `00000.png` and on."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(frames):
        palette_image(pixels).save(folder / f"{index:05d}.png")
    return folder


@contextmanager
def exported(frames: Sequence[np.ndarray], name: str, ending: str, **settings: Any) -> Iterator[Path]:
    """What masks are exported to; their clip is called `clip`, and is grey."""
    with TemporaryDirectory() as folder:
        run, clip = write_masks(Path(folder, "run"), frames), Path(folder, "clip")
        clip.mkdir()
        for index, pixels in enumerate(frames):
            Image.new("RGB", pixels.shape[::-1], (90, 90, 90)).save(clip / f"{index:05d}.png")
        vostrack.export(run, name, Path(folder, f"out{ending}"), clip=clip, **settings)
        yield Path(folder, f"out{ending}")


def clip_folder(path: Path, stems: list[str], size: tuple[int, int] = SIZE) -> Path:
    path.mkdir(parents=True)
    for stem in stems:
        Image.new("RGB", size[::-1], (90, 90, 90)).save(path / f"{stem}.png")
    return path


def prompts(clip: object, masks: Any, size: tuple[int, int] = SIZE, known: Known | None = None, **more: Any) -> Prompts:
    _, chosen = choose_masks(clip, more.get("chosen"), masks, known=known)
    return read_prompts(chosen, size)
