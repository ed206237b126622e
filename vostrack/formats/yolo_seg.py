"""YOLO segmentation: `images/`, `labels/` with a line for each object, and `data.yaml`.

Source: the dataset format of docs.ultralytics.com: class, then x and y of the corners, as shares of width and height.
An object is one polygon, whose parts and holes are joined by bridges of no width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from vostrack.files import write_text
from vostrack.formats.base import Shot, jpeg, objects_in
from vostrack.formats.polygons import polygon
from vostrack.types import Prediction
from vostrack.video.writer import FileWriter


class YoloSeg(FileWriter):
    """Writes it."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        super().__init__(shot.out, self._files)
        self._shot = shot

    def _files(self, prediction: Prediction) -> Iterator[tuple[str, bytes]]:
        name = prediction.frame.name
        lines = (self._line(number, polygon(mask).tolist()) for number, mask in objects_in(prediction))
        yield f"labels/{name}.txt", "".join(lines).encode()
        yield f"images/{name}.jpg", jpeg(prediction)

    def _line(self, number: int, points: list[list[int]]) -> str:
        height, width = self._shot.size
        shares = [f"{x / width:.7g} {y / height:.7g}" for x, y in points]
        return f"{self._shot.classes[self._shot.objects[number]] - 1} {' '.join(shares)}\n"

    def finish(self) -> None:
        """Write `data.yaml`, whose text is quoted as in JSON, which YAML reads."""
        names = "".join(
            f"  {number - 1}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in self._shot.classes.items()
        )
        text = f"train: images\nval: images\nnames:\n{names}"
        write_text(self._shot.out / "data.yaml", text)
