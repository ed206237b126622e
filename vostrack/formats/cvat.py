"""CVAT for images 1.1: an XML file of masks. Its masks of a track would lose all but their first shape on import.

Source: the format's page of docs.cvat.ai: lengths of runs inside the box, row by row, the first of background.
"""

from __future__ import annotations

from typing import IO
from xml.sax.saxutils import escape, quoteattr

from vostrack.files import escaped
from vostrack.formats.base import Bools, Shot, box_of, objects_in, runs
from vostrack.notes import Note
from vostrack.types import Prediction


class Cvat:
    """Writes it, frame by frame."""

    def __init__(self, shot: Shot) -> None:
        """Take the shot."""
        self.notes: list[Note] = []
        self._shot, self._count = shot, 0
        self._file: IO[str] | None = None

    def write(self, prediction: Prediction) -> None:
        """Write a frame."""
        file, (height, width) = self._opened(), self._shot.size
        name = quoteattr(escaped(self._shot.image_of(prediction)))
        file.write(f'  <image id="{self._count}" name={name} width="{width}" height="{height}">\n')
        self._count += 1
        for number, mask in objects_in(prediction):
            file.write(self._mask(number, mask))
        file.write("  </image>\n")

    def finish(self) -> None:
        """Complete the file."""
        self._opened().write("</annotations>\n")
        self.abort()

    def abort(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> IO[str]:
        if self._file is None:
            self._file = self._shot.out.open("x", encoding="utf-8", newline="\n")
            names = "".join(self._label(name) for name in self._shot.classes)
            meta = f"  <meta><job><labels>{names}</labels></job></meta>\n"
            self._file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{meta}')
        return self._file

    def _label(self, name: str) -> str:
        attribute = "<attribute><name>object_id</name><mutable>False</mutable><input_type>text</input_type></attribute>"
        return f"<label><name>{escape(escaped(name))}</name><attributes>{attribute}</attributes></label>"

    def _mask(self, number: int, mask: Bools) -> str:
        left, top, width, height = box_of(mask)
        lengths = ", ".join(map(str, runs(mask[top : top + height, left : left + width])))
        label = quoteattr(escaped(self._shot.objects[number]))
        return (
            f'    <mask label={label} source="auto" occluded="0" rle="{lengths}" left="{left}" top="{top}" '
            f'width="{width}" height="{height}" z_order="0">\n'
            f'      <attribute name="object_id">{number}</attribute>\n    </mask>\n'
        )
