"""Which files of a folder are the frames of a clip.

Only names are looked at. What is left out is said, and what could be meant in two ways is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise, permutations
from pathlib import Path, PurePath

from vostrack.errors import InputError
from vostrack.files import shown
from vostrack.notes import Code, Note
from vostrack.video.stream import reason

FILM_ENDINGS = (".dpx", ".exr")
"""Endings of images that are frames where no others have numbers; beside those they are often masters or passes."""
ENDINGS = (".avif", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the images that are read as frames."""

# Pictures too, that nobody here can read, or not among others.
_UNREAD = re.compile(
    r"\.(arw|cin|cr2|cr3|dng|dpx|exr|gif|hdr|heic|heif|hif|j2k|jp2|jxl|nef|orf|pam|pbm|pgm|pnm|ppm|psd|raf|rw2|tga)"
)
VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""Usual endings of videos, which the images of a clip or a mask cannot have."""
_SEPARATORS = " _.-"
# What is added to the name of a copy. Several photos may be of one second, as `20230101_120000_1` tells.
_COPY = re.compile(r"(.*\d)([_-]\d+| ?\(\d+\))", re.DOTALL)
_LEAST_TIME = 10**9
# So many copies of each frame, at most, are told from frames within a second.
_MOST_COPIES, _NEARLY = 4, 0.9
# So many views of a scene may share a folder; what is rarer among its images is no series.
_MOST_SERIES = 10
_MOST_NAMED = 3


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorting key that reads digits as numbers; names that differ in zeros or case only stay apart."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def frame_files(folder: Path) -> tuple[list[Path], list[Note]]:
    """The images of a folder that are frames, in natural order, and notes on what is left out or missing.

    Where half of the images or more are numbered in one way, those without a number (`mask.png` beside `00000.jpg`) and
    those named after a frame (`00000_mask.png`, `00000 (1).jpg`) are left out.

    Raises:
        InputError: the folder cannot be read or holds no images; two would share the name of a mask, or have the same
            number; there are several series; each frame has copies; numbers are below zero; or a frame is of a kind
            that cannot be read.
    """
    files = _files(folder)
    images = _images(folder, files)
    _refuse_below_zero([path.stem for path in images], folder)
    frames, left = _frames([path.stem for path in images], folder)
    others = [path for path in {*files} - {*images} if path.stem not in frames]
    unread = [path for path in others if path.suffix.lower() in ENDINGS or _UNREAD.fullmatch(path.suffix.lower())]
    shapes = Counter(map(_shape, frames))
    if holes := [path.name for path in unread if "#" in _shape(path.stem) and _shape(path.stem) in shapes]:
        raise InputError(
            f"{_listed(sorted(holes, key=natural_key))} in {str(folder)!r} cannot be read, and seem to be frames: "
            "convert them to PNG or JPEG, or move them to another folder"
        )
    paths = sorted((path for path in images if path.stem in frames), key=lambda path: natural_key(path.stem))
    notes = _repeats([path.stem for path in paths], folder) + _holes([path.stem for path in paths])
    if len(paths) > 1 and not any("#" in shape for shape in shapes):
        order = _listed([path.name for path in paths])
        notes.append(Note(Code.FRAMES_ORDER, f"names without numbers: frames are taken in the order {order}"))
    if left_out := sorted([path.name for path in images if path.stem in left] + [path.name for path in unread]):
        notes.append(Note(Code.IMAGES_LEFT_OUT, f"left out, since not named like the frames: {_listed(left_out)}"))
    return paths, notes


def by_number(files: Sequence[str]) -> dict[int, int]:
    """Frames by the last number in the names of their files, given in order; each number for its first frame."""
    numbers = [(re.findall(r"[0-9]{1,9}", PurePath(name).stem), index) for index, name in enumerate(files)]
    return {int(found[-1]): index for found, index in reversed(numbers) if found}


def numbered(files: Sequence[str], number: int) -> str:
    """Which frame the file of a number is, to be added to a message that there is no such frame; empty if none is."""
    index = by_number(files).get(number)
    return "" if index is None else f"; {shown(files[index])} is frame {index}"


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
    images, film = _ending(entries, ENDINGS), _ending(entries, FILM_ENDINGS)
    if len(film) > len(images) and not any("#" in _shape(path.stem) for path in images):
        images = film
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


def _ending(entries: Sequence[Path], endings: Sequence[str]) -> list[Path]:
    """Files with some endings, also links that lead nowhere: such a frame is missing, and reading it says so."""
    return [path for path in entries if path.suffix.lower() in endings and (path.is_file() or path.is_symlink())]


def _no_images(folder: Path, entries: Sequence[Path]) -> str:
    if {"masks", "summary.json"} <= {entry.name for entry in entries}:
        return f"folder {str(folder)!r} is what a run wrote, and holds no frames: give the clip of the run"
    found = ", ".join(sorted({shown(entry.suffix.lower() or entry.name) for entry in entries})[:5]) or "nothing"
    videos = sorted(entry.name for entry in entries if entry.suffix.lower() in (*VIDEO_ENDINGS, ".gif"))
    fix = f"give the video itself, such as {shown(videos[0])}" if videos else "give the folder that the frames lie in"
    known = ", ".join(sorted(ENDINGS + FILM_ENDINGS))
    return f"folder {str(folder)!r} holds no images: expected {known}, found {found}; {fix}"


def _frames(stems: Sequence[str], folder: Path) -> tuple[set[str], set[str]]:
    """Stems of images that are frames, and those of images that are not."""
    series: dict[str, set[str]] = defaultdict(set)
    for stem in stems:
        series[_shape(stem)].add(stem)
    numbered = {stem: shape for shape, stems in series.items() if "#" in shape for stem in stems}
    left: set[str] = set()
    for shape in sorted(series, key=lambda shape: len(series[shape])):
        owners = _named_after(series[shape], numbered) - {shape}
        if any(len(series[owner]) >= len(series[shape]) for owner in owners if owner in series):
            left |= series.pop(shape)
    total = sum(map(len, series.values()))
    main = max(series, key=lambda shape: (len(series[shape]), shape))
    if "#" in main and 2 * len(series[main]) >= total:
        for shape in [shape for shape in series if "#" not in shape]:
            left |= series.pop(shape)
    _refuse_several(series, main, total, folder)
    return set().union(*series.values()), left


def _refuse_several(series: Mapping[str, set[str]], main: str, total: int, folder: Path) -> None:
    """Refuse images that are numbered in another way than most, or as others are."""
    numbers = {shape: _numbers(stems, folder) for shape, stems in series.items() if "#" in shape}
    half, most = 2 * len(series[main]) >= total, 2 * len(series[main]) > total and len(series[main]) > 2
    large = [shape for shape in numbers if _MOST_SERIES * len(series[shape]) >= total]
    pairs = [(main, shape) for shape in series if half and shape != main and "#" in main]
    for one, other in [*pairs, *permutations(large, 2)]:
        stems = series[other]
        shared = len(numbers[one] & numbers[other]) if len(stems) > 1 or most else 0
        if (most and one == main and _letters(other) != _letters(main)) or 0 < len(stems) <= 2 * shared:
            examples = _listed([min(series[one], key=natural_key), min(stems, key=natural_key)])
            raise InputError(
                f"folder {str(folder)!r} holds {len(series[one])} and {len(stems)} images that are named in different "
                f"ways, such as {examples}; move those that are not frames to another folder"
            )


def _shape(stem: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", stem.casefold())


def _letters(shape: str) -> str:
    return "".join(filter(str.isalpha, shape))


def _numbers(stems: set[str], folder: Path) -> set[tuple[int, ...]]:
    """The numbers in names of one shape; raises `InputError` where they are the same."""
    found: dict[tuple[int, ...], str] = {}
    for stem in sorted(stems):
        numbers = tuple(map(int, re.findall(r"\d+", stem)))
        if found.setdefault(numbers, stem) != stem:
            raise InputError(
                f"images {_listed([found[numbers], stem])} in {str(folder)!r} have the same number; keep one of them, "
                "and move the others to another folder"
            )
    return set(found)


def _named_after(stems: set[str], frames: Mapping[str, str]) -> set[str]:
    """Shapes of which each name is that of a frame with something added: `00000_mask`, `mask_00000`, `00000 (1)`."""
    return set.intersection(*({frames[part] for part in _parts(stem) if part in frames} for stem in stems))


def _parts(stem: str) -> list[str]:
    """What is left of a name without the words at its end, those at its start, or the number of a copy."""
    cuts = [position for position, character in enumerate(stem) if character in _SEPARATORS]
    heads = [stem[:cut] for cut in cuts if stem[cut + 1 : cut + 2].isalpha()]
    tails = [stem[cut + 1 :] for cut in cuts if any(map(str.isalpha, stem[:cut]))]
    copy = _COPY.fullmatch(stem)
    if copy and (copy[2].startswith(" ") or int("".join(re.findall(r"\d", copy[1]))) < _LEAST_TIME):
        heads.append(copy[1])
    return heads + tails


def _refuse_below_zero(stems: Sequence[str], folder: Path) -> None:
    """Refuse names whose last number has a sign, since in most names `-` is none."""
    shapes = {_shape(stem): stem for stem in stems}
    for shape, stem in shapes.items():
        head, _, tail = shape.rpartition("#")
        if head.endswith("-") and (head[:-1] + "#" + tail in shapes or head[-2:-1] in ("", "_", ".")):
            raise InputError(
                f"image {shown(stem)} in {str(folder)!r} may have a number below zero: rename the images, such that "
                "their numbers count up from 0"
            )


def _repeats(stems: Sequence[str], folder: Path) -> list[Note]:
    """A note where numbers start again, as those of a second view do; raises `InputError` where all have copies."""
    rows = [re.findall(r"\d+", stem) for stem in stems]
    if len({_shape(stem) for stem in stems}) > 1 or len(stems) < 6:
        return []
    varied = [column for column in map(set, zip(*rows, strict=True)) if len(column) > 1]
    if len(varied) != 2 or len(stems) < _NEARLY * len(varied[0]) * len(varied[1]):
        return []
    first, last = (sorted(map(int, column)) for column in varied)
    if len(last) < len(first):
        in_turn = len(last) <= _MOST_COPIES and last == [*range(last[0], last[0] + len(last))] and last[0] <= 2
        if in_turn and int("".join(rows[0][:-1])) < _LEAST_TIME:
            raise InputError(
                f"folder {str(folder)!r} holds {len(last)} images for each number, such as {_listed(stems[:2])}: move "
                "all but one of each to another folder, or, if all are frames, give them one number that counts up"
            )
    elif len(first) <= _MOST_SERIES:
        again = [after for before, after in pairwise(stems) if _last(after) < _last(before)]
        text = f"numbers start again at {_listed(again)}: taken as one clip, one part after the other"
        return [Note(Code.FRAMES_AGAIN, text)]
    return []


def _last(stem: str) -> int:
    return int(re.findall(r"\d+", stem)[-1])


def _holes(stems: Sequence[str]) -> list[Note]:
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
    return [Note(Code.FRAMES_MISSING, f"frames may be missing: the numbers jump after {_listed(after)}")]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(shown, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
