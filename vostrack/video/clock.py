"""Presentation times that only rise, from stamps that may be missing, repeated or start anew.

Pure arithmetic: knows nothing of containers, streams or frames.
"""

from __future__ import annotations

from fractions import Fraction

# A repeated stamp is set off by a tenth of a frame, so that the correct stamps after it stay as they are.
NUDGE = Fraction(1, 10)


class Clock:
    """Turns stamps into seconds from the first frame.

    Args:
        tick: seconds that one unit of a stamp lasts, > 0.
        step: seconds that a frame is expected to last, > 0.
    """

    def __init__(self, tick: Fraction, step: Fraction) -> None:
        self._tick = tick
        self._step = step
        self._last = -step
        self._origin: Fraction | None = None

    def read(self, stamp: int | None) -> Fraction:
        """Time of the next frame in seconds: 0 for the first, and later than the frame before for all others.

        Args:
            stamp: presentation stamp in ticks, of any origin; None where the source has none.
        """
        expected = self._last + self._step
        if stamp is None:
            time = expected
        else:
            if self._origin is None:
                self._origin = stamp * self._tick - expected
            time = stamp * self._tick - self._origin
            if time <= self._last - self._step:
                # Stamps that jump back belong to a recording that was appended: its first frame follows the last.
                self._origin += time - expected
                time = expected
            elif time <= self._last:
                time = self._last + self._step * NUDGE
        self._last = time
        return time
