from __future__ import annotations

import pytest
import torch

from vostrack.ops.merging import arranged, merge


def certain(*labels: int) -> torch.Tensor:
    return torch.eye(3)[list(labels)].T[:, None]


def test_channels_go_to_their_objects() -> None:
    probs = torch.arange(6.0).view(3, 1, 2)
    found = arranged(probs, (7, 3), (3, 9, 7))
    assert torch.equal(found[[0, 3, 1]], probs)
    assert not found[2].any()


@pytest.mark.parametrize(("weight", "winner"), [(1.0, 1), (0.6, 1), (0.4, 2), (0.0, 2)])
def test_where_both_are_sure_the_heavier_one_decides(weight: float, winner: int) -> None:
    found = merge(certain(1), certain(2), torch.tensor([weight, weight]))
    assert found.argmax(0).item() == winner
    torch.testing.assert_close(found.sum(0), torch.ones(1, 1))


def test_the_surer_one_decides_where_the_weights_are_equal() -> None:
    doubtful = torch.tensor([0.45, 0.55, 0.0])[:, None, None]
    assert merge(doubtful, certain(0), torch.tensor([0.5, 0.5])).argmax(0).item() == 0
    assert merge(doubtful[[1, 0, 2]], certain(1), torch.tensor([0.5, 0.5])).argmax(0).item() == 1


def test_an_object_that_one_side_alone_knows_is_as_that_side_says() -> None:
    forward = torch.tensor([0.3, 0.7, 0.0])[:, None, None]
    backward = torch.tensor([0.9, 0.0, 0.1])[:, None, None]
    found = merge(forward, backward, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.2, 0.7, 0.1]))


def test_two_predictions_that_agree_stay_as_they_are() -> None:
    probs = torch.rand(3, 4, 5).softmax(0)
    torch.testing.assert_close(merge(probs, probs, torch.tensor([0.3, 0.8])), probs)
