"""Settings that several methods share, each declared once; a method's configuration inherits those that it has."""

from __future__ import annotations

from dataclasses import dataclass

from vostrack.config import Config, setting
from vostrack.errors import MethodError
from vostrack.nets.encoders import VIEWS

AT_480 = "pixels at 480p"
"""Pixels of a frame whose short side has 480; at other sizes they shrink or grow with the short side."""


@dataclass(frozen=True)
class FeatureConfig(Config, group="features"):
    """What a cell is compared by."""

    stages: tuple[int, ...] = setting((1, 2, 3), "stages of the network to match", choices=(1, 2, 3, 4))
    colour: float = setting(3.0, "weight of colours; 0 for none", low=0)
    axes: int = setting(128, "principal axes of the first frame; 0 for none", low=0)
    whitening: float = setting(0.7, "how far their variances are evened out; 1 is fully", low=0, high=1)
    precision: str = setting("auto", "auto uses bfloat16 where that is fast, 32 never", choices=("auto", "32"))


@dataclass(frozen=True)
class GridConfig(FeatureConfig):
    """Features on a grid whose stride can be chosen."""

    stride: int = setting(4, "distance between cells", choices=(4, 8), unit="pixels")


@dataclass(frozen=True)
class SearchConfig(Config, group="matching"):
    """Where the match of a cell is looked for in recent frames."""

    radius: int = setting(12, "how far recent frames are searched", low=1, unit="cells")
    reach: float = setting(0.2, "share of the short side up to which fewer cells are searched", low=0, high=4)


@dataclass(frozen=True)
class RecentConfig(SearchConfig, group="memory"):
    """Which recent frames are searched."""

    context: int = setting(4, "recent frames to search", low=0)
    spacing: int = setting(2, "frames between these; the last frame is always one", low=1)


@dataclass(frozen=True)
class EdgeConfig(Config, group="edges"):
    """How labels follow the edges of the image."""

    edge_radius: int = setting(
        4, "half the side of squares in which labels follow luminance; 0 for none", low=0, high=64, unit=AT_480
    )
    edge_contrast: float = setting(
        0.01, "deviation of luminance, as a share of white, below which a square is flat", above=0, high=1
    )


@dataclass(frozen=True)
class UpdateConfig(Config, group="published parts"):
    """How VideoMatch updates what it matches with, and fits features to the first frame."""

    background_update: bool = setting(True, "outliers join the background's features; all that is encoded is matched")
    foreground_update: bool = setting(False, "sure cells join their object's features")
    confident_threshold: float = setting(0.95, "probability above which a cell is sure", above=0, below=1)
    erosion: float = setting(10.0, "least distance of a sure cell from the border", low=0, unit=AT_480)
    capacity: int = setting(2000, "most features added to object and background", low=2)
    finetune_steps: int = setting(0, "training steps on the first frame", low=0)
    finetune_rate: float = setting(1e-3, "their learning rate", above=0)
    finetune_part: str = setting(
        "projection",
        "what they train: a projection of the features, or the last block (preset `paper`)",
        choices=("projection", "block"),
    )


@dataclass(frozen=True)
class SoftMatcherConfig(UpdateConfig, EdgeConfig, RecentConfig, GridConfig, group="matching"):
    """Settings of the soft matcher."""

    fine_stages: tuple[int, ...] = setting(
        (1, 2),
        "stages of the enlarged frame; empty for none",
        choices=(1, 2, 3, 4),
        empty=True,
        group="features",
    )
    views: int = setting(
        1,
        "views to average: the frame (1), its mirror image (2), both upside down (4)",
        choices=tuple(VIEWS),
        group="features",
    )
    scale: float = setting(40.0, "multiplies scores before the softmax; large is sharp", above=0)
    top_k: int = setting(3, "best similarities whose mean is the score; 0 for all, without recent frames", low=0)
    top_share: float = setting(0.25, "its limit, as a share of the smaller set; 0 for none", low=0, high=1)
    background_score: float | None = setting(
        None,
        "score of the background, to match the foreground alone",
        low=-1,
        high=1,
    )
    template: int = setting(
        6500,
        "most cells per label kept from a given frame; 0 for all",
        low=0,
        group="memory",
    )
    template_share: float = setting(1.0, "the same as a share of the frame's cells", above=0, high=1, group="memory")
    others_are_background: bool = setting(False, "objects are background to each other, else they compete")
    foreground_threshold: float = setting(0.5, "probability from which a cell belongs to an object", above=0, below=1)
    outlier_removal: bool = setting(True, "cells far from the object's last place are removed")
    max_displacement: float = setting(100.0, "most that an object moves in a frame", above=0, unit=AT_480)
    surround: int = setting(
        0,
        "pixels encoded around the rectangle that objects can have reached; all with 0 or `foreground_update`",
        low=0,
        group="features",
    )
    agility: float = setting(
        0.0, "limit as a multiple of its largest recent step, at least 40 pixels; 0 for `max_displacement` alone", low=0
    )

    absence: float = setting(
        0.0,
        "probability of the surer half of an object's cells below which it may be out of sight; 0 never",
        low=0,
        below=1,
    )
    likeness: float = setting(
        0.54,
        "with `absence`: mean similarity to the given object below which it is out of sight and in no mask",
        low=-1,
        high=1,
    )

    def check(self) -> None:
        """All similarities are those with sets alone; the last block must be what features come from, and only that."""
        if not self.top_k and self.context:
            raise MethodError("top_k is 0, for all similarities, which recent frames do not allow: set context to 0")
        needed = {"stages": (4,), "fine_stages": (), "views": 1, "colour": 0, "stride": 8}
        if self.finetune_part == "block" and any(getattr(self, name) != value for name, value in needed.items()):
            wanted = ", ".join(f"{name}={value}" for name, value in needed.items())
            raise MethodError(f"finetune_part is 'block', the last of the network, which needs {wanted}")
