"""The contract of `methods.base`, held by every registered method with its shipped weights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract import Contract
from vostrack.methods import METHODS, load_method, method_class
from vostrack.methods.base import Method, in_parts
from vostrack.weights import RANDOM, available

# The quick tests take the default of each method.
VARIANTS = [
    pytest.param((name, preset), id=f"{name}-{preset}", marks=() if preset == "default" else pytest.mark.slow)
    for name in METHODS
    if not hasattr(method_class(name), "step")  # which stands in the place of the calls that this is about
    for preset in method_class(name).presets
]


@pytest.fixture(scope="module", params=VARIANTS)
def method(request: pytest.FixtureRequest) -> Method[Any]:
    name, preset = request.param
    own = any(entry.method == name for entry in available()) or not method_class(name).nets
    return in_parts(load_method(name, preset=preset, weights=None if own else RANDOM)[0])


class TestVariants(Contract):
    pass
