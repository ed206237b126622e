"""One run of `segment` after everything was opened and checked: frames go through the chain, and its state is saved.

The chain is `engine.run -> stages -> writers`. To save where the run stands, nothing may be under way in between: the
stages are fed until it is time to save, and they give all that they hold when they are fed no more.

With an adaptation in two passes the first pass writes nothing, the network is trained, and in the second pass the
network takes the place of the engine. `.vostrack/state.safetensors` says where the first two stand and
`.vostrack/second.json` where the last one does.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vostrack.adapt.adaptation import Adaptation, AdaptFilter
from vostrack.errors import InputError
from vostrack.propagate import Propagator
from vostrack.refine.base import Stage, through
from vostrack.run.folder import OutputFolder
from vostrack.run.summary import ObjectLog, peak_rss_mb
from vostrack.types import Clip, Frame, LabelMap, Prediction
from vostrack.video.prefetch import Prefetch
from vostrack.video.writer import WRITERS, Destination, ThreadedWriter, Writer

PARTS = ("decode", "model", "adapt", "refine", "write")
FIRST, TRAINING, SECOND = "following", "training", "segmenting"

_SAVE_SECONDS = 20.0
_ADAPTED = 3  # an adaptation's state is large: it is saved so many times less often


@dataclass(frozen=True)
class Reports:
    """Whom a run tells how it goes; the parameters of `segment`."""

    on_frame: Callable[[int, int | None], None]
    on_note: Callable[[str], None]
    on_phase: Callable[[str], None]


class Job:
    """A run over one clip, into one folder."""

    def __init__(
        self,
        folder: OutputFolder,
        record: Mapping[str, Any],
        source: Path,
        prompts: Mapping[int, LabelMap],
        reports: Reports,
    ) -> None:
        """Take what `segment` has prepared."""
        self.folder, self.record, self.source, self.prompts = folder, record, source, prompts
        self.reports = reports
        self.log = ObjectLog()
        self.notes: list[str] = []
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._start = time.perf_counter()

    def note(self, text: str) -> None:
        """Keep a note for the summary and pass it on, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.reports.on_note(text)

    def run(
        self, frames: Prefetch, engine: Propagator, stages: Mapping[str, Stage], adaptation: Adaptation | None = None
    ) -> dict[str, Any]:
        """One pass: propagate, refine and write; the state is saved every so often and when `on_frame` raises.

        Args:
            frames: the clip.
            engine: at the point where the run begins or goes on.
            stages: what predictions go through, in this order; not yet entered.
            adaptation: the one that is among the stages, if one is.

        Returns:
            The summary.
        """

        def save() -> None:
            self.folder.save_progress(engine.position, adaptation.state if adaptation else None)

        def predictions(coming: Iterator[Frame]) -> Iterator[Prediction]:
            yield from engine.run(Clip(coming, self.prompts))
            if adaptation and adaptation.steps < (needed := adaptation.config.live_warm_up):
                self.note(f"the adaptation had no effect: {adaptation.steps} of {needed} steps to warm up were done")

        every = _SAVE_SECONDS * (_ADAPTED if adaptation else 1)
        return self._written(frames, engine.position.next_frame, predictions, "model", stages, save, every)

    def learn(self, frames: Prefetch, engine: Propagator, adaptation: Adaptation) -> None:
        """First of two passes, and the training that follows; saved as in `run`. What is done already is left out.

        Args:
            frames: the clip.
            engine: at the point where the pass begins or goes on.
            adaptation: likewise.
        """

        def save() -> None:
            self.folder.save_progress(engine.position, adaptation.state)

        if not adaptation.steps:
            self.reports.on_phase(FIRST)
            self._watch(frames, engine, adaptation, save)
            engine.position = replace(engine.position, state=None)  # it may be large, and nobody needs it any more
            save()
        if adaptation.steps < adaptation.config.iterations:
            self.reports.on_phase(TRAINING)
            self._train(adaptation, save)
            save()

    def apply(
        self, frames: Prefetch, adaptation: Adaptation, probs_size: tuple[int, int] | None, stages: Mapping[str, Stage]
    ) -> dict[str, Any]:
        """Second of two passes: the network's masks are refined and written; saved as in `run`.

        Args:
            frames: the clip, opened again.
            adaptation: trained.
            probs_size: (H, W) of the probabilities that predictions carry, or None for none.
            stages: what predictions go through, in this order; not yet entered.

        Returns:
            The summary.
        """

        def save() -> None:
            self.folder.save_second(self.log.frames)

        def predictions(coming: Iterator[Frame]) -> Iterator[Prediction]:
            return (adaptation.apply(frame, probs_size) for frame in coming)

        self.reports.on_phase(SECOND)
        return self._written(frames, self.folder.load_second(), predictions, "adapt", stages, save, _SAVE_SECONDS)

    def _watch(self, frames: Prefetch, engine: Propagator, adaptation: Adaptation, save: Callable[[], None]) -> None:
        stage = AdaptFilter(adaptation.watch)
        with frames:
            coming = iter(frames)
            for frame in islice(coming, engine.position.next_frame):
                self.reports.on_frame(frame.index + 1, frames.count)
            feed = Feed(frames, self.reports.on_frame, save, _SAVE_SECONDS * _ADAPTED)
            for _ in feed.through(engine.run(Clip(coming, self.prompts)), (stage,)):
                pass
        self.seconds["decode"] += frames.busy
        self.seconds["model"] += feed.seconds
        self.seconds["adapt"] += stage.seconds

    def _train(self, adaptation: Adaptation, save: Callable[[], None]) -> None:
        start = saved = time.perf_counter()
        for _ in adaptation.train():
            try:
                self.reports.on_frame(adaptation.steps, adaptation.config.iterations)
            except BaseException:
                save()  # only here: within a step the network is neither what it was nor what it will be
                raise
            if time.perf_counter() - saved > _SAVE_SECONDS * _ADAPTED:
                save()
                saved = time.perf_counter()
        self.seconds["adapt"] += time.perf_counter() - start

    def _written(
        self,
        frames: Prefetch,
        first: int,
        predictions: Callable[[Iterator[Frame]], Iterator[Prediction]],
        part: str,
        stages: Mapping[str, Stage],
        save: Callable[[], None],
        every: float,
    ) -> dict[str, Any]:
        """The pass that writes results, from frame `first` on; `part` is what making predictions counts as."""
        to = Destination(self.folder.path, None if self.source.is_dir() else self.source, frames.fps)
        writers = {name: WRITERS[name](to) for name in self.record["outputs"]}
        with frames, ThreadedWriter(list(writers.values())) as writing, ExitStack() as entered:
            for stage in stages.values():
                entered.enter_context(stage)
            coming = iter(frames)
            start = time.perf_counter()
            self._read_again(islice(coming, first), frames.count, writers.get("overlay"))
            again = time.perf_counter() - start

            def flush_and_save() -> None:
                writing.flush()
                save()

            feed = Feed(frames, self.reports.on_frame, flush_and_save, every)
            for prediction in feed.through(predictions(coming), tuple(stages.values())):
                self.folder.announce(prediction.frame)
                writing.write(prediction)
                self.log.add(prediction)
        for text in (*frames.notes, *writing.notes, *self.log.warnings()):
            self.note(text)
        spent = {"decode": frames.busy, part: feed.seconds, "write": writing.seconds}
        for name, seconds in (*spent.items(), *((name, stage.seconds) for name, stage in stages.items())):
            self.seconds[name] += seconds
        return self._summary(frames, self.log.frames - first, time.perf_counter() - self._start - again)

    def _read_again(self, frames: Iterable[Frame], count: int | None, overlay: Writer | None) -> None:
        """Frames that are done go to the log and the overlay with the masks that lie there.

        A video file cannot be continued, so that the overlay starts again from its first frame.
        """
        for frame in frames:
            done = self.folder.read_prediction(frame, self.prompts)
            self.log.add(done)
            if overlay is not None:
                overlay.write(done)
            self.reports.on_frame(frame.index + 1, count)

    def _summary(self, frames: Prefetch, new: int, total: float) -> dict[str, Any]:
        """Write and give the summary of a run that wrote `new` frames."""
        if not self.log.frames:
            raise InputError(f"{frames.name} has no frames: check the file")
        seconds = {name: value / max(new, 1) for name, value in (self.seconds | {"total": total}).items()}
        seconds["decode"] = self.seconds["decode"] / self.log.frames  # a run that goes on decodes all of them
        summary = {
            **self.record,
            "out": str(self.folder.path),
            "frames": self.log.frames,
            "frame_size": list(frames.size),
            "objects": self.log.objects(),
            "seconds_per_frame": {name: round(value, 4) for name, value in seconds.items()},
            "peak_rss_mb": peak_rss_mb(),
            "python": platform.python_version(),
            "warnings": self.notes,
        }
        self.folder.complete(summary)
        return summary


class Feed:
    """Feeds stages, and stops feeding them to save where they stand: every so often, and when `on_frame` raises.

    Attributes:
        seconds: time spent to make the predictions that they are fed with, but for waiting for frames.
    """

    def __init__(
        self, frames: Prefetch, on_frame: Callable[[int, int | None], None], save: Callable[[], None], every: float
    ) -> None:
        """Take what saves, and after how many seconds."""
        self.seconds = 0.0
        self._frames, self._on_frame, self._save, self._every = frames, on_frame, save, every
        self._done = False  # there are no more predictions
        self._stop: BaseException | None = None  # what `on_frame` raised

    def through(self, predictions: Iterator[Prediction], stages: tuple[Stage, ...]) -> Iterator[Prediction]:
        """Predictions after all stages; who takes one is done with it when asking for the next.

        Raises:
            BaseException: what `on_frame` raised, as soon as what is under way is through and the state is saved.
        """
        while not self._done:
            for prediction in through(self._until_save(predictions), stages):
                yield prediction
                self._tell(prediction.frame)
            # Only here is the state sure to be whole, and all that was predicted up to it through.
            if self._stop is not None or not self._done:
                self._save()
            if self._stop is not None:
                raise self._stop

    def _until_save(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Predictions until it is time to save, or to stop, or there are no more."""
        end = time.monotonic() + self._every
        while self._stop is None:
            start, waited = time.perf_counter(), self._frames.waited
            prediction = next(predictions, None)
            if prediction is None:
                self._done = True
                return
            self.seconds += time.perf_counter() - start - (self._frames.waited - waited)
            yield prediction
            if time.monotonic() > end:
                return

    def _tell(self, frame: Frame) -> None:
        if self._stop is not None:
            return
        try:
            self._on_frame(frame.index + 1, self._frames.count)
        except BaseException as error:
            self._stop = error
