from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import vostrack

ROOT = Path(vostrack.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def rows() -> list[list[str]]:
    """The rooms of the package from the top row to the bottom, as docs/architecture.md lists them."""
    section = PAGE.read_text(encoding="utf-8").partition("## Imports go one way")[2]
    return [line.split() for line in section.split("```")[1].splitlines()[1:]]


ROW = {room: number for number, row in enumerate(rows()) for room in row}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Parts of the package that a file imports, at its top, in functions and for types alike."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.split(".")[0] == "vostrack"}
    rooms = {[*name.split("."), ""][1] for name in found}
    return {room for room in rooms if room in ROW}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = part(path)
    if own == "__init__":
        return
    assert own in ROW, f"{own} has no row in docs/architecture.md"
    above = {room for room in imports(path) if room != own and ROW[room] <= ROW[own]}
    assert not above, f"{own} imports from {sorted(above)}, which is not below it in docs/architecture.md"


def test_only_the_command_line_speaks_of_flags() -> None:
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if part(path) in ("cli", "__main__") or not isinstance(node, ast.Constant):
                continue
            # Of several lines are docstrings, which may say how things look on the command line.
            if isinstance(node.value, str) and "\n" not in node.value:
                where = f"{path.relative_to(ROOT)}:{node.lineno}: name the argument, as `resume=True`"
                assert not re.search(r"(?<![\w-])--[a-z]", node.value), where


def test_what_decoders_raise_is_caught_in_one_place() -> None:
    """Others would take too little memory for damage."""
    whoever_goes_on = {
        "batch/away",
        "batch/cluster",
        "batch/task",
        "cli/__init__",
        "cli/batch",
        "cli/plan",
        "train/run",
        "web/work",
    }
    found = {path for path in FILES if "except Exception" in path.read_text(encoding="utf-8")}
    assert {path.relative_to(ROOT).with_suffix("").as_posix() for path in found} == whoever_goes_on | {"errors"}


def test_every_room_is_there() -> None:
    assert set(ROW) == {part(path) for path in FILES} - {"__init__"}


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if part(path) == "cli":
            continue
        for node in ast.walk(parsed(path)):
            called = node.func if isinstance(node, ast.Call) else None
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if name == "set_num_threads" and path.name in ("runner.py", "local.py", "cluster.py", "work.py"):
                continue  # in processes of their own
            assert name not in {"basicConfig", "set_num_threads", "manual_seed_all", "chdir"}, where
            assert not (isinstance(called, ast.Name) and name in {"print", "exit", "quit", "input"}), where


def length(function: ast.FunctionDef, signature: bool) -> int:
    """Lines of a function without its docstring, and with or without what stands before that."""
    docstring = ast.get_docstring(function, clean=False)
    if not signature:
        body = function.body[docstring is not None :]
        return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
    return (function.end_lineno or 0) - function.lineno + 1 - len((docstring or "").splitlines())


def test_files_and_functions_stay_short() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                count = length(node, signature=part(path) != "cli")  # a command's signature holds its options
                assert count <= 60, f"{path.relative_to(ROOT)}: {node.name} has {count} lines"


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(parsed(path)), path


# The tests.


def modules(path: Path) -> dict[str, str]:
    """What a file imports: each name that it gets, and what that is in full."""
    found: dict[str, str] = {}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_private(name: str) -> bool:
    return bool(re.match("_[^_]", name))


def private_names(path: Path) -> set[str]:
    """Private names that a test module takes from the package: imported, after a dot, or given to `setattr`."""
    imported = modules(path)
    found = {full for full in imported.values() if full.startswith("vostrack") and is_private(full.split(".")[-1])}
    foreign = {name for name, full in imported.items() if not full.startswith("vostrack")} | {"self", "cls"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            owner, name = node.args[0], str(node.args[1].value)
        else:
            continue
        if isinstance(owner, ast.Constant) and re.match(r"vostrack\b.*\._[^_]", str(owner.value)):
            found.add(str(owner.value))
        while isinstance(owner, ast.Attribute | ast.Call | ast.Subscript):
            owner = owner.func if isinstance(owner, ast.Call) else owner.value
        if isinstance(owner, ast.Name) and is_private(name) and owner.id not in foreign:
            found.add(f"{owner.id}.{name}")
    return found


def test_tests_use_what_is_public() -> None:
    for path in TESTS:
        name = path.relative_to(TESTS[0].parent).as_posix()
        taken = private_names(path)
        assert not taken, f"{name} takes {sorted(taken)}"


def test_no_test_module_imports_another_one() -> None:
    for path in TESTS:
        shared = [full for full in modules(path).values() if re.match(r"tests\b.*\.test_", full)]
        assert not shared, f"{path}: what tests share stands in a conftest.py or a helper module"


def test_a_test_that_needs_a_package_is_marked_so() -> None:
    """Continuous integration fails where a marked package is missing; `importorskip` would pass in silence."""
    taken = [path for path in TESTS for node in ast.walk(parsed(path)) if getattr(node, "attr", "") == "importorskip"]
    assert not taken, "use pytest.mark.needs(package, extra)"
