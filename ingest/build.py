"""The ingest job: survey files in, `spectra/part-*.parquet` out, every file accounted for.

Files are taken in a seeded random order, cut into parts, and each part is one pure task: read its files, write one
Parquet file, then one ledger record. A rerun keeps every part whose record still matches its input files.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest import catalog
from ingest.errors import BadObjectError, JobError, UsageError, make_folder, naming
from ingest.files import replacing, write_text
from ingest.jobs import Engine, run_tasks
from ingest.schema import PROGRAM_VERSION, SCHEMA_VERSION, Spectrum, to_table, write_parquet
from ingest.surveys import SUFFIXES, read_file, reader

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("exception", pa.string(), nullable=False),
        pa.field("selected_out", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class IngestConfig:
    """What decides the bytes of the output, and nothing else (no paths, no worker counts).

    Attributes:
        survey: `lamost` or `sdss`.
        limit: at most this many files, a seeded random choice; None takes all.
        mock_files: the size of the mock survey that the files are of, if they are.
        files_per_part: files of one task, rows of one Parquet file at most.
        row_group_rows: rows of one Parquet row group, the unit that `shards` reads and mixes.
        seed: of the random file order.
    """

    survey: str
    limit: int | None = None
    mock_files: int | None = None
    files_per_part: int = 512
    row_group_rows: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        reader(self.survey)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"N={self.limit}: give a positive number of files")


@dataclass(frozen=True)
class PartResult:
    """What one part came to; also its ledger record.

    Attributes:
        counts: `[layout, class or "unlabelled", number]` rows.
        quarantine: rows of `QUARANTINE_SCHEMA`.
        unmatched: examples of object ids that the catalogue does not list.
    """

    part: int
    fingerprint: str
    files: int
    rows: int
    matched: int = 0
    counts: list[tuple[str, str, int]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """The whole job's account: `files == samples + quarantined`."""

    survey: str
    files: int
    samples: int
    quarantined: int
    selected_out: int
    matched: int | None
    by_layout_class: dict[str, dict[str, int]]
    reasons: dict[str, int]

    def table(self) -> str:
        """A plain-text table of counts by layout and class, then by quarantine reason."""
        classes = sorted({name for row in self.by_layout_class.values() for name in row})
        width = max([len("layout"), *map(len, self.by_layout_class)])
        lines = [f"{'layout':<{width}}" + "".join(f"{name:>12}" for name in (*classes, "total"))]
        for layout, row in sorted(self.by_layout_class.items()):
            numbers = [row.get(name, 0) for name in classes]
            lines.append(f"{layout:<{width}}" + "".join(f"{n:>12,}" for n in (*numbers, sum(numbers))))
        lines += [f"quarantined {n:>6,}  {reason}" for reason, n in sorted(self.reasons.items())]
        if self.matched is not None:
            lines.append(f"catalogue lists {self.matched:,} of {self.samples:,} samples")
        lines.append(f"{self.files:,} files = {self.samples:,} samples + {self.quarantined:,} quarantined")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Task:
    part: int
    root: str
    files: tuple[str, ...]
    fingerprint: str
    config: IngestConfig
    catalogue: str | None
    out: str


def find_files(data: str, name: str = "DATA") -> tuple[Path, list[str]]:
    """The survey files below a folder, matching a glob, or the one file: their root, and sorted paths below it.

    Args:
        name: how the user calls this argument, for the message.

    Raises:
        UsageError: nothing there, or nothing with the name of a FITS file.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        root, found = path, [p for p in path.rglob("*") if p.name.lower().endswith(SUFFIXES) and p.is_file()]
    elif path.is_file():
        root, found = path.parent, [path]
    elif glob.has_magic(data):
        found = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]  # noqa: PTH207
        root = Path(os.path.commonpath([p.parent for p in found])) if found else path
    else:
        raise UsageError(f"{name}={data}: no such file or folder")
    if not found:
        raise UsageError(f"{name}={data}: no spectra there; expected files named *{', *'.join(SUFFIXES)}")
    return root, sorted(p.relative_to(root).as_posix() for p in found)


def build(
    config: IngestConfig,
    data: str,
    out: Path,
    *,
    catalogue: Path | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
) -> Summary:
    """Ingest survey files into `out/spectra/part-*.parquet`.

    Beside them go `out/ingest/quarantine.parquet` (one row per file that gave no sample), the ledger and
    `out/ingest/summary.json`.

    Args:
        data: folder, glob or file.
        catalogue: label table joined on the survey's key.
        max_bad_fraction: the job fails when more than this share of files is bad (sky fibres are not bad).
        force: replace what an earlier run with another configuration left in `out`.

    Raises:
        UsageError: wrong arguments. JobError: too many bad files, or the environment failed.
    """
    root, files = find_files(data)
    order = np.random.default_rng(config.seed).permutation(len(files))[: config.limit]
    chosen = [files[i] for i in order]
    ledger, spectra = out / "ingest", out / "spectra"
    for folder in (ledger, spectra):
        make_folder(folder)
    prepared = None if catalogue is None else catalog.prepare(catalogue, config.survey, ledger)
    claim(out, config, root, catalogue, force)
    tasks = _tasks(config, root, chosen, prepared, out)
    _drop_stale(spectra, ledger, len(tasks))
    done = {task.part: record for task in tasks if (record := _kept(task)) is not None}
    todo = [task for task in tasks if task.part not in done]
    if done:
        print(f"resuming: {len(done)} of {len(tasks)} parts are done already")
    bad = 0

    def note(result: PartResult) -> str:
        nonlocal bad
        bad += len(result.quarantine)
        return f"{bad} quarantined"

    for result in run_tasks(
        ingest_part, todo, engine or Engine(), describe=f"ingest {config.survey}", unit="file",
        sizes=[len(task.files) for task in todo], note=note,
    ):  # fmt: skip
        done[result.part] = result
    results = [done[task.part] for task in tasks]
    summary = _summarise(config, results, catalogue is not None)
    write_quarantine([row for result in results for row in result.quarantine], ledger / "quarantine.parquet")
    _write_json(ledger / "summary.json", asdict(summary))
    print(summary.table())
    _judge(summary, len(chosen), data, ledger, max_bad_fraction)
    if catalogue is not None and summary.matched is not None:
        examples = [name for result in results for name in result.unmatched]
        catalog.check_matches(summary.matched, summary.samples, catalogue, examples)
    return summary


def ingest_part(task: _Task) -> PartResult:
    """Read the files of one part, write its Parquet file, then its ledger record."""
    labels = None if task.catalogue is None else catalog.open_catalogue(Path(task.catalogue))
    spectra: list[Spectrum] = []
    quarantine: list[dict[str, Any]] = []
    matched = 0
    unmatched: list[str] = []
    for name in task.files:
        try:
            spectrum = read_file(Path(task.root) / name, task.config.survey, source_file=name)
        except BadObjectError as error:
            quarantine.append(quarantine_row(name, None, "read", error))
            continue
        if labels is not None:
            if labels.apply(spectrum):
                matched += 1
            elif len(unmatched) < 3:
                unmatched.append(spectrum.object_id)
        spectra.append(spectrum)
    path = Path(task.out) / "spectra" / _part_name(task.part)
    if spectra:
        with naming(path):
            write_parquet(to_table(spectra), path, asdict(task.config), task.config.row_group_rows)
    counts = Counter((s.layout, s.labels.get("class") or "unlabelled") for s in spectra)
    result = PartResult(
        part=task.part, fingerprint=task.fingerprint, files=len(task.files), rows=len(spectra), matched=matched,
        counts=[(*key, n) for key, n in sorted(counts.items())], quarantine=quarantine, unmatched=unmatched,
    )  # fmt: skip
    _write_json(_record_path(task), asdict(result))
    return result


def quarantine_row(file: str, row: int | None, stage: str, error: BaseException) -> dict[str, Any]:
    """One row of `QUARANTINE_SCHEMA` for an object that gave no sample."""
    cause = error.__cause__ or error
    return {
        "file": file,
        "row": row,
        "stage": stage,
        "reason": str(error),
        "exception": type(cause).__name__,
        "selected_out": bool(getattr(error, "selected_out", False)),
    }


def write_quarantine(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write quarantine rows, sorted by file and row, under a temporary name first."""
    rows = sorted(rows, key=lambda row: (row["file"], -1 if row["row"] is None else row["row"]))
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), QUARANTINE_SCHEMA), temporary)


def _tasks(config: IngestConfig, root: Path, files: Sequence[str], catalogue: Path | None, out: Path) -> list[_Task]:
    base = hashlib.sha256(json.dumps([asdict(config), SCHEMA_VERSION, PROGRAM_VERSION]).encode())
    if catalogue is not None:
        with catalogue.open("rb") as file:
            base.update(hashlib.file_digest(file, "sha256").digest())
    tasks = []
    for part, start in enumerate(range(0, len(files), config.files_per_part)):
        names = tuple(files[start : start + config.files_per_part])
        digest = base.copy()
        for name in names:
            status = (root / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        tasks.append(
            _Task(part, str(root), names, digest.hexdigest(), config,
                  None if catalogue is None else str(catalogue), str(out))
        )  # fmt: skip
    return tasks


def claim(out: Path, config: IngestConfig, root: Path, catalogue: Path | None, force: bool) -> None:
    """Record what `out` is made from; refuse to mix it with something else.

    Raises:
        UsageError: it holds something else, and `force` is not given.
    """
    make_folder(out)
    ledger = out / "ingest"
    make_folder(ledger)
    mine = {**asdict(config), "data": str(root.resolve())}
    if catalogue is not None:
        mine["catalogue"] = str(catalogue.resolve())
    path = ledger / "config.json"
    if path.exists() and not force:
        theirs = json.loads(path.read_text())
        changed = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
        if changed:
            what = ", ".join(f"{key}: {theirs.get(key)} -> {mine.get(key)}" for key in changed)
            raise UsageError(
                f"{out}: holds spectra made from another input or configuration ({what}); "
                "choose another OUT, or FORCE=1 to replace them"
            )
    _write_json(path, mine)


def _drop_stale(spectra: Path, ledger: Path, n_parts: int) -> None:
    # Parts past the end belong to an earlier, larger input; leaving them would add foreign rows to the data set.
    expected = {_part_name(part) for part in range(n_parts)}
    for path in spectra.glob("part-*.parquet"):
        if path.name not in expected:
            path.unlink()
            (ledger / f"{path.stem}.json").unlink(missing_ok=True)


def _kept(task: _Task) -> PartResult | None:
    try:
        record = json.loads(_record_path(task).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    path = Path(task.out) / "spectra" / _part_name(task.part)
    if record["fingerprint"] != task.fingerprint or (record["rows"] > 0 and not path.exists()):
        return None
    return PartResult(**record)


def _summarise(config: IngestConfig, results: Iterable[PartResult], with_catalogue: bool) -> Summary:
    by_layout: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    files = samples = matched = selected_out = quarantined = 0
    for result in results:
        files, samples, matched = files + result.files, samples + result.rows, matched + result.matched
        quarantined += len(result.quarantine)
        for layout, label, n in result.counts:
            by_layout.setdefault(layout, Counter())[label] += n
        for row in result.quarantine:
            reasons[row["reason"]] += 1
            selected_out += row["selected_out"]
    return Summary(
        survey=config.survey, files=files, samples=samples, quarantined=quarantined, selected_out=selected_out,
        matched=matched if with_catalogue else None,
        by_layout_class={name: dict(row) for name, row in by_layout.items()}, reasons=dict(reasons),
    )  # fmt: skip


def _judge(summary: Summary, expected: int, data: str, ledger: Path, max_bad_fraction: float) -> None:
    if summary.files != expected or summary.files != summary.samples + summary.quarantined:
        raise JobError(
            f"the account does not add up: {expected} files given, {summary.samples} samples and "
            f"{summary.quarantined} quarantined; remove {ledger} and run again"
        )
    bad = summary.quarantined - summary.selected_out
    if summary.samples == 0:
        raise JobError(f"DATA={data}: no usable {summary.survey} spectrum; reasons in {ledger}/quarantine.parquet")
    if bad > max_bad_fraction * summary.files:
        raise JobError(
            f"DATA={data}: {bad} of {summary.files} files are bad, more than --max-bad-fraction "
            f"{max_bad_fraction:g}; reasons in {ledger}/quarantine.parquet"
        )


def _part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def _record_path(task: _Task) -> Path:
    return Path(task.out) / "ingest" / f"part-{task.part:05d}.json"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
