"""Programs in processes that start at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import fork
from tests.reliability.__main__ import main

_SECONDS = 900  # a program that hangs must not hold up all other tests


def _exit(arguments: list[str]) -> None:
    sys.exit(main(arguments))


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """Runs a program, which must find nothing wrong, with arguments; gives what it prints."""

    def run(*arguments: str) -> str:
        process = fork(tmp_path, _exit, list(arguments))
        process.join(_SECONDS)
        process.kill()
        process.join()
        said = "".join((tmp_path / name).read_text() for name in ("out", "err"))
        assert process.exitcode == 0, said
        return said

    return run
