"""One clip on the page: its frames, what is drawn, what was followed, and what can be done next. Knows no HTTP."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from vostrack.errors import MaskError, VostrackError, damage_as
from vostrack.files import OutputRoot, lock_folder, make_folder, output_error, shown
from vostrack.formats import FORMATS, format_of
from vostrack.methods import preset_name
from vostrack.run.cuts import cuts
from vostrack.run.export import export
from vostrack.run.folder import OutputFolder
from vostrack.run.pipeline import PipelineConfig
from vostrack.run.place import check_free, default_folder
from vostrack.run.request import Request
from vostrack.run.suggestions import read_rows, suggest
from vostrack.video.masks import DrawnMask, Prompts
from vostrack.video.palette import PALETTE
from vostrack.video.playback import NORMAL
from vostrack.video.ranges import Span
from vostrack.video.reader import open_clip
from vostrack.video.stream import NOMINAL_RATE
from vostrack.web.changes import ONCE, Followed, Once, mask_of, outside, said
from vostrack.web.document import Document, mask_name
from vostrack.web.frames import FrameCache
from vostrack.web.regions import Patches, patches, region
from vostrack.web.strokes import Labels, encoded, only
from vostrack.web.things import Frames, Step, joined, within
from vostrack.web.work import Progress, Work, told_before

_MOST_CLICKS, _MOST_CUT, _ENDLESS = 1000, 4, 1 << 40


@dataclass(frozen=True)
class Wanted:
    """How to follow.

    Attributes:
        method, preset, size, direction: as for `vostrack.segment`.
        objects: ids to follow; the others are kept as they are. Empty for all.
        first, last: frames that may change; None for the ends of the clip.
        changed: whether, of these, only what is older than what is drawn and said may change.
        anew: whether a complete run is replaced, with what is said here in the place of how that was made.
    """

    method: str = "best"
    preset: str = "default"
    size: int | None = 480
    direction: str = "both"
    objects: list[int] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    changed: bool = False
    anew: bool = False


Command = Callable[
    [Path, Mapping[int, Path], Mapping[int, str], Mapping[int, list[tuple[int, int | None]]], Wanted, Span, Path], str
]


class Session:
    """A clip that is being worked on, in its output folder.

    Attributes:
        clip: its path.
        out: folder of the run.
        frames: its frames.
        document: what is drawn.
        work: what is being followed.
        command: gives the command that does the same, from clip, masks by frame, names by id, spans by id, how to
            follow, which frames, and the folder of the run.
        span: which frames of the clip its run is of.
    """

    def __init__(self, clip: Path, out: Path, document: Document, frames: FrameCache) -> None:
        """Take the parts; use `open`."""
        self.wanted, self.span = Wanted(), Span()
        self.command: Command = lambda *_: ""
        self.clip, self.out, self.document, self.frames = clip, out, document, frames
        self.work = Work()
        self._cut: dict[int, Patches] = {}
        self._names: list[str] = []
        self._read: tuple[Any, Any] = (None, None)  # the result that was looked at last
        self._once = Once.kept_in(drawn_in(out))
        self._followed: tuple[Any, Followed] | None = None
        self._command: tuple[Any, str] = (None, "")
        self._told, self._telling = itertools.count(1), threading.Lock()

    @classmethod
    def open(cls, path: Path, out: Path | None = None, given: Prompts | None = None) -> Self:
        """Begin with a clip, or go on with a run or with what was drawn before.

        Args:
            path: a clip, or the output folder of a run.
            out: folder for the run; by default that of `vostrack.segment`.
            given: masks to begin with.

        Raises:
            InputError: the clip cannot be read.
            OutputError: the folder holds something else, or another page is open on it.
        """
        folder = run_folder(path, out)
        is_run = folder == path
        known = Request.kept_in(OutputFolder(folder)) if (folder / ".vostrack/request.json").is_file() else None
        clip = known[0].source if is_run and known else path
        if known is None and not drawn_in(folder).is_dir():
            check_free(folder, overwrite=False, resume=False)
        with ExitStack() as failed:
            frames = failed.enter_context(FrameCache(partial(open_clip, clip, known[0].playback if known else NORMAL)))
            make_folder(folder)
            session = cls(clip, folder, Document(frames.size, drawn_in(folder)), frames)
            if given and session.document.touched:
                where = shown(drawn_in(folder))
                raise MaskError(f"masks were drawn before, in {where}: go on without a mask, or move it away")
            if start := given or (known[1] if known else None):
                session._begin_with(start)
            if known:
                session._go_on_from(known[0])
            if session.is_followed:
                session.work.progress = Progress(notes=told_before(OutputFolder(folder)))
            failed.pop_all()
        return session

    def close(self) -> None:
        """Stop what runs, and let go of the clip."""
        self.work.close()
        self.frames.close()

    @property
    def is_followed(self) -> bool:
        """Whether the folder holds a complete run."""
        return (self.out / "summary.json").is_file()

    def labels(self, frame: int) -> Labels:
        """Ids of a frame, (H, W): what is drawn, above what was predicted."""
        return self.document.over(frame, self.predicted(frame))

    def predicted(self, frame: int) -> Labels:
        """What was followed at a frame, (H, W); background where nothing was."""
        labels = self._result(frame)
        if labels is None:
            return np.zeros(self.document.size, np.uint8)
        return only(labels, (thing.id for thing in self.document.things.values() if not thing.is_gone(frame)))

    def _result(self, frame: int) -> Labels | None:
        """The mask of a frame that the run has, (H, W); None where it cannot be read. Does not wait for the clip."""
        place = frame - self.span.first
        with suppress(ValueError), damage_as(ValueError):
            if self._is_inside(frame) and place >= len(self._names):
                self._names = OutputFolder(self.out).frame_names()
            if not 0 <= place < len(self._names):
                return None
            path = self.out / "masks" / f"{self._names[place]}.png"
            told = path.stat()
            state = path, told.st_mtime_ns, told.st_ino, told.st_size
            found, labels = self._read
            if found != state:
                with Image.open(path, formats=["PNG"]) as image:
                    labels = np.array(image)
                self._read = state, labels
            return labels if labels.dtype == np.uint8 and labels.shape == self.document.size else None
        return None

    def _is_inside(self, frame: int) -> bool:
        """Whether the run is of a frame."""
        return self.span.first <= frame and (self.span.last is None or frame <= self.span.last)

    def do(self, step: Step) -> list[int]:
        """Do a step; one that draws does so above what was predicted on its frame."""
        count = self.frames.count
        if count is not None and step.frame >= count:
            raise MaskError(f"there is no frame {step.frame}: the last one is {count - 1}")
        draws = bool(step.points) or step.kind in ("holes", "smooth", "grow", "clear", "region")
        if draws and not self._is_inside(step.frame):
            raise MaskError(f"the run covers frames {self.span}: draw on one of those")
        if draws:
            self.document.lay(step, self.predicted(step.frame))
        return self.document.do(step)

    def propose(self, step: Step) -> str:
        """The region that clicks on a frame mean, as a mask in base 64; it is painted by a step "region".

        Args:
            step: "region" with points; those in `data`, a list of 0 and 1 as text ("110"), are wanted or not.

        Raises:
            MaskError: there is no wanted point in the frame.
        """
        height, width = self.document.size
        if not 0 < len(step.points) <= _MOST_CLICKS or {*step.data} - {"0", "1"} or len(step.data) != len(step.points):
            raise MaskError("a region needs points, each wanted or not")
        places = [(min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)) for x, y in step.points]
        wanted = [place for place, is_wanted in zip(places, step.data, strict=True) if is_wanted == "1"]
        unwanted = [place for place, is_wanted in zip(places, step.data, strict=True) if is_wanted == "0"]
        if not wanted:
            raise MaskError("click on the object first")
        if step.frame not in self._cut:
            while len(self._cut) >= _MOST_CUT:
                self._cut.pop(next(iter(self._cut)))
            with Image.open(io.BytesIO(self.frames.jpeg(step.frame))) as image:
                self._cut[step.frame] = patches(np.asarray(image.convert("RGB")))
        return encoded(region(self._cut[step.frame], wanted, unwanted).astype(np.uint8))

    def follow(self, wanted: Wanted) -> None:
        """Follow what is drawn, or what changed since the last time.

        Raises:
            MaskError: nothing is drawn, nothing changed, or something is being followed.
        """
        self.work.check_idle()
        if not any(self.document.ids(frame) for frame in self.document.frames):
            raise MaskError("nothing is drawn: draw an object on a frame first")
        paths = self.save()
        saved = {frame: self.document.given(frame, paths[frame]) for frame in self._given()}
        if wanted.anew or not self.is_followed:
            if wanted.objects or wanted.first is not None or wanted.last is not None:
                raise MaskError("the first time, choose all objects and the whole clip")
            self.work.start("segment", {**self._first_run(saved, wanted), **self._known_settings()})
            self.wanted = replace(wanted, anew=False)
            return
        arguments, once = self._update(saved, wanted)
        self._hold(once)
        self.work.start("update", arguments)

    def _known_settings(self) -> dict[str, Any]:
        """Settings of a run that is begun anew, as arguments; raises `MaskError` where the page would lose some."""
        if not (self.out / ".vostrack/request.json").is_file():
            return {}
        request = Request.kept_in(OutputFolder(self.out))[0]
        config = request.config
        plain = PipelineConfig(config.method, config.preset, size=config.size, device=config.device)
        if config != plain or request.playback != NORMAL:
            raise MaskError(
                "this run was begun with settings that the page does not have: go on with it by `vostrack segment`"
            )
        return {
            "outputs": request.outputs,
            "overlay_style": str(request.look.style),
            "overlay_labels": request.look.labels,
            "keep": request.keep,
            "on_cut": str(request.on_cut),
        }

    def save(self) -> dict[int, Path]:
        """Write what is drawn as masks that the command line reads; gives their paths by frame.

        Raises:
            OutputError: that cannot be done. The strokes are in the journal all the same.
        """
        folder = drawn_in(self.out)
        frames = self._given()
        for frame in self.document.touched - {*frames}:
            OutputRoot(folder).remove(mask_name(frame))
        return {frame: self.document.save(folder, frame) for frame in frames}

    def _first_run(self, saved: Mapping[int, DrawnMask], wanted: Wanted) -> dict[str, Any]:
        names = {thing.id: thing.name for thing in self.document.things.values() if thing.name}
        present = self._present(saved)
        return {
            "clip": self.clip,
            "masks": dict(saved),
            "out": self.out,
            "names": {number: name for number, name in names.items() if number in present},
            "range": None if (self.span.first, self.span.last) == (0, None) else (self.span.first, self.span.last),
            "start_number": self.span.start_number,
            "method": wanted.method,
            "preset": wanted.preset,
            "size": wanted.size,
            "direction": wanted.direction,
            "gone": {number: spans for number, spans in self._gone.items() if number in present},
        }

    def _present(self, frames: Iterable[int]) -> set[int]:
        """Objects that are drawn on frames."""
        return {number for frame in frames for number in self.document.ids(frame)}

    def _update(self, saved: Mapping[int, DrawnMask], wanted: Wanted) -> tuple[dict[str, Any], Once]:
        """Arguments of an update, which keeps what is locked, and what is not wanted; and what that is for once."""
        followed, given, gone = self._asked_for(), self._given(), self._gone
        news, locks = followed.news(given, gone), followed.request.locks
        spared_once = not wanted.changed and self._once != Once()  # whoever chooses frames wants these now
        if not any(news.values()) and not spared_once:
            raise MaskError("nothing has changed since it was followed: correct a frame first")
        arguments = {"run": self.out, "clip": self.clip}
        older = followed.older(given, gone)
        if wanted.changed and not older:  # but for names, or a mask that is as it was predicted: locks stay as they are
            return {**arguments, **news, "masks": {frame: saved[frame] for frame in news["masks"]}}, self._once
        objects, spans = self._to_follow(wanted, older)
        last = max(self.frames.count or _ENDLESS, self.frames.ready) - 1
        spared = outside(spans, last)
        news = followed.some(news, objects, spared)
        if not any(news.values()) and not spared_once:
            raise MaskError("nothing that may change has changed: unlock it, or choose other objects or frames")
        known = {number for labels in followed.known.labels.values() for number in labels.ids}
        # A choice of frames and objects holds once; frames that were locked elsewhere stay locked.
        foreign = [span for span in locks.frames if span not in self._once.frames]
        spared = [span for span in spared if span not in foreign]
        kept = known & {*self.document.things} - objects
        locked = {each.id for each in self.document.things.values() if each.locked}
        earlier = {*self._once.objects} & {*locks.objects}, {*self._once.frames} & {*locks.frames}
        once = Once(sorted(kept - locked | earlier[0]), sorted({*spared} | earlier[1]))
        return {
            **arguments,
            **news,
            "masks": {frame: saved[frame] for frame in news["masks"]},
            "lock": sorted(kept),
            "lock_ranges": [*foreign, *spared],
            "unlock": bool(locks.record()),
        }, once

    def _to_follow(self, wanted: Wanted, older: Mapping[int, tuple[Frames, ...]]) -> tuple[set[int], list[Frames]]:
        """Objects, and spans of frames, that may change."""
        things = self.document.things
        objects = {each.id for each in things.values() if not each.locked} & {*(wanted.objects or things)}
        chosen: Frames = wanted.first or 0, wanted.last
        if not wanted.changed:
            return objects, [chosen]
        may = {
            number: inside
            for number, spans in older.items()
            if (number in objects or number not in things) and (inside := within(spans, *chosen))
        }
        return objects & {*may}, [span for spans in may.values() for span in spans]

    def _hold(self, once: Once) -> None:
        """Keep what is locked for one time, also for a page that is opened later."""
        if once != self._once:
            OutputRoot(drawn_in(self.out)).write_json(ONCE, asdict(once))
        self._once = once

    def _asked_for(self) -> Followed:
        """What the run was asked for; raises `OutputError`."""
        path = self.out / ".vostrack/request.json"
        try:
            told = path.stat()
        except OSError as error:
            raise output_error(error, path) from error
        # While an update puts its results in their place, what is read may be of two runs.
        progress = self.work.progress
        state = told.st_mtime_ns, told.st_ino, progress.number, progress.running
        if self._followed is None or self._followed[0] != state:
            self._followed = state, Followed(OutputFolder(self.out), self.document, self._result)
        return self._followed[1]

    def older(self) -> dict[int, tuple[Frames, ...]]:
        """Frames whose results are older than what is drawn and said of an object, by its id."""
        if not self.is_followed:
            return {}
        try:
            return self._asked_for().older(self._given(), self._gone)
        except VostrackError:  # an update puts its results in their place
            return {}

    def _given(self) -> list[int]:
        """Frames whose masks a run is given: from the first one on that shows an object."""
        document = self.document
        said = [frame for frame in document.frames if document.ids(frame) or document.is_empty(frame)]
        return [*dropwhile(document.is_empty, said)]

    @property
    def _gone(self) -> dict[int, list[Frames]]:
        """When objects are not there, by id: as was said, where one was erased, and in masks before any shows one."""
        gone, document, start = {}, self.document, min(self._given(), default=0)
        for number, thing in document.things.items():
            spans = thing.gone
            for frame in document.frames:
                if number in document.erased(frame) or (frame < start and document.is_empty(frame)):
                    spans = joined(spans, frame, frame)
            if spans:
                gone[number] = [*spans]
        return gone

    def state(self) -> dict[str, Any]:
        """All that the page shows, apart from pixels, as JSON; numbered, since answers may arrive in another order."""
        with self._telling:  # what has a later number is read later
            return self._state()

    def _state(self) -> dict[str, Any]:
        document, frames = self.document, self.frames
        height, width = document.size
        return {
            "clip": shown(self.clip.name),
            "out": shown(self.out),
            "drawnIn": shown(drawn_in(self.out)),
            "width": width,
            "height": height,
            "count": frames.count,
            "ready": frames.ready,
            "span": [self.span.first, self.span.last],
            "error": frames.error,
            "number": next(self._told),
            "revision": document.revision,
            "things": [asdict(thing) for thing in document.things.values()],
            "drawn": document.frames,
            "canUndo": document.can_undo,
            "canRedo": document.can_redo,
            "followed": self.is_followed,
            "wanted": {**asdict(self.wanted), "quality": preset_name(self.wanted.method, self.wanted.preset)},
            "work": asdict(self.work.progress),
            "command": self.as_command(),
            "older": self.older(),
            "fps": float(self.frames.fps or NOMINAL_RATE),
            "formats": [{"name": each.name, "meaning": f"{each.what}, {each.who}"} for each in FORMATS.values()],
        }

    def export(self, name: str, hard: bool = False) -> str:
        """Write the masks of the run in a format, beside the run, with soft edges or hard ones; gives where."""
        if not self.is_followed or self.work.progress.running:
            raise MaskError("nothing is followed to its end yet: follow first")
        if any(self._asked_for().news(self._given(), self._gone).values()):
            raise MaskError("something has changed since it was followed: follow first")
        hard = hard and format_of(name).soft
        return shown(export(self.out, name, clip=self.clip, overwrite=True, hard=hard)["out"])

    def findings(self) -> dict[str, Any]:
        """What is said of a complete run: confidence by object and frame, cuts and suggestions."""
        if not self.is_followed:
            return {"confidence": {}, "suggested": [], "cuts": []}
        rows: dict[str, list[tuple[int, float]]] = {}
        try:
            for row in read_rows(self.out):
                rows.setdefault(str(row.number), []).append((row.frame, row.confidence))
            suggested = [each.frame for each in suggest(self.out, 3)]
            found = cuts({each.frame: each.change for each in OutputFolder(self.out).signs()})
        except VostrackError:
            return {"confidence": {}, "suggested": [], "cuts": []}
        return {"confidence": rows, "suggested": suggested, "cuts": found}

    def as_command(self) -> str:
        """The command that does the same, if whoever opened the page says how."""
        state = self.document.revision, self.wanted, self.work.progress.number, self.work.progress.running
        if self._command[0] != state:
            frames = self._given()
            there, things = self._present(frames), self.document.things.values()
            masks = {frame: drawn_in(self.out) / mask_name(frame) for frame in frames}
            names = {thing.id: thing.name for thing in things if thing.name and thing.id in there}
            gone = {number: spans for number, spans in self._gone.items() if number in there}
            text = self.command(self.clip, masks, names, gone, self.wanted, self.span, self.out)
            held = None
            with suppress(VostrackError):  # an update puts its results in their place
                held = self.is_followed and self._asked_for().request.locks.record()
            if text and held:
                text = f'# as with "All anew": what was kept as it was is followed again\n{text}'
            self._command = state, text
        return self._command[1]

    def _begin_with(self, given: Prompts) -> None:
        """Make objects and masks of what was given to a run."""
        ids = sorted({number for labels in given.labels.values() for number in labels.ids})
        for number in set(ids) - {*self.document.things}:
            color = given.colors.get(number, tuple(PALETTE[number].tolist()))
            text = "#{:02x}{:02x}{:02x}".format(*color)
            text = text if text != "#000000" else "#{:02x}{:02x}{:02x}".format(*PALETTE[number])
            self.document.do(Step("add", id=number, name=given.names.get(number, ""), color=text))
        for frame in sorted({*given.labels, *given.empty} - self.document.touched):  # what was drawn since counts
            self.document.do(Step("begin", frame, data=encoded(mask_of(given, frame, self.document.size))))

    def _go_on_from(self, request: Request) -> None:
        """Take over what else was said of a run."""
        config, told = request.config, {*self.document.told}
        for number, spans in said(request).items():
            for first, last in spans if number not in told and self._gone.get(number) != spans else ():
                with suppress(MaskError):  # it is drawn there, or locked: that counts
                    self.document.do(Step("gone", first, number, last=last))
        for number in {*request.locks.objects} - {*self._once.objects}:
            if number in self.document.things and not self.document.things[number].locked:
                self.document.do(Step("lock", id=number, locked=True))
        self.wanted = Wanted(config.method, config.preset, config.size, str(request.direction))
        self.span = request.span


def run_folder(path: Path, out: Path | None = None) -> Path:
    """The folder of the run that belongs to a clip, or to a folder that is one itself."""
    return path if (path / ".vostrack").is_dir() else out or default_folder(path)


def held(out: Path) -> Any:
    """A lock on what is drawn for a run, so that one page alone works on it."""
    drawn = drawn_in(out)
    return lock_folder(OutputRoot(drawn.parent).at(drawn.name))  # no link, which somebody may have put there


def drawn_in(out: Path) -> Path:
    """The folder of what is drawn for a run, beside that of the run: masks as PNGs, and the journal."""
    return out.with_name(f"{out.name}_drawn")
