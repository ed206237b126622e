"""What came of a batch: `batch.json` and `batch.csv` with all results, `batch.html` with what needs a look on top."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from PIL import Image

from vostrack.batch.manifest import HIDDEN, in_plan, latest, manifests
from vostrack.batch.task import Result, Status, of_summary
from vostrack.errors import OutputError, VostrackError, counted, damage_as
from vostrack.files import OutputRoot, PartialFile, escaped, lock_folder, open_regular, partial_name, plain, shaped
from vostrack.run.pages import jpeg_address, templates
from vostrack.run.place import WORST
from vostrack.run.signs import LOW

PAGE, TABLE, RESULTS = "batch.html", "batch.csv", "batch.json"
COLUMNS = (
    *("name", "clip", "status", "frames", "seconds", "objects", "confidence", "warnings", "error", "message"),
    *("exit_code", "attempts", "worker", "in_plan"),
)

_HERE = f"{HIDDEN}/report"
"""Where a report is written before its files get their names."""

_MOST_SHOWN, _MOST_BYTES = 500, 4 << 20


@dataclass(frozen=True)
class Counts:
    """How many clips of a plan are done, failed, not yet ended, or keep other results; how many have warnings.

    `others` are here and not in the plan.
    """

    done: int
    failed: int
    left: int
    warned: int
    kept: int = 0
    others: int = 0

    def __str__(self) -> str:
        warned = f", {self.warned} with warnings" if self.warned else ""
        kept = f", {self.kept} with results of other settings" if self.kept else ""
        left = f", {self.left} left" if self.left else ""
        are = f"{counted(self.others, 'more clip')} here {'is' if self.others == 1 else 'are'}"
        others = f"; {are} not in the plan" if self.others else ""
        return f"{counted(self.done, 'clip')} done{warned}, {self.failed} failed{kept}{left}{others}"


class Ended(NamedTuple):
    """How a clip ended, and whether it is in the plan."""

    result: Result
    in_plan: bool


def status_of(out: Path) -> tuple[list[Ended], Counts]:
    """How the clips of a batch, or of all its shards, ended last, and how many; raises `OutputError` for no batch."""
    lists = manifests(out)
    results = {name: result for name, result in latest(lists).items() if not _is_begun_again(out, result)}
    names = in_plan(lists, results)
    own = [results[name] for name in names]
    done, failed, kept = (
        sum(result.status == status for result in own) for status in (Status.DONE, Status.FAILED, Status.KEPT)
    )
    # A plan may have been worked on as a whole, and in shards.
    clips = max(sum(each.outline().clips for each in lists if bool(each.shard) == shards) for shards in (True, False))
    warned = sum(bool(result.warnings) for result in own)
    counts = Counts(done, failed, max(clips - len(own), 0), warned, kept, len(results) - len(own))
    return [Ended(result, name in names) for name, result in results.items()], counts


def _is_begun_again(out: Path, result: Result) -> bool:
    """Whether a clip that was done is not any more, as where a batch that replaces results was stopped."""
    with contextlib.suppress(OutputError):
        begun = OutputRoot(out).at(result.name)
        return result.status == Status.DONE and begun.is_dir() and not (begun / "summary.json").exists()
    return False


def write_report(out: Path) -> Counts:
    """Write all results as JSON, as a table, and as a page; gives how many clips ended and how.

    Raises:
        OutputError: it cannot be written, or there is no batch.
    """
    manifests(out)  # an error, where there is none
    root = OutputRoot(out)
    with lock_folder(root.at(_HERE), waits=True):  # shards may come to their end at once
        results, counts = status_of(out)
        results = [each._replace(result=_as_corrected(root, each.result)) for each in results]
        for name, data in _contents(root, sorted(results, key=_need), counts).items():
            with PartialFile(root.at(name), len(data), root.at(f"{_HERE}/{partial_name()}")) as path:
                path.write_bytes(data)
    return counts


def _as_corrected(root: OutputRoot, result: Result) -> Result:
    """A result with what an update of its run has changed since."""
    with contextlib.suppress(OutputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        run = root.at(result.name)
        if result.status == Status.DONE and (run / "summary.json").stat().st_mtime > result.ended:
            from vostrack.run.folder import OutputFolder  # torch with it
            from vostrack.run.review import draw_worst

            told = of_summary(OutputFolder(run).summary())
            known: Result = shaped(vars(result) | told, Result)
            with contextlib.suppress(VostrackError, OSError):  # a picture is not worth a report
                draw_worst(run)
            return known
    return result


def _contents(root: OutputRoot, ordered: Sequence[Ended], counts: Counts) -> dict[str, bytes]:
    """What the files of a report hold, by name."""
    told = {"counts": vars(counts), "clips": [{**vars(each.result), "in_plan": each.in_plan} for each in ordered]}
    shown = ordered[:_MOST_SHOWN]
    page = (
        templates(__package__)
        .get_template(f"{PAGE}.j2")
        .render(
            counts=counts,
            clips=[{**_clip(root, each.result), "in_plan": each.in_plan} for each in shown],
            more=len(ordered) - len(shown),
            low=LOW,
        )
    )
    return {
        RESULTS: f"{json.dumps(plain(told), indent=1, sort_keys=True)}\n".encode(),
        TABLE: _table(ordered).encode(errors="surrogateescape"),
        PAGE: page.encode(errors="replace"),
    }


def _need(each: Ended) -> tuple[bool, bool, float, int, str]:
    """Failed clips first, then by confidence and warnings; those that are not in the plan last."""
    result = each.result
    confidence = 1.0 if result.confidence is None else result.confidence
    return not each.in_plan, result.status == Status.DONE, confidence, -len(result.warnings), result.name


def _table(results: Sequence[Ended]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result, is_planned in results:
        told = {"warnings": " ".join(_codes(result)), "in_plan": "yes" if is_planned else "no"}
        cells: Mapping[str, Any] = {**vars(result), **told}
        writer.writerow(["" if cells[name] is None else cells[name] for name in COLUMNS])
    return file.getvalue()


def _codes(result: Result) -> list[str]:
    return [str(warning.get("code", "")) for warning in result.warnings]


def _clip(root: OutputRoot, result: Result) -> dict[str, Any]:
    """What the page shows of a clip."""
    return {
        "name": escaped(result.name),
        "clip": escaped(result.clip),
        "status": result.status,
        "frames": result.frames,
        "seconds": result.seconds,
        "objects": result.objects,
        "confidence": result.confidence,
        "message": escaped(result.message),
        "warnings": [(str(each.get("code", "")), escaped(str(each.get("text", "")))) for each in result.warnings],
        "picture": _picture(root, result),
        "overlay": _overlay(root, result),
    }


def _picture(root: OutputRoot, result: Result) -> str | None:
    """The picture that a worker drew, as an address for `<img>`."""
    with contextlib.suppress(ValueError), damage_as(ValueError):
        with open_regular(root.at(f"{result.name}/{WORST}")) as file:
            data = file.read(_MOST_BYTES)
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.verify()
        return jpeg_address(data)
    return None


def _overlay(root: OutputRoot, result: Result) -> str | None:
    """Where its overlay is, seen from the page."""
    name = f"{result.name}/overlay.mp4"
    try:
        return quote(name) if root.at(name).is_file() else None
    except OutputError:
        return None
