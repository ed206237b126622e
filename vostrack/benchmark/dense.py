"""Speed of the window-restricted propagation against a plain reference, in one run.

The reference forms the affinity of all pairs of cells, masks what lies outside the radius and takes the top k of each
row, as the published label propagation does (in chunks of queries, since the whole matrix takes gigabytes). A ratio of
two times from the same minute says more than either time: machines are shared, and clocks change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vostrack.methods.anchors import AnchorsConfig, AnchorsMethod, AnchorsState
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.grid import cells, centres
from vostrack.ops.window import Window, far_ring

_CHUNK = 256


@dataclass(frozen=True)
class OpsBenchmark:
    """What `compare` measured; seconds are the best of all repeats.

    Attributes:
        grid: (h, w) cells.
        frames: memory frames, the first one included.
        restricted, dense: seconds of the propagation that vostrack uses, and of the reference.
        equal: share of cells with the same label.
    """

    grid: tuple[int, int]
    channels: int
    frames: int
    restricted: float
    dense: float
    equal: float
    threads: int

    @property
    def ratio(self) -> float:
        """How many times faster than the reference."""
        return self.dense / self.restricted


@torch.no_grad()
def compare(
    config: AnchorsConfig, channels: int, size: tuple[int, int], repeats: int, device: torch.device
) -> OpsBenchmark:
    """Propagate one frame both ways.

    Args:
        config: of `anchors`, without `axes`.
        channels: C of the made-up features.
        size: (H, W) of the image.
        repeats: how often; the two ways take turns.
        device: where.
    """
    grid = cells(size, config.stride)
    generator = torch.Generator().manual_seed(0)
    shape = (channels, *grid)
    base = normalize(torch.randn(shape, generator=generator), dim=0)
    labels = _disk(size).to(device)
    method = AnchorsMethod(AnchorsNet(), config)
    # Features that drift, so that neighbours are found at a distance, as in video.
    drifted = (torch.roll(base, (t, 2 * t), (1, 2)) for t in range((config.context - 1) * config.spacing + 3))
    frames = [normalize(each + 0.05 * torch.randn(shape, generator=generator), dim=0).to(device) for each in drifted]
    state = method.begin(frames[0], labels)
    for features in frames[1:-1]:
        state = method.remember(state, features, method.predict(state, features))
    restricted, dense = [], []
    for _ in range(repeats):
        ours, seconds = _timed(lambda: method.predict(state, frames[-1]), device)
        restricted.append(seconds)
        plain, seconds = _timed(lambda: dense_reference(state, frames[-1], config), device)
        dense.append(seconds)
    equal = float((ours.argmax(0) == plain.argmax(0)).float().mean())
    memory = state.recent.latest(config.spacing).filled + state.given.filled
    return OpsBenchmark(grid, channels, memory, min(restricted), min(dense), equal, torch.get_num_threads())


def dense_reference(state: AnchorsState, features: Tensor, config: AnchorsConfig) -> Tensor:
    """The published propagation, dense and masked.

    Args:
        state: of `anchors`, without a projection.
        features: (C, h, w) of the frame to predict.
        config: as for `compare`.

    Returns:
        (K, h, w).
    """
    grid = (features.shape[1], features.shape[2])
    place = centres(grid, features.device).flatten(0, 1).float()
    banks = (
        (state.recent.latest(config.spacing), config.radius, config.reach),
        (state.given, config.first_radius, config.first_reach),
    )
    keys = torch.cat([bank.used_keys.permute(2, 0, 1, 3).flatten(0, 2) for bank, _, _ in banks]).float()
    values = torch.cat([bank.used_values.permute(2, 0, 1, 3).flatten(0, 2) for bank, _, _ in banks])
    queries = features.flatten(1).T.contiguous()
    out = []
    for chunk, here in zip(torch.split(queries, _CHUNK), torch.split(place, _CHUNK), strict=True):
        affinity = chunk @ keys.T
        masks = [
            _outside(here, place, radius, *far_ring(Window(radius, disk=True), reach, grid)).repeat(1, bank.filled)
            for bank, radius, reach in banks
        ]
        affinity = affinity.masked_fill(torch.cat(masks, 1), -1e10) / config.temperature
        best = affinity.topk(config.top_k, dim=1)
        weights = best.values.softmax(1)
        out.append(torch.einsum("nj,njk->nk", weights, values[best.indices]))
    return torch.cat(out).T.reshape(-1, *grid)


def _outside(here: Tensor, place: Tensor, radius: int, ring: Window, step: int) -> Tensor:
    """bool (Q, N): which of the cells at `place` (N, 2) the cells at `here` (Q, 2) do not look at."""
    if not radius:
        return torch.zeros(len(here), len(place), dtype=torch.bool, device=here.device)
    far = torch.cdist(here // step, place / step)
    in_ring = (place % step == 0).all(1) & (far >= ring.inner) & (far < ring.radius)
    return (torch.cdist(here, place) >= radius) & ~in_ring


def _timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start


def _disk(size: tuple[int, int]) -> Tensor:
    """One-hot (2, H, W): a disk in the middle."""
    place = centres(size, torch.device("cpu")).float()
    middle = torch.tensor(size) / 2
    inside = ((place - middle).norm(dim=-1) < min(size) / 4).float()
    return torch.stack((1 - inside, inside))
