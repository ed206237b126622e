"""Options given as text, "radius=8", become fields of a frozen configuration dataclass.

Knows nothing of what is configured, but for the name to put into errors.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from vostrack.errors import MethodError, unknown_name

C = TypeVar("C")


def with_options(config: C, options: Mapping[str, str], owner: str) -> C:
    """A configuration with some fields changed.

    Args:
        config: a frozen dataclass.
        options: fields to change, as text: "12", "0.05", "true", "1,2,3".
        owner: what is configured, for errors.

    Raises:
        MethodError: an unknown option, or a value of the wrong kind or out of range.
    """
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, text in options.items():
        if key not in hints:
            raise MethodError(unknown_name(f"option of {owner}", key, hints))
        changes[key] = _parse(owner, key, text, hints[key])
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise MethodError(f"{owner}: {error}") from error


def _parse(owner: str, key: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if typing.get_origin(kind) is tuple:
            return tuple(int(part) for part in text.split(",") if part.strip())
    except (ValueError, KeyError):
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "numbers separated by commas")
    raise MethodError(f"option {key} of {owner} must be {wanted}, not {text!r}")
