"""`vostrack weights`: which weights there are and whether they are whole; `weights join` and `weights convert`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vostrack.cli.console import say_next
from vostrack.cli.help import Command, DefaultGroup
from vostrack.cli.methods import ABOUT_SCORES, SCORES, figures

app = typer.Typer(name="weights", cls=DefaultGroup)


@app.callback()
def weights() -> None:
    """List, check, join or convert weights.

    Examples:
        vostrack weights --verify
        vostrack weights runs/anchors/anchors.safetensors
        vostrack weights join anchors.safetensors mast-mem.safetensors out.safetensors
        vostrack weights convert cutie-base-mega.pth

    `list` may be left out.
    """


@app.command("list", cls=Command)
def list_(
    which: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name or file of weights to show in full.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the size and hash of every file.")] = False,
) -> None:
    """List the weights and the folders that are searched for them, in order.

    Examples:
        vostrack weights
        vostrack weights list runs/anchors/anchors.safetensors
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vostrack.files import shown
    from vostrack.weights import available, check, search_path

    if which is not None:
        _print_details(which)
        return
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("name", "method", "licence", "MB", "SHA-256", *SCORES.values()):
        table.add_column(heading, overflow="fold")
    for entry in available():
        if verify:
            check(entry)
        told = (entry.name, entry.method, entry.licence, f"{entry.bytes / 1e6:.1f}", entry.sha256[:12], *figures(entry))
        table.add_row(*(Text(shown(text)) for text in told))
    console.print(table)
    console.print(f"{ABOUT_SCORES}\nAll that is known of one: vostrack weights NAME.")
    console.print("searched, in this order:", highlight=False)
    for folder in search_path():
        console.print(f"  {shown(folder)}", highlight=False, markup=False, soft_wrap=True)
    if verify:
        console.print("all files are whole")


def _print_details(which: str) -> None:
    """Print what the manifest says of weights with a name, or what a file says of itself, as JSON."""
    from dataclasses import asdict

    from vostrack.cli.benchmark_tables import print_json
    from vostrack.errors import WeightsError, unknown_name
    from vostrack.weights import available, read_details

    entries, file = available(), Path(which)
    named = next((entry for entry in entries if entry.name == which), None)
    if named is None and not file.exists():
        raise WeightsError(unknown_name("weights", which, [entry.name for entry in entries]))
    if named is None or file.is_file():
        print_json(read_details(file))
    else:
        print_json(asdict(named) | {"folder": str(named.folder), "path": str(named.path)})


@app.command("join", cls=Command)
def join(
    parts: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A weights file of each method, then the file to write.")
    ],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="Whose weights to make.")] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
) -> None:
    """Make the weights of `best` from those of the methods whose networks it uses.

    Examples:
        vostrack weights join anchors.safetensors mast-mem.safetensors out.safetensors
    """
    from vostrack.methods import build_net, method_class
    from vostrack.weights import join as join_weights
    from vostrack.weights import save_weights

    *files, out = parts
    adopts = {name: adopt for name, adopt in method_class(method).adopts.items() if name != method}
    if len(files) != len(adopts):
        raise typer.BadParameter(
            f"expected a file for each of {', '.join(adopts) or 'no method'}, then the file to write"
        )
    _check_free(out, overwrite)
    net = build_net(method)
    save_weights(net, method, out, join_weights(net, method, files, adopts))
    _say_written(out, method)


@app.command("convert", cls=Command)
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint of the authors, such as a .pth file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The file to write; beside FILE if left out.")
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="Whose weights they are.")] = "cutie",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
) -> None:
    """Make the weights of `cutie` from a checkpoint of its authors.

    Nothing is taken from the checkpoint but tensors, which must fill the network.

    Examples:
        vostrack weights convert cutie-base-mega.pth
    """
    from vostrack.files import sha256, shown
    from vostrack.methods import method_class
    from vostrack.weights import converted, save_weights

    out = out or file.with_suffix(".safetensors")
    _check_free(out, overwrite)
    architecture, net, unused = converted(file, method_class(method).nets)
    details = {"converted_from": file.name, "sha256": sha256(file)}
    save_weights(net, method, out, details, architecture, half=False)
    if unused:
        print(f"left out, since the network does not have them: {shown(', '.join(unused))}", file=sys.stderr)
    _say_written(out, method)


def _check_free(out: Path, overwrite: bool) -> None:
    from vostrack.errors import OutputExistsError
    from vostrack.files import shown

    if out.exists() and not overwrite:
        raise OutputExistsError(f"{shown(out)} is there already: choose another name, or --overwrite")


def _say_written(out: Path, method: str) -> None:
    from vostrack.files import shown

    print(f"weights: {shown(out)}", file=sys.stderr)
    say_next(f"vostrack segment CLIP --mask MASK --method {method} --weights {shlex.quote(str(out))}")
