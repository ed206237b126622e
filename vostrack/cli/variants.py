"""Variants as asked for on the command line: `anchors`, `anchors:paper`, `anchors,adapt=clip,refine=crf`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vostrack.cli.settings import parse_settings
from vostrack.errors import MethodError

if TYPE_CHECKING:
    from vostrack.benchmark.runner import Variant
    from vostrack.config import Config

_FORMAT = re.compile(r"([\w.-]+)(?::([\w.-]+))?((?:,[\w-]+=[^=]*)*)")


def parse_variants(
    texts: Sequence[str], size: int | None = 480, device: str = "auto", weights: str | None = None
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
    from vostrack.adapt.config import AdaptConfig, adaptation_config
    from vostrack.benchmark.runner import Variant
    from vostrack.methods import configure
    from vostrack.refine.crf import CrfConfig
    from vostrack.run.pipeline import PipelineConfig

    match = _FORMAT.fullmatch(text)
    if match is None:
        raise MethodError(f"{text!r} is no variant: expected METHOD, METHOD:PRESET or METHOD:PRESET,KEY=VALUE")
    # A comma inside of a value belongs to it: only one before "KEY=" parts two options.
    pairs = [pair.partition("=") for pair in re.split(r",(?=[\w-]+=)", match[3])[1:]]
    options = {key.replace("-", "_"): value for key, _, value in pairs}
    named, adapt, refine = (options.pop(key, None) for key in ("weights", "adapt", "refine"))
    adapt_preset = options.pop("adapt_preset", "default")
    adapting, refining = (
        {key.removeprefix(start): options.pop(key) for key in list(options) if key.startswith(start)}
        for start in ("adapt_", "refine_")
    )
    method, preset = match[1], match[2] or "default"
    adaptation = adaptation_config(adapt, adapt_preset) or AdaptConfig()
    config = PipelineConfig(
        method=method,
        preset=preset,
        settings=_typed(options, configure(method, preset), method, text),
        weights=named or weights,
        size=size,
        device=device,
        adapt=adapt,
        adapt_preset=adapt_preset,
        adapt_settings=_typed(adapting, adaptation, "adaptation", text),
        refine=refine,
        refine_settings=_typed(refining, CrfConfig(), refine or "crf", text),
    )
    return Variant(config, text)


def _typed(texts: Mapping[str, str], config: Config, owner: str, variant: str) -> dict[str, Any]:
    return parse_settings([f"{key}={text}" for key, text in texts.items()], config, owner, variant)
