"""Hostile inputs for every reader: each is given to a real command, which must end well or refuse it in one line.

With `--against TREE` those of some kinds are given to another version, and a table says which it mishandles.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from tests.reliability.mutations import Make
from tests.reliability.samples import Sample, clip_and_mask, samples
from tests.runs import results

MOST_SECONDS, MOST_MIB = 20, 2048
FEWEST = 60
"""Inputs that there are for each reader, at least."""
CODES = {0, 2, 3, 4, 5, 6, 7, 8, 9}
"""Of docs/formats.md; 1 is what nobody foresaw."""

KINDS = {
    "links lead out of the output folder": r"folders/results.*a link",
    "pipes and devices hang": r"is (a pipe|a link to a pipe|zeros without end|a link to zeros)",
    "a damaged state resumes in silence": r"states/state.*(its t|bits)",
    "deep nesting": r"(states|manifests|caches|lists/ytvos18|results/(summary|results|\.vostrack/run)).*deep",
    "records of other types, or reduced": r"results/(summary|\.vostrack/run)\.json, seg.*: (va|pa|key|al|ha)",
    "surrogates": r"(frames\.jsonl|run\.json|summary\.json|manifests).*surrogate",
    "numbers without bounds": r"manifests/[lv].*(digits|infinity|nan|too large|64 bits)",
    "markup of the terminal": r"manifests/[lv].*markup",
    "caches, checkpoints and lists of other shapes": r"index\.json: value.*(large|below)|checkpoint: pro|ytvos18: a",
    "control characters reach the terminal": r"(manifests/[lv]|summary.json, seg|compare|folders/[fm]).*(control|x1b)",
}
"""The kinds of hostile input that the first version, f2768c8, was found to mishandle, and names of inputs of each."""


@dataclass(frozen=True)
class Input:
    """A hostile input: the good one that it is made from, its name, and what makes it."""

    sample: Sample
    name: str
    make: Make

    @property
    def title(self) -> str:
        return f"{self.sample.reader}/{self.sample.name}: {self.name}"


@dataclass(frozen=True)
class Ended:
    """What came of an input: what was run, what is wrong, where all that was printed is."""

    name: str
    command: str
    faults: list[str]
    folder: Path
    seconds: float
    mib: int


class Judge:
    """Runs command lines in a tree of this project, in processes that are forked from one that has imported it."""

    def __init__(self, tree: Path, root: Path) -> None:
        """Start it.

        Args:
            tree: with the packages `vostrack` and `tests`.
            root: folder for all cases.
        """
        self._root, self._count, self._wanted = root, 0, dict[str, bytes]()
        self._logs = root / "logs"
        self._theirs = root / "theirs"
        self._before = self._anew()
        command = [sys.executable, str(Path(__file__).with_name("judged.py")), str(root / "weights")]
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def run(
        self, folder: Path, command: str, stop: int = 0, environment: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], str]:
        """How a command line ends in a folder, and what it prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        log = self._logs / str(self._count)
        job = {"folder": str(folder), "log": str(log), "arguments": shlex.split(command), "stop": stop}
        print(json.dumps({**job, "environment": environment or {}}), file=self._process.stdin, flush=True)
        told = self._process.stdout.readline()
        if not told:
            raise RuntimeError("the process that runs command lines has ended")
        return json.loads(told), "".join((log / name).read_text(errors="replace") for name in ("out", "err"))

    def good(self, folder: Path, command: str, stop: int) -> None:
        """Run what must go well, in the place that its inputs will have: caches are of files in their places."""
        case = self._root / "case"
        shutil.rmtree(case, ignore_errors=True)
        folder.rename(case)
        ended, said = self.run(case, command, stop)
        case.rename(folder)
        if ended["code"] != (143 if stop else 0):
            raise RuntimeError(f"{command} ended with {ended['code']}: {said}")
        if command.startswith("segment") and not stop:
            self._wanted = _masks(folder)

    def tried(self, given: Input) -> Ended | None:
        """What comes of an input; None where it cannot be made on this system."""
        case, sample = self._root / "case", given.sample
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(sample.folder, case, symlinks=True)
        try:
            given.make(case / sample.file)
        except PermissionError:
            return None
        ended, said = self.run(case, sample.command, environment=sample.environment)
        if re.search("(?i)no such (command|option)", said):  # an earlier version
            return None
        faults = list(_faults(ended, said))
        if _seen(self._theirs) != self._before:
            faults.append("changed what is not ours")
            self._before = self._anew()
        if re.match("(video|images|masks|formats)/.*: it is a list", given.title) and ended["code"] == 0:
            faults.append("reads what a list names")
        if ": a stranger" in given.title and "answer: b'HTTP/1.1 200" in said:
            faults.append("answers a stranger")
        if sample.kept and ended["code"] == 0 and _masks(case) != self._wanted:
            faults.append("other masks, in silence")
        return Ended(given.title, sample.command, faults, self._logs / str(self._count), ended["seconds"], ended["mib"])

    def _anew(self) -> list[tuple[str, int, int]]:
        """Make the folder of somebody else; what is in it."""
        shutil.rmtree(self._theirs, ignore_errors=True)
        (clip_and_mask(self._theirs) / "secret").write_text("secret")
        return _seen(self._theirs)


def _masks(case: Path) -> dict[str, bytes]:
    return {name: data for name, data in results(case / "out").items() if name.startswith("masks/")}


def _seen(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(folder))


def _faults(ended: dict[str, Any], said: str) -> Iterator[str]:
    """What is wrong with how a command line ended."""
    if ended["hung"]:
        yield "hangs"
    elif ended["code"] not in CODES:
        yield f"exit code {ended['code']}"
    if "Traceback" in said or "error: unexpected" in said:
        yield "a traceback, or an error that nobody foresaw"
    if ended["code"] in CODES - {0, 3} and "error: " not in said:
        yield "no error is named"
    if not all(character.isprintable() or character == "\n" for character in said):
        yield "control characters are printed"
    if ended["seconds"] > MOST_SECONDS:
        yield f"{ended['seconds']:.0f} s"
    if ended["mib"] > MOST_MIB:
        yield f"{ended['mib']} MiB"
    yield from ended["did"][:3]


def main(arguments: list[str]) -> int:
    """Try a sample of all inputs, or all; 1 if some are mishandled."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability hostile", description=__doc__)
    parser.add_argument("--all", action="store_true", help="try all inputs, not a few of each reader")
    parser.add_argument("--each", type=int, default=2, help="inputs of each reader, or kind [2]")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--only", default="", help="inputs in whose names this regular expression is found")
    parser.add_argument("--against", type=Path, help="the folder of another version, which is judged instead")
    given = parser.parse_args(arguments)
    tree = (given.against or Path(__file__).parents[2]).resolve()
    with TemporaryDirectory() as root, Judge(tree, Path(root)) as judge:
        ended = list(_ended(judge, Path(root), given))
    if not ended:
        parser.error(f"there is no input whose name has {given.only!r}")
    return _report(ended, given.against is not None)


def _ended(judge: Judge, root: Path, given: argparse.Namespace) -> Iterator[Ended]:
    """What comes of the inputs that are wanted."""
    groups = defaultdict[str, list[Input]](list)
    for sample in samples(_made(root / "good"), judge.good):
        for name, make in sample.inputs():
            each = Input(sample, name, make)
            kinds = [kind for kind, pattern in KINDS.items() if re.search(pattern, each.title)]
            for group in kinds if given.against else [sample.reader]:
                groups[group].append(each)
    for group, found in groups.items():
        if len(found) < FEWEST and not given.against:
            raise RuntimeError(f"there are {len(found)} inputs for {group}, and should be {FEWEST} at least")
        named = [each for each in found if re.search(given.only, each.title)]
        random.Random(given.seed).shuffle(named)
        print(f"{group}: {len(named) if given.all else min(given.each, len(named))} of {len(found)} inputs", flush=True)
        tried = (came for each in named if (came := judge.tried(each)))  # some an earlier version knows no command for
        for came in tried if given.all else islice(tried, given.each):
            if came.faults:
                said = f"{'; '.join(came.faults)}\n    {came.command}\n    {_last(came.folder)}"
                print(f"  {came.name!a}: {said}", flush=True)
            yield came


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _last(log: Path) -> str:
    lines = (log / "err").read_text(errors="replace").splitlines()
    return ascii(lines[-1])[:300] if lines else ""


def _report(ended: list[Ended], by_kind: bool) -> int:
    for kind, pattern in KINDS.items() if by_kind else ():
        of_it = [each for each in ended if re.search(pattern, each.name)]
        bad = [each for each in of_it if each.faults]
        example = f", such as {bad[0].name!a}: {bad[0].faults[0]}" if bad else ""
        print(f"{kind}: {len(bad)} of {len(of_it)} mishandled{example}")
    wrong = [each for each in ended if each.faults]
    slowest, largest = max(ended, key=lambda each: each.seconds), max(ended, key=lambda each: each.mib)
    print(f"{len(ended)} inputs, {len(wrong)} mishandled")
    print(f"slowest: {slowest.seconds:.1f} s, {slowest.name!a}; largest: {largest.mib} MiB, {largest.name!a}")
    return int(bool(wrong))
