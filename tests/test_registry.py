from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import vostrack
from tests.fakes import NAME, PATH, FakeConfig, FakeMethod
from vostrack import methods
from vostrack.errors import MethodError
from vostrack.methods import (
    DEFAULT,
    METHODS,
    PRESETS,
    QUALITY,
    check_preset,
    configure,
    load_method,
    method_class,
    preset_name,
    registered,
    training_recipe,
)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """What other packages register."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(methods, "entry_points", lambda group: [point for point in found if point.group == group])
    methods.found_methods.cache_clear()
    yield found
    methods.found_methods.cache_clear()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, NAME, PATH)


def modules(code: str) -> set[str]:
    """Modules that a fresh interpreter has imported after some code."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_neither_the_package_nor_the_registry_imports_torch() -> None:
    found = modules("import vostrack, vostrack.methods, vostrack.errors; vostrack.methods.registered()")
    assert not {"torch", "numpy", "av", "PIL", "vostrack.methods.anchors"} & found


def test_presets_of_our_methods_are_known_without_them() -> None:
    ours = {name: (*method_class(name).presets,) for name in METHODS if name != NAME}
    assert {name: sorted(presets) for name, presets in PRESETS.items()} == {n: sorted(p) for n, p in ours.items()}
    assert "torch" not in modules("from vostrack.methods import check_preset; check_preset('best', 'fast')")
    with pytest.raises(MethodError, match="unknown preset of best 'quick'"):
        check_preset("best", "quick")


def test_public_names_are_those_that_are_promised() -> None:
    assert sorted(vostrack.__all__) == vostrack.__all__
    assert {"segment", "Propagator", "open_clip", "load_method", "VostrackError"} <= set(vostrack.__all__)
    for name in vostrack.__all__:
        assert getattr(vostrack, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vostrack.nothing  # noqa: B018


def test_the_default_method_is_registered() -> None:
    assert DEFAULT in METHODS


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_imported_and_has_a_default_preset(name: str) -> None:
    factory: Any = method_class(name)
    assert factory.name == name
    assert "default" in factory.presets
    assert factory.paper


def test_methods_of_other_packages_are_found(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("theirs", PATH, "vostrack.methods"))
    points.append(EntryPoint("plugin", PATH, "another.group"))
    assert registered()["theirs"] == PATH
    assert method_class("theirs") is FakeMethod
    assert "plugin" not in registered()


def test_other_packages_cannot_replace_our_methods(points: list[EntryPoint]) -> None:
    points.append(EntryPoint(DEFAULT, "evil:Method", "vostrack.methods"))
    assert registered()[DEFAULT] == METHODS[DEFAULT]


@pytest.mark.parametrize("value", ["nowhere:Method", "tests.fakes:Nothing", "tests.fakes"])
def test_a_method_that_cannot_be_imported_is_explained(points: list[EntryPoint], value: str) -> None:
    points.append(EntryPoint("theirs", value, "vostrack.methods"))
    with pytest.raises(MethodError, match="'theirs' cannot be loaded"):
        method_class("theirs")


def test_unknown_names_suggest_the_closest() -> None:
    with pytest.raises(MethodError, match=r"unknown method 'ankors'; did you mean 'anchors'\?"):
        method_class("ankors")
    with pytest.raises(MethodError, match=r"unknown method 'ANCHORS'; did you mean 'anchors'\?"):
        method_class("ANCHORS")
    with pytest.raises(MethodError, match=r"unknown preset of fake 'slwo'; did you mean 'slow'\?"):
        configure(NAME, "slwo")
    with pytest.raises(MethodError, match=r"unknown setting of fake 'step'; did you mean 'steps'\? \(choose"):
        configure(NAME, settings={"step": 3})


def test_a_configuration_is_a_preset_with_some_settings_changed() -> None:
    assert configure(NAME) == FakeConfig()
    assert configure(NAME, "slow", {"steps": 3}) == FakeConfig(rate=0.01, steps=3)
    with pytest.raises(MethodError, match=r"^fake: rate must be from 0 to 1, not 2\.0$"):
        configure(NAME, settings={"rate": 2})


def test_the_default_preset_has_the_name_of_the_one_that_it_equals() -> None:
    presets = method_class("best").presets
    assert presets[preset_name("best")] == presets["default"]
    assert preset_name("best") in QUALITY
    assert [preset_name("best", name) for name in QUALITY] == list(QUALITY)
    assert (preset_name("mast-mem"), preset_name("mast-mem", "paper")) == ("default", "paper")


def test_a_method_without_a_network_has_no_weights_and_no_recipes() -> None:
    assert load_method("copy")[1].name == "none"
    with pytest.raises(MethodError, match="copy has no network: leave `weights` out"):
        load_method("copy", weights="random")
    with pytest.raises(MethodError, match="copy has no network to train"):
        training_recipe("copy")


def test_a_method_without_an_objective_has_no_recipes() -> None:
    with pytest.raises(MethodError, match=r"^fake cannot be trained here: its weights come from elsewhere$"):
        training_recipe(NAME)
