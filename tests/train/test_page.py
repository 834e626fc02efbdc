"""Reports of an evaluation: all headline numbers, nothing lost, nothing that a hostile name could do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specshards.common import svg
from specshards.common.json import finite
from specshards.shards.format.manifest import LabelStats
from specshards.train.config import TrainConfig
from specshards.train.evaluation.measure import measure
from specshards.train.evaluation.score import Scored
from specshards.train.report import figures, page, tables
from specshards.train.run import Card
from specshards.train.tasks import plots
from specshards.train.tasks.classification import Classify, Subclass
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.regression import Redshift, regression
from specshards.train.tasks.task import Task

HOSTILE = ("<script>alert(1)</script>", 'A&B "x" onload=alert(1)', "$\\frac{", "url(http://evil.example/x)")
TASKS: tuple[Task, ...] = (
    Classify(("STAR", "GALAXY", "QSO"), "classify"),
    Subclass(HOSTILE, "subclass"),
    Redshift.scaled_by(LabelStats(100, 0.7, 0.6, 0.0, 4.0), "redshift", "gaussian", 64),
    regression("teff", unit="K").scaled_by(LabelStats(100, 6000, 900, 3500, 9500), "teff", "histogram", 64),
)


def logits_for(task: Task, answer: np.ndarray) -> torch.Tensor:
    """Logits that say `answer`, float64 `(N,)`, by descent of the task's own loss; not too sure of it."""
    target = torch.from_numpy(np.nan_to_num(answer, nan=task.filler))
    logits = torch.zeros(len(answer), task.head_size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        task.sample_loss(logits, target).sum().backward()
        optimizer.step()
    return logits.detach()


def simulate(n: int, seed: int, tasks: tuple[Task, ...] = TASKS) -> dict[str, Scored]:
    """Answers that are right more often than not, on labels of which some are missing."""
    rng = np.random.default_rng(seed)
    kind, subclass = rng.integers(0, 3, n).astype(float), rng.integers(0, len(HOSTILE), n).astype(float)
    labels = {
        "class": kind, "subclass": subclass,
        "z": np.where(kind > 0, np.abs(rng.normal(0.7, 0.6, n)), rng.normal(0, 3e-4, n)),
        "teff": np.where(kind == 0, rng.normal(6000, 900, n), np.nan), "sn_median": np.exp(rng.normal(2, 1, n)),
        "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-5, 60, n),
    }  # fmt: skip
    answers = {
        "class": np.where(rng.random(n) < 0.2, rng.permutation(kind), kind),
        "subclass": np.where(rng.random(n) < 0.2, rng.permutation(subclass), subclass),
        "z": labels["z"] + rng.normal(0, 0.1, n), "teff": labels["teff"] + rng.normal(0, 200, n),
    }  # fmt: skip
    surveys = np.array(["lamost", "<b>sdss</b>"], dtype=object)[np.arange(n) % 2]
    result = {}
    for task in tasks:
        logits = logits_for(task, answers[task.label])
        columns = {**task.decode(logits), **task.calibration(logits, labels[task.label])}
        result[task.name] = Scored(columns, labels, surveys, 0.25)
    return result


def baselines_of(task: Task) -> Baselines:
    return Baselines(task.filler, {"lamost": 1.0}, {"all": 12_345, "survey lamost": 12_345, "class STAR": 345})


@pytest.fixture(scope="module")
def card() -> Card:
    config = TrainConfig(task=",".join(t.name for t in TASKS), shards=("data/<i>shards</i>",), backbone="tiny")
    data = ({"folder": "data/<i>shards</i>", "fingerprint": "f" * 64, "surveys": ["lamost", "<b>sdss</b>"]},)
    best = {"epoch": 2, "metric": "mean_skill", "value": 0.61234}
    return Card(TASKS, config, {"image": "map2d", "size": 224}, data, True, {t.name: baselines_of(t) for t in TASKS},
                "a1b2" * 16, best)  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Scored]]:
    return {"val": simulate(700, 1), "test": simulate(300, 2)}


@pytest.fixture(scope="module")
def content(answers: dict[str, dict[str, Scored]], card: Card) -> dict[str, Any]:
    def scores(task: Task, scored: Scored) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        extra = {"random_forest": scored.labels[task.label] + rng.integers(0, 2, len(scored.surveys)) * 0.0}
        return measure(task, scored, card.baselines[task.name], extra=extra)

    splits = {split: {t.name: scores(t, scored[t.name]) for t in TASKS} for split, scored in answers.items()}
    history = [
        {"epoch": e, "step": 10 * e, "mean_skill": 0.3 * e, "loss_classify": 1 / e, "classify_macro_f1": None}
        for e in (1, 2)
    ]
    training = {"epochs": 2, "device": "cpu", "samples_per_second": 812.5, "history": history}
    head = {"mock": True, "model": card.model, "data": list(card.data), "training": training}
    return json.loads(json.dumps(finite({**head, "splits": splits}), allow_nan=False))


@pytest.fixture(scope="module")
def run(content: dict[str, Any], answers: dict[str, dict[str, Scored]], card: Card, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    folder: Path = tmp_path_factory.mktemp("run")
    for split, scored in answers.items():
        for task in TASKS:
            figures.draw(folder, task, scored[task.name], split, True)
    page.write(folder, content, card)
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                yield tag, name, value


def headlines(content: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    for split, found in content["splits"].items():
        for task in TASKS:
            for metric in task.headline:
                yield split, task.name, found[task.name], metric


def test_every_headline_number_is_in_all_reports_with_its_interval(
    html: str, content: dict[str, Any], card: Card
) -> None:
    short = tables.short(content, card)
    for split, task, scores, metric in headlines(content):
        low, high = map(tables.number, scores["intervals"][metric])
        value = tables.number(scores["all"][metric])
        assert f"{value} <span>[{low}, {high}]</span>" in html, (split, task, metric)
        assert f"{value} [{low}, {high}]" in tables.markdown(content, card), (split, task, metric)
        if task != "redshift" or metric not in ("r2", "mae", "rmse"):
            assert value in short and f"{low} to {high}" in short, (split, task, metric)
        for name, values in scores["baselines"].items():
            assert tables.number(values[metric]) in html, (split, task, name, metric)
    assert all("random forest" in text for text in (html, tables.short(content, card)))
    assert card.model in html and "f" * 64 in html and "12,345 labelled train objects" in html


def test_names_are_text_and_nothing_comes_from_elsewhere(html: str) -> None:
    found = Page(html)
    assert not {"script", "b", "i", "iframe", "link", "object", "embed"} & {tag for tag, _ in found.tags}
    for tag, name, value in found.attributes():
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,")), (tag, value[:50])
        if name != "aria-label":
            assert "http" not in value and "@import" not in value, (tag, name, value)
            assert not re.search(r"url\((?!#)", value), (tag, name, value)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    policy = next(attributes["content"] for tag, attributes in found.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'") and "script" not in policy
    text = " ".join(found.text)
    for name in (*HOSTILE, "<b>sdss</b>", "data/<i>shards</i>"):
        assert name in text


def test_names_are_text_in_markdown_too(content: dict[str, Any], card: Card) -> None:
    assert not re.search(r"<(script|b|i)\b", tables.markdown(content, card))


def test_ids_are_unique_and_links_lead_somewhere(html: str) -> None:
    found = Page(html)
    ids = [value for _, name, value in found.attributes() if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in found.attributes() if name == "href" and value.startswith("#")]
    targets += [m for _, _, value in found.attributes() for m in re.findall(r"url\(#([^)]+)\)", value)]
    assert set(targets) <= set(ids) and len(targets) > 20
    contents = html[html.index("<nav") : html.index("</nav>")]
    for split in ("val", "test"):
        for task in TASKS:
            assert f">{split}: {task.name}</a>" in contents


def test_figures_are_described_and_follow_the_readers_colours(html: str) -> None:
    drawings = re.findall(r"<figure(?: class=\"wide\")?>(.*?)</figure>", html, re.DOTALL)
    # Classes: confusion, S/N, recall by S/N, reliability; numbers: against, S/N, residuals, PIT; and the history.
    assert len(drawings) == 2 * 4 * 4 + 1
    for drawing in drawings:
        assert re.match(r'<svg [^>]*role="img" aria-label="MOCK data, [^"]+"', drawing), drawing[:200]
        assert "<figcaption><strong>MOCK data.</strong> " in drawing and "Good: " in drawing
        assert not any(colour in drawing for colour in (svg.INK, svg.MUTED, svg.ACCENT, *svg.SERIES))
        assert "var(--ink)" in drawing
    assert "prefers-color-scheme:dark" in html and '<meta name="color-scheme" content="light dark">' in html


def test_tables_that_scroll_can_be_reached_by_keyboard(html: str) -> None:
    regions = [attributes for _, attributes in Page(html).tags if attributes.get("class") == "scroll"]
    assert regions and all(r["tabindex"] == "0" and r["role"] == "region" and r["aria-label"] for r in regions)
    assert html.count("<table") == html.count('<div class="scroll"') + html.count('<table class="plain"')


def test_mock_is_said_everywhere_and_only_of_mock(html: str, content: dict[str, Any], card: Card) -> None:
    assert 'role="note"><strong>MOCK data.' in html
    for text in (html, tables.short(content, card), tables.markdown(content, card)):
        assert "MOCK" in text
    real = {**content, "mock": False, "splits": {"val": {"teff": content["splits"]["val"]["teff"]}}}
    for text in (page.page(real, card, {}), tables.short(real, card), tables.markdown(real, card)):
        assert "MOCK" not in text


def test_the_same_numbers_make_the_same_page(
    run: Path, content: dict[str, Any], answers: dict[str, dict[str, Scored]], card: Card, tmp_path: Path
) -> None:
    figures.draw(tmp_path, TASKS[2], answers["val"]["redshift"], "val", True)
    for name in ("figures/val_redshift.svg", "figure_val_redshift.png"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()
    few = {**content, "splits": {"val": {"classify": content["splits"]["val"]["classify"]}}}
    assert page.page(few, card, {}) == page.page(few, card, {})


def test_a_card_that_was_read_back_makes_the_same_report(content: dict[str, Any], card: Card) -> None:
    assert tables.markdown(content, Card.loads(card.dumps())) == tables.markdown(content, card)


def test_drawings_of_an_earlier_split_stay_and_damaged_ones_are_left_out(
    content: dict[str, Any], answers: dict[str, dict[str, Scored]], card: Card, tmp_path: Path
) -> None:
    figures.draw(tmp_path, TASKS[2], answers["val"]["redshift"], "val", True)
    figures.draw(tmp_path, TASKS[2], answers["test"]["redshift"], "test", True)
    redshift = {split: {"redshift": scores["redshift"]} for split, scores in content["splits"].items()}

    def shown() -> int:
        page.write(tmp_path, {**content, "splits": redshift}, card)
        return (tmp_path / "report.html").read_text().count("prediction against its true value")

    assert shown() == 2
    (tmp_path / "figures" / "val_redshift.svg").write_text("<svg><not closed")
    assert shown() == 1


def test_without_labels_or_training_there_is_still_a_page(card: Card, answers: dict[str, dict[str, Scored]]) -> None:
    scores = {}
    for task in TASKS:
        scored = answers["test"][task.name]
        labels = {**scored.labels, task.label: np.full(300, np.nan)}
        nothing = Scored(scored.columns, labels, scored.surveys, float("nan"))
        scores[task.name] = measure(task, nothing, baselines_of(task))
    content = finite({"mock": False, "data": list(card.data), "training": None, "splits": {"test": scores}})
    text = page.page(content, card, {})
    assert "300 objects, 0 with a teff." in text and not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "no object of the test split has a teff" in tables.short(content, card)


def test_a_page_of_many_objects_stays_small(tmp_path: Path) -> None:
    sizes = []
    for i, n in enumerate((plots.MOST_POINTS, 200_000)):
        figures.draw(tmp_path, TASKS[2], simulate(n, 3, TASKS[2:3])["redshift"], f"s{i}", True)
        sizes.append((tmp_path / "figures" / f"s{i}_redshift.svg").stat().st_size)
    assert max(sizes) < 250_000
    assert "data:image/png" in (tmp_path / "figures" / "s1_redshift.svg").read_text()


def test_the_density_counts_every_object_in_its_place() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, 5000)
    with svg.style():
        figure = plots.against(true, true**2, np.full(5000, np.nan), "z", "")
    image = figure.axes[0].get_images()[0]
    pixels = np.asarray(image.get_array())
    low, high, _, _ = image.get_extent()
    row, column = np.nonzero(pixels[:, :, 3])
    cell = (high - low) / len(pixels)
    x, y = low + (column + 0.5) * cell, low + (row + 0.5) * cell
    assert len(x) > 100 and np.abs(y - x**2).max() < 2 * cell


def test_the_terminal_table_is_short(content: dict[str, Any], card: Card) -> None:
    lines = tables.short(content, card).splitlines()
    # Mock; by split and task a head, the model, its intervals, three baselines and two surveys; then classes.
    assert len(lines) <= 1 + 2 * (4 * 8 + 2 * 2 + 3) and all(len(line) <= 120 for line in lines)
    one = {**content, "splits": {"val": {"teff": content["splits"]["val"]["teff"]}}}
    assert len(tables.short(one, card).splitlines()) == 9


def test_history_has_a_panel_for_every_number_once() -> None:
    entries = [{"epoch": e, "step": e, "macro_f1": e / 9, "classify_macro_f1": e / 9, "loss_classify": 1.0, "x": None}
               for e in (1, 2, 3)]  # fmt: skip
    drawing = figures.history(entries, 3)
    assert drawing is not None and drawing.count(">epoch<") == 2
    assert ">macro F1<" in drawing and ">classify: loss<" in drawing
    assert figures.history([], None) is None and figures.history([{"epoch": 1, "step": 2, "x": None}], 1) is None


def test_a_stored_drawing_brings_nothing_that_runs_or_loads() -> None:
    wild = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
    onload="x()" viewBox="0 0 9 9"><script>x()</script><style>*{display:none}</style><path id="m" d="M0 0"/>
    <foreignObject><p>x</p></foreignObject><a xlink:href="javascript:x()"><text>gone</text></a>
    <use xlink:href="#m" style="fill: #1b2026; background: url(http://e/x)"/><image xlink:href="http://e/x.png"/>
    <g clip-path="url(#m)"><text onclick="x()" id="t">1 &lt; 2</text></g></svg>"""
    clean = svg.inline(wild, "p7", 'a "b" <c>', {"#1b2026": "var(--ink)"})
    assert not re.search(r"script|javascript|http|<style|foreign|onload|onclick|gone", clean)
    assert 'href="#p7-m"' in clean and 'id="p7-m"' in clean and 'clip-path="url(#p7-m)"' in clean
    assert "1 &lt; 2" in clean and 'aria-label="a &quot;b&quot; &lt;c&gt;"' in clean and ' id="p7-t"' not in clean
    for text in ("", "<svg", "<html/>"):
        with pytest.raises(ValueError, match="not an SVG file"):
            svg.inline(text, "p", "x", {})
