"""What makes a site of pages that are written to be read in the repository.

It adds the changelog, the model cards and a page with the API, made from docstrings. A link to anything else outside
`docs/`, and to code, goes to `repo_url` of mkdocs.yml, or, without one, becomes its text. `<!-- code: FILE -->` becomes
the code in that file. Of what is declared in the code, pages have markers in the place of lists:

    <!-- codes -->                                        the codes of warnings and notes
    <!-- presets: METHOD -->, <!-- recipes: METHOD -->    what these change
    <!-- settings: NAME -->                               all settings of "adaptation" or "crf"
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from vostrack.adapt.config import PRESETS
from vostrack.cli.settings import as_text
from vostrack.config import Config, Setting, settings_of
from vostrack.methods import method_class
from vostrack.notes import NOTE, WARNING, Code
from vostrack.refine.crf import CrfConfig

ROOT = Path(__file__).parents[2]
OUTSIDE = [ROOT / "CHANGELOG.md", *sorted((ROOT / "weights").glob("*.md"))]

_LINK = re.compile(r"\[([^\[\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"<!-- code: (\S+) -->")
_LIST = re.compile(r"^<!-- (codes|presets|recipes|settings)(?:: ([\w-]+))? -->$", re.MULTILINE)
_BESIDE: Mapping[str, Mapping[str, Config]] = {"adaptation": PRESETS, "crf": {"default": CrfConfig()}}


def on_files(files: Any, config: Any) -> Any:
    for path in OUTSIDE:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "reference.md", content=_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The links of a page, which lead from file to file of the repository, as links from page to page of the site."""
    if page.file.abs_src_path is None:
        return markdown
    here = Path(page.file.abs_src_path).parent
    base = Path(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        target = (here / path).resolve()
        inside = ROOT / "docs" in target.parents and target.suffix != ".py"
        uri = target.relative_to(ROOT / "docs" if inside else ROOT).as_posix()
        if inside or target in OUTSIDE:
            return f"[{text}]({Path(os.path.relpath(uri, base)).as_posix()}{anchor})"
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{uri})" if config.repo_url else text

    def code(match: re.Match[str]) -> str:
        return f"```python\n{(here / match[1]).read_text(encoding='utf-8')}```"

    markdown = _CODE.sub(code, _LINK.sub(link, markdown))
    return _LIST.sub(lambda match: "\n\n".join(_declared(match[1], match[2] or "")), markdown)


def _declared(kind: str, name: str) -> list[str]:
    """Paragraphs and lists, in Markdown, of what the code declares."""
    if kind == "codes":
        return _codes()
    if kind == "presets":
        return _changes("Preset", method_class(name).presets)
    if kind == "settings":
        return [_items(_BESIDE[name]["default"]), *_changes("Preset", _BESIDE[name])]
    objective = method_class(name).objective
    assert objective, f"{name} is not trained"
    default = objective.recipes["default"]
    given = [each for each in settings_of(type(default)) if getattr(default, each.name) != ""]
    return [f"Recipe `default`: {_values(default, given)}", *_changes("Recipe", objective.recipes)]


def _codes() -> list[str]:
    """The codes of warnings, then those of notes, with what they mean."""
    lists = []
    for severity in (WARNING, NOTE):
        items = [f"- `{code}`: {code.meaning}" for code in Code if code.severity == severity]
        lists.append("\n".join([f"{severity.capitalize()}s:\n", *items]))
    return lists


def _items(config: Config) -> str:
    """Settings with their values in a configuration and their meaning."""
    named = ((each, as_text(getattr(config, each.name))) for each in settings_of(type(config)))
    return "\n".join(f"- `{each.name}={value}`: {_meaning(each)}" for each, value in named)


def _meaning(known: Setting) -> str:
    unit = "" if known.unit in known.meaning else known.unit
    named = all(re.search(rf"\b{choice}\b", known.meaning) for choice in known.choices)
    limits = ", ".join(filter(None, (unit, "" if named else known.range)))
    return f"{known.meaning} ({limits})" if limits else known.meaning


def _changes(kind: str, named: Mapping[str, Config]) -> list[str]:
    """A line for each named configuration, with what it changes of the default one."""
    default = named["default"]
    changes = {name: _values(config, settings_of(type(config)), besides=default) for name, config in named.items()}
    return [f"{kind} `{name}`: {text or 'as `default`'}" for name, text in changes.items() if name != "default"]


def _values(config: Config, settings: Iterable[Setting], besides: Config | None = None) -> str:
    """Values as a person types them: of all settings or of those that differ from another configuration."""
    named = {each.name: getattr(config, each.name) for each in settings}
    chosen = {name: value for name, value in named.items() if besides is None or value != getattr(besides, name)}
    return ", ".join(f"`{name}={as_text(value)}`" for name, value in chosen.items())


def _reference() -> str:
    """A page with an entry for every public name."""
    code = (ROOT / "vostrack" / "__init__.py").read_text(encoding="utf-8")
    names = ast.literal_eval(code.partition("__all__ = ")[2].partition("]")[0] + "]")
    entries = [f"::: vostrack.{name}" for name in sorted(names, key=str.lower) if name != "__version__"]
    return "\n\n".join(["# API reference", "[The Python API](api.md) shows how they are used.", *entries])
