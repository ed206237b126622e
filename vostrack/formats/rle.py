"""The run lengths of COCO, which YouTube-VIS and SA-V share: column by column, packed as text by pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

from vostrack.formats.base import Bools


def encoded(mask: Bools) -> dict[str, Any]:
    """A mask (H, W) as `size`, height then width, and `counts`, as text."""
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode("ascii")}
