"""What improves the masks that a method gives, behind every method alike: refinements, and online adaptation.

Importing this imports neither torch nor numpy, so that the process of a refinement starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vostrack.errors import MethodError, unknown_name
from vostrack.options import with_options
from vostrack.refine.adapt_config import PRESETS, AdaptConfig

if TYPE_CHECKING:
    from vostrack.refine.base import Refiner

REFINERS = ("crf",)
ADAPTATIONS = ("clip", "live")


def make_refiner(name: str | None, options: Mapping[str, str] | None = None) -> Refiner | None:
    """A refiner, not yet entered; None where none is wanted.

    Args:
        name: of the refinement, or None.
        options: fields of its configuration to change, as text.

    Raises:
        MethodError: an unknown name or option, a value out of range, or options of no refinement.
        VostrackError: a package that it needs is missing.
    """
    if name is None:
        if options:
            raise MethodError(f"there is no refinement to set {', '.join(options)} of: ask for one (crf)")
        return None
    if name not in REFINERS:
        raise MethodError(unknown_name("refinement", name, REFINERS))
    from vostrack.refine.crf import CrfConfig
    from vostrack.refine.worker import CrfRefiner

    return CrfRefiner(with_options(CrfConfig(), options or {}, name))


def adaptation_config(
    form: str | None, preset: str = "default", options: Mapping[str, str] | None = None
) -> AdaptConfig | None:
    """Settings of an adaptation; None where none is wanted.

    Args:
        form: "clip" for two passes, "live" for one that sees no future frames, or None.
        preset: named settings.
        options: settings to change, as text.

    Raises:
        MethodError: an unknown form, preset or option, a value out of range, or settings of no adaptation.
    """
    if form is None:
        if options or preset != "default":
            asked = ", ".join(options or ()) or f"the preset {preset}"
            raise MethodError(f"there is no adaptation to set {asked} of: ask for one (clip or live)")
        return None
    if form not in ADAPTATIONS:
        raise MethodError(unknown_name("adaptation", form, ADAPTATIONS))
    if preset not in PRESETS:
        raise MethodError(unknown_name("preset of the adaptation", preset, PRESETS))
    return with_options(PRESETS[preset], options or {}, "adaptation")
