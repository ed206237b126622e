"""`best` is `anchors` with edges, and takes its weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from vostrack.errors import MethodError
from vostrack.methods import DEFAULT, load_method
from vostrack.methods.anchors import AnchorsConfig, AnchorsMethod
from vostrack.methods.best import BestConfig, BestMethod
from vostrack.nets.encoders import AnchorsNet
from vostrack.ops.guided import guided
from vostrack.weights import save_weights

SIZE = (120, 162)


def test_it_is_the_default() -> None:
    assert DEFAULT == "best"
    assert BestMethod(AnchorsNet()).config == BestConfig()


def test_pixels_follow_the_edges_and_need_not() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *SIZE, generator=generator)
    probs = torch.rand(2, 30, 41, generator=generator).softmax(0)
    net = AnchorsNet()
    plain = AnchorsMethod(net, AnchorsConfig()).enlarge(probs, image)
    without = BestMethod(net, BestConfig(edge_radius=0)).enlarge(probs, image)
    assert torch.equal(without, plain)
    drawn = BestMethod(net, BestConfig(edge_radius=12, edge_contrast=0.1)).enlarge(probs, image)
    assert torch.equal(drawn, guided(plain, image, 3, 0.1**2))  # a quarter of 480 pixels
    least = BestMethod(net, BestConfig(edge_radius=1)).enlarge(probs, image)
    assert torch.equal(least, guided(plain, image, 1, 0.01**2))
    assert not torch.equal(drawn, plain)


def test_the_propagation_is_that_of_anchors() -> None:
    ours = asdict(BestConfig())
    assert {key: ours[key] for key in asdict(AnchorsConfig())} == asdict(AnchorsConfig())


def test_weights_that_were_trained_for_anchors_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = AnchorsNet()
    save_weights(net, "anchors", tmp_path / "mine.safetensors", {})
    method, loaded = load_method("best", weights=tmp_path / "mine.safetensors")
    assert loaded.name == "mine.safetensors"
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *SIZE, generator=generator)
    theirs, _ = load_method("anchors", weights=tmp_path / "mine.safetensors")
    assert torch.equal(method.encode(image), theirs.encode(image))


@pytest.mark.parametrize("changes", [{"edge_radius": -1}, {"edge_radius": 65}, {"edge_contrast": 0.0}, {"stride": 5}])
def test_settings_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=next(iter(changes))):
        BestConfig(**changes)
