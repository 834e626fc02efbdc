"""The page of a data set: its numbers are those of the sidecars, and nothing in a label can do more than be read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.projections.geo import MollweideAxes
from typer.testing import CliRunner

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import healpix_29, to_table, write_parquet
from specshards.render import renderer
from specshards.shards import __main__ as command
from specshards.shards.check.verify import verify
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.format.tar import read_index
from specshards.shards.report import make, plots
from specshards.shards.report.page import page
from specshards.shards.report.sources import find_sources
from specshards.shards.report.statistics import AXES, read_statistics
from specshards.shards.write.build import build
from specshards.shards.write.job_log import RUNS
from specshards.shards.write.reshard import remake
from tests.conftest import make_spectrum
from tests.oracles.report_page import Page, sidecars

HERE = Engine(workers=0)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</style><b>&amp;", "' onload='x()")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 spectra of two surveys: some without class, Teff of stars alone, 7 that cannot be drawn, hostile names."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(180):
        kind = None if i % 11 == 0 else ("STAR", "GALAXY", "QSO")[i % 3]
        labels = {
            "class": kind, "subclass": HOSTILE[i % 4] if i % 5 == 0 else None,
            "z": None if i % 13 == 0 else float(rng.exponential(0.6)) * (i % 3) - 1e-4,
            "teff": float(rng.normal(6000, 900)) if kind == "STAR" else None,
        }  # fmt: skip
        one = make_spectrum(i, rng, n=1200, survey=("sdss", "lamost")[i % 2], labels=labels, release=None)
        one.source_file, one.object_id = f"{HOSTILE[i % 4]}{i}.fits", f"{HOSTILE[i % 4]}{i}"
        if i in (4, 40, 90, 100):
            one.mask[:] = True
        elif i in (7, 8, 9):
            one.wavelength += 20_000
            one.wave_coeff0 = one.wave_coeff1 = None
        made.append(one)
    folder = tmp_path_factory.mktemp("report") / "spectra"
    folder.mkdir()
    for part in range(3):
        write_parquet(to_table(made[60 * part : 60 * part + 60]), folder / f"{part}.parquet", {}, row_group_rows=20)
    return folder


@pytest.fixture(scope="module")
def made(spectra: Path) -> Path:
    """Their data set, with its page, beside them."""
    out = spectra.parent / "shards"
    build(ShardConfig(samples_per_shard=50), spectra, out, engine=HERE)
    return make.write_page(out).parent


@pytest.fixture(scope="module")
def html(made: Path) -> str:
    return (made / "report.html").read_text(encoding="utf-8")


def test_counts_are_those_of_the_sidecars(made: Path, html: str) -> None:
    found = Page(html)
    rows = [(row["survey"], row["class"] or "unlabelled", split) for split, row in sidecars(made)]
    assert len(rows) == 173 and len({kind for _, kind, _ in rows}) == 4
    for label, a, b in (("survey and class", 0, 1), ("split and class", 2, 1), ("survey and split", 0, 2)):
        expected = Counter((row[a], row[b]) for row in rows)
        shown = found.numbers(f"samples by {label}")
        assert {place: n for place, n in shown.items() if n and "all" not in place} == expected
        assert shown["all", "all"] == 173
        for side, names in ((a, {x for x, _ in shown}), (b, {y for _, y in shown})):
            for name in names - {"all"}:
                place = (name, "all") if side == a else ("all", name)
                assert shown[place] == sum(row[side] == name for row in rows)


def test_histograms_are_those_of_the_sidecars(made: Path, html: str) -> None:
    found = Page(html)
    rows = [row for _, row in sidecars(made)]
    for axis in AXES:
        head, below, *bins, above = found.tables[f"objects by {axis.title}, numbers"]
        edges = np.array([float(line[0]) for line in bins] + [float(bins[-1][1])])
        assert 10 <= len(bins) <= 101 and (np.diff(edges) > 0).all()
        assert [line[1] for line in bins[:-1]] == [line[0] for line in bins[1:]]
        steps = np.diff(np.log10(edges)) if axis.log else np.diff(edges)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        total = 0
        for column, name in enumerate(head[2:], 2):
            mine = [row[axis.name] for row in rows if (row["class"] or "unlabelled") == name]
            values = np.array([v for v in mine if v is not None])
            shown = [int(line[column]) for line in bins]
            assert shown == np.histogram(values, edges)[0].tolist()
            beyond = [int(line[column]) for line in (below, above)]
            assert beyond == [(values < edges[0]).sum(), (values > edges[-1]).sum()]
            total += len(values)
        assert f"{total} of 173 objects have one" in html and total == sum(row[axis.name] is not None for row in rows)


def test_quarantine_adds_up_by_reason(made: Path, html: str) -> None:
    rows = pq.read_table(made / "quarantine.parquet").to_pylist()
    shown = Page(html).tables["reasons: quarantine"][1:]
    assert {reason: int(n) for reason, n, _ in shown} == Counter(f"{row['stage']}: {row['reason']}" for row in rows)
    assert len(shown) == 2 and sum(int(n) for _, n, _ in shown) == Manifest.load(made).quarantined == 7
    firsts = {f"{row['file']}, row {row['row']}" for row in rows}
    assert {first for _, _, first in shown} <= firsts


def test_names_are_text_and_nothing_comes_from_elsewhere(made: Path, html: str) -> None:
    found = Page(html)
    tags = Counter(tag for tag, _ in found.tags)
    assert not {"b", "iframe", "link", "object", "embed", "base"} & set(tags) and tags["script"] == tags["style"] == 1
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("href", "src", "xlink:href", "action"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (tag, value[:50])
    policy = next(attributes["content"] for _, attributes in found.tags if "http-equiv" in attributes)
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in policy and "http" not in script
    # The hostile names are there, as text: object ids, files, subclasses.
    text = " ".join(found.text)
    assert all(name in text for name in HOSTILE)


def test_it_is_for_keyboards_narrow_screens_and_the_dark(html: str) -> None:
    tags = Page(html).tags
    for (_, before), (tag, attributes) in pairwise(tags):
        if tag == "pre" or attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]
        elif tag in ("img", "svg"):
            assert (attributes.get("alt") or attributes["aria-label"]).strip()
        elif tag in ("select", "input"):
            assert before == {}  # its label's
    assert {"select", "input", "button", "output"} <= {tag for tag, _ in tags}
    assert ":focus-visible{outline:" in html and "@media(prefers-color-scheme:dark)" in html
    assert ("meta", {"name": "viewport", "content": "width=device-width,initial-scale=1"}) in tags


def test_every_sample_shown_is_a_sample_with_its_labels_and_anchor(made: Path, html: str) -> None:
    found = Page(html)
    rows = {row["key"]: (split, row) for split, row in sidecars(made)}
    articles = [attributes for tag, attributes in found.tags if tag == "article"]
    assert len(articles) == 60 and len({a["id"] for a in articles}) == 60
    links = {attributes["href"] for tag, attributes in found.tags if tag == "a" and "href" in attributes}
    for article in articles:
        split, row = rows[article["id"]]
        assert f"#{article['id']}" in links
        assert (article["data-split"], article["data-survey"]) == (split, row["survey"])
        assert article["data-class"] == (row["class"] or "unlabelled")
        assert article["data-text"] == f"{row['key']} {row['object_id']}".lower()
        text = found.articles[article["id"]]
        assert {row["object_id"], row["source_file"]} <= set(text)
        assert (f"{row['z']:.5f}" in text) if row["z"] is not None else "z" not in text
        assert (f"{row['teff']:.0f} K" in text) if row["teff"] is not None else "Teff" not in text
    # Of every survey, class and split that there is.
    everything = {(row["survey"], row["class"] or "unlabelled", split) for split, row in rows.values()}
    assert {(a["data-survey"], a["data-class"], a["data-split"]) for a in articles} == everything
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if "=" not in link} <= set(ids)


def test_pictures_are_those_that_a_model_sees(made: Path, html: str) -> None:
    manifest = Manifest.load(made)
    encoding = ENCODINGS["png"](renderer(manifest.config.image))
    shown = dict(re.findall(r'<article id="(\d+)".*?src="data:image/png;base64,([^"]+)"', html, re.DOTALL))
    seen = 0
    for record in manifest.shards:
        tar = record.path(made).read_bytes()
        for members in read_index(record.index(made)):
            offset, size, name = members["png"]
            if name[:10] in shown:
                picture = cv2.imdecode(
                    np.frombuffer(base64.b64decode(shown[name[:10]]), np.uint8), cv2.IMREAD_COLOR_RGB
                )
                expected = encoding.drawer.expand(encoding.decode(tar[offset : offset + size]))
                np.testing.assert_array_equal(picture, expected)
                seen += 1
    assert seen == 60


def test_equal_shards_give_equal_pages(spectra: Path, made: Path, html: str, tmp_path: Path) -> None:
    build(ShardConfig(samples_per_shard=50), spectra, tmp_path / "two", engine=HERE)
    shutil.copy(made / ".ledger" / RUNS, tmp_path / "two" / ".ledger" / RUNS)
    assert page(tmp_path / "two", Manifest.load(tmp_path / "two")) == html
    assert all(check.passed and not (check.note and check.name == "strays") for check in verify(made))


def test_spectra_come_from_where_the_ledger_says(spectra: Path, made: Path, html: str, tmp_path: Path) -> None:
    drawn = 'class="middle"'
    assert html.count(drawn) == 60 and "No spectrum here" not in html and "Spectra are not shown" not in html
    # Somewhere else altogether: not there; but in a folder that was moved as a whole, and where it is told.
    shutil.copytree(made, tmp_path / "a" / "shards" / "map2d")
    shutil.copytree(spectra, tmp_path / "elsewhere")
    moved = tmp_path / "a" / "shards" / "map2d"
    line = json.loads((moved / ".ledger" / RUNS).read_text())
    (moved / ".ledger" / RUNS).write_text(json.dumps({**line, "spectra": str(tmp_path / "gone")}) + "\n")
    manifest = Manifest.load(moved)
    text = page(moved, manifest)
    assert f"Spectra are not shown: {tmp_path}/gone is not there." in text and drawn not in text
    assert text.count("<article") == 60 and text.count("No spectrum here") == 60
    assert page(moved, manifest, tmp_path / "elsewhere").count(drawn) == 60
    shutil.move(tmp_path / "elsewhere", tmp_path / "a" / "spectra")
    (source,), faults = find_sources(moved, manifest)
    assert source.spectra.folder == tmp_path / "a" / "spectra" and not faults
    read = {row: block for block in source.blocks([0, 65, 179]) for row in block.rows.tolist()}
    names = pq.read_table(spectra / "1.parquet", columns=["object_id"])["object_id"].to_pylist()
    assert read[65].meta["object_id"][read[65].rows.tolist().index(65)].as_py() == names[5] and {0, 179} <= set(read)
    # Other spectra under the same names are not taken for these.
    table = pq.read_table(spectra / "0.parquet")
    pq.write_table(table.slice(1), tmp_path / "a" / "spectra" / "0.parquet")
    assert find_sources(moved, manifest)[0] == []
    (moved / ".ledger" / RUNS).unlink()
    assert "is not what these shards were made from" in find_sources(moved, manifest)[1][0]
    (moved / ".ledger" / "plan.json").unlink()
    assert "has no ledger that says what the spectra were" in find_sources(moved, manifest)[1][0]


def test_merged_sets_show_the_spectra_of_their_sources(
    made: Path, sets: Callable[[str], Path], tmp_path: Path
) -> None:
    remake([made, sets("png")], tmp_path / "both", engine=HERE)
    manifest = Manifest.load(tmp_path / "both")
    text = page(tmp_path / "both", manifest)
    assert text.count('class="middle"') == 60 and text.count("made from") == 2
    rows = {row["key"]: row for _, row in sidecars(tmp_path / "both")}
    surveys = {rows[key]["survey"] for key in re.findall(r'<article id="(\d+)"', text)}
    assert surveys == {"sdss", "lamost", "mock-lamost"} and manifest.mock and "MOCK data." in text
    with pytest.raises(UsageError, match="leave --spectra out"):
        page(tmp_path / "both", manifest, made)


def test_a_page_that_cannot_be_made_fails_nothing(
    made: Path, html: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "set")
    folder = tmp_path / "set"
    make.make_page(folder)  # the page is there, and of these shards
    assert capsys.readouterr() == ("", "")
    sidecar = next((folder / "train").glob("*.parquet"))
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole[:-100])
    (folder / "report.html").write_text(html.replace(Manifest.load(folder).fingerprint(), "another"))
    make.make_page(folder)
    out, err = capsys.readouterr()
    assert (
        not out and err.count("\n") == 1 and err.startswith(f"warning: no {folder}/report.html: {sidecar}: damaged")
    )
    assert not (folder / "report.html").exists()
    with pytest.raises(JobError, match="damaged Parquet; `specshards shards verify` says more"):
        make.write_page(folder)
    make.make_page("memory://somewhere")
    assert "memory://somewhere: no manifest.json there" in capsys.readouterr().err
    # A sidecar that is whole, but not what the manifest counted.
    pq.write_table(pq.read_table(pa.BufferReader(whole)).slice(1), sidecar)
    with pytest.raises(JobError, match="samples of other classes than the manifest says"):
        make.write_page(folder)
    # A tar that is damaged is shown as such.
    sidecar.write_bytes(whole)
    sidecar.with_suffix(".tar").write_bytes(b"")
    text = make.write_page(folder).read_text(encoding="utf-8")
    assert "No picture: damaged" in text and text.count("<article") == 60


def test_jobs_end_with_a_page_and_reruns_keep_it(spectra: Path, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(command.app, [*map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    (tmp_path / "spectra").mkdir()
    for part in range(3):  # of each file a few: five pages are made of them
        few = pq.read_table(spectra / f"{part}.parquet").slice(0, 8)
        pq.write_table(few, tmp_path / "spectra" / f"{part}.parquet")
    (tmp_path / "spectra" / "2.parquet").rename(tmp_path / "later.parquet")
    job = ("build", "--spectra", tmp_path / "spectra", "--out", tmp_path / "out", "--workers", 0,
           "--max-bad-fraction", 0.2)  # fmt: skip
    where = tmp_path / "out" / "report.html"
    assert str(where) in run(*job) and "16 spectra = " in where.read_text()
    before = where.stat()
    assert "report.html" not in run(*job)
    assert (where.stat().st_mtime_ns, where.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len((tmp_path / "out" / ".ledger" / RUNS).read_text().splitlines()) == 1
    assert str(where) in run("report", tmp_path / "out") and where.stat().st_ino != before.st_ino
    # New spectra are another data set, with a page of its own and two runs on it.
    (tmp_path / "later.parquet").rename(tmp_path / "spectra" / "2.parquet")
    run(*job)
    found = Page(where.read_text())
    assert "24 spectra = " in " ".join(found.text)
    made_by = [(row[1], row[2]) for row in found.tables["runs"][1:]]
    assert [int(objects) for _, objects in made_by] == [16, 8] and made_by[0][0] != made_by[1][0]
    assert str(tmp_path / "copy" / "report.html") in run(
        "reshard", tmp_path / "out", "--out", tmp_path / "copy", "--encoding", "pnm", "--workers", 0
    )
    # A new start takes the old page away first.
    stale = where.read_text()
    run(*job, "--force", "--encoding", "flux")
    assert "flux: the spectrum itself" in where.read_text() and where.read_text() != stale


def dumped(url: str, folder: Path) -> str:
    """The page as Chromium has it when its script has run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--dump-dom", url]
    done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"Chromium does not run here (exit code {done.returncode})")
    return done.stdout.decode()


def test_a_link_filters_the_samples(made: Path, html: str, tmp_path: Path) -> None:
    whole = Page(html)
    samples = [attributes for tag, attributes in whole.tags if tag == "article"]
    assert not any("hidden" in attributes for attributes in samples)  # without a script all are shown
    expected = {a["id"] for a in samples if a["data-class"] == "QSO" and a["data-split"] == "train"}
    assert 0 < len(expected) < 60
    url = (made / "report.html").as_uri()
    found = Page(dumped(f"{url}#class=QSO&split=train", tmp_path / "a"))
    shown = {a["id"] for tag, a in found.tags if tag == "article" and "hidden" not in a}
    assert shown == expected and f"{len(expected)} of 60 samples shown" in " ".join(found.text)
    assert not any("hidden" in attributes for tag, attributes in found.tags if tag == "form")
    # Part of a key or an id; and a fragment that is no filter shows all.
    key = samples[0]["id"]
    found = Page(dumped(f"{url}#text={key[-5:]}&class=%3Cscript%3E", tmp_path / "b"))
    shown = {a["id"] for tag, a in found.tags if tag == "article" and "hidden" not in a}
    assert shown == {a["id"] for a in samples if key[-5:] in a["data-text"]} and key in shown


def test_the_sky_is_counted_and_drawn_where_it_is(made: Path) -> None:
    statistics = read_statistics(made, Manifest.load(made), 5, 5)
    ra, dec = np.array([(row["ra"], row["dec"]) for _, row in sidecars(made)]).T
    cells = healpix_29(ra, dec) >> 48
    np.testing.assert_array_equal(statistics.sky, np.bincount(cells, minlength=12_288))
    assert len(statistics.gallery) == len(statistics.random) == 5
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(-180, 180, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500)))
    x, y = plots.mollweide(lon, lat)
    theirs = MollweideAxes.MollweideTransform(60).transform(np.radians(np.column_stack([lon, lat])))
    np.testing.assert_allclose(np.column_stack([x, y]) * np.sqrt(2), theirs, atol=2e-3)  # theirs stops there
    np.testing.assert_allclose(np.stack(plots.sky_position(x, y)), [lon, lat], atol=1e-4)
    assert np.isnan(plots.sky_position(np.array([1.9]), np.array([0.9]))).all()
