"""The registry of methods: names, lazily imported classes, and a method made ready for use.

A method of your own is one file and one line here, or an entry point in the group `vostrack.methods` of another package
(docs/adding-a-method.md). Importing this module imports neither torch nor any method, so that `--help` stays quick.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vostrack.errors import MethodError, unknown_name

if TYPE_CHECKING:
    import torch

    from vostrack.methods.base import Method, MethodFactory
    from vostrack.weights import LoadedWeights

METHODS = {
    "anchors": "vostrack.methods.anchors:AnchorsMethod",
    "mast-mem": "vostrack.methods.mast_mem:MastMethod",
}
DEFAULT = "anchors"
_GROUP = "vostrack.methods"


def registered() -> dict[str, str]:
    """Import paths of all methods by name; those of other packages cannot replace our own."""
    return {**{point.name: point.value for point in entry_points(group=_GROUP)}, **METHODS}


def method_class(name: str) -> MethodFactory:
    """The class of a method.

    Raises:
        MethodError: no such method, or its package cannot be imported.
    """
    paths = registered()
    if name not in paths:
        raise MethodError(unknown_name("method", name, paths))
    module, _, attribute = paths[name].partition(":")
    try:
        factory: MethodFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MethodError(f"method {name!r} cannot be loaded from {paths[name]} ({error})") from error
    return factory


def configure(name: str, preset: str = "default", options: Mapping[str, str] | None = None) -> Any:
    """A method's configuration.

    Args:
        name: the method.
        preset: one of its presets.
        options: fields to change, as text: "12", "0.05", "true", "1,2,3".

    Raises:
        MethodError: an unknown preset or option, or a value of the wrong kind.
    """
    presets = method_class(name).presets
    if preset not in presets:
        raise MethodError(unknown_name(f"preset of {name}", preset, presets))
    config = presets[preset]
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, text in (options or {}).items():
        if key not in hints:
            raise MethodError(unknown_name(f"option of {name}", key, hints))
        changes[key] = _parse(name, key, text, hints[key])
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise MethodError(f"{name}: {error}") from error


def _parse(name: str, key: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if typing.get_origin(kind) is tuple:
            return tuple(int(part) for part in text.split(",") if part.strip())
    except (ValueError, KeyError):
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "numbers separated by commas")
    raise MethodError(f"option {key} of {name} must be {wanted}, not {text!r}")


def load_method(
    name: str = DEFAULT,
    *,
    weights: str | Path | None = None,
    preset: str = "default",
    options: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Method[Any], LoadedWeights]:
    """A method with its weights, ready to propagate.

    Args:
        name: of the method.
        weights: a file or a name from `vostrack weights`; None for the method's own.
        preset: named configuration.
        options: fields of the configuration to change, as text.
        device: where it computes.

    Returns:
        The method, and which weights it has.

    Raises:
        MethodError: unknown name, preset or option.
        WeightsError: the weights are missing, damaged or do not fit.
    """
    from vostrack import weights as store
    from vostrack.nets.fold import for_inference

    factory = method_class(name)
    config = configure(name, preset, options)
    net = factory.build_net()
    loaded = store.load(net, name, store.find(name, weights))
    return factory(for_inference(net).to(device), config), loaded
