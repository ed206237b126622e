"""Training losses equal the formulas of their papers."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize

from vostrack.ops.losses import cross_view_loss, photometric_loss, pseudo_labels, sample_grid, self_training_loss

TAU = 0.05


def unit(*shape: int, dim: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def test_grid_takes_one_feature_of_each_cell_and_moves_as_a_whole() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    features = torch.stack((y, x))[None]
    still = sample_grid(features, 4, torch.zeros(1, 2))[0]
    assert still[:5].tolist() == [[0, 0], [0, 4], [0, 8], [0, 12], [4, 0]]
    moved = sample_grid(features, 4, torch.tensor([[0.5, 0.99]]))[0]
    assert moved[0].tolist() == [2, 3]
    assert torch.equal(moved - still, torch.tensor([2.0, 3.0]).expand(16, 2))


def test_pseudo_labels_look_only_at_anchors_of_the_own_clip() -> None:
    features, anchors = unit(2, 3, 8, 4, 4, dim=2), unit(2, 5, 8, dim=2, seed=1)
    labels = pseudo_labels(features, anchors)
    for b in range(2):
        for t in range(3):
            for y in range(4):
                for x in range(4):
                    scores = [float(features[b, t, :, y, x] @ anchor) for anchor in anchors[b]]
                    assert labels[b, t, y, x] == b * 5 + scores.index(max(scores))


def test_self_training_loss_is_the_mean_negative_log_of_equation_1() -> None:
    features, anchors = unit(2, 2, 8, 3, 3, dim=2), unit(2, 4, 8, dim=2, seed=1)
    labels = torch.randint(8, (2, 2, 3, 3), generator=torch.Generator().manual_seed(2))
    total = 0.0
    for b in range(2):
        for t in range(2):
            for y in range(3):
                for x in range(3):
                    k = features[b, t, :, y, x].double()
                    e = [math.exp(float(k @ q.double()) / TAU) for q in anchors.flatten(0, 1)]
                    total -= math.log(e[int(labels[b, t, y, x])] / sum(e))
    assert math.isclose(float(self_training_loss(features, anchors, labels, TAU)), total / 36, rel_tol=1e-5)


def test_cross_view_loss_contrasts_pairs_over_the_batch() -> None:
    first, second = unit(2, 3, 8, dim=2), unit(2, 3, 8, dim=2, seed=1)
    r, s = first.flatten(0, 1).double(), second.flatten(0, 1).double()
    total = 0.0
    for i in range(6):
        e = [math.exp(float(r[i] @ other) / TAU) for other in s]
        total -= math.log(e[i] / sum(e))
    assert math.isclose(float(cross_view_loss(first, second, TAU)), total / 6, rel_tol=1e-5)


def test_photometric_loss_is_quadratic_below_the_knee_and_linear_above() -> None:
    zero = torch.zeros(1)
    assert math.isclose(float(photometric_loss(torch.tensor([0.025]), zero)), 0.5 * 0.5**2)
    assert math.isclose(float(photometric_loss(torch.tensor([0.5]), zero)), 10 - 0.5, rel_tol=1e-6)
