from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vostrack

ROOT = Path(vostrack.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FOUNDATION = {"types", "errors", "files"}
OPS = FOUNDATION | {"ops"}
ENGINE = OPS | {"nets", "memory", "state", "options"}
RESULTS = ENGINE | {"methods", "refine", "weights", "video", "propagate"}
RUN = RESULTS | {"output", "summary"}
# What each part of the package may import, besides itself; "" is the package's own name and version.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "options": {"errors"},
    "files": {"errors"},
    "ops": {"types", "errors"},
    "video": FOUNDATION,
    "weights": FOUNDATION,
    "nets": OPS,
    "memory": OPS,
    "state": FOUNDATION,
    "summary": FOUNDATION,
    "methods": ENGINE - {"files"} | {"weights"},
    "refine": ENGINE - {"files"},
    "propagate": ENGINE - {"files"} | {"methods", "refine"},
    "output": RESULTS - {"weights", "nets"},
    "job": RUN,
    "segmentation": RUN | {"job", ""},
    "train": RESULTS | {"segmentation", "benchmark", ""},
    "benchmark": RUN | {"segmentation", ""},
    "demo": RUN | {"segmentation", "benchmark"},
    "inspection": RESULTS - {"weights"},
    "cli": RUN | {"segmentation", "benchmark", "train", "demo", "inspection", ""},
    "__main__": {"cli"},
}


def part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Parts of the package that a file imports, at its top, in functions and for types alike."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.split(".")[0] == "vostrack"}
    parts = {[*name.split("."), ""][1] for name in found}
    return {name if name in ALLOWED else "" for name in parts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_flow_one_way(path: Path) -> None:
    own = part(path)
    if own == "__init__":
        return
    assert own in ALLOWED, f"{own} has no place in the layers: give it one in this test and in docs/architecture.md"
    assert imports(path) <= ALLOWED[own] | {own}


def test_nothing_imports_in_a_circle() -> None:
    order: list[str] = []
    left = dict(ALLOWED)
    while left:
        free = [name for name, below in left.items() if not below - {""} - set(order)]
        assert free, f"a circle among {sorted(left)}"
        order += free
        left = {name: below for name, below in left.items() if name not in free}
    assert order.index("ops") < order.index("methods") < order.index("segmentation") < order.index("cli")


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if part(path) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if name == "set_num_threads" and path.name == "runner.py":
                continue  # in processes of its own, among which it divides the threads of the caller
            assert name not in {"basicConfig", "set_num_threads", "manual_seed_all", "chdir"}, where
            assert not (isinstance(called, ast.Name) and name in {"print", "exit", "quit", "input"}), where


def test_files_and_functions_stay_short() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 320, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and part(path) != "cli":
                length = (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
                assert length <= 60, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path
