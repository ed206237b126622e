"""What makes the masks of a clip: a method with its settings and weights, an adaptation, a refinement.

`PipelineConfig` says what is wanted, `load_pipeline` makes it ready, and `Pipeline.record` is everything that decides
what the masks will be, which resuming and benchmarks compare.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vostrack import __version__
from vostrack.adapt.adaptation import adaptation_record
from vostrack.adapt.config import AdaptConfig, adaptation_config
from vostrack.device import choose_device
from vostrack.errors import MethodError, VostrackError
from vostrack.files import plain, shown
from vostrack.methods import DEFAULT, WORKING_SIZE, load_method
from vostrack.methods.base import Method, Stepping
from vostrack.refine import make_refiner
from vostrack.refine.base import Refiner
from vostrack.weights import LoadedWeights


@dataclass(frozen=True)
class PipelineConfig:
    """How the masks of a clip are made.

    Attributes:
        method: name of the method.
        preset: named settings of the method.
        settings: settings of the method to change, by name.
        weights: file or name of weights; None for the method's own.
        size: short side of the working resolution in pixels; None for the source's.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        adapt: form of online adaptation: "clip" for two passes, "live" for one; None for none.
        adapt_preset: its named settings.
        adapt_settings: settings of it to change, by name.
        refine: name of the refinement of the masks ("crf"); None for none.
        refine_settings: settings of it to change, by name.
    """

    method: str = DEFAULT
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: str | Path | None = None
    size: int | None = WORKING_SIZE.default
    device: str = "auto"
    adapt: str | None = None
    adapt_preset: str = "default"
    adapt_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    refine: str | None = None
    refine_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse values of the wrong type; raises `MethodError`."""
        WORKING_SIZE.checked(self.size)
        texts = {"method": self.method, "preset": self.preset, "adapt_preset": self.adapt_preset, "device": self.device}
        texts |= {name: value for name in ("adapt", "refine") if (value := getattr(self, name)) is not None}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise MethodError(f"{name} must be a name such as {_EXAMPLES[name]!r}, not {value!r}")
        if self.weights is not None and not isinstance(self.weights, str | Path):
            raise MethodError(f"weights must be a file or a name, not {self.weights!r}")
        for name in ("settings", "adapt_settings", "refine_settings"):
            if not isinstance(getattr(self, name), Mapping):
                raise MethodError(
                    f"{name} must be values by name, such as {{'radius': 8}}, not {getattr(self, name)!r}"
                )


_EXAMPLES = {
    "method": DEFAULT,
    "preset": "default",
    "adapt_preset": "default",
    "adapt": "clip",
    "refine": "crf",
    "device": "cpu",
}


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that is ready to run.

    Attributes:
        config: what was asked for.
        method: with its network on `device`.
        weights: that the method has.
        device: where it computes.
        adapt: settings of the adaptation, or None.
    """

    config: PipelineConfig
    method: Method[Any] | Stepping
    weights: LoadedWeights
    device: torch.device
    adapt: AdaptConfig | None

    def refiner(self) -> Refiner | None:
        """A fresh refiner, not yet entered, or None."""
        return make_refiner(self.config.refine, self.config.refine_settings)

    def record(self) -> dict[str, Any]:
        """Everything that decides what the masks of given frames and masks will be, as JSON holds it."""
        config, refiner = self.config, self.refiner()
        record = {
            "vostrack": __version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "method": config.method,
            "preset": config.preset,
            "config": asdict(self.method.config),
            "weights": asdict(self.weights),
            "size": config.size,
            "adapt": adaptation_record(config.adapt, self.adapt, self.device) if config.adapt and self.adapt else None,
            "refine": refiner.record() if refiner else None,
        }
        return dict(plain(record))


_LOADED_IN = os.getpid()


def load_pipeline(config: PipelineConfig) -> Pipeline:
    """Make a pipeline ready.

    Raises:
        VostrackError: the device is not there, or a package that the refinement needs; or the process is a fork in
            which torch would hang.
        MethodError: an unknown name or setting of the method, the adaptation or the refinement.
        WeightsError: the weights are missing, damaged or do not fit.
    """
    if os.getpid() != _LOADED_IN and torch.get_num_threads() > 1:
        # torch's threads stay in the parent; the first computation that wants them would wait for ever.
        raise VostrackError(
            "this process was forked from one that had loaded torch: start it with 'spawn' or 'forkserver', "
            "or call torch.set_num_threads(1) in it first"
        )
    device = choose_device(config.device)
    adapt = adaptation_config(config.adapt, config.adapt_preset, config.adapt_settings)
    refiner = make_refiner(config.refine, config.refine_settings)  # fails, where it does, before weights are read
    if refiner and refiner.feedback and adapt:
        raise MethodError("a refinement with feedback and an adaptation exclude each other: leave one of them out")
    method, weights = load_method(
        config.method, weights=config.weights, preset=config.preset, settings=config.settings, device=device
    )
    if refiner and refiner.feedback and not hasattr(method, "shrink"):
        raise MethodError(f"{config.method} has no `shrink` and cannot go on with refined masks: leave feedback out")
    return Pipeline(config, method, weights, device, adapt)


class Pipelines:
    """Pipelines that stay loaded, to be called in the place of `load_pipeline` for one clip after the other."""

    def __init__(self, most: int = 2) -> None:
        """Say how many stay; the one that was used first goes first."""
        self._most = most
        self._ready: dict[str, Pipeline] = {}

    def __call__(self, config: PipelineConfig) -> Pipeline:
        """The pipeline, loaded if it is not there; raises what `load_pipeline` raises."""
        key = repr(config)
        if key not in self._ready:
            while len(self._ready) >= self._most:
                self._ready.pop(next(iter(self._ready)))
            self._ready[key] = load_pipeline(config)
        return self._ready[key]


def changes(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 6) -> str:
    """What differs between two records of JSON, for a message: "size from 480 to 240, config.radius from 8 to 12".

    Empty where nothing does. Long values, such as hashes, are named alone; of many differences the first are named,
    method and preset before all others and without what follows from them.
    """
    earlier, later = dict(_leaves(before)), dict(_leaves(now))
    own: tuple[str, ...] = ()
    if earlier.get("method") != later.get("method"):
        own = ("config.", "weights.", "preset")
    elif earlier.get("preset") != later.get("preset"):
        own = ("config.", "weights.")
    words = []
    for name in dict.fromkeys(("method", "preset", *earlier, *later)):
        if earlier.get(name) != later.get(name) and not name.startswith(own):
            texts = [json.dumps(each.get(name)) for each in (earlier, later)]
            values = f" from {texts[0]} to {texts[1]}" if max(map(len, texts)) <= 24 else ""
            fix = f" (set OMP_NUM_THREADS={texts[0]})" if name == "threads" else ""
            words.append(shown(f"{name[:60]}{values}{fix}"))
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a record that are no records, by their dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
