"""How good a mask probably is: one number for each frame and object, the J (IoU with the truth) that is to be expected.

A small logistic model says so from the signs that a run measures (`signs`). It was fitted on sequences whose truth is
known (docs/fit_confidence.py); its coefficients, for each method, lie in the folder of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby

import numpy as np
import numpy.typing as npt

from vostrack import weights
from vostrack.errors import WeightsError
from vostrack.files import read_toml, shown
from vostrack.notes import Code, Note
from vostrack.propagate import Gone, gone_at
from vostrack.run.signs import LOW, FrameSigns, Sign
from vostrack.types import LabelMap

FILE = "confidence.toml"
CSV = "confidence.csv"

_NOWHERE = 0.5
_GAP, _MOST = 5, 3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """A coefficient of the model, and what a feature is where it is not known."""

    weight: float
    mean: float


@dataclass(frozen=True)
class Model:
    """The model of one method: the logit of J is `bias` and the sum of weight times (feature - mean)."""

    bias: float
    terms: dict[str, Term]

    def __call__(self, features: Mapping[str, Array]) -> Array:
        """Expected J, (N,) in [0, 1], from features (N,) by name; NaN stands for what is not known."""
        logits = np.full(len(next(iter(features.values()))), self.bias)
        for name, term in self.terms.items():
            logits += term.weight * np.nan_to_num(features[name] - term.mean, nan=0.0)
        expected: Array = 1 / (1 + np.exp(-logits.clip(-30, 30)))
        return expected


@dataclass(frozen=True)
class Row:
    """The confidence in a mask.

    Attributes:
        frame: index.
        number: the object's id.
        confidence: in [0, 1].
        area: of the mask in pixels.
    """

    frame: int
    number: int
    confidence: float
    area: int


def load_model(method: str) -> Model:
    """The model of a method; that of all methods together where it has none of its own.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    for folder in weights.search_path():
        path = folder / FILE
        try:
            models: dict[str, Model] = read_toml(path, dict[str, Model])
            model = models.get(method) or models["any"]
            if unknown := set(model.terms) - set(FEATURES):
                raise ValueError(f"it has the feature {min(unknown)}, which is not known")
            return model
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{shown(path)} cannot be read ({shown(error)}): reinstall vostrack") from error
    raise WeightsError(f"there is no {FILE} among the weights: reinstall vostrack")


def confidences(signs: Sequence[FrameSigns], prompts: Mapping[int, LabelMap], gone: Gone, model: Model) -> list[Row]:
    """The confidence in each mask, by frame and id.

    A given mask, and an object that is said not to be there, are certain. Of an object that is nowhere nobody knows
    whether it left or was lost, so that is a toss-up.
    """
    rows = []
    for number in sorted({number for frame in signs for number in frame.objects}):
        seen = [(frame.frame, frame.objects[number]) for frame in signs if number in frame.objects]
        given = [frame for frame, _ in seen if frame in prompts and number in prompts[frame].ids]
        expected = model(features(seen, given))
        for (frame, sign), value in zip(seen, expected.tolist(), strict=True):
            certain = frame in given or number in gone_at(gone, frame)
            value = 1.0 if certain else value if sign.area else _NOWHERE
            rows.append(Row(frame, number, round(value, 3), sign.area))
    return sorted(rows, key=lambda row: (row.frame, row.number))


def csv_text(rows: Iterable[Row]) -> str:
    """`confidence.csv`."""
    lines = [f"{row.frame},{row.number},{row.confidence:.3f},{row.area}\n" for row in rows]
    return "".join(("frame,object,confidence,area\n", *lines))


def by_object(rows: Iterable[Row]) -> dict[str, dict[str, float | int]]:
    """By id: the mean confidence, and the lowest with its frame."""
    found: dict[str, dict[str, float | int]] = {}
    for number, own in _objects(rows):
        low = min(own, key=lambda row: row.confidence)
        mean = sum(row.confidence for row in own) / len(own)
        found[str(number)] = {
            "mean_confidence": round(mean, 3),
            "lowest_confidence": low.confidence,
            "lowest_confidence_frame": low.frame,
        }
    return found


def low_notes(rows: Iterable[Row]) -> Iterator[Note]:
    """A line for each stretch of frames in which an object is probably wrong, the worst ones of each object."""
    for number, own in _objects(rows):
        stretches: list[list[Row]] = []
        for row in own:
            if row.confidence < LOW:
                near = stretches and row.frame - stretches[-1][-1].frame <= _GAP
                stretches[-1].append(row) if near else stretches.append([row])
        worst = sorted(stretches, key=lambda stretch: -sum(LOW - row.confidence for row in stretch))[:_MOST]
        for stretch in sorted(worst, key=lambda stretch: stretch[0].frame):
            first, last = stretch[0].frame, stretch[-1].frame
            when = f"at frame {first}" if first == last else f"from frame {first} to frame {last}"
            least = min(row.confidence for row in stretch)
            yield Note(Code.CONFIDENCE_LOW, f"object {number} has a low confidence {when}, down to {least:.2f}")


def _objects(rows: Iterable[Row]) -> list[tuple[int, list[Row]]]:
    """Rows by object."""
    ordered = sorted(rows, key=lambda row: (row.number, row.frame))
    return [(number, list(own)) for number, own in groupby(ordered, key=lambda row: row.number)]


def features(signs: Sequence[tuple[int, Sign]], given: Sequence[int]) -> dict[str, Array]:
    """What the model looks at, for one object.

    Args:
        signs: frames and signs of the object, in order.
        given: frames whose masks were given; each compares with the nearest, along the way from there.

    Returns:
        For each of `FEATURES` an array (N,); NaN where it is not known.
    """
    frames = np.array([frame for frame, _ in signs])
    table = {name: _column(signs, name) for name in _READ}
    known = np.flatnonzero(np.isin(frames, given))
    at = np.arange(len(frames))
    nearest = known[np.abs(frames[:, None] - frames[known]).argmin(1)] if len(known) else np.zeros_like(at)
    root, first = np.sqrt(np.maximum(table["area"], 1)), {name: column[nearest] for name, column in table.items()}
    root_first = np.sqrt(np.maximum(first["area"], 1))
    grown = np.log(root / root_first)
    colors = np.sqrt(sum((table[name] - first[name]) ** 2 for name in ("red", "green", "blue")))
    steps = np.abs(np.diff(np.log(root), prepend=np.log(root[:1])))
    moved = np.hypot(np.diff(table["y"], prepend=table["y"][:1]), np.diff(table["x"], prepend=table["x"][:1]))
    lost = 1 - table["kept"]
    return {
        "time": np.log1p(np.abs(frames - frames[nearest])),
        "inside": table["inside"],
        "margin": table["margin"],
        "least": table["least"],
        "soft": np.sqrt(table["soft"]),
        "leak": np.log1p(table["leak"]),
        "size": np.log(np.maximum(table["spread"], 1e-3)),
        "outline": np.log(np.maximum(table["outline"], 0.1) / np.maximum(first["outline"], 0.1)),
        "shape": np.abs(np.log(np.maximum(table["spread"], 1e-3) / np.maximum(first["spread"], 1e-3)) - grown),
        "grown": np.abs(grown),
        "shrunk": np.maximum(-grown, 0),
        "color": colors,
        "contrast": np.abs(table["contrast"] - first["contrast"]),
        "step": steps,
        "moved": np.minimum(moved / np.maximum(table["spread"], 1e-2), 3),
        "lost": lost,
        "soft_since": _since(np.sqrt(table["soft"]), nearest),
        "least_since": _since(table["least"], nearest),
        "lost_since": _since(lost, nearest),
        "step_since": _since(steps, nearest),
        "disagreement": 1 - table["agreement"],
    }


def _column(signs: Sequence[tuple[int, Sign]], name: str) -> Array:
    values = [getattr(sign, name) for _, sign in signs]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _since(values: Array, nearest: npt.NDArray[np.intp]) -> Array:
    """The mean of values (N,) from each's nearest given frame, which has none of its own, to itself."""
    counted = ~np.isnan(values)
    total = np.concatenate(([0.0], np.where(counted, values, 0).cumsum()))
    count = np.concatenate(([0], counted.cumsum()))
    at = np.arange(len(values))
    low, high = np.minimum(at, nearest + 1), np.maximum(at + 1, nearest)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Array = (total[high] - total[low]) / (count[high] - count[low])
    return mean


_READ = tuple(entry.name for entry in fields(Sign))
FEATURES = tuple(features([(0, Sign(1))], [0]))
"""Names of the features."""
