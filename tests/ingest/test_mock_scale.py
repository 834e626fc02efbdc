"""The mock survey at scale: noise that ivar states, labels that are true, the same bytes however it is written."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.mock import MockConfig, instrument, physics, plan
from specshards.ingest.mock.command import command
from specshards.ingest.mock.instrument import LSF_KMS, SITE_FIRST
from specshards.ingest.mock.lines import H_ALPHA
from specshards.ingest.mock.objects import observe, source
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.counter_random import normals, stream_key
from specshards.ingest.mock.scale.draws import ROW, shares
from specshards.ingest.mock.scale.job import bank_of, plan_rows, row_groups, truth, write_parquet_survey
from specshards.ingest.mock.scale.kernels import MAX_SIZE, Buffers, expose, median, site_arrays
from specshards.ingest.mock.scale.templates import KINDS, PIXELS, REDSHIFTS
from specshards.ingest.spectra import schema
from specshards.ingest.surveys import SURVEYS as _REGISTERED

SURVEYS = ("lamost", "sdss")
HERE = Engine(workers=0)
Planned = tuple[ScaleConfig, Any, Any]


def small(survey: str, n: int = 600, **changes: Any) -> ScaleConfig:
    """A config of a small bank and small parts."""
    return ScaleConfig(
        survey, **{"n": n, "seed": 3, "templates": 48, "part_rows": 256, "row_group_rows": 64, **changes}
    )


@pytest.fixture(scope="module", params=SURVEYS)
def planned(request: pytest.FixtureRequest) -> Planned:
    """A config, its bank, and the plan of 20,000 rows."""
    config = small(request.param, n=20_000)
    bank = bank_of(config, None)
    return config, bank, plan_rows(config, bank, 0, config.n)


def exposed(config: ScaleConfig, bank: Any, rows: Any) -> list[dict[str, Any]]:
    """Flux, ivar, mask, wave and truth of each row, one kernel call a row."""
    found = []
    for i in range(len(rows)):
        one, scratch = rows[i : i + 1], np.empty(MAX_SIZE, np.float32)
        n = int(one["size"][0])
        out = Buffers.make(n, 1)
        expose(config.seed, SURVEYS.index(config.survey), one, bank, site_arrays(config.survey), out, scratch)
        found.append({**out._asdict(), "truth": scratch[:n].copy(), "good": ~out.mask & (out.ivar > 0)})
    return found


def gaussian_cdf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x])


def distance(values: np.ndarray[Any, Any]) -> float:
    """Kolmogorov's distance to the standard normal distribution, times sqrt(n): above 1.95 once in a thousand."""
    ordered = np.sort(values)
    steps = np.arange(len(ordered)) / len(ordered)
    return float(np.abs(gaussian_cdf(ordered) - steps - 0.5 / len(ordered)).max() * math.sqrt(len(ordered)))


def same_distribution(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    """The quantiles of `theirs` are quantiles of `ours` too; compared in rank, where quantiles have no scale."""
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        error = 4.0 * math.sqrt(q * (1 - q) * (1 / len(theirs) + 1 / len(ours)))
        assert (ours < np.quantile(theirs, q)).mean() == pytest.approx(q, abs=error + 1 / len(theirs))


def test_normal_numbers() -> None:
    """Moments, tails and shape of a normal distribution; streams that know nothing of each other."""
    x = np.empty(2_000_000, np.float32)
    normals(stream_key(1, 0, 4, 77), x)
    assert abs(x.mean(dtype=float)) < 0.003 and abs(x.var(dtype=float) - 1) < 0.004
    assert abs((x.astype(float) ** 4).mean() - 3) < 0.03
    for limit, tolerance in ((1.0, 0.004), (3.0, 0.05), (3.7, 0.2)):  # 3.65 is where the ziggurat's tail begins
        assert (np.abs(x) > limit).mean() == pytest.approx(math.erfc(limit / math.sqrt(2.0)), rel=tolerance)
    assert distance(x[:100_000]) < 1.95
    keys = {
        int(stream_key(*args)) for args in ((1, 0, 4, 77), (2, 0, 4, 77), (1, 1, 4, 77), (1, 0, 5, 77), (1, 0, 4, 78))
    }
    assert len(keys) == 5
    other = np.empty(100_000, np.float32)
    normals(stream_key(1, 0, 4, 78), other)
    assert abs(np.corrcoef(x[:100_000], other)[0, 1]) < 0.013
    assert abs(np.corrcoef(x[1:100_000], x[: 100_000 - 1])[0, 1]) < 0.013


@pytest.mark.parametrize("n", [1, 2, 3, 10, 558, 3909])
def test_median_is_numpys(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    values[: n // 3] = values[0]  # ties
    assert median(values.copy()) == np.median(values)


def test_noise_is_what_ivar_states(planned: Planned) -> None:
    """(flux - truth) sqrt(ivar) is standard normal over the good pixels, in every class and along the spectrum."""
    config, bank, rows = planned
    pulls, edges = [], []
    for spectrum in exposed(config, bank, rows[:120]):
        pull = (spectrum["flux"].astype(float) - spectrum["truth"]) * np.sqrt(spectrum["ivar"].astype(float))
        assert spectrum["good"].mean() > 0.7 and np.isfinite(spectrum["flux"]).all()
        assert not spectrum["mask"][spectrum["ivar"] > 0].all() and spectrum["mask"][spectrum["ivar"] == 0].all()
        hit = spectrum["mask"] & (spectrum["ivar"] > 0) & (np.abs(pull) > 7)
        edges.append(hit.sum())
        pulls.append(pull[spectrum["good"]])
    x = np.concatenate(pulls)
    assert abs(x.mean()) < 4 / math.sqrt(len(x)) and abs(x.std() - 1) < 4 / math.sqrt(2 * len(x))
    assert distance(x) < 1.95
    assert np.abs(x).max() < 6.5  # no cosmic ray is left unmasked
    assert sum(edges) > 50  # and masked ones are there
    assert abs(np.mean([np.mean(p[1:] * p[:-1]) for p in pulls])) < 0.01
    assert max(abs(p.std() - 1) for p in pulls) < 0.06


def test_truth_is_the_physics(planned: Planned) -> None:
    """A row's noiseless flux is that of its own parameters at its z, with dust and calibration: labels are exact."""
    config, _, rows = planned
    checked = {kind: 0 for kind in KINDS}
    for row in rows[:80]:
        known = truth(config, int(row["row"]))
        lsf, wave, model = LSF_KMS[config.survey], known.wave, known.model
        if isinstance(model, physics.Star):
            assert (known.teff, known.logg, known.feh) == (model.teff, model.logg, model.feh)
            flux = physics.star_flux(model, known.z, wave, lsf)
        elif isinstance(model, physics.Galaxy):
            flux = physics.galaxy_flux(model, known.z, wave, lsf)
        else:
            flux = physics.quasar_flux(model, known.z, wave, lsf)
        x = (wave - 6500.0) / 3000.0
        bump = row["bump"] * np.exp(-0.5 * ((wave - 5930.0) / 60.0) ** 2)
        flux *= physics.extinction(wave, known.ebv) * np.exp(row["tilt"] * x + row["bend"] * x**2 + bump)
        free = wave > (1220.0 * (1 + known.z) if known.class_ == "QSO" else 0.0)  # each has its own forest
        ratio = known.flux[free] / flux[free]
        assert np.abs(ratio / np.median(ratio) - 1).max() < 0.05
        assert np.std(ratio / np.median(ratio)) < 0.004
        checked[known.class_] += 1
    assert min(checked.values()) >= 5


def test_forest_has_its_mean_depth_and_stays_with_the_object(planned: Planned) -> None:
    """Transmission blue of Lyman alpha agrees on average with the FITS mock's; two visits see the same clouds."""
    config, bank, rows = planned
    quasars = rows[(rows["kind"] == 2) & (rows["z"] > 2.8)][:40].copy()
    assert len(quasars) == 40
    ours, theirs = [], []
    for i in range(len(quasars)):
        quasars[i]["tilt"] = quasars[i]["bend"] = quasars[i]["bump"] = quasars[i]["ebv"] = 0.0
    for row, spectrum in zip(quasars, exposed(config, bank, quasars), strict=True):
        known, rest = truth(config, int(row["row"])), spectrum["wave"] / (1 + row["z"])
        assert isinstance(known.model, physics.Quasar)
        inside = (rest > 1050) & (rest < 1180)
        red = (rest > 1250) & (rest < 1600)
        bare = physics.quasar_flux(known.model, 0.0, rest.astype(float), LSF_KMS[config.survey])
        ours.append(np.mean(spectrum["truth"][inside] / bare[inside]) / np.median(spectrum["truth"][red] / bare[red]))
        theirs.append(physics.forest(float(row["z"]), int(row["row"]), known.wave)[inside].mean())
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.025)
    again = quasars[:1].copy()
    again["row"] += 1  # another visit: other noise
    one, two = exposed(config, bank, quasars[:1])[0], exposed(config, bank, again)[0]
    np.testing.assert_array_equal(one["truth"], two["truth"])
    assert not np.array_equal(one["flux"], two["flux"])


def test_redshift_can_be_read_off_the_lines(planned: Planned) -> None:
    """H-alpha of star-forming galaxies and C IV of quasars stand where the label puts them, in the noisy flux."""
    config, bank, rows = planned
    galaxies = quasars = 0
    bright = rows[(rows["sn"] > 12) & (rows["kind"] > 0)][:400]
    for row in bright:
        known = truth(config, int(row["row"]))
        galaxy = known.subclass in ("STARFORMING", "STARBURST") and galaxies < 6
        if galaxy and known.model.halpha_width > 15 and H_ALPHA * (1 + known.z) < 8600:  # type: ignore[union-attr]
            spectrum = exposed(config, bank, np.array([row], ROW))[0]
            near = np.abs(spectrum["wave"] / H_ALPHA / (1 + known.z) - 1) < 1.5e-3
            if spectrum["good"][near].all():
                peak = spectrum["wave"][near][np.argmax(spectrum["flux"][near])]
                assert abs(peak / H_ALPHA / (1 + known.z) - 1) < 1.5 * 2.4e-4
                galaxies += 1
        elif known.class_ == "QSO" and 1.7 < known.z < 3.5 and quasars < 6:
            spectrum = exposed(config, bank, np.array([row], ROW))[0]
            rest = spectrum["wave"] / (1 + known.z)
            wide = (rest > 1450) & (rest < 1680) & spectrum["good"]
            continuum = np.interp(
                rest, [1465, 1690], [np.median(spectrum["flux"][np.abs(rest - at) < 12]) for at in (1465, 1690)]
            )
            excess = np.clip(spectrum["flux"] - continuum, 0.0, None)[wide & (np.abs(rest - 1549) < 40)]
            centre = np.average(rest[wide & (np.abs(rest - 1549) < 40)], weights=excess)
            assert abs(centre - 1549.06) < 6.0
            quasars += 1
    assert galaxies >= 3 and quasars >= 3


def test_distributions_are_those_of_the_fits_mock(planned: Planned) -> None:
    """Class shares, quantiles of z, dust and of the measured median S/N."""
    config, bank, rows = planned
    twin = MockConfig(config.survey, n_files=3000, seed=8, damaged_fraction=0.0)
    entries = [entry for entry in plan(twin) if entry.kind != "SKY"]
    sources = [source(twin, entry) for entry in entries]
    for kind, name in enumerate(KINDS):
        theirs = np.array([s.z for s in sources if s.kind == name])
        ours = rows["z"][rows["kind"] == kind]
        assert len(ours) / len(rows) == pytest.approx(len(theirs) / len(sources), abs=0.015)
        same_distribution(ours, theirs)
    for name in ("ra", "dec", "ebv"):
        same_distribution(rows[name], np.array([getattr(s, name) for s in sources]))
    exposures = [observe(twin, entry).exposure for entry in entries[:250]]
    theirs = np.array([instrument.median_sn(e.flux, np.where(e.hit, 0.0, e.ivar)) for e in exposures])
    ours = np.concatenate([spectrum["sn_median"] for spectrum in exposed(config, bank, rows[:1500])])
    same_distribution(ours, theirs)
    assert set(np.unique(rows["size"])) <= {int(n) for n in range(3800, 4601)}
    lengths = {e.flux.size for e in exposures}
    assert min(lengths) >= rows["size"].min() and max(lengths) <= rows["size"].max()


def test_repeat_visits(planned: Planned) -> None:
    """A tenth of the objects come back: the same truth and place within 0.5 arcsec, another row and another noise."""
    config, bank, rows = planned
    again = rows[rows["object"] != rows["row"]]
    firsts = rows[again["object"]]
    assert len(again) / (len(rows) - len(again)) == pytest.approx(config.repeat_fraction, abs=0.012)
    assert (firsts["object"] == firsts["row"]).all() and (again["object"] < again["row"]).all()
    for name in ("kind", "template", "z", "ebv"):
        np.testing.assert_array_equal(again[name], firsts[name])
    east = (again["ra"] - firsts["ra"] + 180.0) % 360.0 - 180.0
    arcsec = 3600 * np.hypot(east * np.cos(np.deg2rad(again["dec"])), again["dec"] - firsts["dec"])
    assert arcsec.min() > 0 and arcsec.max() < 0.5
    others = rows[rows["object"] == rows["row"]]
    assert len(np.unique(others["ra"])) == len(others)
    two = exposed(config, bank, np.array([firsts[0], again[0]], ROW))
    assert not np.array_equal(two[0]["flux"][:100], two[1]["flux"][:100])


@pytest.mark.parametrize("survey", SURVEYS)
def test_templates_reach_every_redshift_on_every_grid(survey: str) -> None:
    """At the ends of the redshift range and of the widest grid no pixel comes from beside the template."""
    config = small(survey)
    bank = bank_of(config, None)
    first, last = PIXELS[survey]
    for kind in range(3):
        for z in REDSHIFTS[kind]:
            for begin, size in ((first, last - first - 25 * (survey == "sdss")), (last - 3800, 3800)):
                place = (begin * 1e-4 - np.log10(1 + z) - bank.log0[kind]) / 1e-4 * bank.fineness[kind]
                assert place >= 0 and int(place) + bank.fineness[kind] * size + 1 <= bank.size[kind]
    assert bank.start[2] + bank.number[2] * bank.size[2] == len(bank.flux) and not bank.flux.flags.writeable
    assert shares(survey, 0.1).galaxy_z[0] == 0.01 and shares(survey, 0.1).quasar_z[-1] == pytest.approx(4.0)
    assert last + 8 < SITE_FIRST + len(site_arrays(survey).wave)


def test_rows_follow_the_schema(planned: Planned) -> None:
    """The same table that `ingest.spectra.schema.to_table` makes of the same spectra, one object at a time."""
    config, bank, rows = planned
    rows, spectra = rows[:70], []
    table = pa.concat_tables(row_groups(config, bank, rows))
    for row, seen in zip(rows, exposed(config, bank, rows), strict=True):
        known = truth(config, int(row["row"]))
        star = known.class_ == "STAR"
        labels = {name: getattr(known, name) for name in ("teff", "logg", "feh")} if star else {}
        if config.survey == "sdss":
            labels["zwarning"] = 0
        spectra.append(schema.Spectrum(
            f"mock-{config.survey}-{known.row:09d}", f"mock-{config.survey}", "mock", known.ra, known.dec,
            seen["flux"], seen["ivar"], seen["wave"], seen["mask"], "mock-parquet", "mock",
            row["first"] / 10000, 1e-4, "truth",
            {"class": known.class_, "subclass": known.subclass or None, "z": known.z, **labels},
            flux_unit=_REGISTERED[config.survey].flux_unit,
        ))  # fmt: skip
    expected = schema.to_table(spectra)
    assert table.schema.equals(schema.SCHEMA) and table.num_rows == 70
    for name in schema.SCHEMA.names:
        assert table[name].to_pylist() == expected[name].to_pylist(), name
    wave = np.array(table["spectrum"][0]["lambda"].as_py())
    np.testing.assert_allclose(wave, truth(config, 0).wave, rtol=1e-7)


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((out / "spectra").iterdir())}


def test_same_bytes_for_any_workers_and_a_longer_survey_begins_with_a_shorter_one(tmp_path: Path) -> None:
    """Two processes or none; grown in place or written at once; another seed shares nothing."""
    config = small("lamost")
    summary = write_parquet_survey(config, tmp_path / "here", engine=HERE)
    write_parquet_survey(config, tmp_path / "there", engine=Engine(workers=2))
    short = digests(tmp_path / "here")
    assert list(short) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert short == digests(tmp_path / "there")
    assert not list((tmp_path / "there" / "ingest").glob("*.npy"))
    assert json.loads((tmp_path / "here/ingest/summary.json").read_text())["samples"] == summary.samples == 600
    assert sum(n for n, _ in summary.counts.values()) == 600 and 500 < summary.objects < 600

    kept = {name: (tmp_path / "here/spectra" / name).stat().st_mtime_ns for name in short}
    write_parquet_survey(replace(config, n=900), tmp_path / "here", engine=HERE)  # the same survey may grow
    grown = digests(tmp_path / "here")
    changed = {name for name in kept if (tmp_path / "here/spectra" / name).stat().st_mtime_ns != kept[name]}
    assert changed == {"part-00002.parquet"} and len(grown) == 4
    write_parquet_survey(replace(config, n=900), tmp_path / "once", engine=HERE)
    assert grown == digests(tmp_path / "once")
    whole, before = (pq.read_table(tmp_path / name / "spectra") for name in ("here", "there"))
    assert whole.slice(0, 600).equals(before) and len(set(whole["object_id"].to_pylist())) == 900
    write_parquet_survey(replace(config, seed=4, n=256), tmp_path / "other", engine=HERE)
    other = pq.read_table(tmp_path / "other" / "spectra")
    assert not set(other["ra"].to_pylist()) & set(whole["ra"].to_pylist())


def test_resume_refuse_and_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged and missing parts are made anew, others kept; another survey is refused in one line unless forced."""
    config = small("sdss", n=150, part_rows=64)
    write_parquet_survey(config, tmp_path, engine=HERE)
    before = digests(tmp_path)
    paths = sorted((tmp_path / "spectra").iterdir())
    assert pq.ParquetFile(paths[0]).metadata.num_row_groups == 1
    stamp = paths[0].stat().st_mtime_ns
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    paths[2].unlink()
    capsys.readouterr()
    write_parquet_survey(config, tmp_path, engine=HERE)
    assert "resuming: 1 of 3 parts are done already" in capsys.readouterr().out
    assert digests(tmp_path) == before and paths[0].stat().st_mtime_ns == stamp
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".npy")]

    for other, told in ((replace(config, seed=5), "seed: 3 -> 5"), (replace(config, n=100), "n: 150 -> 100")):
        with pytest.raises(UsageError, match=told) as error:
            write_parquet_survey(other, tmp_path, engine=HERE)
        assert "\n" not in str(error.value) and digests(tmp_path) == before
    write_parquet_survey(replace(config, seed=5, n=100), tmp_path, engine=HERE, force=True)
    after = digests(tmp_path)
    assert len(after) == 2 and not set(after.values()) & set(before.values())

    foreign = tmp_path / "foreign"
    (foreign / "spectra").mkdir(parents=True)
    (foreign / "spectra" / "part-00000.parquet").write_bytes(b"not ours")
    with pytest.raises(UsageError, match="unknown origin"):
        write_parquet_survey(config, foreign, engine=HERE)
    assert (foreign / "spectra" / "part-00000.parquet").read_bytes() == b"not ours"


def test_shards_are_built_from_it(tmp_path: Path) -> None:
    """The next room takes the folder as it is: every spectrum drawn, mock by name, repeats on one side of a split."""
    from specshards.shards.format.manifest import ShardConfig
    from specshards.shards.write.build import build

    config = small("lamost", n=300, repeat_fraction=0.3)
    write_parquet_survey(config, tmp_path / "mock", engine=HERE)
    manifest = build(
        ShardConfig(samples_per_shard=100), tmp_path / "mock" / "spectra", tmp_path / "shards", engine=HERE
    )
    assert manifest.mock and manifest.samples() == 300 and manifest.quarantined == 0
    names = sorted((tmp_path / "shards").glob("*/*-*.parquet"))
    sides: dict[int, set[str]] = {}
    rows = plan_rows(config, bank_of(config, None), 0, config.n)
    for name in names:
        for identifier in pq.read_table(name)["object_id"].to_pylist():
            sides.setdefault(int(rows["object"][int(identifier[-9:])]), set()).add(name.parent.name)
    assert len(sides) < 270 and all(len(splits) == 1 for splits in sides.values())


@pytest.mark.parametrize(
    "wrong",
    [{"survey": "desi"}, {"n": 0}, {"seed": -1}, {"repeat_fraction": 0.9}, {"templates": 1}, {"part_rows": 0}],
)
def test_config_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        ScaleConfig(**{"survey": "lamost", **wrong})
    assert "\n" not in str(error.value)
    with pytest.raises(IndexError):
        truth(small("lamost"), 600)


def test_command(tmp_path: Path) -> None:
    """Both forms from the command line, and the one line for a wrong one."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    run = CliRunner().invoke
    parquet = run(app, ["200", "--out", str(tmp_path / "p"), "--survey", "sdss", "--workers", "0"])
    assert parquet.exit_code == 0, parquet.output
    assert "QSO" in parquet.output and "objects/s" in parquet.output and "MOCK data" in parquet.output
    assert pq.read_metadata(tmp_path / "p/spectra/part-00000.parquet").num_rows == 200
    fits = run(app, ["20", "--out", str(tmp_path / "f"), "--as", "fits", "--workers", "0"])
    assert fits.exit_code == 0, fits.output
    assert len(list((tmp_path / "f").rglob("*.fits*"))) == 20 and "total" in fits.output
    for arguments in (["5", "--as", "csv"], ["0"], ["0", "--as", "fits"], ["5", "--survey", "desi"]):
        wrong = run(app, [*arguments, "--out", str(tmp_path / "w")])
        assert isinstance(wrong.exception, UsageError) and not (tmp_path / "w").exists()
