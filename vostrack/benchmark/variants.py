"""Variants: pipelines that a benchmark compares, each with a name for people and for a folder.

Knows nothing of datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from vostrack.errors import MethodError
from vostrack.methods import method_class
from vostrack.run.pipeline import Pipeline, PipelineConfig, load_pipeline
from vostrack.weights import RANDOM


@dataclass(frozen=True, slots=True)
class Variant:
    """A pipeline, and the text by which it was asked for, "METHOD[:PRESET][,KEY=VALUE...]"."""

    pipeline: PipelineConfig
    text: str

    @property
    def name(self) -> str:
        """A name for people and for a folder; what is long in it is a hash."""
        config = self.pipeline
        parts = [
            config.method,
            config.preset if config.preset != "default" else None,
            "adapt" if config.adapt == "clip" else config.adapt and f"adapt-{config.adapt}",
            config.adapt_preset if config.adapt_preset != "default" else None,
            config.refine,
            RANDOM if config.weights == RANDOM else None,
        ]
        long = [dict(config.settings), dict(config.adapt_settings), dict(config.refine_settings)]
        weights = None if config.weights in (None, RANDOM) else str(config.weights)
        if any(long) or weights:
            digest = hashlib.sha256(json.dumps([*long, weights], sort_keys=True).encode())
            parts.append(digest.hexdigest()[:8])
        return "-".join(filter(None, parts))


def check_different(variants: Sequence[Variant]) -> None:
    """Raise `MethodError` where two variants are the same."""
    if len({variant.name for variant in variants}) < len(variants):
        raise MethodError(f"a variant was asked for twice: {', '.join(variant.text for variant in variants)}")


def under_protocol(variant: Variant, wanted: Mapping[str, Any]) -> PipelineConfig:
    """The variant's pipeline with those settings that a dataset's protocol asks for which its method has.

    What the variant itself says comes first.
    """
    config = variant.pipeline
    known = {field.name for field in fields(method_class(config.method).presets["default"])}
    asked = {key: value for key, value in wanted.items() if key in known}
    return replace(config, settings=asked | dict(config.settings))


LOADED: list[tuple[PipelineConfig, Pipeline]] = []
"""The pipeline that this process loaded last, since it serves many sequences; cleared when weights may have changed."""


def loaded(config: PipelineConfig) -> Pipeline:
    """A pipeline, ready to run; raises as `load_pipeline` does."""
    if not LOADED or LOADED[0][0] != config:
        LOADED[:] = [(config, load_pipeline(config))]
    return LOADED[0][1]
