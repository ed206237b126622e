"""Refinements: what improves the masks of single frames, behind every method alike.

Importing this imports neither torch nor numpy, so that the process of a refinement starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vostrack.config import changed
from vostrack.errors import MethodError, unknown_name

if TYPE_CHECKING:
    from vostrack.refine.base import Refiner

REFINERS = ("crf",)


def make_refiner(name: str | None, settings: Mapping[str, Any] | None = None) -> Refiner | None:
    """A refiner, not yet entered; None where none is wanted.

    Args:
        name: of the refinement, or None.
        settings: settings of it to change, by name.

    Raises:
        MethodError: an unknown name or setting, a value out of range, or settings of no refinement.
        VostrackError: a package that it needs is missing.
    """
    if name is None:
        if settings:
            raise MethodError(f"there is no refinement to set {', '.join(settings)} of: ask for one (crf)")
        return None
    if name not in REFINERS:
        raise MethodError(unknown_name("refinement", name, REFINERS))
    from vostrack.refine.crf import CrfConfig, CrfRefiner

    return CrfRefiner(changed(CrfConfig(), settings or {}, name))
