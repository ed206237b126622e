"""`python -m tests.reliability [NAME ...]`: runs a program, or the short form of each; `NAME --help` has options."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PROGRAMS = ("hostile", "kill", "faults", "soak", "fuzz")
"""Modules of this package with a `main(arguments: list[str]) -> int`, which gives the exit code; the longest first."""

_AT_ONCE = 2


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names with the others, or all; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("program", choices=PROGRAMS, nargs="?", help="[all, two at a time]")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the program")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the tests: processes are forked after torch was loaded
    if given.program is None:
        return _all()
    program = importlib.import_module(f"tests.reliability.{given.program}")
    return int(program.main(given.arguments))


def _all() -> int:
    """Run the short form of each program; 1 if one finds something."""

    def ended(name: str) -> int:
        command = [sys.executable, "-m", "tests.reliability", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(f"{name}, exit code {done.returncode}\n{done.stdout}", flush=True)
        return done.returncode

    began = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        codes = [*pool.map(ended, PROGRAMS)]
    print(f"{time.monotonic() - began:.0f} s in all")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
