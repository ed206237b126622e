from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vostrack
from tests.fakes import register, write_clip, write_mask, write_weights
from vostrack.cli import app, run, with_flags
from vostrack.cli.console import FrameBar, Stopped
from vostrack.cli.methods import SCORES
from vostrack.errors import DatasetError, InputError, MaskError, MethodError, OutputError, VostrackError, WeightsError
from vostrack.methods import METHODS
from vostrack.notes import Code, Note
from vostrack.weights import read_manifest


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, tmp_path / "weights")
    monkeypatch.setattr("vostrack.weights.search_path", lambda: [tmp_path / "weights"])
    monkeypatch.setenv("COLUMNS", "200")


COMMANDS = ["segment", "demo", "train", "methods", "weights", "score"]


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has imported nothing."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_neither_torch_nor_numpy() -> None:
    done = fresh(
        "import sys\nfrom vostrack.cli import run\n"
        "code = run(['--help'])\n"
        "loaded = {'torch', 'numpy', 'av', 'PIL', 'torchvision', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else code)"
    )
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


def test_what_segments_imports_no_torchvision() -> None:
    """It brings torch's compiler along, which takes longer than all else before the first frame."""
    done = fresh(
        "import sys\nimport vostrack.run.segment\nfrom vostrack.methods import METHODS, method_class\n"
        "[method_class(name) for name in METHODS]\n"
        "loaded = {'torchvision', 'torch._dynamo'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_the_package_can_be_started_as_a_module() -> None:
    """As `torchrun -m vostrack` does."""
    command = [sys.executable, "-m", "vostrack", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("vostrack ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"vostrack {command}" in result.output
    assert CliRunner().invoke(app, [command, "-h"]).output == result.output


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = run([])
    shown = capsys.readouterr()
    assert code in (0, 2)
    assert "segment" in shown.out + shown.err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vostrack {vostrack.__version__}\n"


def test_an_unknown_command_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segmnt"]) == 2
    assert "segmnt" in capsys.readouterr().err


def test_a_clip_in_the_place_of_a_command_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["my dog.mp4", "--mask", "first.png"]) == 2
    said = capsys.readouterr().err
    assert (
        "error: no such command 'my dog.mp4'; did you mean vostrack segment 'my dog.mp4'? (see `vostrack --help`)"
        in said
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (VostrackError("one\ntwo"), 1, "error: one two"),
        (MethodError("x"), 2, "error: x"),
        (MaskError("x"), 4, "error: x"),
        (InputError("x"), 5, "error: x"),
        (DatasetError("x"), 5, "error: x"),
        (OutputError("x"), 6, "error: x"),
        (MemoryError(), 7, "error: out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 7, "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 7, "error: out of memory"),
        (WeightsError("x"), 8, "error: x"),
        (ZeroDivisionError("a\nb"), 1, "error: unexpected ZeroDivisionError: a b (run again with vostrack --debug"),
        (OSError(errno.ENOTTY, "broken"), 1, "error: unexpected OSError"),
        (
            OSError(errno.EACCES, "Permission denied", "a\n"),
            5,
            "error: cannot use a\\n: Permission denied; give another",
        ),
        (
            RuntimeError("x" * 9999),
            1,
            f"error: unexpected RuntimeError: {'x' * 300} ... (run again with vostrack --debug",
        ),
    ],
)
def test_errors_become_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("vostrack.weights.available", fail)
    assert run(["weights"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith(line)
    with pytest.raises(type(error)):
        run(["--debug", "weights"])


def test_ctrl_c_outside_of_a_run_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vostrack.weights.available", stop)
    assert run(["weights"]) == 130
    assert capsys.readouterr().err == "stopped: go on with the same command\n"


@pytest.mark.parametrize("arguments", [["batch", "run", "plan.csv", "--out", "runs"], ["weights"]])
def test_ctrl_c_while_the_program_starts_says_how_to_go_on(arguments: list[str]) -> None:
    begin = "import os, signal, vostrack.__main__; os.kill(os.getpid(), signal.SIGINT)"
    ended = subprocess.run([sys.executable, "-c", begin, *arguments], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (130, "stopped: go on with the same command\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(monkeypatch: pytest.MonkeyPatch, unbuffered: str) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from vostrack.cli import run; sys.exit(run(['--version']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_weights_are_listed_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "--verify"]) == 0
    shown = capsys.readouterr().out
    for word in ("fake-1", "Apache-2.0", str(tmp_path / "weights"), "all files are whole"):
        assert word in shown
    path = tmp_path / "weights" / "fake-1.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    assert run(["weights"]) == 0
    capsys.readouterr()
    assert run(["weights", "--verify"]) == 8
    assert "bytes instead of" in capsys.readouterr().err


def test_all_that_is_known_of_weights_is_shown_by_name_or_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["weights", "fake-1"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["scores"], known["trained_on"]) == ({"J": 0.5}, "nothing")
    assert run(["weights", known["path"]]) == 0
    assert json.loads(capsys.readouterr().out)["details"] == {"steps": 3}
    assert run(["weights", "fake-2"]) == 8
    assert "unknown weights 'fake-2'; did you mean 'fake-1'?" in capsys.readouterr().err


def test_methods_are_listed_with_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    shown = capsys.readouterr().out
    for word in ("best (default)", "anchors", "mast-mem", "fake", "fake-1", "none", "-"):
        assert word in shown


def test_shipped_weights_have_the_figures_that_the_list_shows() -> None:
    shipped = read_manifest(Path(__file__).parents[2] / "weights")
    assert {entry.method for entry in shipped} == set(METHODS) - {"fake", "copy", "cutie"}
    for entry in shipped:
        region, contour, seconds = (float(entry.scores[key]) for key in SCORES)
        assert 0 < region < 1
        assert 0 < contour < 1
        assert 0 < seconds < 60


@pytest.mark.parametrize("command", ["methods", "weights"])
def test_the_lists_fit_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(METHODS, "fake")
    monkeypatch.setattr("vostrack.weights.search_path", lambda: [Path(__file__).parents[2] / "weights"])
    monkeypatch.setenv("COLUMNS", "80")
    assert run([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if not line.startswith("  /")) <= 80, "a path is as long as it is"
    for method in METHODS if command == "methods" else set(METHODS) - {"copy", "cutie"}:
        assert any(f" {method} " in line for line in lines)


def test_settings_of_a_method_are_listed_with_range_presets_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "fake"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in ("rate=0.1 0 to 1; slow: 0.01", "how fast means move", "scales=1,2 each at least 1", "soft=true"):
        assert line.split() in lines
    assert run(["methods", "fakes"]) == 2
    assert "did you mean 'fake'?" in capsys.readouterr().err
    assert run(["methods", "adaption"]) == 2
    assert "did you mean 'adaptation'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adaptation", ["presets (--adapt-preset): default, paper", "settings (--adapt-set KEY=VALUE):", "  size=256"]),
        ("crf", ["settings (--refine-set KEY=VALUE):", "  iterations=2                 1 to 100"]),
    ],
)
def test_settings_of_what_runs_beside_a_method_are_listed(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["methods", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [word for word in words if not any(line.startswith(word) for line in lines)]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("fake", "copy", "cutie")])
def test_settings_can_be_read_in_80_columns_group_by_group(
    method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["methods", method]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {"features", "matching", "memory", "vostrack train"} <= set(lines)
    assert any(line.startswith("recipes (--recipe): default") for line in lines)


def test_stdout_of_a_run_is_json_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vostrack.cli.console import printed_summary

    summary = {"frames": 1, "objects": {}, "seconds_per_frame": {}, "peak_rss_mb": None, "out": "o"}
    printed_summary(summary, as_json=True)
    assert json.loads(capsys.readouterr().out) == summary


def test_messages_of_the_library_name_flags() -> None:
    said = (
        "it is there: choose another `out`, `overwrite=True`, `device=cpu`, `background=(68, 1, 84)`; `correspondences`"
    )
    wanted = "it is there: choose another --out, --overwrite, --device cpu, --background 68,1,84; `correspondences`"
    assert with_flags(said) == wanted


def test_messages_of_the_library_name_flags_of_the_command_that_was_typed() -> None:
    said = "name it by `sequences`"
    assert with_flags(said, ["score", "results", "truth"]) == "name it by --sequence"
    assert (
        with_flags(said, ["benchmark", "davis17"]) == with_flags(said, ["benchmark", "run"]) == "name it by --sequences"
    )


def test_names_in_a_manifest_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights" / "manifest.toml"
    for name in ("[red]a[/red]", r"a\u001b[31m", "[/]"):
        path.write_text(path.read_text().replace('fake-1"', f'{name}"', 1).replace("Apache-2.0", name))
        for command in ("weights", "methods"):
            assert run([command]) == 0
            told = capsys.readouterr().out
            assert "\x1b" not in told
            assert name.replace("u00", "x") in told
        write_weights(tmp_path / "weights")


LONG = "a/" * 2000
NAME = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "CLIP", "-m", "MASK", "--method", "fake", "-o", LONG],
        ["segment", "CLIP", "-m", "MASK", "--method", "fake", "--weights", LONG],
        ["segment", "CLIP", "-m", LONG, "--method", "fake"],
        ["segment", LONG, "-m", "MASK", "--method", "fake"],
        ["segment", "CLIP", "-m", "MASK", "--method", "fake", "--size", "9" * 5000],
        ["segment", "CLIP", "-m", "MASK", "--method", "fake", "--set", "rate=1e999"],
        ["demo", "--method", "fake", "-o", LONG],
        ["train", "--data", ".", "--out", LONG],
        ["segment", "CLIP", "-m", "MASK", "--method", "fake", "--gone", f"{'9' * 5000}@3"],
        ["speed", "CLIP", "--mask", "MASK", "--objects", "9" * 5000],
        ["benchmark", "davis17", "--size", "9" * 5000],
        ["benchmark", "folder", "--root", LONG],
        ["benchmark", "compare", LONG, LONG],
        ["inspect", "CLIP", "-o", f"{LONG}x.png"],
        ["score", LONG, LONG],
        *(
            [NAME if word == "x" else word for word in line.split()]
            for line in (
                "segment x -m MASK",
                "frame x",
                "review x",
                "suggest x",
                "inspect x -o y.png",
                "train --data x",
                "edit x",
                "benchmark davis17 --root x",
                "export x -f coco",
                "update x -m MASK",
                "benchmark compare x x",
                "weights convert x",
                "weights x",
                "score x x",
                "mask check x",
                "batch plan x --masks x",
                "batch status x",
            )
        ),
    ],
    ids=lambda arguments: "-".join(part[:9] for part in arguments),
)
def test_arguments_of_any_length_end_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"CLIP": str(write_clip(tmp_path / "clip.mp4", 3)), "MASK": str(write_mask(tmp_path / "first.png"))}
    assert run([given.get(argument, argument) for argument in arguments]) > 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "unexpected" not in line


def test_text_of_others_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", "a\x1b[2J\x9bb\u202ec.mp4", "-m", "m.png", "--method", "fake"]) == 5
    assert r"a\x1b[2J\x9bb\u202ec.mp4" in capfd.readouterr().err
    assert run(["segment", "a.mp4", "-m", "m.png", "--\x1b[2J"]) == 2
    assert "\x1b[2J" not in capfd.readouterr().err
    bar = FrameBar("dog\x1b[2J.mp4")
    bar.note(Note(Code.MASK_LATE, "two lines\nof \x1b[2J text"))
    assert capfd.readouterr().err == "warning [mask-late] two lines\nof \\x1b[2J text\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_an_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "vostrack", "methods"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert done.stderr.decode() == "error: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_a_run_unless_it_is_to_be_ignored(ignored: bool) -> None:
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with FrameBar("dog", quiet=True) as bar:
            os.kill(os.getpid(), signal.SIGHUP)
            if ignored:
                bar.progress(1, 2)
            else:
                with pytest.raises(Stopped) as caught:
                    bar.progress(1, 2)
                assert caught.value.exit_code == 128 + signal.SIGHUP
                os.kill(os.getpid(), signal.SIGHUP)  # a terminal that closes sends it twice: what is saved is kept
    finally:
        signal.signal(signal.SIGHUP, earlier)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_messages_that_cannot_be_written_do_not_change_the_exit_code() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "vostrack", "segment", "none.mp4", "-m", "m.png"], stderr=full)
    assert done.returncode == 5
