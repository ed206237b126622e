"""The way in: a path becomes a clip, whether it is a video file or a folder of images.

Only files and folders on this machine are read. What they hold is left to `container` and `images`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vostrack.errors import InputError
from vostrack.files import nearest, open_regular, shown
from vostrack.notes import Code, Note
from vostrack.types import FrameStream
from vostrack.video.container import BROKEN, VideoStream, open_container, pick_video, promised_frames
from vostrack.video.images import AnimationStream, FolderStream, image_size, is_animated_webp
from vostrack.video.playback import NORMAL, Playback
from vostrack.video.series import ENDINGS, FILM_ENDINGS, by_number, frame_files
from vostrack.video.stream import ClipStream, file_names, first_line, reason

# A path folds the slashes of an address into one.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
# All of a name, or a part of it that is neither an object's single digit nor as in `v12` or `480p`.
_NUMBER = re.compile(r"^[0-9]{1,9}$|(?<![0-9vV])[0-9]{2,9}(?![0-9A-Za-z])")
_PATTERN = re.compile(r"%\d*d|[*?]|\[.+\]")
PLAYLISTS = {".asx", ".concat", ".ffconcat", ".m3u", ".m3u8", ".mpd", ".pls", ".sdp"}
"""Files of these names list others, which FFmpeg would open."""
_ARCHIVE = b"PK\x03\x04"  # FFmpeg would find the images in it
_LISTS = (b"#EXTM3U", b"ffconcat ")


def open_clip(path: str | os.PathLike[str], playback: Playback = NORMAL) -> ClipStream:
    """Open a video file, or a folder of images, as a stream of upright RGB frames with square pixels.

    The first frame is decoded here, so that what cannot be read fails here. The others are decoded one by one while the
    stream is iterated, which can be done once; close it afterwards, or use it as a context manager:

        with open_clip("dog.mp4") as clip:
            for frame in clip: ...

    Args:
        path: a video in any container and codec that FFmpeg reads, an animated WebP, or a folder of images (JPEG, PNG,
            WebP, AVIF, TIFF, BMP).
        playback: how it is read, such as `Playback(deinterlace=True)`.

    Returns:
        The clip, a `FrameStream`; its `stored_size` is (H, W) before rotation and before pixels were made square.

    Raises:
        InputError: there is nothing at `path`, or nothing that is a clip, or it cannot be read in this way.
    """
    text = os.fspath(path)
    source = Path(text)
    try:
        info = source.stat()
    except (OSError, ValueError) as error:
        raise InputError(_not_found(text, error)) from error
    if stat.S_ISDIR(info.st_mode):
        _check_playback(source, playback)
        return FolderStream(source, rate=playback.rate)
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"clip {text!r} is neither a file nor a folder; save the video to a file first")
    if info.st_size == 0:
        raise InputError(f"video {text!r} is empty (0 bytes); get a complete copy")
    try:
        with open_regular(source) as file:
            head = file.read(16)
            file.seek(0)
            animated = is_animated_webp(file)
    except (OSError, ValueError) as error:
        raise InputError(f"video {text!r} cannot be opened: {reason(error, 'check who owns it')}") from error
    if source.suffix.lower() in PLAYLISTS or head.startswith(_LISTS):
        raise InputError(f"{text!r} is a list that names other files; give the video itself")
    if head.startswith(_ARCHIVE):
        raise InputError(f"{text!r} is an archive; unpack it and give the folder with the frames")
    _check_playback(source, playback)
    if animated and playback.deinterlace:
        raise InputError(f"{text!r} is an animated WebP, which is not interlaced: leave out `deinterlace`")
    return AnimationStream(source) if animated else VideoStream(source, playback.deinterlace)


@dataclass(frozen=True)
class Header:
    """What a clip says of itself before any frame is decoded.

    Attributes:
        sizes: (H, W) that frames may have when they are shown: upright or turned; none where pixels are not square.
        count: how many frames it claims to have, if it does.
    """

    sizes: tuple[tuple[int, int], ...]
    count: int | None


def _check_playback(source: Path, playback: Playback) -> None:
    """Refuse to deinterlace a folder of images, and to give a video another rate."""
    if playback.deinterlace and source.is_dir():
        raise InputError(f"{str(source)!r} is a folder, and only videos are interlaced: leave out `deinterlace`")
    if playback.fps is not None and not source.is_dir():
        raise InputError(f"{str(source)!r} is a video, which has a frame rate of its own: leave out `fps`")


def read_header(path: str | os.PathLike[str], playback: Playback = NORMAL) -> Header:
    """Look at a clip without decoding it: quick enough for thousands. Most clips that pass can be opened.

    Raises:
        InputError: there is nothing at `path`, or nothing that is a clip, or it cannot be read in this way.
    """
    source = Path(path)
    if source.exists():
        _check_playback(source, playback)
    if source.is_dir():
        files, _ = frame_files(source)
        size = image_size(files[0])
        return Header((size, size[::-1]), len(files))
    if not source.is_file():
        raise InputError(_not_found(os.fspath(path), FileNotFoundError("no such file")))
    with source.open("rb") as file:
        if is_animated_webp(file):
            size = image_size(source)
            return Header((size,), None)
    if source.suffix.lower() in (*ENDINGS, *FILM_ENDINGS):
        raise InputError(f"clip {os.fspath(path)!r} is a single image; give a video, or a folder of images")
    try:
        with open_container(source) as container:
            video = pick_video(container, f"video {os.fspath(path)!r}")
            is_square = not video.sample_aspect_ratio or video.sample_aspect_ratio == 1
            size = (video.height, video.width)
            return Header((size, size[::-1]) if is_square else (), promised_frames(container, video))
    except BROKEN as error:
        raise InputError(f"video {os.fspath(path)!r} cannot be opened: {reason(error)}") from error


def number_notes(masks: Mapping[int, object], stream: FrameStream) -> list[Note]:
    """Notes on masks, by frame, whose files have the number of another frame of the clip."""
    files = file_names(stream)
    frames = by_number(files) if files else range(stream.count or 0)
    notes = []
    for frame, mask in sorted(masks.items()):
        path = Path(mask) if isinstance(mask, str | Path) else Path()
        if path.stem == stream.name:  # the number is that of the clip, as in clip05.png for clip05.mp4
            continue
        alone = bool(_NUMBER.fullmatch(path.stem))
        numbers = [int(found) for found in _NUMBER.findall(path.stem)]
        meant = [frames[number] for number in numbers if number and number in frames]
        # Tools that save the frames of a video begin with 0 or with 1; `vostrack frame` gives the number of the frame.
        right = {frame, frame + 1} if not files else {frame}
        if meant and not right & {*meant, *([] if alone else numbers)}:
            name = shown(path.name)
            text = f"{name} is used for frame {frame}; if it is of frame {meant[-1]}, give it as {meant[-1]}:{name}"
            notes.append(Note(Code.MASK_NUMBER, text))
    return notes


def _not_found(text: str, error: Exception) -> str:
    """What is said of a clip that is not there, and perhaps means something else than a path."""
    if _ADDRESS.match(text):
        address = _ADDRESS.sub(r"\1://", text, count=1)
        return f"{address!r} is an address, and only files on this machine are read; download it first"
    if text == "-":
        return "a clip cannot be read from a pipe; save the video to a file first"
    if _PATTERN.search(os.path.basename(text)):
        folder = os.path.dirname(text) or "."
        return (
            f"{text!r} is a pattern that stands for many files; give the folder {folder!r} if these are the frames of "
            "a clip, else one video"
        )
    expected, found = ": expected a video file or a folder of images", f", found: {first_line(error)}"
    if isinstance(error, FileNotFoundError):
        return f"cannot find clip {text!r}{nearest(Path(text)) or expected}"
    return f"cannot find clip {text!r}{expected}{found}"
