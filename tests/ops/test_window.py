"""Window-restricted affinity equals the naive formula on all shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from vostrack.ops.affinity import best_keys, weighted_readout
from vostrack.ops.window import (
    Window,
    attend_around,
    attend_beyond,
    attend_window,
    best_beyond,
    best_in_window,
    coarse_positions,
    far_ring,
    join_attention,
    window_attention,
)

SHAPES = [(1, 1, 1, 3, 2), (3, 9, 2, 4, 2), (9, 10, 3, 5, 4), (17, 5, 1, 3, 1), (6, 7, 2, 3, 30)]


def tensors(height: int, width: int, frames: int, channels: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(height, width, channels, generator=generator)
    keys = torch.randn(height, width, frames, channels, generator=generator)
    values = torch.rand(height, width, frames, 3, generator=generator)
    return query, keys, values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("disk", [False, True])
def test_best_in_window_finds_what_a_search_of_all_pairs_finds(shape: tuple[int, ...], disk: bool) -> None:
    height, width, frames, channels, radius = shape
    query, keys, _ = tensors(height, width, frames, channels)
    top_k = 4
    similarity, index = best_in_window(query, keys, Window(radius, disk), top_k)
    scores = naive.window_scores(query, keys, radius, disk)
    for (y, x), candidates in scores.items():
        best = sorted(candidates, key=lambda key: -candidates[key])[:top_k]
        row = y * width + x
        found = [
            (int(i) // frames // width, int(i) // frames % width, int(i) % frames) for i in index[row, : len(best)]
        ]
        assert found == best
        torch.testing.assert_close(
            similarity[row, : len(best)].double(),
            torch.tensor([candidates[k] for k in best], dtype=torch.float64),
            atol=1e-5,
            rtol=1e-5,
        )
        assert torch.isneginf(similarity[row, len(best) :]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_both_attentions_equal_the_formula(shape: tuple[int, ...]) -> None:
    height, width, frames, channels, radius = shape
    query, keys, values = tensors(height, width, frames, channels)
    expected = naive.attention(query, keys, values, radius).view(-1, 3)
    readout, _ = attend_window(query, keys, values, Window(radius))
    torch.testing.assert_close(readout.double(), expected, atol=1e-5, rtol=1e-5)
    trained = window_attention(
        query.permute(2, 0, 1)[None], keys.permute(2, 3, 0, 1)[None], values.permute(2, 3, 0, 1)[None], radius
    )
    torch.testing.assert_close(trained[0].permute(1, 2, 0).reshape(-1, 3).double(), expected, atol=1e-5, rtol=1e-5)


def test_attention_to_parts_joins_to_attention_to_all() -> None:
    query, keys, values = tensors(7, 9, 5, 4)
    whole, _ = attend_window(query, keys, values, Window(3))
    parts = [
        attend_window(query, keys[:, :, part].contiguous(), values[:, :, part], Window(3))
        for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(join_attention(parts), whole)


def test_attention_stays_finite_at_large_magnitudes() -> None:
    query, keys, values = tensors(5, 6, 2, 4)
    readout, log_sum = attend_window(query * 1e4, keys * 1e4, values, Window(2))
    assert torch.isfinite(readout).all()
    assert torch.isfinite(log_sum).all()
    assert (readout >= 0).all()
    assert (readout <= 1 + 1e-5).all()


def test_gradients_reach_query_keys_and_values_at_odd_sizes() -> None:
    shapes = ((1, 4, 9, 11), (1, 2, 4, 9, 11), (1, 2, 3, 9, 11))
    query, keys, values = (torch.randn(shape, requires_grad=True) for shape in shapes)
    window_attention(query, keys, values, 3).square().sum().backward()
    for tensor in (query, keys, values):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


def test_attention_around_a_cell_itself_is_window_attention() -> None:
    query, keys, values = tensors(9, 8, 1, 4)
    y, x = torch.meshgrid(torch.arange(9), torch.arange(8), indexing="ij")
    here = torch.stack((y, x), -1)
    found = attend_around(query, keys[:, :, 0], values[:, :, 0], here, 2)
    expected = attend_window(query, keys, values, Window(2))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def beyond(
    query: torch.Tensor, keys: torch.Tensor, step: int
) -> dict[tuple[int, int], dict[tuple[int, int, int], float]]:
    """Dot products of each cell with every `step`-th one (v, u, t) at 1.5 to 3 such steps from it."""
    (height, width, frames), query, keys = keys.shape[:3], query.double(), keys.double()
    return {
        (y, x): {
            (v, u, t): float(query[y, x] @ keys[v, u, t])
            for v in range(0, height, step)
            for u in range(0, width, step)
            for t in range(frames)
            if 1.5**2 <= (v // step - y // step) ** 2 + (u // step - x // step) ** 2 < 3**2
        }
        for y in range(height)
        for x in range(width)
    }


RING = Window(3, disk=True, inner=1.5)


@pytest.mark.parametrize("size", [(9, 10), (7, 6), (1, 3)])
def test_best_beyond_finds_what_a_search_of_the_coarse_grid_finds(size: tuple[int, int]) -> None:
    query, keys, _ = tensors(*size, 2, 5)
    floor = torch.full(size, -torch.inf)
    floor[::2] = 1.5
    similarity, index = best_beyond(query, keys, RING, 2, 3, floor)
    for (y, x), candidates in beyond(query, keys, 2).items():
        best = sorted(candidates, key=lambda key: -candidates[key])[:3]
        if not best or candidates[best[0]] <= floor[y, x]:
            best = []
        row = y * size[1] + x
        found = [(int(i) // 2 // size[1], int(i) // 2 % size[1], int(i) % 2) for i in index[row, : len(best)]]
        assert found == best
        expected = torch.tensor([candidates[key] for key in best])
        torch.testing.assert_close(similarity[row, : len(best)], expected)
        assert torch.isneginf(similarity[row, len(best) :]).all()


@pytest.mark.parametrize("step", [1, 2])
def test_only_queries_that_matter_are_read(step: int) -> None:
    query, keys, values = tensors(20, 21, 2, 5)
    wanted = torch.zeros(20, 21, dtype=torch.bool)
    wanted[3:5, 17:19] = True
    key, centre = keys[:, :, 0].contiguous(), torch.full((20, 21, 2), 9)
    for read in (
        lambda cells: attend_window(query, keys, values, Window(2), cells),
        lambda cells: attend_beyond(query, keys, values, RING, step, cells),
        lambda cells: attend_around(query, key, values[:, :, 0], centre, 2, cells),
        lambda cells: (coarse_positions(query, key, 2, step, cells).flatten(0, 1),),
    ):
        for whole, part in zip(read(None), read(wanted), strict=True):
            assert torch.equal(part[wanted.flatten()], whole[wanted.flatten()])
            assert not part.view(20, 21, -1)[16:].any(), "nor anything in a tile without one"


@pytest.mark.parametrize("size", [(9, 10), (7, 6), (1, 3)])
@pytest.mark.parametrize("step", [1, 2])
def test_attention_beyond_a_window_joins_to_attention_to_both(size: tuple[int, int], step: int) -> None:
    query, keys, values = tensors(*size, 2, 5)
    ring = attend_beyond(query, keys, values, RING, step)
    joint = join_attention([attend_window(query, keys, values, Window(1)), ring])
    near = naive.window_scores(query, keys, 1, disk=False)
    for (y, x), candidates in beyond(query, keys, step).items():
        row = y * size[1] + x
        assert torch.isneginf(ring[1][row]) == (not candidates)
        weights = naive.softmax(
            {(0, *key): score for key, score in near[y, x].items()}
            | {(1, *key): score for key, score in candidates.items()}
        )
        expected = sum((weight * values[key[1:]].double() for key, weight in weights.items()), torch.zeros(3))
        torch.testing.assert_close(joint[row].double(), expected.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(60, 107), (120, 214), (135, 240), (270, 152), (540, 960)])
@pytest.mark.parametrize("window", [Window(3), Window(12), Window(3, disk=True), Window(12, disk=True)])
def test_no_cell_counts_twice_and_the_ring_does_not_grow_with_the_frame(grid: tuple[int, int], window: Window) -> None:
    ring, step = far_ring(window, 0.6, grid)
    assert not ring.is_empty
    assert ring.radius <= 40
    assert ring.radius * step == pytest.approx(0.6 * min(grid), abs=step)
    offset = torch.arange(-20, 21)
    coarse = ring.contains(offset[:, None], offset)
    for y in range(step):
        for x in range(step):
            near = window.contains((step * offset - y)[:, None], step * offset - x)
            assert not (coarse & near).any()


@pytest.mark.parametrize("disk", [False, True])
def test_the_ring_is_empty_where_the_window_reaches_further(disk: bool) -> None:
    ring, _ = far_ring(Window(12, disk), 0.2, (60, 107))
    assert ring.is_empty
    offset = torch.arange(-30, 31)
    assert not ring.contains(offset[:, None], offset).any()


def test_bfloat16_finds_about_the_same() -> None:
    query, keys, _ = (torch.nn.functional.normalize(x, dim=-1) for x in tensors(9, 10, 3, 64))
    exact, _ = best_in_window(query, keys, Window(4), 5)
    rounded, _ = best_in_window(query.bfloat16(), keys.bfloat16(), Window(4), 5)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=5e-3, rtol=0)


def test_attention_around_other_cells_reads_their_windows() -> None:
    query, keys, values = tensors(9, 8, 1, 4)
    generator = torch.Generator().manual_seed(3)
    centre = torch.stack(
        (torch.randint(9, (9, 8), generator=generator), torch.randint(8, (9, 8), generator=generator)), -1
    )
    readout, _ = attend_around(query, keys[:, :, 0], values[:, :, 0], centre, 2)
    left = {(y, x) for y in range(9) for x in range(8)}
    while left:  # cells that look around different ones can be computed at once
        moved = query.clone()
        here: dict[tuple[int, ...], tuple[int, int]] = {}
        for y, x in sorted(left):
            here.setdefault(tuple(centre[y, x].tolist()), (y, x))
        for around, cell in here.items():
            moved[around] = query[cell]
        expected = naive.attention(moved, keys, values, 2)
        for around, (y, x) in here.items():
            torch.testing.assert_close(readout[y * 8 + x].double(), expected[around], atol=1e-5, rtol=1e-5)
        left -= set(here.values())


def test_coarse_search_finds_a_shift_beyond_the_fine_window() -> None:
    generator = torch.Generator().manual_seed(0)
    key = torch.nn.functional.normalize(torch.randn(40, 44, 32, generator=generator), dim=-1) * 8
    query = torch.roll(key, (12, -9), (0, 1))
    found = coarse_positions(query, key, radius=6, dilation=3)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(44), indexing="ij")
    inner = (slice(14, 38), slice(2, 33))
    assert (found[inner][..., 0] - (y[inner] - 12)).abs().max() < 0.5
    assert (found[inner][..., 1] - (x[inner] + 9)).abs().max() < 0.5


def test_coarse_search_equals_the_formula() -> None:
    query, keys, _ = tensors(7, 8, 1, 3)
    found = coarse_positions(query, keys[:, :, 0], radius=2, dilation=2)
    for y in range(7):
        for x in range(8):
            taps = {
                (v, u): float(query[y, x].double() @ keys[v, u, 0].double())
                for v in range(y - 4, y + 5, 2)
                for u in range(x - 4, x + 5, 2)
                if 0 <= v < 7 and 0 <= u < 8
            }
            weights = naive.softmax(taps)
            expected = [sum(w * key[axis] for key, w in weights.items()) for axis in (0, 1)]
            torch.testing.assert_close(
                found[y, x].double(), torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=1e-4
            )


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    frames=st.integers(1, 3),
    top_k=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_an_infinite_radius_is_a_search_of_everything(
    height: int, width: int, frames: int, top_k: int, seed: int
) -> None:
    query, keys, _ = tensors(height, width, frames, 4, seed)
    top_k = min(top_k, height * width * frames)
    windowed, _ = best_in_window(query, keys, Window(40), top_k)
    everywhere, _ = best_keys(query.flatten(0, 1), keys.flatten(0, 2), top_k)
    torch.testing.assert_close(windowed, everywhere)


@given(count=st.integers(1, 9), temperature=st.floats(0.01, 2.0), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_readout_equals_the_formula(count: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity, values = torch.randn(3, 9, generator=generator), torch.rand(3, 9, 2, generator=generator)
    found = weighted_readout(similarity, values, count, temperature)
    for row in range(3):
        candidates = {(j,): float(similarity[row, j]) for j in range(9)}
        expected = naive.top_k_readout(candidates, {(j,): values[row, j] for j in range(9)}, count, temperature)
        torch.testing.assert_close(found[row].double(), expected, atol=1e-5, rtol=1e-4)


def test_candidates_that_do_not_exist_have_no_weight() -> None:
    similarity = torch.tensor([[0.5, -torch.inf, -torch.inf]])
    values = torch.tensor([[[0.25], [9.0], [9.0]]])
    torch.testing.assert_close(weighted_readout(similarity, values, 3, 0.05), torch.tensor([[0.25]]))


@pytest.mark.parametrize("radius", [10**6, 99_999_999_999, 2**63 - 1])
def test_a_radius_beyond_the_grid_takes_no_more_memory_than_the_grid(radius: int) -> None:
    query, keys, _ = tensors(5, 7, 2, 4)
    found, index = best_in_window(query, keys, Window(radius, disk=True), 3)
    everywhere, all_index = best_keys(query.flatten(0, 1), keys.flatten(0, 2), 3)
    torch.testing.assert_close(found, everywhere)
    assert torch.equal(index, all_index)
