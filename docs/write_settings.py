"""Tables of settings and lists of codes, made from the declarations: `python docs/write_settings.py` writes them.

They stand between markers: `<!-- settings: NAME -->`, where the name is that of a method, "adaptation" or "crf", or
`<!-- recipes: NAME -->` for the recipes of a method's training, or `<!-- notes: SEVERITY -->` for the
codes of warnings or of notes; `<!-- end -->` ends any of them.

A method whose configuration is based on that of another one lists only what differs from it; its page names the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from vostrack.cli.settings import as_text, limits
from vostrack.config import Config, settings_of
from vostrack.notes import Code

_MARKED = re.compile(r"(<!-- (settings|recipes|notes): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The text of a page with all of its tables up to date."""
    return _MARKED.sub(lambda match: f"{match[1]}{_table(match[2], match[3])}\n{match[4]}", page)


def _table(kind: str, name: str) -> str:
    if kind == "notes":
        return _codes(name)
    presets = _presets(kind, name)
    return _tables(presets, _base(presets["default"]))


def _presets(kind: str, name: str) -> Mapping[str, Config]:
    from vostrack.adapt.config import PRESETS
    from vostrack.methods import method_class
    from vostrack.refine.crf import CrfConfig

    others: dict[str, Mapping[str, Config]] = {"adaptation": PRESETS, "crf": {"default": CrfConfig()}}
    if name in others:
        return others[name]
    factory = method_class(name)
    return factory.objective.recipes if kind == "recipes" and factory.objective else factory.presets


def _base(config: Config) -> Config | None:
    """The default configuration of the method whose settings another method's are based on."""
    from vostrack.methods import METHODS, method_class

    others = (method_class(name).presets["default"] for name in METHODS)
    return next((other for other in others if type(other) in type(config).__mro__[1:]), None)


def _tables(presets: Mapping[str, Config], base: Config | None) -> str:
    lines = []
    known = {each.name: each for each in settings_of(type(base))} if base else {}
    shown = [
        each
        for each in settings_of(type(presets["default"]))
        if each != known.get(each.name)
        or any(getattr(config, each.name) != getattr(base, each.name) for config in presets.values())
    ]
    for group, settings in groupby(shown, lambda each: each.group):
        lines += ["", f"**{group.capitalize()}**"] if group else []
        lines += ["", _row("setting", *presets, "range", "meaning"), "|" + "---|" * (len(presets) + 3)]
        for each in settings:
            values = (as_text(getattr(config, each.name)) for config in presets.values())
            lines.append(_row(f"`{each.name}`", *values, limits(each), each.meaning))
    return "\n".join([*lines, ""])


def _codes(severity: str) -> str:
    return "\n".join(["", *(f"- `{code}`: {code.meaning}" for code in Code if code.severity == severity), ""])


def _row(*cells: str) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (current := with_tables(text)) != text:
            path.write_text(current, encoding="utf-8")
            print(path)
