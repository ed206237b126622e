"""A training run: finds and decodes footage, trains, evaluates, draws, and writes the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vostrack import __version__
from vostrack import weights as store
from vostrack.benchmark.datasets.table import data_folders
from vostrack.errors import DatasetError, MethodError, OutputError, OutputExistsError
from vostrack.files import OutputRoot, lock_folder, make_folder, output_error, shown
from vostrack.methods import build_net, method_class
from vostrack.methods.base import Method, Objective
from vostrack.methods.recipe import Recipe
from vostrack.train.data.cache import SHORT_SIDE, FrameCache, build_cache
from vostrack.train.data.footage import Source, find_footage, find_labelled, find_stills
from vostrack.train.evaluate import held_out_scores, method_now, write_picture
from vostrack.train.loop import CHECKPOINT, METRICS, EvaluationReport, Report, StepReport, settled, train
from vostrack.train.parallel import ProcessGroup
from vostrack.train.settings import TrainConfig, share_done

BEST = "best.safetensors"
PICTURES = "pictures"

HELD_OUT_FRAMES = 25
"""Frames of a held-out clip that are kept, those with masks, from its first one on."""

HELD_OUT_SIZE = 240
"""Their short side in pixels."""

OnSource = Callable[[int, int, str], None]
"""Called after each decoded source with (done, all, what is wrong with it or "")."""


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
    raise DatasetError(f"no footage to train on: looked for {looked}; give --data FOLDER with videos or frame folders")


class TrainingRun:
    """A run that is ready for its first step, or for the next one.

    Attributes:
        cache: decoded footage.
        held_out: the same of the clips to evaluate on, or None.
    """

    def __init__(self, options: TrainOptions, group: ProcessGroup, on_source: OnSource) -> None:
        """Build what is trained, and decode the footage where that was not done before.

        Args:
            options: what to train, on what and how.
            group: the processes that train; the first decodes while the others wait.
            on_source: called in that process.

        Raises:
            OutputExistsError: there is a run in the folder and `resume` was not asked for.
            MethodError, WeightsError: the method's name, its recipe, or the weights to start from.
            DatasetError, OutputError: the footage, or the folder.
        """
        self._options, self._group = replace(options, config=settled(options.config, group)), group
        self._root = OutputRoot(options.out)
        self._check()
        self._factory = method_class(options.method)
        self._net, self._objective = self._build()
        sources = self._sources()
        make_folder(options.out)
        folder = options.cache or options.out / "cache"
        self._cache_root = OutputRoot(options.cache or options.out)
        self.cache = self._decode(sources, folder, on_source, max(SHORT_SIDE, self._objective.clips.crop))
        self.held_out: FrameCache | None = None
        if options.held_out is not None:
            sources = find_labelled([options.held_out], "--held-out")
            self.held_out = self._decode(sources, folder / "held-out", on_source, HELD_OUT_SIZE, HELD_OUT_FRAMES)
        self.cache.hold_where_it_fits(group.device)
        self._drawn_at, self._drawn_step = -float("inf"), -1

    def run(self, on_report: Callable[[Report, float], None], on_note: Callable[[str], None]) -> Path:
        """Train and write the weights: those of the best evaluation, or the last ones where nothing is held out.

        Args:
            on_report: called after each step and each evaluation with its report and the share of the run that is done;
                what it raises ends the run, in all processes after the same step, and the run can then be resumed.
            on_note: called with what went wrong and does not end the run.

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
            self._objective, options.recipe, self.cache, options.config, options.out, group, evaluate, settings
        )
        last: Report | None = None
        with lock_folder(options.out) if group.leads else nullcontext(), self._board() as board, closing(reports):
            for last in reports:
                if isinstance(last, EvaluationReport) and last.best and group.leads:
                    self._save(self._root.at(BEST), last)
                for name, value in _scalars(last).items():
                    board(name, value, last.step)
                if time.monotonic() - self._drawn_at > 60 * options.config.picture_minutes:
                    self._draw(last.step, on_note)
                group.together(
                    partial(on_report, last, share_done(options.recipe, options.config, last.step, last.seconds))
                )
            if last is not None:
                self._draw(last.step, on_note)
            return self._finish(last)

    def _check(self) -> None:
        """Refuse a folder and a division of the batch that cannot be used."""
        options, path = self._options, self._root.at(CHECKPOINT)
        for name in (METRICS, BEST, PICTURES, f"{options.method}.safetensors", "tensorboard"):
            self._root.at(name)  # fails now, where it does, and not after hours
        if path.exists() and not options.resume:
            raise OutputExistsError(f"{shown(path)} is there already: go on with --resume, or choose another --out")
        if options.resume and not path.exists():
            raise OutputError(f"there is no {shown(path)} to resume: leave --resume out to start")
        batch, parts, processes = options.recipe.batch, options.config.micro_batches, self._group.size
        if parts % processes or batch % parts:
            raise MethodError(
                f"a batch of {batch} cannot be computed in {parts} parts by {processes} processes: --micro-batches "
                "must divide --batch, and be a multiple of the number of processes"
            )

    def _build(self) -> tuple[nn.Module, Objective]:
        """The network with the weights that training starts from, and the objective around it."""
        method, recipe = self._options.method, self._options.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._options.config.seed)
            net = build_net(method, recipe.net)
        if recipe.start:
            store.load(net, method, store.find(method, recipe.start), self._factory.adopts)
        if self._factory.objective is None:
            raise MethodError(f"{method} is not trained itself")
        return net, self._factory.objective(net, recipe)

    def _sources(self) -> list[Source]:
        """The footage; with masks, where the objective wants them."""
        method, data, stills = self._options.method, self._options.data, self._options.stills
        if not self._objective.clips.labels:
            return (find_footage(data) if data else []) + (find_stills(stills) if stills else [])
        if stills:
            raise DatasetError(f"{method} learns from masks, and --stills have none: give --data with masks instead")
        return find_labelled(data)

    def _decode(
        self, sources: list[Source], folder: Path, on_source: OnSource, side: int, limit: int | None = None
    ) -> FrameCache:
        """A cache that the leading process builds while the others wait."""
        if self._group.leads:
            build_cache(sources, folder, side, limit, on_source, self._cache_root)
        self._group.wait()
        return FrameCache(folder)

    def _method(self) -> Method[Any]:
        """The method with the network as it stands."""
        return method_now(self._factory, self._net, self._group.device)

    def _draw(self, step: int, on_note: Callable[[str], None]) -> None:
        """Draw `pictures/STEP.png` if it is wanted and not there; what goes wrong there must not end the run."""
        options = self._options
        if not self._group.leads or options.config.picture_minutes <= 0 or step == self._drawn_step:
            return
        try:
            path = self._root.new(f"{PICTURES}/{step:06d}.png").final
            write_picture(path, self.held_out or self.cache, self._method(), self._group.device)
        except Exception as error:
            on_note(f"no picture of step {step}: {type(error).__name__}: {error}")
        self._drawn_at, self._drawn_step = time.monotonic(), step

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
                "TensorBoard is not installed: pip install 'vostrack[train]', or leave --board out"
            ) from error
        with SummaryWriter(str(self._options.out / "tensorboard")) as writer:
            yield writer.add_scalar


def _scalars(report: Report) -> dict[str, float]:
    """What of a report goes to TensorBoard."""
    if isinstance(report, StepReport):
        return {**report.losses, "learning_rate": report.learning_rate}
    return {"held_out/J": report.mean, **{f"held_out/{name}": score for name, score in report.held_out.items()}}
