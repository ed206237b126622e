"""The sets of features: what they hold, what they count, and what they drop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vostrack.matching.sets import AddedFeatures, FeatureSets, Template
from vostrack.ops.matching import soft_matching


def unit(count: int, seed: int, channels: int = 5) -> Tensor:
    return normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), dim=1)


def added(keys: Tensor, hits: list[float], frames: list[float], capacity: int) -> AddedFeatures:
    pad = capacity - len(keys)
    rows = torch.cat((keys, torch.zeros(pad, keys.shape[1])))
    return AddedFeatures(rows, torch.tensor(hits + [0.0] * pad), torch.tensor(frames + [0.0] * pad), len(keys))


def filled(keys: Tensor) -> AddedFeatures:
    return AddedFeatures.empty(2 * len(keys), keys).extended(keys)


def test_features_that_seldom_count_make_room_first() -> None:
    old, new = unit(4, 0), unit(2, 1)
    # Hits in a frame: 0.5, 3, 0.1, 1.
    full = added(old, [1, 3, 1, 5], [2, 1, 10, 5], 4).extended(new)
    assert torch.equal(full.used, torch.cat((old[[1, 3]], new)))
    assert full.hits.tolist() == [3, 5, 0, 0]
    assert full.frames.tolist() == [1, 5, 0, 0]


def test_sets_stay_bounded_and_new_features_take_half_of_the_room_at_most() -> None:
    features, fresh = AddedFeatures.empty(6, unit(1, 0)), unit(100, 1)
    features = features.extended(fresh)
    assert torch.equal(features.used, fresh[[0, 33, 66]])
    for seed in range(5):
        features = features.extended(unit(40, seed))
        assert features.filled == len(features.keys) == 6
    assert features.extended(unit(0, 0)) is features


def test_hits_count_how_often_a_feature_enters_the_top_k() -> None:
    query, keys, rest = unit(30, 0), unit(8, 1), unit(12, 2)
    before = added(keys, [2] * 8, [3] * 8, 10)
    after = before.counted(query, [query @ rest[:5].T, query @ rest[5:].T], 4)
    expected = [2] * 8
    for x in query:
        cosines = [(float(x @ key), index) for index, key in enumerate(torch.cat((keys, rest)))]
        for _, index in sorted(cosines, reverse=True)[:4]:
            if index < 8:
                expected[index] += 1
    assert after.hits.tolist() == [*expected, 0, 0]
    assert after.frames[:8].tolist() == [4] * 8
    assert max(expected) > 2
    empty = AddedFeatures.empty(3, keys)
    assert empty.counted(query, [query @ rest.T], 4) is empty


def test_what_belongs_to_one_object_is_background_to_the_others() -> None:
    query, keys = unit(9, 0), unit(40, 1)
    hard_labels = torch.randint(3, (40,), generator=torch.Generator().manual_seed(2))
    extra = [unit(6, seed) for seed in (3, 4, 5, 6)]
    sets = FeatureSets(
        (Template.of(keys, hard_labels, 3),),
        (filled(extra[0]), filled(extra[1])),
        (filled(extra[2]), filled(extra[3])),
    )
    scores = sets.scores(query, 2)
    for k in (1, 2):
        front = torch.cat((keys[hard_labels == k], extra[k - 1]))
        back = torch.cat((keys[hard_labels != k], extra[k + 1]))
        torch.testing.assert_close(scores[0][k - 1], soft_matching(query, front, 2))
        torch.testing.assert_close(scores[1][k - 1], soft_matching(query, back, 2))


def test_frames_from_before_an_object_was_given_say_nothing_about_it() -> None:
    query, early, late = unit(9, 0), unit(40, 1), unit(30, 2)
    first, second = torch.arange(40) % 2, torch.arange(30) % 3
    empty = (AddedFeatures.empty(4, early),) * 2
    sets = FeatureSets((Template.of(early, first, 2), Template.of(late, second, 3)), empty, empty)
    scores = sets.scores(query, 2)
    torch.testing.assert_close(scores[0][1], soft_matching(query, late[second == 2], 2))
    torch.testing.assert_close(scores[1][1], soft_matching(query, late[second != 2], 2))
    old = torch.cat((early[first == 1], late[second == 1])), torch.cat((early[first != 1], late[second != 1]))
    torch.testing.assert_close(
        torch.stack([s[0] for s in scores]), torch.stack([soft_matching(query, s, 2) for s in old])
    )


@pytest.mark.parametrize("others_are_background", [True, False])
def test_what_matters_to_an_object_is_scored_as_if_all_did(others_are_background: bool) -> None:
    query, keys = unit(20, 0), unit(40, 1)
    some = (filled(unit(6, 2)), filled(unit(6, 3)))
    sets = FeatureSets((Template.of(keys, torch.arange(40) % 3, 3),), some, some)
    recent = [query @ unit(4, seed).T for seed in (4, 5, 6)]
    some_cells = torch.rand(3, 20, generator=torch.Generator().manual_seed(7)) > 0.5
    wanted = some_cells[:1].expand(3, -1) if others_are_background else some_cells.index_fill(0, torch.tensor(0), True)
    expected = sets.scores(query, 3, recent, others_are_background)
    kept = [rows[cells] for rows, cells in zip(recent, wanted, strict=True)]
    for found, whole in zip(sets.scores(query, 3, kept, others_are_background, wanted), expected, strict=True):
        torch.testing.assert_close(found, whole.masked_fill(~wanted[1:], -torch.inf))


def test_counting_changes_neither_scores_nor_templates() -> None:
    query, keys = unit(9, 0), unit(40, 1)
    some = (filled(unit(6, 2)),)
    sets = FeatureSets((Template.of(keys, torch.arange(40) % 2, 2),), some, some)
    counted = sets.counted(query, 3)
    assert counted.foreground[0].hits.sum() > 0
    assert counted.templates is sets.templates
    assert all(torch.equal(a, b) for a, b in zip(sets.scores(query, 3), counted.scores(query, 3), strict=True))
