"""How a clip is read, where it does not say so itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from vostrack.errors import InputError

MOST_FPS = 1000
_FINEST = 100_000
_RATE = re.compile(r"[0-9]{1,9}(/[1-9][0-9]{0,8})?")


@dataclass(frozen=True, slots=True)
class Playback:
    """How a clip is read.

    Attributes:
        deinterlace: whether each frame of an interlaced video is made of one of its fields and its neighbours.
        fps: frames a second of a folder of images, over 0 and up to 1000; None for 24. A float is rounded.

    Raises:
        InputError: a value of the wrong kind or out of range.
    """

    deinterlace: bool = False
    fps: Fraction | float | None = None

    def __post_init__(self) -> None:
        """Refuse other values."""
        rate = self.fps
        if not isinstance(self.deinterlace, bool):
            raise InputError(f"deinterlace must be True or False, not {self.deinterlace!r}")
        if rate is None:
            return
        is_number = isinstance(rate, int | float | Fraction) and not isinstance(rate, bool)
        # Compared first: a number may be infinite, or none.
        exact = Fraction(rate).limit_denominator(_FINEST) if is_number and 0 < rate <= MOST_FPS else 0
        if not exact:
            raise InputError(f"fps is a number over 0 and up to {MOST_FPS}, such as 25 or Fraction(24000, 1001)")
        object.__setattr__(self, "fps", exact)

    @property
    def rate(self) -> Fraction | None:
        """`fps`, exactly."""
        return None if self.fps is None else Fraction(self.fps)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"deinterlace": self.deinterlace, "fps": None if self.fps is None else str(self.fps)}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """What `record` gave, or anything else; raises `InputError`, `ValueError` or `TypeError`."""
        fps = record.get("fps")
        if fps is not None and not _RATE.fullmatch(fps):
            raise ValueError("fps is no fraction")  # an exponent could be of any size
        return cls(record.get("deinterlace", False), None if fps is None else Fraction(fps))


NORMAL = Playback()
