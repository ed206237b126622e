"""Settings: declared once, inherited, checked by one mechanism, listed for people."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, dataclass, replace
from typing import Any

import pytest

from vostrack.adapt.config import AdaptConfig
from vostrack.config import Config, changed, setting, setting_of, settings_of, shown
from vostrack.errors import MethodError
from vostrack.methods import METHODS, method_class
from vostrack.methods.recipe import Recipe
from vostrack.refine.crf import CrfConfig
from vostrack.train.settings import TrainConfig


@dataclass(frozen=True)
class Lens(Config, group="lens"):
    stages: tuple[int, ...] = setting((1, 2), "stages to take", choices=(1, 2, 3))
    weight: float = setting(0.5, "weight of colours", low=0, high=1)
    kind: str = setting("soft", "kind of edges", choices=("soft", "hard"))


@dataclass(frozen=True)
class Search(Config, group="search"):
    radius: int = setting(12, "how far to look", low=1, unit="cells")
    heat: float = setting(0.1, "divides similarities", above=0)
    share: float = setting(0.2, "share of the side", low=0, below=1)
    ages: tuple[int, ...] = setting((), "frames back", low=1, empty=True)
    sure: bool = setting(True, "whether to be sure")
    minutes: float | None = setting(None, "time to take", above=0)


@dataclass(frozen=True)
class Both(Search, Lens, group="memory"):
    stages: tuple[int, ...] = setting((1,), choices=(1, 4))
    radius: int = 3
    context: int = setting(4, "frames to keep", low=0)
    corners: bool = setting(False, "as published", group="lens")

    def check(self) -> None:
        if self.context and self.kind == "hard":
            raise MethodError(f"context must be 0 where kind is hard, not {self.context}")


CONFIGS: list[Config] = [AdaptConfig(), CrfConfig(), TrainConfig(), Both()]
for name in METHODS:
    CONFIGS += method_class(name).presets.values()
    if objective := method_class(name).objective:
        CONFIGS += objective.recipes.values()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_configurations_are_frozen_hashable_and_can_be_stored(config: Config) -> None:
    with pytest.raises(FrozenInstanceError):
        config.check = None  # type: ignore[method-assign, assignment]
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert len({config, replace(config)}) == 1
    stored = json.loads(json.dumps(asdict(config)))
    assert type(config)(**stored) == config


@pytest.mark.parametrize("kind", dict.fromkeys(map(type, CONFIGS)), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_meaning_that_reads_as_the_others_do(kind: type[Config]) -> None:
    for each in settings_of(kind):
        assert each.meaning, each.name
        assert not each.meaning.endswith(".")
        assert each.meaning[0].islower() or each.meaning[0].isdigit()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": 0}, "radius must be at least 1, not 0"),
        ({"radius": True}, "radius must be a whole number (at least 1), not True"),
        ({"radius": 2.0}, "radius must be a whole number (at least 1), not 2.0"),
        ({"radius": "2"}, "radius must be a whole number (at least 1), not '2'"),
        ({"radius": None}, "radius must be a whole number (at least 1), not None"),
        ({"radius": 2**63}, f"radius must be of 64 bits at most, not {2**63}"),
        ({"radius": 10**5000}, "radius must be of 64 bits at most, not a number of thousands of digits"),
        ({"weight": 1.5}, "weight must be from 0 to 1, not 1.5"),
        ({"weight": math.nan}, "weight must be from 0 to 1, not nan"),
        ({"weight": True}, "weight must be a number (0 to 1), not True"),
        ({"weight": 10**400}, "weight must be a number (0 to 1), not 1000"),
        ({"heat": 0}, "heat must be above 0, not 0.0"),
        ({"heat": math.inf}, "heat must be finite, not inf"),
        ({"heat": math.nan}, "heat must be above 0, not nan"),
        ({"share": 1}, "share must be at least 0 and below 1, not 1.0"),
        ({"minutes": 0}, "minutes must be above 0, not 0.0"),
        ({"kind": "sharp"}, "kind must be 'soft' or 'hard', not 'sharp'"),
        ({"kind": 3}, "kind must be 'soft' or 'hard', not 3"),
        ({"sure": 1}, "sure must be true or false, not 1"),
        ({"stages": (2,)}, "each of stages must be 1 or 4, not 2"),
        ({"stages": ()}, "stages must be one or more whole numbers (each 1 or 4), not ()"),
        ({"stages": 4}, "stages must be a tuple of whole numbers such as (1, 2), not 4"),
        ({"stages": (1.0,)}, "each of stages must be a whole number (1 or 4), not 1.0"),
        ({"ages": [1, 0]}, "each of ages must be at least 1, not 0"),
        ({"ages": "1"}, "ages must be a tuple of whole numbers such as (1, 2), not '1'"),
        ({"kind": "hard"}, "context must be 0 where kind is hard, not 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_told_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MethodError) as fault:
        Both(**changes)
    assert str(fault.value).startswith(words)
    assert len(str(fault.value)) < 200
    with pytest.raises(MethodError) as owned:
        changed(Both(), changes, "both")
    assert str(owned.value) == f"both: {fault.value}"


def test_values_are_stored_as_declared() -> None:
    config = Both(weight=1, stages=[4, 1], ages=[], minutes=3)  # type: ignore[arg-type]
    assert (config.stages, config.ages) == ((4, 1), ())
    assert [type(value) for value in (config.weight, config.minutes, config.radius)] == [float, float, int]
    assert Both(minutes=None).minutes is None


def test_changes_leave_the_configuration_as_it_is() -> None:
    config = Both()
    assert changed(config, {"radius": 5, "kind": "hard", "context": 0}, "both") == Both(
        radius=5, kind="hard", context=0
    )
    assert config == Both()
    assert changed(config, {}, "both") == config


def test_an_unknown_setting_suggests_the_closest() -> None:
    with pytest.raises(
        MethodError, match=r"unknown setting of both 'radios'; did you mean 'radius'\? \(choose from: ages"
    ):
        changed(Both(), {"radios": 5}, "both")
    with pytest.raises(MethodError) as fault:
        changed(Both(), {"x" * 5000: 5}, "both")
    assert len(str(fault.value)) < 250


def test_settings_are_listed_group_by_group_with_what_base_classes_say() -> None:
    listed = {each.name: each for each in settings_of(Both)}
    assert [(each.name, each.group) for each in listed.values()] == [
        ("stages", "lens"),
        ("weight", "lens"),
        ("kind", "lens"),
        ("corners", "lens"),
        *((name, "search") for name in ("radius", "heat", "share", "ages", "sure", "minutes")),
        ("context", "memory"),
    ]
    stages, radius = listed["stages"], listed["radius"]
    assert (stages.default, stages.meaning, stages.range, stages.kind, stages.many) == (
        (1,),
        "stages to take",
        "each 1 or 4",
        int,
        True,
    )
    assert (radius.default, radius.meaning, radius.range, radius.unit) == (3, "how far to look", "at least 1", "cells")
    assert setting_of(Both(), "radius", "both") == radius
    assert next(iter(settings_of(Lens))).range == "each 1, 2 or 3"


def test_a_class_without_a_group_has_that_of_its_first_base() -> None:
    @dataclass(frozen=True)
    class Wider(Search):
        more: int = setting(1, "more")

    assert settings_of(Wider)[-1].group == "search"


@pytest.mark.parametrize("value", [1, "a\nb" * 4000, 10**5000, (10**5000,), [0] * 9000], ids=lambda value: "")
def test_any_value_is_shown_on_one_short_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert "\n" not in shown(value)


def test_a_run_and_a_recipe_share_no_settings() -> None:
    recipes = {type(config) for config in CONFIGS if isinstance(config, Recipe)}
    of_recipes = {each.name for kind in recipes for each in settings_of(kind)}
    assert not {each.name for each in settings_of(TrainConfig)} & of_recipes


def test_settings_need_no_torch() -> None:
    homes = "vostrack.config, vostrack.refine.crf, vostrack.adapt.config, vostrack.train.settings"
    code = f"import sys, {homes}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
