"""Frames of a clip in any order: they are decoded once, in a thread, to JPEGs in a temporary folder."""

from __future__ import annotations

import io
import tempfile
import threading
from pathlib import Path
from typing import Self

from PIL import Image

from vostrack.errors import InputError, VostrackError
from vostrack.types import Frame, FrameStream

_QUALITY = 92


class FrameCache:
    """The frames of a clip as JPEGs, at the size of the clip. Memory does not grow with the length of the clip.

    Attributes:
        size: (H, W) of the frames.
        count: how many frames there are, once all are decoded; before that, what the clip says, or None.
        ready: how many are decoded.
        error: why no more can be decoded, or "".
    """

    def __init__(self, stream: FrameStream) -> None:
        """Begin to decode an opened clip, which this closes."""
        self.size, self.count, self.ready, self.error = stream.size, stream.count, 0, ""
        self._stream, self._folder = stream, tempfile.TemporaryDirectory(prefix="vostrack-frames-")
        self._names: list[str] = []
        self._news, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._decode, name="vostrack-frames", daemon=True)
        self._thread.start()

    def jpeg(self, index: int, seconds: float = 60) -> bytes:
        """A frame, waited for if need be.

        Raises:
            InputError: there is no such frame, or it cannot be decoded in so many seconds.
        """
        with self._news:
            self._news.wait_for(lambda: index < self.ready or self._is_over(), seconds)
            if not 0 <= index < self.ready:
                raise InputError(self.error or f"there is no frame {index}, or it takes too long: wait and try again")
        return self._path(index).read_bytes()

    def name(self, index: int) -> str:
        """What files of a decoded frame are called."""
        return self._names[index]

    def close(self) -> None:
        """Stop decoding, and delete what was kept; may be called more than once."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._thread.join()
        self._stream.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_over(self) -> bool:
        return self._closed or bool(self.error) or (self.count is not None and self.ready >= self.count)

    def _path(self, index: int) -> Path:
        return Path(self._folder.name) / f"{index:06d}.jpg"

    def _decode(self) -> None:
        error = ""
        try:
            for frame in self._stream:
                if self._closed:
                    return
                self._keep(frame)
        except (VostrackError, OSError) as caught:
            error = str(caught)
        with self._news:
            self.count, self.error = self.ready, error
            self._news.notify_all()

    def _keep(self, frame: Frame) -> None:
        buffer = io.BytesIO()
        Image.fromarray(frame.image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=_QUALITY)
        self._path(self.ready).write_bytes(buffer.getvalue())
        with self._news:
            self._names.append(frame.name)
            self.ready += 1
            self._news.notify_all()
