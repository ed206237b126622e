"""High dynamic range, PQ or HLG, as standard range: a fixed curve that needs no metadata.

The signal becomes the light of a display of 1,000 cd/m2 (BT.2100), which is brought to a white of 203 cd/m2 (BT.2408)
by the curve of BT.2390. That acts on the largest of R, G and B, which keeps hues. Colours of BT.2020 become those of
BT.709 (BT.2087), and light becomes signal for a display of gamma 2.4 (BT.1886).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_PEAK, _WHITE = 1000.0, 203.0
_GAMMA = 2.4
# Tables have so many entries, at even steps of the signal or of the square root of light: finer than 8 bits everywhere.
_ENTRIES, _DROPPED_BITS = 4096, 4
# So many pixels at once: what is between two steps stays in the processor's cache, and memory is bounded.
_BAND = 1 << 16
_BT2020_TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
_BT2020_LUMA = (0.2627, 0.678, 0.0593)
# SMPTE ST 2084.
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
# ARIB STD-B67.
_A, _B, _C, _SYSTEM_GAMMA = 0.17883277, 0.28466892, 0.55991073, 1.2


class ToneMapper:
    """Turns signals of high dynamic range into such of standard range.

    Args:
        hlg: whether they are HLG; else they are PQ.
        wide: whether their colours are those of BT.2020; else they are those of BT.709.
    """

    def __init__(self, hlg: bool, wide: bool = True) -> None:
        signal = np.linspace(0, 1, _ENTRIES)
        light = signal**2  # by the square root
        self._hlg, self._wide = hlg, wide
        self._light = _table(_hlg_scene(signal) if hlg else np.minimum(_pq_light(signal) / _PEAK, 1))
        self._system = _table(light ** (_SYSTEM_GAMMA - 1))
        mapped = _pq_light(_compressed(_pq_signal(light * _PEAK))) / _WHITE
        gains = mapped[1:] / light[1:]
        self._gain = _table(np.concatenate((gains[:1], gains)))
        self._signal = np.rint(255 * light ** (1 / _GAMMA)).astype(np.uint8)

    def __call__(self, planes: Sequence[npt.NDArray[np.uint16]]) -> list[npt.NDArray[np.uint8]]:
        """Convert a picture.

        Args:
            planes: red, green and blue, each (H, W), from 0 to 65535.

        Returns:
            The same, from 0 to 255.
        """
        height, width = planes[0].shape
        mapped = [np.empty((height, width), np.uint8) for _ in planes]
        step = max(1, _BAND // width)
        for start in range(0, height, step):
            rows = slice(start, start + step)
            for plane, band in zip(mapped, self._band([plane[rows] for plane in planes]), strict=True):
                plane[rows] = band
        return mapped

    def _band(self, planes: Sequence[npt.NDArray[np.uint16]]) -> list[npt.NDArray[np.uint8]]:
        colors = [self._light[plane >> _DROPPED_BITS] for plane in planes]
        if self._hlg:
            system = self._system[_index(_weighted(colors, _BT2020_LUMA))]
            colors = [color * system for color in colors]
        gain = self._gain[_index(np.maximum(np.maximum(colors[0], colors[1]), colors[2]))]
        colors = [color * gain for color in colors]
        if self._wide:
            colors = [_weighted(colors, row) for row in _BT2020_TO_BT709]
        return [self._signal[_index(color)] for color in colors]


def _pq_light(signal: Doubles) -> Doubles:
    """cd/m2 of a PQ signal in [0, 1]."""
    root = signal ** (1 / _M2)
    light: Doubles = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return light


def _pq_signal(light: Doubles) -> Doubles:
    """The PQ signal in [0, 1] of cd/m2."""
    power = (light / 10_000) ** _M1
    signal: Doubles = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return signal


def _hlg_scene(signal: Doubles) -> Doubles:
    """Light of the scene in [0, 1] of an HLG signal."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)


def _compressed(signal: Doubles) -> Doubles:
    """A PQ signal up to that of the peak, brought below that of white (BT.2390-11, section 5.4.1.1)."""
    peak, white = _pq_signal(np.array([_PEAK, _WHITE])).tolist()
    most = white / peak
    share, knee = signal / peak, 1.5 * most - 0.5
    t = np.maximum(share - knee, 0) / (1 - knee)
    t2, t3 = t**2, t**3
    spline = (2 * t3 - 3 * t2 + 1) * knee + (t3 - 2 * t2 + t) * (1 - knee) + (3 * t2 - 2 * t3) * most
    compressed: Doubles = peak * np.where(share < knee, share, spline)
    return compressed


def _table(values: Doubles) -> Floats:
    return values.astype(np.float32)


def _weighted(colors: Sequence[Floats], weights: Sequence[float]) -> Floats:
    red, green, blue = (np.float32(weight) * color for weight, color in zip(weights, colors, strict=True))
    total: Floats = red + green + blue
    return total


def _index(light: Floats) -> npt.NDArray[np.intp]:
    """Where a light, cut off to [0, 1], is in a table. Square roots, unlike powers, are the same on every machine."""
    root = np.sqrt(np.minimum(np.maximum(light, np.float32(0)), np.float32(1)))
    return (root * np.float32(_ENTRIES - 1) + np.float32(0.5)).astype(np.intp)
