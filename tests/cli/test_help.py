"""Help pages: what comes first, groups of options, flags."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vostrack.cli import app
from vostrack.cli.help import joined
from vostrack.methods import METHODS

ROOT: Any = typer.main.get_command(app)
COMMANDS = {
    **ROOT.commands,
    **{
        f"{name} {inner}": command
        for name, group in ROOT.commands.items()
        for inner, command in getattr(group, "commands", {}).items()
    },
}
GROUPS = {"Arguments", "Input", "Output", "Method", "Refinement", "Evaluation", "Rules", "Run"}


def page(command: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines of a help page in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    return [line.strip() for line in result.output.splitlines() if line.strip()]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_examples_come_first_a_line_each(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = page(command, monkeypatch)
    first = lines.index("Examples:")
    assert first <= 4, "after usage and one sentence"
    examples = joined(COMMANDS[command].help).split("\n\n")[1].splitlines()[1:]
    assert lines[first + 1 : first + 1 + len(examples)] == examples
    assert all(example.startswith(f"vostrack {command.split()[0]}") for example in examples)


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_have_no_type(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<bool>" not in "\n".join(page(command, monkeypatch))


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_have_no_type_and_no_braces(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = page(command, monkeypatch)
    usage = " ".join(lines[: lines.index("Examples:")])
    assert not re.search(r"[{}]|\[\[", usage)
    starts = [number for number, line in enumerate(lines) if "─ Arguments ─" in line]
    for start in starts:
        end = next(number for number, line in enumerate(lines) if number > start and line.startswith("╰"))
        assert not re.search("<.*>", "\n".join(lines[start:end]))


@pytest.mark.parametrize(
    "command", ["segment", "demo", "train", "inspect", "score", "speed presets", "speed dense", "benchmark run"]
)
def test_options_are_in_groups(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = page(command, monkeypatch)
    titles = [line.strip("╭─╮ ") for line in lines if line.startswith("╭")]
    assert set(titles) <= GROUPS
    assert len(titles) == len(set(titles)) >= 4
    assert any("--help" in line for line in lines[lines.index(next(line for line in lines if "─ Run ─" in line)) :])


def test_few_options_need_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("─ Options ─" in line for line in page("weights join", monkeypatch))


def test_a_paragraph_is_one_line_and_an_example_keeps_its_own() -> None:
    text = "What it\ndoes.\n\nExamples:\n    one\n    two\n\nMore of\nit."
    assert joined(text) == "What it does.\n\nExamples:\none\ntwo\n\nMore of it."


# Completion.


def completed(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    code = "import sys; from vostrack.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    asked = {"_VOSTRACK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_options_and_methods_are_completed_without_torch() -> None:
    assert completed("vostrack seg") == ["segment"]
    assert completed("vostrack segment --res") == ["--resize-mask", "--resume"]
    assert set(completed("vostrack segment --method ")) >= set(METHODS) - {"fake"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="NO BASH on this machine")
def test_the_script_for_a_shell_is_shown() -> None:
    shell = ["bash", "-c", f"{sys.executable} -m vostrack --show-completion bash; exit $?"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
    assert "complete -o default -F _vostrack_completion vostrack" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True).returncode == 0
