"""A finished run of the fake method over a clip of eight frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import NAME, register, truth, write_clip
from vostrack.run.segment import segment


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output folder, which nobody may write to; objects are dog, 3, and cat, 200."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        register(patch, folder / "weights")
        clip = write_clip(folder / "clip.mp4", 8)
        segment(clip, truth(), folder / "run", method=NAME, outputs=(), names={3: "dog", 200: "cat"})
    return folder / "run"


@pytest.fixture(scope="session")
def quick_disk() -> Iterator[None]:
    """Files are not flushed to the disk, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
