"""Follow objects through video: a clip and a mask of its first frame go in, a mask for every frame comes out.

    import vostrack

    for prediction in vostrack.track("dog.mp4", {0: "first.png"}):
        print(prediction.index, (prediction.mask > 0).sum())

Names are imported when they are first used, so that `import vostrack` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vostrack.batch.run import run_batch
    from vostrack.batch.task import Result, Task, run_one
    from vostrack.cli.plan import read_plan
    from vostrack.errors import (
        Cancelled,
        DatasetError,
        InputError,
        MaskError,
        MethodError,
        OutputError,
        OutputExistsError,
        PlanError,
        VostrackError,
        WeightsError,
    )
    from vostrack.methods import load_method
    from vostrack.propagate import Propagator
    from vostrack.run.callbacks import Callbacks
    from vostrack.run.export import export
    from vostrack.run.pipeline import Pipelines
    from vostrack.run.review import review
    from vostrack.run.segment import segment
    from vostrack.run.suggestions import suggest
    from vostrack.run.track import track
    from vostrack.run.update import undo, update
    from vostrack.types import Clip, Frame, FrameStream, LabelMap, Prediction
    from vostrack.video.masks import read_mask
    from vostrack.video.playback import Playback
    from vostrack.video.reader import open_clip

try:
    __version__ = version("vostrack")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_HOMES = {
    "Cancelled": "errors",
    "DatasetError": "errors",
    "InputError": "errors",
    "MaskError": "errors",
    "MethodError": "errors",
    "OutputError": "errors",
    "OutputExistsError": "errors",
    "PlanError": "errors",
    "VostrackError": "errors",
    "WeightsError": "errors",
    "Clip": "types",
    "Frame": "types",
    "FrameStream": "types",
    "LabelMap": "types",
    "Prediction": "types",
    "Propagator": "propagate",
    "Callbacks": "run.callbacks",
    "Pipelines": "run.pipeline",
    "Result": "batch.task",
    "Task": "batch.task",
    "export": "run.export",
    "read_plan": "cli.plan",
    "review": "run.review",
    "run_batch": "batch.run",
    "run_one": "batch.task",
    "segment": "run.segment",
    "suggest": "run.suggestions",
    "track": "run.track",
    "undo": "run.update",
    "update": "run.update",
    "load_method": "methods",
    "Playback": "video.playback",
    "open_clip": "video.reader",
    "read_mask": "video.masks",
}

__all__ = [
    "Callbacks",
    "Cancelled",
    "Clip",
    "DatasetError",
    "Frame",
    "FrameStream",
    "InputError",
    "LabelMap",
    "MaskError",
    "MethodError",
    "OutputError",
    "OutputExistsError",
    "Pipelines",
    "PlanError",
    "Playback",
    "Prediction",
    "Propagator",
    "Result",
    "Task",
    "VostrackError",
    "WeightsError",
    "__version__",
    "export",
    "load_method",
    "open_clip",
    "read_mask",
    "read_plan",
    "review",
    "run_batch",
    "run_one",
    "segment",
    "suggest",
    "track",
    "undo",
    "update",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vostrack' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vostrack.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
