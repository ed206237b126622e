from __future__ import annotations

import pytest

from vostrack.errors import InputError, MaskError, damage_as


def test_what_a_decoder_raises_becomes_one_error() -> None:
    with (
        pytest.raises(InputError, match="damaged: too short"),
        damage_as(lambda error: InputError(f"damaged: {error}")),
    ):
        raise IndexError("too short")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MaskError("empty")]
)
def test_too_little_memory_and_what_is_meant_are_no_damage(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, damage_as(InputError, MaskError):
        raise error
    assert raised.value is error
