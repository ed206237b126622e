"""Reading the masks that users bring, from files, images and arrays, to label maps.

What an image means is decided by its content, never by its name, and everything that was assumed is said in notes.
Files are untrusted. `snap` deals with soft edges, `mask_labels` and `shared_ids` with ids. Knows nothing of video.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vostrack.errors import MaskError, damage_as
from vostrack.files import nearest, shown
from vostrack.notes import Code, Note
from vostrack.types import BACKGROUND, MAX_OBJECTS, VOID, LabelMap
from vostrack.video import flaws, mask_labels
from vostrack.video.ground import Color, Reading, check_ground, inverted
from vostrack.video.images import is_lossy
from vostrack.video.mask_labels import Labels, listed, object_ids
from vostrack.video.object_names import Names, checked_names, fixed_ids, names_by_id, names_of_known
from vostrack.video.series import natural_key
from vostrack.video.shared_ids import share_ids
from vostrack.video.snap import Bytes
from vostrack.video.stream import MAX_PIXELS, first_line, is_stretched, reason, size_text

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_MAX_BYTES = 256 * 2**20
# How Pillow decodes a PNG in colours of 16 bits: it keeps the upper byte of each; read from the other end, the lower.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}

PLAIN = Reading()


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask that was read.

    Attributes:
        labels: the objects; `ids` ascend, and each has a pixel.
        notes: what a user may want to know, one line each: what was assumed, resized or snapped.
        colors: by id, the colour (R, G, B) that an object was painted in, where it was painted in one.
        names: by id, the name of its file, where each object has a file of its own that is named after it.
    """

    labels: LabelMap
    notes: tuple[Note, ...]
    colors: Mapping[int, Color] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """A mask that is drawn when the size of the clip is known.

    Attributes:
        name: what messages call it.
        path: of the file that it is from.
        kind: what that file is, in words.
        size: (H, W) at which it is drawn; None for that of the clip.
        draw: gives it, for a size (H, W) of the clip; it may have another size, and raises `MaskError`.
    """

    name: str
    path: Path
    kind: str
    size: tuple[int, int] | None
    draw: Callable[[tuple[int, int]], MaskFile]


GivenMask = str | Path | Image.Image | npt.NDArray[Any] | Tensor | LabelMap | DrawnMask
"""What can be given as the mask of a frame."""


def mask_paths(masks: Mapping[int, GivenMask]) -> list[Path]:
    """The files that masks are in."""
    paths = [mask.path if isinstance(mask, DrawnMask) else mask for mask in masks.values()]
    return [Path(path) for path in paths if isinstance(path, str | Path)]


class Prompts(NamedTuple):
    """The masks of several frames.

    Attributes:
        labels: by frame, frames ascending, of masks that show an object.
        notes: all notes, each with the name of its mask.
        colors, names: of the objects, as in the first mask that tells.
        empty: frames after the first whose masks are all background: no object is there.
    """

    labels: dict[int, LabelMap]
    notes: list[Note]
    colors: dict[int, Color]
    names: dict[int, str]
    empty: list[int]


@dataclass(frozen=True, slots=True)
class _Request:
    """What a mask has to fit, sizes (H, W), and how it is read."""

    size: tuple[int, int]
    reading: Reading
    stored_size: tuple[int, int] | None


def read_mask(
    path: str | Path,
    size: tuple[int, int],
    *,
    resize: bool = False,
    background: int | Color | None = None,
    invert: bool = False,
    no_background: bool = False,
    stored_size: tuple[int, int] | None = None,
) -> MaskFile:
    """Read a mask from an image (PNG, JPEG, WEBP, AVIF, TIFF, BMP, GIF) or from a folder with one image per object.

    In an image, the first that fits of:

    - palette (not GIF): the index is the id, 255 is void; 255 alone is object 1. Where the ground is black or
      transparent and not index 0, colours count.
    - alpha that differs from pixel to pixel: objects are where it is over half of its maximum, told apart by their
      colours if these are flat, with black as background; a photo or one shade of grey is object 1. A constant alpha
      means nothing.
    - grey, also as R = G = B, also of 16 or 32 bits: values are ids, 255 (65535) is void. But white alone is object 1,
      and values spread evenly from black to white (0, 128, 255) are objects 1 to n. A 16-bit image that uses the whole
      range, or multiples of 256 or 257 alone, is reduced to 8 bits. Saved as RGB, greys of the DAVIS palette alone are
      colours.
    - colours on black: white alone is object 1; if all are in the DAVIS palette, that gives the ids, with white as
      void; else ids are 1 to n in the order of (R, G, B).

    Soft edges and compression noise in grey and colour images are snapped to the solid colours (`snap`), except that
    up to 16 values without any solid area that cannot be blends are objects. The EXIF rotation is applied.

    Where nothing is black, a nearly black ground is background, and grey from 16 to 235 goes from black to white. A
    mask that has no background all the same, or an object over most of the frame and of its border, is refused.

    In a folder, each image holds one object. Files with different numbers from 1 to 254 at the end of their names
    (`3.png`, `obj_3.png`) have these as ids, else ids are 1 to n in natural order. Later files cover earlier ones.

    Args:
        path: an image file or a folder.
        size: (H, W) of the clip as displayed.
        resize: whether a mask of another size and the same shape, within 2%, is scaled, without new values.
        background: what is background beside transparent pixels: a colour (R, G, B) of 0 to 255, or one grey value or
            palette index; None for 0, black or what is clearly meant.
        invert: whether object and background change places, in masks of one object.
        no_background: whether objects may fill the frame.
        stored_size: (H, W) of the clip's frames as stored, before rotation and before pixels were made square: `resize`
            accepts a mask of that size as well, and messages can say what is wrong with it.

    Raises:
        MaskError: missing, no image, a photo, of the wrong size, without an object or background, or with ids above
            254.
    """
    path, reading = Path(path), Reading(resize, background, invert, no_background)
    return _finish(_load(path, shown(path.name), _Request(size, reading, stored_size)), {})


def read_prompts(
    masks: Mapping[int, GivenMask],
    size: tuple[int, int],
    reading: Reading = PLAIN,
    stored_size: tuple[int, int] | None = None,
    known: Prompts | None = None,
    names: Names | None = None,
) -> Prompts:
    """Read the masks of several frames; see `read_mask` for files, `array_labels` for arrays and tensors.

    A PIL image means what its file would. A `LabelMap` is taken as it is, at most resized. A colour is the same
    object in all masks, with the id that it has in the first, and an object whose id was chosen here, since it is in
    another colour or alone, is refused in the place of a known object with another id.

    Args:
        masks: by frame.
        size: (H, W) of the clip as displayed.
        reading: how they are read.
        stored_size: (H, W) of the clip's frames as stored.
        known: masks that were read before, of the same clip; they come back beside the new ones, which replace those of
            their frames.
        names: of objects, by what they are painted in. Colours get ids in this order, from 1 on, where nothing is
            known; known objects are meant by their ids, colours and names too, and get these names.

    Raises:
        MaskError: a mask cannot be used, or a name is of no object.
    """
    known, wanted = known or Prompts({}, [], {}, {}, []), checked_names(names or {})
    request, said = _Request(size, reading, stored_size), _mask_names(masks)
    first = min((*said, *known.labels), default=0)
    loaded = {frame: _load(masks[frame], said[frame], request, later=frame > first) for frame in said}
    empty = [frame for frame, mask in loaded.items() if not _shows_any(mask)]
    for frame in empty:
        del loaded[frame]
    labelled: dict[str, Labels | LabelMap] = {
        f"the earlier mask of frame {frame}": labels for frame, labels in known.labels.items() if frame not in said
    }
    labelled |= {said[frame]: each.labels if isinstance(each, MaskFile) else each for frame, each in loaded.items()}
    ids = {number for mask in known.labels.values() for number in mask.ids}
    renamed, wanted = names_of_known(wanted, ids, known.names, known.colors)
    share_ids(labelled, {} if known.labels else fixed_ids(wanted), known.colors)
    named = renamed | names_by_id(wanted, labelled.values())
    files = {frame: _finish(labels, named) for frame, labels in loaded.items()}
    notes = [note.of(said[frame]) for frame, file in files.items() for note in file.notes]
    labels = {frame: old for frame, old in known.labels.items() if frame not in empty}
    labels |= {frame: file.labels for frame, file in files.items()}
    nothing = sorted({*empty, *(frame for frame in known.empty if frame not in said)})
    read = Prompts(dict(sorted(labels.items())), notes, {}, {}, nothing)
    for file in reversed(files.values()):
        read.colors.update(file.colors)
        read.names.update(file.names)
    read.colors.update(known.colors)
    read.names.update(known.names | named)
    return read


def _shows_any(mask: Labels | MaskFile) -> bool:
    """Whether a mask shows an object; a `LabelMap` of the caller's says by its ids that there are some."""
    return bool(mask.labels.ids if isinstance(mask, MaskFile) else object_ids(mask.pixels))


def _mask_names(masks: Mapping[int, GivenMask]) -> dict[int, str]:
    """What messages call masks, each in its own way; frames ascending."""
    paths = {frame: Path(mask) for frame, mask in sorted(masks.items()) if isinstance(mask, str | Path)}
    often = Counter(path.name for path in paths.values())
    files = {frame: shown(path.name if often[path.name] == 1 else path) for frame, path in paths.items()}
    often = Counter(files.values())
    files = {frame: name if often[name] == 1 else f"{name} of frame {frame}" for frame, name in files.items()}
    files |= {frame: mask.name for frame, mask in masks.items() if isinstance(mask, DrawnMask)}
    return {frame: files.get(frame, f"mask of frame {frame}") for frame in sorted(masks)}


def _load(mask: GivenMask, name: str, request: _Request, later: bool = False) -> Labels | MaskFile:
    """Read a mask of any kind; the ids of colours may still change. A `later` one may be all background."""
    where = f"mask {shown(mask)}" if isinstance(mask, str | Path) else f"the {name}"
    where = f"mask {name}" if isinstance(mask, DrawnMask) else where
    if isinstance(mask, LabelMap | DrawnMask):
        file = mask.draw(request.size) if isinstance(mask, DrawnMask) else MaskFile(mask, ())
        _check_size(file.labels.size, request, where)
        pixels, notes = _resized(file.labels.pixels.cpu().numpy(), request.size)
        if not file.labels.ids and not later:
            raise MaskError(f"{where} has no object")
        scaled = LabelMap(torch.from_numpy(pixels), file.labels.ids) if notes else file.labels
        return replace(file, labels=scaled, notes=(*file.notes, *notes))
    if isinstance(mask, str | Path):
        path = Path(mask)
        labels = _read_folder(path, request) if os.path.isdir(path) else _read_file(path, request)
    elif isinstance(mask, Image.Image):
        labels = _fitted(mask_labels.image_labels(_upright(mask), where, request.reading), where, request)
    else:
        labels = _fitted(mask_labels.array_labels(mask, where, request.reading), where, request)
    if not object_ids(labels.pixels) and not (later and not labels.pixels.any()):
        void = " or void (255, neither object nor background)" if labels.pixels.any() else ""
        raise MaskError(f"{where} has no object: all pixels are background{void}; paint the object white")
    return labels


def _read_file(path: Path, request: _Request) -> Labels:
    image, lossy, has_pages = _open_image(path, request)
    where = f"mask {shown(path)}"
    labels = _fitted(mask_labels.image_labels(image, where, request.reading, lossy=lossy), where, request)
    if has_pages:
        text = "it has several pages or frames, and the first alone is read; save others as files of their own"
        labels.notes.append(Note(Code.MASK_PAGES, text))
    return labels


def _open_image(path: Path, request: _Request) -> tuple[Image.Image, bool, bool]:
    """Decode a mask image of an acceptable size; only the first of several frames or pages.

    Args:
        path: the file; untrusted, so its size is checked before anything is decoded.
        request: what the mask has to fit.

    Returns:
        The image, upright, of mode 1, L, LA, P, RGB, RGBA, F, or one of 16 or 32 bits; whether its format is lossy; and
        whether more pages follow.

    Raises:
        MaskError: missing, damaged, no image, or of a size that does not fit.
    """
    where = f"mask {shown(path)}"

    def refusal(error: Exception) -> MaskError:
        if isinstance(error, UnidentifiedImageError):
            return MaskError(f"{where} is not an image; expected one of {', '.join(_FORMATS)}: save it again as a PNG")
        return MaskError(f"{where} cannot be read as an image: {shown(reason(error, 'save it again as a PNG'))}")

    with damage_as(refusal, MaskError):
        if not path.is_file():  # a pipe or a device could block or never end
            fix = nearest(path) or "; expected an image, a folder of masks or a file of annotations"
            raise MaskError(f"{where} is missing{fix}")
        if path.stat().st_size > _MAX_BYTES:
            raise MaskError(f"{where} is larger than {_MAX_BYTES >> 20} MB; save it as a PNG with flat colours")
        # Pillow warns of damage and of large images; what matters of that is an error here. It gets an open file since
        # it maps named ones into memory, and Pillow 13 then scrambles a TIFF that is to be turned.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            Image.open(file, formats=_FORMATS) as image,
        ):
            low = [tile._replace(args=_LOW_BYTES[tile.args]) for tile in image.tile if tile.args in _LOW_BYTES]
            # It turns a TIFF by itself, and tells the size as turned; it may decode a PNG to look for its tags.
            tagged = image.format != "TIFF" and image.width * image.height <= MAX_PIXELS
            turned = tagged and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            found = (image.width, image.height) if turned else (image.height, image.width)
            _check_size(found, request, where)
            indexed, lossy = image.format != "GIF", is_lossy(file, image.format)
            has_pages = bool(getattr(image, "is_animated", False))
            upright = _upright(image, indexed)
            if low and not np.asarray(upright)[..., :3].any():  # ids, of which the upper bytes hold nothing
                file.seek(0)
                with Image.open(file, formats=("PNG",)) as again:
                    again.tile = low
                    upright = _upright(again)
        if (upright.height, upright.width) != found:
            raise ValueError(
                f"its header says {size_text(found)}, it holds {size_text((upright.height, upright.width))}"
            )
        return upright, lossy, has_pages


def _check_size(found: tuple[int, int], request: _Request, where: str) -> None:
    """Check that a mask of a size (H, W) fits the clip; raises `MaskError` if not, or if it is too large to decode."""
    size = request.size
    if found == size:
        return
    said = f"{where} is {size_text(found)}, the clip is {size_text(size)}"
    turned = (found[0] < found[1]) != (size[0] < size[1])
    if found == request.stored_size and turned:
        raise MaskError(
            f"the video is shown rotated as {size_text(size)}, {where} matches the stored frame {size_text(found)}: "
            "rotate the mask by 90 degrees as the video is"
        )
    if found == size[::-1]:
        raise MaskError(f"{said}, which is the same turned by 90 degrees: rotate the mask")
    anamorphic = found == request.stored_size
    if not anamorphic and is_stretched(found, size):
        raise MaskError(f"{said}, which has another shape: draw the mask on a frame of this clip")
    if not request.reading.resize_mask:
        reason = " as stored, before its pixels are made square" if anamorphic else ""
        raise MaskError(f"{said}{reason}: draw it on a frame of the clip, or use `resize_mask=True`")
    if found[0] * found[1] > MAX_PIXELS:
        raise MaskError(f"{said}, and at most {MAX_PIXELS} pixels are accepted: scale the mask down")


def _upright(image: Image.Image, indexed: bool = True) -> Image.Image:
    """An image as its EXIF tag says, in one of the modes that mean something for a mask.

    Args:
        image: opened.
        indexed: whether a palette index means an id; GIF writers sort the palette, so theirs means nothing.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and image.has_transparency_data:  # one colour is transparent
        return image.convert("RGBA")
    if image.mode in ("1", "L", "LA", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return image
    if image.mode == "P" and indexed:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _fitted(labels: Labels, where: str, request: _Request) -> Labels:
    """The labels at the size of the clip, with a background, and with notes on what was resized and what is thin."""
    height, width = labels.pixels.shape
    _check_size((height, width), request, where)
    labels.pixels, notes = _resized(labels.pixels, request.size)
    labels.notes += notes
    if request.reading.invert_mask:
        labels.pixels = inverted(labels.pixels, where)
    if not request.reading.no_background and request.reading.background is None:
        check_ground(labels.pixels, labels.names, where, request.reading.invert_mask)
    labels.notes += flaws.notes(labels.pixels)
    return labels


def _resized(pixels: Bytes, size: tuple[int, int]) -> tuple[Bytes, list[Note]]:
    """Scale a label map (H, W) with the nearest pixel, centres on centres; a note says so."""
    if pixels.shape == size:
        return pixels, []
    rows, columns = (
        ((np.arange(target) + 0.5) * source / target).astype(np.intp)
        for source, target in zip(pixels.shape, size, strict=True)
    )
    height, width = pixels.shape
    note = Note(Code.MASK_RESIZED, f"resized from {width}x{height} to {size_text(size)}")
    return pixels[rows[:, None], columns], [note]


def _read_folder(folder: Path, request: _Request) -> Labels:
    paths = _object_files(folder)
    ids, notes = _file_ids(paths)
    chosen = bool(notes)
    pixels, covered = np.zeros(request.size, np.uint8), 0
    for number, path in zip(ids, paths, strict=True):
        labels = _read_file(path, request)
        found = object_ids(labels.pixels)
        if len(found) > 1:
            raise MaskError(
                f"mask {shown(path)} has {len(found)} objects, but a folder needs one file per object; "
                "give this file itself, as FRAME:PATH for a later frame"
            )
        notes += [note.of(shown(path.name)) for note in labels.notes]
        if not found:
            notes.append(Note(Code.MASK_EMPTY, f"{shown(path.name)} is empty: there is no object {number}"))
        inside = np.isin(labels.pixels, found)
        covered += int((inside & (pixels != BACKGROUND) & (pixels != VOID)).sum())
        pixels[(labels.pixels == VOID) & (pixels == BACKGROUND)] = VOID
        pixels[inside] = number
    _check_overlap(folder, paths, covered, int((pixels != BACKGROUND).sum()))
    if pixels.all() and not request.reading.no_background:
        raise MaskError(
            f"the files of folder {shown(folder)} leave no background: leave out that of the ground, or use "
            "`no_background=True`"
        )
    if covered:
        notes.append(Note(Code.MASK_OVERLAP, f"{covered} pixels belong to several files; the later file has them"))
    names = {number: shown(path.name) for number, path in zip(ids, paths, strict=True)}
    return Labels(pixels, notes, names=names, chosen=chosen, titles=_titles(dict(zip(ids, paths, strict=True))))


def _object_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order, at least one."""
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
        paths = [path for path in entries if path.suffix.lower() in _ENDINGS and not path.is_dir()]
    except OSError as error:
        raise MaskError(f"folder {shown(folder)} cannot be read: {first_line(error)}; check who owns it") from error
    if not 1 <= len(paths) <= MAX_OBJECTS:
        raise MaskError(
            f"folder {shown(folder)} holds {len(paths)} images; expected one for each object, "
            f"1 to {MAX_OBJECTS} ({', '.join(_ENDINGS)})"
        )
    return sorted(paths, key=lambda path: natural_key(path.name))


def _file_ids(paths: Sequence[Path]) -> tuple[list[int], list[Note]]:
    """Ids for the files of a folder, and a note where they are not the numbers in the names."""
    endings = [re.search(r"[0-9]+$", path.stem) for path in paths]
    numbers = [int(ending[0]) for ending in endings if ending]
    if len(set(numbers)) == len(paths) and set(numbers) <= set(range(1, VOID)):
        return numbers, []
    names = listed([f"{shown(path.name)} = {number}" for number, path in enumerate(paths, 1)])
    note = Note(Code.MASK_IDS, f"files became objects in the order of their names: {names}")
    return list(range(1, len(paths) + 1)), [note]


def _titles(files: Mapping[int, Path]) -> dict[int, str]:
    """What files are named after beside their numbers: "dog" of `dog.png` and `dog_2.png`; nothing if all are alike."""
    titles = {number: shown(re.sub(r"[\W_]*[0-9]+$", "", path.stem)) for number, path in files.items()}
    alike = len(titles) > 1 and len(set(titles.values())) == 1
    return {} if alike else {number: title for number, title in titles.items() if title}


def _check_overlap(folder: Path, paths: Sequence[Path], covered: int, painted: int) -> None:
    """Refuse what is one object in many frames: files with frame numbers that lie on one another."""
    if covered > painted and all(re.fullmatch(r"[0-9]{4,}", path.stem) for path in paths):
        raise MaskError(
            f"folder {shown(folder)} seems to hold the masks of {len(paths)} frames, but one file per object was "
            f"expected; give one of them, such as {shown(paths[0])}"
        )


def _finish(labels: Labels | MaskFile, called: Mapping[int, str]) -> MaskFile:
    if isinstance(labels, MaskFile):
        return labels
    pixels = torch.from_numpy(np.array(labels.pixels, order="C"))
    found = LabelMap(pixels, tuple(object_ids(labels.pixels)))
    notes = (*labels.notes, *mask_labels.color_note(labels.colors, called))
    return MaskFile(found, notes, mask_labels.painted(labels), labels.titles)
