"""A setting once: its default, range, unit and meaning stand where it is declared, and one check reads them.

    @dataclass(frozen=True)
    class FeatureConfig(Config, group="features"):
        colour: float = setting(3.0, "weight of the colours beside the stages; 0 leaves them out", low=0)

Command line and pages are made from `settings_of`. Knows nothing of what is configured, and imports no torch.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from vostrack.errors import MethodError, unknown_name

T = TypeVar("T")
C = TypeVar("C", bound="Config")

_TUPLE = {int: "(1, 2)", float: "(0.5, 1.0)", str: "('a', 'b')"}
_ONE = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_MANY = {int: "whole numbers", float: "numbers", str: "words"}
_LARGEST = 2**63 - 1
"""Whole numbers go into tensors, which have 64 bits for them."""


def setting(default: T, meaning: str | None = None, **declared: Any) -> T:
    """Declare a field of a `Config`. What a subclass leaves out is as its base classes declare it.

    Args:
        default: its value where none is given.
        meaning: what it does, for people.
        declared: low, high, above, below, choices, empty, unit and group, as `Setting` explains them.
    """
    return field(default=default, metadata=declared if meaning is None else {"meaning": meaning, **declared})


@dataclass(frozen=True)
class Setting:
    """A setting as it was declared. Ranges and choices hold for each element of a tuple.

    Attributes:
        name: of the field.
        kind: bool, int, float or str; of its elements, where it is a tuple.
        many: whether it is a tuple.
        optional: whether it may be None.
        default: its value where none is given.
        meaning: what it does, for people.
        low, high: the smallest value and the largest.
        above, below: what it has to exceed, and what to stay below.
        choices: all values there are.
        empty: whether a tuple may be empty; it must not unless this says so.
        unit: what a number counts, e.g. "pixels".
        group: what it is listed under; that of its class where it declares none.
    """

    name: str
    kind: type[Any]
    many: bool
    optional: bool
    default: Any
    meaning: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Sequence[Any] = ()
    empty: bool = False
    unit: str = ""
    group: str = ""

    @property
    def range(self) -> str:
        """The values that it takes: "0 to 1", "at least 1", "4 or 8"; empty where its kind says it all."""
        if self.choices:
            text = _alternatives(map(str, self.choices))
        elif self.low is not None and self.high is not None:
            text = f"{self.low} to {self.high}"
        else:
            ends = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
            text = " and ".join(f"{word} {end}" for word, end in ends.items() if end is not None)
        return f"each {text}" if self.many and text else text

    @property
    def expected(self) -> str:
        """What it takes, in words: "a whole number (at least 1)"."""
        if not self.many:
            return self._one
        words = f"{'' if self.empty else 'one or more '}{_MANY[self.kind]}"
        return f"{words} ({self.range})" if self.range else words

    @property
    def _one(self) -> str:
        """What it takes, or what each of its elements has to be."""
        if self.kind is str and self.choices:
            return _alternatives(map(repr, self.choices))
        limits = self.range.removeprefix("each ")
        return f"{_ONE[self.kind]} ({limits})" if limits else _ONE[self.kind]

    def checked(self, value: Any) -> Any:
        """A value as the configuration stores it.

        Raises:
            MethodError: it is of another kind, or out of range.
        """
        if not self.many:
            return None if self.optional and value is None else self._checked(value)
        if not isinstance(value, list | tuple):
            wanted = f"a tuple of {_MANY[self.kind]} such as {_TUPLE[self.kind]}"
            raise MethodError(f"{self.name} must be {wanted}, not {shown(value)}")
        if not (value or self.empty):
            raise self._refusal(self.expected, value)
        return tuple(self._checked(element) for element in value)

    def _checked(self, value: Any) -> Any:
        if isinstance(value, Integral) and not isinstance(value, bool) and -_LARGEST <= int(value) <= _LARGEST:
            value = self.kind(value) if self.kind in (int, float) else value  # numbers of numpy are as good
        elif self.kind is float and isinstance(value, Real) and not isinstance(value, bool | Integral):
            value = float(value)
        if not isinstance(value, self.kind) or (self.kind is int and isinstance(value, bool)):
            raise self._refusal(self._one, value)
        if not self._is_within(value):
            bounded = self.low is not None and self.high is not None and not self.choices
            limits = self.range.removeprefix("each ") if self.kind is not str else self._one
            raise self._refusal(f"from {limits}" if bounded else limits, value)
        if self.kind is float and not math.isfinite(value):
            raise self._refusal("finite", value)
        if self.kind is int and abs(value) > _LARGEST:
            raise self._refusal("of 64 bits at most", value)
        return value

    def _is_within(self, value: Any) -> bool:
        return (
            (not self.choices or value in self.choices)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _refusal(self, expected: str, value: object) -> MethodError:
        subject = f"each of {self.name}" if self.many and not isinstance(value, list | tuple) else self.name
        return MethodError(f"{subject} must be {expected}, not {shown(value)}")


def _alternatives(words: Iterable[str]) -> str:
    """ "1, 2 or 3"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class Config:
    """Base of all configurations: frozen dataclasses whose fields are declared by `setting`.

    Attributes:
        group: what the fields of a class are listed under: `class FeatureConfig(Config, group="features")`.
    """

    group: ClassVar[str] = ""

    def __init_subclass__(cls, group: str | None = None) -> None:
        """Without a group, the class has that of its first base class."""
        cls.group = cls.group if group is None else group

    def __post_init__(self) -> None:
        """Refuse values that make no sense; raises `MethodError`."""
        for declared in settings_of(type(self)):
            object.__setattr__(self, declared.name, declared.checked(getattr(self, declared.name)))
        self.check()

    def check(self) -> None:
        """Raise `MethodError` where values do not go together; each by itself is of its kind and within its range."""


def settings_of(kind: type[Config]) -> tuple[Setting, ...]:
    """The settings of a class of configurations, group by group."""
    return _settings_of(kind)  # type: ignore[arg-type]  # mypy takes the class for an instance, and asks for its hash


@cache
def _settings_of(kind: type[Config]) -> tuple[Setting, ...]:
    declared: dict[str, dict[str, Any]] = {}
    for base in (base for base in reversed(kind.__mro__) if issubclass(base, Config)):
        for each in fields(base):
            declared.setdefault(each.name, {"group": base.group}).update(each.metadata)
    hints, found = typing.get_type_hints(kind), []
    for each in fields(kind):
        one, *others = typing.get_args(hints[each.name]) or (hints[each.name],)  # of tuple[int, ...] and int | None
        many, optional = ... in others, type(None) in others
        found.append(Setting(each.name, one, many, optional, each.default, **declared[each.name]))
    groups = list(dict.fromkeys(each.group for each in found))
    return tuple(sorted(found, key=lambda each: groups.index(each.group)))


def setting_of(config: Config, name: str, owner: str) -> Setting:
    """The setting of a name; raises `MethodError` where there is none."""
    known = {each.name: each for each in settings_of(type(config))}
    if name not in known:
        raise MethodError(unknown_name(f"setting of {owner}", name, known))
    return known[name]


def changed(config: C, changes: Mapping[str, Any], owner: str) -> C:
    """A configuration with some settings changed.

    Args:
        config: what to change.
        changes: values by name.
        owner: what is configured, for errors.

    Raises:
        MethodError: an unknown setting, a value of the wrong kind or out of range, or values that do not go together.
    """
    for name in changes:
        setting_of(config, name, owner)
    try:
        return replace(config, **changes)
    except MethodError as error:
        raise MethodError(f"{owner}: {error}") from error


def shown(value: object) -> str:
    """A value for an error: on one line, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:56]} ..."
