"""Settings of the soft matcher, which several methods share."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from vostrack.device import PRECISIONS
from vostrack.errors import MethodError
from vostrack.nets.views import VIEWS


@dataclass(frozen=True)
class VideoMatchConfig:
    """Settings of the matching.

    Attributes:
        stages: stages of the trunk, 1 to 4, whose unit vectors are concatenated.
        fine_stages: stages of the frame at twice its size, which are matched beside these; empty for none.
        stride: pixels from cell to cell, 4 or 8.
        views: images that the stages are the mean over: 1 for the frame, 2 with its mirror image, 4 upside down too.
        colour: weight of the cells' colours beside the stages; 0 leaves them out.
        axes: principal axes of the first frame that are kept; 0 keeps the features as they are.
        whitening: how far the axes' variances are evened out, from 0 (not at all) to 1 (fully).
        scale: weight of the matching scores in the softmax.
        top_k: similarities whose mean is the matching score (K).
        template: cells of each label that are kept of a given frame at most, evenly chosen; 0 for all, as published. A
            frame whose short side has 240 pixels has fewer.
        context: recent frames whose cells around the same place are matched as well, each to the degree that it belongs
            to either; 0 for none, as published.
        spacing: frames from one of these to the next; the last frame is always one.
        radius: these frames are searched at a Euclidean distance below this, in cells.
        reach: fewer cells, a grid of some 60 on the short side, are searched from there on up to this share of the
            short side; 0 for none.
        others_are_background: whether what belongs to one object is background to the others, as published; else labels
            compete in one
            softmax, so that a cell that resembles two objects is not left to the background.
        outlier_removal: whether what is far from the object's last place is removed.
        max_displacement: how far an object moves from frame to frame at most, in pixels of a frame whose short side
            has 480.
        background_update: whether removed cells are added to the background.
        foreground_update: whether sure cells are added to the foreground.
        confident_threshold: probability above which a cell is sure.
        erosion: distance from the mask's border above which a cell is sure, in pixels as for `max_displacement`.
        foreground_threshold: probability from which a cell belongs to an object.
        capacity: features that are added to each set of an object at most.
        finetune_steps: steps by which the features are fine-tuned on the first frame; 0 does not.
        finetune_rate: learning rate of these.
        edge_radius: half the side of the squares in which labels follow the luminance, in pixels of a frame whose short
            side has 480; 0 leaves the edges alone.
        edge_contrast: standard deviation of the luminance, as a share of white, below which a square counts as flat.
        precision: "auto" to compute features and similarities in bfloat16 where the device is quick at it, or "32".
    """

    stages: tuple[int, ...] = (1, 2, 3)
    fine_stages: tuple[int, ...] = (1, 2)
    stride: int = 4
    views: int = 1
    colour: float = 3.0
    axes: int = 128
    whitening: float = 0.7
    scale: float = 40.0
    top_k: int = 3
    template: int = 6500
    context: int = 4
    spacing: int = 2
    radius: int = 12
    reach: float = 0.2
    others_are_background: bool = False
    outlier_removal: bool = True
    max_displacement: float = 100.0
    background_update: bool = True
    foreground_update: bool = False
    confident_threshold: float = 0.95
    erosion: float = 10.0
    foreground_threshold: float = 0.5
    capacity: int = 2000
    finetune_steps: int = 0
    finetune_rate: float = 1e-3
    edge_radius: int = 4
    edge_contrast: float = 0.01
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Reject settings that make no sense."""
        if not self.stages or not set(self.stages) <= {1, 2, 3, 4}:
            raise MethodError(f"stages must be among 1, 2, 3, 4, not {self.stages}")
        if not set(self.fine_stages) <= {1, 2, 3, 4}:
            raise MethodError(f"fine_stages must be among 1, 2, 3, 4, not {self.fine_stages}")
        if self.stride not in (4, 8):
            raise MethodError(f"stride must be 4 or 8, not {self.stride}")
        if self.views not in VIEWS:
            raise MethodError(f"views must be 1, 2 or 4, not {self.views}")
        if not 0 <= self.whitening <= 1 or not 0 <= self.colour < inf:
            raise MethodError("whitening must be from 0 to 1, and colour at least 0")
        if self.precision not in PRECISIONS:
            raise MethodError(f"precision must be auto or 32, not {self.precision!r}")
        if self.top_k < 1 or self.capacity < 2 or min(self.axes, self.finetune_steps, self.template) < 0:
            raise MethodError("top_k must be at least 1, capacity 2, axes, template and finetune_steps 0")
        if self.context < 0 or min(self.spacing, self.radius) < 1 or not 0 <= self.reach <= 4:
            raise MethodError("spacing and radius must be at least 1, context 0, reach from 0 to 4")
        if not (
            0 < self.scale < inf
            and 0 < self.max_displacement < inf
            and 0 <= self.erosion < inf
            and 0 < self.finetune_rate < inf
        ):
            raise MethodError("scale, max_displacement and finetune_rate must be above 0, erosion at least 0")
        if not (0 < self.confident_threshold < 1 and 0 < self.foreground_threshold < 1):
            raise MethodError(
                "confident_threshold and foreground_threshold must lie between 0 and 1, "
                f"not be {self.confident_threshold} and {self.foreground_threshold}"
            )
        if not 0 <= self.edge_radius <= 64:
            raise MethodError(f"edge_radius must be from 0 to 64, not {self.edge_radius}")
        if not 0 < self.edge_contrast <= 1:
            raise MethodError(f"edge_contrast must be above 0 and at most 1, not {self.edge_contrast}")
