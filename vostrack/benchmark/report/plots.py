"""Small plots as inline SVG: curves over frames, points of speed against accuracy, bars by attribute.

Text, numbers in, text out; colours are those of Okabe and Ito, which most colour-blind people can tell apart. Axes take
the colour of the page's text, so that plots fit light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 22
_SPEED_SIZE = (460, 240)
_LETTER = 6.5
"""About how wide a letter is, in pixels."""


def color(position: int) -> str:
    """The colour of a variant, by its position."""
    return COLORS[position % len(COLORS)]


def curves(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], top: float = 1.0) -> str:
    """A line a variant over the frames of a sequence.

    Args:
        series: names, and points (frame, value).
        top: largest value of the axis.
    """
    ends = [x for _, points in series for x, _ in points] or [0.0, 1.0]
    plot = _Plot(360, 130, (min(ends), max(ends)), (0.0, top))
    parts = [*plot.levels((0.0, top / 2, top)), plot.label_x(min(ends)), plot.label_x(max(ends))]
    for position, (name, points) in enumerate(series):
        path = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color(position)}" stroke-width="1.6">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return plot.svg(parts, "value by frame")


def scatter(points: Sequence[tuple[str, float, float]], top: float = 1.0) -> str:
    """Speed against accuracy: a point a variant, seconds a frame on a logarithmic axis.

    Args:
        points: names, seconds a frame, values.
        top: largest value of the axis.
    """
    logs = [math.log10(max(seconds, 1e-4)) for _, seconds, _ in points]
    low, high = math.floor(min(logs)), math.ceil(max(logs) + 1e-9)
    plot = _Plot(*_SPEED_SIZE, (low, max(high, low + 1)), (0.0, top))
    parts = [*plot.levels([top * step / 4 for step in range(5)])]
    parts += [plot.label_x(step, f"{10.0**step:g} s") for step in range(low, max(high, low + 1) + 1)]
    for position, ((name, seconds, value), x) in enumerate(zip(points, logs, strict=True)):
        left, height = plot.x(x), plot.y(value)
        fits = left + 8 + _LETTER * len(name) < _SPEED_SIZE[0]
        side = f'x="{left + 8:.1f}"' if fits else f'x="{left - 8:.1f}" text-anchor="end"'
        parts.append(
            f'<circle cx="{left:.1f}" cy="{height:.1f}" r="5" fill="{color(position)}">'
            f"<title>{escape(name)}: {seconds:.3f} s a frame, {value:.4f}</title></circle>"
            f'<text {side} y="{height + 4:.1f}">{escape(name)}</text>'
        )
    return plot.svg(parts, "accuracy by seconds a frame")


def bars(groups: Mapping[str, Sequence[tuple[str, float]]], top: float = 1.0) -> str:
    """Groups of bars, a bar a variant.

    Args:
        groups: by attribute, names and values of variants.
        top: largest value of the axis.
    """
    widest = max((len(group) for group in groups.values()), default=1)
    step = max(46, 14 * widest + 14)
    plot = _Plot(_LEFT + _RIGHT + step * len(groups), 190, (0.0, float(len(groups))), (0.0, top))
    parts = [*plot.levels((0.0, top / 2, top))]
    for index, (attribute, group) in enumerate(groups.items()):
        for position, (name, value) in enumerate(group):
            left, height = plot.x(index) + 6 + 14 * position, plot.y(value)
            parts.append(
                f'<rect x="{left:.1f}" y="{height:.1f}" width="12" height="{plot.y(0.0) - height:.1f}" '
                f'fill="{color(position)}"><title>{escape(name)}: {value:.4f}</title></rect>'
            )
        parts.append(plot.label_x(index + 0.5, attribute))
    return plot.svg(parts, "accuracy by attribute")


class _Plot:
    """Axes: where values lie in the picture."""

    def __init__(self, width: int, height: int, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._size, self._across, self._up = (width, height), across, up

    def x(self, value: float) -> float:
        low, high = self._across
        return _LEFT + (value - low) / ((high - low) or 1.0) * (self._size[0] - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._up
        share = min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)
        return self._size[1] - _BOTTOM - share * (self._size[1] - _TOP - _BOTTOM)

    def levels(self, values: Iterable[float]) -> list[str]:
        """Horizontal lines with their values."""
        return [
            f'<line x1="{_LEFT}" x2="{self._size[0] - _RIGHT}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}" '
            f'class="level"/><text x="{_LEFT - 5}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            for value in values
        ]

    def label_x(self, value: float, text: str | None = None) -> str:
        """A label below the axis."""
        shown = escape(f"{value:g}" if text is None else text)
        return f'<text x="{self.x(value):.1f}" y="{self._size[1] - 6}" text-anchor="middle">{shown}</text>'

    def svg(self, parts: Iterable[str], what: str) -> str:
        """The whole picture."""
        width, height = self._size
        return (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(what)}">'
            f"{''.join(parts)}</svg>"
        )
