"""The registry of methods: names, lazily imported classes, and a method made ready for use.

A method of your own is one file and one line here, or an entry point in the group `vostrack.methods` of another package
(docs/adding-a-method.md). Importing this module imports neither torch nor any method, so that `--help` stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vostrack.config import Setting, changed
from vostrack.errors import MethodError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vostrack.methods.base import Method, MethodFactory, Stepping
    from vostrack.weights import LoadedWeights

METHODS = {
    "best": "vostrack.methods.best:BestMethod",
    "anchors": "vostrack.methods.anchors:AnchorsMethod",
    "mast-mem": "vostrack.methods.mast_mem:MastMethod",
    "videomatch": "vostrack.methods.videomatch:VideoMatchMethod",
    "rpm-net": "vostrack.methods.rpm_net:RpmNetMethod",
    "cutie": "vostrack.methods.cutie:CutieMethod",
    "copy": "vostrack.methods.copy:CopyMethod",
}
DEFAULT = "best"
QUALITY = ("fast", "balanced", "accurate")
"""Presets that a method may have, each slower and more accurate than the one before."""
PRESETS = {
    "best": ("default", *QUALITY),
    **dict.fromkeys(("anchors", "mast-mem", "videomatch", "rpm-net"), ("default", "paper")),
    "cutie": ("default", "long"),
    "copy": ("default",),
}
"""Names of the presets that our methods have."""
FLOOR = "copy"
"""The method that does nothing: what benchmarks measure others against."""


class Direction(StrEnum):
    """Which way objects are followed from the frames whose masks were given."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


class OnCut(StrEnum):
    """What happens to objects at a scene cut: they are followed across it, or stop until a mask is given."""

    CONTINUE = "continue"
    STOP = "stop"


WORKING_SIZE = Setting(
    "size",
    int,
    many=False,
    optional=True,
    default=480,
    low=16,
    high=8192,
    unit="pixels",
    meaning="short side that methods work at",
)
"""The short side of the working resolution; None is that of the source."""

_GROUP = "vostrack.methods"


def registered() -> dict[str, str]:
    """Import paths of all methods by name; those of other packages cannot replace our own."""
    return {**found_methods(), **METHODS}


@cache
def found_methods() -> dict[str, str]:
    """Import paths of the methods of other packages, by name; these are looked for once."""
    return {point.name: point.value for point in entry_points(group=_GROUP)}


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


def configure(name: str, preset: str = "default", settings: Mapping[str, Any] | None = None) -> Any:
    """A method's configuration.

    Args:
        name: the method.
        preset: one of its presets.
        settings: values by name, for those to change.

    Raises:
        MethodError: an unknown preset or setting, or a value of the wrong kind or out of range.
    """
    return _chosen(name, "preset", method_class(name).presets, preset, settings)


def check_preset(name: str, preset: str) -> None:
    """Refuse an unknown method or preset; a method of ours is not imported where it has that. Raises `MethodError`."""
    if preset not in PRESETS.get(name, ()):
        configure(name, preset)


def preset_name(name: str, preset: str = "default") -> str:
    """What a preset is called for people: `default` by the name of the preset that it equals, if there is one.

    Raises:
        MethodError: no such method.
    """
    presets = method_class(name).presets
    return next((each for each in QUALITY if preset == "default" and presets.get(each) == presets[preset]), preset)


def training_recipe(name: str, recipe: str = "default", settings: Mapping[str, Any] | None = None) -> Any:
    """How a method is trained; arguments and errors as for `configure`, with recipes for presets.

    Raises:
        MethodError: also for a method whose networks are those of others, or that has none.
    """
    factory = method_class(name)
    if not factory.nets:
        raise MethodError(f"{name} has no network to train: choose another method")
    if factory.objective is None:
        parts = " or ".join(factory.adopts)
        fix = f"train {parts}, whose weights it takes" if parts else "its weights come from elsewhere"
        raise MethodError(f"{name} cannot be trained here: {fix}")
    return _chosen(name, "recipe", factory.objective.recipes, recipe, settings)


def build_net(name: str, architecture: str = "default") -> nn.Module:
    """A method's network with random weights.

    Raises:
        MethodError: the method has no such architecture.
    """
    nets = method_class(name).nets
    if architecture not in nets:
        raise MethodError(unknown_name(f"network of {name}", architecture, nets))
    return nets[architecture]()


def _chosen(name: str, kind: str, table: Mapping[str, Any], wanted: str, settings: Mapping[str, Any] | None) -> Any:
    """An entry of a table of configurations, with some settings changed."""
    if wanted not in table:
        raise MethodError(unknown_name(f"{kind} of {name}", wanted, table))
    return changed(table[wanted], settings or {}, name)


def load_method(
    name: str = DEFAULT,
    *,
    weights: str | Path | None = None,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Method[Any] | Stepping, LoadedWeights]:
    """A method with its weights, ready to propagate.

    Args:
        name: of the method.
        weights: a file, a name from `vostrack weights`, or "random"; None for the method's own.
        preset: named configuration.
        settings: values by name, for settings of the configuration to change.
        device: where it computes.

    Returns:
        The method, and which weights it has.

    Raises:
        MethodError: unknown name, preset or setting; weights for a method without a network.
        WeightsError: the weights are missing, damaged or do not fit.
    """
    from torch import nn

    from vostrack import weights as store
    from vostrack.nets.encoders import for_inference

    factory = method_class(name)
    config = configure(name, preset, settings)
    if not factory.nets:
        if weights is not None:
            raise MethodError(f"{name} has no network: leave `weights` out")
        return factory(nn.Identity(), config), store.LoadedWeights(store.NONE, "")
    network = getattr(config, "network", "default")  # few methods have a choice
    if weights == store.RANDOM:
        net, loaded = store.initialised(partial(build_net, name, network))
    else:
        source = store.find(name, weights, network)
        network = store.architecture(source)
        net = build_net(name, network)
        loaded = store.load(net, name, source, factory.adopts)
    if hasattr(config, "network"):
        config = changed(config, {"network": network}, name)  # weights that are named decide
    return factory(for_inference(net).to(device), config), loaded
