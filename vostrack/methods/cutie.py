"""`cutie`: runs the engine of the package rf-cutie, with weights that the user has.

Paper: Cheng et al., "Putting the Object Back into Video Object Segmentation" (CVPR 2024). It learned from human masks,
and is here as a yardstick. The package (extra `cutie`) encodes, predicts and remembers in one step of an
`InferenceCore`, so this is a `Stepping` method. What the package cannot do is done here with its own steps: a mask that
corrects some of the known objects, and memories of fewer cells than it reads from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vostrack.config import Config, setting
from vostrack.errors import VostrackError
from vostrack.methods.base import Objective
from vostrack.ops.grid import cells, size_of
from vostrack.ops.labels import correct, strongest, without_void
from vostrack.types import LabelMap
from vostrack.weights import Adopt

_STRIDE = 16


@dataclass(frozen=True)
class CutieConfig(Config, group="memory"):
    """Settings of the engine that matter to who uses it; the others are those of the package's evaluation."""

    mem_every: int = setting(5, "a frame is remembered every so often", low=1, unit="frames")
    max_mem_frames: int = setting(
        5, "frames in memory, the first one included, without long_term", low=1, unit="frames"
    )
    top_k: int = setting(30, "most similar remembered cells that are read", low=1)
    long_term: bool = setting(False, "old frames are compressed and kept, for long clips")
    chunk_size: int = setting(0, "objects computed together; 0 takes all, fewer need less memory", low=0)


class CutieMethod:
    """The engine of rf-cutie. Its object is the state of a clip."""

    name: ClassVar[str] = "cutie"
    paper: ClassVar[str] = "learned from human masks"  # Cheng et al. (2024); the list has to fit a terminal
    presets: ClassVar[Mapping[str, CutieConfig]] = {"default": CutieConfig(), "long": CutieConfig(long_term=True)}
    nets: ClassVar[Mapping[str, Callable[[], nn.Module]]]
    adopts: ClassVar[Mapping[str, Adopt]] = {}
    objective: ClassVar[type[Objective] | None] = None
    state_type: ClassVar[type[Any]] = object

    def __init__(self, net: nn.Module, config: CutieConfig | None = None) -> None:
        """A method with a network in evaluation mode."""
        self.net, self.config = net, config or CutieConfig()

    def step(self, image: Tensor, given: LabelMap | None, state: Any = None) -> tuple[Any, Tensor]:
        """One frame; raises `VostrackError` where rf-cutie is missing."""
        core = self._core(size_of(image)) if state is None else state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, for how the package turns autocast off
            return core, _stepped(core, image, given)

    def _core(self, size: tuple[int, int]) -> Any:
        """The engine for a clip whose frames the network sees at a size (H, W)."""
        from cutie.inference.inference_core import InferenceCore
        from omegaconf import OmegaConf

        height, width = cells(size, _STRIDE)
        evaluation: Any = self.net.cfg
        long = evaluation.long_term
        compressed = (long.max_mem_frames - long.min_mem_frames) * height * width
        changed = {
            "mem_every": self.config.mem_every,
            "max_mem_frames": self.config.max_mem_frames,
            "top_k": min(self.config.top_k, height * width),
            "use_long_term": self.config.long_term,
            "long_term": {"num_prototypes": min(long.num_prototypes, compressed)},
            "chunk_size": self.config.chunk_size or -1,
        }
        return InferenceCore(self.net, OmegaConf.merge(evaluation, changed))


def _stepped(core: Any, image: Tensor, given: LabelMap | None) -> Tensor:
    """Probabilities (K, H, W) of a frame, which the engine then knows."""
    known: list[int] = core.object_manager.all_obj_ids
    if given is None or not given.ids:
        return core.step(image) if known else torch.ones_like(image[:1])
    new = [number for number in given.ids if number not in known]
    if not new:
        return _corrected(core, image, given)
    mask, named = without_void(given.pixels).long(), [number for number in known if number in given.ids]
    return core.step(image, mask, [*named, *new])  # type: ignore[no-any-return]


def _corrected(core: Any, image: Tensor, given: LabelMap) -> Tensor:
    """As `_stepped`, with a mask of known objects alone: the others, and these where it is void, stay as predicted.

    The package expects a mask of all known objects, or of new ones. A first step, which remembers nothing, predicts.
    """
    predicted = core.step(image, end=True, delete_buffer=False)
    core.curr_ti -= 1  # the same frame comes once more
    known = core.object_manager.all_obj_ids
    pixels = correct(strongest(predicted, known, size_of(image)), given.pixels.cpu(), given.ids)
    mask = without_void(pixels).long().to(image.device)
    return core.step(image, mask, known, force_permanent=True)  # type: ignore[no-any-return]


def _network(kind: str) -> nn.Module:
    """The package's network with random weights; `kind` is a file of its configuration."""
    try:
        from cutie.model.cutie import CUTIE
        from cutie.model.utils import resnet
        from omegaconf import OmegaConf
    except ImportError as error:
        raise VostrackError(
            f"the method cutie needs rf-cutie, which cannot be imported ({error}): pip install 'vostrack[cutie]'"
        ) from error
    base, own, evaluation = (
        OmegaConf.create(files("cutie.config").joinpath(name).read_text(encoding="utf-8"))
        for name in ("model/base.yaml", f"model/{kind}.yaml", "eval_config.yaml")
    )
    evaluation.model = OmegaConf.merge(base, own)
    trunks = {name: getattr(resnet, name) for name in ("resnet18", "resnet50")}
    for name, trunk in trunks.items():  # else it fetches weights for them, which those of the whole network replace
        setattr(resnet, name, partial(_untrained, trunk))
    try:
        net: nn.Module = CUTIE(evaluation)
    finally:
        for name, trunk in trunks.items():
            setattr(resnet, name, trunk)
    del net.aux_computer  # for training alone
    return net


def _untrained(trunk: Callable[..., nn.Module], *, pretrained: bool, **options: Any) -> nn.Module:
    return trunk(pretrained=False, **options)


CutieMethod.nets = {"default": partial(_network, "base"), "small": partial(_network, "small")}
