"""How an online adaptation learns: accuracy by step, measured with the true masks, which it never learns from.

    OUT/adaptation.json  all figures
    OUT/adaptation.html  the same as plots, with pictures

Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 4.2, Fig. 3; appendix C.3, Fig. 10, 11.
Differs: the oracle also tells where each sequence would best have been stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from vostrack.adapt.adaptation import Adaptation
from vostrack.benchmark.datasets.layouts import Sequence, read_labels
from vostrack.benchmark.datasets.mask_folders import Labels, read_mask
from vostrack.benchmark.datasets.table import Dataset, titled
from vostrack.benchmark.pool import run_all
from vostrack.benchmark.report.page import FOUND, MISSED, TAKEN, TEMPLATES, as_address, draw_errors
from vostrack.benchmark.runner import Variant
from vostrack.benchmark.score import FramePair, read_frames, score_frames, totals
from vostrack.benchmark.sequence_run import given_masks, loaded, open_frames
from vostrack.errors import DatasetError, MethodError, NoObjectError, VostrackError
from vostrack.files import OutputRoot, shown
from vostrack.notes import Code, Note
from vostrack.propagate import Propagator
from vostrack.run.callbacks import Callbacks, checked_callbacks
from vostrack.run.pipeline import PipelineConfig
from vostrack.types import Clip, Prediction
from vostrack.video.writer import mask_files

FIGURES, PAGE = "adaptation.json", "adaptation.html"
LINES = "adapted, against the truth", "method alone, against the truth", "adapted, against the method"


@dataclass(frozen=True)
class LearningCurve:
    """What a network has learned after some steps; all values are J&F, means over objects.

    Attributes:
        sequence: its name, or "mean".
        alone: of the method's own masks, against the truth.
        steps: numbers of steps, ascending.
        adapted: of the network's masks against the truth, by step (Fig. 3b).
        agreement: of the network's masks against the method's own, by step (Fig. 3a).
        pictures: of one frame, as addresses for `<img>`: with the method's own mask, then by step (Fig. 10).
    """

    sequence: str
    alone: float
    steps: tuple[int, ...]
    adapted: tuple[float, ...]
    agreement: tuple[float, ...]
    pictures: tuple[str, ...] = ()

    @property
    def lines(self) -> list[tuple[str, dict[int, float]]]:
        """What is plotted: names, and values by step."""
        alone = (self.alone,) * len(self.steps)
        named = zip(LINES, (self.adapted, alone, self.agreement), strict=True)
        return [(name, dict(zip(self.steps, values, strict=True))) for name, values in named]

    @property
    def best(self) -> tuple[float, int]:
        """The highest value against the truth, and after how many steps."""
        value = max(self.adapted)
        return value, self.steps[self.adapted.index(value)]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, without the pictures."""
        return {key: value for key, value in asdict(self).items() if key != "pictures"} | {"best": self.best}


def run_adaptation_curves(
    dataset: Dataset, variant: Variant, out: Path, every: int = 20, callbacks: Callbacks | None = None
) -> list[LearningCurve]:
    """Adapt a method to each sequence, and measure on the way; writes the figures and the page.

    Args:
        dataset: opened, with true masks.
        variant: with an adaptation in two passes, and no refinement.
        out: folder for both files.
        every: steps of training from one measurement to the next.
        callbacks: what is called on the way; progress counts sequences.

    Returns:
        The curve of each sequence that has an object, and last, if there are several, their mean.

    Raises:
        NoObjectError: no sequence has an object.
        VostrackError: an argument is wrong, or a sequence fails.
    """
    callbacks = checked_callbacks(callbacks)
    config = variant.pipeline
    if dataset.submission or dataset.distance is not None:
        raise DatasetError(f"{dataset.name} has no true masks of whole sequences to measure with: choose another")
    if config.adapt != "clip" or config.refine:
        raise MethodError(f"{variant.text!r} does not end with an adaptation in two passes: ask for adapt=clip alone")
    loaded.cache_clear()  # weights may have changed since this process ran a benchmark
    pipeline = loaded(config)
    assert pipeline.adapt is not None
    if not 1 <= every <= pipeline.adapt.iterations:
        raise MethodError(f"measure every 1 to {pipeline.adapt.iterations} steps, not every {every}")
    root = OutputRoot(out)
    for name in (FIGURES, PAGE):
        root.at(name)  # fails now, where it does, and not after hours
    tasks = [partial(learning_curve, sequence, config, every, callbacks.note) for sequence in dataset.sequences]
    curves = [curve for curve in run_all(tasks, 1, callbacks) if curve]
    if not curves:
        raise NoObjectError("no sequence has an object in its given mask")
    if len(curves) > 1:
        curves.append(mean_curve(curves))
    _write(root, dataset, variant, pipeline.record(), curves)
    return curves


def learning_curve(
    sequence: Sequence, config: PipelineConfig, every: int, note: Callable[[Note], None]
) -> LearningCurve | None:
    """The curve of a sequence; None, with a note, where it has no object.

    Raises:
        VostrackError: with the sequence's name.
    """
    try:
        with TemporaryDirectory() as folder:
            return _measured(sequence, config, every, Path(folder))
    except NoObjectError as error:
        note(Note(Code.SEQUENCE_NOT_SCORED, f"{shown(sequence.name)} is left out: {error}"))
        return None
    except VostrackError as error:
        if sequence.name not in str(error):
            error.args = (f"sequence {shown(sequence.name)}: {error}",)
        raise


def mean_curve(curves: list[LearningCurve]) -> LearningCurve:
    """The mean of curves of the same steps."""
    adapted, agreement = (
        tuple(fmean(values) for values in zip(*lines, strict=True))
        for lines in ([curve.adapted for curve in curves], [curve.agreement for curve in curves])
    )
    return LearningCurve("mean", fmean(curve.alone for curve in curves), curves[0].steps, adapted, agreement)


def _measured(sequence: Sequence, config: PipelineConfig, every: int, folder: Path) -> LearningCurve:
    """The curve of a sequence, whose masks go to a folder meanwhile."""
    pipeline, part = loaded(config), sequence.parts[0]
    assert pipeline.adapt is not None
    prompts = given_masks(sequence, part)
    adaptation = Adaptation(prompts, pipeline.adapt, pipeline.device)
    own, new = OutputRoot(folder / "own"), OutputRoot(folder / "adapted")
    engine = Propagator(pipeline.method, config.size, pipeline.device)
    with open_frames(sequence, part.frames) as stream:
        _keep(own, sequence, map(adaptation.watch, engine.run(Clip(stream, prompts))))
    alone = _value(sequence, read_frames(sequence, own.path / "masks"))
    pictures = [_picture(sequence, own.path)]
    steps, adapted, agreement = list[int](), list[float](), list[float]()
    for _ in adaptation.train():
        if adaptation.steps % every:
            continue
        with open_frames(sequence, part.frames) as stream:
            _keep(new, sequence, map(adaptation.apply, stream))
        steps.append(adaptation.steps)
        adapted.append(_value(sequence, read_frames(sequence, new.path / "masks")))
        agreement.append(_value(sequence, _against(sequence, new.path, own.path)))
        pictures.append(_picture(sequence, new.path))
    return LearningCurve(sequence.name, alone, tuple(steps), tuple(adapted), tuple(agreement), tuple(pictures))


def _keep(root: OutputRoot, sequence: Sequence, predictions: Iterable[Prediction]) -> None:
    """Write the masks that count."""
    for prediction in predictions:
        if prediction.frame.name in sequence.scored:
            for name, data in mask_files(prediction):
                root.write(name, data)


def _value(sequence: Sequence, frames: Iterable[FramePair]) -> float:
    scores = score_frames(sequence.name, frames)
    if not scores:
        raise NoObjectError("no object counts in any frame")
    return totals(scores)["J&F"]


def _against(sequence: Sequence, new: Path, own: Path) -> Iterator[FramePair]:
    """The frames that count, with the method's own masks in the place of the truth."""
    pairs = zip(read_frames(sequence, new / "masks"), read_frames(sequence, own / "masks"), strict=True)
    for (frame, ids, result, _), (_, _, truth, _) in pairs:
        yield frame, ids, result, truth


def _picture(sequence: Sequence, folder: Path) -> str:
    """What is right and wrong in the frame in the middle, as an address for `<img>`."""
    frame = sequence.scored[len(sequence.scored) // 2]
    with open_frames(sequence, [frame]) as stream:
        image: Labels = next(given.image for given in stream if given.name == frame).numpy().transpose(1, 2, 0)
    truth = read_labels(sequence.truths[frame], sequence.masks, keep_void=sequence.ignore_void)
    return as_address(draw_errors(image, truth, read_mask(folder / "masks" / f"{frame}.png")))


def _write(
    root: OutputRoot, dataset: Dataset, variant: Variant, settings: Mapping[str, Any], curves: list[LearningCurve]
) -> None:
    title = titled(dataset.spec.title, dataset.split)
    about = {"dataset": title, "subset": dataset.subset, "variant": variant.text, "settings": settings}
    rows = [curve.to_json() for curve in curves]
    root.write_json(FIGURES, {"format": "vostrack-adaptation-1", **about, "curves": rows})
    keys = ((FOUND, "right"), (MISSED, "missed"), (TAKEN, "wrongly taken"))
    template, mean_first = TEMPLATES.get_template(f"{PAGE}.j2"), curves[-1:] + curves[:-1]
    page = template.render(**about, names=LINES, curves=mean_first, keys=keys)
    root.write(PAGE, page.encode(errors="backslashreplace"))
