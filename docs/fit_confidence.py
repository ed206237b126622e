"""Fits how runs tell their confidence: `python docs/fit_confidence.py RUNS TRUTH METHOD` prints lines of a TOML file.

RUNS holds an output folder of `vostrack segment` for each sequence, TRUTH a folder of masks of the same name for each,
whose files are in the order of the frames. The lines go to `weights/confidence.toml`; what is measured on other
sequences, with `--check`, goes to the card beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vostrack.benchmark.datasets.mask_folders import read_mask
from vostrack.files import OutputRoot, read_json
from vostrack.run.confidence import FEATURES, Model, Term, features, load_model
from vostrack.run.signs import read_signs

Array = npt.NDArray[np.float64]

AGAINST = dict.fromkeys(FEATURES, -1) | {"inside": 1, "margin": 1, "least": 1, "least_since": 1, "size": 1}
"""What each feature says of a mask: a coefficient of the other sign would only fit the few sequences at hand."""

RIDGE = 0.02
FOLDS = 5
NAN = float("nan")


class Run(NamedTuple):
    """Predicted masks that show an object: features (N, F) and J (N,)."""

    name: str
    features: Array
    scores: Array


def read_run(run: Path, truth: Path) -> list[Run]:
    """The masks of a run, an entry for each object."""
    given = [int(frame) for frame in read_json(run / "summary.json")["masks"]]
    signs, files = read_signs(OutputRoot(run)), sorted(truth.glob("*.png"))
    found = []
    for number in sorted({number for frame in signs for number in frame.objects}):
        own = [(frame.frame, frame.objects[number]) for frame in signs if number in frame.objects]
        table = features(own, given)
        rows = [at for at, (frame, sign) in enumerate(own) if sign.area and frame not in given]
        scores = [_iou(run, own[at][0], number, files) for at in rows]
        columns = np.stack([table[name][rows] for name in FEATURES], axis=1)
        found.append(Run(f"{run.name} {number}", columns, np.array(scores)))
    return found


def _iou(run: Path, frame: int, number: int, files: Sequence[Path]) -> float:
    masks = sorted((run / "masks").glob("*.png"))
    ours, true = read_mask(masks[frame]) == number, read_mask(files[frame])
    theirs = true == (number if number in true else 255)
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))


def fit(runs: Sequence[Run]) -> Model:
    """The logistic model with J as its target; each run counts the same, coefficients keep the signs of `AGAINST`."""
    x, y = np.concatenate([run.features for run in runs]), np.concatenate([run.scores for run in runs])
    weights = np.concatenate([np.full(len(run.scores), 1 / max(len(run.scores), 1)) for run in runs])
    weights /= weights.sum()
    known = ~np.isnan(x)
    counted = np.maximum((known * weights[:, None]).sum(0), 1e-9)
    mean = (np.where(known, x, 0) * weights[:, None]).sum(0) / counted
    centred = np.where(known, x - mean, 0)
    scale = np.sqrt((centred**2 * weights[:, None]).sum(0)) + 1e-6
    z, signs = centred / scale, np.array([AGAINST[name] for name in FEATURES])
    bias, slopes = 0.0, np.zeros(len(FEATURES))
    for _ in range(2_000):
        error = weights * (1 / (1 + np.exp(-(bias + z @ slopes))) - y)
        bias -= 2 * error.sum()
        slopes -= 0.5 * (z.T @ error + RIDGE * slopes)
        slopes *= slopes * signs > 0
    used = [at for at in range(len(FEATURES)) if abs(slopes[at]) > 0.01]
    terms = {FEATURES[at]: Term(round(slopes[at] / scale[at], 4), round(mean[at], 4)) for at in used}
    return Model(round(bias, 4), terms)


def expected(model: Model, run: Run) -> Array:
    """What a model expects of the masks of a run."""
    return model({name: run.features[:, at] for at, name in enumerate(FEATURES)})


def spearman(one: Array, other: Array) -> float:
    """Rank correlation; equal values share their ranks."""
    ranks = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in (one, other)]
    a, b = ((np.cumsum(counts) - counts / 2)[inverse] for inverse, counts in ranks)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else NAN


def calibration_error(guesses: Array, scores: Array) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((guesses * 10).astype(int), 9)
    gaps = [(bins == b).mean() * abs(guesses[bins == b].mean() - scores[bins == b].mean()) for b in set(bins.tolist())]
    return float(sum(gaps))


def report(pairs: Sequence[tuple[Run, Array]]) -> str:
    """How well guesses fit scores, in a line."""
    within = [spearman(guess, run.scores) for run, guess in pairs]
    guesses, scores = np.concatenate([g for _, g in pairs]), np.concatenate([run.scores for run, _ in pairs])
    return (
        f"{len(scores)} masks of {len(pairs)} objects: rank correlation within {np.nanmean(within):.3f}, "
        f"pooled {spearman(guesses, scores):.3f}, calibration error {calibration_error(guesses, scores):.3f}, "
        f"mean J {scores.mean():.3f}, expected {guesses.mean():.3f}"
    )


def main(arguments: Sequence[str]) -> None:
    """Fit, or check with `--check` what is in the weights folder."""
    *folders, method = [argument for argument in arguments if argument != "--check"]
    *places, truth = map(Path, folders)
    there = [path for place in places for path in sorted(place.iterdir()) if (path / "summary.json").is_file()]
    runs = [run for path in there for run in read_run(path, truth / path.name) if len(run.scores)]
    if "--check" in arguments:
        model = load_model(method)
        for run in runs:
            print(f"{run.name}: {spearman(expected(model, run), run.scores):.2f}", file=sys.stderr)
        print(report([(run, expected(model, run)) for run in runs]))
        return
    apart = [fit([run for other, run in enumerate(runs) if other % FOLDS != at]) for at in range(FOLDS)]
    pairs = [(run, expected(apart[at % FOLDS], run)) for at, run in enumerate(runs)]
    print(f"# in {FOLDS} folds, {report(pairs)}")
    model = fit(runs)
    print(f"[{method}]\nbias = {model.bias}\n\n[{method}.terms]")
    for name, term in model.terms.items():
        print(f"{name} = {{ weight = {term.weight}, mean = {term.mean} }}")


if __name__ == "__main__":
    main(sys.argv[1:])
