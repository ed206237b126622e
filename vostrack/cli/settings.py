"""Settings as text: "KEY=VALUE" becomes a typed value, frames and times too, and a declared setting becomes words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import typer

from vostrack.config import Config, Setting, setting_of, shown
from vostrack.errors import MethodError
from vostrack.methods import WORKING_SIZE, check_preset, configure

Pairs = Sequence[str] | None

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_size(text: str, option: str = "--size") -> int | None:
    """The short side in pixels, as an option gives it; None for "full"."""
    if text == "full":
        return None
    try:
        return int(WORKING_SIZE.checked(int(text)))
    except (ValueError, MethodError):
        raise typer.BadParameter(
            f"expected a number of pixels from {WORKING_SIZE.range}, or full", param_hint=option
        ) from None


def parse_names(texts: Sequence[str] | None) -> dict[int | tuple[int, int, int] | str, str]:
    """Names by colour, number or file, in order, from `dog=#ff0000`, `dog=white`, `cat=2` or `cat=left.png`."""
    names: dict[int | tuple[int, int, int] | str, str] = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        if not name.strip() or not value.strip():
            raise typer.BadParameter(
                f"expected NAME=COLOUR or NAME=ID, such as dog=#ff0000 or cat=2, found {text!r}", param_hint="--name"
            )
        painted = _color(value.strip())
        key = value.strip() if painted is None else painted
        if names.setdefault(key, name.strip()) != name.strip():
            raise typer.BadParameter(f"{value!r} has two names, {names[key]!r} and {name!r}", param_hint="--name")
    return names


def parse_color(text: str | None) -> int | tuple[int, int, int] | None:
    """A number or a colour: `128`, `68,1,84`, `white`, `#440154`, the last also without #, which a shell may drop."""
    color = None if text is None else _color(text)
    if text is not None and color is None:
        raise typer.BadParameter(
            "expected a colour such as white, 68,1,84 or #440154, or a number from 0 to 255", param_hint="--background"
        )
    return color


def _color(text: str) -> int | tuple[int, int, int] | None:
    from PIL import ImageColor

    try:
        if re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3},[0-9]{1,3})?", text):
            levels = [int(level) for level in text.split(",")]
        else:
            digits = re.fullmatch(r"[0-9a-fA-F]{6}", text)
            levels = list(ImageColor.getrgb(f"#{text}" if digits else text)[:3])
        if max(levels) > 255:
            return None
    except ValueError:
        return None
    return levels[0] if len(levels) == 1 else (levels[0], levels[1], levels[2])


def parse_object(text: str) -> int | str:
    """An id, or a name."""
    return int(text) if text.isdecimal() and len(text) < 10 else text


def parse_objects(text: str | None) -> list[int | str]:
    """Ids and names, separated by commas: `dog, 2`."""
    return [parse_object(part.strip()) for part in (text or "").split(",") if part.strip()]


def parse_gone(texts: Pairs) -> dict[int | str, list[tuple[int, int | None]]]:
    """When objects are not there, by id or name, from `dog@131-160`, `dog@131-`, `dog@-79` or `dog@131`."""
    gone: dict[int | str, list[tuple[int, int | None]]] = {}
    for text in texts or ():
        match = re.fullmatch(r"(.+)@(\d{0,9})(?:(-)(\d{0,9}))?", text, re.ASCII | re.DOTALL)
        if match is None or not (match[2] or match[4]):
            raise typer.BadParameter(
                f"expected OBJECT@FIRST-LAST, such as dog@131-160, dog@131- or 2@-79, not {shown(text)}",
                param_hint="--gone",
            )
        name, first, dash, last = match.groups()
        until = int(last) if last else None if dash else int(first)
        gone.setdefault(parse_object(name), []).append((int(first or 0), until))
    return gone


def parse_moment(text: str) -> int | Fraction | None:
    """A frame as `40`, or a time as `12.5s` or `00:00:12.5`, in seconds; None for anything else."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    if time := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", text):
        return Fraction(time[1])
    if time := re.fullmatch(r"([0-9]{1,4}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]{1,9})?)", text):
        return (int(time[1]) * 60 + int(time[2])) * 60 + Fraction(time[3])
    return None


def parse_range(text: str | None) -> tuple[int | Fraction | None, int | Fraction | None] | None:
    """First and last frame, or the times between which frames appear: `40-60`, `40-`, `-60`, `40`, `1.5s-4s`."""
    if text is None:
        return None
    first, dash, last = text.partition("-")
    ends = [parse_moment(end) for end in (first, last if dash else first)]
    open_ends = [not end for end in (first, last if dash else first)]
    if all(open_ends) or any(end is None and not is_open for end, is_open in zip(ends, open_ends, strict=True)):
        raise typer.BadParameter(
            f"expected frames such as 40-60, 40-, -60 or 40, or times such as 1.5s-4s or 00:00:01.5-, found {text!r}",
            param_hint="--range",
        )
    return ends[0], ends[1]


def parse_rate(text: str | None) -> Fraction | None:
    """Frames a second: `25`, `23.976`, `24000/1001`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([0-9]{1,9}))?", text)
    if match is None or not int(match[2] or 1):
        raise typer.BadParameter(f"expected a rate such as 25 or 24000/1001, found {text!r}", param_hint="--fps")
    return Fraction(match[1]) / int(match[2] or 1)


def parse_all_settings(
    method: str,
    preset: str,
    settings: Pairs,
    adapt: str | None,
    adapt_preset: str,
    adapt_settings: Pairs,
    refine: str | None,
    refine_settings: Pairs,
    flags: tuple[str, str, str] = ("--set", "--adapt-set", "--refine-set"),
) -> dict[str, dict[str, Any]]:
    """Settings of a method, an adaptation and a refinement, under the names that `PipelineConfig` has for them."""
    from vostrack.adapt.config import AdaptConfig, adaptation_config
    from vostrack.refine.crf import CrfConfig

    adaptation = adaptation_config(adapt, adapt_preset) or AdaptConfig()
    check_preset(method, preset)
    return {
        "settings": parse_settings(settings, configure(method, preset), method, flags[0]) if settings else {},
        "adapt_settings": parse_settings(adapt_settings or (), adaptation, "adaptation", flags[1]),
        "refine_settings": parse_settings(refine_settings or (), CrfConfig(), refine or "crf", flags[2]),
    }


def parse_settings(pairs: Sequence[str], config: Config, owner: str, flag: str) -> dict[str, Any]:
    """Typed values by name.

    Args:
        pairs: "KEY=VALUE"; keys may be spelled with hyphens, elements of a tuple are separated by commas.
        config: what the values are settings of.
        owner: what is configured, for errors.
        flag: option that the pairs were given with, for errors.

    Raises:
        MethodError: no pair, an unknown setting, or a value of the wrong kind or out of range.
    """
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        try:
            if not equals:
                raise MethodError(f"expected KEY=VALUE, not {shown(pair)}")
            known = setting_of(config, key.strip().replace("-", "_"), owner)
            values[known.name] = known.checked(_parsed(known, text.strip()))
        except MethodError as error:
            raise MethodError(f"{flag}: {error}") from error
    return values


def _parsed(known: Setting, text: str) -> Any:
    kind = (lambda part: TRUTH[part.lower()]) if known.kind is bool else known.kind
    try:
        if known.many:
            parts = [part for part in text.split(",") if part.strip()]
            if not parts and not known.empty:
                raise ValueError
            return tuple(kind(part.strip()) for part in parts)
        return kind(text)
    except (KeyError, ValueError) as error:
        listed = ", separated by commas" if known.many else ""
        raise MethodError(f"{known.name} must be {known.expected}{listed}, not {shown(text)}") from error


def as_text(value: Any) -> str:
    """A value as it is typed after "KEY="."""
    if isinstance(value, tuple):
        return ",".join(map(as_text, value))
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return str(value).lower() if isinstance(value, bool) else str(value)


def sentence(known: Setting) -> str:
    """Meaning, unit and range for a help page: "Clips in a step (at least 1)."."""
    text = known.meaning[0].upper() + known.meaning[1:]
    return f"{text} ({limits(known)})." if limits(known) else f"{text}."


def limits(known: Setting) -> str:
    """Unit and range: "cells, at least 1"."""
    return ", ".join(filter(None, (known.unit, known.range)))
