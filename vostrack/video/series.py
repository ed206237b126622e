"""Which files of a folder are the frames of a clip.

Only names are looked at. What is left out is said, and what could be meant in two ways is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from vostrack.errors import InputError
from vostrack.files import shown
from vostrack.video.stream import reason

ENDINGS = (".avif", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the images that are read as frames."""

# Pictures too, that nobody here can read.
_UNREAD = re.compile(
    r"\.(arw|cin|cr2|cr3|dng|dpx|exr|gif|hdr|heic|heif|hif|j2k|jp2|jxl|nef|orf|pam|pbm|pgm|pnm|ppm|psd|raf|rw2|tga)"
)
_VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_SEPARATORS = " _.-"
_MOST_NAMED = 3


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key that reads digits as numbers; names that differ in zeros or case only stay apart."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def frame_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The images of a folder that are frames, in natural order, and notes on what is left out or missing.

    Where half of the images or more are numbered in one way, those without a number (`mask.png` beside `00000.jpg`) and
    those named after a frame (`00000_mask.png`) are left out.

    Raises:
        InputError: the folder cannot be read or holds no images; two would share the name of a mask; there are several
            series; or a frame is of a kind that cannot be read.
    """
    files = _files(folder)
    images = _images(folder, files)
    frames, left = _frames([path.stem for path in images], folder)
    unread = [path for path in files if _UNREAD.fullmatch(path.suffix.lower()) and path.stem not in frames]
    shapes = Counter(map(_shape, frames))
    if holes := [path.name for path in unread if "#" in _shape(path.stem) and _shape(path.stem) in shapes]:
        raise InputError(
            f"{_listed(sorted(holes, key=natural_key))} in {str(folder)!r} cannot be read, and seem to be frames: "
            "convert them to PNG or JPEG, or move them to another folder"
        )
    paths = sorted((path for path in images if path.stem in frames), key=lambda path: natural_key(path.stem))
    notes = _holes([path.stem for path in paths])
    if len(paths) > 1 and not any("#" in shape for shape in shapes):
        notes.append(f"names without numbers: frames are taken in the order {_listed([path.name for path in paths])}")
    if left_out := sorted([path.name for path in images if path.stem in left] + [path.name for path in unread]):
        notes.append(f"left out, since not named like the frames: {_listed(left_out)}")
    return paths, notes


def image_files(folder: Path, stems: Collection[str]) -> list[Path]:
    """The images of given stems, which must be there, in natural order.

    Raises:
        InputError: the folder cannot be read or holds no images; two would share the name of a mask.
    """
    images = (path for path in _images(folder, _files(folder)) if path.stem in stems)
    return sorted(images, key=lambda path: natural_key(path.stem))


def _files(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden files."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be read: {reason(error, 'check who owns it')}") from error


def _images(folder: Path, entries: Sequence[Path]) -> list[Path]:
    """The images, at least one, with different stems."""
    # A link that leads nowhere counts as well: it is a frame that is missing, and reading it will say so.
    images = [path for path in entries if path.suffix.lower() in ENDINGS and (path.is_file() or path.is_symlink())]
    if not images:
        raise InputError(_no_images(folder, entries))
    stem, times = Counter(path.stem for path in images).most_common(1)[0]
    if times > 1:
        names = _listed(sorted(path.name for path in images if path.stem == stem))
        raise InputError(
            f"images {names} in {str(folder)!r} would share one mask; keep one of them, and move the others, such as "
            "masks, to another folder"
        )
    return images


def _no_images(folder: Path, entries: Sequence[Path]) -> str:
    found = ", ".join(sorted({shown(entry.suffix.lower() or entry.name) for entry in entries})[:5]) or "nothing"
    videos = sorted(entry.name for entry in entries if entry.suffix.lower() in _VIDEOS)
    fix = f"give the video itself, such as {shown(videos[0])}" if videos else "give the folder that the frames lie in"
    return f"folder {str(folder)!r} holds no images: expected {', '.join(ENDINGS)}, found {found}; {fix}"


def _frames(stems: Sequence[str], folder: Path) -> tuple[set[str], set[str]]:
    """Stems of images that are frames, and those of images that are not."""
    series: dict[str, set[str]] = defaultdict(set)
    for stem in stems:
        series[_shape(stem)].add(stem)
    left: set[str] = set()
    for shape in sorted(series, key=lambda shape: len(series[shape])):
        if any(
            "#" in other and len(series[other]) >= len(series[shape]) and _named_after(series[shape], series[other])
            for other in series
            if other != shape
        ):
            left |= series.pop(shape)
    total = sum(map(len, series.values()))
    main = max(series, key=lambda shape: (len(series[shape]), shape))
    if "#" in main and 2 * len(series[main]) >= total:
        for shape in [shape for shape in series if "#" not in shape]:
            left |= series.pop(shape)
    _refuse_several(series, main, total, folder)
    return set().union(*series.values()), left


def _refuse_several(series: Mapping[str, set[str]], main: str, total: int, folder: Path) -> None:
    """Refuse images that are numbered in another way than most, or as those of another series are."""
    for shape, stems in series.items():
        if _letters(shape) == _letters(main) or "#" not in main:
            continue
        stranger = 2 * len(series[main]) > total and len(series[main]) > 2
        shared = _numbers(stems) & _numbers(series[main])
        if stranger or (len(stems) > 1 and 2 * len(shared) >= len(stems) and len(series[main]) + len(stems) == total):
            examples = _listed([min(series[main], key=natural_key), min(stems, key=natural_key)])
            raise InputError(
                f"folder {str(folder)!r} holds {len(series[main])} and {len(stems)} images that are named in different "
                f"ways, such as {examples}; move those that are not frames to another folder"
            )


def _shape(stem: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", stem.casefold())


def _letters(shape: str) -> str:
    return "".join(filter(str.isalpha, shape))


def _numbers(stems: set[str]) -> set[tuple[int, ...]]:
    return {tuple(map(int, re.findall(r"\d+", stem))) for stem in stems}


def _named_after(stems: set[str], frames: set[str]) -> bool:
    """Whether each name is that of a frame with words before or after it: `00000_mask`, `mask_00000`."""
    return all(any(part in frames for part in _parts(stem)) for stem in stems)


def _parts(stem: str) -> list[str]:
    """What is left of a name without the words at its end, or those at its start."""
    cuts = [position for position, character in enumerate(stem) if character in _SEPARATORS]
    heads = [stem[:cut] for cut in cuts if stem[cut + 1 : cut + 2].isalpha()]
    tails = [stem[cut + 1 :] for cut in cuts if any(map(str.isalpha, stem[:cut]))]
    return heads + tails


def _holes(stems: Sequence[str]) -> list[str]:
    """A note where the numbers of a series have a few gaps."""
    if len({_shape(stem) for stem in stems}) > 1 or len(stems) < 4:
        return []
    numbers = [(re.findall(r"\d+", stem) or [""])[-1] for stem in stems]
    if not all(numbers):
        return []
    steps = [int(after) - int(before) for before, after in pairwise(numbers)]
    usual = Counter(steps).most_common(1)[0][0]
    after = [stems[index] for index, step in enumerate(steps) if step > usual]
    if usual < 1 or not after or len(after) > max(1, len(steps) // 10):
        return []
    return [f"frames may be missing: the numbers jump after {_listed(after)}"]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(shown, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
