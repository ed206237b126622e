"""The pure readers of what others wrote, good examples for each, and the errors that they may raise."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import typer

from tests import fakes
from tests.fakes import Entry
from tests.formats.samples import prompts
from tests.reliability.mutations import JSON_VALUES, TEXTS
from tests.reliability.samples import dpx
from vostrack.batch.manifest import Manifest, Outline
from vostrack.batch.task import Result, Status
from vostrack.cli.plan import rows_of, tasks_of
from vostrack.cli.segment import parse_masks, split_head
from vostrack.cli.settings import (
    parse_color,
    parse_gone,
    parse_names,
    parse_range,
    parse_rate,
    parse_settings,
    parse_size,
)
from vostrack.errors import VostrackError
from vostrack.files import OutputRoot, escaped, parse_json, read_json, read_toml
from vostrack.formats.label_studio import packed
from vostrack.formats.rle import decoded
from vostrack.methods import Direction
from vostrack.run.kept import KeptCells
from vostrack.run.place import RECORD
from vostrack.run.signs import SIGNS, Sign, read_signs
from vostrack.run.state import load_state, save_state
from vostrack.run.steps import finish_moves
from vostrack.run.suggestions import read_rows
from vostrack.types import LabelMap
from vostrack.video.movie import later_timecode
from vostrack.video.reader import open_clip
from vostrack.video.series import natural_key
from vostrack.web.changes import ONCE, Once
from vostrack.web.document import JOURNAL, Document
from vostrack.web.strokes import encoded
from vostrack.web.things import Step
from vostrack.weights import read_details, read_manifest

SIZE = (6, 8)
BOX = [1, 1, 4, 1, 4, 3, 1, 3]
_LEAF = rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|\btrue\b|\bfalse\b|\bnull\b|\[[^\[\]]*\]|\{[^{}]*\}'


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: of it.
        read: what is called with bytes, and raises nothing but what `allowed` has.
        good: examples, which raise nothing.
        pattern: of the parts of an example that become something else.
        tokens: what they may become.
        allowed: errors that are raised on purpose.
    """

    name: str
    read: Callable[[bytes], object]
    good: Sequence[bytes]
    pattern: bytes = rb"[0-9]+|[A-Za-z]+|."
    tokens: Sequence[bytes] = tuple(text.encode(errors="surrogateescape") for text in TEXTS.values())
    allowed: tuple[type[Exception], ...] = (VostrackError, typer.BadParameter)


_JSON_TOKENS = tuple(text.encode() for name, text in JSON_VALUES.items() if name != "deep object")


def readers() -> dict[str, Reader]:
    """All readers, by name."""
    listed = [*_typed(), *_documents(), *_files(), *_binary()]
    return {reader.name: reader for reader in listed}


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode(errors="replace"))


def _typed() -> Iterator[Reader]:
    """What is typed on a command line."""
    for name, parse, good in (
        ("colour", parse_color, ["white", "68,1,84", "#440154", "128"]),
        ("range", parse_range, ["40-60", "1.5s-4s", "00:00:01.5-", "-60"]),
        ("rate", parse_rate, ["25", "24000/1001", "23.976"]),
        ("size", parse_size, ["full", "480"]),
        ("name", lambda text: parse_names([text]), ["dog=#ff0000", "dog=white", "cat=2", "cat=left.png"]),
        ("gone", lambda text: parse_gone([text]), ["dog@131-160", "2@-79", "dog@131"]),
        ("mask", lambda text: parse_masks([text], ["shot_1.png", "a:b.png"]), ["40:a.png", "12.5s:a", "shot_1:a", "x"]),
        ("head", lambda text: split_head(text, ["1.png", "a.png"]), ["0:a", "a:a", "1.png:a", "00:00:01:a"]),
        ("setting", _settings, ["rate=0.5", "steps=3", "soft=no", "scales=1,2"]),
        ("natural order", lambda text: natural_key(text[:255]), ["frame_10.png", "2.jpg"]),
        ("timecode", lambda text: later_timecode(text, 100, Fraction(30000, 1001)), ["10:00:00:00", "00:00:59;29"]),
        ("shown", _printable, ["a", "\x1b[2J"]),
        ("run lengths", lambda text: _values(decoded, text, SIZE), ["724000g0"]),
    ):
        yield Reader(name, _text(parse), [text.encode() for text in good])


def _settings(text: str) -> object:
    return parse_settings([text], fakes.FakeConfig(), "fake", "--set")


def _printable(text: str) -> None:
    if not escaped(text).isprintable():
        raise AssertionError(f"{text!a} is shown as it is")


def _values(read: Callable[..., object], *arguments: Any) -> None:
    """Call what raises `ValueError` on purpose."""
    try:
        read(*arguments)
    except ValueError as error:
        raise VostrackError(str(error)) from error


def _documents() -> Iterator[Reader]:
    """Files of labelling tools, and JSON of any shape."""
    image = {"id": 1, "file_name": "00000.png", "width": 8, "height": 6}
    short = {"size": list(SIZE), "counts": "724000g0"}
    listed = {"size": list(SIZE), "counts": [7, 2, 4, 2, 4, 2, 27]}
    named = [{"id": 1, "name": "dog"}]
    coco = {"images": [image], "categories": named, "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": part, "track_id": 3, "iscrowd": 0}
        for part in ([BOX], short, listed)]}  # fmt: skip
    ytvis = {"videos": [{"id": 1, "width": 8, "height": 6, "length": 2, "file_names": ["0.png", "1.png"]}],
             "categories": named, "annotations": [
                 {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [short, None]}]}  # fmt: skip
    sa_v = {"video_height": 6.0, "video_width": 8.0, "video_frame_count": 5.0, "masklet": [[short], [listed]],
            "masklet_id": [0]}  # fmt: skip
    shape = {"label": "dog", "points": [[1, 1], [4, 1], [4, 3]], "shape_type": "polygon", "group_id": 1}
    labelme = {"imagePath": "0.png", "imageHeight": 6, "imageWidth": 8, "shapes": [shape]}
    size = {"original_width": 8, "original_height": 6, "image_rotation": 0}
    regions = [
        {"type": "polygonlabels", "value": {"points": [[10, 10], [50, 10], [50, 60]], "polygonlabels": ["dog"]}},
        {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 30, "height": 30, "rotation": 0,
                                              "rectanglelabels": ["cat"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": packed(np.eye(*SIZE, dtype=np.bool_)),
                                          "brushlabels": ["a"]}},
    ]  # fmt: skip
    studio = [{"data": {"image": "0.png"}, "annotations": [{"result": [each | size for each in regions]}]}]
    for name, document in (
        ("coco", coco), ("ytvis", ytvis), ("sa-v", sa_v), ("labelme", labelme), ("label-studio", studio)
    ):  # fmt: skip
        yield Reader(name, _mask, [json.dumps(document).encode()], _LEAF, _JSON_TOKENS)
    yield Reader("cvat", _mask, [_CVAT.encode()], rb'(?<=")[^"]*(?=")|<[^>]*>|\w+')
    yield Reader("yolo", _mask, [b"1 0.125 0.166 0.5 0.166 0.5 0.5\n0 0.5 0.5 0.6 0.5 0.6 0.6\n"], rb"\S+")
    yield Reader("data.yaml", _classes, [_CLASSES, _CLASSES.split(b"names")[0] + b"names: ['dog', \"b\\u00e9\"]\n"])
    entry = asdict(Entry("a", 3, {"J": 1.0}, None, (1, 2)))
    for kind, example in (
        (Any, entry), (Entry, entry), (list[Entry], [entry]), (dict[str, float], {"J": 1.0}), (tuple[int, ...], [1, 2])
    ):  # fmt: skip
        title = getattr(kind, "__name__", str(kind))
        read = partial(_values, partial(parse_json, kind=kind))
        yield Reader(f"json {title}", read, [json.dumps(example).encode()], _LEAF, _JSON_TOKENS)


_CVAT = """<annotations><meta><task><original_size><width>8</width><height>6</height></original_size></task></meta>
<image id="0" name="0.png" width="8" height="6"><mask label="dog" rle="0, 6" left="1" top="1" width="3" height="2"/>
<polygon label="cat" points="1,1;4,1;4,3" z_order="1"/><box label="a" xtl="1" ytl="1" xbr="4" ybr="3" rotation="9"/>
<ellipse label="b" cx="4" cy="3" rx="2" ry="1"/></image></annotations>"""


_CLASSES = b"""path: .
train: images
names:
  0: "dog"  # object 5
  1: cat  # object 3, 4
"""


@contextmanager
def _written(data: bytes, name: str) -> Iterator[Path]:
    """Data as a file; gives its folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield Path(folder)


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """What reads a file of a folder that is named."""

    def called(data: bytes) -> None:
        with _written(data, name) as folder:
            read(folder)

    return called


def _mask(data: bytes) -> None:
    with _written(data, "x.json") as folder:
        prompts("clip.mp4", folder / "x.json", SIZE)


def _classes(data: bytes) -> None:
    with _written(data, "data.yaml") as folder:
        (folder / "00000.txt").write_text("1 0.125 0.166 0.5 0.166 0.5 0.5\n")
        prompts("clip.mp4", folder / "00000.txt", SIZE)


def _files() -> Iterator[Reader]:
    """Lines and tables of runs, plans and manifests."""

    def plan(path: Path) -> None:
        _, faults = tasks_of(rows_of(path), path.parent, {})
        if not all(fault.isprintable() for fault in faults):
            raise AssertionError(f"control characters in {faults!a}")

    row = {"clip": "dog.mp4", "mask": ["0:a.png", "9:b.png"], "size": 240, "overlay": "no", "gone": "1@2-3", "out": "x"}
    rows = b"clip,mask,size,set\ndog.mp4,0:a.png;9:b.png,240,radius=3\n"
    yield Reader("plan.csv", _file("x.csv", lambda folder: plan(folder / "x.csv")), [rows], rb"[^,\n]+|[,\n]")
    yield Reader(
        "plan.jsonl", _file("x.jsonl", lambda folder: plan(folder / "x.jsonl")), [_line(row)], _LEAF, _JSON_TOKENS
    )
    steps = [
        Step("add", id=1, name="dog"), Step("add", id=2, name="cat"),
        Step("brush", frame=2, id=1, points=[[1.0, 1.0], [4.0, 3.0]], radius=1.5),
        Step("polygon", id=1, points=[[1.0, 1.0], [4.0, 1.0], [4.0, 3.0]]),
        Step("begin", data=encoded(np.zeros(SIZE, np.uint8)), opens=True),
        Step("fill", id=1, points=[[0.0, 0.0]]), Step("grow", id=1, radius=1.0), Step("smooth", id=1, radius=1.0),
        Step("merge", id=1, other=2), Step("undo"), Step("gone", frame=3, id=1, last=9),
        Step("here", frame=4, id=1), Step("recolor", id=1, color="#ff0000"), Step("undo"), Step("redo"),
    ]  # fmt: skip
    journal = b"".join(_line(asdict(step)) for step in steps)
    yield Reader("journal", _file(JOURNAL, lambda folder: Document(SIZE, folder)), [journal], _LEAF, _JSON_TOKENS)
    once = [_line({"objects": [3], "frames": [[0, 4], [9, 11]]})]
    yield Reader("once", _file(ONCE, Once.kept_in), once, _LEAF, _JSON_TOKENS)
    signs = _line([0, 0.5, {"3": list(asdict(Sign(9)).values())}])
    yield Reader("signs", _file(SIGNS, lambda folder: read_signs(OutputRoot(folder))), [signs], _LEAF, _JSON_TOKENS)
    table = b"frame,object,confidence,area\n0,3,1.0,256\n1,3,0.9,250\n"
    yield Reader("confidence", _file("confidence.csv", read_rows), [table], rb"[^,\n]+|[,\n]")
    result = Result("dog", "dog.mp4", Status.FAILED, "key", message="why", row={"clip": "dog.mp4"})
    ended = _line(dict(asdict(result).items()))
    yield Reader(
        "batch.jsonl",
        _file("batch.jsonl", lambda folder: list(Manifest(folder).results())),
        [ended],
        _LEAF,
        _JSON_TOKENS,
    )
    yield Reader(
        "plan.json",
        _file(".batch/all/plan.json", lambda folder: Manifest(folder).outline()),
        [_line(asdict(Outline(2, ".", {"size": "240"})))],
        _LEAF,
        _JSON_TOKENS,
    )
    coming = ["summary.json", RECORD]
    moves = {"come_from": ".vostrack/next", "go_to": ".vostrack/steps/0001", "coming": coming, "going": []}
    yield Reader("moves", _file(".vostrack/moves.json", finish_moves), [_line(moves)], _LEAF, _JSON_TOKENS)
    with TemporaryDirectory() as folder:
        fakes.write_weights(Path(folder))
        manifest = Path(folder, "manifest.toml").read_bytes()
    yield Reader("manifest", _file("manifest.toml", read_manifest), [manifest], rb'"[^"]*"|[\d.]+|\w+', _JSON_TOKENS)
    yield Reader(
        "json file",
        _file("x", lambda folder: _values(read_json, folder / "x", Entry)),
        [_line(asdict(Entry("a", 3, {})))],
        _LEAF,
        _JSON_TOKENS,
    )
    yield Reader(
        "toml file",
        _file("x", lambda folder: _values(read_toml, folder / "x", Entry)),
        [b'name = "a"\nsize = 3\n[scores]\nJ = 0.5\n'],
    )


def _line(value: Any) -> bytes:
    return f"{json.dumps(value)}\n".encode()


def _binary() -> Iterator[Reader]:
    """Pictures, tensors and what a run keeps."""
    bytewise: Mapping[str, Any] = {
        "pattern": rb"(?s).",
        "tokens": (b"\0", b"\xff", b"\x7f", b"\0\0\0\0", b"\xff" * 4, b""),
    }
    with TemporaryDirectory() as folder:
        path = fakes.write_mask(Path(folder, "x.png"))
        yield Reader("mask image", lambda data: _image(data, fakes.SIZE), [path.read_bytes()], **bytewise)
        path = fakes.write_weights(Path(folder))
        yield Reader("weights", _file("x", lambda folder: read_details(folder / "x")), [path.read_bytes()],
                     allowed=(VostrackError,), pattern=_LEAF, tokens=_JSON_TOKENS)  # fmt: skip
        save_state(Path(folder, "state"), fakes.FakeState(torch.zeros(2, 3), 4))
        state = Path(folder, "state").read_bytes()
        yield Reader("state", _file("x", lambda folder: load_state(folder / "x", fakes.FakeState)), [state], **bytewise)
        labels = {0: LabelMap(torch.zeros(SIZE, dtype=torch.uint8), (1, 2))}

        def cells(folder: Path) -> KeptCells:
            return KeptCells(folder, Direction.FORWARD, labels, (3, 4))

        cells(Path(folder)).write(1, torch.full((3, 3, 4), 85, dtype=torch.uint8), (1, 2), (2,))
        kept = Path(folder, cells(Path(folder)).name(1)).read_bytes()
        yield Reader("cells", _file("forward/00001.png", lambda folder: cells(folder).read(1)), [kept], **bytewise)
        yield Reader("stale cells", _file("forward/stale", lambda folder: cells(folder).stale), [b"12"], **bytewise)
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", _CVAT)
    yield Reader("archive", _mask, [box.getvalue()], **bytewise)
    picture = dpx(fakes.pictures(1)[0][:6, :8])
    yield Reader("dpx", _file("x/0.dpx", _clip), [picture], pattern=rb"(?s)(?<![^\0])[^\0]+", tokens=bytewise["tokens"])


def _clip(folder: Path) -> None:
    with open_clip(folder / "x") as clip:
        list(clip)


def _image(data: bytes, size: tuple[int, int]) -> None:
    with _written(data, "x.png") as folder:
        prompts("clip.mp4", folder / "x.png", size)


def spliced(reader: Reader, data: bytes, places: Sequence[tuple[int, bytes]]) -> bytes:
    """An example with some of its parts replaced; the length of a safetensors head follows."""
    for place, token in places:
        found = list(re.finditer(reader.pattern, data))
        if found:
            match = found[place % len(found)]
            data = data[: match.start()] + token + data[match.end() :]
    if reader.name == "weights" and len(data) > 8:
        end = data.find(b"}}", 8) + 2
        data = struct.pack("<Q", max(0, end - 8)) + data[8:]
    return data
