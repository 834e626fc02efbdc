"""The tables of the paper against numbers computed by hand, in numpy alone, from the answers one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.metrics import r2_score

from specshards.train.paper import report
from specshards.train.paper.answers import FILE, SCHEMA, Answers
from specshards.train.paper.names import NUMBERS, TABLE_KEYS
from specshards.train.paper.study import Study
from specshards.train.paper.tables import TABLES
from specshards.train.tasks import metrics
from tests.oracles.made_up_answers import again, made_up

JOINT = "sdss + lamost"
EDGES = (0, 1, 2, 5, 7, 10, 20, 30, 40, 50, np.inf)


@pytest.fixture(scope="module")
def study() -> Study:
    return made_up(300)


@pytest.fixture(scope="module")
def written(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper")
    report.write(study, out)
    return out


@pytest.fixture(scope="module")
def content(written: Path) -> dict[str, Any]:
    return json.loads((written / report.JSON).read_text())  # type: ignore[no-any-return]


def answers(study: Study, task: str, picture: str) -> dict[str, Any]:
    """Columns of the answers with a truth, as plain arrays."""
    rows = [
        row
        for row in study.answers.table.to_pylist()
        if (row["set"], row["task"], row["picture"]) == (JOINT, task, picture) and row["truth"] is not None
    ]
    return {name: np.array([row[name] for row in rows]) for name in ("truth", "answer", "class", "sn_survey", "crps")}


def cell(content: dict[str, Any], table: str, row: str, column: str) -> dict[str, Any]:
    found = content["tables"][table]
    (line,) = (each for each in found["rows"] if each["name"] == f"{JOINT}{row}")
    return line["cells"][found["columns"].index(column) - 1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("picture", ["simple", "map2d"])
def test_r2_and_accuracy_are_those_of_a_hand_computation(study: Study, content: dict[str, Any], picture: str) -> None:
    a = answers(study, "redshift", picture)
    residual, spread = ((a["truth"] - a["answer"]) ** 2).sum(), ((a["truth"] - a["truth"].mean()) ** 2).sum()
    found = cell(content, "r2", "", picture)
    assert found["value"] == pytest.approx(1 - residual / spread, rel=1e-12)
    assert found["value"] == pytest.approx(r2_score(a["truth"], a["answer"]), rel=1e-12)
    assert found["count"] == len(a["truth"])
    assert found["interval"][0] < found["value"] < found["interval"][1]
    train = study.objects[JOINT].splits == "train"
    mean = study.objects[JOINT].numbers["z"][train].mean()
    assert found["constant"] == pytest.approx(1 - ((a["truth"] - mean) ** 2).sum() / spread, rel=1e-12)
    c = answers(study, "classify", picture)
    found = cell(content, "accuracy", "", picture)
    assert found["value"] == (c["truth"] == c["answer"]).sum() / len(c["truth"])
    assert found["constant"] == (c["truth"] == 0).mean()  # most made-up objects are stars


def test_the_shares_of_table_5_are_those_of_a_hand_computation(study: Study, content: dict[str, Any]) -> None:
    a = answers(study, "redshift", "simple")
    limit = np.array([{"QSO": 3000.0, "GALAXY": 1000.0, "STAR": 1000.0}.get(kind, np.nan) for kind in a["class"]])
    good = 299792.458 * np.abs(a["answer"] - a["truth"]) / (1 + a["truth"]) < limit
    sn = np.array([np.nan if value is None else value for value in a["sn_survey"]])
    names = [f"{low} to {high}" for low, high in pairwise(EDGES[:-1])] + ["50 and more"]
    for name, low, high in zip([*names, "all"], [*EDGES[:-1], -np.inf], [*EDGES[1:], np.inf], strict=True):
        inside = (sn >= low) & (sn < high) if name != "all" else np.ones(len(sn), bool)
        for column in ("all classes", "GALAXY", "QSO", "STAR"):
            rows = inside & np.isfinite(limit) & ((a["class"] == column) | (column == "all classes"))
            found = cell(content, "sn", f", simple: {name}", column)
            assert found["count"] == rows.sum()
            assert found["value"] == (pytest.approx(good[rows].mean()) if rows.any() else None)


def test_the_limits_are_of_the_class_and_not_the_published_script_s() -> None:
    """0.00334 is 1001.3 km/s: what lies between is a catastrophe here, and none there."""
    z = np.array([0.5, 0.5, 1.0, 0.5])
    answer = z + (1 + z) * np.array([0.003336, 0.0033, 0.010008, 0.0])
    known, within = metrics.non_catastrophic(z, answer, np.array([1.0, 0.0, 2.0, np.nan]))
    assert known.tolist() == [True, True, True, False]
    assert within.tolist() == [False, True, False, False]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-6, 6) | st.floats(-50, 50), min_size=1, max_size=13))
def test_no_constant_has_a_smaller_median_deviation(values: list[float]) -> None:
    x = np.array(values, np.float64)
    found = np.median(np.abs(x - metrics.least_median_deviation(x)))
    others = np.concatenate([np.linspace(x.min(), x.max(), 301), ((x[:, None] + x) / 2).ravel(), [np.median(x)]])
    assert found <= np.median(np.abs(x[:, None] - others), axis=0).min() + 1e-12


def test_the_constant_of_a_skewed_label_is_the_middle_of_its_shortest_half() -> None:
    x = np.array([5.0, 5.1, 5.2, 5.3, 9.0, 14.0, 30.0])
    assert metrics.least_median_deviation(x) == pytest.approx(5.15)
    assert np.median(np.abs(x - 5.15)) < np.median(np.abs(x - np.median(x)))


def by_integral(true: float, mean: float, sigma: float) -> float:
    """CRPS by its definition: the integral of (F(x) - [x >= truth])^2."""
    below = integrate.quad(lambda x: stats.norm.cdf(x, mean, sigma) ** 2, -np.inf, true, epsabs=1e-12)[0]
    above = integrate.quad(lambda x: stats.norm.sf(x, mean, sigma) ** 2, true, np.inf, epsabs=1e-12)[0]
    return float(below + above)


@settings(deadline=None, max_examples=30)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 3))
def test_the_crps_of_a_gaussian_is_its_integral(true: float, mean: float, sigma: float) -> None:
    found = metrics.crps_gaussian(np.array([true]), np.array([mean]), sigma)
    assert found[0] == pytest.approx(by_integral(true, mean, sigma), rel=1e-6, abs=1e-8)


def test_crps_of_no_width_is_the_absolute_error() -> None:
    assert metrics.crps_gaussian(np.array([1.0, 2.0]), np.array([1.5, 2.0]), 0.0).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("picture", ["overlap", "mega"])
def test_both_crps_of_table_9_are_those_of_a_hand_computation(
    study: Study, content: dict[str, Any], picture: str
) -> None:
    column = {"mega": "mega (the three together)"}.get(picture, picture)
    a = answers(study, "redshift", picture)
    residual = a["answer"] - a["truth"]

    def gaussian(rows: np.ndarray[Any, Any], sigma: float) -> float:
        w = residual[rows] / sigma
        phi, cdf = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi), stats.norm.cdf(w)
        return float((sigma * (w * (2 * cdf - 1) + 2 * phi - 1 / np.sqrt(np.pi))).mean())

    every, quasars = np.ones(len(residual), bool), a["class"] == "QSO"
    sigma = np.sqrt(((residual - residual.mean()) ** 2).mean())
    own = residual[quasars].std()
    for name, value, count in (
        (": crps_gaussian_z, all", gaussian(every, sigma), len(residual)),
        (": crps_gaussian_z, quasars, sigma of all", gaussian(quasars, sigma), quasars.sum()),
        (": crps_gaussian_z, quasars, own sigma", gaussian(quasars, own), quasars.sum()),
        (": crps in ln(1 + z), all", a["crps"].astype(float).mean(), len(residual)),
        (": crps in ln(1 + z), quasars", a["crps"][quasars].astype(float).mean(), quasars.sum()),
    ):
        found = cell(content, "crps", name, column)
        assert found["value"] == pytest.approx(value, rel=1e-9)
        assert found["count"] == count


@pytest.mark.parametrize("task", ["teff", "logg", "feh"])
def test_the_tables_of_stars_are_those_of_a_hand_computation(
    study: Study, content: dict[str, Any], task: str
) -> None:
    a = answers(study, task, "map2d")
    assert set(a["class"]) == {"STAR"}
    residual, unit = a["answer"] - a["truth"], "K" if task == "teff" else "dex"
    for name, value in {
        "R2": r2_score(a["truth"], a["answer"]), f"MAD, {unit}": np.median(np.abs(residual)),
        f"1.4826 MAD, {unit}": 1.4826 * np.median(np.abs(residual)), f"std of residuals, {unit}": residual.std(),
    }.items():  # fmt: skip
        found = cell(content, task, f": {name}", "map2d")
        assert found["value"] == pytest.approx(value)
        assert found["better"] is True
    # A joint table whose test stars are of one survey alone says so.
    objects = study.objects[JOINT]
    test = {s: int((objects.is_class("STAR") & (objects.splits == "test") & (objects.surveys == s)).sum())
            for s in ("lamost", "sdss")}  # fmt: skip
    (line,) = (line for line in content["tables"][task]["about"] if line.startswith(f"{JOINT}: labelled stars"))
    assert all(f"{survey} " in line and f", {n} in test" in line for survey, n in test.items())
    # What the mean label leaves is the scatter of the labels.
    assert cell(content, task, f": std of residuals, {unit}", "map2d")["constant"] == pytest.approx(a["truth"].std())


def test_table_1_counts_every_spectrum_once(study: Study, content: dict[str, Any]) -> None:
    table = content["tables"]["counts"]
    rows = {row["name"]: dict(zip(table["columns"][1:], row["cells"], strict=True)) for row in table["rows"]}
    total = rows[f"{JOINT}: all"]
    assert total["all"] == len(study.objects[JOINT]) == total["train"] + total["val"] + total["test"]
    assert all(total[name] == sum(rows[f"{JOINT}: {s}"][name] for s in ("sdss", "lamost")) for name in total)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-0.003, 4), st.integers(0, 2)), min_size=1, max_size=12))
def test_no_other_constant_redshift_is_right_more_often(objects: list[tuple[float, int]]) -> None:
    z, classes = np.array([o[0] for o in objects]), np.array([o[1] for o in objects], float)

    def share(c: float) -> int:
        return int(metrics.non_catastrophic(z, np.full(len(z), c), classes)[1].sum())

    reach = np.where(classes == 2, 3000, 1000) / 299792.458 * (1 + z)
    ends = np.concatenate([z - reach, z + reach])
    middles = (np.sort(ends)[1:] + np.sort(ends)[:-1]) / 2
    best = metrics.most_non_catastrophic(z, classes)
    assert share(best) == max([share(c) for c in middles] + [share(c) for c in z])


def test_a_model_that_answers_a_constant_is_called_no_better(study: Study, tmp_path: Path) -> None:
    """In the first line, by its name; and the others are not."""
    table = study.answers.table
    z = float(study.objects[JOINT].numbers["z"][study.objects[JOINT].splits == "train"].mean())
    poor = np.array([
        (s, t, p) == (JOINT, "redshift", "overlap")
        for s, t, p in zip(*(table[name].to_pylist() for name in ("set", "task", "picture")), strict=True)
    ])  # fmt: skip
    answer = np.where(poor, z, table["answer"].to_numpy())
    place = table.column_names.index("answer")
    first = report.write(again(study, table.set_column(place, "answer", [answer])), tmp_path, ("r2",))
    title = f"R2 of the redshift by picture and data set, {JOINT}"
    assert first[0] == (
        f"In 3 of 16 cells the model is no better than the best constant: {title}, overlap; {title}: lamost alone, "
        f"overlap; {title}: sdss alone, overlap."
    )
    assert f'<p class="first">{first[0]}</p>' in (tmp_path / report.PAGE).read_text()


def test_a_model_that_only_tells_surveys_apart_is_called_no_better(study: Study, tmp_path: Path) -> None:
    """It answers the commonest class of an object's survey, which is far better than one class for all."""
    objects, rows = study.objects[JOINT], study.answers.table.to_pylist()
    rng = np.random.default_rng(0)
    quasars = (objects.surveys == "lamost") & (rng.random(len(objects)) < 0.8)
    classes = np.where(quasars, 2.0, np.where(np.isnan(objects.classes), 0, objects.classes))
    objects = replace(objects, classes=classes)
    most = {"lamost": 2.0, "sdss": 0.0}
    for row in rows:
        if (row["set"], row["task"], row["picture"]) == (JOINT, "classify", "map2d"):
            row["truth"] = 2.0 if row["survey"] == "lamost" and rng.random() < 0.8 else row["truth"]
            row["answer"] = most[row["survey"]]
    changed = replace(study, answers=Answers(pa.Table.from_pylist(rows, SCHEMA)), objects={JOINT: objects})
    report.write(changed, tmp_path, ("accuracy",))
    found = json.loads((tmp_path / report.JSON).read_text())
    whole = cell(found, "accuracy", "", "map2d")
    assert whole["value"] > whole["constant"] + 0.1
    assert whole["value"] == whole["of_survey"]
    assert whole["better"] is False
    mine = [row for row in rows if row["set"] == JOINT and row["task"] == "classify" and row["picture"] == "map2d"]
    for survey in ("lamost", "sdss"):
        alone = cell(found, "accuracy", f": {survey} alone", "map2d")
        right = [row["truth"] == most[survey] for row in mine if row["survey"] == survey and row["truth"] is not None]
        assert (alone["count"], alone["value"]) == (len(right), pytest.approx(np.mean(right)))
        assert alone["constant"] == alone["value"]
    assert "of each survey" in (tmp_path / report.PAGE).read_text()


def test_every_cell_that_is_no_better_is_listed(study: Study, tmp_path: Path) -> None:
    table = study.answers.table
    place = table.column_names.index("answer")
    none = np.zeros(table.num_rows)  # a star at rest, of 0 K
    report.write(again(study, table.set_column(place, "answer", [none])), tmp_path, ("accuracy", "r2"))
    found = json.loads((tmp_path / report.JSON).read_text())
    assert found["summary"][0].startswith(f"In {len(found['no_better'])} of 32 cells")
    assert len(found["no_better"]) > 5
    page, text = (tmp_path / report.PAGE).read_text(), (tmp_path / report.MARKDOWN).read_text()
    assert all(f"<li>{line}</li>" in page and f"- {line}" in text for line in found["no_better"])
    assert "A&A 709" in text
    assert "&amp;" not in text


def test_what_was_not_trained_says_why(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = study.answers.table.filter(np.array([p != "mega" for p in study.answers.table["picture"].to_pylist()]))
    why = "the shards hold pictures of map2d; make them with ENCODING=flux"
    absent = {(JOINT, "", "mega"): why}
    study = Study(Answers(table), study.objects, study.notes, absent)
    monkeypatch.setattr(report, "figures", lambda study: ())
    report.write(study, tmp_path, ("r2", "teff"))
    content = json.loads((tmp_path / report.JSON).read_text())
    for key, row in (("r2", ""), ("teff", ": R2")):
        found = cell(content, key, row, "mega (the three together)")
        assert found["value"] is None
        assert found["notes"] == [why]
    assert "not trained" in (tmp_path / report.MARKDOWN).read_text()  # of the other set


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "h2":
            self.headings.append("")
            self._in_heading = True

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag != "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings[-1] += data


def test_the_page_has_every_table_and_figure_and_loads_nothing(written: Path) -> None:
    page = _Page((written / report.PAGE).read_text())
    assert all(link.startswith(("#", "data:")) for link in page.loaded)
    assert "script" not in page.tags
    assert "mathdefault" not in (written / report.PAGE).read_text()  # the numbers of an axis are numbers
    for number in (1, 5, 6, 7, 8, 9):
        assert sum(heading.startswith(f"Table {number}: ") for heading in page.headings) == 1
    assert sum("number not known" in heading for heading in page.headings) == 4
    for number in (2, 3, 4, 10, 11):
        assert any(heading.startswith(f"Figure {number}: ") for heading in page.headings)
    assert page.tags.count("svg") == 7  # 2 to 4, and 10 and 11 of each set
    text = (written / report.MARKDOWN).read_text()
    for name in ("2", "3", "4", "10_0", "10_1", "11_0", "11_1"):
        assert (written / report.FOLDER / f"{name}.png").stat().st_size > 1000
        assert f"({report.FOLDER}/{name}.png)" in text


def test_the_published_numbers_stand_beside_ours(content: dict[str, Any]) -> None:
    for key, value in {"accuracy": 0.990, "r2": 0.992}.items():
        published = cell(content, key, "", "published")
        assert published["published"] == value
        assert "not known here" in published["notes"][0]
    others = {row["name"]: row["cells"][-1] for key in ("classifiers", "estimators")
              for row in content["tables"][key]["rows"]}  # fmt: skip
    assert others["Wang et al. 2022, with photometry"]["published"] == 0.965
    assert others["AstroCLIP"]["published"] == 0.990
    assert cell(content, "crps", ": crps_gaussian_z, quasars, own sigma", "published")["published"] == 0.0171


def test_answers_come_back_from_their_file(study: Study, tmp_path: Path) -> None:
    study.answers.write(tmp_path / FILE)
    read = Answers.read(tmp_path / FILE)
    assert read.table.equals(study.answers.table)
    assert read.sets == ["sdss", JOINT]


def test_mock_data_are_called_mock(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {name: replace(each, mock=True) for name, each in study.objects.items()}
    monkeypatch.setattr(report, "figures", lambda study: ())
    report.write(replace(study, objects=objects), tmp_path, ("counts",))
    assert "<strong>MOCK data.</strong>" in (tmp_path / report.PAGE).read_text()
    assert "**MOCK data.**" in (tmp_path / report.MARKDOWN).read_text()
    assert json.loads((tmp_path / report.JSON).read_text())["mock"] is True


def test_the_tables_are_those_that_commands_know() -> None:
    assert tuple(TABLES) == TABLE_KEYS and set(NUMBERS.values()) <= set(TABLE_KEYS)


def test_help_of_trainings_loads_nothing_heavy() -> None:
    code = (
        "import sys, specshards.train.__main__; print({'numpy', 'torch', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
