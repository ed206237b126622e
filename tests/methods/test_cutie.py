"""`cutie` against the package's own inference, with random weights."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vostrack.errors import VostrackError
from vostrack.methods import build_net, load_method
from vostrack.methods.cutie import CutieConfig, CutieMethod
from vostrack.propagate import Propagator
from vostrack.types import VOID, Clip, Frame, LabelMap, Prediction
from vostrack.weights import RANDOM

needs_package = pytest.mark.needs("cutie", "cutie")
SIZE = (90, 104)  # no multiple of 16, and 42 cells, of which 30 are read


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return build_net("cutie", "small").eval().requires_grad_(False)


def images(count: int, size: tuple[int, int] = SIZE) -> list[Tensor]:
    coarse = torch.randint(0, 256, (3, 12, 14), generator=torch.Generator().manual_seed(0))
    scene = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)[:, : size[0], : size[1]]
    return [torch.roll(scene, 2 * index, 2) for index in range(count)]


def mask(*objects: tuple[int, int, int], size: tuple[int, int] = SIZE) -> LabelMap:
    """Squares of 24 pixels: id, top and left of each."""
    pixels = torch.zeros(size, dtype=torch.uint8)
    for number, top, left in objects:
        pixels[top : top + 24, left : left + 24] = number
    return LabelMap(pixels, tuple(number for number, _, _ in objects if number != VOID))


def followed(net: nn.Module, count: int, masks: Mapping[int, LabelMap], **settings: Any) -> list[Prediction]:
    frames = (Frame(i, Fraction(i, 25), image, str(i)) for i, image in enumerate(images(count)))
    method: Any = CutieMethod(net, CutieConfig(**settings))
    return list(Propagator(method, None, keep_probs=True).run(Clip(frames, masks)))


def engine(net: Any, **changes: Any) -> Any:
    """The package's engine as its evaluation sets it up."""
    from cutie.inference.inference_core import InferenceCore
    from cutie.inference.utils.args_utils import get_dataset_cfg
    from omegaconf import OmegaConf

    config = OmegaConf.merge(net.cfg, {"dataset": "d17-val"}, changes)
    get_dataset_cfg(config)
    return InferenceCore(net, config)


def packages_own(net: nn.Module, count: int, masks: Mapping[int, LabelMap], **changes: Any) -> list[Tensor]:
    """Probabilities of all frames, as the package's evaluation gets them."""
    core, out = engine(net, **changes), []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for index, image in enumerate(images(count)):
            given = masks.get(index)
            said = (given.pixels.long(), list(given.ids)) if given else (None, None)
            out.append(core.step(image.float() / 255, *said))
    return out


@needs_package
@pytest.mark.parametrize("long", [False, True])
def test_it_equals_the_package_frame_by_frame_with_objects_that_join_late(net: nn.Module, long: bool) -> None:
    masks = {0: mask((200, 4, 8), (3, 40, 60)), 4: mask((7, 60, 4)), 9: mask((3, 10, 70), (1, 50, 30))}
    out = followed(net, 14, masks, long_term=long)
    for prediction, truth in zip(out, packages_own(net, 14, masks, use_long_term=long), strict=True):
        assert prediction.probs is not None
        assert torch.equal(prediction.probs, truth)
    assert out[-1].labels.ids == (200, 3, 7, 1)
    assert len(torch.unique(out[-1].labels.pixels)) > 2


@needs_package
def test_a_mask_given_again_for_all_objects_equals_the_packages_own(net: nn.Module) -> None:
    masks = {0: mask((200, 4, 8), (3, 40, 60)), 3: mask((200, 10, 20), (3, 50, 50))}
    pairs = zip(followed(net, 6, masks), packages_own(net, 6, masks), strict=True)
    for prediction, truth in pairs:
        assert prediction.probs is not None
        torch.testing.assert_close(prediction.probs, truth, atol=1e-5, rtol=0)  # memories are in another order


@needs_package
def test_a_correction_keeps_the_objects_that_it_does_not_name(net: nn.Module) -> None:
    start = mask((200, 4, 8), (3, 40, 60))
    plain = followed(net, 4, {0: start})[3].labels.pixels
    said = mask((200, 30, 10), (VOID, 0, 0))
    out = followed(net, 6, {0: start, 3: said})
    changed = out[3].labels.pixels
    assert out[-1].labels.ids == (200, 3)
    assert torch.equal((changed == 200) & (said.pixels != VOID), said.pixels == 200)
    kept = (said.pixels == 0) & (plain == 3)
    assert torch.equal((changed == 3) & (said.pixels != VOID), kept)
    assert torch.equal(changed[said.pixels == VOID], plain[said.pixels == VOID])
    probs = out[3].probs
    assert probs is not None
    torch.testing.assert_close(probs.sum(0), torch.ones(SIZE))


@needs_package
def test_masks_without_objects_and_images_of_one_cell(net: nn.Module) -> None:
    method: Any = CutieMethod(net, CutieConfig(long_term=True, mem_every=1, max_mem_frames=2))
    nothing, some = mask(size=(16, 16)), mask((5, 2, 2), size=(16, 16))
    clip = (Frame(i, Fraction(i, 25), image, str(i)) for i, image in enumerate(images(16, (16, 16))))
    out = list(Propagator(method, None, keep_probs=True).run(Clip(clip, {0: nothing, 2: some, 4: nothing})))
    assert [x.labels.ids for x in out] == [(), (), *[(5,)] * 14]
    assert all(x.probs is not None and x.probs.shape == (len(x.labels.ids) + 1, 16, 16) for x in out)


@needs_package
def test_weights_of_other_sizes_of_the_network_and_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is fetched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.utils.model_zoo.load_url", refuse)
    method, loaded = load_method("cutie", weights=RANDOM)
    assert loaded.name == RANDOM
    ready = [name for name, _ in method.net.named_modules() if name.startswith("aux_computer")]
    assert not ready


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    with pytest.raises(
        VostrackError, match=r"needs rf-cutie, which cannot be imported .*pip install 'vostrack\[cutie\]'"
    ):
        load_method("cutie", weights=RANDOM)


def test_the_list_of_methods_says_where_it_learned(tmp_path: Path) -> None:
    assert "learned from human masks" in CutieMethod.paper
    code = "import sys; import vostrack.methods.cutie; assert not {'cutie', 'omegaconf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
