"""`vostrack weights`: which weights there are and whether they are whole, and `vostrack weights join`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.help import Command, DefaultGroup

app = typer.Typer(name="weights", cls=DefaultGroup)


@app.callback()
def weights() -> None:
    """List the weights and the folders that are searched for them: `vostrack weights`, with the options of `list`.

    Examples:
        vostrack weights --verify
        vostrack weights runs/anchors/anchors.safetensors
        vostrack weights join anchors.safetensors mast-mem.safetensors out.safetensors
    """


@app.command("list", cls=Command)
def list_(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Show what this weights file says of itself.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the size and hash of every file.")] = False,
) -> None:
    """List the weights and the folders that are searched for them, in order.

    Examples:
        vostrack weights
        vostrack weights list runs/anchors/anchors.safetensors
    """
    import json

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vostrack.files import shown
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
        scores = "\n".join(shown(f"{key} {value:g}") for key, value in entry.scores.items())
        told = (entry.name, entry.method, entry.licence, f"{entry.bytes / 1e6:.1f}", entry.sha256[:12])
        table.add_row(*(Text(shown(text)) for text in told), Text(scores))
    console.print(table)
    console.print("searched, in this order:", highlight=False)
    for folder in search_path():
        console.print(f"  {shown(folder)}", highlight=False, markup=False, soft_wrap=True)
    if verify:
        console.print("all files are whole")


@app.command("join", cls=Command)
def join(
    parts: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A weights file of each method, then the file to write.")
    ],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="Whose weights to make.")] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
) -> None:
    """Make the weights of `best` from those of the methods whose networks it has.

    Examples:
        vostrack weights join anchors.safetensors mast-mem.safetensors out.safetensors
    """
    from vostrack.errors import OutputExistsError
    from vostrack.files import shown
    from vostrack.methods import build_net, method_class
    from vostrack.weights import join as join_weights
    from vostrack.weights import save_weights

    *files, out = parts
    adopts = method_class(method).adopts
    if len(files) != len(adopts):
        raise typer.BadParameter(
            f"expected a file for each of {', '.join(adopts) or 'no method'}, then the file to write"
        )
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{shown(out)} is there already: choose another name, or --overwrite")
    net = build_net(method)
    save_weights(net, method, out, join_weights(net, method, files, adopts))
    print(f"weights: {shown(out)}", file=sys.stderr)
