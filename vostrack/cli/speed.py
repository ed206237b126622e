"""`vostrack speed`: how much faster the restricted propagation is than a plain reference, on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vostrack.cli.benchmark_tables import print_json


def speed(
    preset: Annotated[str, typer.Option(help="Preset of `anchors`: grid, context, radius.")] = "paper",
    channels: Annotated[int, typer.Option(min=1, help="Feature channels.")] = 512,
    height: Annotated[int, typer.Option(min=16, max=2160, help="Image height in pixels.")] = 480,
    width: Annotated[int, typer.Option(min=16, max=3840, help="Image width in pixels.")] = 854,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the best counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Time one frame of label propagation, restricted to windows and dense-and-masked, in one run.

    [bold]Example[/bold]

    vostrack speed --channels 512 --height 480 --width 854
    """
    from vostrack.benchmark.speed import compare
    from vostrack.device import choose_device
    from vostrack.methods import configure

    config = configure("anchors", preset, {"axes": 0})
    result = compare(config, channels, (height, width), repeats, choose_device(device))
    if json:
        print_json(asdict(result) | {"ratio": result.ratio})
        return
    print(
        f"grid {result.grid[0]}x{result.grid[1]}, {result.channels} channels, {result.frames} frames in memory, "
        f"{result.threads} threads\n"
        f"restricted to windows  {result.restricted:.2f} s a frame\n"
        f"dense and masked       {result.dense:.2f} s a frame\n"
        f"ratio                  {result.ratio:.1f}\n"
        f"equal labels           {result.equal:.4%}"
    )
