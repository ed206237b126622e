from __future__ import annotations

import copy

import pytest

from vostrack.errors import (
    ChangedError,
    ExportError,
    InputError,
    MaskError,
    PlanError,
    damage_as,
    one_line,
    unknown_name,
)


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


def test_too_little_memory_is_said_with_what_to_do() -> None:
    assert one_line(MemoryError()).startswith("out of memory: use a smaller `size`")
    assert one_line(ValueError("a\n b")) == "a b"
    assert one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    "error", [InputError("no"), ChangedError("no", "size", True), ExportError("no", 5), PlanError(["no", "not so"])]
)
def test_errors_go_from_process_to_process(error: Exception) -> None:
    again = copy.copy(error)  # as `pickle` does it
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_name_is_meant_in_any_case() -> None:
    said = "unknown format 'COCO'; did you mean 'coco'? (choose from: coco, cvat)"
    assert unknown_name("format", "COCO", ("cvat", "coco")) == said
    assert unknown_name("format", "xyz", ("cvat", "coco")) == "unknown format 'xyz' (choose from: coco, cvat)"
