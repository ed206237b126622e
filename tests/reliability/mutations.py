"""What can be wrong with a file: changes to a good one, each a name and what puts it in the file's place."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Make = Callable[[Path], object]
Family = Callable[[bytes], Iterator[tuple[str, Make]]]

THEIRS = "../theirs"
"""From the folder of a case, what belongs to somebody else."""

_DEEP = 100_000
JSON_VALUES: Mapping[str, str] = {
    "null": "null",
    "true": "true",
    "text": '"x"',
    "nothing": '""',
    "below zero": "-1",
    "zero": "0",
    "fraction": "0.5",
    "nan": "NaN",
    "infinity": "-Infinity",
    "too large a float": "1e999",
    "large": str(10**12),
    "64 bits": str(1 << 64),
    "400 digits": "9" * 400,
    "5,000 digits": "9" * 5000,
    "long text": f'"{"x" * 200_000}"',
    "surrogate": '"\\ud800"',
    "control": '"\\u001b[2J\\u0007\\r\\u202e\\u009b31m"',
    "markup": '"[/b]{0}%s</b>[red][link=x]"',
    "path out": f'"{THEIRS}/secret"',
    "path of the system": '"/etc/passwd"',
    "nul": '"a\\u0000b"',
    "list": "[]",
    "object": "{}",
    "deep list": "[" * _DEEP + "]" * _DEEP,
    "deep object": '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "long list": f"[{'0,' * 200_000}0]",
}
TEXTS: Mapping[str, str] = {
    "nothing": "",
    "below zero": "-1",
    "fraction": "0.5",
    "nan": "nan",
    "infinity": "inf",
    "too large a float": "1e999",
    "large": str(10**12),
    "400 digits": "9" * 400,
    "5,000 digits": "9" * 5000,
    "long": "x" * 200_000,
    "control": "\x1b[2J\x07\u202e\x9b31m",
    "markup": "[/b]{0}%s</b>[red][link=x]",
    "path out": f"{THEIRS}/secret",
    "path of the system": "/etc/passwd",
    "option": "--overwrite",
    "formula": "=cmd|' /C calc'!A0",
    "nul": "a\0b",
    "quote": '"',
    "digits of another script": "\u0663\u0664",
}
TOML_VALUES = {name: text for name, text in JSON_VALUES.items() if name not in ("null", "nan", "infinity")} | {
    "nan": "nan",
    "infinity": "inf",
    "date": "1979-05-27",
}
_LEAF = r'"(?:[^"\\]|\\.)*"(?!\s*:)|-?\d+(?:\.\d+)?(?:e-?\d+)?|\btrue\b|\bfalse\b|\bnull\b'
_INNER = r"\[[^\[\]{}]*\]|\{[^{}\[\]]*\}"
_KEY = r'"[^"\\]*"\s*:'


def write(data: bytes, path: Path) -> None:
    """Put data in a file's place."""
    remove(path)
    path.write_bytes(data)


def remove(path: Path) -> None:
    """Remove what is there, a folder too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cut(data: bytes) -> Iterator[tuple[str, Make]]:
    """The file ends early, or goes on."""
    for part in range(16):
        yield f"cut at {part}/16", partial(write, data[: len(data) * part // 16])
    yield "without its last byte", partial(write, data[:-1])
    yield "twice", partial(write, data + data)
    yield "noise behind", partial(write, data + random.Random(0).randbytes(1000))


def damage(data: bytes) -> Iterator[tuple[str, Make]]:
    """Bytes are others."""
    chance = random.Random(zlib.crc32(data))
    for number in range(12 if data else 0):
        changed = bytearray(data)
        for _ in range((1, 1, 4, 16, 64, max(1, len(data) // 20))[number % 6]):
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield f"bits flipped {number}", partial(write, bytes(changed))
    for number in range(4 if data else 0):
        start = chance.randrange(len(data))
        size = max(1, len(data) // 16)
        changed = bytearray(data)
        changed[start : start + size] = bytes([number % 2 * 255]) * len(changed[start : start + size])
        yield f"a block of {'ones' if number % 2 else 'zeros'} {number}", partial(write, bytes(changed))
    yield "backwards", partial(write, data[::-1])


def sizes(data: bytes) -> Iterator[tuple[str, Make]]:
    """Numbers in the head are absurd."""
    chance = random.Random(len(data))
    for number in range(16 if data else 0):
        place = chance.randrange(min(len(data), 256))
        value = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")[number % 4]
        yield f"a field of {value.hex()} at {place}", partial(write, data[:place] + value + data[place + 4 :])


def _swapped(pattern: str, values: Mapping[str, str], most: int, what: str, data: bytes) -> Iterator[tuple[str, Make]]:
    text, chance = data.decode(), random.Random(len(data))
    found = list(re.finditer(pattern, text))
    pairs = [(match, name) for match in found for name in values]
    for match, name in sorted(chance.sample(pairs, min(most, len(pairs))), key=lambda pair: pair[0].start()):
        yield f"{what} at {match.start()} is {name}", partial(_swap, match, values[name])


def _swap(match: re.Match[str], value: str, path: Path) -> None:
    text = match.string[: match.start()] + value.replace("\\g<0>", match[0]) + match.string[match.end() :]
    write(text.encode(errors="surrogateescape"), path)


def swaps(pattern: str, values: Mapping[str, str] = TEXTS, most: int = 60, what: str = "text") -> Family:
    """Some parts of a text, which a pattern finds, are something else."""
    return partial(_swapped, pattern, values, most, what)


def _whole(data: bytes) -> Iterator[tuple[str, Make]]:
    for name, value in JSON_VALUES.items():
        yield f"all of it is {name}", partial(write, value.encode())
    text = data.decode()
    yield "in UTF-16", partial(write, text.encode("utf-16"))
    yield "not UTF-8", partial(write, data.replace(b'"', b'"\xff', 1))
    yield "a nul in front", partial(write, b"\0" + data)
    yield "two of it", partial(write, data + data)


def _fields(data: bytes) -> Iterator[tuple[str, Make]]:
    """All values at the top of an object are of one kind, or some are gone."""
    try:
        good = json.loads(data)
    except ValueError:  # it has a value a line
        return
    if isinstance(good, dict):
        for name, value in (("a number", 3), ("text", "x"), ("null", None), ("a list", []), ("an object", {})):
            yield f"all values are {name}", partial(write, json.dumps(dict.fromkeys(good, value)).encode())
        for start in (0, 1):
            yield (
                f"half of it {start}",
                partial(write, json.dumps({key: good[key] for key in [*good][start::2]}).encode()),
            )


_KEYS = {
    "gone": '"x":',
    "there twice": "\\g<0> null, \\g<0>",
    "deep first": f"\\g<0> {JSON_VALUES['deep list']}, \\g<0>",
    "control": f"{JSON_VALUES['control']}: 1, \\g<0>",
}
JSON: tuple[Family, ...] = (
    swaps(_LEAF, JSON_VALUES, 160, "value"),
    swaps(_INNER, JSON_VALUES, 20, "part"),
    swaps(_KEY, _KEYS, 16, "key"),
    _whole,
    _fields,
)
TOML: tuple[Family, ...] = (swaps(r"(?<== ).+", TOML_VALUES, 240, "value"), swaps(r"^\w+(?= =)", TEXTS, 12, "key"))
BYTES: tuple[Family, ...] = (cut, damage, sizes)


def xml(data: bytes) -> Iterator[tuple[str, Make]]:
    """Attributes and texts are others; entities grow or read files; elements are deep."""
    yield from swaps(r'(?<==")[^"]*(?=")', most=60, what="attribute")(data)
    yield from swaps(r"(?<=>)[^<>\s]+(?=<)", most=20)(data)
    text = data.decode()
    head = "<!DOCTYPE annotations [%s]>"
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    for name, declared in (
        ("laughs", '<!ENTITY l0 "ha">' + laughs),
        ("a file of the system", '<!ENTITY l9 SYSTEM "file:///etc/passwd">'),
        ("a parameter of the system", '<!ENTITY % l SYSTEM "file:///etc/passwd"> %l; <!ENTITY l9 "x">'),
    ):
        body = re.sub(r"^<\?xml.*?\?>", "", text).replace("</annotations>", "&l9;</annotations>")
        yield f"entities: {name}", partial(write, (head % declared + body).encode())
    yield "deep", partial(write, b"<annotations>" + b"<image>" * _DEEP)
    yield "wide", partial(write, b"<annotations>" + b"<image/>" * 2_000_000 + b"</annotations>")
    yield "in UTF-16", partial(write, text.encode("utf-16"))
    yield "another root", partial(write, text.replace("annotations", "a").encode())


def safetensors(data: bytes) -> Iterator[tuple[str, Make]]:
    """The head says something else of the tensors behind it."""
    length = struct.unpack("<Q", data[:8])[0]
    head, rest = data[8 : 8 + length], data[8 + length :]
    for family in JSON:
        for name, make in family(head):
            yield f"head: {name}", partial(_with_head, make, rest)
    for size in (0, 1, length - 1, length + 1, len(data), 1 << 31, 1 << 63, (1 << 64) - 1):
        yield f"a head of {size} bytes", partial(write, struct.pack("<Q", size) + data[8:])
    for name, value in (("zeros", b"\0\0\0\0"), ("nan", b"\0\0\xc0\x7f"), ("ones", b"\0\0\x80\x3f")):
        tensors = (value * (len(rest) // 4 + 1))[: len(rest)]
        yield f"its tensors are {name}", partial(write, data[: 8 + length] + tensors)
    for name, make in damage(rest):
        yield f"its tensors have {name}", partial(_behind_head, make, data[: 8 + length])
    told = json.loads(head).get("__metadata__", {})
    for family in JSON if "tree" in told else ():
        for name, make in family(told["tree"].encode()):
            yield f"its tree: {name}", partial(_with_tree, make, json.loads(head), rest)


def _with_tree(make: Make, head: dict[str, Any], rest: bytes, path: Path) -> None:
    make(path)
    told = {**head["__metadata__"], "tree": path.read_text(errors="replace")}
    text = json.dumps({**head, "__metadata__": told}).encode()
    write(struct.pack("<Q", len(text)) + text + rest, path)


def _behind_head(make: Make, head: bytes, path: Path) -> None:
    make(path)
    write(head + path.read_bytes(), path)


def _with_head(make: Make, rest: bytes, path: Path) -> None:
    make(path)
    head = path.read_bytes()
    write(struct.pack("<Q", len(head)) + head + rest, path)


def checkpoint(data: bytes) -> Iterator[tuple[str, Make]]:
    """A file of `torch.save` whose entries are others."""
    import torch

    good = torch.load(io.BytesIO(data), weights_only=True)
    odd = {"text": "x", "below zero": -1, "large": 1 << 62, "nan": float("nan"), "null": None, "list": [], "object": {}}
    for name, entry in good.items():
        for value, changed in {**odd, "a tensor": torch.zeros(1 << 20)}.items():
            yield f"{name} is {value}", partial(_saved, {**good, name: changed})
            for key in entry if isinstance(entry, dict) else ():
                yield f"{name} with {key} is {value}", partial(_saved, {**good, name: {**entry, key: changed}})
        yield f"{name} is gone", partial(_saved, {key: value for key, value in good.items() if key != name})


def _saved(value: object, path: Path) -> None:
    import torch

    remove(path)
    torch.save(value, path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def png(data: bytes) -> Iterator[tuple[str, Make]]:
    """The header of a PNG is another, and chunks grow without end."""
    start, rest = data[:8], data[33:]
    kind = data[24:29]
    for width, height in ((0, 0), (1, (1 << 31) - 1), ((1 << 31) - 1, 1), (65535, 65535), (30000, 30000), (64, 48000)):
        header = _chunk(b"IHDR", struct.pack(">II", width, height) + kind)
        yield f"a header of {width}x{height}", partial(write, start + header + rest)
    for depth, color in ((1, 0), (16, 0), (16, 2), (3, 3), (16, 3), (8, 7), (255, 255), (8, 4), (8, 6)):
        header = _chunk(b"IHDR", data[16:24] + bytes([depth, color]) + kind[2:])
        yield f"a header of {depth} bits, colour {color}", partial(write, start + header + rest)
    for name, text in ((b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")):

        def grown(path: Path, name: bytes = name, text: bytes = text) -> None:
            write(data[:33] + _chunk(name, text + _bomb(1 << 28)) + rest, path)

        yield f"a bomb in {name.decode()}", grown
    header = _chunk(b"IHDR", struct.pack(">II", 20000, 20000) + kind)

    def full(path: Path) -> None:
        write(start + header + _chunk(b"IDAT", _bomb(20001 * 20000)) + _chunk(b"IEND", b""), path)

    yield "a bomb of 20000x20000", full
    for size in (0, 1, 1000):
        yield f"a palette of {size} bytes", partial(write, data[:33] + _chunk(b"PLTE", bytes(size)) + rest)
    yield "text that steers", partial(write, data[:33] + _chunk(b"tEXt", b"hidden\0\x1b[2J9,x,-1,") + rest)
    yield "a frame too many", partial(write, data[:33] + _chunk(b"acTL", struct.pack(">II", 1 << 31, 0)) + rest)


def archive(data: bytes) -> Iterator[tuple[str, Make]]:
    """A ZIP file with members that lead out, grow, repeat or lie."""
    with zipfile.ZipFile(io.BytesIO(data)) as good:
        members = [(info.filename, good.read(info)) for info in good.infolist()]
    name, content = members[0]
    ending = Path(name).suffix
    for odd in (
        f"{THEIRS}/secret{ending}",
        f"/x{ending}",
        f"C:\\x{ending}",
        f"a\x1b[2J{ending}",
        "x" * 60000 + ending,
        "",
    ):
        yield f"a member {odd[:20]!a}", partial(_zipped, [(odd, content)])
    yield "none", partial(_zipped, [])
    yield "a member twice", partial(_zipped, [members[0], members[0]])
    yield "many members", partial(_zipped, [(f"{n}{ending}", b"") for n in range(70_000)])
    yield "a bomb", lambda path: _zipped([(name, bytes(1 << 28))], path)
    for number, method in (("bzip2", zipfile.ZIP_BZIP2), ("LZMA", zipfile.ZIP_LZMA)):
        yield f"packed by {number}", partial(_zipped, members, packed=method)
    yield "in itself", partial(_zipped, [(name, data)])
    yield (
        "encrypted",
        partial(
            write,
            data[:6]
            + b"\x01\x00"
            + data[8:].replace(b"PK\x01\x02\x14\x03\x14\x00\0\0", b"PK\x01\x02\x14\x03\x14\x00\x01\0"),
        ),
    )
    yield "another packing", partial(write, data[:8] + b"\x63\x00" + data[10:])


def _zipped(members: list[tuple[str, bytes]], path: Path, packed: int = zipfile.ZIP_DEFLATED) -> None:
    remove(path)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.filename, info.compress_type = name, packed
            file.writestr(info, content)


class _Runs:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {THEIRS}/ran",)


def _torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Runs(), 2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def _array() -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + pickle.dumps([_Runs()])


_SVG = '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
_LIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s\n#EXT-X-ENDLIST\n"
KINDS: Mapping[str, bytes] = {
    "nothing": b"",
    "a byte": b"x",
    "zeros": bytes(1 << 20),
    "text": b"hello\n",
    "a long line": b"x" * 20_000_000,
    "text in UTF-16": "hello".encode("utf-16"),
    "deep JSON": JSON_VALUES["deep list"].encode(),
    "an entity of the system": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotations>&e;</annotations>',
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a script": f"#!/bin/sh\ntouch {THEIRS}/ran\n".encode(),
    "PostScript": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({THEIRS}/ran) (w) file closefile\n".encode(),
    "a PDF": b"%PDF-1.4\n1 0 obj<</OpenAction<</S/Launch>>>>endobj\n",
    "SVG": _SVG.encode(),
    "HTML": b"<!DOCTYPE html><script>alert(1)</script>",
    "gzip": gzip.compress(b"x" * 1000),
    "a ZIP file": _torch_zip().replace(b"data.pkl", b"data.txt"),
    "a pickle that runs": pickle.dumps(_Runs()),
    "a checkpoint that runs": _torch_zip(),
    "an array that runs": _array(),
    "a list of a file": (_LIST % f"file:{THEIRS}/clip.mp4").encode(),
    "a list of the system": (_LIST % "file:///etc/passwd").encode(),
    "a list of an address": (_LIST % "http://127.0.0.1:9/x.ts").encode(),
    "a list to join": f"ffconcat version 1.0\nfile {THEIRS}/clip.mp4\n".encode(),
    "a session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "sound": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x44\xac\0\0\x88\x58\1\0\2\0\x10\0data\0\0\0\0",
    "a large picture": b"P6\n60000 60000\n255\n",
    "an icon": b"\0\0\1\0\1\0\xff\xff\0\0\1\0\x20\0\xff\xff\xff\xff\x16\0\0\0",
}


def kinds(data: bytes) -> Iterator[tuple[str, Make]]:
    """It is another kind of file under the same name."""
    for name, other in KINDS.items():
        yield f"it is {name}", partial(write, other)


def places(data: bytes) -> Iterator[tuple[str, Make]]:
    """Something else than a file is in its place."""
    for name, make in PLACES.items():
        yield f"it is {name}", partial(_placed, make)


def _placed(make: Make, path: Path) -> None:
    remove(path)
    make(path)


def _fifo_behind(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}.pipe"))
    path.symlink_to(f"{path.name}.pipe")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _device(path: Path) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))


PLACES: Mapping[str, Make] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a pipe": _fifo_behind,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to zeros": lambda path: path.symlink_to("/dev/zero"),
    "a link to the root": lambda path: path.symlink_to("/"),
    "a link out": lambda path: path.symlink_to(theirs_of(path) / "secret"),
    "a link to a folder out": lambda path: path.symlink_to(theirs_of(path)),
    "a socket": _socket,
    "zeros without end": _device,
}


def theirs_of(path: Path) -> Path:
    """The folder of somebody else, beside that of the case that a path is in."""
    for parent in path.parents:
        if (parent.parent / "theirs").is_dir():
            return parent.parent / "theirs"
    raise ValueError(f"{path} is in no case")
