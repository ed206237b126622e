from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vostrack.cli.settings import as_text, parse_settings
from vostrack.config import Config, changed, setting
from vostrack.errors import MethodError


@dataclass(frozen=True)
class Sample(Config):
    edge_radius: int = setting(4, "half a side", low=0, high=64, unit="pixels")
    scale: float = setting(40.0, "weight of scores", above=0)
    soft: bool = setting(True, "whether it is soft")
    stages: tuple[int, ...] = setting((1, 2), "stages to take", choices=(1, 2, 3), empty=True)
    sides: tuple[float, ...] = setting((0.5,), "sides to cut", above=0)
    precision: str = setting("auto", "bits of numbers", choices=("auto", "32"))
    start: str = setting("", "weights to start from")


def parsed(*pairs: str) -> dict[str, Any]:
    return parse_settings(pairs, Sample(), "sample", "--set")


def test_text_becomes_what_is_declared() -> None:
    assert parsed() == {}
    assert parsed("edge-radius=8", "scale = 2e1", "soft=No", "stages=3, 1,", "sides=0.5,1", "precision=32") == {
        "edge_radius": 8,
        "scale": 20.0,
        "soft": False,
        "stages": (3, 1),
        "sides": (0.5, 1.0),
        "precision": "32",
    }
    assert parsed("stages=", "start=", "start=a=b") == {"stages": (), "start": "a=b"}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("edge_radius", "expected KEY=VALUE, not 'edge_radius'"),
        ("", "expected KEY=VALUE, not ''"),
        ("=3", "unknown setting of sample ''"),
        ("edge_radios=3", "unknown setting of sample 'edge_radios'; did you mean 'edge_radius'?"),
        ("edge_radius=", "edge_radius must be a whole number (0 to 64), not ''"),
        ("edge_radius=1.5", "edge_radius must be a whole number (0 to 64), not '1.5'"),
        ("edge_radius=65", "edge_radius must be from 0 to 64, not 65"),
        ("edge_radius=" + "9" * 5000, "edge_radius must be a whole number (0 to 64), not '999"),
        ("scale=nan", "scale must be above 0, not nan"),
        ("scale=" + "9" * 5000, "scale must be finite, not inf"),
        ("scale=fast", "scale must be a number (above 0), not 'fast'"),
        ("soft=maybe", "soft must be true or false, not 'maybe'"),
        ("stages=1,b", "stages must be whole numbers (each 1, 2 or 3), separated by commas, not '1,b'"),
        ("stages=4", "each of stages must be 1, 2 or 3, not 4"),
        ("sides=", "sides must be one or more numbers (each above 0), separated by commas, not ''"),
        ("precision=16", "precision must be 'auto' or '32', not '16'"),
        ("x" * 5000, "expected KEY=VALUE, not 'xxx"),
        ("x" * 5000 + "=1", "unknown setting of sample 'xxx"),
    ],
    ids=lambda value: value[:20],
)
def test_a_fault_names_flag_setting_and_range_in_one_line(pair: str, words: str) -> None:
    with pytest.raises(MethodError) as fault:
        parse_settings([pair], Sample(), "sample", "--adapt-set")
    assert str(fault.value).startswith(f"--adapt-set: {words}")
    assert len(str(fault.value).splitlines()) == 1
    assert len(str(fault.value)) < 250


@given(st.text())
def test_no_text_is_taken_in_silence_or_breaks_it(text: str) -> None:
    for name in ("edge_radius", "scale", "soft", "stages", "sides", "precision"):
        try:
            values = parsed(f"{name}={text}")
        except MethodError:
            continue
        assert vars(changed(Sample(), values, "sample")).items() >= values.items()


@given(st.builds(Sample, st.integers(0, 64), st.sampled_from([1e-05, 0.25, 40.0, 1e20]), st.booleans()))
def test_values_as_text_are_read_back(config: Sample) -> None:
    pairs = [f"{name}={as_text(value)}" for name, value in vars(config).items()]
    assert changed(Sample(), parsed(*pairs), "sample") == config
