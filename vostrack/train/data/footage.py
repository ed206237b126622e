"""What there is to train on: finds videos, folders of frames, single images and masks on the disk.

Only names are looked at; nothing is decoded. Knows nothing of caches and training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from vostrack.benchmark.datasets.layouts import IMAGES, VIDEOS
from vostrack.benchmark.datasets.mask_folders import list_folder, list_frames
from vostrack.errors import DatasetError
from vostrack.files import shown

_VIDEOS = (*VIDEOS, ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp")
_MASKS = "Annotations"
LAYOUT = f"JPEGImages/480p/NAME/ or clips/NAME.mp4, and {_MASKS}/480p/NAME/00000.png for its frames"


@dataclass(frozen=True)
class Source:
    """A clip that can be decoded.

    Attributes:
        path: a video, a folder of images, or an image.
        masks: folder of its masks, `FRAME.png`, or None where there are none.
        still: whether it is a single image.
        all_frames: whether every frame is kept, however many there are a second.
    """

    path: Path
    masks: Path | None = None
    still: bool = False
    all_frames: bool = False


def find_footage(roots: Sequence[Path]) -> list[Source]:
    """Videos and folders of at least two images below some folders, in order of name; masks are no footage.

    Raises:
        DatasetError: a folder does not exist, or nothing that looks like footage is in it.
    """
    found = [Source(path) for root in roots for path in sorted(_clips(_folder(root)))]
    if not found:
        raise DatasetError(
            f"no videos and no folders of images in {_listed(roots)}: give the folder that holds your clips as `data`, "
            "or one of single images as `stills`"
        )
    return found


def find_stills(roots: Sequence[Path]) -> list[Source]:
    """Images below some folders, in order of name.

    Raises:
        DatasetError: a folder does not exist or holds no images.
    """
    found = [
        Source(folder / name, still=True)
        for root in roots
        for folder, names in _walk(_folder(root))
        for name in names
        if Path(name).suffix.lower() in IMAGES
    ]
    if not found:
        raise DatasetError(f"no images in {_listed(roots)}: give the folder that holds them as `stills`")
    return found


def drawn(sources: Sequence[Source], count: int, seed: int) -> list[Source]:
    """Some of the sources, chosen by a seed, in their order.

    Raises:
        DatasetError: there are fewer.
    """
    if count > len(sources):
        raise DatasetError(f"there are {len(sources)} clips and images, and `clips` asks for {count}: give more `data`")
    return [sources[index] for index in sorted(Random(seed).sample(range(len(sources)), count))]


def find_labelled(roots: Sequence[Path], argument: str = "data") -> list[Source]:
    """Clips with masks in folders laid out as DAVIS is, in order of name.

    Masks lie in `Annotations/480p/NAME` or `Annotations/NAME`, the frames that they belong to in a folder `NAME` of
    `JPEGImages/480p` or `JPEGImages`, or in a video `NAME` of `clips` or of the folder itself.

    Args:
        roots: such folders.
        argument: by which they were given, for messages.

    Raises:
        DatasetError: a folder is not laid out like this, or masks have no frames.
    """
    found = []
    for root in map(_folder, roots):
        folder = next((path for path in (root / _MASKS / "480p", root / _MASKS) if path.is_dir()), None)
        names = [name for name in list_folder(folder) if list_frames(folder / name)] if folder else []
        if folder is None or not names:
            raise DatasetError(f"there are no masks in {shown(root)}: expected `{argument}` to hold {LAYOUT}")
        found += [Source(_frames(root, name), folder / name) for name in names]
    return found


def _frames(root: Path, name: str) -> Path:
    """Where the frames of an annotated clip are."""
    folders = (root / "JPEGImages" / "480p" / name, root / "JPEGImages" / name)
    videos = [folder / f"{name}{ending}" for folder in (root / "clips", root) for ending in sorted(_VIDEOS)]
    found = (*(folder for folder in folders if folder.is_dir()), *(path for path in videos if path.is_file()))
    # A link that leads nowhere is left out when it is decoded, with a note.
    for path in (*found, *(path for path in (*folders, *videos) if path.is_symlink())):
        return path
    raise DatasetError(f"{shown(root)} has masks for {shown(name)}, but not its frames: expected {LAYOUT}")


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {shown(root)}: check the path")
    return root


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(map(shown, roots))


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below a root, with their files in order; hidden ones and masks are left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != _MASKS)
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def _clips(root: Path) -> Iterator[Path]:
    for folder, names in _walk(root):
        endings = [Path(name).suffix.lower() for name in names]
        if sum(ending in IMAGES for ending in endings) > 1:
            yield folder
        yield from (folder / name for name, ending in zip(names, endings, strict=True) if ending in _VIDEOS)
