"""What pages of one file, which need no network, are made with: templates, and pictures in the page itself."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def templates(package: str) -> Environment:
    """The templates beside the modules of a package; what they are given is escaped, and must be there."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def jpeg(pixels: npt.NDArray[np.uint8], width: int) -> bytes:
    """A picture of an image, uint8 (H, W, 3), that is so wide at most, in pixels."""
    image = Image.fromarray(pixels)
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, subsampling=0)
    return buffer.getvalue()


def jpeg_address(data: bytes) -> str:
    """A JPEG as the address of an `<img>`."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
