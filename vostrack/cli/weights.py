"""`vostrack weights`: which weights there are, where they are looked for, and whether they are whole."""

from __future__ import annotations

from typing import Annotated

import typer


def weights(
    verify: Annotated[bool, typer.Option("--verify", help="Check the size and hash of every file.")] = False,
) -> None:
    """List the weights and the folders that are searched for them, in order.

    [bold]Example[/bold]

    vostrack weights --verify
    """
    from rich.console import Console
    from rich.table import Table

    from vostrack.weights import available, check, search_path

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
