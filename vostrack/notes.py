"""Everything that vostrack says beside its results: each kind of note with its code, its severity and its meaning.

The table is the only place that says what is a warning: what a person should look at, since the result may be wrong for
it. The rest are notes: what was read, converted or chosen. Imports no torch, for the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Self

WARNING, NOTE = "warning", "note"


class Code(Enum):
    """The kinds. Users see the name in small letters with hyphens: `mask-late`."""

    # The clip.
    FRAMES_DAMAGED = WARNING, "the decoder calls frames damaged; they and those that build on them may look broken"
    FRAMES_MISSING = WARNING, "the times or the numbers of the frames have gaps"
    FRAMES_AGAIN = WARNING, "the numbers of the frames start again, as those of a second view do"
    FRAMES_ORDER = WARNING, "names of images have no numbers, so the order of the frames is that of the alphabet"
    PACKETS_DAMAGED = WARNING, "the file has damaged packets, but no frame that its decoder calls damaged"
    CLIP_START = WARNING, "the video begins with frames that cannot be decoded or build on others, as one that was cut"
    CLIP_SEVERAL = WARNING, "a file has several videos, and one is used"
    CLIP_COVER = WARNING, "a file with sound has a single frame, which may be a cover picture"
    CLIP_CUT_OFF = WARNING, "the video ends earlier than its file says"
    RANGE_CUT_OFF = WARNING, "the clip ends before the range does"
    CLIP_HDR = WARNING, "high dynamic range is not tone-mapped"
    CLIP_INTERLACED = WARNING, "interlaced frames are used as they are"
    CLIP_TRANSPARENT = WARNING, "transparency is ignored: the colours stored under it are shown"
    IMAGES_LEFT_OUT = WARNING, "images of the folder are not named like its frames"
    CLIP_FLAT = WARNING, "frames have few colours, as masks have: the masks may have been given as the clip"
    IMAGE_PAGES = WARNING, "of an image with several pictures the first one is used"
    CLIP_BITS = NOTE, "more than 8 bits a channel are reduced to 8"
    CLIP_COLOURS = NOTE, "the colour matrix is not supported, so colours are approximate"
    CLIP_SQUARED = NOTE, "pixels that are not square are made square"
    CLIP_SPOOLED = NOTE, "the clip cannot be read backwards, so its frames go through a temporary file"
    CLIP_TURNED = NOTE, "frames are stored turned or mirrored, and shown upright"

    # Given masks.
    MASK_LATE = WARNING, "frames before the first given mask, or after the last, get empty masks"
    MASK_NUMBER = WARNING, "the file of a mask has the number of another frame than the one that it is given for"
    MASK_PAGES = WARNING, "of a mask file with several pages the first one is read"
    MASK_EMPTY = WARNING, "a file of a folder of masks is empty, so its object is not followed"
    MASK_OVERLAP = WARNING, "files of a folder of masks overlap, and the later file has the pixels"
    MASK_VOID = WARNING, "white beside other values or colours stands for void, so it is no object"
    MASK_THIN = WARNING, "most objects are as thin as soft edges"
    MASK_RIM = WARNING, "objects have rims of other ids, as in a mask of ids that was smoothed"
    MASK_SPECKS = WARNING, "many pixels stand alone, as in a mask that was dithered"
    MASK_OUTLINE = WARNING, "an object is an outline around background"
    MASK_FADED = WARNING, "even areas were taken for soft edges, but may be objects"
    MASK_GROUND = WARNING, "the background was guessed: it is neither black nor transparent"
    MASK_BLACK = WARNING, "opaque black is background too"
    MASK_FAINT = WARNING, "areas that are half transparent are background"
    MASK_MERGED = WARNING, "colours are not flat, so all that is opaque became one object"
    MASK_LOSSY = WARNING, "ids were read from a lossy format and may be off"
    MASK_SNAPPED = NOTE, "soft edges or compression noise were snapped to the nearest label"
    MASK_RESIZED = NOTE, "the mask was scaled to the size of the clip"
    MASK_IDS = NOTE, "ids were chosen for colours, grey values, files or palette index 255"
    MASK_ALPHA = NOTE, "the object was taken from the alpha channel"
    MASK_RANGE = NOTE, "grey values from 16 to 235 were taken as black to white"

    # A run.
    RUN_REFILLED = NOTE, "files of a complete run are missing and are made again"
    RUN_ANEW = NOTE, "the method cannot go on in the middle of a clip, so a resumed run follows it from the start"
    RUN_FORWARD = WARNING, "frames that can be read only once are followed forwards alone"
    OBJECT_HIDDEN = WARNING, "an object has no pixel in some frames, and comes back"
    OBJECT_VANISHED = WARNING, "an object has no pixel from a frame to the end"
    ADAPT_IDLE = WARNING, "the clip is too short for an adaptation with these settings, which had no effect"
    ADAPT_SHORT = WARNING, "an adaptation of so few steps can make masks worse"
    AUDIO_DAMAGED = WARNING, "the overlay lacks audio, since the source is damaged or cannot be read again"
    AUDIO_LEFT_OUT = NOTE, "the overlay has no audio, since an MP4 file cannot hold that of the source"

    # Scores and benchmarks.
    OBJECTS_NOT_SCORED = WARNING, "objects appear too late to be scored by the rules"
    SEQUENCE_NOT_SCORED = WARNING, "a sequence has no object to follow or to score"
    VARIANT_LEFT_OUT = WARNING, "a variant of an earlier run is not in the table, since that had other settings"
    TRUTH_MISSING = NOTE, "sequences have no masks but the given ones, so they are not scored"

    # Timing.
    PROCESSOR_BUSY = WARNING, "other programs are at work, so times are too long"

    # Training.
    FOOTAGE_LEFT_OUT = WARNING, "footage that cannot be read is left out"
    FOOTAGE_SHORTENED = WARNING, "the end of each clip is left out, since the cache has no room for it"
    FOOTAGE_INCOMPLETE = WARNING, "clips are left out, since the time or the room for decoding was over"
    PICTURE_FAILED = WARNING, "a picture of the training could not be drawn"
    PRECISION_SLOW = WARNING, "the device is slow at the precision that was asked for"
    FOOTAGE_SIZE = NOTE, "how much is going to be decoded, and where to"

    def __init__(self, severity: str, meaning: str) -> None:
        self.severity, self.meaning = severity, meaning

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


class Note(str):
    """One line for a person, with its code.

    Attributes:
        code: what kind of note it is.
    """

    __slots__ = ("code",)
    code: Code

    def __new__(cls, code: Code, text: str) -> Self:
        """Take the kind and the line."""
        note = super().__new__(cls, text)
        note.code = code
        return note

    def __getnewargs__(self) -> tuple[Code, str]:  # type: ignore[override]
        return self.code, str(self)

    def of(self, name: str) -> Note:
        """The note with the name of what it is about before it."""
        return Note(self.code, f"{name}: {self}")


def by_severity(notes: Iterable[Note]) -> dict[str, list[dict[str, str]]]:
    """`warnings` and `notes`, each a list of `code` and `text`, as a summary holds them."""
    told = {WARNING: list[dict[str, str]](), NOTE: list[dict[str, str]]()}
    for note in notes:
        told[note.code.severity].append({"code": str(note.code), "text": str(note)})
    return {f"{severity}s": lines for severity, lines in told.items()}
