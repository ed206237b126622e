"""Variants as asked for on the command line: `anchors`, `anchors:paper`, `anchors,adapt=clip,refine=crf`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vostrack.cli.settings import parse_all_settings
from vostrack.errors import MethodError
from vostrack.methods import WORKING_SIZE

if TYPE_CHECKING:
    from vostrack.benchmark.runner import Variant

_FORMAT = re.compile(r"([\w.-]+)(?::([\w.-]+))?((?:,[\w-]+=[^=]*)*)")


def parse_variants(
    texts: Sequence[str], size: int | None = WORKING_SIZE.default, device: str = "auto", weights: str | None = None
) -> list[Variant]:
    """Variants from texts "METHOD[:PRESET][,KEY=VALUE...]".

    The key "weights" takes a file, a name or "random", "adapt" a form of adaptation, "adapt_preset" its preset, and
    "adapt_KEY" changes a setting of it; "refine" takes a refinement, and "refine_KEY" changes a setting of that one.

    Args:
        texts: one a variant.
        size: short side of the working resolution, in pixels.
        device: where all of them compute.
        weights: of those that name none.

    Raises:
        MethodError: a text is none.
    """
    return [_parse(text, size, device, weights) for text in texts]


def _parse(text: str, size: int | None, device: str, weights: str | None) -> Variant:
    from vostrack.benchmark.runner import Variant
    from vostrack.run.pipeline import PipelineConfig

    match = _FORMAT.fullmatch(text)
    if match is None:
        raise MethodError(f"{text!r} is not a variant: expected METHOD, METHOD:PRESET or METHOD:PRESET,KEY=VALUE")
    # A comma inside of a value belongs to it: only one before "KEY=" parts two options.
    pairs = [pair.partition("=") for pair in re.split(r",(?=[\w-]+=)", match[3])[1:]]
    options = {key.replace("-", "_"): value for key, _, value in pairs}
    named, adapt, refine = (options.pop(key, None) for key in ("weights", "adapt", "refine"))
    adapt_preset = options.pop("adapt_preset", "default")
    adapting, refining = (
        [f"{key.removeprefix(start)}={options.pop(key)}" for key in list(options) if key.startswith(start)]
        for start in ("adapt_", "refine_")
    )
    setting = [f"{key}={value}" for key, value in options.items()]
    method, preset = match[1], match[2] or "default"
    settings = parse_all_settings(
        method, preset, setting, adapt, adapt_preset, adapting, refine, refining, (text, text, text)
    )
    config = PipelineConfig(
        method=method,
        preset=preset,
        weights=named or weights,
        size=size,
        device=device,
        adapt=adapt,
        adapt_preset=adapt_preset,
        refine=refine,
        **settings,
    )
    return Variant(config, text)
