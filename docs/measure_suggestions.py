"""What a true mask of a frame gains: `python docs/measure_suggestions.py DAVIS OUT [SEQUENCE...]` prints rows.

DAVIS holds DAVIS-2016; OUT gets runs of `best:fast` at 240p with the true first mask, and each time one mask more: of
the frame that is suggested first, of the one in the middle, and of three by chance. J is the mean over all frames but
the first.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import vostrack
from vostrack.benchmark.datasets.mask_folders import read_mask


def mean_j(run: Path, truth: Sequence[Path]) -> float:
    """The mean J of a run, over all frames but the first."""
    scores = []
    for ours, true in zip(sorted((run / "masks").glob("*.png"))[1:], truth[1:], strict=True):
        one, other = read_mask(ours) > 0, read_mask(true) > 0
        scores.append((one & other).sum() / (one | other).sum() if (one | other).any() else 1.0)
    return float(np.mean(scores))


def gains(root: Path, out: Path, sequence: str) -> list[float]:
    """J with the first mask alone, and what each further one gains: suggested, middle, by chance."""
    truth = sorted((root / "Annotations/480p" / sequence).glob("*.png"))
    first, more = out / sequence, out / f"{sequence}-more"
    vostrack.segment(
        root / "JPEGImages/480p" / sequence, truth[0], first, preset="fast", size=240, outputs=["masks"], overwrite=True
    )
    before, found = mean_j(first, truth), dict[int, float]()
    suggested, middle = vostrack.suggest(first, 1)[0].frame, len(truth) // 2
    chance = random.Random(sequence).sample(range(1, len(truth)), 3)
    for frame in {suggested, middle, *chance}:
        shutil.copytree(first, more)
        vostrack.update(more, {frame: truth[frame]})
        found[frame] = mean_j(more, truth) - before
        shutil.rmtree(more)
    return [before, found[suggested], found[middle], float(np.mean([found[frame] for frame in chance]))]


def main(arguments: Sequence[str]) -> None:
    """Print a row for each sequence."""
    root, out, *sequences = arguments
    for sequence in sequences or sorted(path.name for path in Path(root, "Annotations/480p").iterdir()):
        numbers = " | ".join(f"{value:.3f}" for value in gains(Path(root), Path(out), sequence))
        print(f"| {sequence} | {numbers} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
