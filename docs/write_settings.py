"""Lists of settings in the pages, made from the declarations: `python docs/write_settings.py` writes them.

They stand between markers: `<!-- presets: METHOD -->` and `<!-- recipes: METHOD -->` for what these change, `<!--
settings: NAME -->` for all settings of "adaptation" or "crf"; `<!-- end -->` ends any of them.

`vostrack methods NAME` explains settings of methods and of their training. Help and errors have the ranges of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vostrack.cli.settings import as_text
from vostrack.config import Config, Setting, settings_of
from vostrack.methods import method_class

_MARKED = re.compile(r"(<!-- (presets|settings|recipes): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The text of a page with all that is made from declarations up to date."""
    return _MARKED.sub(lambda match: f"{match[1]}{_made(match[2], match[3])}\n{match[4]}", page)


def _made(kind: str, name: str) -> str:
    paragraphs = {"presets": _presets, "settings": _settings, "recipes": _recipes}[kind](name)
    return "".join(f"\n{paragraph}\n" for paragraph in paragraphs)


def _presets(name: str) -> list[str]:
    return _changes("Preset", method_class(name).presets)


def _settings(name: str) -> list[str]:
    from vostrack.adapt.config import PRESETS
    from vostrack.refine.crf import CrfConfig

    known: dict[str, Mapping[str, Config]] = {"adaptation": PRESETS, "crf": {"default": CrfConfig()}}
    presets = known[name]
    return [*_items(presets["default"]), *_changes("Preset", presets)]


def _recipes(name: str) -> list[str]:
    objective = method_class(name).objective
    assert objective, f"{name} is not trained"
    recipes = objective.recipes
    default = recipes["default"]
    given = [each for each in settings_of(type(default)) if getattr(default, each.name) != ""]
    return [f"Recipe `default`: {_values(default, given)}", *_changes("Recipe", recipes)]


def _meaning(known: Setting) -> str:
    unit = "" if known.unit in known.meaning else known.unit
    named = all(re.search(rf"\b{choice}\b", known.meaning) for choice in known.choices)
    limits = ", ".join(filter(None, (unit, "" if named else known.range)))
    return f"{known.meaning} ({limits})" if limits else known.meaning


def _items(config: Config) -> list[str]:
    """Settings with their values in a configuration and their meaning."""
    named = ((each, as_text(getattr(config, each.name))) for each in settings_of(type(config)))
    return ["\n".join(f"- `{each.name}={value}`: {_meaning(each)}" for each, value in named)]


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


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (current := with_tables(text)) != text:
            path.write_text(current, encoding="utf-8")
            print(path)
