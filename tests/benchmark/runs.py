"""Results of runs of the fake method, as the tests of the runner and of its command compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import fakes
from tests.benchmark import trees
from vostrack.benchmark.datasets.table import Dataset, open_dataset

FAKE = [fakes.variant()]


def files(folder: Path) -> dict[str, bytes]:
    """All masks, tables and submissions; of reports, what does not vary."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".csv", ".zip"):
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif path.name == "results.json":
            report = json.loads(path.read_text())
            report.pop("timing")
            found[str(path.relative_to(folder))] = json.dumps(report, sort_keys=True).encode()
    return found


def davis(tmp_path: Path, **options: Any) -> Dataset:
    return open_dataset("davis17", trees.davis17(tmp_path / "davis", **options))
