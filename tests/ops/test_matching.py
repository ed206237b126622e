"""Soft matching, fusion, extrusion and erosion equal their definitions, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vostrack.ops import affinity
from vostrack.ops.matching import (
    erode,
    extrude,
    fuse,
    matching_difference,
    matching_loss,
    mean_of_best,
    neighbours,
    soft_matching,
    squared_distance,
    unfuse,
)


def unit(count: int, seed: int, channels: int = 6) -> Tensor:
    return normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive_matching(query: Tensor, keys: Tensor, top_k: int) -> Tensor:
    """Mean of the K highest cosine similarities, of all for 0, with loops in float64."""
    scores = []
    for x in query.double():
        cosines = sorted((float(x @ m.double() / (x.norm() * m.double().norm())) for m in keys), reverse=True)
        best = cosines[: top_k or None]
        scores.append(sum(best) / len(best))
    return torch.tensor(scores)


def masks(count: int, size: tuple[int, int], seed: int, share: float = 0.1) -> Tensor:
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed)) < share


def naive_distance(mask: Tensor, y: int, x: int) -> float:
    """Squared distance of a cell to a mask (h, w)."""
    return min(((v - y) ** 2 + (u - x) ** 2 for v, u in mask.nonzero().tolist()), default=math.inf)


@pytest.mark.parametrize(
    ("cells", "features", "top_k"), [(7, 30, 20), (5, 4, 20), (1, 1, 1), (9, 12, 1), (4, 12, 12), (6, 30, 0)]
)
def test_score_is_the_mean_of_the_highest_similarities(cells: int, features: int, top_k: int) -> None:
    query, keys = unit(cells, 0), unit(features, 1)
    expected = naive_matching(query, keys, top_k).float()
    torch.testing.assert_close(soft_matching(query, keys, top_k), expected)


def test_score_does_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys = unit(50, 0), unit(30, 1)
    whole = soft_matching(query, keys, 5)
    monkeypatch.setattr(affinity, "CPU_CHUNK_BYTES", 4 * 30 * 7)
    torch.testing.assert_close(soft_matching(query, keys, 5), whole)


def test_score_of_an_empty_set_is_below_all_others() -> None:
    for top_k in (5, 0):
        assert soft_matching(unit(3, 0), unit(0, 1), top_k).tolist() == [-math.inf] * 3


def test_a_set_can_be_matched_in_parts() -> None:
    query, keys = unit(11, 0), unit(40, 1)
    parts = [affinity.best_keys(query, part, 8)[0] for part in keys.split((3, 0, 25, 12))]
    torch.testing.assert_close(mean_of_best(parts, 8), soft_matching(query, keys, 8))
    torch.testing.assert_close(mean_of_best(parts, 2), soft_matching(query, keys, 2))


def test_fewer_similarities_count_where_a_set_is_small() -> None:
    sizes = [(1000, 1000), (80, 900), (900, 79), (4, 900), (3, 900), (900, 0)]
    assert [neighbours(20, 0.25, *size) for size in sizes] == [20, 20, 19, 1, 1, 1]
    assert [neighbours(0, 0.25, *size) for size in sizes] == [0] * 6
    query, front, back = unit(9, 0), unit(13, 1), unit(100, 2)
    expected = naive_matching(query, front, 3) - naive_matching(query, back, 3)
    torch.testing.assert_close(matching_difference(query, front, back, 20, 0.25), expected.float())


@pytest.mark.parametrize("top_k", [20, 0])
def test_without_a_limit_k_counts_in_any_set(top_k: int) -> None:
    query, front, back = unit(9, 0), unit(13, 1), unit(100, 2)
    assert [neighbours(top_k, 0, *size) for size in ((1000, 1000), (3, 900), (0, 0))] == [top_k] * 3
    expected = naive_matching(query, front, top_k) - naive_matching(query, back, top_k)
    torch.testing.assert_close(matching_difference(query, front, back, top_k), expected.float())


def test_gradients_reach_the_features_that_count() -> None:
    query, keys = unit(1, 0).requires_grad_(), unit(9, 1).requires_grad_()
    soft_matching(query, keys, 3).sum().backward()
    assert keys.grad is not None
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    chosen = (query @ keys.T)[0].topk(3).indices
    assert set(keys.grad.abs().sum(1).nonzero().flatten().tolist()) == set(chosen.tolist())


def test_loss_is_the_mean_two_way_cross_entropy_of_what_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    odds = 3 * torch.randn(4, 5, generator=generator)
    target, known = masks(2, (4, 5), 1, 0.5)
    total, count = 0.0, 0
    for y in range(4):
        for x in range(5):
            if known[y, x]:
                front = 1 / (1 + math.exp(-float(odds[y, x])))
                total -= math.log(front if target[y, x] else 1 - front)
                count += 1
    assert math.isclose(float(matching_loss(odds, target, known)), total / count, rel_tol=1e-5)


def test_loss_of_nothing_is_zero_and_has_gradients() -> None:
    odds = torch.randn(2, 3, requires_grad=True)
    loss = matching_loss(odds, torch.ones(2, 3).bool(), torch.zeros(2, 3).bool())
    loss.backward()
    assert float(loss.detach()) == 0
    assert odds.grad is not None
    assert not odds.grad.any()


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.7])
@pytest.mark.parametrize("objects", [0, 1, 3])
def test_the_most_probable_object_wins_unless_none_reaches_the_threshold(objects: int, threshold: float) -> None:
    single = torch.rand(objects, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probs = fuse(single.logit(), threshold)
    torch.testing.assert_close(probs.sum(0), torch.ones(6, 7, dtype=torch.float64))
    for y in range(6):
        for x in range(7):
            best = max(range(objects), key=lambda k: float(single[k, y, x]), default=0)
            wins = objects and single[best, y, x] >= threshold
            assert int(probs[:, y, x].argmax()) == (best + 1 if wins else 0)
    torch.testing.assert_close(unfuse(probs, threshold), single.logit())


def test_one_object_keeps_its_probability_at_a_threshold_of_a_half() -> None:
    single = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fuse(single.logit(), 0.5)[1:], single)


def test_what_cannot_be_there_gets_no_probability() -> None:
    odds = torch.tensor([1.0, -math.inf]).view(2, 1, 1).expand(2, 2, 2)
    probs = fuse(odds, 0.4)
    assert not probs[2].any()
    torch.testing.assert_close(unfuse(probs, 0.4), odds)
    nothing = unfuse(torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1), 0.4)
    assert nothing[0].item() > 50
    assert nothing[1].item() == -math.inf


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (7, 11)])
def test_distances_are_euclidean(size: tuple[int, int]) -> None:
    some = torch.cat((masks(3, size, 0), masks(1, size, 0, 2), masks(1, size, 0, -1)))
    expected = [[[naive_distance(mask, y, x) for x in range(size[1])] for y in range(size[0])] for mask in some]
    assert torch.equal(squared_distance(some), torch.tensor(expected))


def test_extrusion_takes_cells_nearer_than_the_radius() -> None:
    some, radius = masks(3, (9, 12), 1, 0.02), torch.tensor([2.0, 3.5, 100.0])
    some[1] = False
    grown = extrude(some, radius)
    for k in range(3):
        for y in range(9):
            for x in range(12):
                assert bool(grown[k, y, x]) == (naive_distance(some[k], y, x) < float(radius[k]) ** 2)
    assert some[0].any()
    assert not grown[1].any()
    assert grown[2].all()


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 3.0])
def test_erosion_keeps_cells_further_from_the_outside_than_the_radius(radius: float) -> None:
    some = masks(2, (9, 12), 2, 0.97)
    some[0] = True
    small = erode(some, radius)
    for k in range(2):
        for y in range(9):
            for x in range(12):
                inside = bool(some[k, y, x]) and naive_distance(~some[k], y, x) > radius**2
                assert bool(small[k, y, x]) == inside
    assert small[0].all()
    assert small[1].any()
