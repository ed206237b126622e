"""What a video lost, gathered frame by frame while it is read and put into words at its end.

Pure bookkeeping, of a size that does not grow with the clip. Knows nothing of files.
"""

from __future__ import annotations

from fractions import Fraction

from vostrack.notes import Code, Note

# So many runs of frames are named; of the others there is only the number.
_MOST_NAMED = 8
# Gaps in time mean something only where nearly all frames come at an even pace.
_EVEN = 0.9


class Places:
    """Indices of frames, which only rise, in words.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._runs: list[tuple[int, int]] = []

    def add(self, index: int) -> None:
        """Take one more."""
        self.count += 1
        if self._runs and self._runs[-1][1] == index - 1:
            self._runs[-1] = self._runs[-1][0], index
        elif len(self._runs) <= _MOST_NAMED:
            self._runs.append((index, index))

    def __str__(self) -> str:
        named = [str(a) if a == b else f"{a} to {b}" for a, b in self._runs[:_MOST_NAMED]]
        return ", ".join(named) + " and others" * (len(self._runs) > _MOST_NAMED)


class Damage:
    """Damaged and missing frames of a clip.

    Args:
        step: seconds that a frame is expected to last.
        tick: seconds, as finely as the source tells time.

    Attributes:
        broken: the frames that are damaged.
    """

    def __init__(self, step: Fraction, tick: Fraction) -> None:
        self._step, self._tick = step, tick
        self.broken, self._gaps = Places(), Places()
        self._even = self._missing = 0
        self._last: Fraction | None = None

    def add(self, index: int, time: Fraction, broken: bool) -> None:
        """Take the next frame, with its time in seconds and whether its decoder calls it damaged."""
        if broken:
            self.broken.add(index)
        if self._last is not None:
            lasted = time - self._last
            self._even += abs(lasted - self._step) <= max(self._step / 10, self._tick)
            if lasted > self._step * Fraction(3, 2) + self._tick:
                self._gaps.add(index - 1)
                self._missing += round(lasted / self._step) - 1
        self._last = time
        self._index = index

    def notes(self) -> list[Note]:
        """One line for damaged frames, and one for gaps in time; none where there are none."""
        notes = []
        if self.broken.count:
            text = f"damaged frames: {self.broken.count} ({self.broken}); those that build on them may look broken too"
            notes.append(Note(Code.FRAMES_DAMAGED, text))
        if self._gaps.count and self._even >= _EVEN * self._index:
            text = f"missing frames: {self._missing}, by the times of the others; after frame {self._gaps}"
            notes.append(Note(Code.FRAMES_MISSING, text))
        return notes
