"""What measuring shows on a terminal: progress over sequences, tables of scores and of changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from vostrack.cli.console import LINE_SECONDS, StopAtOnce, Stopped, plain, print_note, progress_bar
from vostrack.cli.pace import Pace
from vostrack.files import shown
from vostrack.notes import Note
from vostrack.run.callbacks import Callbacks

if TYPE_CHECKING:
    from vostrack.benchmark.compare import Comparison


_ENDLESS = 100_000
"""A width that any table fits."""


class SequenceBar(Callbacks):
    """Progress over sequences on stderr, without a terminal a line every half minute; Ctrl-C ends the work at once."""

    def __init__(self, name: str, again: str) -> None:
        """Nothing is drawn yet; `again` says what to do after Ctrl-C."""
        self._console, self._name, self._again, self._pace = Console(stderr=True), name, again, Pace()
        self._bar = progress_bar(self._console, MofNCompleteColumn())
        self._task = self._bar.add_task(name, total=None)
        self._signals = StopAtOnce(self._console, "")

    def progress(self, done: int, total: int | None) -> None:
        """Show how many sequences are done."""
        self._bar.update(self._task, completed=done, total=total)
        self._pace.update(done, total)
        if not self._console.is_terminal and self._pace.due(LINE_SECONDS):
            print(f"{self._name}: {self._pace.line('sequence')}", file=sys.stderr)

    def note(self, note: Note) -> None:
        """Print a note above the bar."""
        print_note(self._console, note)

    def cancelled(self) -> bool:
        """Whether Ctrl-C was pressed: where it falls into a callback of C code, Python drops the exception."""
        return bool(self._signals.number)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._signals.__exit__(kind, error, trace)
        if self._signals.number and kind is not None:
            stop = Stopped(self._signals.number)
            stop.args = (self._again,)
            raise stop from None


def print_results(report: Mapping[str, Any]) -> None:
    """Print a table of a report: sequences and totals down, variants across; no times of what nothing was spent on."""
    from vostrack.benchmark.datasets.table import titled

    dataset, variants = report["dataset"], report["variants"]
    main, caption = "J&F", "J&F of sequences, means over objects"
    if dataset["distance"] is not None:
        main, caption = "error", "error rates in percent, less is better"
    sequences = [
        (name, *(number(variant["sequences"][name].get(main)) for variant in variants.values()))
        for name in dataset["sequences"]
    ]
    totals = [variant["total"] for variant in variants.values()]
    means = [(key.replace("_", " "), *(number(total[key]) for total in totals)) for key in totals[-1]]
    seconds = [report["timing"]["variants"][name]["seconds_per_frame"] for name in variants]
    used = [part for part in seconds[-1] if any(each[part] for each in seconds)]
    times = [(f"{part} s/frame", *(number(each[part]) for each in seconds)) for part in used]
    about = [dataset["subset"], "not scored: no masks but the given ones" if dataset["submission"] else None]
    title = ", ".join(filter(None, (titled(dataset["title"], dataset["split"]), *about)))
    table = _table(("", *variants), sequences, means + times, title=title, caption=caption)
    console = Console()
    if console.measure(table, options=console.options.update(width=_ENDLESS)).maximum > console.width:
        # A row a variant: these few columns have room.
        few = [row for row in means + times[-1:] if not row[0].endswith("recall")]
        rows = [(name, *values) for name, *values in zip(variants, *(row[1:] for row in few), strict=True)]
        headings = ("", *(row[0] for row in few))
        table = _table(headings, rows, title=title, caption="means; results.csv has each sequence", narrow=True)
    console.print(table)
    for name, variant in variants.items():
        weights = variant["settings"]["weights"]
        if weights["sha256"]:
            print_line(f"{name}: weights {weights['name']} ({weights['sha256'][:12]})")


def print_comparison(found: Comparison) -> None:
    """Print a comparison as a table, worst change first."""
    from vostrack.benchmark.compare import IN_TIME

    rows = [(row.sequence, number(row.first), number(row.second), f"{row.change:+.4f}") for row in found.differences]
    title = f"{found.figure}, {found.subset}" if found.subset else found.figure
    print_table(("sequence", *found.names, "change"), rows, title=title)
    better, worse, same = found.counts
    of = "" if found.names == IN_TIME else f"{found.names[1]} against {found.names[0]}: "
    print_line(
        f"{of}{better} better, {worse} worse, {same} the same\n"
        f"mean change {found.mean:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}: {found.verdict}"
    )
    if found.left_out:
        print_line(f"in one of them alone, and left out: {', '.join(found.left_out)}")


def print_table(columns: Iterable[str], *sections: Sequence[Sequence[str]], title: str = "", caption: str = "") -> None:
    """Print a table: names to the left, figures to the right of them, a line between sections.

    Args:
        columns: headings, that of the names first.
        sections: rows, each a name and its figures.
        title: above the table.
        caption: below it.
    """
    Console().print(_table(columns, *sections, title=title, caption=caption))


def _table(
    columns: Iterable[str],
    *sections: Sequence[Sequence[str]],
    title: str = "",
    caption: str = "",
    narrow: bool = False,
) -> Table:
    """A table as `print_table` prints it; a `narrow` one has no lines between columns, and folds headings."""
    box, padding = (SIMPLE_HEAD, (0, 1, 0, 0)) if narrow else (HEAVY_HEAD, (0, 1))
    table = Table(title=title or None, caption=caption or None, box=box, padding=padding)
    first, *others = (Text(shown(column)) for column in columns)  # Text, not str: a name may look like markup
    table.add_column(first, overflow="fold")
    for column in others:
        table.add_column(column, justify="right", max_width=7 if narrow else None)
    for rows in sections:
        for name, *figures in rows:
            table.add_row(Text(shown(name)), *figures)
        table.add_section()
    return table


def print_line(text: str) -> None:
    """Print text as it is, however long its lines and whatever names it holds."""
    Console().print(Text(plain(text)), highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON on stdout; equal values give equal text."""
    print(json.dumps(value, indent=2, sort_keys=True))


def number(value: float | None, digits: int = 4) -> str:
    """A figure for a table."""
    return "-" if value is None else f"{value:.{digits}f}"
