"""The passes of a pipeline over one clip: reader, engine, adaptation and refinement put together.

The only place that does so. Whoever wants the masks of a clip iterates `Passes.run` and does with each prediction what
it likes: `run.segment` writes files, the benchmark scores, `run.track` hands them to the caller.

Predictions go through filters (adaptation, refinement) that may hold some back. To save where the run stands nothing
may be under way in between: the filters are fed until it is time to save, and give all they hold when they are fed no
more. Where objects are followed both ways, a pass from the last given mask back to the first frame comes first: it
gives nothing but what it says of cells, which the pass in the order of the clip merges with its own. With an adaptation
in two passes the first pass gives nothing, a network is trained, and in the second pass, over the clip opened again, it
takes the place of the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from vostrack.adapt.adaptation import Adaptation, AdaptFilter, AdaptState
from vostrack.adapt.config import FEW_ITERATIONS
from vostrack.errors import Cancelled
from vostrack.methods import Direction
from vostrack.methods.base import Stepping
from vostrack.notes import Code, Note
from vostrack.propagate import EnginePosition, Gone, Propagator, Reuse, cleared, known_ids
from vostrack.refine.base import RefineFilter
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.filters import Filter, FilterChain
from vostrack.run.kept import BothWays, KeptCells, forecast
from vostrack.run.pipeline import Pipeline
from vostrack.types import Clip, Frame, FrameStream, LabelMap, Prediction
from vostrack.video.backwards import InexactSeek
from vostrack.video.stream import Prefetch

PARTS = ("decode", "model", "adapt", "refine", "write")
"""What the time of a run goes to."""

RESUMING, BACKWARDS = "resuming", "following backwards"
FIRST_PASS, TRAINING, SECOND_PASS = "following", "training", "segmenting"
DRAWING = "drawing"
"""The phases of a run; the last is that of an overlay alone."""

MUCH = 200_000_000
"""Bytes to keep, from which on that is said before the start."""

SAVE_SECONDS = 20.0
"""Seconds from one save to the next; an adaptation's state is large and saved a third as often."""

_ADAPTED = 3


class Store(Protocol):
    """Where a run is kept, so that it can be resumed.

    Attributes:
        resumes: whether an earlier run is gone on with.
        cells: folder where what passes say of cells is kept.
        keeps: whether it is kept beyond the run.
    """

    resumes: bool
    cells: Path
    keeps: bool

    def load(self, state_type: type[Any], device: torch.device) -> tuple[EnginePosition, AdaptState | None]:
        """Where the engine and its adaptation stopped; their beginning where nothing was saved."""
        ...

    def save(self, position: EnginePosition, adapt: AdaptState | None) -> None:
        """Keep where both stand; all predictions up to there have been taken."""
        ...

    def load_backwards(self, state_type: type[Any], device: torch.device) -> EnginePosition:
        """Where the engine stopped on its way back from the last given mask; its beginning where nothing was saved."""
        ...

    def save_backwards(self, position: EnginePosition | None) -> None:
        """Keep where the engine stands on its way back; None when it has come to the first frame."""
        ...

    def load_second_pass(self) -> int:
        """The first frame that the second of two passes has not done."""
        ...

    def save_second_pass(self, next_frame: int) -> None:
        """Keep where the second pass stands."""
        ...

    def done(self, frame: Frame) -> None:
        """Take a frame whose prediction an earlier run gave."""
        ...


class Passes:
    """A pipeline's run over one clip.

    Attributes:
        seconds: spent so far, for each of `PARTS`; whoever writes adds to "write".
        notes: what a user may want to know, each once.
        frames: predictions that this run has made.
        skipped: seconds that went to frames which an earlier run had done.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        masks: Mapping[int, LabelMap],
        stream: FrameStream,
        reopen: Callable[[], FrameStream],
        *,
        callbacks: Callbacks | None = None,
        probs: bool = False,
        only: Container[str] | None = None,
        store: Store | None = None,
        prefetch: int = 4,
        direction: Direction = Direction.FORWARD,
        backwards: Callable[[int, bool], FrameStream] | None = None,
        gone: Gone | None = None,
        first: int = 0,
        reuse: Mapping[Direction, Reuse] | None = None,
    ) -> None:
        """Prepare a run; nothing is read yet.

        Args:
            pipeline: ready.
            masks: that were given, by frame.
            stream: the clip; closed at the end of its pass.
            reopen: opens the clip again, for an adaptation in two passes.
            callbacks: what is called on the way.
            probs: whether predictions carry probabilities.
            only: names of the frames whose predictions are wanted; None for all.
            store: where the run is kept and goes on from; None for a run from start to end.
            prefetch: frames that are decoded ahead; 0 to read in the caller's thread.
            direction: which way objects are followed from the frames with given masks.
            backwards: opens the clip to be read from a frame back to the first, and takes whether it may seek
                (`video.backwards`); needed where objects are followed backwards.
            gone: when objects are not there.
            first: index of the first frame of the stream.
            reuse: what an earlier run has said, by the direction of the pass, for a method of parts without feedback.
        """
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.notes: list[Note] = []
        self.frames, self.skipped = 0, 0.0
        self._pipeline, self._masks, self._stream, self._reopen = pipeline, masks, stream, reopen
        self._callbacks = checked_callbacks(callbacks)
        self._only, self._store, self._prefetch = only, store, prefetch
        self._anew = isinstance(pipeline.method, Stepping)  # its state cannot be saved
        self._direction, self._gone, self._backwards, self._first = direction, gone or {}, backwards, first
        self._back: KeptCells | None = None
        refiner = pipeline.refiner()
        link = RefineFilter(refiner, masks, probs or refiner.feedback) if refiner else None
        self._reuse = reuse or {}
        self._feedback = link if refiner and refiner.feedback else None
        self._filters: dict[str, Filter] = {"refine": link} if link and not self._feedback else {}
        self._probs = probs or bool(self._filters)

    def note(self, note: Note) -> None:
        """Keep a note and pass it on, once."""
        if note not in self.notes:
            self.notes.append(note)
            self._callbacks.note(note)

    def run(self) -> Generator[Prediction, None, None]:
        """All passes.

        Yields:
            The final prediction of each frame that is wanted, in order. Who takes one is done with it when asking for
            the next.

        Raises:
            Cancelled: the callbacks said so. What they raise is passed on in the same way: as soon as what is under way
                has been given and the run is kept.
            VostrackError: from the clip, the masks, the adaptation or the refinement.
        """
        self._tell_size()
        with ExitStack() as entered:
            if self._feedback:
                entered.enter_context(self._feedback)
            if self._backwards and self._direction is not Direction.FORWARD and max(self._masks) > self._first:
                self._back = self._kept(Direction.BACKWARD, entered)
                self._follow_back(self._back)
            for prediction in self._in_order():
                yield cleared(prediction, self._gone)

    def _tell_size(self) -> None:
        """Say how much is going to be kept, where that is much."""
        if not self._store or not self._store.keeps or not self._stream.count:
            return
        back = 0 if self._direction is Direction.FORWARD else max(self._masks) - self._first
        channels = len(known_ids(self._masks, 0, Direction.BOTH)) + 1
        expected = forecast(self._grid(), channels, self._stream.count + back)
        if expected >= MUCH:
            text = f"about {expected / 1e9:.1f} GB will be kept for corrections and soft edges: no-keep does without"
            self.note(Note(Code.RUN_KEEPS, text))

    def _kept(self, direction: Direction, entered: ExitStack) -> KeptCells:
        """Where a pass keeps what it says of cells; without a store, as long as the run lasts."""
        if self._store:
            return KeptCells(self._store.cells, direction, self._masks, self._grid())
        temporary = entered.enter_context(TemporaryDirectory(prefix="vostrack", ignore_cleanup_errors=True))
        return KeptCells(Path(temporary), direction, self._masks, self._grid())

    def _grid(self) -> tuple[int, int]:
        """Cells (h, w) of a frame."""
        return self._engine(EnginePosition()).grid(self._stream.size)

    def _follow_back(self, kept: KeptCells) -> None:
        """The pass from the last given mask back to the first frame."""
        store, pipeline, last = self._store, self._pipeline, max(self._masks)
        if store and kept.is_complete:
            return
        position = store.load_backwards(pipeline.method.state_type, pipeline.device) if store else EnginePosition()
        engine = self._engine(position, keep=kept.write, reuse=self._reuse.get(Direction.BACKWARD))

        def save() -> None:
            if store and not (self._anew and engine.position.state is not None):
                store.save_backwards(engine.position)

        try:
            self._read_back(engine, last, True, save)
        except InexactSeek:
            engine.position = EnginePosition()
            self._read_back(engine, last, False, save)
        kept.complete()
        if store:
            store.save_backwards(None)

    def _read_back(self, engine: Propagator, last: int, seek: bool, save: Callable[[], None]) -> None:
        assert self._backwards is not None
        with Prefetch(self._backwards(last, seek), self._prefetch) as frames:
            coming = iter(frames)
            for number, _ in enumerate(islice(coming, engine.position.done), 1):
                self._tell(number, frames.count)
            self._callbacks.phase(BACKWARDS)
            chain = FilterChain(frames, self._tell, save, SAVE_SECONDS if self._store else inf)
            for _ in chain.through(engine.run(Clip(coming, self._masks), backwards=True), ()):
                pass
        for note in frames.notes:
            self.note(note)
        self._spend(decode=frames.busy, model=chain.seconds)

    def _engine(self, position: EnginePosition, **settings: Any) -> Propagator:
        pipeline, feedback = self._pipeline, self._feedback.refined if self._feedback else None
        return Propagator(
            pipeline.method,
            pipeline.config.size,
            pipeline.device,
            position=position,
            feedback=feedback,
            gone=self._gone,
            **settings,
        )

    def _in_order(self) -> Iterator[Prediction]:
        """The passes in the order of the clip."""
        pipeline, form, store = self._pipeline, self._pipeline.config.adapt, self._store
        start = EnginePosition(), None
        position, adapted = store.load(pipeline.method.state_type, pipeline.device) if store else start
        adaptation = None
        if pipeline.adapt:
            adaptation = Adaptation(self._masks, pipeline.adapt, pipeline.device, adapted, self._direction)
        if store and store.resumes and self._anew and adapted is None:
            text = f"{pipeline.config.method} cannot go on in the middle of a clip: it follows the clip anew"
            self.note(Note(Code.RUN_ANEW, text))
        kept = KeptCells(store.cells if store else Path(), Direction.FORWARD, self._masks, self._grid())
        engine = self._engine(
            position,
            keep_probs=self._probs and form != "clip",
            keep=kept.write if store and store.keeps else None,
            merge=BothWays(self._masks, self._back, self._direction).merged if self._back else None,
            reuse=self._reuse.get(Direction.FORWARD),
        )
        if adaptation is None or form == "live":
            yield from self._only_pass(engine, adaptation)
        else:
            self._learn(engine, adaptation)
            yield from self._second_pass(engine, adaptation)

    def _predictions(self, engine: Propagator, coming: Iterator[Frame]) -> Iterator[Prediction]:
        """What the engine says, or what it said on its way back, where that is all that is wanted."""
        clip = Clip(coming, self._masks)
        return engine.replay(clip) if self._direction is Direction.BACKWARD else engine.run(clip)

    def _only_pass(self, engine: Propagator, adaptation: Adaptation | None) -> Iterator[Prediction]:
        """Propagate and filter; the adaptation, if there is one, is the first filter."""
        filters = {"adapt": AdaptFilter(adaptation.live), **self._filters} if adaptation else self._filters

        def predictions(coming: Iterator[Frame]) -> Iterator[Prediction]:
            yield from self._predictions(engine, coming)
            if adaptation and adaptation.steps < (needed := adaptation.config.live_warm_up):
                text = f"the adaptation had no effect: {adaptation.steps} of {needed} steps to warm up were done"
                self.note(Note(Code.ADAPT_IDLE, text))

        save, every = self._saving(engine, adaptation)
        yield from self._final(self._stream, engine.position.done, predictions, "model", filters, save, every)

    def _second_pass(self, engine: Propagator, adaptation: Adaptation) -> Iterator[Prediction]:
        """The trained network gives the predictions, over the clip opened again."""
        store = self._store
        first = made = store.load_second_pass() if store else 0

        def predictions(coming: Iterator[Frame]) -> Iterator[Prediction]:
            nonlocal made
            for frame in coming:
                made += 1
                yield adaptation.apply(frame, size)

        def save() -> None:
            if store:
                store.save_second_pass(made)

        stream = self._reopen()
        size = engine.working_size(stream.size) if self._probs else None
        yield from self._final(stream, first, predictions, "adapt", self._filters, save, SAVE_SECONDS)

    def _saving(self, engine: Propagator, adaptation: Adaptation | None) -> tuple[Callable[[], None], float]:
        """What keeps engine and adaptation, and after how many seconds it should."""

        def save() -> None:
            if self._store and not (self._anew and engine.position.state is not None):
                self._store.save(engine.position, adaptation.state if adaptation else None)

        return save, SAVE_SECONDS * (_ADAPTED if adaptation else 1)

    def _learn(self, engine: Propagator, adaptation: Adaptation) -> None:
        """First of two passes, and the training that follows; what is done already is left out."""
        if (steps := adaptation.config.iterations) < FEW_ITERATIONS:
            text = f"{steps} steps of adaptation are few and can make masks worse: {FEW_ITERATIONS} or more are advised"
            self.note(Note(Code.ADAPT_SHORT, text))
        save, every = self._saving(engine, adaptation)
        if not adaptation.steps:
            self._watch(engine, adaptation, save, every)
            engine.position = replace(engine.position, state=None)  # it may be large, and nobody needs it any more
            save()
        if adaptation.steps < adaptation.config.iterations:
            self._callbacks.phase(TRAINING)
            self._train(adaptation, save, every)
            save()

    def _watch(self, engine: Propagator, adaptation: Adaptation, save: Callable[[], None], every: float) -> None:
        """The adaptation takes its frames from the predictions of the engine."""
        watching = AdaptFilter(adaptation.watch)
        with Prefetch(self._stream, self._prefetch) as frames:
            coming = iter(frames)
            for _ in self._done_before(coming, engine.position.done, frames.count, FIRST_PASS):
                pass
            chain = FilterChain(frames, self._tell, save, every if self._store else inf)
            for _ in chain.through(self._predictions(engine, coming), (watching,)):
                pass
        self._spend(decode=frames.busy, model=chain.seconds, adapt=watching.seconds)

    def _train(self, adaptation: Adaptation, save: Callable[[], None], every: float) -> None:
        start = saved = time.perf_counter()
        for _ in adaptation.train():
            try:
                self._tell(adaptation.steps, adaptation.config.iterations)
            except BaseException:
                save()  # only here: within a step the network is neither what it was nor what it will be
                raise
            if time.perf_counter() - saved > every:
                save()
                saved = time.perf_counter()
        self._spend(adapt=time.perf_counter() - start)

    def _final(
        self,
        stream: FrameStream,
        first: int,
        predictions: Callable[[Iterator[Frame]], Iterator[Prediction]],
        part: str,
        filters: Mapping[str, Filter],
        save: Callable[[], None],
        every: float,
    ) -> Iterator[Prediction]:
        """The pass that gives results, from frame `first` on; making predictions counts as `part`."""
        with Prefetch(stream, self._prefetch) as frames, ExitStack() as entered:
            for link in filters.values():
                entered.enter_context(link)
            coming = iter(frames)
            start = time.perf_counter()
            for frame in self._done_before(coming, first, frames.count, SECOND_PASS):
                assert self._store is not None
                self._store.done(frame)
            self.skipped = time.perf_counter() - start
            chain = FilterChain(frames, self._tell, save, every if self._store else inf)
            yield from chain.through(self._wanted(predictions(coming)), tuple(filters.values()))
        for note in frames.notes:
            self.note(note)
        self._spend(decode=frames.busy, **{part: chain.seconds})
        self._spend(**{name: link.seconds for name, link in filters.items()})
        if self._feedback:
            self._spend(model=-self._feedback.seconds, refine=self._feedback.seconds)

    def _done_before(self, coming: Iterator[Frame], first: int, total: int | None, then: str) -> Iterator[Frame]:
        """The frames that an earlier run has done: a phase of its own, since they take no time."""
        if first:
            self._callbacks.phase(RESUMING)
        for done, frame in enumerate(islice(coming, first), 1):
            yield frame
            self._tell(done, total)
        if first or self._back or self._pipeline.config.adapt == "clip":
            self._callbacks.phase(then)

    def _wanted(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Those predictions that are wanted, all of them counted."""
        for prediction in predictions:
            self.frames += 1
            if self._only is None or prediction.frame.name in self._only:
                yield prediction

    def _tell(self, done: int, total: int | None) -> None:
        self._callbacks.progress(done, total)
        if self._callbacks.cancelled():
            again = f": resume to {'start anew' if self._anew else 'go on'}" if self._store else ""
            raise Cancelled(f"cancelled after {done} of {total or 'all'}{again}")

    def _spend(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self.seconds[name] += value
