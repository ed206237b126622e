"""Frames from memory as a clip: arrays, tensors and PIL images, from any iterable.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vostrack.errors import InputError
from vostrack.types import Frame
from vostrack.video.images import to_rgb
from vostrack.video.stream import NOMINAL_RATE, ClipStream, check_size, size_text

_END = object()
_EXPECTED = "a uint8 array (H, W, 3) in RGB, a uint8 tensor (3, H, W) or a PIL image"


class ArrayStream(ClipStream):
    """Frames of an iterable, which may be a generator of unknown length.

    Args:
        frames: arrays (H, W, 3), tensors (3, H, W) or PIL images. Each is copied: its memory may be used again.

    Raises:
        InputError: there is no frame, or the first one cannot be used.
    """

    def __init__(self, frames: Iterable[Any]) -> None:
        super().__init__("frames")
        try:
            self._rest = iter(frames)
        except TypeError:
            raise InputError(
                f"frames are a path or an iterable, such as a list of arrays, not {type(frames).__name__}"
            ) from None
        first = next(self._rest, _END)
        if first is _END:
            raise InputError("there are no frames")
        self._first = read_array(first, "frame 0")
        self.size = self.stored_size = (self._first.shape[1], self._first.shape[2])
        self.fps: Fraction | None = None
        self.count = len(frames) if isinstance(frames, Sized) else None

    def _frames(self) -> Iterator[Frame]:
        image, index = self._first, 0
        del self._first
        while True:
            size = (image.shape[1], image.shape[2])
            if size != self.size:
                raise InputError(
                    f"frame {index} is {size_text(size)}, the first is {size_text(self.size)}; "
                    "the frames of a clip must be of one size"
                )
            yield Frame(index, index / NOMINAL_RATE, image, f"{index:05d}")
            index += 1
            following = next(self._rest, _END)
            if following is _END:
                return
            image = read_array(following, f"frame {index}")

    def _release(self) -> None:
        self._rest = iter(())


def read_array(value: Any, where: str) -> Tensor:
    """An image from memory as uint8 (3, H, W), contiguous, with memory of its own.

    Args:
        value: uint8 array (H, W, 3), uint8 tensor (3, H, W), or PIL image, whose transparency is left out.
        where: what it is, for messages.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, Frame):
        return read_array(value.image, where)
    if isinstance(value, Image.Image):
        check_size((value.height, value.width), where)
        return torch.from_numpy(np.array(to_rgb(value, where).transpose(2, 0, 1), order="C"))
    if isinstance(value, Tensor):
        channels, kind = value.shape[:1], value.dtype == torch.uint8
    elif isinstance(value, np.ndarray):
        channels, kind = value.shape[2:], value.dtype == np.uint8
    else:
        raise InputError(f"{where} is a {type(value).__name__}: expected {_EXPECTED}")
    if not kind or value.ndim != 3 or tuple(channels) != (3,):
        raise InputError(f"{where} is {value.dtype} {tuple(value.shape)}: expected {_EXPECTED}{_advice(value)}")
    planes = value if isinstance(value, Tensor) else value.transpose(2, 0, 1)
    check_size((planes.shape[1], planes.shape[2]), where)
    if isinstance(planes, Tensor):
        return planes.detach().cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(planes, order="C"))


def _advice(value: Any) -> str:
    """How the usual mistakes are mended."""
    array, shape = isinstance(value, np.ndarray), tuple(value.shape)
    if "float" in str(value.dtype):
        return "; images in [0, 1] become that by (255 * image).round() and a change of type"
    if array and shape[2:] == (4,):
        return "; drop the alpha channel with image[..., :3]"
    if len(shape) == 2:
        return "; repeat a grey image three times"
    if (array and shape[:1] == (3,)) or (not array and shape[2:] == (3,)):
        return "; turn the axes with " + ("image.transpose(1, 2, 0)" if array else "image.permute(2, 0, 1)")
    return ""
