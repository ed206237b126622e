"""`vostrack methods`: what can be given to --method."""

from __future__ import annotations

from typing import Annotated

import typer


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
    for heading in ("method", "paper", "weights", "licence", "trained on"):
        table.add_column(heading, overflow="fold")
    weights = available()
    for method in registered():
        own = next((entry for entry in weights if entry.method == method), None)
        label = f"{method} (default)" if method == DEFAULT else method
        paper = method_class(method).paper if method in METHODS else registered()[method]
        table.add_row(label, paper, *((own.name, own.licence, own.trained_on) if own else ("none", "", "")))
    console.print(table)


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
