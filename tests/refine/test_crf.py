"""The dense CRF of one frame, against the equations as loops and by what it must do."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.refine.scenes import needs_package, scene, soft
from vostrack.errors import MethodError, VostrackError
from vostrack.refine import make_refiner
from vostrack.refine.crf import CrfConfig, infer, installed

SMALL = CrfConfig(gaussian_sxy=2, gaussian_compat=1, bilateral_sxy=5, bilateral_srgb=20, bilateral_compat=2)


# Naive twin.


def affinities(features: Sequence[Sequence[float]]) -> list[list[float]]:
    """Gaussian of the distance of each pair, divided by the square roots of both pixels' sums."""
    kernel = [[math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / 2) for b in features] for a in features]
    sums = [sum(row) for row in kernel]
    return [[value / math.sqrt(sums[i] * sums[j]) for j, value in enumerate(row)] for i, row in enumerate(kernel)]


def softmax(energies: Sequence[float]) -> list[float]:
    weights = [math.exp(-energy) for energy in energies]
    return [weight / sum(weights) for weight in weights]


def mean_field(image: NDArray[Any], probs: NDArray[Any], c: CrfConfig) -> NDArray[np.float64]:
    """Algorithm 1 of Krähenbühl and Koltun with Potts compatibility, every pair of pixels by itself."""
    count, height, width = probs.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    near = affinities([(y / c.gaussian_sxy, x / c.gaussian_sxy) for y, x in places])
    alike = affinities(
        [
            (y / c.bilateral_sxy, x / c.bilateral_sxy, *(float(v) / c.bilateral_srgb for v in image[:, y, x]))
            for y, x in places
        ]
    )
    unary = [[-math.log(max(float(probs[k, y, x]), 1e-5)) for k in range(count)] for y, x in places]
    q = [softmax(energies) for energies in unary]
    for _ in range(c.iterations):
        energies = [list(row) for row in unary]
        for i in range(len(places)):
            for j in range(len(places)):
                weight = c.gaussian_compat * near[i][j] + c.bilateral_compat * alike[i][j]
                for k in range(count):
                    energies[i][k] -= weight * q[j][k]
        q = [softmax(row) for row in energies]
    return np.array(q).T.reshape(probs.shape)


@needs_package
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, iterations=1, bilateral_compat=0),
        replace(SMALL, iterations=1, gaussian_compat=0),
    ],
    ids=["both", "gaussian", "bilateral"],
)
def test_inference_is_that_of_the_equations(config: CrfConfig, seed: int) -> None:
    image, probs, _ = scene(seed)
    refined, expected = infer(image, probs, config), mean_field(image, probs, config)
    # The lattice approximates the kernels: it was off by 1 to 3 % of what the field moves, and by 0.023 at most. A
    # weight that is wrong by 30 % is off by 7 to 30 %, exchanged widths by 5 to 17 %, an iteration too many by 20 %.
    assert np.abs(refined - expected).mean() < 0.04 * np.abs(expected - probs).mean()
    assert np.abs(refined - expected).max() < 0.03


# What it must do.


@needs_package
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 3), (17, 4)])
def test_probabilities_come_out_at_any_size(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (3, *size)).astype(np.uint8)
    probs = random.random((4, *size)).astype(np.float32) + 0.1
    refined = infer(image, probs / probs.sum(0), CrfConfig())
    assert refined.shape == (4, *size)
    assert refined.dtype == np.float32
    assert refined.flags.c_contiguous
    assert (refined >= 0).all()
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@needs_package
def test_the_same_input_gives_the_same_bits() -> None:
    image, probs, _ = scene()
    before = image.copy(), probs.copy()
    first, second = infer(image, probs, CrfConfig()), infer(image, probs, CrfConfig())
    assert first.tobytes() == second.tobytes()
    assert np.array_equal(image, before[0])
    assert np.array_equal(probs, before[1])


@needs_package
def test_without_kernels_probabilities_stay() -> None:
    image, probs, _ = scene()
    refined = infer(image, probs, replace(SMALL, gaussian_compat=0, bilateral_compat=0))
    np.testing.assert_allclose(refined, probs, atol=1e-6)


@needs_package
def test_noise_goes_and_areas_of_their_own_colour_stay() -> None:
    image, probs, true = scene(noise=0.25)
    assert (probs.argmax(0) == true).mean() < 0.9
    assert (infer(image, probs, CrfConfig()).argmax(0) == true).all()


@needs_package
def test_an_order_of_channels_does_not_matter() -> None:
    image, probs, _ = scene()
    order = [2, 0, 1]
    np.testing.assert_allclose(infer(image, probs[order], SMALL), infer(image, probs, SMALL)[order], atol=1e-5)


@needs_package
def test_a_boundary_moves_to_the_edge_of_the_image() -> None:
    image = np.full((3, 30, 40), 80, np.uint8)
    image[:, :, 20:] = 170
    labels = np.zeros((30, 40), np.int64)
    labels[:, 16:] = 1  # 4 pixels off
    refined = infer(image, soft(labels, 2, 0.7), CrfConfig()).argmax(0)
    assert np.array_equal(refined, (image[0] == 170).astype(np.int64))


@needs_package
def test_hard_labels_with_a_certainty_have_the_energies_of_the_authors_example() -> None:
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels

    image, probs, _ = scene()
    hard = probs.argmax(0)
    config = replace(SMALL, certainty=0.7, bilateral_compat=0)
    field = DenseCRF2D(13, 11, 3)
    field.setUnaryEnergy(unary_from_labels(hard, 3, 0.7, zero_unsure=False))
    field.addPairwiseGaussian(sxy=SMALL.gaussian_sxy, compat=SMALL.gaussian_compat)
    expected = np.array(field.inference(config.iterations)).reshape(probs.shape)
    np.testing.assert_allclose(infer(image, soft(hard, 3, 1.0), config), expected, atol=1e-5)


@needs_package
def test_a_square_that_is_16_pixels_off_moves_only_as_far_as_its_labels_are_doubted() -> None:
    random = np.random.default_rng(0)
    true = np.zeros((160, 200), bool)
    true[32:128, 40:136] = True
    colors = np.where(true, np.array([200, 90, 60])[:, None, None], np.array([60, 110, 80])[:, None, None])
    image = (colors + random.integers(-8, 9, colors.shape)).astype(np.uint8)
    given = np.roll(true, 16, 1)

    def overlap(certainty: float | None) -> float:
        probs = soft(given, 2, 1.0)
        found = given if certainty is None else infer(image, probs, CrfConfig(certainty=certainty)).argmax(0) == 1
        return float((found & true).sum() / (found | true).sum())

    none, hard, doubted = overlap(None), overlap(1.0), overlap(0.7)
    assert none == pytest.approx(80 / 112)
    assert hard < none + 0.07
    assert doubted > none + 0.2


@needs_package
def test_what_is_certain_stays_where_the_image_says_nothing() -> None:
    image = np.full((3, 24, 32), 80, np.uint8)
    labels = np.zeros((24, 32), np.int64)
    labels[6:18, 8:24] = 1
    refined = infer(image, soft(labels, 2, 0.9999), CrfConfig())
    assert np.array_equal(refined.argmax(0), labels)


@needs_package
def test_channels_of_absent_objects_stay_empty() -> None:
    image, probs, _ = scene()
    wide = np.concatenate((probs, np.zeros((2, *probs.shape[1:]), np.float32)))
    refined = infer(image, wide, CrfConfig())
    assert refined[3:].max() < 1e-4
    np.testing.assert_allclose(refined[:3], infer(image, probs, CrfConfig()), atol=1e-3)


# Settings and the package.


@needs_package
def test_options_become_settings() -> None:
    refiner = make_refiner("crf", {"iterations": 5, "bilateral_srgb": 2.5})
    assert refiner is not None
    told = refiner.record()
    assert (told["name"], told["iterations"], told["bilateral_srgb"], told["gaussian_sxy"]) == ("crf", 5, 2.5, 3.0)
    assert told["package"] == installed()
    assert refiner.size == 480
    assert make_refiner(None) is None
    assert CrfConfig().iterations == 2  # RPM-Net, section 4.5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("crv", {}, "unknown refinement 'crv'; did you mean 'crf'?"),
        ("crf", {"iteration": 2}, "did you mean 'iterations'?"),
        ("crf", {"iterations": 2.5}, "crf: iterations must be a whole number (1 to 100), not 2.5"),
        ("crf", {"iterations": 0}, "crf: iterations must be from 1 to 100, not 0"),
        ("crf", {"size": 9000}, "crf: size must be from 16 to 8192, not 9000"),
        ("crf", {"bilateral_sxy": float("nan")}, "crf: bilateral_sxy must be from 2 to 1000, not nan"),
        ("crf", {"gaussian_sxy": 0.5}, "crf: gaussian_sxy must be from 1 to 1000, not 0.5"),
        ("crf", {"bilateral_srgb": float("inf")}, "crf: bilateral_srgb must be from 1 to 1000, not inf"),
        ("crf", {"certainty": 0}, "crf: certainty must be above 0 and at most 1, not 0"),
        ("crf", {"gaussian_compat": -1}, "crf: gaussian_compat must be from 0 to 1000, not -1.0"),
        (None, {"iterations": 2}, "there is no refinement to set iterations of"),
    ],
)
def test_what_cannot_be_is_refused(name: str | None, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MethodError) as caught:
        make_refiner(name, options)
    assert words in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(VostrackError) as caught:
        make_refiner("crf")
    assert "pip install 'vostrack[crf]'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
