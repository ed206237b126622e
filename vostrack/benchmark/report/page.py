"""`report.html`: the results of a benchmark to look at, in one file that needs no network.

Puts together what `results`, `plots` and `pictures` give; computes nothing that is not in `results.json` already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vostrack.benchmark.datasets.table import Dataset
from vostrack.benchmark.published import published
from vostrack.benchmark.report import plots
from vostrack.benchmark.report.pictures import FOUND, MISSED, TAKEN, error_pictures
from vostrack.benchmark.sequence_run import MASKS
from vostrack.files import write_text

REPORT = "report.html"
_WORST = 6

_STYLE = """
:root { color-scheme: light dark; --text: #1b1e23; --soft: #667; --line: #d9dce1; --page: #fff; --card: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --soft: #9aa1ab; --line: #3a3f47; --page: #16181c; --card: #1f2227; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 76rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.soft, figcaption, caption { color: var(--soft); font-size: .88rem; }
.warn { border-left: 4px solid #E69F00; background: var(--card); padding: .5rem .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td.text, th.text { text-align: left; } tr.paper td { color: var(--soft); }
.wide { overflow-x: auto; } .grid { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; background: var(--card); padding: .6rem; border-radius: .4rem; }
.grid figcaption { max-width: 360px; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
svg .level { stroke: var(--line); } img { max-width: 100%; display: block; border-radius: .2rem; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(32rem, 100%), 1fr)); }
.worst img { width: 100%; } figure.plot { width: fit-content; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin: 0 .3em 0 .9em; }
"""


def write_report(out: Path, dataset: Dataset, report: Mapping[str, Any]) -> Path:
    """Write the report of a benchmark.

    Args:
        out: folder of the results; the masks of its variants are read again for the pictures.
        dataset: that was run.
        report: what is in `results.json`.

    Returns:
        The file.

    Raises:
        VostrackError: a frame or a mask cannot be read, or the report cannot be written.
    """
    names = list(report["variants"])
    title = f"{dataset.spec.title} {dataset.split}"
    parts = [f"<h1>{escape(title)}</h1>", _facts(dataset, report), _legend(names), _table(dataset, report)]
    if not dataset.submission:
        parts += [_speed(report), _attributes(report), _curves(dataset, report)]
        parts += [_worst(dataset, out / name / MASKS, name, report["variants"][name]) for name in names]
    body = "\n".join(part for part in parts if part)
    path = out / REPORT
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} · vostrack</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
    )
    return path


def main_key(dataset: Dataset) -> str:
    """Name of the figure that leads: J&F, or the error rate."""
    return "error" if dataset.distance is not None else "J&F"


def _facts(dataset: Dataset, report: Mapping[str, Any]) -> str:
    machine = report["timing"]["machine"]
    lines = []
    if dataset.subset:
        lines.append(
            f'<p class="warn">These are figures of a <b>{escape(dataset.subset)}</b> sequences. '
            "They are no figures of the dataset and cannot be compared with published ones.</p>"
        )
    if dataset.submission:
        lines.append("<p>A server scores these masks; there are no figures here.</p>")
    for name, variant in report["variants"].items():
        settings = variant["settings"]
        weights, size = settings["weights"], settings["size"] or "full"
        lines.append(
            f'<p class="soft">{escape(name)}: weights {escape(weights["name"])} (SHA-256 {escape(weights["sha256"])}), '
            f"short side {size}, {escape(settings['device'])}, {settings['threads']} threads, "
            f"vostrack {escape(settings['vostrack'])}, torch {escape(settings['torch'])}</p>"
        )
    lines.append(f'<p class="soft">Machine: {escape(machine["system"])}, {machine["cpus"]} CPUs</p>')
    return "\n".join(lines)


def _legend(names: Sequence[str]) -> str:
    keys = (
        f'<span class="key" style="background:{plots.color(position)}"></span>{escape(name)}'
        for position, name in enumerate(names)
    )
    return f"<p>{''.join(keys)}</p>"


def _table(dataset: Dataset, report: Mapping[str, Any]) -> str:
    """Our totals, and below them, set apart, what papers give for the whole dataset."""
    papers = published(dataset.name, dataset.split) if dataset.distance in (None, 16) else []
    keys = list(next(iter(report["variants"].values()))["total"])
    if not keys:
        return ""
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)
    rows = []
    for name, variant in report["variants"].items():
        seconds = report["timing"]["variants"][name]["seconds_per_frame"]["model"]
        what = dataset.subset or "all sequences"
        rows.append(_row(name, [variant["total"].get(key) for key in keys], f"{seconds:.3f}", f"here, {what}"))
    for paper in papers:
        source = f"{paper.source}; trained on: {paper.trained_on}"
        rows.append(_row(paper.method, [paper.values.get(key) for key in keys], "", source, ' class="paper"'))
    note = (
        '<p class="soft">Rows in grey are copied from the papers, for all sequences of the split. Their networks, '
        "training sets and sizes are not those of the rows above: the two kinds are not to be ranked together.</p>"
    )
    return (
        f'<h2>Scores</h2><div class="wide"><table><tr><th></th>{head}<th>model s/frame</th>'
        f'<th class="text">where from</th></tr>{"".join(rows)}</table></div>{note if papers else ""}'
    )


def _row(name: str, values: Iterable[float | None], seconds: str, source: str, kind: str = "") -> str:
    cells = "".join(f"<td>{'' if value is None else f'{value:.3f}'}</td>" for value in values)
    ends = f'<td>{seconds}</td><td class="text">{escape(source)}</td>'
    return f'<tr{kind}><td class="text">{escape(name)}</td>{cells}{ends}</tr>'


def _speed(report: Mapping[str, Any]) -> str:
    points = []
    for name, variant in report["variants"].items():
        seconds = report["timing"]["variants"][name]["seconds_per_frame"]["model"]
        points.append((name, seconds, _main(variant["total"])))
    top = max([1.0, *(value for _, _, value in points)])
    return f'<h2>Speed against accuracy</h2><figure class="plot">{plots.scatter(points, top)}</figure>'


def _attributes(report: Mapping[str, Any]) -> str:
    groups: dict[str, list[tuple[str, float]]] = {}
    for name, variant in report["variants"].items():
        for attribute, values in variant["attributes"].items():
            if values:
                groups.setdefault(attribute, []).append((name, _main(values)))
    if not groups:
        return ""
    top = max([1.0, *(value for group in groups.values() for _, value in group)])
    return f'<h2>Attributes</h2><figure class="wide">{plots.bars(groups, top)}</figure>'


def _curves(dataset: Dataset, report: Mapping[str, Any]) -> str:
    letter = "error" if dataset.distance is not None else "J"
    figures = []
    for sequence in dataset.sequences:
        positions = {frame: float(index) for index, frame in enumerate(sequence.scored, start=1)}
        series = [
            (name, [(positions[frame], value) for frame, value in _by_frame(variant, sequence.name, letter).items()])
            for name, variant in report["variants"].items()
        ]
        top = max([1.0, *(value for _, points in series for _, value in points)])
        means = ", ".join(
            f"{name} {_main(variant['sequences'][sequence.name]):.3f}" for name, variant in report["variants"].items()
        )
        caption = (
            f"<figcaption><b>{escape(sequence.name)}</b> {escape(main_key(dataset))}: {escape(means)}</figcaption>"
        )
        figures.append(f"<figure>{plots.curves(series, top)}{caption}</figure>")
    return f'<h2>{letter} by scored frame, mean over objects</h2><div class="grid">{"".join(figures)}</div>'


def _worst(dataset: Dataset, masks: Path, name: str, variant: Mapping[str, Any]) -> str:
    """The worst frame of each of the sequences that have the worst ones."""
    error = dataset.distance is not None
    found = []
    for sequence in dataset.sequences:
        by_frame = _by_frame(variant, sequence.name, "error" if error else "J")
        if by_frame:
            value, frame = min((-value if error else value, frame) for frame, value in by_frame.items())
            found.append((value, frame, sequence))
    figures = []
    for value, frame, sequence in sorted(found, key=lambda row: row[:2])[:_WORST]:
        truth, errors = error_pictures(sequence, masks / sequence.name, frame)
        what = f"{sequence.name}, frame {frame}"
        figures.append(
            f'<figure><div class="pair"><img src="{truth}" alt="{escape(f"truth of {what}")}">'
            f'<img src="{errors}" alt="{escape(f"errors in {what}")}"></div>'
            f"<figcaption>{escape(what)}: {'error' if error else 'J'} {abs(value):.3f}</figcaption></figure>"
        )
    keys = "".join(
        f'<span class="key" style="background:rgb{color}"></span>{word}'
        for color, word in ((FOUND, "right"), (MISSED, "missed"), (TAKEN, "wrongly taken"))
    )
    return (
        f'<h2>Worst frames of {escape(name)}</h2><p class="soft">Left the truth, right the result:{keys}</p>'
        f'<div class="grid worst">{"".join(figures)}</div>'
    )


def _by_frame(variant: Mapping[str, Any], sequence: str, letter: str) -> dict[str, float]:
    """Values of a sequence's frames, means over the objects that count there."""
    values: dict[str, list[float]] = {}
    for row in variant["objects"]:
        if row["sequence"] == sequence:
            for frame, value in zip(row["curves"]["frames"], row["curves"][letter], strict=True):
                values.setdefault(frame, []).append(value)
    return {frame: sum(found) / len(found) for frame, found in sorted(values.items(), key=lambda i: (len(i[0]), i[0]))}


def _main(values: Mapping[str, Any]) -> float:
    """The leading figure; 0 where nothing was scored."""
    return float(values.get("J&F", values.get("error", 0.0)) or 0.0)
