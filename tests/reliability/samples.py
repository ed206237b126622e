"""Good inputs of every reader, each in a folder with all that its command needs: what hostile inputs are made from."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from tests import fakes
from tests.batch.clips import write_clips
from tests.benchmark import trees
from tests.formats.samples import exported
from tests.reliability.mutations import (
    BYTES,
    JSON,
    PLACES,
    TOML,
    Family,
    Make,
    archive,
    checkpoint,
    kinds,
    places,
    png,
    remove,
    safetensors,
    swaps,
    xml,
)
from tests.reliability.requests import BODIES, REQUEST, http
from tests.train.samples import write_footage
from tests.video.media import write_video
from vostrack.batch.manifest import Manifest, Outline
from vostrack.batch.task import Result, Status
from vostrack.video.palette import palette_image
from vostrack.web.document import JOURNAL, Document
from vostrack.web.session import drawn_in
from vostrack.web.things import Step

FRAMES = 6
SEGMENT = "segment clip.mp4 -m first.png -o out --method fake --no-overlay -q"
FILE: tuple[Family, ...] = (kinds, places)

Run = Callable[[Path, str, int], None]
"""Runs a command line that goes well in a folder, up to a frame if one is given."""


@dataclass(frozen=True)
class Sample:
    """A good input.

    Attributes:
        reader: what reads it.
        name: what it is.
        folder: with all that the command needs; not to be changed.
        file: what is changed in a copy of it.
        command: arguments of `vostrack`.
        families: of changes.
        environment: of the command.
        kept: whether masks, if there are some in the end, must be those of an undisturbed run.
    """

    reader: str
    name: str
    folder: Path
    file: str
    command: str
    families: tuple[Family, ...]
    environment: dict[str, str] = field(default_factory=dict)
    kept: bool = False

    def inputs(self) -> Iterator[tuple[str, Make]]:
        """All hostile ones that are made from it, by name."""
        path = self.folder / self.file
        data = path.read_bytes() if path.is_file() else b""
        return chain.from_iterable(family(data) for family in self.families)


def samples(root: Path, run: Run) -> Iterator[Sample]:
    """All good inputs, written below a folder."""
    for make in (
        videos, images, masks, formats, folders, lists, plans, states, weights, manifests, caches, results, pages,
    ):  # fmt: skip
        (root / make.__name__).mkdir()
        yield from make(root / make.__name__, run)


def clip_and_mask(folder: Path) -> Path:
    """A folder, created, with a clip and its first mask."""
    folder.mkdir(parents=True, exist_ok=True)
    fakes.write_clip(folder / "clip.mp4", FRAMES)
    fakes.write_mask(folder / "first.png")
    return folder


def videos(root: Path, run: Run) -> Iterator[Sample]:
    for ending, codec in (
        ("mp4", "libx264"),
        ("mkv", "ffv1"),
        ("webm", "libvpx-vp9"),
        ("avi", "mjpeg"),
        ("mov", "prores_ks"),
        ("gif", "gif"),
        ("ts", "mpeg2video"),
    ):
        folder = clip_and_mask(root / ending)
        write_video(folder / f"x.{ending}", fakes.pictures(FRAMES), codec)
        command = SEGMENT.replace("clip.mp4", f"x.{ending}")
        yield Sample("video", ending, folder, f"x.{ending}", command, BYTES + FILE)


def dpx(pixels: np.ndarray) -> bytes:
    """A picture (H, W, 3) as DPX of 8 bits."""
    head = bytearray(2048)
    struct.pack_into(">4sI8sI", head, 0, b"SDPX", 2048, b"V2.0", 2048 + pixels.nbytes)
    struct.pack_into(">HHII", head, 768, 0, 1, pixels.shape[1], pixels.shape[0])
    struct.pack_into(">IIIIIBBBBHHIII", head, 780, 0, 0, 0, 0, 0, 50, 2, 2, 8, 0, 0, 2048, 0, 0)
    return bytes(head) + pixels.tobytes()


def _picture(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".dpx":
        path.write_bytes(dpx(pixels))
    elif path.suffix == ".exr":
        import OpenEXR

        channels = {"RGB": (pixels / 255).astype(np.float32)}
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))
    else:
        Image.fromarray(pixels).save(path)


def images(root: Path, run: Run) -> Iterator[Sample]:
    for ending in ("png", "jpg", "webp", "tif", "bmp", "avif", "dpx", "exr"):
        folder = clip_and_mask(root / ending)
        (folder / "frames").mkdir()
        for index, pixels in enumerate(fakes.pictures(FRAMES)):
            _picture(folder / f"frames/{index:05d}.{ending}", pixels)
        families = BYTES + FILE + ((png,) if ending == "png" else ())
        command = SEGMENT.replace("clip.mp4", "frames")
        yield Sample("images", ending, folder, f"frames/00001.{ending}", command, families)


def masks(root: Path, run: Run) -> Iterator[Sample]:
    folder = clip_and_mask(root / "files")
    pixels = fakes.truth()
    colors = np.zeros((*pixels.shape, 3), np.uint8)
    for color, number in zip(((255, 0, 0), (0, 255, 0)), fakes.IDS, strict=True):
        colors[pixels == number] = color
    (folder / "objects").mkdir()
    for number in fakes.IDS:
        Image.fromarray((pixels == number) * np.uint8(255)).save(folder / f"objects/{number}.png")
    Image.fromarray(pixels.astype(np.uint16)).save(folder / "x.tiff")
    for ending in ("webp", "jpg", "bmp", "gif", "tif"):
        Image.fromarray(colors).save(folder / f"x.{ending}", lossless=True)
    for file in ("first.png", "x.tif", "x.webp", "x.gif", "x.jpg", "x.tiff", "x.bmp"):
        families = BYTES + FILE + ((png,) if file == "first.png" else ())
        yield Sample("masks", file, folder, file, SEGMENT.replace("first.png", file), families)
    yield Sample(
        "masks",
        "of one object",
        folder,
        "objects/3.png",
        SEGMENT.replace("first.png", "objects"),
        BYTES + FILE + (png,),
    )


def _labels(count: int) -> list[np.ndarray]:
    return [fakes.truth(index, (1, 2)) for index in range(count)]


def _labelme() -> dict[str, object]:
    corners = [[4, 4], [20, 4], [20, 20], [4, 20]]
    more = {"group_id": 1, "flags": {}, "description": "", "mask": None}
    shapes = [
        {"label": "dog", "points": corners, "shape_type": "polygon", **more},
        {"label": "cat", "points": [[40, 28], [56, 44]], "shape_type": "rectangle", **more, "group_id": 2},
    ]
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "00000.png", "imageData": None,
            "imageHeight": 48, "imageWidth": 64}  # fmt: skip


def formats(root: Path, run: Run) -> Iterator[Sample]:
    for name, file, families in (
        ("coco", "x.json", JSON),
        ("ytvis", "x.json", JSON),
        ("sa-v", "x.json", JSON),
        ("label-studio", "x.json", JSON),
        ("labelme", "x/00000.json", JSON),
        ("cvat", "x.xml", (xml,)),
        ("yolo-seg", "x/labels/00000.txt", (swaps(r"\S+"), BYTES[0])),
        ("exr", "x/00000.exr", BYTES),
        ("prores4444", "x.mov", BYTES),
        ("ffv1", "x.mkv", BYTES),
    ):
        folder, given = clip_and_mask(root / name), Path(file).parts[0]
        with exported(_labels(2), name, Path(given).suffix) as path:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / given)
        assert (folder / file).is_file(), sorted(folder.rglob("*"))
        yield Sample("formats", name, folder, file, f"mask check {given} clip.mp4", families + FILE)
        if name == "yolo-seg":
            names = (swaps(r"\S+"), *BYTES[:2], *FILE)
            yield Sample("formats", "data.yaml", folder, "x/data.yaml", f"mask check {given} clip.mp4", names)
    folder = clip_and_mask(root / "drawn")
    (folder / "x.json").write_text(json.dumps(_labelme()))
    yield Sample("formats", "labelme, polygons", folder, "x.json", "mask check x.json clip.mp4", JSON)
    folder = clip_and_mask(root / "davis")
    with exported(_labels(2), "davis", "") as path:
        shutil.make_archive(str(folder / "x"), "zip", path)
    yield Sample("formats", "davis", folder, "x.zip", "mask check x.zip clip.mp4", (archive, *BYTES, *FILE))


NAMES: Sequence[bytes] = (
    b"a\nb.png", b"\x1b[2J\x07.png", b"\xff\xfe.png", "\u202egnp.png".encode(), "\U0001f600.png".encode(), b"-o.png",
    b"--overwrite.png", b".png", b"..png", b".hidden.png", b" .png", b"00001 (copy).png", b"00001.PNG", b"1.png",
    b"9" * 240 + b".png", b"x" * 250 + b".png", b"99999999999999999999.png", b"-1.png", b"a;b.png", b"%s{0}.png",
    b"[red].png", b"nul.png", b"*.png", b"00004.png", b"00001.json", b"data.yaml", b"00001.mp4", b"00001.exr",
)  # fmt: skip
"""Of a file more in a folder."""


def _strangers(data: bytes) -> Iterator[tuple[str, Make]]:
    """Something more is in a folder."""
    for file in NAMES:
        yield f"a file {file[:24]!a}", partial(_beside, file)
    for name, make in PLACES.items():
        yield f"00009.png is {name}", partial(_at, "00009.png", make)
    yield "many files", lambda path: [path.with_name(f"x{n}.png").touch() for n in range(5000)]
    yield "deep folders", _deep
    yield "a folder that is above", lambda path: path.with_name("00009").symlink_to("..")
    yield "nothing else", _emptied
    yield "another size", lambda path: Image.new("RGB", (9, 9)).save(path)


def _at(name: str, make: Make, path: Path) -> None:
    make(path.with_name(name))


def _emptied(path: Path) -> None:
    remove(path.parent)
    path.parent.mkdir()


def _beside(name: bytes, path: Path) -> None:
    with open(os.path.join(os.fsencode(path.parent), name), "wb") as file:
        file.write(path.read_bytes())


def _deep(path: Path) -> None:
    """Folders in one another, deeper than a path may be."""
    here = os.open(path.parent, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


OURS = (
    ".vostrack", ".vostrack/run.json", ".vostrack/frames.jsonl", ".vostrack/signs.jsonl", ".vostrack/state.safetensors",
    ".vostrack/request.json", ".vostrack/cells", ".vostrack/moves.json", "masks", "masks/00000.png", "masks/00003.png",
    "objects/3", "overlay.mp4", "summary.json", "confidence.csv", ".vostrack.lock",
)  # fmt: skip
"""What of a run somebody may have put links or pipes in the place of."""


def _ours(data: bytes) -> Iterator[tuple[str, Make]]:
    """Something else is in the place of a part of an output folder, and leads out of it."""
    for part in OURS:
        for name in ("a pipe", "a link out", "a link to a folder out", "a folder"):
            yield f"{part} is {name}", partial(_replaced, part, PLACES[name])


def _replaced(part: str, make: Make, path: Path) -> None:
    path = path.parent / part
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    make(path)


def folders(root: Path, run: Run) -> Iterator[Sample]:
    for name, command in (
        ("frames", SEGMENT.replace("clip.mp4", "frames")),
        ("masks", SEGMENT.replace("first.png", "masks")),
        ("footage", "train --method tiny --data . --out out --steps 1 --device cpu"),
        ("truth", "score masks masks"),
    ):
        folder = clip_and_mask(root / name)
        (folder / "frames").mkdir()
        (folder / "masks").mkdir()
        for index, pixels in enumerate(fakes.pictures(FRAMES)):
            Image.fromarray(pixels).save(folder / f"frames/{index:05d}.png")
            palette_image(fakes.truth(index)).save(folder / f"masks/{index:05d}.png")
        file = "masks/00001.png" if name in ("masks", "truth") else "frames/00001.png"
        yield Sample("folders", name, folder, file, command, (_strangers,))
    stopped, finished = stopped_run(root / "stopped", run), finished_run(root / "finished", run)
    command = f"{SEGMENT} --objects"
    yield Sample("folders", "results to go on with", stopped, "out/x", f"{command} --resume", (_ours,), kept=True)
    yield Sample("folders", "results to replace", finished, "out/x", f"{command} --overwrite", (_ours,), kept=True)


def stopped_run(folder: Path, run: Run) -> Path:
    run(clip_and_mask(folder), f"{SEGMENT} --objects", 2)
    return folder


def finished_run(folder: Path, run: Run) -> Path:
    run(clip_and_mask(folder), f"{SEGMENT} --objects", 0)
    return folder


def lists(root: Path, run: Run) -> Iterator[Sample]:
    lines = (swaps(r"\S+"), swaps(r"[^/\s]+", most=40), *FILE)
    for name, file, families in (
        ("davis17", "ImageSets/2017/val.txt", lines),
        ("davis16", "ImageSets/480p/val.txt", lines),
        ("vost", "ImageSets/val.txt", lines),
        ("ytvos18", "valid/meta.json", JSON + FILE),
    ):
        many = {"names": ("cat",)} if name.startswith("davis") else {}
        folder = trees.TREES[name](root / name, count=3, **many)
        yield Sample(
            "lists", name, folder, file, f"benchmark {name} --root . --method fake --out out --limit 1", families
        )


def plans(root: Path, run: Run) -> Iterator[Sample]:
    """Their last row names a mask that is not there: whatever else they say is looked at, and nothing is run."""
    folder = write_clips(root / "plan", {"dog": 2})
    rows = [
        {"clip": "videos/dog.mp4", "mask": "masks/dog.png", "out": "a", "size": "120", "gone": "1@1", "overlay": "no"},
        {"clip": "videos/dog.mp4", "mask": "0:masks/none.png", "out": "b", "size": "", "gone": "", "overlay": ""},
    ]
    text = "\n".join(",".join(row) for row in ([*rows[0]], *([*row.values()] for row in rows)))
    (folder / "x.csv").write_text(f"{text}\n")
    (folder / "x.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for file, families in (("x.csv", (swaps("[^,\n]+"), swaps("[,\n]", most=20), *FILE)), ("x.jsonl", JSON + FILE)):
        yield Sample("plans", file, folder, file, f"batch run {file} --out out --option method=copy", families)


def states(root: Path, run: Run) -> Iterator[Sample]:
    folder = stopped_run(root / "stopped", run)
    command = f"{SEGMENT} --objects --resume"
    for name, families in (
        ("state.safetensors", (*BYTES, safetensors, *FILE)),
        ("run.json", JSON + FILE),
        ("request.json", JSON + FILE),
        ("frames.jsonl", JSON + FILE),
        ("signs.jsonl", JSON + FILE),
    ):
        if (folder / "out/.vostrack" / name).exists():
            yield Sample("states", name, folder, f"out/.vostrack/{name}", command, families, kept=True)


def weights(root: Path, run: Run) -> Iterator[Sample]:
    folder = clip_and_mask(root / "file")
    fakes.write_weights(folder, name="x")
    command = f"{SEGMENT} --weights x.safetensors"
    yield Sample("weights", "segment", folder, "x.safetensors", command, (*BYTES, safetensors, *FILE))
    yield Sample("weights", "what it says", folder, "x.safetensors", "weights x.safetensors", (safetensors,))
    write_footage(root / "train/in")
    train = "train --method tiny --data in --out out --steps 2 --device cpu"
    run(root / "train", train, 0)
    yield Sample(
        "weights",
        "checkpoint",
        root / "train",
        "out/checkpoint.pt",
        f"{train} --resume",
        (*BYTES, checkpoint, *FILE),
    )
    yield Sample(
        "weights", "convert", root / "train", "out/checkpoint.pt", "weights convert out/checkpoint.pt x", BYTES + FILE
    )


def manifests(root: Path, run: Run) -> Iterator[Sample]:
    folder = clip_and_mask(root / "weights")
    fakes.write_weights(folder)
    here = {"VOSTRACK_WEIGHTS": "."}
    for name, command in (("list", "weights"), ("verify", "weights --verify"), ("segment", SEGMENT)):
        families = (*TOML, *BYTES[:2], *FILE) if name == "list" else TOML
        yield Sample("manifests", name, folder, "manifest.toml", command, families, here)
    folder = root / "batch"
    manifest = Manifest(folder / "out")
    with manifest.locked(Outline(2, ".", {"method": "copy"})):
        for name in ("dog", "cat"):
            row = {"clip": f"{name}.mp4", "mask": f"{name}.png"}
            manifest.add(Result(name, f"{name}.mp4", Status.FAILED, "key", message="why", row=row, warnings=[]))
    for file in ("batch.jsonl", ".batch/all/plan.json"):
        for command in ("status", "retry"):
            yield Sample("manifests", f"{file}, {command}", folder, f"out/{file}", f"batch {command} out", JSON + FILE)


def caches(root: Path, run: Run) -> Iterator[Sample]:
    folder = root / "footage"
    write_footage(folder / "in")
    train = "train --method tiny --data in --cache cache --out {} --steps 2 --device cpu"
    run(folder, train.format("first"), 0)
    for path in sorted((folder / "cache").iterdir()):
        families = JSON + FILE if path.suffix == ".json" else BYTES + FILE
        yield Sample("caches", path.name, folder, f"cache/{path.name}", train.format("out"), families)
    folder = finished_run(root / "finished", run)
    for path in sorted((folder / "out/.vostrack/cells").rglob("00001.png")):
        for name, command in (("update", "update out -m 2:first.png"), ("export", "export out -f matte -o x --resume")):
            file = str(path.relative_to(folder))
            yield Sample("caches", f"cells, {name}", folder, file, command, (*BYTES, png, *FILE))


def results(root: Path, run: Run) -> Iterator[Sample]:
    folder = finished_run(root / "finished", run)
    commands = {
        "summary.json": (
            f"{SEGMENT} --objects --resume".replace(" -q", ""),
            "review out",
            "export out -f coco -o x",
            "mask check out",
            "update out -m 2:first.png",
            "update out --name dog=3",
        ),
        ".vostrack/run.json": ("update out -m 2:first.png", f"{SEGMENT} --overwrite"),
        ".vostrack/frames.jsonl": (f"{SEGMENT} --overwrite",),
        ".vostrack/request.json": ("suggest out", "update out -m 2:first.png"),
        ".vostrack/signs.jsonl": ("update out -m 2:first.png",),
    }
    for file, lines in commands.items():
        for command in lines if (folder / "out" / file).exists() else ():
            yield Sample("results", f"{file}, {command.split()[0]}", folder, f"out/{file}", command, JSON + FILE)
    if (folder / "out/confidence.csv").exists():
        cells = (swaps("[^,\n]+"), *FILE)
        yield Sample("results", "confidence.csv", folder, "out/confidence.csv", "suggest out", cells)
    yield Sample("results", "a mask", folder, "out/masks/00002.png", "export out -f coco -o x", (*BYTES, png, *FILE))
    folder = trees.davis17(root / "benchmark", names=("cat",), count=3)
    run(folder, "benchmark davis17 --root . --method fake --out out", 0)
    for path in sorted((folder / "out").rglob("*.json")):
        file = str(path.relative_to(folder))
        again = "benchmark davis17 --root . --method fake --out out"
        for name, command in (("compare", "benchmark compare out out"), ("again", again)):
            yield Sample("results", f"{path.name}, {name}", folder, file, command, JSON + FILE)


def pages(root: Path, run: Run) -> Iterator[Sample]:
    """What its server is sent, and what is left of a drawing when it starts."""
    folder = finished_run(root / "run", run)
    for name, body in BODIES.items():
        (folder / f"{name}.json").write_text(json.dumps(body))
    (folder / "any.http").write_bytes(REQUEST)
    drawn = drawn_in(folder / "out")
    drawn.mkdir()
    document = Document(fakes.SIZE, drawn)
    for step in (
        Step("add", id=3, name="dog", color="#ff0000"), Step("brush", 0, 3, [[9.0, 9.0], [20.0, 12.0]], 4.0),
        Step("add", id=7, name="cat"), Step("polygon", 2, 7, [[5.0, 5.0], [5.0, 30.0], [28.0, 18.0]]),
        Step("gone", 4, 7, last=5),
    ):  # fmt: skip
        document.do(step)
    document.save(drawn, 0)
    command = "edit clip.mp4 -o out --no-browser"
    yield Sample("page", "requests", folder, "any.http", command, (http, *BYTES), {"TALKS": "any.http"})
    for name in BODIES:
        yield Sample("page", name, folder, f"{name}.json", command, JSON, {"TALKS": f"{name}.json"})
    for file in (JOURNAL, "00000.png"):
        families = JSON + FILE if file == JOURNAL else (*BYTES, png, *FILE)
        yield Sample("page", file, folder, f"{drawn.name}/{file}", command, families, {"TALKS": "do.json"})
    yield Sample("page", "what is drawn", folder, drawn.name, command, (places,), {"TALKS": "do.json"})
