"""`vostrack speed`: how much faster the restricted propagation is than a plain reference, on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from vostrack.cli.benchmark_tables import print_json
from vostrack.cli.help import Device, Json, in_input, in_method, in_run


def speed(
    height: Annotated[int, in_input(metavar="PX", min=16, max=2160, help="Height of the image.")] = 480,
    width: Annotated[int, in_input(metavar="PX", min=16, max=3840, help="Width of the image.")] = 854,
    json: Json = False,
    preset: Annotated[str, in_method(metavar="NAME", help="Preset of `anchors`: grid, context, radius.")] = "paper",
    channels: Annotated[int, in_method(metavar="N", min=1, help="Feature channels.")] = 512,
    repeats: Annotated[int, in_run(metavar="N", min=1, help="Runs of each; the best counts.")] = 3,
    device: Device = "auto",
) -> None:
    """Time label propagation on this machine: restricted to windows, and dense as a reference.

    Examples:
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
