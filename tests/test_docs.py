"""What the documentation says is so: links, commands, file map, exit codes, settings, and code that can be run."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import vostrack
from tests.contract import Contract
from vostrack import Clip, Frame, LabelMap, Propagator, errors, load_method
from vostrack import cli as command_line
from vostrack.cli.batch import FAILED
from vostrack.errors import VostrackError
from vostrack.files import sha256
from vostrack.methods import METHODS, build_net, method_class, training_recipe
from vostrack.methods.base import Batch
from vostrack.notes import Code
from vostrack.video.synthetic import write_clip
from vostrack.weights import read_manifest, save_weights

ROOT = Path(__file__).resolve().parents[1]
CARDS = sorted((ROOT / "weights").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: Any = typer.main.get_command(command_line.app)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def command_lines(text: str) -> Iterator[list[str]]:
    """Arguments of every `vostrack` command in the shell blocks of a page."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r"&&|\||;", line.partition(" # ")[0]):
                words = shlex.split(command, comments=True)
                if words[:1] == ["vostrack"]:
                    yield words[1:]


@pytest.fixture(scope="module")
def all_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights for every method that has weights."""
    folder = tmp_path_factory.mktemp("weights")
    rows = []
    for name in sorted({entry.method for entry in read_manifest(ROOT / "weights")}):
        torch.manual_seed(0)
        path = folder / f"{name}.safetensors"
        save_weights(build_net(name), name, path, {})
        rows.append(
            f'[[weights]]\nname = "{name}"\nmethod = "{name}"\nfile = "{path.name}"\nsha256 = "{sha256(path)}"\n'
            f'bytes = {path.stat().st_size}\nlicence = "none"\ntrained_on = "nothing"\n'
        )
    (folder / "manifest.toml").write_text("\n".join(rows))
    return folder


@pytest.fixture
def some_weights(all_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, found before any others."""
    monkeypatch.setenv("VOSTRACK_WEIGHTS", str(all_weights))
    return all_weights


@pytest.fixture
def clip_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the examples name."""
    folder = tmp_path / "work"
    truth = write_clip(folder, 4, (48, 86))
    (folder / "clip.mp4").rename(folder / "dog.mp4")
    shutil.copy(truth[2], folder / "later.png")
    monkeypatch.chdir(folder)
    return folder


# --- pages ---


@pytest.mark.parametrize("page", PAGES + CARDS, ids=page_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#:]+\.md)", page.read_text(encoding="utf-8"))
        waiting += {(page.parent / link).resolve() for link in links} - seen
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", PAGES + CARDS, ids=page_name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in command_lines(page.read_text(encoding="utf-8")):
        if words[0].startswith("-"):
            assert words[0] in {name for option in COMMANDS.params for name in option.opts} | {"--help"}
            continue
        assert words[0] in COMMANDS.commands, words
        # Raises where an option is unknown, a value is out of range or something required is missing.
        command, rest = COMMANDS.commands[words[0]], words[1:]
        if nested := getattr(command, "commands", {}):
            first = next(iter(nested))
            command, rest = (nested[rest[0]], rest[1:]) if rest[:1] and rest[0] in nested else (nested[first], rest)
        method = command.make_context(words[0], rest).params.get("method") or []
        asked = [method] if isinstance(method, str) else method
        assert {re.split("[:,]", text)[0] for text in asked} <= {"METHOD", *METHODS}, words


@pytest.mark.parametrize("page", PAGES + CARDS, ids=page_name)
def test_commands_and_options_named_in_prose_exist(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for command in re.findall(r"`vostrack ([a-z][a-z-]*)", prose):
        assert command in COMMANDS.commands, command
    nested = [inner for command in COMMANDS.commands.values() for inner in getattr(command, "commands", {}).values()]
    known = {
        name
        for command in (COMMANDS, *COMMANDS.commands.values(), *nested)
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    for option in re.findall(r"`(--[a-z-]+)", prose):
        assert option in known | {"--help"}, option


def test_every_command_is_in_the_readme() -> None:
    assert {name for name in COMMANDS.commands if f"vostrack {name}" not in read("README.md")} == set()


in_a_clone = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="NO .ci: not a clone of the repository")


@in_a_clone
@pytest.mark.skipif(shutil.which("bash") is None, reason="NO BASH on this machine")
def test_the_test_command_is_one_line_that_ci_can_find() -> None:
    script = read(".ci/run")
    extract = re.search(r'eval "\$\((.*)\)"$', script, re.MULTILINE)
    assert extract is not None
    found = subprocess.run(["bash", "-c", extract[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "python -m pip install -e '.[dev,crf]' && python -m pytest\n"


@in_a_clone
def test_ci_tries_the_lowest_torch_that_is_allowed() -> None:
    allowed = re.findall(r'^    "(torch(?:vision)?)>=(.+)",$', read("pyproject.toml"), re.MULTILINE)
    assert read(".ci/lowest.txt").split() == [f"{name}=={version}.*" for name, version in allowed]


@pytest.mark.slow
@pytest.mark.needs("mkdocs", "dev")
def test_the_site_can_be_built(tmp_path: Path) -> None:
    (command,) = (line for line in read("docs/contributing.md").splitlines() if line.startswith("mkdocs build"))
    words = [sys.executable, "-m", *shlex.split(command), "--site-dir", str(tmp_path)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    assert {name for name in vostrack.__all__ if f'id="vostrack.{name}"' not in reference} == {"__version__"}
    assert {card.stem for card in CARDS} <= {page.parent.name for page in (tmp_path / "weights").rglob("index.html")}
    formats = html.unescape((tmp_path / "formats" / "index.html").read_text(encoding="utf-8"))
    assert not [code for code in Code if f"<li><code>{code}</code>: {code.meaning}</li>" not in formats]
    method = (tmp_path / "methods" / "rpm-net" / "index.html").read_text(encoding="utf-8")
    assert "<p>Preset <code>paper</code>: <code>views=1</code>, <code>edge_radius=0</code>" in method
    assert "<p>Recipe <code>default</code>: <code>net=default</code>, <code>crop=128</code>" in method
    assert "<p>Recipe <code>shipped</code>: <code>steps=2400</code></p>" in method
    beside = (tmp_path / "refinement" / "index.html").read_text(encoding="utf-8")
    assert "<li><code>iterations=2</code>: iterations of the mean field</li>" in beside
    leads_out = re.compile(r'href="[^"]*(\.py|\.md)[#"]')
    assert not [page for page in tmp_path.rglob("*.html") if leads_out.search(page.read_text(encoding="utf-8"))]


# --- architecture ---


def test_the_file_map_names_every_module_and_nothing_else() -> None:
    rows = re.findall(r"^- `(vostrack/[\w/]*)`, [^:]*: (.*)$", read("docs/architecture.md"), re.MULTILINE)
    named = [f"{room}{name}.py" for room, names in rows for name in re.findall(r"(?:^|, )`(\w+)`", names)]
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "vostrack").rglob("*.py") if "_weights" not in path.parts
    }
    assert sorted(named) == sorted(name for name in modules if not name.endswith("__init__.py"))


# --- formats ---


def exit_codes() -> set[int]:
    """Every code that the program can end with."""

    def below(kind: type[VostrackError]) -> set[int]:
        return {kind.exit_code}.union(*(below(child) for child in kind.__subclasses__()))

    usage, stopped = 2, {128 + number for number in (1, signal.SIGINT, signal.SIGTERM)}  # Windows has no SIGHUP
    return {0, usage, FAILED, errors.OUT_OF_MEMORY, errors.INTERRUPTED} | stopped | below(VostrackError)


def test_the_table_of_exit_codes_is_complete() -> None:
    table = read("docs/formats.md").partition("## Exit codes")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(exit_codes())


@pytest.mark.usefixtures("some_weights", "clip_folder")
def test_the_table_of_the_summary_has_the_fields_of_a_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["segment", "dog.mp4", "-m", "first.png", "--json", "-q"]) == 0
    summary = json.loads(capsys.readouterr().out)
    table = read("docs/formats.md").partition("## summary.json")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (`[`\w, ]+`) \| (.*) \|$", table, re.MULTILINE)
    rows = {name: text for names, text in listed for name in re.findall(r"\w+", names)}
    assert set(rows) == set(summary)
    nested = {name: summary[name] for name in ("clip", "reading", "weights", "seconds_per_frame")}
    for name, fields in (nested | {"objects": summary["objects"]["1"]}).items():
        assert {field for field in fields if f"`{field}`" not in rows[name]} == set()


# --- methods ---


def test_the_readme_names_every_method() -> None:
    named = re.findall(r"^\| \[`([\w-]+)`\]\(docs/methods/", read("README.md"), re.MULTILINE)
    assert sorted(named) == sorted(METHODS)


def test_the_readme_and_the_manifest_have_the_same_figures() -> None:
    rows = re.findall(r"^\| \[`([\w-]+)`\].* \| ([\d.]+) \| ([\d.]+) \|$", read("README.md"), re.MULTILINE)
    scores = {entry.name: entry.scores for entry in read_manifest(ROOT / "weights")}
    assert {name for name, *_ in rows} == scores.keys() - {"best-fast"}
    for name, accuracy, seconds in rows:
        assert (float(accuracy), float(seconds)) == (scores[name]["J_480p"], scores[name]["s_per_frame_480p"]), name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lists_its_presets_and_recipes(name: str) -> None:
    kinds = re.findall(rf"^<!-- (\w+): {name} -->$", read(f"docs/methods/{name}.md"), re.MULTILINE)
    made = method_class(name)
    wanted = {"presets": len(made.presets) > 1, "recipes": made.objective is not None}
    assert kinds == [kind for kind, there in wanted.items() if there]


# --- code ---


@pytest.mark.usefixtures("some_weights", "clip_folder")
@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/for-engineers.md"])
def test_python_examples_run(page: str) -> None:
    examples = blocks(read(page), "python")
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), {"__name__": "example"})  # noqa: S102


def test_the_page_of_the_api_has_every_public_name() -> None:
    page = read("docs/api.md")
    explained = set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) - {"Errors"}
    listed = set(re.findall(r"^- `(\w+)`: ", page, re.MULTILINE))
    assert sorted([*explained, *listed, "__version__"]) == sorted(vostrack.__all__)


_TYPED = """
from collections.abc import Callable, Iterator
import numpy as np
import numpy.typing as npt
import vostrack

class Watch(vostrack.Callbacks):
    def progress(self, done: int, total: int | None) -> None:
        print(done)

def areas(frames: Iterator[npt.NDArray[np.uint8]], mask: npt.NDArray[np.uint8]) -> list[int]:
    predictions = vostrack.track(frames, {0: mask}, settings={"radius": 8}, size=None, callbacks=Watch())
    return [int((prediction.mask == prediction.ids[0]).sum()) for prediction in predictions]

summary = vostrack.segment("dog.mp4", "first.png", method="anchors", outputs=["masks"])
print(summary["frames"])
"""


@pytest.mark.slow
@pytest.mark.needs("mypy", "dev")
def test_a_script_that_uses_the_api_is_typed(tmp_path: Path) -> None:
    from mypy import api

    (tmp_path / "script.py").write_text(_TYPED)
    printed, _, code = api.run(["--strict", "--config-file", "", str(tmp_path / "script.py")])
    assert code == 0, printed


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method of docs/adding-a-method.md, registered as that page says; gives its name."""
    shutil.copy(ROOT / "docs" / "nearest_colour.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = blocks(read("docs/adding-a-method.md"), "text")
    registered = re.fullmatch(r'"(.+)": "vostrack\.methods\.(.+):(.+)",\n', line)
    assert registered is not None
    name, module, attribute = registered.groups()
    monkeypatch.setitem(METHODS, name, f"{module}:{attribute}")
    return name


def moving_square(count: int = 8) -> tuple[list[Frame], list[LabelMap]]:
    """A textured square that drifts over a texture, with true masks; its id is 7."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randint(0, 120, (3, 60, 84), generator=generator, dtype=torch.uint8)
    square = torch.randint(140, 256, (3, 24, 24), generator=generator, dtype=torch.uint8)
    frames, truth = [], []
    for index in range(count):
        image, pixels = scene.clone(), torch.zeros(60, 84, dtype=torch.uint8)
        left = 8 + 4 * index
        image[:, 16:40, left : left + 24] = square
        pixels[16:40, left : left + 24] = 7
        frames.append(Frame(index, Fraction(index, 24), image, f"{index:05d}"))
        truth.append(LabelMap(pixels, (7,)))
    return frames, truth


def test_the_example_method_follows_an_object(example: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_net(example), example, tmp_path / "w.safetensors", {})
    method, _ = load_method(example, weights=tmp_path / "w.safetensors")
    frames, truth = moving_square()
    first, second = (list(Propagator(method).run(Clip(frames, {0: truth[0]}))) for _ in range(2))
    assert [p.frame.index for p in first] == [frame.index for frame in frames]
    for one, other, wanted in zip(first, second, truth, strict=True):
        assert torch.equal(one.labels.pixels, other.labels.pixels)
        found, square = one.labels.pixels == 7, wanted.pixels == 7
        assert (found & square).sum() / (found | square).sum() > 0.8


class TestTheExampleMethod(Contract):
    @pytest.fixture
    def method(self, example: str) -> Any:
        torch.manual_seed(0)
        factory = method_class(example)
        return factory(build_net(example).eval(), factory.presets["default"])


def test_the_example_objective_learns(example: str) -> None:
    torch.manual_seed(0)
    factory = method_class(example)
    assert factory.objective is not None
    objective = factory.objective(build_net(example).train(), training_recipe(example, settings={"crop": 64}))
    frames = torch.rand(2, 1, 3, 64, 64).expand(-1, 2, -1, -1, -1) * torch.tensor([1.0, 0.8]).view(1, 2, 1, 1, 1)
    optimizer = objective.optimizer()
    losses = []
    for _ in range(15):
        loss = objective.losses(Batch(frames), torch.Generator().manual_seed(0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.module.parameters())
