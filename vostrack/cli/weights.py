"""`vostrack weights`: which weights there are, where they are looked for, and whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def weights(
    file: Annotated[Path | None, typer.Argument(help="Show what this weights file says of itself.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the size and hash of every file.")] = False,
) -> None:
    """List the weights and the folders that are searched for them, in order.

    [bold]Examples[/bold]

    vostrack weights --verify

    vostrack weights runs/anchors/anchors.safetensors
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from vostrack.weights import available, check, read_details, search_path

    if file is not None:
        print(json.dumps(read_details(file), indent=2))
        return
    console = Console()
    table = Table()
    for heading in ("name", "method", "licence", "MB", "SHA-256", "scores"):
        table.add_column(heading, overflow="fold")
    for entry in available():
        if verify:
            check(entry)
        scores = "\n".join(f"{key} {value:g}" for key, value in entry.scores.items())
        table.add_row(entry.name, entry.method, entry.licence, f"{entry.bytes / 1e6:.1f}", entry.sha256[:12], scores)
    console.print(table)
    console.print("searched, in this order:", highlight=False)
    for folder in search_path():
        console.print(f"  {folder}", highlight=False, markup=False, soft_wrap=True)
    if verify:
        console.print("all files are whole")
