"""Variants of methods as asked for on the command line: `anchors`, `anchors:paper`, `anchors,adapt=clip,refine=crf`.

Knows nothing of datasets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch

from vostrack import __version__
from vostrack.adapt.adaptation import adaptation_record
from vostrack.adapt.config import AdaptConfig, adaptation_config
from vostrack.errors import MethodError
from vostrack.methods import load_method, method_class
from vostrack.methods.base import Method
from vostrack.refine import make_refiner
from vostrack.refine.base import Refiner
from vostrack.weights import LoadedWeights

_ADAPT = "adapt_"
_REFINE = "refine_"
_FORMAT = re.compile(r"([\w.-]+)(?::([\w.-]+))?((?:,[\w-]+=[^=]*)*)")


@dataclass(frozen=True, slots=True)
class Variant:
    """A method in one of its configurations.

    Attributes:
        method: its name.
        preset: named configuration.
        options: changed fields, as pairs of text.
        weights: file or name of weights; None for the method's own.
        adapt: form of online adaptation, "clip" or "live", or None.
        adapt_preset: its named settings.
        adapt_options: changed settings, as pairs of text.
        refine: name of the refinement, or None.
        refine_options: changed fields of its configuration, as pairs of text.
        protocol: settings that the dataset asks for, as pairs of text; those of `options` come first.
    """

    method: str
    preset: str = "default"
    options: tuple[tuple[str, str], ...] = ()
    weights: str | None = None
    adapt: str | None = None
    adapt_preset: str = "default"
    adapt_options: tuple[tuple[str, str], ...] = ()
    refine: str | None = None
    refine_options: tuple[tuple[str, str], ...] = ()
    protocol: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """A name for people and for a folder; what is long in it is a hash."""
        extra = [] if self.preset == "default" else [self.preset]
        if self.adapt:
            extra.append("adapt" if self.adapt == "clip" else f"adapt-{self.adapt}")
        if self.adapt_preset != "default":
            extra.append(self.adapt_preset)
        if self.refine:
            extra.append(self.refine)
        if self.options or self.weights or self.adapt_options or self.refine_options:
            long: list[Any] = [self.options, self.weights]
            long += [["adapt", self.adapt_options]] if self.adapt_options else []
            long += [self.refine_options] if self.refine_options else []
            extra.append(hashlib.sha256(json.dumps(long).encode()).hexdigest()[:8])
        return "-".join([self.method, *extra])

    @property
    def text(self) -> str:
        """How it is asked for."""
        named = {"weights": self.weights, "adapt": self.adapt, "refine": self.refine}
        if self.adapt_preset != "default":
            named["adapt_preset"] = self.adapt_preset
        named |= {f"{_ADAPT}{key}": value for key, value in self.adapt_options}
        named |= {f"{_REFINE}{key}": value for key, value in self.refine_options}
        pairs = [*self.options, *((key, value) for key, value in named.items() if value is not None)]
        preset = "" if self.preset == "default" else f":{self.preset}"
        return ",".join([f"{self.method}{preset}", *(f"{key}={value}" for key, value in pairs)])


def parse_variants(texts: Sequence[str]) -> list[Variant]:
    """Variants from texts "METHOD[:PRESET][,KEY=VALUE...]".

    The key "weights" takes a file or a name, "adapt" a form of adaptation, "adapt_preset" its preset, and "adapt_KEY"
    changes a setting of it; "refine" takes a refinement, and "refine_KEY" changes a field of that one.

    Raises:
        MethodError: a text is none, or two are the same.
    """
    variants = [_parse(text) for text in texts]
    if len({variant.name for variant in variants}) < len(variants):
        raise MethodError(f"a variant was asked for twice: {', '.join(texts)}")
    return variants


def _parse(text: str) -> Variant:
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise MethodError(f"{text!r} is no variant: expected METHOD, METHOD:PRESET or METHOD:PRESET,KEY=VALUE")
    # A comma inside of a value belongs to it: only one before "KEY=" parts two options.
    pairs = [pair.split("=", 1) for pair in re.split(r",(?=[\w-]+=)", match[3])[1:]]
    options = {key.replace("-", "_"): value for key, value in pairs}
    weights, adapt, refine = (options.pop(key, None) for key in ("weights", "adapt", "refine"))
    adapt_preset = options.pop(f"{_ADAPT}preset", "default")
    adapting, refining = (
        tuple(sorted((key.removeprefix(start), options.pop(key)) for key in list(options) if key.startswith(start)))
        for start in (_ADAPT, _REFINE)
    )
    own = tuple(sorted(options.items()))
    return Variant(match[1], match[2] or "default", own, weights, adapt, adapt_preset, adapting, refine, refining)


def under_protocol(variant: Variant, wanted: Mapping[str, str]) -> Variant:
    """The variant with those of the settings that a dataset's protocol asks for which its method has."""
    known = {field.name for field in fields(method_class(variant.method).presets["default"])}
    return replace(variant, protocol=tuple(sorted((key, text) for key, text in wanted.items() if key in known)))


@lru_cache(maxsize=1)
def load_variant(variant: Variant, device: str) -> tuple[Method[Any], LoadedWeights]:
    """A variant's method, ready to propagate; the last one is kept, since it serves many sequences."""
    return load_method(
        variant.method,
        weights=variant.weights,
        preset=variant.preset,
        options=dict(variant.protocol) | dict(variant.options),
        device=device,
    )


def variant_refiner(variant: Variant) -> Refiner | None:
    """A variant's refiner, not yet entered, or None; raises as `make_refiner` does."""
    return make_refiner(variant.refine, dict(variant.refine_options))


def variant_adaptation(variant: Variant) -> AdaptConfig | None:
    """Settings of a variant's adaptation, or None; raises as `adaptation_config` does."""
    return adaptation_config(variant.adapt, variant.adapt_preset, dict(variant.adapt_options))


def variant_record(variant: Variant, size: int | None, device: str, threads: int) -> dict[str, Any]:
    """Everything about a variant that decides what its masks will be.

    Raises:
        MethodError, WeightsError: it cannot be had; better now than after hours of other work.
    """
    method, weights = load_variant(variant, device)
    refiner, adaptation = variant_refiner(variant), variant_adaptation(variant)
    settings = {
        "vostrack": __version__,
        "torch": torch.__version__,
        "threads": threads,
        "device": device,
        "method": variant.method,
        "preset": variant.preset,
        "config": asdict(method.config),
        "weights": asdict(weights),
        "size": size,
        "adapt": adaptation_record(variant.adapt, adaptation, torch.device(device))
        if variant.adapt and adaptation
        else None,
        "refine": refiner.record() if refiner else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain
