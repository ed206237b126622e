"""A batch whose clips, masks or results are in an object store: one clip after the other through a scratch folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from vostrack.batch.manifest import HIDDEN, Manifest, Outline, Shard
from vostrack.batch.remote import Remote
from vostrack.batch.task import Result, Status, Task, failed, run_one
from vostrack.errors import OutputExistsError
from vostrack.files import OutputRoot, make_folder, parse_json, plain, read_json, shown
from vostrack.run import place
from vostrack.run.place import address

_ENDED, _SUMMARY = f"{place.HIDDEN}/batch.json", "summary.json"
_INPUTS, _SENT_EVERY = ("clip", "masks"), 60.0


@dataclass(frozen=True)
class Scratch:
    """Where clips lie while they are worked on.

    Attributes:
        folder: on a disk of the machine that works.
        most: bytes that clip and masks may have, for each clip that is worked on.
    """

    folder: Path = user_cache_path("vostrack", appauthor=False) / "scratch"
    most: int = 50_000_000_000

    def of(self, *names: object) -> Path:
        """A folder in it for something with these names."""
        return self.folder / hashlib.sha256(repr(names).encode(errors="surrogateescape")).hexdigest()[:16]


def is_away(task: Task, out: Path) -> bool:
    """Whether a clip, a mask of it, or its results are in a store."""
    return any(map(address, (out, *task.inputs)))


def run_away(task: Task, out: Path, *, overwrite: bool, scratch: Scratch, **more: Any) -> Result:
    """Follow a clip as `run_one` does, fetched before and sent afterwards.

    What was stopped, or could not be sent, stays in scratch, and is gone on with.
    """
    start, folder = time.monotonic(), scratch.of(str(out), task.name)
    try:
        to = Remote(f"{address(out)}/{task.name}") if address(out) else None
        if to and not overwrite and (ended := _ended(to, task)):
            return ended
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        here = folder / "out" if to else out
        result = run_one(_fetched(task, folder, scratch.most), here, overwrite=overwrite, **more)
        result = replace(result, clip=address(task.clip) or str(task.clip), key=task.key())
        if to and result.status == Status.KEPT:  # in scratch alone: it is begun anew
            result = replace(result, status=Status.FAILED)
        if to and result.status == Status.DONE:
            result = replace(result, seconds=round(time.monotonic() - start, 3))
            _send(here / task.name, to, result)
        if result.status != Status.STOPPED:
            shutil.rmtree(folder, ignore_errors=True)
        return result
    except Exception as error:  # whatever it is, the other clips go on
        return failed(task, error, start)
    finally:
        for name in _INPUTS:
            shutil.rmtree(folder / name, ignore_errors=True)


def _fetched(task: Task, folder: Path, most: int) -> Task:
    """A task whose clip and masks are on this machine; what is in a store is copied to a folder."""
    for name in _INPUTS:  # whatever a kill has left
        shutil.rmtree(folder / name, ignore_errors=True)

    def at_hand(path: Path, to: Path) -> Path:
        nonlocal most
        if not address(path):
            return path
        make_folder(to)
        most -= Remote(path).fetch(to / path.name, most)
        return to / path.name

    clip, masks = (folder / name for name in _INPUTS)
    fetched = {each: at_hand(path, masks / str(number)) for number, (each, path) in enumerate(task.masks.items())}
    return replace(task, clip=at_hand(task.clip, clip), masks=fetched)


def _ended(to: Remote, task: Task) -> Result | None:
    """How the clip ended, where it did and its results are there."""
    told = to.read(_ENDED)
    if told is None or to.read(_SUMMARY) is None:
        return None
    with contextlib.suppress(ValueError):
        result: Result = parse_json(told, Result)
        if result.key == task.key():
            return result
    return None


def _send(folder: Path, to: Remote, result: Result) -> None:
    root = OutputRoot(folder)
    summary = read_json(root.at(_SUMMARY), dict[str, Any])
    paths = {kind: folder.parent / Path(path).name for kind, path in summary.get("exports", {}).items()}
    exports = _send_exports(paths, to) if paths else {}
    root.write_json(_SUMMARY, {**summary, "out": to.address, "exports": exports})
    root.write_json(_ENDED, plain(asdict(result)))
    to.send(folder, (*place.RESULTS, place.HIDDEN), last=_SUMMARY)


def _send_exports(paths: Mapping[str, Path], to: Remote) -> dict[str, str]:
    """Send exports of a run, by format, and give their addresses; only those of the same run are replaced."""
    from vostrack.formats.staged import MADE

    known = set[str]()
    with contextlib.suppress(ValueError):
        known.update(parse_json(to.read(place.EXPORTS) or b"[]", list[str]))
    beside = to.address.rpartition("/")[0]
    targets = {kind: Remote(f"{beside}/{path.name}") for kind, path in paths.items()}
    ours = {kind: _made(target, MADE) if paths[kind].is_dir() else set() for kind, target in targets.items()}
    for kind, target in targets.items():
        if set(target.names(deep=True)) - ours[kind] or (kind not in known and target.exists()):
            raise OutputExistsError(f"{shown(target.address)} is there already, and is not of this run: move it away")
    # Said first, and each list of files before the files: what a kill leaves is known to be ours.
    to.write(place.EXPORTS, json.dumps(sorted({*known, *paths})).encode())
    for kind, path in paths.items():
        targets[kind].send(path, ours[kind], first=MADE)
    return {kind: target.address for kind, target in targets.items()}


def _made(export: Remote, record: str) -> set[str]:
    """Names of all files that an earlier export to a folder has written, as its record says."""
    made = export.read(record)
    with contextlib.suppress(ValueError):
        return {record, *parse_json(made, list[str])} if made else set()
    return set()


class AwayManifest(Manifest):
    """The list of a batch whose results are in a store: kept in scratch, sent there every minute and at the end.

    Lines that a kill keeps from being sent are found again beside the results of their clips.
    """

    def __init__(self, out: Path, scratch: Scratch, shard: Shard | None = None) -> None:
        """Name the address of all results."""
        self._remote, self._sent = Remote(out), 0.0
        super().__init__(scratch.of(self._remote.address), shard)
        self.out = out

    @contextlib.contextmanager
    def locked(self, outline: Outline, overwrite: bool = False) -> Iterator[float]:
        with super().locked(outline, overwrite) as since:
            theirs = (self._remote.read(self.name) or b"").decode(errors="replace").splitlines()
            ours = [json.dumps(asdict(result), sort_keys=True) for result in self.results()]
            lines = dict.fromkeys((*theirs, *ours))
            self._root.write(self.name, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
            try:
                yield since
            finally:
                self._send()

    def add(self, result: Result) -> None:
        super().add(result)
        if time.monotonic() - self._sent > _SENT_EVERY:
            self._send()

    def has_results(self, name: str) -> bool:
        return True  # the list says so: to ask for each would take long

    def _send(self) -> None:
        for name in (self.name, f"{self._hidden}/plan.json"):
            self._remote.write(name, self._root.at(name).read_bytes())
        self._sent = time.monotonic()


@contextlib.contextmanager
def at_hand(out: Path, scratch: Scratch) -> Iterator[Path]:
    """A folder with the lists of a batch, for a report, which is sent to the store in the end; `out` if it is here."""
    if not address(out):
        yield out
        return
    remote, folder = Remote(out), scratch.of(address(out))
    hidden = [f"{HIDDEN}/{name}" for name in Remote(f"{remote.address}/{HIDDEN}").names(deep=True)]
    for name in [*hidden, *(name for name in remote.names() if name.endswith(".jsonl"))]:
        OutputRoot(folder).write(name, remote.read(name) or b"")
    yield folder
    for name in ("batch.json", "batch.csv", "batch.html"):
        with contextlib.suppress(FileNotFoundError):
            remote.write(name, (folder / name).read_bytes())
