"""Small clips of a square on the move, their masks, and pools that need no processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from tests.video.media import write_video
from vostrack.batch.pool import Died, Ended, Event, Moved
from vostrack.batch.task import Result, Status, Task

SIZE = (48, 64)


def frame(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.full((*size, 3), 40, np.uint8)
    image[10:30, 8 + index : 28 + index] = (200, 60, 60)
    return image


def write_clips(folder: Path, lengths: dict[str, int]) -> Path:
    """Writes `videos/NAME.mp4` and `masks/NAME.png`; gives the folder."""
    for name, length in lengths.items():
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "videos" / f"{name}.mp4", [frame(index) for index in range(length)])
        mask = np.zeros(SIZE, np.uint8)
        mask[10:30, 8:28] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def task(folder: Path, name: str, **arguments: Any) -> Task:
    wanted = {"method": "copy", "outputs": ["masks"], **arguments}
    return Task(folder / "videos" / f"{name}.mp4", {0: folder / "masks" / f"{name}.png"}, name, wanted)


class FakePool:
    """A pool of one place, whose clips end as a function says; a `Pool`."""

    def __init__(self, end: Callable[[Task, int], Result | str], begins: bool = True) -> None:
        """Take what gives a result, or says why the worker died, from a task and how often it was begun.

        Args:
            end: as above.
            begins: whether workers begin with a clip before they die.
        """
        self._end, self._at, self._begins = end, list[Task](), begins
        self.begun: list[tuple[str, bool]] = []
        self.stopped = False

    @property
    def free(self) -> int:
        return 1 - self.busy

    @property
    def busy(self) -> int:
        return len(self._at)

    def submit(self, task: Task, overwrite: bool) -> None:
        self._at.append(task)
        self.begun.append((task.name, overwrite))

    def events(self, seconds: float) -> Iterator[Event]:
        if self._at:
            task = self._at.pop()
            yield Moved(task, 1, task.frames)
            if self.stopped:
                yield Ended(task, result(task, Status.STOPPED))
                return
            came = self._end(task, sum(name == task.name for name, _ in self.begun))
            yield Died(task, came, self._begins) if isinstance(came, str) else Ended(task, came)

    def stop(self) -> None:
        self.stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def result(task: Task, status: Status = Status.DONE, **more: Any) -> Result:
    return Result(task.name, str(task.clip), status, task.key(), row=dict(task.row), **more)
