"""`best`: features of two networks, the matching of `videomatch`, edges, and weights that it takes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vostrack import device as precision
from vostrack.errors import MethodError, WeightsError
from vostrack.methods import DEFAULT, build_net, load_method, method_class
from vostrack.methods.base import in_parts
from vostrack.methods.best import BestConfig, BestMethod
from vostrack.methods.videomatch import VideoMatchMethod
from vostrack.nets.distilled import CHANNELS, DistilledNet
from vostrack.nets.encoders import AnchorsNet, BestNet, MastNet, VideoMatchNet
from vostrack.ops.color import normalised_lab, normalised_rgb
from vostrack.ops.grid import resize, to_pixels
from vostrack.ops.guided import guided
from vostrack.ops.hypercolumns import colours, hypercolumns
from vostrack.train.evaluate import method_now
from vostrack.video.synthetic import clip_size, render
from vostrack.weights import WeightsEntry, check, find, join, load, read_details, save_weights

SIZE = (120, 162)


def picture(seed: int = 0) -> Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_default() -> None:
    assert DEFAULT == "best"
    assert BestMethod(BestNet()).config == BestConfig()


def test_features_are_those_of_both_networks_and_the_colours() -> None:
    """The shipped weights are those of `anchors` and `mast-mem`: their own stages give what `best` matches."""
    image = picture()
    rgb, lab = normalised_rgb(image)[None], normalised_lab(image)[None]
    larger = resize(rgb, (2 * SIZE[0] - 1, 2 * SIZE[1] - 1), corners=True)
    with torch.no_grad():
        nets: list[Any] = [load_method(name)[0].net for name in ("anchors", "mast-mem")]
        anchors, mast = nets
        fine = [(stage, stride // 2) for stage, stride in anchors.chosen_stages(larger, (1, 2), views=2)]
        parts = [
            hypercolumns(anchors.chosen_stages(rgb, (1, 2, 3), views=2), 4, (30, 41))[0],
            hypercolumns(fine, 4, (30, 41))[0],
            hypercolumns(mast.chosen_stages(lab, (1, 2), views=2), 4, (30, 41))[0],
            3 * colours(image, 4),
        ]
        for settings, expected in (
            ({}, parts),
            ({"mast_stages": ()}, [*parts[:2], parts[3]]),
            ({"fine_stages": ()}, [parts[0], *parts[2:]]),
        ):
            method, _ = load_method("best", settings={"precision": "32", **settings})
            torch.testing.assert_close(in_parts(method).encode(image), torch.cat(expected), atol=1e-4, rtol=0)


def test_pixels_follow_the_edges_and_need_not() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *SIZE, generator=generator)
    probs = torch.rand(2, 30, 41, generator=generator).softmax(0)
    net = BestNet()
    plain = to_pixels(probs, 4, SIZE)
    without = BestMethod(net, BestConfig(edge_radius=0)).enlarge(probs, image)
    assert torch.equal(without, plain)
    filtered = BestMethod(net, BestConfig(edge_radius=12, edge_contrast=0.1)).enlarge(probs, image)
    assert torch.equal(filtered, guided(plain, image, 3, 0.1**2))  # a quarter of 480 pixels
    least = BestMethod(net, BestConfig(edge_radius=1)).enlarge(probs, image)
    assert torch.equal(least, guided(plain, image, 1, 0.01**2))
    assert not torch.equal(filtered, plain)


def test_the_propagation_is_that_of_videomatch() -> None:
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(9, 30, 41, generator=generator) for _ in range(3)]
    labels = torch.zeros(2, *SIZE)
    labels[0, :, :80], labels[1, :, 80:] = 1, 1
    found = []
    for method in (BestMethod(BestNet()), VideoMatchMethod(VideoMatchNet())):
        state = method.begin(features[0], labels)
        state = method.remember(state, features[1], method.predict(state, features[1]))
        found.append(method.predict(state, features[2]))
    assert torch.equal(*found)


def test_colours_reach_the_network_in_32_bits_where_it_computes_in_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    seen: list[Tensor] = []
    net: Any = BestNet().eval()
    method = BestMethod(net)
    net.mast.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        method.encode(picture())
    frame, mirrored = seen
    assert torch.equal(frame, normalised_lab(picture())[None])
    assert torch.equal(mirrored.flip(3)[..., : SIZE[1]], frame)


@pytest.mark.parametrize(("origin", "net"), [("anchors", AnchorsNet), ("mast-mem", MastNet)])
def test_a_file_of_either_method_replaces_its_part_alone(tmp_path: Path, origin: str, net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    theirs = net()
    save_weights(theirs, origin, tmp_path / "mine.safetensors", {})
    ours, shipped = BestNet(), BestNet()
    loaded = load(ours, "best", tmp_path / "mine.safetensors", BestMethod.adopts)
    own = load(shipped, "best", find("best"))
    assert (loaded.name, loaded.rest, own.rest) == ("mine.safetensors", own.sha256, "")
    part = origin.removesuffix("-mem")
    for name, tensor in ours.state_dict().items():
        child, _, rest = name.partition(".")
        wanted = theirs.state_dict()[rest].half().to(tensor.dtype) if child == part else shipped.state_dict()[name]
        assert torch.equal(tensor, wanted), name


def test_a_file_that_lacks_what_it_should_bring_is_refused(tmp_path: Path) -> None:
    """The shipped weights must not fill its gaps."""
    net = AnchorsNet()
    del net.trunk.layer3
    save_weights(net, "anchors", tmp_path / "cut.safetensors", {})
    with pytest.raises(WeightsError, match=r"without anchors\.trunk\.layer3"):
        load(BestNet(), "best", tmp_path / "cut.safetensors", BestMethod.adopts)
    save_weights(nn.Linear(2, 2), "anchors", tmp_path / "other.safetensors", {})
    with pytest.raises(WeightsError, match="does not fit"):
        load(BestNet(), "best", tmp_path / "other.safetensors", BestMethod.adopts)


def test_a_file_of_best_must_have_both_parts(tmp_path: Path) -> None:
    net = BestNet()
    del net.mast
    save_weights(net, "best", tmp_path / "half.safetensors", {})
    with pytest.raises(WeightsError, match=r"without mast\."):
        load(BestNet(), "best", tmp_path / "half.safetensors", BestMethod.adopts)


def test_joining_shipped_weights_gives_the_shipped_weights(tmp_path: Path) -> None:
    parts = [entry.path for entry in map(find, BestMethod.adopts) if isinstance(entry, WeightsEntry)]
    net = build_net("best")
    save_weights(net, "best", tmp_path / "best.safetensors", join(net, "best", parts, BestMethod.adopts))
    shipped = find("best")
    assert isinstance(shipped, WeightsEntry)
    ours, theirs = load_file(tmp_path / "best.safetensors"), load_file(shipped.path)
    assert ours.keys() == theirs.keys() == build_net("best").state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_details(tmp_path / "best.safetensors") == read_details(shipped.path)


def test_one_network_stands_in_for_the_two() -> None:
    """The features have fewer channels, and everything else is as it was; a coarser grid is a part of the fine one."""
    torch.manual_seed(0)
    net = DistilledNet().eval()
    fine, coarse = (BestMethod(net, replace(BestMethod.presets["default"], stride=stride)) for stride in (4, 8))
    image = torch.rand(3, 50, 66, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, sparse = fine.encode(image), coarse.encode(image)
    assert features.shape == (CHANNELS + 6, 13, 17)
    assert torch.equal(sparse[:CHANNELS], features[:CHANNELS, ::2, ::2])
    state = fine.begin(features, torch.nn.functional.one_hot((image[0] > 0.5).long(), 2).permute(2, 0, 1).float())
    probs = fine.predict(state, features)
    torch.testing.assert_close(probs.sum(0), torch.ones(13, 17))


@pytest.mark.parametrize(("net", "changes"), [(BestNet, {}), (DistilledNet, {}), (BestNet, {"stride": 8, "views": 4})])
def test_a_window_has_the_features_of_the_frame_beyond_its_receptive_field(
    net: type[BestNet | DistilledNet], changes: dict[str, Any]
) -> None:
    """Mirror images included: cells of all stages lie on the same pixels."""
    torch.manual_seed(0)
    method = BestMethod(net().eval(), BestConfig(precision="32", surround=32, background_update=False, **changes))
    image = torch.rand(3, 70, 500, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(2, 70, 500)
    labels[1, 20:50, 230:270] = 1
    labels[0] = 1 - labels[1]
    with torch.no_grad():
        whole = method.encode(image)
        state = method.begin(whole, labels)
        state = replace(state, places=replace(state.places, age=state.places.age * 6))  # not seen for a while
        window = method.window(state, (70, 500))
        assert window is not None
        rows, columns = window
        assert (columns.start % 16, columns.stop % 16) == (0, 1)
        part = method.encode(image[:, rows, columns])
        first, reach = columns.start // method.stride, 128 // method.stride
        inner = part[:, :, reach:-reach]
        assert inner.shape[2] > 2
        torch.testing.assert_close(inner, whole[:, :, first + reach :][:, :, : inner.shape[2]], atol=1e-4, rtol=1e-3)
        assert method.predict(state, part).shape[1:] == whole.shape[1:]


def test_a_preset_names_the_network_that_weights_are_taken_of() -> None:
    for preset, name, net in (("default", "best", BestNet), ("fast", "best-fast", DistilledNet)):
        method, loaded = load_method("best", preset=preset)
        assert loaded.name == name
        assert isinstance(method.net, net)
    assert isinstance(load_method("best", weights="random", preset="fast")[0].net, DistilledNet)
    named, loaded = load_method("best", weights="best-fast")
    assert (loaded.name, named.config.network) == ("best-fast", "distilled")
    trained = method_now(method_class("best"), DistilledNet(), torch.device("cpu"), "distilled")
    assert trained.config == BestMethod.presets["fast"]


def test_a_damaged_file_of_one_network_does_not_stop_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest says of which network a file is; no other file is looked at."""
    shipped = find("best")
    assert isinstance(shipped, WeightsEntry)
    (tmp_path / "manifest.toml").write_text((shipped.folder / "manifest.toml").read_text())
    (tmp_path / "best.safetensors").write_bytes(shipped.path.read_bytes())
    (tmp_path / "best-fast.safetensors").write_bytes(b"cut off")
    monkeypatch.setattr("vostrack.weights.search_path", lambda: [tmp_path])
    assert load_method("best")[1].name == "best"
    with pytest.raises(WeightsError, match="best-fast"):
        load_method("best", preset="fast")


def test_one_network_has_no_stages_to_choose_from() -> None:
    with pytest.raises(MethodError, match="mast_stages chooses stages of two networks, and these weights are of one"):
        load_method("best", preset="fast", settings={"mast_stages": (2,)})
    assert load_method("best", settings={"mast_stages": (2,)})[0].config.mast_stages == (2,)


def test_the_shipped_network_finds_alike_what_its_teacher_does() -> None:
    """Where two cells look alike to one, they do to the other: similarities of centred features go together."""
    pixels, _ = render(3, 12, clip_size(120))
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    found = []
    for preset in ("default", "fast"):
        method, _ = load_method("best", preset=preset, settings={"colour": 0.0})
        with torch.no_grad():
            rows = in_parts(method).encode(image).flatten(1).T[::7]
        rows = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
        found.append((rows @ rows.T).flatten())
    assert torch.corrcoef(torch.stack(found))[0, 1] > 0.9


def test_own_weights_are_told_from_adopted_ones_in_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of `best` may name a file of `anchors`; what that leaves out must come from a whole one."""
    shipped = find("best")
    torch.manual_seed(0)
    save_weights(AnchorsNet(), "anchors", tmp_path / "mine.safetensors", {})
    (tmp_path / "manifest.toml").write_text(
        f"""[[weights]]
name = "mine"
method = "best"
file = "mine.safetensors"
sha256 = "{check(tmp_path / "mine.safetensors")}"
bytes = {(tmp_path / "mine.safetensors").stat().st_size}
licence = "none"
trained_on = "nothing"
"""
    )
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(tmp_path))
    _, loaded = load_method("best")
    assert isinstance(shipped, WeightsEntry)
    assert (loaded.name, loaded.rest) == ("mine", shipped.sha256)
    monkeypatch.setattr("vostrack.weights.search_path", lambda: [tmp_path])
    net = BestNet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(WeightsError, match="fills a part of best, and there are no weights of best itself"):
        load(net, "best", find("best"), BestMethod.adopts)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"edge_radius": -1},
        {"edge_radius": 65},
        {"edge_contrast": 0.0},
        {"stride": 5},
        {"stages": (4,)},
        {"mast_stages": (3,)},
        {"fine_stages": (4,)},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=f"^(each of )?{next(iter(changes))} must be"):
        BestConfig(**changes)
