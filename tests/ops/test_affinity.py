"""The two-step search for the largest values equals a sort."""

from __future__ import annotations

import pytest
import torch

from vostrack.ops.affinity import best_keys, best_similarities, highest, largest


@pytest.mark.parametrize(
    ("rows", "length", "count"), [(3, 5, 5), (4, 4000, 10), (2, 2567, 10), (7, 321, 1), (1, 256, 1)]
)
def test_largest_finds_what_a_sort_finds(rows: int, length: int, count: int) -> None:
    values = torch.randn(rows, length, generator=torch.Generator().manual_seed(0))
    expected = values.sort(dim=1, descending=True)
    found, index = largest(values, count)
    assert torch.equal(found, expected.values[:, :count])
    assert torch.equal(index, expected.indices[:, :count])
    assert torch.equal(highest(values.T.contiguous(), count), found)


def test_rows_without_a_value_above_a_floor_get_none() -> None:
    values = torch.randn(5, 900, generator=torch.Generator().manual_seed(0))
    expected = largest(values, 3)
    floor = torch.tensor([-9.0, 9.0, -9.0, float(expected[0][3, 0]), -9.0])
    found, index = largest(values, 3, floor)
    for row, is_above in enumerate((True, False, True, False, True)):
        if is_above:
            assert torch.equal(found[row], expected[0][row])
            assert torch.equal(index[row], expected[1][row])
        else:
            assert torch.isneginf(found[row]).all()
            assert not index[row].any()


def test_equal_values_and_rows_with_too_few_of_them() -> None:
    values = torch.full((2, 3333), -torch.inf)
    values[0, [5, 37, 3300, 3332]] = 1.0  # equal, in one group and beyond the last whole group
    values[0, 40] = 0.5
    found, index = largest(values, 10)
    assert found[0].tolist() == [1.0] * 4 + [0.5] + [-torch.inf] * 5
    assert set(index[0, :4].tolist()) == {5, 37, 3300, 3332}
    assert index[0, 4] == 40
    assert torch.isneginf(found[1]).all()
    assert len(set(index[0].tolist())) == 10


def test_the_largest_of_a_long_row_may_lie_beside_each_other() -> None:
    values = torch.zeros(1, 6400)
    values[0, 100:110] = torch.arange(1.0, 11.0)
    found, index = largest(values, 10)
    assert found[0].tolist() == list(range(10, 0, -1))
    assert index[0].tolist() == list(range(109, 99, -1))


@pytest.mark.parametrize("keys", [0, 3, 700])
def test_similarities_alone_are_those_that_come_with_their_keys(keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, known = torch.randn(9, 4, generator=generator), torch.randn(keys, 4, generator=generator)
    assert torch.equal(best_similarities(query, known, 5), best_keys(query, known, 5)[0])
