"""Formulas as naive loops in float64: what the fast code must equal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def inside(dy: int, dx: int, radius: int, disk: bool) -> bool:
    return dy * dy + dx * dx < radius * radius if disk else max(abs(dy), abs(dx)) <= radius


def window_scores(
    query: Tensor, keys: Tensor, radius: int, disk: bool
) -> dict[tuple[int, int], dict[tuple[int, int, int], float]]:
    """Dot products of each cell with the cells (y, x, t) in its window; query (h, w, C), keys (h, w, T, C)."""
    height, width, frames, _ = keys.shape
    query, keys = query.double(), keys.double()
    return {
        (y, x): {
            (v, u, t): float(query[y, x] @ keys[v, u, t])
            for v in range(height)
            for u in range(width)
            for t in range(frames)
            if inside(v - y, u - x, radius, disk)
        }
        for y in range(height)
        for x in range(width)
    }


def softmax(scores: dict[Any, float]) -> dict[Any, float]:
    top = max(scores.values())
    weights = {key: math.exp(score - top) for key, score in scores.items()}
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def attention(query: Tensor, keys: Tensor, values: Tensor, radius: int) -> Tensor:
    """Softmax readout over square windows; values (h, w, T, K) -> (h, w, K)."""
    out = torch.zeros(*query.shape[:2], values.shape[-1], dtype=torch.float64)
    for (y, x), scores in window_scores(query, keys, radius, disk=False).items():
        for (v, u, t), weight in softmax(scores).items():
            out[y, x] += weight * values[v, u, t].double()
    return out


def top_k_readout(candidates: dict[Any, float], values: dict[Any, Tensor], top_k: int, temperature: float) -> Tensor:
    """Softmax over the best `top_k` candidates of one cell, applied to their values."""
    best = sorted(candidates, key=lambda key: -candidates[key])[:top_k]
    weights = softmax({key: candidates[key] / temperature for key in best})
    return sum((weights[key] * values[key].double() for key in best), torch.zeros(()))


def srgb_to_lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """One colour in [0, 1] to CIE L*a*b*, D65, from the definition."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    rows = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
    xyz = [sum(m * c for m, c in zip(row, linear, strict=True)) for row in rows]
    scaled = [value / white for value, white in zip(xyz, (0.950456, 1.0, 1.088754), strict=True)]
    f = [v ** (1 / 3) if v > (6 / 29) ** 3 else v * (29 / 6) ** 2 / 3 + 4 / 29 for v in scaled]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def sample_at(x: Tensor, y: float, u: float) -> Tensor:
    """x (K, h, w) at a fractional place: Eq. 3 with the kernel of Eq. 4; zero outside."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for qy in range(x.shape[1]):
        for qx in range(x.shape[2]):
            kernel = max(0.0, 1 - abs(qy - y)) * max(0.0, 1 - abs(qx - u))
            total += kernel * x[:, qy, qx].double()
    return total


def warped(x: Tensor, offsets: Tensor) -> Tensor:
    """x (B, K, h, w), each cell from where its offset (B, 2, h, w) points."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    for b in range(len(x)):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                out[b, :, i, j] = sample_at(x[b], i + float(offsets[b, 0, i, j]), j + float(offsets[b, 1, i, j]))
    return out
