from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from vostrack.errors import OutputError
from vostrack.run.state import load_state, save_state


@dataclass(frozen=True)
class Bank:
    keys: Tensor
    filled: int = 0


@dataclass(frozen=True)
class State:
    banks: tuple[Bank, ...]
    first: Bank | None
    last: Bank | None
    pair: tuple[Tensor, int]
    scale: float
    name: str
    done: bool
    empty: tuple[int, ...] = ()


def example() -> State:
    keys = torch.arange(24.0).reshape(2, 3, 4)
    shared = Bank(keys, 2)
    odd = torch.tensor([float("nan"), float("inf"), -0.0])
    pair = (torch.ones(3, dtype=torch.bool), 7)
    return State((shared, Bank(keys.permute(2, 0, 1), 1), Bank(odd)), shared, None, pair, 0.1, "é\n", True)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and equal(tuple(vars(one).values()), tuple(vars(other).values()))
    return bool(one == other) and type(one) is type(other)


def refusal(path: Path, kind: Any) -> str:
    with pytest.raises(OutputError) as caught:
        load_state(path, kind)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "`overwrite=True`" in message
    return message


def test_everything_that_a_state_may_hold_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "state", example())
    assert equal(load_state(tmp_path / "state", State), example())


def test_a_tensor_in_two_places_stays_one(tmp_path: Path) -> None:
    save_state(tmp_path / "state", example())
    loaded = load_state(tmp_path / "state", State)
    loaded.banks[0].keys[0] = -1.0
    assert torch.equal(loaded.first.keys, loaded.banks[0].keys)
    assert (tmp_path / "state").stat().st_size < 2_000


def test_views_of_one_another_are_saved(tmp_path: Path) -> None:
    keys = torch.arange(24.0).reshape(2, 12)
    state = (Bank(keys), Bank(keys[:1]), Bank(keys[1:]), Bank(keys.view(24)))
    save_state(tmp_path / "state", state)
    assert equal(load_state(tmp_path / "state", tuple[Bank, ...]), state)


def test_none_and_the_empty_state_come_back(tmp_path: Path) -> None:
    for value in (None, example()):
        save_state(tmp_path / "state", value)
        assert equal(load_state(tmp_path / "state", State | None), value)


def test_a_whole_number_may_stand_for_a_real_one_but_truth_for_neither(tmp_path: Path) -> None:
    save_state(tmp_path / "state", (3,))
    assert load_state(tmp_path / "state", tuple[float, ...]) == (3.0,)
    save_state(tmp_path / "state", (True,))
    refusal(tmp_path / "state", tuple[int, ...])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, str),
        ("3", int),
        (None, int),
        ("name", Tensor),
        ("name", tuple[str, ...]),
        ((1, 2), tuple[int]),
        ((1, "2"), tuple[int, ...]),
        (Bank(torch.ones(2)), State),
        (torch.ones(2), Bank),
        (None, Bank),
    ],
)
def test_another_kind_of_state_is_refused(tmp_path: Path, value: Any, kind: Any) -> None:
    save_state(tmp_path / "state", value)
    refusal(tmp_path / "state", kind)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "state", example())
    data = (tmp_path / "state").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut").write_bytes(data[:length])
        refusal(tmp_path / "cut", State)


def test_a_damaged_file_is_refused_or_gives_a_state_of_the_right_type(tmp_path: Path) -> None:
    save_state(tmp_path / "state", example())
    data = (tmp_path / "state").read_bytes()
    for position in range(0, len(data), 5):
        broken = bytearray(data)
        broken[position] ^= 0x55
        (tmp_path / "broken").write_bytes(broken)
        with contextlib.suppress(OutputError):
            assert isinstance(load_state(tmp_path / "broken", State), State)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "missing", State)
    (tmp_path / "text").write_text("hello")
    refusal(tmp_path / "text", State)
    (tmp_path / "bare").write_bytes(save({"x": torch.ones(1)}))
    refusal(tmp_path / "bare", State)
    for tree in ("[]", "{", json.dumps({"keys": ["x"], "filled": 0}), json.dumps({"keys": "y", "filled": 0})):
        (tmp_path / "tree").write_bytes(save({"x": torch.ones(1)}, {"tree": tree}))
        refusal(tmp_path / "tree", Bank)


def test_what_a_state_must_not_hold_is_a_fault_of_the_method(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.keys is a list"):
        save_state(tmp_path / "state", Bank([1]))  # type: ignore[arg-type]
    assert not (tmp_path / "state").exists()
