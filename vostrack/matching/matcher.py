"""Cells are matched with what is known of each object and of its background: `videomatch`, `best`, `rpm-net` do it.

Source: Hu, Huang, Schwing, "VideoMatch: Matching based Video Object Segmentation" (ECCV 2018), sections 3.2 to 3.4;
`methods.videomatch` says what differs.

Each cell of a frame is compared with the cells of the object and with those of the background in the given frame; the
mean of its K highest similarities with either goes into a two-way softmax. What is far from the object's last place is
removed. Sure cells of the object and removed ones are added to the two sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from vostrack.device import working_type
from vostrack.matching.finetune import Describe, fine_tune
from vostrack.matching.location import SHORT_SIDE, LastSeen, in_cells, masks_of
from vostrack.matching.memory import FrameBank
from vostrack.matching.recent import recent_similarities
from vostrack.matching.sets import AddedFeatures, FeatureSets, Template
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.ops.grid import size_of, to_cells, to_pixels
from vostrack.ops.guided import guided_where_doubtful
from vostrack.ops.hypercolumns import principal_axes, project
from vostrack.ops.labels import harden
from vostrack.ops.matching import erode, fuse, surest_half, unfuse
from vostrack.ops.window import Place

_LIMIT = 20.0
"""Largest log-odds: nothing is surer in float32, and outliers stay below zero."""

_REMOVED = 40.0
"""Taken from the log-odds of outliers: they are gone, and `remember` can still tell what was predicted for them."""

_SAMPLE = 4
"""Top-K hits are counted for every 4th cell of each row and column: how often is a matter of proportion."""


@dataclass(frozen=True)
class MatchingState:
    """What is known of a clip.

    Attributes:
        projection: (C', C + 1) of the features, or (0, C + 1) for none (`ops.hypercolumns.project`).
        sets: foreground and background of each object.
        recent: the last frames; None without a context.
        places: where each object was last seen.
        block: weights of the part of the network that is fitted to the clip; empty where none is.
    """

    projection: Tensor
    sets: FeatureSets
    recent: FrameBank | None
    places: LastSeen
    block: tuple[Tensor, ...] = ()


class SoftMatcher:
    """Soft matching with the foreground and the background of each object, of any features."""

    state_type = MatchingState
    config: SoftMatcherConfig

    def __init__(self, config: SoftMatcherConfig) -> None:
        """Matching with some settings."""
        self.config = config

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.config.stride

    def begin(self, features: Tensor, labels: Tensor, state: MatchingState | None = None) -> MatchingState:
        """Make a frame whose labels were given a template; added features are dropped."""
        soft_labels, count = to_cells(labels, self.stride), len(labels)
        hard_labels = harden(soft_labels)
        block, projection = self._fitted(features, hard_labels) if state is None else (state.block, state.projection)
        grid = project(self.described(features, block), projection)
        keys, recent = _rows(grid), self._started(grid, soft_labels)
        templates = (
            *(state.sets.templates if state else ()),
            Template.of(keys, hard_labels.flatten(), count, self._template(grid)),
        )
        empty = (AddedFeatures.empty(self.config.capacity, keys),) * (count - 1)
        masks = masks_of(hard_labels, count)
        places = state.places.after(masks, given=True) if state else LastSeen.of(masks)
        return MatchingState(projection, FeatureSets(templates, empty, empty), recent, places, block)

    def predict(self, state: MatchingState, features: Tensor) -> Tensor:
        """Two-way softmax of the matching scores, without outliers, fused over the objects (section 3.2 to 3.4)."""
        return self.labelled(state, self.query(state, features), [])

    def query(self, state: MatchingState, features: Tensor) -> Tensor:
        """Features (C, h, w) projected (C', h, w), in the precision of the comparison."""
        return self._key(self._grid(state, features))

    def block(self) -> tuple[Tensor, ...]:
        """Weights of the part of the network that `described` runs, to be fitted to a clip; by default none."""
        return ()

    def described(self, features: Tensor, block: Sequence[Tensor]) -> Tensor:
        """What is compared (C', h, w), of what `encode` gives (C, h, w), with some weights such as `block` gives."""
        return features

    def window(self, state: MatchingState, size: tuple[int, int]) -> Place | None:
        """Pixels around what objects can have reached, as for `base.Windowing`."""
        cells = self._window(state)
        if cells is None:
            return None
        ends = zip(cells, state.places.seen.shape[1:], size, strict=True)
        rows, columns = (
            slice(part.start * self.stride, side if part.stop == count else (part.stop - 1) * self.stride + 1)
            for part, count, side in ends
        )
        return rows, columns

    def hide(self, state: MatchingState, channels: Sequence[int]) -> MatchingState:
        """See `base.Hiding`."""
        return replace(state, places=state.places.hiding(channels))

    def _window(self, state: MatchingState) -> Place | None:
        """The same in cells; None where all of the frame is read."""
        config = self.config
        if not config.surround or not config.outlier_removal or config.foreground_update:
            return None
        return state.places.window(self._reach(state), self.stride, config.surround)

    def _grid(self, state: MatchingState, features: Tensor) -> Tensor:
        """What is compared (C', h, w), of features of the frame or of its window, around which there are zeros."""
        return self._placed(state, project(self.described(features, state.block), state.projection))

    def _placed(self, state: MatchingState, part: Tensor) -> Tensor:
        """What is known of the frame (C, h, w), of that or of what is known of its window (C, h', w')."""
        grid, window = state.places.seen.shape[1:], self._window(state)
        if part.shape[1:] == grid or window is None:
            return part
        whole = part.new_zeros(len(part), *grid)
        whole[(slice(None), *window)] = part
        return whole

    def labelled(self, state: MatchingState, query: Tensor, further: list[Tensor]) -> Tensor:
        """The prediction for what `query` gives, with further similarities (N, L) with cells of each label, or none."""
        config, outside = self.config, self._outside(state)
        wanted = self._wanted(state, outside)
        chosen = wanted[0].flatten()
        recent = self._recent(state, query, wanted)
        further = [x[cells] for x, cells in zip(further, wanted.flatten(1), strict=False)]
        if recent and further:
            recent = [torch.cat(pair, 1) for pair in zip(recent, further, strict=True)]
        foreground, background = state.sets.scores(
            _rows(query)[chosen],
            config.top_k,
            recent or further,
            config.others_are_background,
            wanted.flatten(1)[:, chosen],
            config.top_share,
        )
        if config.background_score is not None:
            background = torch.full_like(foreground, config.background_score)
        log_odds = query.new_zeros(outside.shape, dtype=foreground.dtype)
        log_odds[:, wanted[0]] = (config.scale * (foreground - background)).clamp(max=_LIMIT)
        log_odds = log_odds.masked_fill(~wanted[1:], -_LIMIT) - _REMOVED * outside
        return fuse(log_odds, config.foreground_threshold)

    def remember(self, state: MatchingState, features: Tensor, probs: Tensor) -> MatchingState:
        """Add sure cells to the foreground and removed ones to the background of each object (section 3.3).

        The frame takes the place of the oldest recent one.
        """
        masks = masks_of(probs.argmax(0), len(probs))
        places = state.places.after(masks)
        grid = self._grid(state, features)
        # A cell that was not encoded belongs to no label: it must not vote.
        there = self._placed(state, torch.ones_like(features[:1]))
        recent = state.recent.add(self._key(grid), probs * there) if state.recent else None
        if not self.config.foreground_update and not self.config.background_update:
            return replace(state, recent=recent, places=places)
        outliers, nothing = self._outliers(state, probs), torch.zeros_like(masks)
        sure = self._sure(masks, probs) & ~outliers if self.config.foreground_update else nothing
        sets = state.sets.counted(
            _rows(grid[:, ::_SAMPLE, ::_SAMPLE])[there[0, ::_SAMPLE, ::_SAMPLE].flatten() > 0],
            self.config.top_k,
            self.config.others_are_background,
            self.config.top_share,
        )
        sets = sets.extended(
            _rows(grid),
            sure.flatten(1),
            (outliers if self.config.background_update else nothing).flatten(1),
        )
        return replace(state, sets=sets, recent=recent, places=places)

    def hidden(self, state: MatchingState, features: Tensor, probs: Tensor) -> Tensor:
        """See `base.Noticing`: an object whose mask is not sure, in which little is seen of how the object was given.

        Recent frames can keep a label alive where the object was, but not a sure one.
        """
        masks = masks_of(probs.argmax(0), len(probs)).flatten(1)
        hidden = surest_half(probs[1:].flatten(1), masks) < self.config.absence
        if hidden.any():
            cells = _rows(self.query(state, features))
            for number in hidden.nonzero().flatten().tolist():
                hidden[number] = state.sets.covered(number + 1, cells[masks[number]]) < self.config.likeness
        return hidden

    def forgets(self, state: MatchingState, ahead: int | None) -> bool:
        """See `base.Forgetting`."""
        if ahead is None:
            return True
        learns = self.config.foreground_update or self.config.background_update
        return not learns and ahead > (state.recent.capacity if state.recent else 0)

    def passed(self, state: MatchingState, probs: Tensor) -> MatchingState:
        """See `base.Forgetting`."""
        places = state.places.after(masks_of(probs.argmax(0), len(probs)))
        return replace(state, places=places, recent=state.recent and state.recent.passed())

    def enlarge(self, probs: Tensor, image: Tensor) -> Tensor:
        """Bilinear from cells to pixels, then along the edges of the image (He et al., "Guided Image Filtering")."""
        pixels, config = to_pixels(probs, self.stride, size_of(image)), self.config
        if not config.edge_radius:
            return pixels
        radius = max(1, round(config.edge_radius * min(size_of(image)) / SHORT_SIDE))
        return guided_where_doubtful(pixels, image, radius, config.edge_contrast**2)

    def shrink(self, probs: Tensor) -> Tensor:
        """Average of the pixels around each cell."""
        return to_cells(probs, self.stride)

    def _template(self, grid: Tensor) -> int:
        """How many cells of each label are kept of a frame with projected features (C', h, w)."""
        cells = grid[0].numel()
        return min(self.config.template or cells, max(1, round(self.config.template_share * cells)))

    def _key(self, grid: Tensor) -> Tensor:
        """Projected features (C', h, w) in the precision of the comparison."""
        return grid.to(working_type(self.config.precision, grid.device))

    def _started(self, grid: Tensor, soft_labels: Tensor) -> FrameBank | None:
        """Recent frames that begin with one whose labels were given; predicted ones are dropped."""
        if not self.config.context:
            return None
        key, room = self._key(grid), (self.config.context - 1) * self.config.spacing + 1
        return FrameBank.empty(room, key, soft_labels).add(key, soft_labels)

    def _outside(self, state: MatchingState) -> Tensor:
        """bool (O, h, w): what no object can have reached, or was not seen; nothing where outliers stay."""
        if not self.config.outlier_removal:
            return torch.zeros_like(state.places.seen)
        outside = state.places.outside(self._reach(state))
        if not self.config.surround or not state.recent:
            return outside
        # What comes into the window has no counterpart in the last frame yet, and would pass for whatever is there.
        return outside | ~state.recent.known

    def _reach(self, state: MatchingState) -> Tensor:
        """How far each object can be from its last place (O,), in cells."""
        return state.places.reach(self.config.max_displacement, self.config.agility)

    def _wanted(self, state: MatchingState, outside: Tensor) -> Tensor:
        """bool (K, h, w): cells to match with each label, with the background those that matter to any.

        What an object cannot have reached is not the object, whatever it looks like. But where outliers are added to
        the background, what they would have been taken for must be known.
        """
        if self.config.background_update:
            everything = outside.new_ones(len(outside) + 1, *outside.shape[1:])
            window = self._window(state)
            return everything if window is None else everything & _inside(window, outside)
        reached = ~outside
        near = reached.any(0, keepdim=True)
        return torch.cat((near, near.expand_as(reached) if self.config.others_are_background else reached))

    def _recent(self, state: MatchingState, query: Tensor, wanted: Tensor) -> list[Tensor]:
        """Similarities (n, L) with each label in recent frames, if there are any, of the cells wanted for it."""
        if not state.recent:
            return []
        config, bank = self.config, state.recent.latest(self.config.spacing)
        grid = query.permute(1, 2, 0).contiguous()
        return recent_similarities(
            grid, bank, radius=config.radius, reach=config.reach, top_k=config.top_k, scale=config.scale, wanted=wanted
        )

    def _fitted(self, features: Tensor, hard_labels: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Weights of the block, and principal axes, of the first frame; either may be fine-tuned."""
        config, block = self.config, self.block()
        if config.finetune_steps and block:
            block = self._tuned(lambda weights: self.described(features, weights), block, hard_labels)
        described, labels = self.described(features, block), F.one_hot(hard_labels).permute(2, 0, 1)
        axes = principal_axes(described, config.axes, config.whitening, labels)
        if config.finetune_steps and not block:
            start = axes if len(axes) else torch.eye(len(described), device=described.device)
            (axes,) = self._tuned(lambda weights: project(described, weights[0]), [start], hard_labels)
        return block, axes

    def _tuned(self, describe: Describe, start: Sequence[Tensor], hard_labels: Tensor) -> tuple[Tensor, ...]:
        config = self.config
        return fine_tune(
            describe,
            start,
            hard_labels,
            steps=config.finetune_steps,
            rate=config.finetune_rate,
            scale=config.scale,
            top_k=config.top_k,
            top_share=config.top_share,
        )

    def _outliers(self, state: MatchingState, probs: Tensor) -> Tensor:
        """bool (O, h, w): cells that were predicted as foreground initially and lie outside (the set b_t)."""
        outside = state.places.outside(self._reach(state))
        log_odds = unfuse(probs, self.config.foreground_threshold)
        if self.config.outlier_removal:
            log_odds = log_odds + _REMOVED * outside
        return outside & (log_odds >= _logit(self.config.foreground_threshold))

    def _sure(self, masks: Tensor, probs: Tensor) -> Tensor:
        """bool (O, h, w): cells of the final masks that are probable and far from the border."""
        inner = erode(masks, in_cells(self.config.erosion, masks.shape[1:]))
        return inner & (unfuse(probs, self.config.foreground_threshold) > _logit(self.config.confident_threshold))


def _inside(window: Place, like: Tensor) -> Tensor:
    """bool (h, w): the cells of a window, of a grid such as that of (any, h, w)."""
    there = like.new_zeros(like.shape[1:], dtype=torch.bool)
    there[window] = True
    return there


def _rows(features: Tensor) -> Tensor:
    """(C, h, w) -> (h * w, C), contiguous."""
    return features.flatten(1).T.contiguous()


def _logit(probability: float) -> float:
    return log(probability / (1 - probability))
