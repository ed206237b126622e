"""J on held-out clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fakes import FakeMethod, FakeNet, fake_method
from tests.train.samples import ALONE, CPU, write_image, write_labelled
from vostrack.train.data.cache import FrameCache, build_cache
from vostrack.train.data.footage import find_labelled
from vostrack.train.evaluate import held_out_scores, masked_clip, method_now, propagated


def opened(root: Path, tmp_path: Path) -> FrameCache:
    return build_cache(find_labelled([root]), tmp_path / "cache")


def test_scores_are_those_of_propagation_from_the_first_object(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis", value=3, names=("one",))
    write_image(root / "Annotations" / "480p" / "one" / "00000.png", np.zeros((40, 60)))
    write_image(root / "Annotations" / "480p" / "one" / "00005.png", np.full((40, 60), 9))  # another object
    cache = opened(root, tmp_path)
    clip = masked_clip(cache, cache.clips[0])
    assert clip is not None
    assert (len(clip.frames), clip.first.ids) == (5, (3,))
    found = [prediction.labels.pixels for prediction in propagated(clip.frames, clip.first, fake_method(), CPU)]
    values = []
    for index in range(1, 5):
        pairs = list(zip(found[index].flatten().tolist(), clip.truth[index].flatten().tolist(), strict=True))
        both = sum(one == 3 and other == 3 for one, other in pairs)
        either = sum(one == 3 or other == 3 for one, other in pairs)
        values.append(both / either if either else 1.0)
    assert held_out_scores(cache, fake_method(), ALONE) == {"one": pytest.approx(sum(values) / 4)}
    assert 0.3 < sum(values) / 4 < 0.9


def test_clips_without_an_object_are_left_out(tmp_path: Path) -> None:
    root = write_labelled(tmp_path / "davis", names=("late", "one"))
    for index in range(5):
        write_image(root / "Annotations" / "480p" / "late" / f"{index:05d}.png", np.zeros((40, 60)))
    assert held_out_scores(opened(root, tmp_path), fake_method(), ALONE).keys() == {"one"}


def test_the_network_that_is_trained_stays_as_it_is() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    net.register_parameter("scale", FakeNet().scale)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    method = method_now(FakeMethod, net.train(), CPU)  # type: ignore[arg-type]
    assert isinstance(method.net[1], torch.nn.Identity)  # type: ignore[index]
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
