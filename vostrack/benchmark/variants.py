"""Variants of methods as they are asked for on the command line: `anchors`, `anchors:paper`, `anchors,radius=8`.

Knows nothing of datasets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

from vostrack import __version__
from vostrack.errors import MethodError
from vostrack.methods import load_method
from vostrack.methods.base import Method
from vostrack.weights import LoadedWeights

_FORMAT = re.compile(r"([\w.-]+)(?::([\w.-]+))?((?:,[\w-]+=[^=]*)*)")


@dataclass(frozen=True, slots=True)
class Variant:
    """A method in one of its configurations.

    Attributes:
        method: its name.
        preset: named configuration.
        options: changed fields, as pairs of text.
        weights: file or name of weights; None for the method's own.
    """

    method: str
    preset: str = "default"
    options: tuple[tuple[str, str], ...] = ()
    weights: str | None = None

    @property
    def name(self) -> str:
        """A name for people and for a folder; what is long in it is a hash."""
        extra = [] if self.preset == "default" else [self.preset]
        if self.options or self.weights:
            extra.append(hashlib.sha256(json.dumps([self.options, self.weights]).encode()).hexdigest()[:8])
        return "-".join([self.method, *extra])

    @property
    def text(self) -> str:
        """How it is asked for."""
        pairs = [*self.options, *([("weights", self.weights)] if self.weights else [])]
        preset = "" if self.preset == "default" else f":{self.preset}"
        return ",".join([f"{self.method}{preset}", *(f"{key}={value}" for key, value in pairs)])


def parse_variants(texts: Sequence[str]) -> list[Variant]:
    """Variants from texts "METHOD[:PRESET][,KEY=VALUE...]"; the key "weights" takes a file or a name.

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
    weights = options.pop("weights", None)
    return Variant(match[1], match[2] or "default", tuple(sorted(options.items())), weights)


@lru_cache(maxsize=1)
def load_variant(variant: Variant, device: str) -> tuple[Method[Any], LoadedWeights]:
    """A variant's method, ready to propagate; the last one is kept, since it serves many sequences."""
    return load_method(
        variant.method,
        weights=variant.weights,
        preset=variant.preset,
        options=dict(variant.options),
        device=device,
    )


def describe_variant(variant: Variant, size: int | None, device: str, threads: int) -> dict[str, Any]:
    """Everything about a variant that decides what its masks will be.

    Raises:
        MethodError, WeightsError: it cannot be had; better now than after hours of other work.
    """
    method, weights = load_variant(variant, device)
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
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain
