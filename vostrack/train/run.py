"""A training run: finds and decodes footage, trains, evaluates, draws, and writes the weights."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vostrack import __version__
from vostrack import weights as store
from vostrack.benchmark.datasets.table import data_folders
from vostrack.errors import DatasetError, MethodError, OutputError, OutputExistsError, counted
from vostrack.files import OutputRoot, lock_folder, open_regular, output_error, parse_json, shown
from vostrack.methods import build_net, method_class
from vostrack.methods.base import Method, Objective, Stepping
from vostrack.methods.recipe import Recipe
from vostrack.notes import Code, Note
from vostrack.run.callbacks import Callbacks
from vostrack.train.data.cache import FrameCache, build_cache
from vostrack.train.data.footage import Source, drawn, find_footage, find_labelled, find_stills
from vostrack.train.evaluate import held_out_scores, method_now, write_picture
from vostrack.train.loop import CHECKPOINT, METRICS, settled, train
from vostrack.train.parallel import ProcessGroup
from vostrack.train.reports import EvaluationReport, Report, StepReport, TrainCallbacks
from vostrack.train.settings import TrainConfig

BEST = "best.safetensors"
PICTURES = "pictures"

HELD_OUT_FRAMES = 25
"""Frames of a held-out clip that are kept, those with masks, from its first one on."""

HELD_OUT_SIZE = 240
"""Their short side in pixels."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and where to.

    Attributes:
        method: name of the method.
        data: folders of footage.
        stills: folders of single images.
        held_out: folder of clips with masks to evaluate on, or None.
        out: folder of the run.
        cache: folder of decoded frames; None for one below `out`.
        recipe: the method's recipe, as it was chosen and changed.
        resume: whether to go on with the run in `out`.
        board: whether losses are logged for TensorBoard.
        config: how the run trains, whatever its method.
    """

    method: str
    data: tuple[Path, ...]
    stills: tuple[Path, ...]
    held_out: Path | None
    out: Path
    cache: Path | None
    recipe: Recipe
    resume: bool
    board: bool
    config: TrainConfig


def default_data() -> tuple[Path, ...]:
    """`$VOSTRACK_DATA/clips`, else `./clips`.

    Raises:
        DatasetError: neither exists.
    """
    candidates = [parent / "clips" for parent in data_folders(".")]
    for folder in candidates:
        if folder.is_dir():
            return (folder,)
    looked = " and ".join(map(str, candidates))
    raise DatasetError(
        f"no footage to train on: looked for {looked}; give a folder with videos or frame folders as `data`"
    )


class TrainingRun:
    """A run, in the order of its methods: `locked`, a context, and in it `decode` and `run`.

    Attributes:
        cache: decoded footage.
        held_out: the same of the clips to evaluate on, or None.
    """

    cache: FrameCache
    held_out: FrameCache | None = None

    def __init__(self, options: TrainOptions, group: ProcessGroup) -> None:
        """Build what is trained, and find its footage; nothing is written.

        Args:
            options: what to train, on what and how.
            group: the processes that train; the first decodes while the others wait.

        Raises:
            OutputExistsError: there is a run in the folder and `resume` was not asked for.
            MethodError, WeightsError: the method's name, its recipe, or the weights to start from.
            DatasetError, OutputError: the footage, or the folder.
        """
        self._options, self._group = replace(options, config=settled(options.config, group)), group
        self._root = OutputRoot(options.out)
        self._cache = options.cache or self._root.at("cache")
        self._check()
        self._factory = method_class(options.method)
        self._net, self._objective = self._build()
        self._sources = self._found()
        self._to_hold_out = [] if options.held_out is None else find_labelled([options.held_out], "held_out")
        self._decoding, self._drawn_at, self._drawn_step = 0.0, -float("inf"), -1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out of the folder of the run, and clear away what a killed run left there.

        Raises:
            OutputExistsError: another process works in the folder, or finished a run there meanwhile.
            OutputError: it cannot be written.
        """
        with lock_folder(self._options.out) if self._group.leads else nullcontext():
            if self._group.leads:
                self._check()
            yield

    def decode(self, callbacks: Callbacks) -> None:
        """Decode the footage where that was not done before; takes half of the minutes of the run at most.

        Args:
            callbacks: told in the process that leads, as `build_cache` does.

        Raises:
            DatasetError, OutputError: the footage, or the folder.
        """
        options, start = self._options, time.monotonic()
        folder, held = self._cache, OutputRoot(self._cache).at("held-out")
        minutes, begun = options.config.max_minutes, self._root.at(CHECKPOINT).exists()
        # Where training goes on, its footage must be what it was.
        until = float("inf") if minutes is None or begun else start + 30 * minutes
        if self._group.leads:
            side, most = (
                max(self._objective.clips.short_side, self._objective.clips.crop),
                int(1e9 * options.config.cache_size),
            )
            if self._to_hold_out:
                clips = self._to_hold_out
                held_size = build_cache(clips, held, HELD_OUT_SIZE, HELD_OUT_FRAMES, most, until, callbacks).size
                most = max(0, most - held_size)
            build_cache(self._sources, folder, side, None, most, until, callbacks)
            self._decoding = time.monotonic() - start
        (self._decoding,) = self._group.totals([self._decoding])  # the others wait here
        self.cache = FrameCache(folder)
        self.held_out = FrameCache(held) if self._to_hold_out else None
        self.cache.hold_where_it_fits(self._group.device)

    def run(self, callbacks: TrainCallbacks) -> Path:
        """Train and write the weights: those of the best evaluation, or the last ones where nothing is held out.

        Args:
            callbacks: told in every process.

        Returns:
            The weights file.

        Raises:
            InputError, OutputError: the checkpoint cannot be used, or something cannot be written.
        """
        options, group = self._options, self._group
        settings = {"footage": self.cache.digest, "held_out": self.held_out and self.held_out.digest}
        held_out = self.held_out
        evaluate = None if held_out is None else lambda: held_out_scores(held_out, self._method(), group)
        reports = train(
            self._objective,
            options.recipe,
            self.cache,
            options.config,
            options.out,
            group,
            evaluate,
            settings,
            self._decoding,
        )
        last: Report | None = None
        with self._board() as board, closing(reports):
            for last in reports:
                if isinstance(last, EvaluationReport) and last.best and group.leads:
                    self._save(self._root.at(BEST), last)
                for name, value in _scalars(last).items():
                    board(name, value, last.step)
                if time.monotonic() - self._drawn_at > 60 * options.config.picture_minutes:
                    self._draw(last.step, callbacks)
                group.together(partial(callbacks.report, last))
            if last is None:
                text = "nothing was trained: `steps`, `max_minutes` or `patience` is used up; raise it to go on"
                group.together(partial(callbacks.note, Note(Code.TRAIN_OVER, text)))
            last = last or self._reported()
            if last is not None:
                self._draw(last.step, callbacks)
            return self._finish(last)

    def _check(self) -> None:
        """Refuse a folder and a division of the batch that cannot be used."""
        options, path = self._options, self._root.at(CHECKPOINT)
        for name in (METRICS, BEST, PICTURES, f"{options.method}.safetensors", "tensorboard"):
            self._root.at(name)  # fails now, where it does, and not after hours
        if path.exists() and not options.resume:
            raise OutputExistsError(
                f"{shown(path)} is there already: go on with `resume=True`, or choose another `out`"
            )
        if options.resume and not any(each.exists() for each in (path, self._cache)):
            raise OutputError(f"there is no {shown(path)} to resume: leave `resume` out to start")
        batch, parts, size = options.recipe.batch, options.config.micro_batches, self._group.size
        if parts % size or batch % parts:
            raise MethodError(
                f"a batch of {batch} cannot be computed in {counted(parts, 'part')} by {counted(size, 'process')}: "
                "micro_batches must divide batch, and be a multiple of the number of processes"
            )

    def _build(self) -> tuple[nn.Module, Objective]:
        """The network with the weights that training starts from, and the objective around it."""
        method, recipe = self._options.method, self._options.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._options.config.seed)
            net = build_net(method, recipe.net)
        if recipe.after and not recipe.start:
            raise MethodError(
                f"this recipe goes on from weights that the recipe {recipe.after!r} gave: train these first, and give "
                "their file as `start`"
            )
        if recipe.start:
            store.load(net, method, store.find(method, recipe.start), self._factory.adopts)
        if self._factory.objective is None:
            raise MethodError(f"{method} cannot be trained here")
        return net, self._factory.objective(net, recipe)

    def _found(self) -> list[Source]:
        """The footage, or what the seed draws from it."""
        found, config = self._all_found(), self._options.config
        return found if config.clips is None else drawn(found, config.clips, config.seed)

    def _all_found(self) -> list[Source]:
        """The footage; with masks, where the objective wants them."""
        method, data, stills = self._options.method, self._options.data, self._options.stills
        if not self._objective.clips.labels:
            all_frames = self._objective.clips.source_gap > 0
            footage = [replace(source, all_frames=all_frames) for source in find_footage(data)] if data else []
            return footage + (find_stills(stills) if stills else [])
        if stills:
            raise DatasetError(f"{method} learns from masks, and `stills` have none: give `data` with masks instead")
        return find_labelled(data)

    def _method(self) -> Method[Any] | Stepping:
        """The method with the network as it stands."""
        return method_now(self._factory, self._net, self._group.device, self._options.recipe.net)

    def _draw(self, step: int, callbacks: Callbacks) -> None:
        """Draw `pictures/STEP.png` if it is wanted and not there; what goes wrong there must not end the run."""
        options = self._options
        if not self._group.leads or options.config.picture_minutes <= 0 or step == self._drawn_step:
            return
        try:
            path = self._root.new(f"{PICTURES}/{step:06d}.png").final
            write_picture(path, self.held_out or self.cache, self._method(), self._group.device)
        except Exception as error:
            text = f"no picture of step {step}: {type(error).__name__}: {error}"
            callbacks.note(Note(Code.PICTURE_FAILED, text))
        self._drawn_at, self._drawn_step = time.monotonic(), step

    def _reported(self) -> Report | None:
        """The last report of a run that was over already, from its metrics."""
        with suppress(OSError, ValueError), open_regular(self._root.at(METRICS)) as file:
            (line,) = deque(file, 1)
            return cast(Report, parse_json(line, EvaluationReport if b'"held_out"' in line else StepReport))
        return None

    def _finish(self, last: Report | None) -> Path:
        """Write the weights of the run."""
        path, best = (self._root.at(name) for name in (f"{self._options.method}.safetensors", BEST))
        if self._group.leads and self.held_out is None:
            self._save(path, last)
        elif self._group.leads:
            try:
                self._root.write(path.name, best.read_bytes())
            except OSError as error:
                raise output_error(error, best) from error
        return path

    def _save(self, path: Path, report: Report | None) -> None:
        """Write the weights as they stand, with how they were trained."""
        options = self._options
        details = {
            "vostrack": __version__,
            "torch": torch.__version__,
            "device": self._group.device.type,
            "processes": self._group.size,
            "clips": len(self.cache.clips),
            "frames": self.cache.frame_count,
            "recipe": asdict(options.recipe),
            "config": asdict(options.config),
            "steps": report.step if report else None,
            "minutes": round(report.seconds / 60, 1) if report else None,
            "held_out": report.mean if isinstance(report, EvaluationReport) else None,
            "held_out_start": report.first if isinstance(report, EvaluationReport) else None,
        }
        store.save_weights(self._net, options.method, path, details, options.recipe.net)

    @contextmanager
    def _board(self) -> Iterator[Callable[[str, float, int], Any]]:
        """Where losses are logged for TensorBoard: nowhere, or OUT/tensorboard if it was asked for."""
        if not self._options.board or not self._group.leads:
            yield lambda name, value, step: None
            return
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise OutputError(
                "TensorBoard is not installed: pip install 'vostrack[train]', or leave `board` out"
            ) from error
        with SummaryWriter(str(self._options.out / "tensorboard")) as writer:
            yield writer.add_scalar


def _scalars(report: Report) -> dict[str, float]:
    """What of a report goes to TensorBoard."""
    if isinstance(report, StepReport):
        return {**report.losses, "learning_rate": report.learning_rate}
    return {"held_out/J": report.mean, **{f"held_out/{name}": score for name, score in report.held_out.items()}}
