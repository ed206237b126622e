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
    FRAMES_DAMAGED = WARNING, "frames are damaged and may look broken"
    FRAMES_MISSING = WARNING, "times or numbers of frames have gaps"
    FRAMES_AGAIN = WARNING, "frame numbers start again, as in a second view"
    FRAMES_ORDER = WARNING, "names without numbers are in alphabetical order"
    PACKETS_DAMAGED = WARNING, "packets are damaged, but no frame is known to be"
    CLIP_START = WARNING, "the first frames cannot be decoded, or build on others"
    CLIP_SEVERAL = WARNING, "one of several videos is used"
    CLIP_COVER = WARNING, "the only frame may be a cover picture"
    CLIP_CUT_OFF = WARNING, "the video ends earlier than its file says"
    RANGE_CUT_OFF = WARNING, "the clip ends before the range does"
    CLIP_HDR = WARNING, "high dynamic range is not tone-mapped"
    CLIP_INTERLACED = WARNING, "interlaced frames are used as they are"
    CLIP_TRANSPARENT = WARNING, "transparency is ignored"
    IMAGES_LEFT_OUT = WARNING, "images not named like the frames are left out"
    CLIP_FLAT = WARNING, "frames have as few colours as masks have"
    IMAGE_PAGES = WARNING, "only the first picture of an image is used"
    CLIP_BITS = NOTE, "more than 8 bits a channel are reduced to 8"
    CLIP_COLOURS = NOTE, "the colour matrix is not supported, so colours are approximate"
    CLIP_SQUARED = NOTE, "pixels were made square"
    CLIP_SPOOLED = NOTE, "frames go through a temporary file, to be read backwards"
    CLIP_TURNED = NOTE, "frames were turned or mirrored upright"

    # Given masks.
    MASK_LATE = WARNING, "frames before the first mask, or after the last, get empty masks"
    MASK_NUMBER = WARNING, "a mask file has the number of another frame"
    MASK_PAGES = WARNING, "only the first page of a mask is read"
    MASK_EMPTY = WARNING, "a file of a mask is empty, so its object is not followed"
    MASK_OVERLAP = WARNING, "files of a mask overlap, and the later one counts"
    MASK_VOID = WARNING, "white beside other values or colours is void"
    MASK_THIN = WARNING, "most objects are as thin as soft edges"
    MASK_RIM = WARNING, "objects have rims of other ids, as after smoothing"
    MASK_SPECKS = WARNING, "many pixels stand alone, as after dithering"
    MASK_OUTLINE = WARNING, "an object is an outline around background"
    MASK_FADED = WARNING, "even areas were taken for soft edges"
    MASK_GROUND = WARNING, "the background was guessed"
    MASK_BLACK = WARNING, "opaque black is background too"
    MASK_FAINT = WARNING, "half-transparent areas are background"
    MASK_MERGED = WARNING, "colours are not flat, so all that is opaque is one object"
    MASK_LOSSY = WARNING, "ids from a lossy format may be off"
    MASK_SNAPPED = NOTE, "soft edges or noise were snapped to labels"
    MASK_RESIZED = NOTE, "the mask was scaled to the size of the clip"
    MASK_IDS = NOTE, "ids were chosen for colours, greys or files"
    MASK_ALPHA = NOTE, "the object was taken from the alpha channel"
    MASK_RANGE = NOTE, "greys from 16 to 235 count as black to white"

    # A run.
    RUN_REFILLED = NOTE, "missing files of a complete run are made again"
    RUN_ANEW = NOTE, "a resumed run starts at the first frame"
    RUN_KEEPS = NOTE, "what is kept of cells will take much room"
    RUN_FORWARD = WARNING, "frames that can be read only once are followed forwards alone"
    OBJECT_HIDDEN = WARNING, "an object has no pixel in some frames"
    OBJECT_VANISHED = WARNING, "an object has no pixel from a frame to the end"
    ADAPT_IDLE = WARNING, "the clip is too short for this adaptation"
    ADAPT_SHORT = WARNING, "so few steps of adaptation can make masks worse"
    AUDIO_DAMAGED = WARNING, "the overlay lacks audio, which cannot be read"
    AUDIO_LEFT_OUT = NOTE, "the overlay lacks audio, which MP4 cannot hold"

    # Scores and benchmarks.
    OBJECTS_NOT_SCORED = WARNING, "objects appear too late to be scored"
    SEQUENCE_NOT_SCORED = WARNING, "a sequence has no object to follow or score"
    VARIANT_LEFT_OUT = WARNING, "an earlier variant had other settings"
    TRUTH_MISSING = NOTE, "sequences without truth are not scored"

    # Timing.
    PROCESSOR_BUSY = WARNING, "other programs run, so times are too long"

    # Training.
    FOOTAGE_LEFT_OUT = WARNING, "unreadable footage is left out"
    FOOTAGE_SHORTENED = WARNING, "the cache has no room for the ends of clips"
    FOOTAGE_INCOMPLETE = WARNING, "decoding ran out of time or room"
    PICTURE_FAILED = WARNING, "a picture of the training was not drawn"
    PRECISION_SLOW = WARNING, "the device is slow at this precision"
    FOOTAGE_SIZE = NOTE, "how much is decoded, and where to"

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
