"""Stages on one grid, and their principal axes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from vostrack.ops.color import rgb_to_lab
from vostrack.ops.grid import to_pixels
from vostrack.ops.hypercolumns import cell_features, colours, hypercolumns, principal_axes, project


def stage(channels: int, height: int, width: int, seed: int) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed))


def test_each_stage_has_the_same_weight_whatever_its_length() -> None:
    fine, coarse = stage(3, 7, 9, 0), stage(5, 4, 5, 1)
    columns = hypercolumns([(fine, 4), (100 * coarse, 8)], 4, (7, 9))
    for b in range(2):
        parts = (normalize(fine[b], dim=0), to_pixels(normalize(coarse[b], dim=0), 2, (7, 9)))
        torch.testing.assert_close(columns[b], normalize(torch.cat(parts), dim=0))
    torch.testing.assert_close(columns.norm(dim=1), torch.ones(2, 7, 9))


def test_a_coarser_grid_takes_the_cells_that_lie_on_it() -> None:
    fine, coarse = stage(3, 7, 9, 0), stage(5, 4, 5, 1)
    columns = hypercolumns([(fine, 4), (coarse, 8)], 8, (4, 5))
    parts = (normalize(fine[:, :, ::2, ::2], dim=1), normalize(coarse, dim=1))
    torch.testing.assert_close(columns, normalize(torch.cat(parts, 1), dim=1))


def test_axes_are_those_of_the_largest_variance() -> None:
    spread = torch.tensor([5.0, 0.1, 3.0, 0.2]).view(4, 1, 1)
    features = spread * stage(4, 20, 20, 0)[0] + 7
    axes = principal_axes(features, 2)
    assert axes.shape == (2, 5)
    torch.testing.assert_close(axes[:, :4] @ axes[:, :4].T, torch.eye(2))
    assert axes[:, [0, 2]].abs().amax(0).min() > 0.99
    torch.testing.assert_close(project(features, axes).norm(dim=0), torch.ones(20, 20))


def test_what_all_cells_have_in_common_does_not_count() -> None:
    features = stage(6, 20, 20, 0)[0]
    plain, moved = (project(f, principal_axes(f, 3)) for f in (features, features + 7))
    torch.testing.assert_close(plain.abs(), moved.abs(), atol=1e-4, rtol=0)
    wanted = principal_axes(features, 3)[:, :6].double() @ (
        features - features.mean((1, 2), keepdim=True)
    ).double().flatten(1)
    torch.testing.assert_close(plain.flatten(1).double(), normalize(wanted, dim=0), atol=1e-5, rtol=0)


def test_no_axes_leave_features_as_they_are() -> None:
    features = stage(4, 3, 3, 0)[0]
    axes = principal_axes(features, 0)
    assert axes.shape == (0, 5)
    assert project(features, axes) is features


def test_what_does_not_vary_has_no_axis_however_many_are_asked_for() -> None:
    features, later = stage(4, 6, 6, 0)[0], stage(4, 6, 6, 1)[0]
    features[2] = 0.3
    axes = principal_axes(features, 9, 1.0)
    assert axes.shape == (3, 5)
    later[2] = 1000
    other = later.clone()
    other[2] = -1000
    torch.testing.assert_close(project(later, axes), project(other, axes), atol=1e-2, rtol=0)


def test_there_are_no_more_axes_than_channels_and_they_give_unit_vectors() -> None:
    features = stage(4, 3, 3, 0)[0]
    axes = principal_axes(features, 9)
    assert axes.shape == (4, 5)
    torch.testing.assert_close(project(features, axes).norm(dim=0), torch.ones(3, 3))


def test_whitened_coordinates_have_equal_variance_and_half_whitened_ones_its_root() -> None:
    features = torch.tensor([5.0, 0.5, 3.0, 1.0]).view(4, 1, 1) * stage(4, 20, 20, 0)[0] + 7
    spread = {}
    for whitening in (0.0, 0.5, 1.0):
        axes = principal_axes(features, 3, whitening).double()
        coordinates = axes[:, :4] @ features.double().flatten(1) + axes[:, 4:]
        spread[whitening] = coordinates.var(1, correction=0)
    torch.testing.assert_close(spread[1.0], torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(spread[0.5], spread[0.0].sqrt(), atol=0, rtol=1e-4)


def test_a_blank_image_gives_finite_axes() -> None:
    features = torch.full((4, 5, 6), 0.5)
    axes = principal_axes(features, 2, 1.0)
    assert axes.isfinite().all()
    assert project(features, axes).isfinite().all()


def test_colours_are_mean_and_deviation_of_the_pixels_around_each_cell() -> None:
    image = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(0))
    lab = rgb_to_lab(image).double() / 100
    found = colours(image, 4)
    assert found.shape == (6, 3, 4)
    for row in range(3):
        for column in range(4):
            y, x = 4 * row, 4 * column
            patch = lab[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].flatten(1)
            wanted = torch.cat((patch.mean(1), patch.std(1, correction=0)))
            torch.testing.assert_close(found[:, row, column].double(), wanted, atol=2e-4, rtol=0)


def test_a_description_is_the_hypercolumns_and_the_weighted_colours() -> None:
    image, fine, coarse = torch.rand(3, 26, 34), stage(3, 7, 9, 0)[:1], stage(5, 4, 5, 1)[:1]
    columns = hypercolumns([(fine, 4), (coarse, 8)], 4, (7, 9))[0]
    torch.testing.assert_close(cell_features(image, [[(fine, 4), (coarse, 8)]], 4, 0.0), columns)
    both = torch.cat((columns, 3 * colours(image, 4)))
    torch.testing.assert_close(cell_features(image, [[(fine, 4), (coarse, 8)]], 4, 3.0), both)
    apart = torch.cat((normalize(fine[0], dim=0), hypercolumns([(coarse, 8)], 4, (7, 9))[0]))
    torch.testing.assert_close(cell_features(image, [[(fine, 4)], [(coarse, 8)]], 4, 0.0), apart)


def test_whitening_with_labels_evens_out_the_variance_within_them() -> None:
    """The two labels differ along the first channel, which varies little within each."""
    labels = torch.zeros(2, 20, 20)
    labels[0, :, :12], labels[1, :, 12:] = 1, 1
    features = torch.tensor([0.5, 3.0, 1.0, 2.0]).view(4, 1, 1) * stage(4, 20, 20, 0)[0]
    features[0] += 6 * labels[1]
    axes = principal_axes(features, 3, 1.0, labels).double()
    coordinates = (axes[:, :4] @ features.double().flatten(1) + axes[:, 4:]).view(3, 20, 20)
    parts = [coordinates[:, :, :12].flatten(1), coordinates[:, :, 12:].flatten(1)]
    within = sum(part.cov(correction=0) * part.shape[1] for part in parts) / 400
    torch.testing.assert_close(within, torch.eye(3, dtype=torch.float64), atol=1e-4, rtol=0)
    apart = (parts[0].mean(1) - parts[1].mean(1)).norm()
    plain = principal_axes(features, 3, 1.0).double()
    whitened = (plain[:, :4] @ features.double().flatten(1)).view(3, 20, 20)
    assert apart > 5 * (whitened[:, :, :12].mean((1, 2)) - whitened[:, :, 12:].mean((1, 2))).norm()


def test_one_label_is_as_none_and_an_absent_one_does_not_count() -> None:
    features = stage(5, 8, 8, 0)[0]
    labels = torch.zeros(3, 8, 8)
    labels[0, :, :5], labels[2, :, 5:] = 1, 1
    plain = project(features, principal_axes(features, 3, 0.5))
    same = project(features, principal_axes(features, 3, 0.5, torch.ones(1, 8, 8)))
    torch.testing.assert_close(plain.abs(), same.abs(), atol=1e-5, rtol=0)
    with_absent = principal_axes(features, 3, 0.5, labels)
    torch.testing.assert_close(with_absent, principal_axes(features, 3, 0.5, labels[[0, 2]]), atol=1e-5, rtol=0)


def test_axes_of_many_cells_are_those_of_the_same_cells_once() -> None:
    once = torch.randn(5, 30, 50, generator=torch.Generator().manual_seed(0))
    labels = one_hot((once[0] > 0).long(), 2).permute(2, 0, 1)
    few = principal_axes(once, 4, 0.7, labels)
    many = principal_axes(once.repeat(1, 3, 1), 4, 0.7, labels.repeat(1, 3, 1))
    torch.testing.assert_close(many.abs(), few.abs())
