"""What is written down of a batch: a line for each clip as it ends, from which the same command goes on.

A batch has a list of its own, `batch.jsonl`, and so has each of its shards, `batch-2-of-4.jsonl`: processes on several
machines never write to one file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from vostrack.batch.task import Result, Status
from vostrack.errors import OutputError, VostrackError
from vostrack.files import OutputRoot, lock_folder, open_regular, parse_json, plain, read_json, shown

HIDDEN = ".batch"
_LINE = 1 << 20


@dataclass(frozen=True)
class Shard:
    """One of several parts of a plan, which clips are in by a hash of their path; from 1."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not (type(self.number) is type(self.of) is int and 1 <= self.number <= self.of):
            raise VostrackError(f"shard must be I of N, with I from 1 to N, not {self.number!r} of {self.of!r}")

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


@dataclass(frozen=True)
class Outline:
    """What is kept of a plan.

    Attributes:
        clips: how many there are.
        base: what paths in rows begin at.
        options: what holds for all rows, by name.
        plan: path of the file, if there is one.
        names: of the clips; none where they are not known.
        anew: when a batch that replaces earlier results, and has not come to its end, was begun; else 0.
    """

    clips: int
    base: str = "."
    options: dict[str, str] = field(default_factory=dict)
    plan: str = ""
    names: list[str] = field(default_factory=list)
    anew: float = 0.0


class Manifest:
    """The list of a batch or of a shard.

    Attributes:
        path: the folder that it is in.
        out: where results of clips go: the same folder, or an address in a store.
    """

    def __init__(self, out: Path, shard: Shard | None = None) -> None:
        """Name the folder; nothing is read or created yet."""
        self.path, self.out, self._root = out, out, OutputRoot(out)
        self.shard = shard
        self.name = f"batch-{shard}.jsonl" if shard else "batch.jsonl"
        self._hidden = f"{HIDDEN}/{shard or 'all'}"

    @contextlib.contextmanager
    def locked(self, outline: Outline, overwrite: bool = False) -> Iterator[float]:
        """Keep other batches from this list, and write down what the plan is.

        Gives the time since when results count: 0, or, to overwrite, that at which this batch was first begun.
        """
        with lock_folder(self._root.at(self._hidden)):
            since, earlier = 0.0, 0.0
            if overwrite:
                with contextlib.suppress(OutputError):
                    earlier = self.outline().anew
                since = earlier or round(time.time(), 3)
            self._root.write_json(f"{self._hidden}/plan.json", asdict(replace(outline, anew=since)))
            self._end_line()
            yield since

    def end(self) -> None:
        """Write down that the batch came to its end: to overwrite its results again begins anew."""
        self._root.write_json(f"{self._hidden}/plan.json", asdict(replace(self.outline(), anew=0.0)))

    def outline(self) -> Outline:
        """What is kept of the plan.

        Raises:
            OutputError: nothing is, or it is damaged.
        """
        try:
            outline: Outline = read_json(self._root.at(f"{self._hidden}/plan.json"), Outline)
            return outline
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{shown(self.path)} holds no batch ({shown(error)}): name its folder of results"
            ) from error

    def add(self, result: Result) -> None:
        """Write down how a clip ended, at once and for good."""
        line = json.dumps(plain(asdict(result)), sort_keys=True)
        self._root.append(self.name, f"{line}\n")

    def has_results(self, name: str) -> bool:
        """Whether the results of a clip that the list has are there."""
        return (self.path / name / "summary.json").is_file()

    def results(self) -> Iterator[Result]:
        """All lines, in order; one that a kill cut off is left out."""
        path = self._root.at(self.name)
        if not path.exists():
            return
        with self._opened(path) as file:
            while line := file.readline(_LINE):
                with contextlib.suppress(ValueError):
                    if line.endswith(b"\n"):
                        yield parse_json(line, Result)

    def _opened(self, path: Path) -> BinaryIO:
        try:
            return open_regular(path)
        except (OSError, ValueError) as error:
            raise OutputError(f"{shown(path)} cannot be read ({shown(error)}): move it away") from error

    def _end_line(self) -> None:
        """End a line that a kill cut off, so that the next one is whole."""
        path = self._root.at(self.name)
        if path.exists():
            with self._opened(path) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 1))
                if file.read(1) not in (b"", b"\n"):
                    self._root.append(self.name, "\n")


def manifests(out: Path) -> list[Manifest]:
    """The lists in a folder of results, that of the whole batch and those of shards.

    Raises:
        OutputError: there is none.
    """
    shards: list[Shard | None] = []
    with contextlib.suppress(OSError):
        for name in sorted(each.name for each in (out / HIDDEN).iterdir()):
            number, dash, of = name.partition("-of-")
            if name == "all":
                shards.append(None)
            elif dash and number.isdecimal() and of.isdecimal():
                shards.append(Shard(int(number), int(of)))
    if not shards:
        raise OutputError(
            f"{shown(out)} holds no batch: name the folder that `vostrack batch run` wrote its results to"
        )
    return [Manifest(out, shard) for shard in shards]


def latest(lists: list[Manifest]) -> dict[str, Result]:
    """How each clip ended last, by name."""
    found: dict[str, Result] = {}
    for result in (result for each in lists for result in each.results()):
        if result.name not in found or found[result.name].ended <= result.ended:
            found[result.name] = result
    return found


def in_plan(lists: list[Manifest], results: Mapping[str, Result]) -> set[str]:
    """Names of those results that are of the plan, in all its parts; others are of an earlier one."""
    names = {name for each in lists for name in each.outline().names}
    return {*results} & names if names else {*results}


def failures(lists: list[Manifest]) -> list[tuple[Outline, list[Result]]]:
    """What is kept of each plan, and how its clips ended that failed last."""
    last = latest(lists)
    last = {name: last[name] for name in in_plan(lists, last)}
    found = []
    for each in lists:
        own = {result.name: result for result in each.results()}
        failed = [result for name, result in own.items() if last.get(name) == result and result.status == Status.FAILED]
        found.append((each.outline(), failed))
    return found
