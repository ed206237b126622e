"""How an overlay looks: its style, what is written on it, and the colours and names of its objects.

Imports no torch, for the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Style(StrEnum):
    """What is drawn: a tint with a line around it, the line alone, or the objects alone before a ground."""

    TINT = "tint"
    OUTLINE = "outline"
    CUTOUT = "cutout"
    CHECKERBOARD = "checkerboard"


@dataclass(frozen=True, slots=True)
class Look:
    """How an overlay looks.

    Attributes:
        style: what is drawn.
        labels: whether ids, names and the number of the frame are written on it.
        colors: by object id, the colour (R, G, B) that it was painted in; others have that of `palette.PALETTE`.
        names: by object id, what to call it beside its id.
        shift: added to the number of a frame that is written on it.
    """

    style: Style = Style.TINT
    labels: bool = False
    colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    shift: int = 0

    def record(self) -> dict[str, Any]:
        """What of it was asked for, as JSON."""
        return {"style": str(self.style), "labels": self.labels}
