"""Fuzzes the pure readers: whatever they are given, they raise nothing but errors that are meant.

By default hypothesis makes inputs; `--engine atheris` follows the code instead. What is found goes to `replays/`, whose
inputs are always tried first.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.reliability.breaks import Break, starving
from tests.reliability.readers import Reader, readers, spliced

REPLAYS = Path(__file__).with_name("replays")
"""READER-HASH: inputs that once were mishandled."""

_MOST_STARVED = 50


def tried(reader: Reader, data: bytes) -> None:
    """Give an input to a reader; raises what it should not."""
    with contextlib.suppress(*reader.allowed):
        reader.read(data)


def replayed(reader: Reader) -> Iterator[tuple[str, bytes]]:
    """Good examples of a reader, and what it once mishandled, by name."""
    for number, data in enumerate(reader.good):
        yield f"good {number}", data
    for path in sorted(REPLAYS.glob(f"{_slug(reader)}-*")):
        yield path.name, path.read_bytes()


def inputs(reader: Reader) -> st.SearchStrategy[bytes]:
    """Texts of what such inputs are made of, and good ones with some parts replaced."""
    loose = st.binary(max_size=8) | st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass"))
    token = st.sampled_from(reader.tokens) | loose
    places = st.lists(st.tuples(st.integers(0, 1 << 20), token), min_size=1, max_size=4)
    changed = st.builds(lambda good, at: spliced(reader, good, at), st.sampled_from(reader.good), places)
    return changed | st.lists(token, max_size=6).map(b"".join)


def _slug(reader: Reader) -> str:
    return "".join(character if character.isalnum() else "_" for character in reader.name)


def with_hypothesis(reader: Reader, examples: int, first: int) -> bytes | None:
    """The smallest input that a reader mishandles, if there is one."""
    last = b""

    @seed(first)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(reader))
    def works(data: bytes) -> None:
        nonlocal last
        last = data
        tried(reader, data)

    try:
        works()
    except Exception:
        return last
    return None


def with_atheris(reader: Reader, examples: int) -> bytes | None:
    """The same; atheris ends its process, so it has one of its own."""
    folder = Path(tempfile.mkdtemp())  # no `TemporaryDirectory`: the other process would remove it as it ends
    (folder / "seeds").mkdir()
    for number, (_, data) in enumerate(replayed(reader)):
        (folder / "seeds" / str(number)).write_bytes(data)
    process = os.fork()
    if not process:
        _follow(reader, examples, folder)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    at_last, told = (folder / "at").read_bytes(), (folder / "said").read_text(errors="replace")
    shutil.rmtree(folder)
    if code and not at_last:
        raise RuntimeError(f"{reader.name}: {told[-2000:]}")
    return at_last if code else None


def _follow(reader: Reader, examples: int, folder: Path) -> None:
    """Fuzz a reader with atheris, in a process that has nothing else to do; does not come back.

    A file "at" has the input at which it is, or was when it ended: native code may crash.
    """
    import atheris

    for number in (1, 2):
        os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    at = os.open(folder / "at", os.O_WRONLY | os.O_CREAT)

    def one(data: bytes) -> None:
        os.truncate(at, 0)
        os.pwrite(at, data, 0)
        tried(reader, data)

    words = [f"-runs={examples}", f"-artifact_prefix={folder}/", "-rss_limit_mb=4096", "-timeout=60"]
    try:
        atheris.Setup(["fuzz", *words, str(folder / "seeds")], one)
        atheris.Fuzz()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


_INSTRUMENTED = """
import sys, atheris
with atheris.instrument_imports(include=["vostrack"]):
    from tests.reliability import fuzz
    sys.exit(fuzz.main(sys.argv[1:]))
"""


def main(arguments: list[str]) -> int:
    """Fuzz all readers; 1 if one mishandles something."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=15, help="inputs for each reader [15]")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--seed", type=int, default=0, help="of hypothesis")
    parser.add_argument("--only", default="", help="readers whose names hold this")
    options = parser.parse_args(arguments)
    if options.engine == "atheris" and "atheris" not in sys.modules:
        if importlib.util.find_spec("atheris") is None:
            print("SKIPPED: atheris is not installed: pip install atheris", file=sys.stderr)
            return 0
        return subprocess.run([sys.executable, "-c", _INSTRUMENTED, *arguments], check=False).returncode
    chosen = [reader for name, reader in readers().items() if options.only in name]
    wrong = [reader.name for reader in chosen if not _holds(reader, options)]
    print(f"{len(chosen)} readers, {options.examples} inputs each: {len(wrong)} mishandle some {wrong or ''}")
    return int(bool(wrong))


def _holds(reader: Reader, options: argparse.Namespace) -> bool:
    """Whether a reader mishandles nothing; what it does is kept and said."""
    for name, data in replayed(reader):  # an example that is refused would hide what comes behind that
        if not _said(replace(reader, allowed=()) if name.startswith("good ") else reader, data, name):
            return False
    found = with_atheris(reader, options.examples) if options.engine == "atheris" else with_hypothesis(
        reader, options.examples, options.seed
    )  # fmt: skip
    if found is None:
        for text in (told := [*starved(reader, min(options.examples, _MOST_STARVED))]):
            print(text, flush=True)
        return not told
    path = REPLAYS / f"{_slug(reader)}-{hashlib.sha256(found).hexdigest()[:8]}"
    REPLAYS.mkdir(exist_ok=True)
    path.write_bytes(found)
    return _said(reader, found, path.name)


def starved(reader: Reader, most: int) -> Iterator[str]:
    """Let calls of a reader fail for lack of memory, so many of them at most; says what else comes of it."""
    for data in reader.good:
        tried(reader, data)
        with starving(Break(Path())) as calls:
            tried(reader, data)
        for at in range(1, calls() + 1, max(1, calls() // most)):
            try:
                with starving(Break(Path(), at)) as calls:
                    reader.read(data)
                came = "nothing" if calls() >= at else ""
            except MemoryError:
                came = ""
            except Exception as error:
                came = f"{type(error).__name__}: {error}" if calls() >= at else ""
            if came:
                yield f"{reader.name}: of too little memory at call {at} comes {came}"


def _said(reader: Reader, data: bytes, name: str) -> bool:
    """Whether an input is handled; says how not."""
    try:
        tried(reader, data)
    except Exception:
        print(f"{reader.name} mishandles {name}: {data[:200]!r}\n{traceback.format_exc(limit=-3)}", flush=True)
        return False
    return True
