"""`videomatch` equals the equations of its paper, and each of its modules can be switched off."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from tests.contract import Contract
from vostrack.errors import MethodError
from vostrack.matching.matcher import MatchingState
from vostrack.matching.settings import SoftMatcherConfig
from vostrack.methods import load_method
from vostrack.methods.videomatch import PAPER, VideoMatchMethod
from vostrack.nets.encoders import VideoMatchNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.grid import resize, to_pixels
from vostrack.ops.guided import guided
from vostrack.ops.hypercolumns import colours


@pytest.mark.slow
class TestFittedBlock(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def method(cls) -> Any:
        settings = {"finetune_part": "block", "finetune_steps": 1}
        return load_method("videomatch", preset="paper", settings=settings)[0]


GRID = (12, 14)
STRIDE = 8
SIZE = (STRIDE * GRID[0], STRIDE * GRID[1])
# Extrusion by 3 cells, erosion by 1: lengths are pixels at a short side of 480, that is 40 pixels a cell here.
SMALL = replace(PAPER, max_displacement=120.0, erosion=40.0, scale=6.0, top_k=3, confident_threshold=0.85, capacity=400)


def method(**changes: Any) -> VideoMatchMethod:
    return VideoMatchMethod(VideoMatchNet(), replace(SMALL, **changes))


def labels(*boxes: tuple[int, int, int, int]) -> Tensor:
    """One-hot (K, H, W) of boxes (top, bottom, left, right) in cells."""
    pixels = torch.zeros(SIZE, dtype=torch.int64)
    for number, box in enumerate(boxes, 1):
        top, bottom, left, right = (STRIDE * side for side in box)
        pixels[top:bottom, left:right] = number
    return torch.nn.functional.one_hot(pixels, len(boxes) + 1).permute(2, 0, 1).float()


ONE = labels((2, 8, 2, 8))
TWO = labels((1, 7, 1, 6), (6, 11, 8, 13))


def frame(seed: int, given: Tensor = TWO, noise: float = 0.8) -> Tensor:
    """Features (C, h, w): a direction for each label, and noise."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(len(given), 8, generator=torch.Generator().manual_seed(99))
    cells = avg_pool2d(given[None], STRIDE)[0]
    return normalize(
        torch.einsum("khw,kc->chw", cells, means) + noise * torch.randn(8, *GRID, generator=generator), dim=0
    )


def rows(features: Tensor) -> Tensor:
    return features.flatten(1).T


def mean_best(x: Tensor, keys: Tensor, top_k: int) -> float:
    """Mean of the K highest similarities: of all of a smaller set, and for 0."""
    best = sorted((float(x @ key) for key in keys), reverse=True)[: top_k or None]
    return sum(best) / len(best)


def naive_initial(query: Tensor, front: Tensor, back: Tensor, config: SoftMatcherConfig) -> Tensor:
    """y_t,init of one object (h, w): two-way softmax of the weighted scores."""
    out = []
    for x in rows(query.double()):
        a, b = (math.exp(config.scale * mean_best(x, keys.double(), config.top_k)) for keys in (front, back))
        out.append(a / (a + b))
    return torch.tensor(out).view(GRID)


def near(mask: Tensor, radius: float) -> Tensor:
    """The extruded mask (h, w)."""
    cells = mask.nonzero().tolist()
    found = [[any(math.dist((y, x), c) < radius for c in cells) for x in range(GRID[1])] for y in range(GRID[0])]
    return torch.tensor(found)


def eroded(mask: Tensor, radius: float) -> Tensor:
    outside = (~mask).nonzero().tolist()
    kept = [[all(math.dist((y, x), c) > radius for c in outside) for x in range(GRID[1])] for y in range(GRID[0])]
    return torch.tensor(kept) & mask


def split(state: MatchingState, number: int) -> tuple[Tensor, Tensor]:
    """Given foreground and background of an object, from the only template."""
    (template,) = state.sets.templates
    parts = template.keys.split(template.counts)
    return parts[number], torch.cat([part for index, part in enumerate(parts) if index != number])


def started(chosen: VideoMatchMethod, given: Tensor = TWO) -> tuple[MatchingState, Tensor]:
    """A state after a first frame, and a following frame in which parts of the background look like the objects."""
    moved = given.clone()
    moved[:, : 2 * STRIDE, -3 * STRIDE :] = given[:, 3 * STRIDE : 4 * STRIDE, 3 * STRIDE : 4 * STRIDE].mean((1, 2))[
        :, None, None
    ]
    return chosen.begin(frame(0, given), given), frame(1, moved)


def test_the_preset_of_the_paper_has_its_settings() -> None:
    """Section 4.1: the top layer at stride 8, K, d_c, c_1 and c_2; section 3.3: both updates, and outlier removal."""
    assert (PAPER.stages, PAPER.stride, PAPER.colour, PAPER.axes) == ((4,), 8, 0, 0)
    assert (PAPER.top_k, PAPER.max_displacement, PAPER.agility) == (20, 100, 0)
    assert (PAPER.confident_threshold, PAPER.foreground_threshold) == (0.95, 0.4)
    assert PAPER.outlier_removal
    assert PAPER.background_update
    assert PAPER.foreground_update
    assert PAPER.others_are_background
    assert (PAPER.template, PAPER.context, PAPER.finetune_steps, PAPER.background_score) == (0, 0, 0, None)


@pytest.mark.parametrize("removal", [True, False])
@pytest.mark.parametrize("given", [ONE, TWO], ids=["one", "two"])
def test_prediction_equals_the_equations(given: Tensor, removal: bool) -> None:
    chosen = method(outlier_removal=removal)
    state, features = started(chosen, given)
    probs = chosen.predict(state, features)
    initial = [naive_initial(features, *split(state, k), SMALL) for k in range(1, len(given))]
    final = [y * near(mask, 3) if removal else y for y, mask in zip(initial, state.places.seen, strict=True)]
    assert any((y != z).any() for y, z in zip(initial, final, strict=True)) == removal
    odds = torch.stack([y / (1 - y) * (1 - SMALL.foreground_threshold) / SMALL.foreground_threshold for y in final])
    expected = torch.cat((torch.ones(1, *GRID), odds)) / (1 + odds.sum(0))
    torch.testing.assert_close(probs, expected.float(), atol=1e-5, rtol=1e-4)
    best = torch.stack(final).max(0)
    assert torch.equal(probs.argmax(0), torch.where(best.values >= SMALL.foreground_threshold, best.indices + 1, 0))


@pytest.mark.parametrize("top_k", [1, 20, 100, 0], ids=["hard", "published", "100", "all"])
def test_k_is_k_however_small_an_object(top_k: int) -> None:
    """Figure 5(a): K from 1 to 100, and all; the smaller object here has nine cells."""
    assert (PAPER.top_k, PAPER.top_share) == (20, 0)
    given = labels((1, 4, 1, 4), (6, 11, 8, 13))
    chosen = method(top_k=top_k, outlier_removal=False)
    state, features = started(chosen, given)
    for _ in range(2):  # without, then with added features
        probs, added = chosen.predict(state, features), state.sets
        parts = [split(state, k) for k in (1, 2)]
        sets = [
            (torch.cat((front, added.foreground[k].used)), torch.cat((back, added.background[k].used)))
            for k, (front, back) in enumerate(parts)
        ]
        odds = torch.stack([naive_initial(features, *pair, replace(SMALL, top_k=top_k)).logit() for pair in sets])
        found = (probs[1:] / probs[:1]).log() + math.log(0.4 / 0.6)
        torch.testing.assert_close(found, odds.float(), atol=1e-4, rtol=1e-4)
        state = chosen.remember(state, features, probs)


def test_the_mean_over_all_similarities_does_without_recent_frames() -> None:
    with pytest.raises(MethodError, match="set context to 0"):
        SoftMatcherConfig(top_k=0)


@pytest.mark.parametrize("score", [0.0, 0.6])
def test_the_foreground_can_be_matched_alone(score: float) -> None:
    """Section 4.4: one soft matching layer; the background's score is a constant."""
    chosen = method(background_score=score, outlier_removal=False, foreground_threshold=0.5)
    state, features = started(chosen, ONE)
    front, _ = split(state, 1)
    expected = [1 / (1 + math.exp(SMALL.scale * (score - mean_best(x, front, 3)))) for x in rows(features)]
    torch.testing.assert_close(chosen.predict(state, features)[1], torch.tensor(expected).view(GRID))


def test_labels_that_are_no_rivals_compete_in_one_softmax() -> None:
    chosen = method(others_are_background=False, outlier_removal=False, foreground_threshold=0.5)
    state, features = started(chosen)
    (template,) = state.sets.templates
    parts = [part.double() for part in template.keys.split(template.counts)]
    assert min(map(len, parts)) // 4 >= SMALL.top_k
    scores = [[mean_best(x, part, SMALL.top_k) for x in rows(features.double())] for part in parts]
    expected = (SMALL.scale * torch.tensor(scores)).softmax(0).view(-1, *GRID)
    torch.testing.assert_close(chosen.predict(state, features), expected.float(), atol=1e-5, rtol=1e-4)
    single = [
        method(others_are_background=others_are_background).predict(*started(method(), ONE))
        for others_are_background in (True, False)
    ]
    assert torch.equal(*single)


def test_a_cell_that_resembles_two_objects_is_not_left_to_the_background() -> None:
    alike = frame(0).clone()
    alike[:, 6:11, 8:13] = alike[:, 1:6, 1:6]
    found = {}
    for others_are_background in (True, False):
        chosen = method(others_are_background=others_are_background, outlier_removal=False, foreground_threshold=0.5)
        found[others_are_background] = chosen.predict(chosen.begin(alike, TWO), alike)[:, 1:6, 1:6]
    assert found[False][0].mean() < 0.1
    assert found[True][0].mean() > 0.2


@pytest.mark.parametrize("removal", [True, False])
@pytest.mark.parametrize("given", [ONE, TWO], ids=["one", "two"])
def test_update_equals_the_equations(given: Tensor, removal: bool) -> None:
    chosen = method(outlier_removal=removal)
    state, features = started(chosen, given)
    probs = chosen.predict(state, features)
    after = chosen.remember(state, features, probs)
    kinds: set[str] = set()
    for k in range(1, len(given)):
        initial = naive_initial(features, *split(state, k), SMALL)
        outside = ~near(state.places.seen[k - 1], 3)
        outliers = (initial >= SMALL.foreground_threshold) & outside
        final = torch.where(outside, 0.0, initial) if removal else initial
        inner = eroded(probs.argmax(0) == k, 1) & ~outliers
        sure = inner & (final > SMALL.confident_threshold)
        torch.testing.assert_close(after.sets.background[k - 1].used, rows(features)[outliers.flatten()])
        torch.testing.assert_close(after.sets.foreground[k - 1].used, rows(features)[sure.flatten()])
        kinds |= {
            name for name, cells in (("sure", sure), ("unsure", inner & ~sure), ("outlier", outliers)) if cells.any()
        }
        assert torch.equal(after.places.seen[k - 1], probs.argmax(0) == k)
    assert kinds == {"sure", "unsure", "outlier"}
    assert after.sets.templates is state.sets.templates


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("back", [True, False])
def test_updates_can_be_switched_off(front: bool, back: bool) -> None:
    chosen = method(foreground_update=front, background_update=back)
    state, features = started(chosen)
    after = chosen.remember(state, features, chosen.predict(state, features)).sets
    assert (after.foreground[0].filled > 0) == front
    assert (after.background[0].filled > 0) == back
    assert (after is state.sets) == (not front and not back)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("others", [False, True])
def test_what_is_out_of_reach_need_not_be_matched(context: int, others: bool) -> None:
    """Without a background update the rest of the frame is background unseen; within reach nothing changes."""
    found = []
    for update in (True, False):
        chosen = method(
            background_update=update,
            foreground_update=False,
            context=context,
            max_displacement=60.0,
            others_are_background=others,
        )
        state, _ = started(chosen)
        found.append(chosen.predict(state, frame(2)))
        reach = ~state.places.outside(state.places.reach(60.0)).all(0)
    whole, near = found
    assert 0 < reach.sum() < reach.numel()
    torch.testing.assert_close(near[:, reach], whole[:, reach])
    assert torch.minimum(near, whole)[0, ~reach].min() > 1 - 1e-6


def test_added_features_are_matched_and_counted() -> None:
    chosen = method()
    state, features = started(chosen)
    state = chosen.remember(state, features, chosen.predict(state, features))
    following = frame(2)
    front, back = split(state, 1)
    front = torch.cat((front, state.sets.foreground[0].used))
    back = torch.cat((back, state.sets.background[0].used))
    found = naive_initial(following, front, back, SMALL)
    probs = chosen.predict(state, following)
    log_odds = (probs[1] / probs[0]).log()[near(state.places.seen[0], 3)]
    torch.testing.assert_close(log_odds, (found.logit() - math.log(0.4 / 0.6)).float()[near(state.places.seen[0], 3)])
    before = state.sets.foreground[0].filled
    after = chosen.remember(state, following, probs).sets.foreground[0]
    assert after.hits[:before].sum() > 0
    assert after.frames[:before].tolist() == [1] * before


def test_sets_stay_within_their_capacity_and_given_features_stay() -> None:
    chosen = method(capacity=10, confident_threshold=0.5, background_update=False)
    state, features = started(chosen)
    given = state.sets.templates
    for _ in range(8):
        state = chosen.remember(state, features, chosen.predict(state, features))
    assert state.sets.foreground[0].filled == 10
    assert state.sets.templates is given


def test_an_object_out_of_sight_may_move_on() -> None:
    chosen = method(background_update=False, foreground_update=False)
    state, blank = chosen.begin(frame(0, ONE), ONE), torch.zeros(2, *GRID)
    blank[0] = 1
    elsewhere = frame(1, labels((8, 12, 11, 14)), noise=0.1)
    reached = []
    for _ in range(4):
        reached.append(int((chosen.predict(state, elsewhere).argmax(0) == 1).sum()))
        state = chosen.remember(state, elsewhere, blank)
    assert reached == [0, *sorted(reached[1:])]
    assert reached[-1] >= 12


def test_a_later_mask_is_one_more_template_and_drops_what_was_added() -> None:
    chosen = method()
    state, features = started(chosen, ONE)
    state = chosen.remember(state, features, chosen.predict(state, features))
    assert state.sets.foreground[0].filled > 0
    later = chosen.begin(frame(2), TWO, state)
    assert [len(template.counts) for template in later.sets.templates] == [2, 3]
    assert later.sets.templates[0] is state.sets.templates[0]
    assert all(features.filled == 0 for features in (*later.sets.foreground, *later.sets.background))
    assert later.places.seen.shape == (2, *GRID)


def test_small_objects_get_a_cell() -> None:
    tiny = torch.zeros(2, *SIZE)
    tiny[1, 17:19, 33:36] = 1
    tiny[0] = 1 - tiny[1]
    state = method().begin(frame(0, ONE), tiny)
    assert state.places.seen.nonzero().tolist() == [[0, 2, 4]]
    assert state.sets.templates[0].counts == (GRID[0] * GRID[1] - 1, 1)


def test_a_mask_of_the_whole_frame_is_followed() -> None:
    chosen, whole = method(), torch.zeros(2, *SIZE)
    whole[1] = 1
    state = chosen.begin(frame(0), whole)
    probs = chosen.predict(state, frame(1))
    assert probs[1].min() > 0.99
    assert chosen.remember(state, frame(1), probs).places.seen.all()


def test_a_clip_without_objects_is_background() -> None:
    chosen, nothing = method(), torch.ones(1, *SIZE)
    state = chosen.begin(frame(0), nothing)
    probs = chosen.predict(state, frame(1))
    assert torch.equal(probs, torch.ones(1, *GRID))
    chosen.remember(state, frame(1), probs)


def test_scores_are_enlarged_before_the_softmax() -> None:
    chosen = method(outlier_removal=False)
    state, features = started(chosen)
    scores = [(naive_initial(features, *split(state, k), SMALL)).logit().float() for k in (1, 2)]
    single = to_pixels(torch.stack(scores), STRIDE, SIZE).sigmoid()
    odds = single / (1 - single) * 0.6 / 0.4
    expected = torch.cat((torch.ones(1, *SIZE), odds)) / (1 + odds.sum(0))
    torch.testing.assert_close(
        chosen.enlarge(chosen.predict(state, features), torch.empty(3, *SIZE)), expected, atol=1e-4, rtol=1e-3
    )


def test_where_pixels_follow_the_edges_probabilities_are_enlarged() -> None:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    chosen = method(edge_radius=20)  # 4 at a short side of 96 pixels
    state, features = started(chosen)
    probs = chosen.predict(state, features)
    expected = guided(to_pixels(probs, STRIDE, SIZE), image, 4, 0.01**2)
    torch.testing.assert_close(chosen.enlarge(probs, image), expected)


@pytest.mark.parametrize("preset", VideoMatchMethod.presets)
def test_features_are_unit_vectors_and_colours_on_the_grid(preset: str) -> None:
    config = VideoMatchMethod.presets[preset]
    chosen = VideoMatchMethod(VideoMatchNet().eval(), config)
    with torch.no_grad():
        image = torch.rand(3, 37, 51)
        features = chosen.encode(image)
    widths = [sum((64, 128, 256, 512)[stage - 1] for stage in stages) for stages in (config.stages, config.fine_stages)]
    cells = -(-37 // config.stride), -(-51 // config.stride)
    assert features.shape == (sum(widths) + 6 * (config.colour > 0), *cells)
    coarse, fine, colour = features.split((*widths, len(features) - sum(widths)))
    torch.testing.assert_close(coarse.norm(dim=0), torch.ones(cells))
    if config.fine_stages:
        torch.testing.assert_close(fine.norm(dim=0), torch.ones(cells))
    if config.colour:
        torch.testing.assert_close(colour, config.colour * colours(image, config.stride))


@pytest.mark.parametrize("size", [(45, 61), (46, 62), (47, 64)], ids=str)
@pytest.mark.parametrize("stride", [4, 8])
def test_fine_stages_are_those_of_a_larger_image_cell_by_cell(size: tuple[int, int], stride: int) -> None:
    net = VideoMatchNet().eval()
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        config = SoftMatcherConfig(stages=(1,), fine_stages=(2,), stride=stride, colour=0, precision="32")
        found = VideoMatchMethod(net, config).encode(image)[64:]
        larger = normalised_rgb(resize(image[None], (2 * size[0] - 1, 2 * size[1] - 1), corners=True)[0])[None]
        # Its cells are 8 of its pixels apart, 4 of the image.
        expected = normalize(net.stages(larger, 2)[1], dim=1)[0, :, :: stride // 4, :: stride // 4]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": ()},
        {"stages": (5,)},
        {"stride": 2},
        {"colour": -1.0},
        {"scale": 0.0},
        {"top_k": -1},
        {"max_displacement": 0.0},
        {"max_displacement": math.nan},
        {"erosion": -1.0},
        {"confident_threshold": 1.0},
        {"foreground_threshold": 0.0},
        {"capacity": 1},
        {"views": 3},
        {"fine_stages": (0,)},
        {"finetune_steps": -1},
        {"finetune_rate": 0.0},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(changes))):
        replace(PAPER, **changes)
