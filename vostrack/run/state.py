"""Saving and restoring the state of a run, whatever method it belongs to.

A state is a frozen dataclass of tensors, numbers, texts, tuples, None and other such dataclasses (`methods.base`).
Tensors go to safetensors, everything else to JSON in its metadata, with a hash of both and of the run that it belongs
to. What comes back is checked against the hash and the declared types, so that a damaged or foreign file raises.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from vostrack.errors import OutputError, damage_as
from vostrack.files import open_regular, parse_json, shown, write_bytes


def save_state(path: Path, state: Any, run: str = "") -> None:
    """Write a state of a run, which a text tells from others, whole or not at all; raises `OutputError`."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "state", tensors))
    tensors = _apart(tensors)
    write_bytes(path, save(tensors, {"tree": tree, "sha256": _digest(run, tree, tensors)}))


def load_state(path: Path, kind: Any, run: str = "") -> Any:
    """Read a state.

    Args:
        path: as given to `save_state`.
        kind: the declared type, e.g. a dataclass or `AnchorsState | None`.
        run: as given to `save_state`.

    Returns:
        An object of that type, tensors on the CPU.

    Raises:
        OutputError: the file is damaged, or holds something else or of another run.
    """

    def refusal(error: Exception) -> OutputError:
        return OutputError(f"{shown(path)} cannot be resumed from ({shown(error)}): start again with `overwrite=True`")

    with damage_as(refusal):
        open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            # Copies lie at addresses such as those of the run that was saved: products may differ with them.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            told = file.metadata()
        if told["sha256"] != _digest(run, told["tree"], tensors):
            raise ValueError("it is damaged, or of another run")
        return _unpack(parse_json(told["tree"]), kind, tensors)


def _digest(run: str, tree: str, tensors: dict[str, Tensor]) -> str:
    """Hash of all that a state is, and of the run that it belongs to."""
    stored = sorted(tensors.items())
    told = [run, tree, [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in stored]]
    hashed = hashlib.sha256(json.dumps(told).encode())
    for _, tensor in stored:
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own: safetensors refuses views of one another."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        memory = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if memory in seen else whole
        seen.add(memory)
    return apart


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # A tensor that stands in two places is stored once, and stands in two places again when it is loaded.
        known = [key for key, stored in tensors.items() if stored is value]
        tensors.setdefault(known[0] if known else name, value)
        return known[0] if known else name
    if dataclasses.is_dataclass(value):
        return {f.name: _pack(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a state must not hold")


def _unpack(tree: Any, kind: Any, tensors: dict[str, Tensor]) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if tree is None:
            return None
        (kind,) = (option for option in typing.get_args(kind) if option is not type(None))
        return _unpack(tree, kind, tensors)
    if kind is Tensor:
        return tensors[tree]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(tree, dict) or set(tree) != set(hints):
            raise TypeError(f"not a {getattr(kind, '__name__', kind)}")
        return typing.cast(Any, kind)(**{key: _unpack(tree[key], hints[key], tensors) for key in hints})
    if origin is tuple:
        if not isinstance(tree, list):
            raise TypeError(f"expected a list, found {type(tree).__name__}")
        items = typing.get_args(kind)
        kinds = items[:1] * len(tree) if items[1:] == (...,) else items
        return tuple(_unpack(entry, item, tensors) for entry, item in zip(tree, kinds, strict=True))
    if kind is float and type(tree) is int:
        return float(tree)
    if not isinstance(tree, kind) or (isinstance(tree, bool) and kind is not bool):
        raise TypeError(f"expected {kind.__name__}, found {type(tree).__name__}")
    return tree
