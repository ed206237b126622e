"""Calls to the system that fail once: the run ends with one line, and the next one gives what it would have given."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_clip, write_mask
from tests.runs import results
from vostrack import cli
from vostrack.run import passes

pytestmark = pytest.mark.usefixtures("fake_method")


@pytest.mark.parametrize("at", [1, 8])
@pytest.mark.parametrize("name", ["io.open", "os.open", "os.fsync", "os.replace", "os.mkdir"])
def test_a_call_that_fails_once_loses_nothing(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(passes, "SAVE_SECONDS", 0.0)
    plain, out = tmp_path / "plain", tmp_path / "out"
    clip, mask = write_clip(tmp_path / "clip.mp4", 4), write_mask(tmp_path / "first.png")
    command = ["segment", str(clip), "-m", str(mask), "--method", "fake", "--objects", "--probs", "--quiet", "-o"]
    assert cli.run([*command, str(plain)]) == 0
    module, function = name.split(".")
    real, calls = getattr(importlib.import_module(module), function), itertools.count(1)
    error = (errno.ENOSPC, errno.EIO, errno.EACCES)[at % 3]

    def failing(target: Any, *more: Any, **options: Any) -> Any:
        ours = isinstance(target, int) or str(target).startswith(str(out))
        if ours and next(calls) == at:
            raise OSError(error, os.strerror(error), str(target))
        return real(target, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(name, failing)
        code = cli.run([*command, str(out)])
    assert next(calls) > at
    said = capfd.readouterr().err
    assert [line[:7] for line in said.splitlines()] == (["error: "] if code else [])
    assert code in (0, 6)
    assert not list(tmp_path.rglob("*.part"))
    if out.exists():
        assert results(out).items() <= results(plain).items()
    assert cli.run([*command, str(out), "--resume"]) == 0
    assert results(out) == results(plain)
