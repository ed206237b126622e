"""`vostrack methods`: what can be given to --method."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from vostrack.cli.settings import as_text, limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from vostrack.config import Config
    from vostrack.weights import WeightsEntry

SCORES = {"J_480p": "J", "F_480p": "F", "s_per_frame_480p": "s/frame"}
"""Headings of the measurement that all methods have in common, by its keys in the manifest of the weights."""

ABOUT_SCORES = (
    "J and F: 13 of the 20 sequences of DAVIS-2016 validation, at 480p.\n"
    "Seconds a frame: one object at 854x480, two CPU cores."
)


def figures(entry: WeightsEntry | None) -> list[str]:
    """What was measured with some weights, a text for each heading of `SCORES`."""
    return [str(entry.scores.get(key, "-")) if entry else "-" for key in SCORES]


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show presets and settings: of a method, of `adaptation` or of `crf`.",
        ),
    ] = None,
) -> None:
    """List the methods, or the presets and settings of one.

    Examples:
        vostrack methods
        vostrack methods anchors
        vostrack methods adaptation
    """
    if name is not None:
        _print_settings(name)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vostrack.files import shown
    from vostrack.methods import DEFAULT, METHODS, method_class, registered
    from vostrack.weights import available

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("method", "weights", *SCORES.values()):
        table.add_column(heading, overflow="fold")
    table.add_column("paper")
    weights = available()
    for method in registered():
        own = next((entry for entry in weights if entry.method == method), None)
        label = f"{method} (default)" if method == DEFAULT else method
        paper = method_class(method).paper if method in METHODS else registered()[method]
        row = (label, own.name if own else "none", *figures(own), paper)
        table.add_row(*(Text(shown(text)) for text in row))
    console.print(table)
    console.print(ABOUT_SCORES)


def _print_settings(name: str) -> None:
    """What a method, or what runs beside it, can be set to, in use and in training."""
    from rich.console import Console

    from vostrack.errors import MethodError, unknown_name
    from vostrack.methods import method_class, registered

    console = Console(highlight=False)
    if name == "adaptation":
        from vostrack.adapt.config import PRESETS

        _print_all(console, "presets (--adapt-preset)", PRESETS, "--adapt-set")
        return
    if name == "crf":
        from vostrack.refine.crf import CrfConfig

        _print_all(console, "presets", {"default": CrfConfig()}, "--refine-set")
        return
    if name not in registered():
        raise MethodError(unknown_name("name", name, [*registered(), "adaptation", "crf"]))
    factory = method_class(name)
    console.print(f"{name}\npaper: {factory.paper}", markup=False)
    _print_all(console, "presets (--preset)", factory.presets)
    if factory.objective:
        console.print("\nvostrack train", style="bold")
        _print_all(console, "recipes (--recipe)", factory.objective.recipes)


def _print_all(console: Console, what: str, named: Mapping[str, Config], change: str = "--set") -> None:
    """Each setting of named configurations as it is typed after `change`: unit, range, other values and meaning."""
    from itertools import groupby

    from vostrack.config import settings_of

    wide = min(console.width, 100)
    default = named["default"]
    console.print(
        f"{what}: {', '.join(named)}\nsettings ({change} KEY=VALUE):{'' if settings_of(type(default)) else ' none'}",
        markup=False,
    )
    for group, settings in groupby(settings_of(type(default)), lambda each: each.group):
        if group:
            console.print(f"\n{group}", style="bold")
        for each in settings:
            values = {name: as_text(getattr(config, each.name)) for name, config in named.items()}
            others = [f"{name}: {text or 'empty'}" for name, text in values.items() if text != values["default"]]
            head = f"  {each.name}={values['default']}".ljust(30)
            notes = "; ".join(filter(None, (limits(each), *others)))
            console.print(fill(f"{head} {notes}", wide, subsequent_indent=" " * 31).rstrip(), markup=False)
            indent = " " * 6
            text = fill(each.meaning, wide, initial_indent=indent, subsequent_indent=indent)
            console.print(text, style="dim", markup=False)
