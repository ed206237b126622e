"""What a training run reports while it goes, and to whom. Imports no torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from vostrack.run.callbacks import Callbacks


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: its number, from 1.
        seconds: that the run has taken, with its decoding.
        done: share of the training that is done, in [0, 1].
        learning_rate: of this step.
        losses: by name.
    """

    step: int
    seconds: float
    done: float
    learning_rate: float
    losses: dict[str, float]


@dataclass(frozen=True)
class EvaluationReport:
    """How good the network is after a step.

    Attributes:
        step, seconds, done: as of a `StepReport`.
        held_out: score of each held-out clip.
        mean: of these scores.
        best: whether it is the best mean yet.
        first: the mean before the first step.
    """

    step: int
    seconds: float
    done: float
    held_out: dict[str, float]
    mean: float
    best: bool
    first: float


Report = StepReport | EvaluationReport


class TrainCallbacks(Callbacks):
    """What a training run calls while it works; see `Callbacks`."""

    def report(self, report: Report) -> None:
        """Called after each step and each evaluation.

        What it raises ends the run, in all processes after the same step; the run can then be resumed.
        """
