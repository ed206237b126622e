from __future__ import annotations

import pytest

from tests.adapt.clips import narrow_net


@pytest.fixture
def small_adaptation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptations train a network so narrow that a step takes no time."""
    narrow_net(monkeypatch)
