"""The mock survey at scale: spectra Parquet with known truth, thousands of objects a second and core.

    write_parquet_survey(ScaleConfig("lamost", n=1_000_000), Path("data/mock"))

writes `spectra/part-*.parquet` in the schema of `ingest.spectra.schema`, and the job's account in `ingest/`. A row
depends on (survey, seed, row number) alone: a longer survey begins with the parts of a shorter one, and any number of
workers writes the same bytes.

What is in it: the stars, galaxies and quasars of `ingest.mock.physics` (line strengths that follow Teff, log g and
[Fe/H]; old and young populations and emission lines; power laws, broad lines, a Lyman forest), drawn from a bank of
`templates` of them and shifted to the object's redshift; dust; each survey's grids, resolution, throughput, sky and
calibration errors; photon and read noise that `ivar` states; bad columns, cosmic rays, lost edges; second visits.

What is not: model atmospheres, rotation, binaries, white dwarfs, broad absorption lines, damped absorbers, blends,
host galaxies of quasars, cosmology (z and S/N are independent of each other), correlated noise, sky residuals, damage
of any kind (the FITS mock has it), errors in labels: every label is the truth. Stars have the parameters of one of
`templates` templates, exactly; a model can learn that there are no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import UsageError, make_folder, naming
from specshards.common.files import write_text
from specshards.common.folder import Folder, Ledger
from specshards.common.jobs import Engine
from specshards.common.json import digest, fits, parse
from specshards.common.messages import LOGGER
from specshards.ingest.mock.instrument import LOG_STEP, grid
from specshards.ingest.mock.lines import Array
from specshards.ingest.mock.objects import SURVEYS
from specshards.ingest.mock.physics import Galaxy, Quasar, Star
from specshards.ingest.mock.scale import templates
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.draws import ROW, draw_rows, shares
from specshards.ingest.mock.scale.kernels import MAX_SIZE, Buffers, Floats, expose, site_arrays
from specshards.ingest.mock.scale.table import to_table
from specshards.ingest.seal import digest_of, is_intact
from specshards.ingest.spectra.ended import SUMMARY, WORK
from specshards.ingest.spectra.schema import PROGRAM_VERSION, SCHEMA_VERSION, spectra_writer

VERSION = 1
"""Raised whenever the same config would give other spectra."""

_WHAT = "specshards mock survey, not observations"

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class RowTruth:
    """What is known about one spectrum.

    `object` is the row that shows the same object first; `class_` STAR, GALAXY or QSO, `subclass` "" for none; `teff`
    K, `logg` and `feh` dex, NaN unless a star; `ra`, `dec` degrees of this visit; `ebv` mag; `wave` float64 `(N,)`
    vacuum Angstrom; `flux` float32 `(N,)` noiseless, in the unit and scale of the row's flux, with dust and the
    calibration's error in it; `model` the parameters of its template.
    """

    row: int
    object: int
    class_: str
    subclass: str
    z: float
    teff: float
    logg: float
    feh: float
    ra: float
    dec: float
    ebv: float
    wave: Array
    flux: Floats
    model: Star | Galaxy | Quasar


@dataclass(frozen=True)
class ScalePartResult:
    """What one part came to; also its ledger record. `counts`: class -> (spectra, objects first seen in the part)."""

    part: int
    fingerprint: str
    rows: int
    file_bytes: int
    counts: dict[str, tuple[int, int]]
    digest: str = ""

    @property
    def number(self) -> int:
        """The part."""
        return self.part


@dataclass(frozen=True)
class ScaleSummary:
    """The whole survey's account. `counts`: class -> (spectra, objects)."""

    what: str
    survey: str
    samples: int
    objects: int
    parts: int
    file_bytes: int
    counts: dict[str, tuple[int, int]]

    def table(self) -> str:
        """A plain-text table by class."""
        return class_table(self.counts)


def class_table(counts: Mapping[str, tuple[int, int]]) -> str:
    """A plain-text table of class -> (spectra, objects)."""
    spectra, objects = (sum(column) for column in zip(*counts.values(), strict=True))
    lines = [f"{'class':<8}{'spectra':>14}{'share':>9}{'objects':>14}"]
    for name, (seen, distinct) in {**counts, "total": (spectra, objects)}.items():
        lines.append(f"{name:<8}{seen:>14,}{seen / spectra:>9.1%}{distinct:>14,}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Task:
    """One part; see `common.folder.Task`."""

    number: int
    config: ScaleConfig
    size: int
    bank: str | None
    out: str

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.config, self.size)

    @property
    def spectra(self) -> Path:
        return Path(self.out) / "spectra" / f"part-{self.number:05d}.parquet"

    @property
    def record(self) -> Path:
        return Path(self.out) / "ingest" / f"part-{self.number:05d}.json"

    def loads(self, text: str) -> ScalePartResult:
        content = parse(text)
        fits(content, ScalePartResult)
        return ScalePartResult(**content)

    def is_whole(self, record: ScalePartResult) -> bool:
        is_there = self.spectra.is_file() and self.spectra.stat().st_size == record.file_bytes
        return is_there and is_intact(self.spectra, record.digest)


def write_parquet_survey(
    config: ScaleConfig, out: Path, *, engine: Engine | None = None, force: bool = False
) -> ScaleSummary:
    """Write the mock survey's spectra to `out/spectra/part-*.parquet`.

    Beside them go `out/ingest/config.json`, `summary.json` and one ledger record a part; a rerun keeps each part
    whose record and size still match. `shards build --spectra out/spectra` takes it from there. Memory does not grow
    with `config.n`.

    Args:
        engine: where parts are made; the workers of one machine share one copy of the template bank.
        force: replace what an earlier run with another configuration left in `out`.

    Raises:
        UsageError: `out` holds something else. JobError: the environment failed. OSError: disk full, no permission.
    """
    engine = engine or Engine()
    if config.parts == 1 and engine.scheduler is None:
        engine = Engine(workers=0)  # done before a second process would have started
    folder = Folder(out, "ingest/config.json", "ingest/lock", "spectra", "--force to replace them", WORK)
    with folder.locked():
        _claim(folder, config, force)
        return _write_parts(config, out, engine)


def _claim(folder: Folder, config: ScaleConfig, force: bool) -> None:
    """Record what the folder is made from; refuse to mix it with something else. The same survey may grow."""
    asked = {"what": _WHAT, "as": "parquet", "version": VERSION, **asdict(config)}
    spectra = folder.out / "spectra"
    if not force:
        before = folder.claimed()
        if before is None and any(spectra.glob("*.parquet")):
            raise UsageError(f"{spectra}: holds Parquet of unknown origin; choose another OUT, or --force")
        n = config.n if before is None else min(config.n, before.get("n", config.n))
        folder.is_foreign({**asked, "n": n}, force)
    make_folder(spectra)
    folder.sweep("ingest", "spectra")
    (folder.out / SUMMARY).unlink(missing_ok=True)  # until the job has ended
    folder.write_claim(asked)


def _write_parts(config: ScaleConfig, out: Path, engine: Engine) -> ScaleSummary:
    bank = out / "ingest" / f"templates-{_fingerprint(config, 0)[:16]}.npy"
    tasks = _tasks(config, out, bank if engine.workers > 0 else None)
    _drop_stale(tasks, out, bank)
    books: Ledger[_Task, ScalePartResult] = Ledger(tasks, "parts")
    if books.todo and engine.workers > 0:
        LOGGER.info(f"making {2 * config.templates:,} templates")
        with naming(bank):
            templates.on_disk(bank, config.survey, config.seed, config.templates)
        _truth(config, bank_of(config, str(bank)), 0)  # compiles the kernels once, into every worker's cache
    results = books.run(write_part, engine, describe=f"mock {config.survey}", unit="object")
    bank.unlink(missing_ok=True)
    summary = _summarise(config, results)
    write_text(out / SUMMARY, json.dumps(asdict(summary), indent=1) + "\n")
    return summary


def truth(config: ScaleConfig, row: int) -> RowTruth:
    """The truth behind spectrum `row` (0 ... n - 1); the first call computes the template bank (seconds).

    Raises IndexError for a row outside.
    """
    if not 0 <= row < config.n:
        raise IndexError(f"the mock survey has rows 0 to {config.n - 1}, not {row}")
    return _truth(config, bank_of(config, None), row)


def _truth(config: ScaleConfig, bank: templates.Bank, row: int) -> RowTruth:
    rows = plan_rows(config, bank, row, 1)
    flux = _observe(config, bank, rows)[1][: rows["size"][0]].copy()
    kind, template = int(rows["kind"][0]), int(rows["template"][0])
    models = templates.models(config.survey, config.seed, config.templates)
    model: Star | Galaxy | Quasar = (models.star, models.galaxy, models.quasar)[kind][template]
    star = model if isinstance(model, Star) else Star(float("nan"), float("nan"), float("nan"))
    z, ra, dec, ebv = (float(rows[name][0]) for name in ("z", "ra", "dec", "ebv"))
    return RowTruth(
        row, int(rows["object"][0]), templates.KINDS[kind], models.subclass[kind][template], z, star.teff, star.logg,
        star.feh, ra, dec, ebv, grid(rows["first"][0] * LOG_STEP, int(rows["size"][0])), flux, model,
    )  # fmt: skip


def bank_of(config: ScaleConfig, path: str | None) -> templates.Bank:
    """The template bank: mapped from `path`, or computed in this process."""
    if path is None:
        return templates.in_memory(config.survey, config.seed, config.templates)
    return templates.opened(path, config.survey, config.templates)


def plan_rows(config: ScaleConfig, bank: templates.Bank, first: int, count: int) -> Rows:
    """What rows `first` to `first + count - 1` show: an array of `draws.ROW` `(count,)`."""
    rows = np.empty(count, ROW)
    draw_rows(config.seed, shares(config.survey, config.repeat_fraction), bank, first, rows)
    return rows


def row_groups(config: ScaleConfig, bank: templates.Bank, rows: Rows) -> Iterator[pa.Table]:
    """The `rows` of `plan_rows` as Arrow tables of `ingest.spectra.schema.SCHEMA`, one row group at a time."""
    models = templates.models(config.survey, config.seed, config.templates)
    for begin in range(0, len(rows), config.row_group_rows):
        part = rows[begin : begin + config.row_group_rows]
        yield to_table(config.survey, part, _observe(config, bank, part)[0], models)


def _observe(config: ScaleConfig, bank: templates.Bank, rows: Rows) -> tuple[Buffers, Floats]:
    out, scratch = Buffers.make(int(rows["size"].sum()), len(rows)), np.empty(MAX_SIZE, np.float32)
    expose(config.seed, SURVEYS.index(config.survey), rows, bank, site_arrays(config.survey), out, scratch)
    return out, scratch


def write_part(task: _Task) -> ScalePartResult:
    """Make the rows of one part, write its Parquet file, then its ledger record."""
    config, path = task.config, task.spectra
    bank = bank_of(config, task.bank)
    rows = plan_rows(config, bank, task.number * config.part_rows, task.size)
    with naming(path), spectra_writer(path, {"mock": _WHAT, **config.without_n()}) as writer:
        for group in row_groups(config, bank, rows):
            writer.write_table(group, row_group_size=config.row_group_rows)
    new = rows["object"] == rows["row"]
    counts = {
        name: (int(np.sum(rows["kind"] == kind)), int(np.sum((rows["kind"] == kind) & new)))
        for kind, name in enumerate(templates.KINDS)
    }
    result = ScalePartResult(task.number, task.fingerprint, task.size, path.stat().st_size, counts, digest_of(path))
    write_text(task.record, json.dumps(asdict(result), indent=1) + "\n")
    return result


def _fingerprint(config: ScaleConfig, rows: int) -> str:
    content = [VERSION, SCHEMA_VERSION, PROGRAM_VERSION, config.without_n(), rows]
    return digest(content)


def _tasks(config: ScaleConfig, out: Path, bank: Path | None) -> list[_Task]:
    path, last = None if bank is None else str(bank), config.parts - 1
    tasks = [_Task(part, config, config.part_rows, path, str(out)) for part in range(last)]
    return [*tasks, _Task(last, config, config.n - last * config.part_rows, path, str(out))]


def _drop_stale(tasks: Sequence[_Task], out: Path, bank: Path) -> None:
    # Parts past the end belong to an earlier, larger survey; other template banks to one that was interrupted.
    expected = {bank, *(path for task in tasks for path in (task.spectra, task.record))}
    for pattern in ("spectra/part-*.parquet", "ingest/part-*.json", "ingest/templates-*.npy"):
        for path in out.glob(pattern):
            if path not in expected:
                path.unlink()


def _summarise(config: ScaleConfig, results: list[ScalePartResult]) -> ScaleSummary:
    counts = {
        name: (sum(r.counts[name][0] for r in results), sum(r.counts[name][1] for r in results))
        for name in templates.KINDS
    }
    return ScaleSummary(
        _WHAT, f"mock-{config.survey}", sum(r.rows for r in results), sum(n for _, n in counts.values()),
        len(results), sum(r.file_bytes for r in results), counts,
    )  # fmt: skip
