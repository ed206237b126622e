"""The report: one file that is well formed, needs nothing else, and says what it must."""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from tests.benchmark import trees
from vostrack.benchmark.compare import compare
from vostrack.benchmark.datasets.table import DATASETS, open_dataset
from vostrack.benchmark.published import PUBLISHED
from vostrack.benchmark.report.page import TEMPLATES
from vostrack.benchmark.results import read_results
from vostrack.benchmark.runner import run_benchmark
from vostrack.cli.variants import parse_variants

VOID = {"meta", "link", "img", "line", "circle", "rect", "br"}


pytestmark = pytest.mark.usefixtures("fake_weights")


class Checker(HTMLParser):
    """Checks that elements nest, and collects what they load, where they lead, and numbers of their kinds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.links: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name == "src" or (name, tag) == ("href", "link")]
        self.links += [value or "" for name, value in attrs if (name, tag) == ("href", "a")]
        # A circle or a bar closes itself only where it has no title.
        if tag not in VOID or (tag in ("circle", "rect")):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report_of(tmp_path: Path, name: str, *variants: str) -> str:
    dataset = open_dataset(name, trees.TREES[name](tmp_path / "data"))
    run_benchmark(dataset, parse_variants(variants or ["fake"]), tmp_path / "out")
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DATASETS)
def test_report_is_well_formed_and_needs_no_network(name: str, tmp_path: Path) -> None:
    text = report_of(tmp_path, name, "fake", "fake:slow")
    page = Checker(text)
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert "nan" not in re.findall(r'[\w-]+="([^"]*)"', text)
    submission = name.startswith(("ytvos", "mose"))
    assert ("so there are no figures here" in text) == submission
    assert bool(page.count.get("svg")) != submission
    for address in page.addresses:
        if address.startswith("data:image/jpeg"):
            with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
                assert (image.height, image.width) == trees.SIZE


def test_report_says_that_a_subset_is_one_and_keeps_papers_apart(tmp_path: Path) -> None:
    text = report_of(tmp_path, "davis17")
    assert "<b>subset of 2 of 30</b>" in text
    assert "Dense Unsupervised Learning (2021), Table 1; trained on: YouTube-VOS, no labels" in text
    assert text.count('<tr class="paper">') == sum(row.dataset == "davis17" for row in PUBLISHED)
    assert "not to be ranked together" in text
    weights = read_results(tmp_path / "out")["variants"]["fake"]["settings"]["weights"]["sha256"]
    assert f'<code title="{weights}">{weights[:12]}</code>' in text
    assert text.count(weights) == 1
    assert text.index("</section>") < text.index(weights)


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    trees.davis17(tmp_path / "data", names=("<b>x&'\"", "dog"))
    run_benchmark(open_dataset("davis17", tmp_path / "data"), parse_variants(["fake"]), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    Checker(text)
    assert "<b>x&" not in text
    assert "&lt;b&gt;x&amp;" in text


def test_attributes_have_bars(tmp_path: Path) -> None:
    text = report_of(tmp_path, "youtube-objects")
    assert "<h2>Attributes</h2>" in text
    assert "J class mean" in text


def test_published_figures_belong_to_datasets_and_are_plausible() -> None:
    for row in PUBLISHED:
        assert row.split in DATASETS[row.dataset].splits
        assert re.search(r", Table \d$", row.source)
        assert all(0 < value < 1 for key, value in row.values.items() if key not in ("error", "s/frame"))
        if {"J&F", "J_mean", "F_mean"} <= row.values.keys():
            assert row.values["J&F"] == pytest.approx((row.values["J_mean"] + row.values["F_mean"]) / 2, abs=0.0011)


# What the tables say, typed from the papers: their figures are in percent, but for VideoMatch's.
TABLES = {
    ("RPM-Net (2020), Table 2", "davis17"): [(22.1, 23.6), (30.8, 33.1)],
    # J, F, seconds a frame
    ("RPM-Net (2020), Table 4", "davis17"): [(31.7, 33.5, "0.02s"), (35.7, 38.8, "0.09s"), (41.0, 42.2, "0.55s")],
    ("RPM-Net (2020), Table 3", "segtrack2"): [(31.9,), (41.6,), (41.8,), (45.2,), (48.4,)],
    ("RPM-Net (2020), Table 3", "youtube-objects"): [(54.2,), (55.2,), (54.4,), (56.2,), (57.4,)],
    # pairwise, + momentum memory: J&F, J, F
    ("Self-supervised VOS (2020), Table 1", "davis17"): [(60.4, 58.7, 62.0), (68.2, 66.5, 69.9)],
    # J, F: pairwise and + memory of 100 videos; pairwise, + memory, + adaptation of 100 images
    ("Self-supervised VOS (2020), Table 3", "davis17"): [
        (54.7, 57.8),
        (62.5, 65.5),
        (53.7, 56.2),
        (60.0, 63.1),
        (62.1, 64.5),
    ],
    # J&F, J mean and recall, F mean and recall
    ("Self-supervised VOS (2020), Table 4", "davis17"): [
        (70.7, 68.2, 77.8, 73.1, 83.5),
        (65.4, 64.0, 71.6, 66.7, 75.8),
    ],
    # overall, J and F seen, J and F unseen
    ("Self-supervised VOS (2020), Table 5", "ytvos18"): [(67.3, 67.2, 67.9, 63.2, 70.6)],
    # OxUvA, YouTube-VOS, TrackingNet, Kinetics-400, nothing
    ("Dense Unsupervised Learning (2021), Table 1", "davis17"): [
        (65.3, 63.4, 76.1, 67.2, 79.7),
        (69.3, 67.1, 81.2, 71.6, 84.9),
        (69.4, 67.1, 80.9, 71.7, 84.8),
        (68.7, 66.7, 81.4, 70.7, 84.1),
        (43.1,),
    ],
    # YouTube-VOS, Kinetics, TrackingNet
    ("Dense Unsupervised Learning (2021), Table 2", "ytvos18"): [
        (69.9, 69.6, 71.3, 65.0, 73.5),
        (70.6, 69.9, 71.3, 66.5, 74.8),
        (70.7, 70.2, 71.9, 66.3, 74.5),
    ],
    ("VideoMatch (2018), Table 1", "davis16"): [(81.0, "0.32s"), (79.2, "0.17s")],
    ("VideoMatch (2018), Table 2", "youtube-objects"): [(79.7,)],
    ("VideoMatch (2018), Table 3", "jumpcut"): [(873,)],
    ("VideoMatch (2018), Table 4", "davis17"): [(56.5, "0.35s"), (61.4, "2.62s")],
}


def test_published_figures_are_those_of_the_tables() -> None:
    found: dict[tuple[str, str], list[tuple[float | str, ...]]] = {}
    for row in PUBLISHED:
        figures = tuple(f"{x}s" if key == "s/frame" else round(100 * x, 2) for key, x in row.values.items())
        found.setdefault((row.source, row.dataset), []).append(figures)
    assert found == TABLES


def test_papers_are_named_where_a_server_scores(tmp_path: Path) -> None:
    text = report_of(tmp_path, "ytvos18")
    assert text.count('<tr class="paper">') == 4
    assert "J unseen" in text
    assert "trained on: TrackingNet, no labels" in text


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: chromium is not on this machine")
def test_browser_opens_it_without_a_complaint_also_on_a_phone(tmp_path: Path) -> None:
    """A script at the end of a copy asks what only a browser knows, also of a copy in a frame of 420 pixels."""
    text = report_of(tmp_path, "davis17", "fake", "fake:slow")
    asked = (
        f'<iframe width="420" srcdoc="{html.escape(text)}"></iframe>'
        "<script>onload = () => { const all = [...document.images]; document.title = [all.length, "
        "all.filter(i => i.complete && i.naturalWidth > 0).length, "
        "[...document.querySelectorAll('figure > svg')].every(s => s.getBBox().width > 99), "
        "document.documentElement.scrollWidth <= innerWidth, "
        "frames[0].document.documentElement.scrollWidth <= 420].join(' '); }</script>"
    )
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", f"{asked}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<title>8 8 true true true</title>" in run.stdout
    assert "CONSOLE" not in run.stderr


def test_plots_keep_values_inside() -> None:
    plots: Any = TEMPLATES.get_template("plots.svg.j2").module
    drawn = plots.curves([("a", {"0": 0.0, "2": 5.0})], ("0", "1", "2"), 5.0, "J of <a>") + plots.scatter(
        [("a", 0.0, 0.5)], 1
    )
    drawn += plots.scatter([("a", -1.0, 0.5), ("b", 1.99, 2.0)], 2.0) + plots.bars({"x": [0.3]}, ["a"], 1)
    drawn += plots.curves([("a", {})], ("0",), 1.0, "")
    shares = [float(text) for text in re.findall(r'(?:c?[xy]\d?|height)="([\d.-]+)%"', drawn)]
    shares += [
        float(text) for pair in re.findall(r'points="([^"]+)"', drawn) for text in re.split("[ ,]", pair.strip())
    ]
    assert len(shares) > 40
    assert min(shares) == 0
    assert max(shares) == 100


def test_names_of_points_do_not_cover_each_other() -> None:
    plots: Any = TEMPLATES.get_template("plots.svg.j2").module
    drawn = plots.scatter([("low", -1.0, 0.5), ("high", -1.0, 0.502), ("mid", -1.0, 0.501)], 1)
    places = {name: float(y) for y, name in re.findall(r'<text x="\S+" y="([\d.]+)"[^>]*>(\w+)</text>', drawn)}
    assert sorted(places, key=lambda name: places[name]) == ["high", "mid", "low"]
    assert places["mid"] - places["high"] > 11
    assert places["low"] - places["mid"] > 11


def test_templates_belong_to_the_package() -> None:
    folder = resources.files("vostrack.benchmark.report")
    assert all(folder.joinpath(name).is_file() for name in TEMPLATES.list_templates(["j2"]))
    assert {"plots.svg.j2", "report.html.j2"} < set(TEMPLATES.list_templates(["j2"]))


def test_best_values_are_bold(tmp_path: Path) -> None:
    text = report_of(tmp_path, "davis17", "fake", "fake:slow")
    found = read_results(tmp_path / "out")
    variants = found["variants"].values()
    seconds = [timing["seconds_per_frame"]["model"] for timing in found["timing"]["variants"].values()]
    for label, values, best in (
        ("cat", [variant["sequences"]["cat"]["J&F"] for variant in variants], max),
        ("F decay", [variant["total"]["F_decay"] for variant in variants], min),
        ("model s/frame", seconds, min),
    ):
        (row,) = re.findall(rf"<tr><th scope=\"row\">{label}</th>(.*?)</tr>", text, re.DOTALL)
        cells = re.findall(r"<td( class=\"best\")?>(?:<a [^>]*>)?([\d.-]+)(?:</a>)?</td>", row)
        assert cells == [(' class="best"' * (value == best(values)), f"{value:.3f}") for value in values]


def test_figures_of_sequences_lead_to_their_masks_also_where_the_folder_is_moved(tmp_path: Path) -> None:
    names = ("a#b?c%20d", "dog")
    trees.davis17(tmp_path / "data", names=names)
    dataset = open_dataset("davis17", tmp_path / "data")
    run_benchmark(dataset, parse_variants(["fake", "fake:slow"]), tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "else where")
    links = Checker((moved / "report.html").read_text(encoding="utf-8")).links
    paths = [PurePosixPath(unquote(urlsplit(link).path)) for link in links]
    assert all(urlsplit(link)[:2] == ("", "") and not urlsplit(link).fragment for link in links)
    assert all(not path.is_absolute() and ".." not in path.parts and (moved / path).exists() for path in paths)
    wanted = {PurePosixPath(variant, "Annotations", name) for variant in ("fake", "fake-slow") for name in names}
    assert wanted < set(paths)
    assert {path.suffix for path in set(paths) - wanted} == {".png", ".json", ".csv"}


def test_what_is_gone_or_a_link_is_not_linked_to(tmp_path: Path) -> None:
    dataset = open_dataset("davis17", trees.davis17(tmp_path / "data"))
    run_benchmark(dataset, parse_variants(["fake"]), tmp_path / "out")
    masks = tmp_path / "out" / "fake" / "Annotations"
    shutil.rmtree(masks / "cat")
    (masks / "dog").rename(tmp_path / "dog")
    (masks / "dog").symlink_to(tmp_path / "dog")
    run_benchmark(dataset, parse_variants(["fake:slow"]), tmp_path / "out")
    links = Checker((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).links
    assert any(link.startswith("fake-slow/") for link in links)
    assert not any(link.startswith("fake/") for link in links)


def test_submissions_are_linked_to(tmp_path: Path) -> None:
    text = report_of(tmp_path, "ytvos18")
    assert Checker(text).links == ["fake/submission.zip", "results.json"]


def test_differences_of_variants_have_intervals(tmp_path: Path) -> None:
    names = [f"s{index}" for index in range(6)]
    trees.davis17(tmp_path / "data", names=names)
    variants = parse_variants(["fake", "fake:slow", "fake,rate=0.5"])
    out = tmp_path / "out"
    run_benchmark(open_dataset("davis17", tmp_path / "data"), variants, out)
    text = (out / "report.html").read_text(encoding="utf-8")
    folders = [variant.name for variant in variants]
    assert len(re.findall(r'<th scope="row">\S+ against \S+</th>', text)) == 3
    for first, second in itertools.combinations(folders, 2):
        found = compare(out / first, out / second)
        (row,) = re.findall(rf'<th scope="row">{second} against {first}</th>(.*?)</tr>', text, re.DOTALL)
        assert re.findall(r">([^<>\n]+)</td>", row) == [
            f"{found.mean:+.3f}",
            f"{found.low:+.3f} to {found.high:+.3f}",
            f"{found.counts[0]} better, {found.counts[1]} worse",
            found.verdict,
        ]


def test_one_variant_is_compared_with_nothing(tmp_path: Path) -> None:
    assert " against " not in report_of(tmp_path, "davis17").partition("<h2>Speed")[0]


def test_one_sequence_has_no_interval(tmp_path: Path) -> None:
    text = report_of(tmp_path, "jumpcut", "fake", "fake:slow")
    assert "fewer than 6 sequences cannot tell" in text
    assert "inf" not in re.findall(r">([^<>]*)</td>", text)


def test_cells_of_tables_have_headers(tmp_path: Path) -> None:
    text = report_of(tmp_path, "davis17", "fake", "fake:slow")
    for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
        head, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        columns = re.findall(r'<th scope="col"[^>]*>\s*(.+?)\s*</th>', head, re.DOTALL)
        assert columns
        for row in rows:
            assert len(re.findall(r'<th scope="row"', row)) == 1
            assert len(re.findall("<td", row)) == len(columns) - 1
