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

    stages: tuple[int, ...] = setting((1, 2, 3), "stages of the network that features come from", choices=(1, 2, 3, 4))
    colour: float = setting(3.0, "weight of the cells' colours; 0 for none", low=0)
    axes: int = setting(128, "principal axes of the first frame to project to; 0 for none", low=0)
    whitening: float = setting(0.7, "how far the axes' variances are evened out; 1 is fully", low=0, high=1)
    precision: str = setting("auto", "auto uses bfloat16 where that is fast; 32 never does", choices=("auto", "32"))


@dataclass(frozen=True)
class GridConfig(FeatureConfig):
    """Features on a grid whose stride can be chosen."""

    stride: int = setting(4, "distance from one cell to the next", choices=(4, 8), unit="pixels")


@dataclass(frozen=True)
class SearchConfig(Config, group="matching"):
    """Where the match of a cell is looked for in recent frames."""

    radius: int = setting(12, "recent frames are searched at distances below this", low=1, unit="cells")
    reach: float = setting(
        0.2, "share of the short side up to which fewer cells are searched, beyond the radius", low=0, high=4
    )


@dataclass(frozen=True)
class RecentConfig(SearchConfig, group="memory"):
    """Which recent frames are searched."""

    context: int = setting(4, "recent frames that are searched", low=0)
    spacing: int = setting(2, "frames from one of these to the next; the last frame is always one", low=1)


@dataclass(frozen=True)
class EdgeConfig(Config, group="edges"):
    """How labels follow the edges of the image."""

    edge_radius: int = setting(
        4, "half the side of squares in which labels follow the luminance; 0 for none", low=0, high=64, unit=AT_480
    )
    edge_contrast: float = setting(
        0.01, "standard deviation of the luminance, as a share of white, below which a square is flat", above=0, high=1
    )


@dataclass(frozen=True)
class UpdateConfig(Config, group="published parts"):
    """How VideoMatch updates what it matches with, and fits features to the first frame."""

    background_update: bool = setting(
        False,
        "whether removed outliers join the features of the background; then the whole frame is matched",
    )
    foreground_update: bool = setting(False, "whether sure cells join the features of their object")
    confident_threshold: float = setting(0.95, "probability above which a cell is sure", above=0, below=1)
    erosion: float = setting(10.0, "a sure cell lies further than this from the mask's border", low=0, unit=AT_480)
    capacity: int = setting(2000, "most features added to an object, and to its background", low=2)
    finetune_steps: int = setting(0, "training steps that fit the features to the first frame", low=0)
    finetune_rate: float = setting(1e-3, "learning rate of these steps", above=0)
    finetune_part: str = setting(
        "projection",
        "what they train: a linear map of the features, or the last block, which needs the features of preset `paper`",
        choices=("projection", "block"),
    )


@dataclass(frozen=True)
class SoftMatcherConfig(UpdateConfig, EdgeConfig, RecentConfig, GridConfig, group="matching"):
    """Settings of the soft matcher."""

    fine_stages: tuple[int, ...] = setting(
        (1, 2),
        "stages of the frame at twice its size; empty for none",
        choices=(1, 2, 3, 4),
        empty=True,
        group="features",
    )
    views: int = setting(
        1,
        "images that features are averaged over: the frame (1), its mirror image (2), both upside down (4)",
        choices=tuple(VIEWS),
        group="features",
    )
    scale: float = setting(40.0, "weight of the matching scores in the softmax; large is sharp", above=0)
    top_k: int = setting(
        3, "best similarities whose mean is the matching score; 0 for all, without recent frames", low=0
    )
    top_share: float = setting(0.25, "limit of `top_k`, as a share of the smaller set; 0 for none", low=0, high=1)
    background_score: float | None = setting(
        None,
        "matching score of the background, to match the foreground alone",
        low=-1,
        high=1,
    )
    template: int = setting(
        6500,
        "most cells of each label kept from a given frame; 0 for all",
        low=0,
        group="memory",
    )
    template_share: float = setting(1.0, "the same as a share of the frame's cells", above=0, high=1, group="memory")
    others_are_background: bool = setting(False, "whether objects are background to each other; else they compete")
    foreground_threshold: float = setting(0.5, "probability from which a cell belongs to an object", above=0, below=1)
    outlier_removal: bool = setting(True, "whether cells far from the object's last place are removed from it")
    max_displacement: float = setting(100.0, "maximum movement of an object from frame to frame", above=0, unit=AT_480)
    agility: float = setting(
        0.0,
        "maximum movement as a multiple of the largest lately, 40 pixels at 480p at least; "
        "0 for `max_displacement` alone",
        low=0,
    )

    def check(self) -> None:
        """All similarities are those with sets alone; the last block must be what features come from, and only that."""
        if not self.top_k and self.context:
            raise MethodError("top_k is 0, for all similarities, which recent frames do not allow: set context to 0")
        needed = {"stages": (4,), "fine_stages": (), "views": 1, "colour": 0, "stride": 8}
        if self.finetune_part == "block" and any(getattr(self, name) != value for name, value in needed.items()):
            wanted = ", ".join(f"{name}={value}" for name, value in needed.items())
            raise MethodError(f"finetune_part is 'block', the last of the network, which needs {wanted}")
