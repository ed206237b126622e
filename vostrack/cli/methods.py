"""`vostrack methods`: what can be given to --method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vostrack.weights import WeightsEntry


def methods(
    name: Annotated[str | None, typer.Argument(help="Show the presets and settings of this one.")] = None,
) -> None:
    """List the methods, or the presets and settings of one.

    [bold]Examples[/bold]

    vostrack methods

    vostrack methods anchors
    """
    from rich.console import Console
    from rich.table import Table

    from vostrack.methods import DEFAULT, METHODS, method_class, registered
    from vostrack.weights import available

    console = Console()
    if name is not None:
        _details(name)
        return
    table = Table()
    for heading in ("method", "paper", "weights", "licence"):
        table.add_column(heading, overflow="fold")
    for heading in ("J", "F", "s/frame"):
        table.add_column(heading, min_width=5)
    weights = available()
    for method in registered():
        own = next((entry for entry in weights if entry.method == method), None)
        label = f"{method} (default)" if method == DEFAULT else method
        paper = method_class(method).paper if method in METHODS else registered()[method]
        about = (own.name, own.licence) if own else ("none", "")
        table.add_row(label, paper, *about, *_scores(own))
    console.print(table)
    console.print("J and F: 13 of the 20 sequences of DAVIS-2016 validation, --size 240.")
    console.print("Seconds a frame: the same size, one thread of a shared CPU.")


def _scores(weights: WeightsEntry | None) -> list[str]:
    """What the manifest gives for the measurement that all methods have in common."""
    names = ("J_240p", "F_240p", "s_per_frame_240p")
    return [str(weights.scores.get(name, "-")) if weights else "-" for name in names]


def _details(name: str) -> None:
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    from vostrack.methods import method_class

    presets = method_class(name).presets
    table = Table(title=f"{name}: settings for --set, by --preset")
    table.add_column("setting")
    for preset in presets:
        table.add_column(preset)
    for field in dataclasses.fields(presets["default"]):
        values = [getattr(config, field.name) for config in presets.values()]
        table.add_row(field.name, *(_shown(value) for value in values))
    Console().print(table)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
