"""The sets of features that the soft matcher compares a frame with.

A template holds the cells of a frame whose labels were given, and stays. Added features come from frames that were
predicted; each object has a bounded number of them in its foreground and in its background, and those that seldom enter
the top K make room for new ones. A template serves all objects at once; whether what belongs to one is
background to the others is a setting.

Letters: N query cells, C channels, A capacity, O objects, K = O + 1 label channels with the background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vostrack.ops.affinity import best_keys, best_similarities
from vostrack.ops.matching import mean_of_best, neighbours, soft_matching


@dataclass(frozen=True)
class Template:
    """Features of a frame whose labels were given.

    Attributes:
        keys: (cells, C), sorted by label channel.
        counts: cells of each channel; it has as many channels as were known then.
    """

    keys: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, keys: Tensor, hard_labels: Tensor, count: int, most: int = 0) -> Self:
        """A template of features (cells, C) with hard labels int64 (cells,) below `count`.

        With `most` above 0 there are at most so many of each channel, evenly chosen.
        """
        parts = [keys[hard_labels == channel] for channel in range(count)]
        chosen = [_evenly(part, most) if most else part for part in parts]
        return cls(torch.cat(chosen), tuple(len(part) for part in chosen))

    def best(self, query: Tensor, top_k: int, wanted: Tensor) -> list[Tensor]:
        """Highest similarities (n, L) with the cells of each channel, of the n queries that bool (K, N) has for it."""
        return [best_similarities(query[rows], part, top_k) for part, rows in zip(self.parts, wanted, strict=False)]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The cells (any, C) of each channel."""
        return torch.split(self.keys, list(self.counts))


@dataclass(frozen=True)
class AddedFeatures:
    """Features that were found on the way; the first `filled` rows hold one.

    Attributes:
        keys: (A, C).
        hits: (A,) how often each entered the top K.
        frames: (A,) during how many frames.
        filled: how many there are.
    """

    keys: Tensor
    hits: Tensor
    frames: Tensor
    filled: int = 0

    @classmethod
    def empty(cls, capacity: int, keys: Tensor) -> Self:
        """Room for `capacity` features such as those of (cells, C)."""
        return cls(keys.new_zeros(capacity, keys.shape[1]), keys.new_zeros(capacity), keys.new_zeros(capacity))

    @property
    def used(self) -> Tensor:
        """The features that are there (filled, C)."""
        return self.keys[: self.filled]

    def counted(self, query: Tensor, others: Sequence[Tensor], top_k: int) -> Self:
        """The same features, a frame older, with those counted that enter the top K of a query.

        Args:
            query: (N, C).
            others: highest similarities (N, L) of the queries with the rest of the set.
            top_k: as the set is matched with.
        """
        if not self.filled:
            return self
        similarity, index = best_keys(query, self.used, top_k)
        joint = torch.cat((similarity, *others), 1)
        chosen = joint.topk(min(top_k, joint.shape[1]), dim=1).indices
        own = chosen < similarity.shape[1]
        entered = index.gather(1, chosen.clamp(max=similarity.shape[1] - 1))[own]
        hits = self.hits + torch.bincount(entered, minlength=len(self.hits))
        return replace(self, hits=hits, frames=self.frames + 1)

    def extended(self, keys: Tensor) -> Self:
        """With new features; where room lacks, those that enter the top K least often per frame go.

        Args:
            keys: (any, C); they take half of the room at most, evenly chosen.
        """
        if not len(keys):
            return self
        capacity = len(self.keys)
        new = _evenly(keys, capacity // 2)
        rate = self.hits[: self.filled] / self.frames[: self.filled].clamp(min=1)
        stay = rate.argsort(descending=True, stable=True)[: capacity - len(new)].sort().values
        filled = len(stay) + len(new)

        def packed(old: Tensor, fresh: Tensor) -> Tensor:
            return torch.cat((old[stay], fresh, old.new_zeros(capacity - filled, *old.shape[1:])))

        zero = self.hits.new_zeros(len(new))
        return replace(
            self,
            keys=packed(self.keys, new),
            hits=packed(self.hits, zero),
            frames=packed(self.frames, zero),
            filled=filled,
        )


def _evenly(keys: Tensor, most: int) -> Tensor:
    """At most so many rows, spread evenly."""
    if len(keys) <= most:
        return keys
    return keys[torch.arange(most, device=keys.device) * len(keys) // most]


Side = tuple[list[Tensor], AddedFeatures]
"""Similarities (N, L) with the given features of a set, part by part, and its added features."""


@dataclass(frozen=True)
class FeatureSets:
    """Foreground and background of all objects.

    Attributes:
        templates: frames whose labels were given. Those from before an object was first given say nothing about it.
        foreground: added features of each object.
        background: the same of what is not the object.
    """

    templates: tuple[Template, ...]
    foreground: tuple[AddedFeatures, ...]
    background: tuple[AddedFeatures, ...]

    def scores(
        self,
        query: Tensor,
        top_k: int,
        recent: Sequence[Tensor] = (),
        others_are_background: bool = True,
        wanted: Tensor | None = None,
        top_share: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Matching scores with the foreground and with the background of each object.

        A template is matched once for each label; the top K of a union are among those of its parts.

        Args:
            query: (N, C), unit vectors; products are computed in its precision.
            top_k: similarities that count; 0 for all, without further ones.
            recent: further similarities (n, L) with cells of each label, of the n queries that matter to it; or none.
            others_are_background: whether the background of an object holds the other objects.
            wanted: bool (K, N), which queries matter to which label, those of an object also to what is its background;
                None for all.
            top_share: as for `ops.matching.neighbours`.

        Returns:
            (O, N) each, -inf where a set is empty or a query does not matter.
        """
        rows: list[list[Tensor]] = [[], []]
        if not top_k:
            for number in range(1, len(self.foreground) + 1):
                for row, keys in zip(rows, self._keys(number, others_are_background), strict=True):
                    row.append(soft_matching(query, keys, 0))
            return _stacked(rows[0], query), _stacked(rows[1], query)
        wanted = self._all(query) if wanted is None else wanted
        matched = self._matched(query, top_k, others_are_background, top_share, wanted)
        for number, (sides, count) in enumerate(matched, 1):
            mine, others = wanted[number], _others(number, len(recent), others_are_background)
            further = recent[number : number + 1], [recent[k][mine[wanted[k]]] for k in others]
            for row, (given, added), more in zip(rows, sides, further, strict=True):
                scores = torch.full(mine.shape, -torch.inf, device=query.device)
                scores[mine] = mean_of_best([*given, best_similarities(query, added.used, count)[mine], *more], count)
                row.append(scores)
        return _stacked(rows[0], query), _stacked(rows[1], query)

    def covered(self, number: int, cells: Tensor) -> float:
        """How much of an object is seen in cells (N, C), N at least 1: mean similarity of its cells in a given frame.

        Each counts with the cell that is most like it. Of several given frames the one counts that is seen
        best; 1 where none shows the object.
        """
        known = [template.parts[number] for template in self.templates if number < len(template.counts)]
        return max((float(best_similarities(part, cells, 1).mean()) for part in known if len(part)), default=1.0)

    def counted(self, query: Tensor, top_k: int, others_are_background: bool = True, top_share: float = 0.0) -> Self:
        """The same sets, with those added features counted that enter the top K of a query (N, C).

        Where all similarities count, so do all features alike.
        """
        if not top_k or not any(added.filled for added in (*self.foreground, *self.background)):
            return self
        rows: list[list[AddedFeatures]] = [[], []]
        for sides, count in self._matched(query, top_k, others_are_background, top_share, self._all(query)):
            for row, (given, added) in zip(rows, sides, strict=True):
                row.append(added.counted(query, given, count))
        return replace(self, foreground=tuple(rows[0]), background=tuple(rows[1]))

    def _matched(
        self, query: Tensor, top_k: int, others_are_background: bool, top_share: float, wanted: Tensor
    ) -> Iterator[tuple[tuple[Side, Side], int]]:
        """Foreground and background of each object, and how many similarities count for it."""
        found = [template.best(query, top_k, wanted) for template in self.templates]
        for number, added in enumerate(zip(self.foreground, self.background, strict=True), 1):
            known = [template for template in self.templates if number < len(template.counts)]
            own = sum(template.counts[number] for template in known)
            others = sum(t.counts[k] for t in known for k in _others(number, len(t.counts), others_are_background))
            parts = [parts for parts in found if number < len(parts)]
            front = [p[number] for p in parts], added[0]
            sides = [(p, k) for p in parts for k in _others(number, len(p), others_are_background)]
            back = [p[k][wanted[number][wanted[k]]] for p, k in sides], added[1]
            yield (front, back), neighbours(top_k, top_share, own + added[0].filled, others + added[1].filled)

    def _all(self, query: Tensor) -> Tensor:
        """bool (K, N): every query matters to every label."""
        return torch.ones(len(self.foreground) + 1, len(query), dtype=torch.bool, device=query.device)

    def _keys(self, number: int, others_are_background: bool) -> tuple[Tensor, Tensor]:
        """All features (any, C) of an object's foreground and of its background."""
        known = [template.parts for template in self.templates if number < len(template.counts)]
        front = [parts[number] for parts in known]
        back = [parts[k] for parts in known for k in _others(number, len(parts), others_are_background)]
        return (
            torch.cat((*front, self.foreground[number - 1].used)),
            torch.cat((*back, self.background[number - 1].used)),
        )

    def extended(self, keys: Tensor, foreground: Tensor, background: Tensor) -> Self:
        """With features of a frame added.

        Args:
            keys: (cells, C).
            foreground: bool (O, cells), what each object's foreground gets.
            background: the same for the background.
        """
        front = tuple(added.extended(keys[chosen]) for added, chosen in zip(self.foreground, foreground, strict=True))
        back = tuple(added.extended(keys[chosen]) for added, chosen in zip(self.background, background, strict=True))
        return replace(self, foreground=front, background=back)


def _stacked(rows: list[Tensor], query: Tensor) -> Tensor:
    """Scores (O, N) of a query (N, C) from those of each object, if there are any."""
    return torch.stack(rows) if rows else torch.empty(0, len(query), device=query.device)


def _others(number: int, count: int, others_are_background: bool) -> list[int]:
    """Of so many label channels, those that are background to an object: all others, or the background's alone."""
    return [channel for channel in range(count if others_are_background else min(1, count)) if channel != number]
