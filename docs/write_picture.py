"""The picture of README: `vostrack demo && python docs/write_picture.py` makes it from the demo's clip and overlay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image

DEMO = Path("vostrack_demo")
PICTURE = Path(__file__).parent / "pictures" / "demo.webp"
FRAME_MS = 80
LAST_MS = 1200


def _frames(path: Path) -> Iterator[Image.Image]:
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield Image.fromarray(frame.to_ndarray(format="rgb24"))


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    gap = left.width // 50
    both = Image.new("RGB", (2 * left.width + gap, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right.crop((0, 0, *left.size)), (left.width + gap, 0))
    return both


def main() -> None:
    """Write an animation with the clip on the left and the clip with its masks on the right."""
    pairs = zip(_frames(DEMO / "clip.mp4"), _frames(DEMO / "result" / "overlay.mp4"), strict=True)
    first, *others = (_side_by_side(*pair) for pair in pairs)
    PICTURE.parent.mkdir(exist_ok=True)
    times = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(PICTURE, save_all=True, append_images=others, duration=times, loop=0, quality=40, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
