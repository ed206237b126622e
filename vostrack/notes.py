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
    FRAMES_DAMAGED = WARNING, "frames may look broken"
    FRAMES_MISSING = WARNING, "times or frame numbers have gaps"
    FRAMES_AGAIN = WARNING, "frame numbers start again"
    FRAMES_ORDER = WARNING, "unnumbered frames are in alphabetical order"
    PACKETS_DAMAGED = WARNING, "packets are damaged, perhaps frames too"
    CLIP_START = WARNING, "the start is missing or broken"
    CLIP_SEVERAL = WARNING, "one of several videos is used"
    CLIP_COVER = WARNING, "the only frame may be a cover"
    CLIP_CUT_OFF = WARNING, "the video ends early"
    RANGE_CUT_OFF = WARNING, "the clip ends before the range"
    CLIP_INTERLACED = WARNING, "interlaced frames stay interlaced"
    CLIP_CUT = WARNING, "a frame looks like the first of another shot"
    CLIP_TRANSPARENT = WARNING, "transparency is ignored"
    IMAGES_LEFT_OUT = WARNING, "images not named like frames are left out"
    CLIP_FLAT = WARNING, "frames look like masks"
    IMAGE_PAGES = WARNING, "only an image's first picture is used"
    CLIP_BITS = NOTE, "more than 8 bits are reduced"
    CLIP_COLOURS = NOTE, "colours are approximate"
    CLIP_HDR = NOTE, "high dynamic range was tone-mapped"
    CLIP_SQUARED = NOTE, "pixels were made square"
    CLIP_SPOOLED = NOTE, "frames go through a temporary file"
    CLIP_TURNED = NOTE, "frames were turned or mirrored upright"

    # Given masks.
    MASK_LATE = WARNING, "frames before or after all masks get empty ones"
    MASK_NUMBER = WARNING, "a mask is named like another frame"
    MASK_PAGES = WARNING, "only the first page is read"
    MASK_EMPTY = WARNING, "a file is empty; its object is not followed"
    MASK_OVERLAP = WARNING, "files or shapes overlap; the later one counts"
    MASK_LEFT_OUT = WARNING, "a part of a file of masks is not used"
    MASK_VOID = WARNING, "white is void, not an object"
    MASK_THIN = WARNING, "objects are as thin as soft edges"
    MASK_SWAPPED = WARNING, "two objects of a correction may have exchanged their colours"
    MASK_RIM = WARNING, "objects have rims, as after smoothing"
    MASK_SPECKS = WARNING, "pixels stand alone, as after dithering"
    MASK_OUTLINE = WARNING, "an object is an outline"
    MASK_FADED = WARNING, "even areas were taken for soft edges"
    MASK_GROUND = WARNING, "the background was guessed"
    MASK_BLACK = WARNING, "opaque black is background too"
    MASK_FAINT = WARNING, "half-transparent areas are background"
    MASK_MERGED = WARNING, "all that is opaque is one object"
    MASK_LOSSY = WARNING, "lossy compression may have changed ids"
    MASK_SNAPPED = NOTE, "soft edges or noise were removed"
    MASK_RESIZED = NOTE, "the mask was scaled"
    MASK_FRAMES = NOTE, "which frames a file has masks of"
    MASK_IDS = NOTE, "ids were chosen for the objects"
    MASK_ALPHA = NOTE, "objects come from the alpha channel"
    MASK_RANGE = NOTE, "greys 16 to 235 are black to white"

    # A run.
    RUN_REFILLED = NOTE, "missing files are made again"
    RUN_ANEW = NOTE, "a resumed run or export starts at the first frame"
    RUN_CHANGED = NOTE, "which masks an update changed"
    RUN_KEEPS = NOTE, "what is kept will take much room"
    RUN_LOCKED = WARNING, "a lock keeps what an update would change"
    RUN_FORWARD = WARNING, "frames read only once are followed forwards"
    OBJECTS_ALIKE = NOTE, "several objects have one name, which is their class"
    OBJECT_HIDDEN = WARNING, "an object is missing in some frames"
    OBJECT_BACK = NOTE, "an object is seen again after it was said to be gone"
    OBJECT_VANISHED = WARNING, "an object is missing to the end"
    OBJECT_FLOODED = WARNING, "an object covers far more than in its masks"
    OBJECT_JUMPED = WARNING, "an object is suddenly in another place"
    OBJECT_SWAPPED = WARNING, "an object is suddenly where another one was"
    CONFIDENCE_LOW = WARNING, "an object is probably wrong in some frames"
    ADAPT_IDLE = WARNING, "the clip is too short to adapt"
    ADAPT_SHORT = WARNING, "so few steps can make masks worse"
    AUDIO_DAMAGED = WARNING, "the audio cannot be read"
    AUDIO_LEFT_OUT = NOTE, "the format cannot hold the audio"

    # Exports.
    EXPORT_OLDER = NOTE, "an export is older than the run"
    EXPORT_EDGES = NOTE, "soft edges come from masks and image alone"

    # Many clips.
    BATCH_FAILED = WARNING, "a clip failed"
    BATCH_KEPT = WARNING, "a clip keeps results of other inputs or settings"
    BATCH_AGAIN = WARNING, "a clip is tried again"
    BATCH_UNPAIRED = WARNING, "a clip has no mask, or a mask no clip"

    # Scores and benchmarks.
    OBJECTS_NOT_SCORED = WARNING, "objects appear too late to be scored"
    OBJECTS_DIFFER = WARNING, "the result or the ground truth lacks an object"
    OBJECTS_EXCHANGED = WARNING, "objects of the result have other ids in the ground truth"
    SEQUENCES_DIFFER = WARNING, "results are named like no sequence of the ground truth"
    SEQUENCE_NOT_SCORED = WARNING, "a sequence has no object to score"
    VARIANT_LEFT_OUT = WARNING, "an earlier variant had other settings"
    TRUTH_MISSING = NOTE, "sequences without truth are not scored"

    # Timing.
    PROCESSOR_BUSY = WARNING, "other programs make times too long"

    # Training.
    TRAIN_OVER = WARNING, "a training that is over was resumed"
    FOOTAGE_LEFT_OUT = WARNING, "unreadable footage is left out"
    FOOTAGE_SHORTENED = WARNING, "the cache lacks room for whole clips"
    FOOTAGE_INCOMPLETE = WARNING, "decoding ran out of time or room"
    PICTURE_FAILED = WARNING, "a picture was not drawn"
    PRECISION_SLOW = WARNING, "this precision is slow here"
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
