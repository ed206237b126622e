"""Plans of many clips as text: rows whose columns are the options of `vostrack segment`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import typer

from vostrack.batch.task import Task
from vostrack.cli.console import input_error, usage_fault
from vostrack.cli.help import Command
from vostrack.cli.segment import segment, segment_arguments
from vostrack.cli.settings import TRUTH
from vostrack.errors import InputError, PlanError, VostrackError, unknown_name
from vostrack.files import nearest, open_regular, parse_json, shown
from vostrack.run.place import below, clip_name

Row = Mapping[str, Any]

_MOST_BYTES, _MOST_VALUES, _MOST_TRIED = 1 << 30, 1000, 24
_UNKNOWN, _EXPORT = "unknown column", ("exports", "format", "formats")
_MASK, _ANY = "--mask=", "-"
_ANY_MASK = f"{_MASK}{_ANY}"
"""Stands where there is none, to find what else is wrong with a row."""
_NOT_IN_PLANS = {"overwrite", "resume", "json", "progress", "quiet", "help", "install_completion", "show_completion"}
JSON_ENDINGS = (".jsonl", ".ndjson")


def read_plan(path: str | Path, options: Mapping[str, str] | None = None) -> list[Task]:
    """The clips of a plan.

    A plan is a CSV file with a line of names on top, or JSON Lines (`.jsonl`). Its columns are `clip`, `mask`, and any
    option of `vostrack segment` by its name, without `--`; several values in a cell are separated by `;`, or a list.
    Relative paths begin at the folder of the plan. `out` is the name of a folder below that of all results.

    Args:
        path: the file.
        options: what holds for clips whose row says nothing else, by name of the option.

    Raises:
        PlanError: rows are wrong; it has a line for each fault.
        InputError: the file cannot be read, or is no plan.
    """
    plan = Path(path)
    tasks, faults = tasks_of(rows_of(plan), plan.parent, options or {})
    if faults:
        raise PlanError(faults)
    return tasks


def rows_of(plan: Path) -> list[tuple[str, Row]]:
    """Where each row of a file stands, and its cells that are not empty, by column; raises `InputError`."""
    try:
        with open_regular(plan) as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        hint = nearest(plan) or ": give a CSV file or JSON Lines"
        raise InputError(f"cannot find plan {shown(plan)!r}{hint}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read plan {shown(plan)!r}: {shown(why)}") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"plan {shown(plan)!r} has more than {_MOST_BYTES:,} bytes: split it")
    try:
        text = data.decode("utf-8-sig")
        read = _json_rows if plan.suffix.lower() in JSON_ENDINGS else _csv_rows
        rows: list[tuple[str, Row]] = [
            (
                f"{shown(plan.name)}, line {number}",
                {name.strip(): cell for name, cell in row.items() if cell not in ("", None)},
            )
            for number, row in read(text)
        ]
    except (ValueError, csv.Error) as error:
        raise InputError(f"plan {shown(plan)!r} is not a plan: {shown(error)}") from error
    if not rows:
        raise InputError(f"plan {shown(plan)!r} names no clip: give a line for each, below the names of the columns")
    return rows


def _csv_rows(text: str) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    if len(names) == 1 and ";" in names[0]:
        raise ValueError("semicolons separate its columns: save it with commas, since `;` separates values in a cell")
    if "clip" not in names:
        raise ValueError(f"its first line must name columns, separated by commas, clip among them; found {names[:4]}")
    if len({*names}) < len(names):
        raise ValueError("two columns have one name")
    for row in reader:
        if beyond := row.get(None):
            count = len(names) + len(beyond)
            raise ValueError(
                f"line {reader.line_num} has {count} cells, the first has {len(names)}: quote cells with commas"
            )
        yield reader.line_num, row


def _json_rows(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, parse_json(line, dict[str, Any])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def csv_of(rows: Sequence[Row]) -> str:
    """A plan as CSV; raises `InputError` where a value holds a `;`, which stands between several."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {name: value if isinstance(value, list) else [str(value)] for name, value in row.items()}
        for values in cells.values():
            if any(";" in value for value in values):
                raise InputError(f"{shown(values[0])} holds a `;`, which separates values in CSV: write JSON Lines")
        writer.writerow({name: ";".join(values) for name, values in cells.items()})
    return file.getvalue()


def json_of(rows: Sequence[Row]) -> str:
    """A plan as JSON Lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def tasks_of(rows: Iterable[tuple[str, Row]], base: Path, options: Mapping[str, str]) -> tuple[list[Task], list[str]]:
    """Tasks from rows, and all that is wrong with these.

    Args:
        rows: where each stands, and its cells by column.
        base: what relative paths begin at.
        options: for rows that say nothing else.

    Returns:
        The tasks; where there are faults, some are for `check` alone, as they lack what is wrong.
    """
    tasks, faults, told = [], list[str](), set[str]()
    for_all = {*_task({"clip": _ANY, "mask": _ANY, **options}, "", base)[1]}
    alike: dict[str, Mapping[str, Any]] = {}  # most clips of a plan have the same arguments: they share them
    for where, row in rows:
        task, wrong = _task({**options, **row}, where, base)
        for fault in wrong:
            if fault not in told:
                of_all = f"--option: {fault.replace(_UNKNOWN, 'unknown option', 1)}"
                faults.append(of_all if fault in for_all else f"{where}: {fault}")
            if fault in for_all or fault.startswith(_UNKNOWN):  # once, not for each row
                told.add(fault)
        if task is not None:
            tasks.append(replace(task, arguments=alike.setdefault(repr(task.arguments), task.arguments)))
    return tasks, faults


def _task(row: Row, where: str, base: Path) -> tuple[Task | None, list[str]]:
    """The task of a row, if its clip can be one, and what is wrong with the row."""
    faults = [f"it has no {name}: name it in the column {name!r}" for name in ("clip", "mask") if not row.get(name)]
    words = _words(row, faults)
    while isinstance(arguments := _arguments(words, base), str):
        faults.append(arguments)
        words = _without(words, arguments, base)
    clip, masks = arguments.pop("clip"), arguments.pop("masks")
    for name in ("out", "overwrite", "resume"):
        del arguments[name]
    if words[-1] == _ANY:
        return None, faults
    masks = {} if _ANY_MASK in words else masks
    return Task(clip, masks, name_of(row, base), arguments, dict(row), where=where), faults


def _arguments(words: Sequence[str], base: Path) -> dict[str, Any] | str:
    """What `vostrack.segment` is called with for words of the command line, the clip last; or what is wrong."""
    try:
        *options, clip = words
        context = _command().make_context("segment", [*options, "--", clip])
        return segment_arguments(context.params, base)
    except OSError as error:
        return str(input_error(error))
    except Exception as error:
        if not (isinstance(error, VostrackError) or hasattr(error, "format_message")):  # Click's have no public class
            raise
        return usage_fault(error) or str(error)


def _without(words: Sequence[str], fault: str, base: Path) -> list[str]:
    """Words without the one that a fault is about, as far as that is found; nothing else is wrong with what is left.

    Without its method, a row would be told what is wrong with it for another one: that goes last.
    """
    nothing = [_ANY_MASK, _ANY]
    if len(words) > _MOST_TRIED:
        return nothing
    found = list[list[str]]()
    for number, word in enumerate(words[:-1]):
        rest = [*words[:number], *words[number + 1 :]]
        if word.startswith(_MASK) and not any(each.startswith(_MASK) for each in rest):
            rest.insert(0, _ANY_MASK)
        left = _arguments(rest, base)
        if not isinstance(left, str):
            return rest
        if left != fault:
            found.insert(len(found) if word.startswith("--method=") else 0, rest)
    if found:
        return found[0]
    rest = [*words[:-1], _ANY]
    return nothing if _arguments(rest, base) == fault else rest


def name_of(row: Row, base: Path) -> str:
    """Name of the folder that the results of a row go to; paths begin at a folder."""
    name = str(row.get("out") or clip_name(below(base, str(row.get("clip", "")))))
    return name.replace("\\", "/").rstrip("/")


@cache
def _command() -> Any:
    app = typer.Typer()
    app.command(cls=Command)(segment)
    return typer.main.get_command(app)


@cache
def columns() -> dict[str, Any]:
    """Parameters of `segment` by the names of columns."""
    params = [param for param in _command().params if param.name not in _NOT_IN_PLANS]
    return {param.name.rstrip("_"): param for param in params}


def _name(column: str) -> str:
    return column.removeprefix("--").replace("-", "_")


def _words(row: Row, faults: list[str]) -> list[str]:
    """What a row would be on the command line, the clip last; what can be none is added to the faults."""
    words = [] if row.get("mask") else [_ANY_MASK]
    for column, cell in row.items():
        name = _name(column)
        if name in ("clip", "out"):
            continue
        if (param := columns().get(name)) is None:
            meant = f"{column!r}; did you mean 'export'?" if name in _EXPORT else ""
            faults.append(f"{_UNKNOWN} {meant}" if meant else unknown_name("column", column, columns()))
            continue
        if param.is_flag:
            truth = TRUTH.get(str(cell).strip().lower())
            if truth is None:
                faults.append(f"{column} is yes or no, not {shown(cell)}")
            else:
                words += [param.opts[0]] if truth else param.secondary_opts[:1]
            continue
        values = cell if isinstance(cell, list) else str(cell).split(";") if param.multiple else [str(cell)]
        if len(values) > (_MOST_VALUES if param.multiple else 1):
            faults.append(f"{column} has {len(values)} values")
        else:
            words += [f"{param.opts[0]}={str(value).strip()}" for value in values]
    return [*words, str(row.get("clip") or _ANY)]
