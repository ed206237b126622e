"""`videomatch` and recent frames: similarities equal the formula, and labels count by degree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from vostrack.errors import MethodError
from vostrack.matching.memory import FrameBank
from vostrack.matching.recent import recent_similarities
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods.videomatch import VideoMatchMethod
from vostrack.nets.encoders import VideoMatchNet
from vostrack.ops.grid import to_cells

GRID = (9, 11)
STRIDE = 4
CONFIG = SoftMatcherConfig(axes=0, context=2, spacing=2, radius=3, reach=0, top_k=2, scale=10.0, max_displacement=1e4)


def method(**changes: Any) -> VideoMatchMethod:
    return VideoMatchMethod(VideoMatchNet(), replace(CONFIG, **changes))


def features(seed: int) -> Tensor:
    return normalize(torch.randn(6, *GRID, generator=torch.Generator().manual_seed(seed)), dim=0)


def probabilities(seed: int) -> Tensor:
    return torch.rand(3, *GRID, generator=torch.Generator().manual_seed(seed)).mul(4).softmax(0)


def given() -> Tensor:
    labels = torch.zeros(STRIDE * GRID[0], STRIDE * GRID[1], dtype=torch.int64)
    labels[4:20, 6:22] = 1
    labels[16:34, 25:40] = 2
    return one_hot(labels, 3).permute(2, 0, 1).float()


def test_similarities_equal_the_formula() -> None:
    """Frames 3 and 1 of 4; a cell of probability v counts as log(v) / scale less similar."""
    bank = FrameBank.empty(3, features(0), probabilities(0))
    for number in range(4):
        bank = bank.add(features(number), probabilities(number))
    query = features(9)
    grid = query.permute(1, 2, 0).contiguous()
    found = recent_similarities(grid, bank.latest(2), radius=3, reach=0, top_k=2, scale=10.0)
    assert len(found) == 3
    for y, x in ((0, 0), (4, 5), (8, 10), (6, 2)):
        for label, rows in enumerate(found):
            expected = [
                float(query[:, y, x].double() @ features(number)[:, v, u].double())
                + math.log(float(probabilities(number)[label, v, u])) / 10
                for number in (1, 3)
                for v in range(GRID[0])
                for u in range(GRID[1])
                if math.dist((y, x), (v, u)) < 3
            ]
            assert rows[y * GRID[1] + x].tolist() == pytest.approx(sorted(expected, reverse=True)[:2], abs=1e-5)


def test_two_keys_weigh_by_their_labels() -> None:
    """Where all cells look alike, the softmax of the best of each label is that of its degree."""
    same = normalize(torch.ones(6, *GRID), dim=0)
    labels = torch.full((2, *GRID), 0.25)
    labels[0] = 0.75
    bank = FrameBank.empty(1, same, labels).add(same, labels)
    found = recent_similarities(same.permute(1, 2, 0).contiguous(), bank, radius=2, reach=0, top_k=1, scale=10.0)
    probs = (10.0 * torch.stack(found)[..., 0]).softmax(0)
    torch.testing.assert_close(probs, labels.flatten(1), atol=1e-5, rtol=0)


def test_recent_frames_follow_an_object_whose_looks_change() -> None:
    """What resembles the object of the last frame, and nothing in the given one, belongs to it with a context alone."""
    found = []
    for context in (1, 0):
        chosen = method(context=context, outlier_removal=False, top_k=1)
        state = chosen.begin(features(0), given())
        labels = to_cells(given(), STRIDE)
        state = chosen.remember(state, features(1), labels)
        predicted = chosen.predict(state, features(1)).argmax(0)
        found.append(float((predicted == labels.argmax(0)).float().mean()))
    assert found[0] > 0.95
    assert found[1] < 0.7


def test_a_template_keeps_so_many_cells_of_each_label_at_most() -> None:
    for settings in (
        {"template": 7},
        {"template": 0, "template_share": 7 / 99},
        {"template": 7, "template_share": 0.5},
    ):
        state = method(**settings).begin(features(0), given())
        (template,) = state.sets.templates
        assert template.counts == (7, 7, 7)
    known = {tuple(key.tolist()) for key in features(0).flatten(1).T}
    assert all(tuple(key.tolist()) in known for key in template.keys)


@pytest.mark.parametrize("change", [{"context": -1}, {"radius": 0}, {"reach": -1.0}, {"spacing": 0}, {"template": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(change))):
        replace(CONFIG, **change)


@pytest.mark.parametrize(("grid", "reach"), [((9, 11), 0), ((40, 52), 0.5), ((130, 61), 0.5)])
def test_what_is_wanted_is_found_as_if_all_were(grid: tuple[int, int], reach: float) -> None:
    """Grids of one tile and of many, with a ring of every cell and of every second one."""
    generator = torch.Generator().manual_seed(3)
    key, query = (normalize(torch.randn(6, *grid, generator=generator), dim=0) for _ in range(2))
    probs = torch.rand(2, *grid, generator=generator).softmax(0)
    bank = FrameBank.empty(1, key, probs).add(key, probs)
    wanted = torch.zeros(grid, dtype=torch.bool)
    wanted[3:9, 5:11] = True
    wanted[-1, -1] = True
    rows = query.permute(1, 2, 0).contiguous()
    matters = torch.stack((wanted, wanted & (torch.arange(grid[0]) > 5)[:, None]))
    all_cells, some = (
        recent_similarities(rows, bank, radius=3, reach=reach, top_k=2, scale=10.0, wanted=given)
        for given in (None, matters)
    )
    for expected, found, cells in zip(all_cells, some, matters.flatten(1), strict=True):
        torch.testing.assert_close(found, expected[cells], msg="and nothing is kept of other cells")


@pytest.mark.parametrize("reach", [0, 0.5])
def test_cells_that_hardly_belong_to_a_label_do_not_speak_for_it(reach: float) -> None:
    """What is beyond a label's window gets nothing of it, the rest what cells of that label alone give."""
    grid, generator = (40, 52), torch.Generator().manual_seed(4)
    key, query = (normalize(torch.randn(6, *grid, generator=generator), dim=0) for _ in range(2))
    probs = torch.full((2, *grid), 1e-9)
    probs[1, 10:14, 20:23] = 1
    probs[0] = 1 - probs[1]
    bank = FrameBank.empty(1, key, probs).add(key, probs)
    rows = query.permute(1, 2, 0).contiguous()
    found = recent_similarities(rows, bank, radius=3, reach=reach, top_k=2, scale=10.0)[1].view(*grid, -1)
    assert torch.isneginf(found[:, :10] if reach == 0 else found[-5:]).all()
    y, x = 9, 19
    near = [(v, u) for v in range(10, 14) for u in range(20, 23) if math.dist((y, x), (v, u)) < 3]
    best = sorted((float(query[:, y, x] @ key[:, v, u]) for v, u in near), reverse=True)
    assert found[y, x, :2].tolist() == pytest.approx(best[:2], abs=1e-5)
