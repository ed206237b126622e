"""What makes a site of pages that are written to be read in the repository.

It adds the changelog, the model cards and a page with the API, made from docstrings. A link to anything else outside
`docs/`, and to code, goes to `repo_url` of mkdocs.yml, or, without one, becomes its text. `<!-- code: FILE -->` becomes
the code in that file, `<!-- codes -->` a list of the codes of warnings and one of those of notes.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from vostrack.notes import NOTE, WARNING, Code

ROOT = Path(__file__).parents[2]
OUTSIDE = [ROOT / "CHANGELOG.md", *sorted((ROOT / "weights").glob("*.md"))]

_LINK = re.compile(r"\[([^\[\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"<!-- code: (\S+) -->")
_CODES = "<!-- codes -->"


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

    return _CODE.sub(code, _LINK.sub(link, markdown)).replace(_CODES, _codes())


def _codes() -> str:
    """The codes of warnings, then those of notes, with what they mean."""
    lists = []
    for severity in (WARNING, NOTE):
        items = [f"- `{code}`: {code.meaning}" for code in Code if code.severity == severity]
        lists.append("\n".join([f"{severity.capitalize()}s:\n", *items]))
    return "\n\n".join(lists)


def _reference() -> str:
    """A page with an entry for every public name."""
    code = (ROOT / "vostrack" / "__init__.py").read_text(encoding="utf-8")
    names = ast.literal_eval(code.partition("__all__ = ")[2].partition("]")[0] + "]")
    entries = [f"::: vostrack.{name}" for name in sorted(names, key=str.lower) if name != "__version__"]
    return "\n\n".join(["# API reference", "[The Python API](api.md) shows how they are used.", *entries])
