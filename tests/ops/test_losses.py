"""Training losses equal the formulas of their papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from vostrack.ops.losses import (
    cross_view_loss,
    dice_loss,
    partial_cross_entropy,
    photometric_loss,
    pseudo_labels,
    sample_grid,
    self_training_loss,
)

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


def labelled(kind: str) -> torch.Tensor:
    """Allowed channels (2, 3, 4, 5): one a pixel, or some pixels open or void."""
    generator = torch.Generator().manual_seed(3)
    plain = torch.nn.functional.one_hot(torch.randint(3, (2, 4, 5), generator=generator), 3).movedim(-1, 1) > 0
    plain[1, 1] &= False  # the second image lacks an object
    plain[:, 0] |= ~plain.any(1)
    if kind == "plain":
        return plain
    plain[0, 2] |= plain[0, 0]  # background of the first image may be the last object
    plain[:, :, 0, :2] = True
    return plain


@pytest.mark.parametrize("kind", ["plain", "partial"])
def test_partial_cross_entropy_is_that_of_the_allowed_channels_together(kind: str) -> None:
    scores, allowed = 4 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)), labelled(kind)
    expected = []
    for b in range(2):
        total, count = 0.0, 0
        for y in range(4):
            for x in range(5):
                e = [math.exp(float(value)) for value in scores[b, :, y, x].double()]
                share = sum(value for value, may in zip(e, allowed[b, :, y, x], strict=True) if may) / sum(e)
                if not allowed[b, :, y, x].all():
                    total, count = total - math.log(share), count + 1
        expected.append(total / count)
    assert partial_cross_entropy(scores, allowed).tolist() == pytest.approx(expected, rel=1e-5)
    if kind == "plain":
        usual = torch.nn.functional.cross_entropy(scores, allowed.long().argmax(1), reduction="none").mean((1, 2))
        torch.testing.assert_close(partial_cross_entropy(scores, allowed), usual)


@pytest.mark.parametrize("kind", ["plain", "partial"])
def test_dice_loss_counts_the_pixels_whose_label_decides(kind: str) -> None:
    probs = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    allowed, expected = labelled(kind), []
    for b in range(2):
        losses = []
        for k in range(3):
            overlap = total = found = 0.0
            for y in range(4):
                for x in range(5):
                    p, may = float(probs[b, k, y, x]), [k for k in range(3) if allowed[b, k, y, x]]
                    if may == [k]:
                        overlap, total, found = overlap + p, total + p + 1, found + 1
                    elif k not in may:
                        total += p
            if found:
                losses.append(1 - 2 * overlap / total)
        expected.append(sum(losses) / len(losses))
    assert dice_loss(probs, allowed).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_right_answer_has_no_segmentation_loss() -> None:
    allowed = labelled("plain")
    assert float(partial_cross_entropy(200.0 * allowed, allowed).max()) == 0
    assert float(dice_loss(allowed.float(), allowed).max()) == 0


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_images_of_nothing_but_void_have_no_loss_and_no_gradient(scale: float) -> None:
    scores = (scale * torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))).requires_grad_()
    void = torch.ones(1, 3, 4, 5, dtype=torch.bool)
    loss = partial_cross_entropy(scores, void) + dice_loss(scores.softmax(1), void)
    loss.sum().backward()
    assert loss.tolist() == [0]
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_segmentation_losses_have_finite_gradients_at_large_scores() -> None:
    allowed = labelled("partial")
    scores = (1e4 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))).requires_grad_()
    (partial_cross_entropy(scores, allowed) + dice_loss(scores.softmax(1), allowed)).sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
