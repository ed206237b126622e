"""What `vostrack benchmark` shows on a terminal: progress over sequences, tables of scores and of changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from vostrack.cli.console import Stopped
from vostrack.run.callbacks import Callbacks

if TYPE_CHECKING:
    from vostrack.benchmark.compare import Comparison


class SequenceBar(Callbacks):
    """Progress over sequences on stderr, where that is a terminal; Ctrl-C ends the benchmark at once."""

    def __init__(self) -> None:
        """Nothing is drawn yet."""
        from rich.console import Console
        from rich.progress import Progress

        errors = Console(stderr=True)
        self._bar = Progress(console=errors, transient=True, disable=not errors.is_terminal)
        self._task = self._bar.add_task("benchmark", total=None)
        self._interrupted = False
        self._previous: Any = None

    def progress(self, done: int, total: int | None) -> None:
        """Show how many sequences are done."""
        self._bar.update(self._task, completed=done, total=total)

    def cancelled(self) -> bool:
        """Whether Ctrl-C was pressed: where it falls into a callback of C code, Python drops the exception."""
        return self._interrupted

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        signal.signal(signal.SIGINT, self._previous)
        if self._interrupted and kind is not None:
            stop = Stopped(signal.SIGINT)
            stop.args = ("go on with the same command",)
            raise stop from None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt


def print_results(report: Mapping[str, Any], as_json: bool) -> None:
    """Print all of a report, or a table: sequences and totals down, variants across."""
    if as_json:
        print(json.dumps(report, indent=2, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    dataset, variants = report["dataset"], report["variants"]
    error_rate = dataset["distance"] is not None
    main = "error" if error_rate else "J&F"
    caption = "error rates in percent, less is better" if error_rate else "J&F of sequences, means over objects"
    table = Table(title=_title(dataset), caption=caption)
    table.add_column("", overflow="fold")
    for name in variants:
        table.add_column(Text(name), justify="right")
    for sequence in dataset["sequences"]:
        # Text, not str: a sequence's name may look like markup.
        cells = (_number(variant["sequences"][sequence].get(main)) for variant in variants.values())
        table.add_row(Text(sequence), *cells)
    table.add_section()
    totals = {name: variant["total"] for name, variant in variants.items()}
    for key in next(iter(totals.values())):
        table.add_row(key.replace("_", " "), *(_number(total[key]) for total in totals.values()))
    timing = report["timing"]["variants"]
    for part in ("model", "adapt", "refine", "decode", "write"):
        table.add_row(f"{part} s/frame", *(_number(timing[name]["seconds_per_frame"][part]) for name in variants))
    console = Console()
    console.print(table)
    for name, variant in variants.items():
        weights = variant["settings"]["weights"]
        line = f"{name}: weights {weights['name']} ({weights['sha256'][:12]})"
        console.print(Text(line), highlight=False, soft_wrap=True)


def print_comparison(found: Comparison, as_json: bool) -> None:
    """Print a comparison as JSON or as a table, worst change first."""
    if as_json:
        print(json.dumps(found.to_json(), indent=2, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title=f"{found.figure}, {found.subset}" if found.subset else found.figure)
    table.add_column("sequence", overflow="fold")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for row in found.differences:
        table.add_row(Text(row.sequence), _number(row.before), _number(row.after), f"{row.change:+.4f}")
    console.print(table)
    gains = sum(row.change != 0 and (row.change > 0) != (found.figure == "error") for row in found.differences)
    losses = sum(row.change != 0 for row in found.differences) - gains
    lines = [
        f"{gains} better, {losses} worse, {len(found.differences) - gains - losses} the same",
        f"mean change {found.mean:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}: {found.verdict}",
    ]
    if found.left_out:
        lines.append(f"in one of them alone, and left out: {', '.join(found.left_out)}")
    for line in lines:
        console.print(Text(line), highlight=False, soft_wrap=True)


def _title(dataset: Mapping[str, Any]) -> str:
    parts = [f"{dataset['title']} {dataset['split']}", dataset["subset"]]
    parts += ["a server scores the masks"] if dataset["submission"] else []
    return ", ".join(part for part in parts if part)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
