"""Tells noise from gain: two results over the same sequences, and how sure their difference is.

The sequences are what was chosen at random, so they are what is resampled: a paired bootstrap, which keeps both results
of a sequence together. Knows nothing of methods or masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from vostrack.benchmark.results import read_results
from vostrack.benchmark.score import finite, main_value
from vostrack.errors import InputError
from vostrack.files import shaped, shown

RESAMPLES = 10_000
# If neither result were better, all of five differences would still go one way once in sixteen times.
_FEWEST = 6
IN_TIME = ("before", "after")
"""Names of two results of one variant."""
_MOST = 100_000


@dataclass(frozen=True)
class _Dataset:
    name: str
    split: str
    distance: int | None
    subset: str | None
    sequences: tuple[str, ...]


@dataclass(frozen=True)
class _Variant:
    sequences: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class _Report:
    """What is compared of a `results.json`."""

    dataset: _Dataset
    variants: dict[str, _Variant]


@dataclass(frozen=True, slots=True)
class Difference:
    """A sequence and its figures in two results."""

    sequence: str
    first: float
    second: float

    @property
    def change(self) -> float:
        """The second figure less the first."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes:
        names: of the two: those of their variants, or "before" and "after" where these are the same.
        figure: what is compared: "J&F", or "error", where less is better.
        differences: of the sequences in both, from the greatest loss to the greatest gain.
        left_out: sequences in one of them alone.
        subset: that the sequences are a subset of the official ones, if so.
        mean: mean change over sequences.
        low, high: the 95 % confidence interval of that mean.
    """

    names: tuple[str, str]
    figure: str
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    subset: str | None
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What may be concluded, in words."""
        if len(self.differences) < _FEWEST:
            return f"fewer than {_FEWEST} sequences cannot tell"
        if self.low <= 0 <= self.high:
            return "no difference that these sequences could show"
        verdict = "better" if (self.mean > 0) != (self.figure == "error") else "worse"
        return verdict if self.names == IN_TIME else f"{self.names[1]} is {verdict} than {self.names[0]}"

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many sequences got better, worse, and neither."""
        changes = [-row.change if self.figure == "error" else row.change for row in self.differences]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        return better, worse, len(changes) - better - worse

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        rows = [asdict(row) | {"change": row.change} for row in self.differences]
        ends = finite({"low": self.low, "high": self.high})
        return asdict(self) | {"differences": rows, "verdict": self.verdict, "resamples": RESAMPLES} | ends


def compare(first: Path, second: Path) -> Comparison:
    """Compare two results of one variant each.

    Args:
        first: folder or `results.json` of the one.
        second: of the other.

    Raises:
        InputError: they cannot be read, hold several variants, or are not of the same dataset.
    """
    reports = [read_results(first), read_results(second)]
    try:
        told: list[_Report] = [shaped(report, _Report) for report in reports]
        datasets = [report.dataset for report in told]
        for key in ("name", "split", "distance"):
            if len(values := {getattr(dataset, key): None for dataset in datasets}) > 1:
                words = " and ".join(map(str, values))
                raise InputError(f"these are results of different datasets: {key} is {shown(words)}")
        figures = [_figures(report, path) for report, path in zip(told, (first, second), strict=True)]
        names = [shown(next(iter(report.variants))) for report in told]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{shown(first)} or {shown(second)} is damaged: {shown(error)}") from error
    if not figures[0].keys() & figures[1].keys():
        raise InputError(f"{shown(first)} and {shown(second)} have no scored sequence in common")
    official = datasets[0].subset and datasets[0].subset.rpartition(" of ")[2]
    largest = max(len(dataset.sequences) for dataset in datasets)
    main = "J&F" if datasets[0].distance is None else "error"
    return paired((names[0], names[1]), figures[0], figures[1], main, str(official or largest))


def paired(
    names: tuple[str, str], first: Mapping[str, float], second: Mapping[str, float], figure: str, whole: str
) -> Comparison:
    """Compare figures of sequences, of which at least one is in both.

    Args:
        names: of the two results; if these are the same, they are called "before" and "after".
        first: figures by sequence.
        second: likewise.
        figure: "J&F", or "error", where less is better.
        whole: how many sequences the dataset has.
    """
    common = sorted(first.keys() & second.keys())
    rows = [Difference(name, first[name], second[name]) for name in common]
    changes = [row.change for row in rows]
    return Comparison(
        IN_TIME if names[0] == names[1] else names,
        figure,
        tuple(sorted(rows, key=lambda row: -row.change if figure == "error" else row.change)),
        tuple(sorted(first.keys() ^ second.keys())),
        f"subset of {len(common)} of {whole}" if str(len(common)) != whole else None,
        float(np.mean(changes)),
        *interval(changes),
    )


def interval(changes: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean of paired differences, by resampling them; the same for the same numbers.

    Of one change alone nothing is known, and its interval is everything.
    """
    if len(changes) < 2:
        return -np.inf, np.inf
    values = np.asarray(changes, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(0, values.size, (RESAMPLES, values.size))
    low, high = np.quantile(values[chosen].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _figures(report: _Report, path: Path) -> dict[str, float]:
    """The main figure of each scored sequence."""
    if len(report.variants) != 1:
        names = ", ".join(str((path if path.is_dir() else path.parent) / name) for name in report.variants)
        raise InputError(f"{shown(path)} holds {len(report.variants)} variants: choose one of {shown(names)}")
    (variant,) = report.variants.values()
    for name, row in variant.sequences.items():
        if row and (row.get("error") is None and None in (row.get("J_mean"), row.get("F_mean"))):
            raise ValueError(f"{name} has neither J_mean and F_mean nor an error")
    figures = {name: main_value(cast(dict[str, float], row)) for name, row in variant.sequences.items() if row}
    if any(not abs(figure) <= _MOST for figure in figures.values()):
        raise ValueError(f"a figure is beyond {_MOST}")
    return figures
