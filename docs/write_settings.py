"""Lists of settings and codes in the pages, made from the declarations: `python docs/write_settings.py` writes them.

They stand between markers: `<!-- presets: METHOD -->` for what its presets change, `<!-- settings: NAME -->` for all
settings of "adaptation" or "crf", `<!-- recipes: METHOD -->` for its training ("common" for what all recipes have), or
`<!-- notes: SEVERITY -->` for the codes of warnings or of notes; `<!-- end -->` ends any of them.

Settings of methods are explained by `vostrack methods NAME`. Ranges of numbers are left to help and errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from vostrack.cli.settings import as_text
from vostrack.config import Config, Setting, settings_of
from vostrack.methods import method_class
from vostrack.methods.recipe import Recipe
from vostrack.notes import Code

_MARKED = re.compile(r"(<!-- (presets|settings|recipes|notes): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The text of a page with all that is made from declarations up to date."""
    return _MARKED.sub(lambda match: f"{match[1]}{_made(match[2], match[3])}\n{match[4]}", page)


def _made(kind: str, name: str) -> str:
    paragraphs = {"presets": _presets, "settings": _settings, "recipes": _recipes, "notes": _codes}[kind](name)
    return "".join(f"\n{paragraph}\n" for paragraph in paragraphs)


def _presets(name: str) -> list[str]:
    return _changes("Preset", method_class(name).presets)


def _settings(name: str) -> list[str]:
    from vostrack.adapt.config import PRESETS
    from vostrack.refine.crf import CrfConfig

    known: dict[str, Mapping[str, Config]] = {"adaptation": PRESETS, "crf": {"default": CrfConfig()}}
    presets = known[name]
    default = presets["default"]
    return [*_items(default, settings_of(type(default))), *_changes("Preset", presets)]


def _recipes(name: str) -> list[str]:
    if name == "common":
        return _items(None, settings_of(Recipe))
    objective = method_class(name).objective
    assert objective, f"{name} is not trained"
    recipes = objective.recipes
    default = recipes["default"]
    own, others = _own(default, _meanings(Recipe()))
    given = [each for each in others if getattr(default, each.name) != ""]
    return [*_items(default, own), f"Recipe `default`: {_values(default, given)}", *_changes("Recipe", recipes)]


def _own(config: Config, explained: Mapping[str, str]) -> tuple[list[Setting], list[Setting]]:
    """The settings that have to be explained, and those that are explained elsewhere."""
    parts: tuple[list[Setting], list[Setting]] = ([], [])
    for each in settings_of(type(config)):
        parts[explained.get(each.name) == _meaning(each)].append(each)
    return parts


def _meanings(config: Config) -> dict[str, str]:
    return {each.name: _meaning(each) for each in settings_of(type(config))}


def _meaning(known: Setting) -> str:
    unit = "" if known.unit in known.meaning else known.unit
    named = all(re.search(rf"\b{choice}\b", known.meaning) for choice in known.choices)
    limits = ", ".join(filter(None, (unit, "" if named else known.range)))
    return f"{known.meaning} ({limits})" if limits else known.meaning


def _items(config: Config | None, settings: Iterable[Setting]) -> list[str]:
    """Settings with their meaning, and with their values in a configuration if one is given."""
    paragraphs = []
    for group, members in groupby(settings, lambda each: each.group):
        values = ((each, f"={as_text(getattr(config, each.name))}" if config else "") for each in members)
        items = "\n".join(f"- `{each.name}{value}`: {_meaning(each)}" for each, value in values)
        paragraphs += [f"**{group.capitalize()}**", items]
    return paragraphs if len(paragraphs) > 2 else paragraphs[1:]


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


def _codes(severity: str) -> list[str]:
    return ["\n".join(f"- `{code}`: {code.meaning}" for code in Code if code.severity == severity)]


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (current := with_tables(text)) != text:
            path.write_text(current, encoding="utf-8")
            print(path)
