"""`python -m tests.reliability NAME ...`: runs one of the programs; `NAME --help` has its options."""

from __future__ import annotations

import argparse
import importlib
import sys

PROGRAMS = ("kill", "faults", "hostile", "fuzz", "soak")
"""Modules of this package, each with `main(arguments: list[str]) -> int`, which gives the exit code."""


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names with the others; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the program")
    given = parser.parse_args(arguments)
    program = importlib.import_module(f"tests.reliability.{given.program}")
    return int(program.main(given.arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
