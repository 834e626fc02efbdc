"""One task of the ingest job: read the files of a part, write one Parquet file, then a ledger record."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from specshards.common.errors import BadObjectError, naming
from specshards.common.files import sha256, write_text
from specshards.common.further import MOST_FURTHER, further_name, is_further, said
from specshards.common.impossible import Impossible
from specshards.common.json import fits
from specshards.common.json import parse as parse_json
from specshards.common.quarantine import quarantine_row, write_quarantine
from specshards.common.spectrum import SN_SURVEY, Spectrum
from specshards.common.text import escaped
from specshards.ingest.catalogue import labels
from specshards.ingest.catalogue.cuts import Cut, parse
from specshards.ingest.catalogue.further import keeps
from specshards.ingest.job.summary import UNKNOWN, LayoutCount
from specshards.ingest.seal import digest_of, is_intact
from specshards.ingest.spectra.schema import spectra_writer, to_table
from specshards.ingest.stems import with_folder
from specshards.ingest.surveys import SURVEYS, open_file
from specshards.ingest.surveys import multimodal_universe as mmu
from specshards.ingest.surveys.survey import foreign
from specshards.ingest.tables import Stated, TableFile


@dataclass(frozen=True)
class PartTask:
    """Everything that a worker needs to do a part, and what its output depends on (`fingerprint`).

    `foldered` are the files that share their names with files in other folders; see `ingest.stems`.
    """

    number: int
    root: str
    files: tuple[str, ...]
    bytes: int
    fingerprint: str
    survey: str | None
    out: str
    catalogue: str | None
    listed_only: bool
    where: str | None
    row_group_rows: int
    config: dict[str, Any]
    foldered: tuple[str, ...] = ()

    @property
    def spectra(self) -> Path:
        """The part's Parquet file; absent when it has no sample."""
        return Path(self.out) / "spectra" / f"part-{self.number:05d}.parquet"

    @property
    def quarantine(self) -> Path:
        """The part's quarantine rows; absent when there are none."""
        return quarantine_of(self.record)

    @property
    def record(self) -> Path:
        """The part's ledger record, written last."""
        return record_of(Path(self.out), self.number)

    @property
    def size(self) -> int:
        """Number of files."""
        return len(self.files)

    @property
    def stated(self) -> Stated:
        """What the user says of spectra whose files do not say it."""
        return Stated.of(self.config)

    @property
    def parts(self) -> tuple[str, ...]:
        """Of the joint survey that this is done for, the surveys; none without one."""
        joint = self.config.get("joint")
        return () if joint is None else SURVEYS[joint].parts

    def loads(self, text: str) -> PartResult:
        """See `common.folder.Task`."""
        return PartResult.loads(text)

    def is_whole(self, record: PartResult) -> bool:
        """Whether the part's files are those that were written, to the byte."""
        if (_size(self.spectra), _size(self.quarantine)) != (record.spectra_bytes, record.quarantine_bytes):
            return False
        if record.quarantine_bytes and sha256(self.quarantine) != record.quarantine_digest:
            return False
        return not record.spectra_bytes or is_intact(self.spectra, record.spectra_digest)


def record_of(out: Path, number: int) -> Path:
    """The ledger record of a part."""
    return out / "ingest" / "parts" / f"part-{number:05d}.json"


def quarantine_of(record: Path) -> Path:
    """The quarantine rows of the part that has this record."""
    return record.with_suffix(".quarantine.parquet")


@dataclass(frozen=True)
class PartResult:
    """What one part came to; also its ledger record.

    Attributes:
        spectra_bytes, quarantine_bytes: sizes of its files, 0 where there is none.
        spectra_digest, quarantine_digest: of seal and footer, which stand for the content; sha256 of the whole file.
        matched: samples that the catalogue lists; `unmatched` has examples of those that it does not.
        conflicts: samples whose file says otherwise than the catalogue, by what they say; see `catalog.conflict`.
        impossible: labels that were taken away.
        converted: samples whose numbers are not those of the file, or whose survey is a guess, by what was done.
    """

    number: int
    fingerprint: str
    bytes: int
    spectra_bytes: int = 0
    quarantine_bytes: int = 0
    spectra_digest: str = ""
    quarantine_digest: str = ""
    layouts: dict[str, LayoutCount] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    matched: int = 0
    unmatched: tuple[str, ...] = ()
    conflicts: dict[str, int] = field(default_factory=dict)
    impossible: Impossible = field(default_factory=Impossible)
    converted: dict[str, int] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """Objects in the part's files."""
        return sum(count.objects for count in self.layouts.values())

    @property
    def quarantined(self) -> int:
        """Objects that gave no sample."""
        return sum(count.set_aside + count.bad for count in self.layouts.values())

    def dumps(self) -> str:
        """JSON, read back by `loads`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def loads(cls, text: str) -> PartResult:
        """The inverse of `dumps`; ValueError for anything else."""
        content = parse_json(text, nan=True)
        fits(content, cls)
        content["layouts"] = {name: LayoutCount(**count) for name, count in content["layouts"].items()}
        content["unmatched"] = tuple(content["unmatched"])
        content["impossible"] = Impossible.from_dict(content["impossible"])
        return cls(**content)


def ingest_part(task: PartTask) -> PartResult:
    """Read the files of one part and write its Parquet file, its quarantine rows and its ledger record."""
    work = _Part(task)
    for stale in (task.record, task.spectra, task.quarantine):
        stale.unlink(missing_ok=True)
    with naming(task.spectra):
        work.run()
    if work.quarantine:
        write_quarantine(work.quarantine, task.quarantine)
    result = PartResult(
        number=task.number, fingerprint=task.fingerprint, bytes=task.bytes, spectra_bytes=_size(task.spectra),
        quarantine_bytes=_size(task.quarantine), spectra_digest=digest_of(task.spectra),
        quarantine_digest=sha256(task.quarantine) if task.quarantine.exists() else "",
        layouts=work.layouts, reasons=dict(sorted(work.reasons.items())),
        matched=work.matched, unmatched=tuple(work.unmatched), conflicts=dict(sorted(work.conflicts.items())),
        impossible=work.impossible,
        converted=dict(sorted(work.converted.items())),
    )  # fmt: skip
    write_text(task.record, result.dumps())
    return result


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Part:
    """The running account of one part; memory holds two row groups of spectra at most."""

    def __init__(self, task: PartTask) -> None:
        self._task = task
        self._labels = None if task.catalogue is None else labels.open_catalogue(Path(task.catalogue))
        self._cut: Cut | None = None if task.where is None else parse(task.where)
        usual = SURVEYS[task.survey].labels if task.survey is not None else ()
        self._keeps = keeps(task.config.get("labels"), usual)
        self._stack = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._uncut: list[Spectrum] = []
        self._ready: list[Spectrum] = []
        self._further: set[str] = set()
        self.layouts: dict[str, LayoutCount] = {}
        self.quarantine: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()
        self.matched = 0
        self.unmatched: list[str] = []
        self.conflicts: Counter[str] = Counter()
        self.impossible = Impossible()
        self.converted: Counter[str] = Counter()
        self._by_columns: dict[str, str] = {}  # file -> its survey, told by its columns

    def run(self) -> None:
        with self._stack:
            for name in self._task.files:
                self._read(name)
            self._select()
            self._write(self._ready)

    def _read(self, file: str) -> None:
        name, most_bytes = escaped(file), self._task.config.get("max_file_size")
        try:
            path = Path(self._task.root) / file
            opened = open_file(path, self._task.survey, name, self._task.stated, most_bytes, self._task.parts)
        except BadObjectError as error:
            self._count(error.layout).files += 1
            self._reject(name, error, "read")
            return
        count = self._count(opened.layout)
        count.files += 1
        if isinstance(opened.file, TableFile) and (survey := _guessed_survey(opened.file)) is not None:
            self._by_columns[name] = survey
        try:
            for item in opened.objects():
                if isinstance(item, BadObjectError):
                    self._reject(name, item, "read")
                else:
                    if file in self._task.foldered and opened.is_generic:
                        item.object_id = with_folder(item.object_id, name)
                    self._take(item)
        except BadObjectError as error:
            self._reject(name, error, "read")
        count.parsers[opened.parser] = count.parsers.get(opened.parser, 0) + 1

    def _take(self, spectrum: Spectrum) -> None:
        """Join one spectrum with its labels and queue it for the cut."""
        try:
            if self._task.parts and (whose := spectrum.survey.removeprefix("mock-")) != self._task.survey:
                raise BadObjectError(f"of {whose}{foreign(self._task.survey)}", selected_out=True)
            is_listed = self._labels is not None and self._labels.apply(spectrum)
            if self._task.listed_only and not is_listed:
                raise BadObjectError("not in the catalogue", selected_out=True)
        except BadObjectError as error:
            self._reject_spectrum(spectrum, error)
            return
        self._name(spectrum)
        for name, value in spectrum.impossible.items():
            self.impossible.add(name, value, spectrum.object_id)
        spectrum.is_listed = is_listed
        self._uncut.append(spectrum)
        if len(self._uncut) == self._task.row_group_rows:
            self._select()

    def _name(self, spectrum: Spectrum) -> None:
        """Give further labels the names of their columns, and leave those out that are not asked for.

        Raises:
            BadObjectError: more than one data set holds; so is the rest of its file.
        """
        for name in [name for name in spectrum.labels if is_further(name)]:
            value, ours = spectrum.labels.pop(name), further_name(name)
            if self._keeps is None or ours in self._keeps:
                spectrum.labels[ours] = said(value)
                if ours != name and name in spectrum.units:
                    spectrum.units = {**spectrum.units, ours: spectrum.units[name]}
        names = set(filter(is_further, spectrum.labels))
        if len(names - self._further) > MOST_FURTHER - len(self._further):
            beside = f", beside {len(self._further)} of other files" if self._further else ""
            raise BadObjectError(
                f"{len(names)} further columns{beside}, more than {MOST_FURTHER}; --labels keeps those you name",
                layout=spectrum.layout, row=spectrum.row,
            )  # fmt: skip
        self._further |= names

    def _select(self) -> None:
        """Apply the cut to what is queued; write full row groups of what passes it."""
        waiting, self._uncut = self._uncut, []
        keeps = np.ones(len(waiting), np.bool_)
        if self._cut is not None:
            columns = {name: [_column_value(s, name) for s in waiting] for name in self._cut.columns}
            keeps = self._cut.keeps(columns, len(waiting))
        for spectrum, keep in zip(waiting, keeps, strict=True):
            if keep:
                self._accept(spectrum)
            else:
                error = BadObjectError(f"outside the cut {self._task.where}", selected_out=True)
                self._reject_spectrum(spectrum, error)
        rows = self._task.row_group_rows
        while len(self._ready) >= rows:
            self._write(self._ready[:rows])
            self._ready = self._ready[rows:]

    def _accept(self, spectrum: Spectrum) -> None:
        self._ready.append(spectrum)
        classes, label = self._count(spectrum.layout).classes, spectrum.labels.get("class") or "unlabelled"
        classes[label] = classes.get(label, 0) + 1
        self.converted.update(_conversions(spectrum))
        if spectrum.source_file in self._by_columns:
            survey = self._by_columns[spectrum.source_file]
            self.converted[f"are taken for {survey} by the columns of their table; name the survey to be sure"] += 1
        if spectrum.is_listed:
            self.matched += 1
            if differs := labels.conflict(spectrum):
                self.conflicts[differs] += 1
        elif self._labels is not None and len(self.unmatched) < 3:
            self.unmatched.append(spectrum.object_id)

    def _write(self, spectra: list[Spectrum]) -> None:
        if not spectra:
            return
        if self._writer is None:
            self._writer = self._stack.enter_context(spectra_writer(self._task.spectra, self._task.config))
        self._writer.write_table(to_table(spectra), row_group_size=self._task.row_group_rows)

    def _reject_spectrum(self, spectrum: Spectrum, error: BadObjectError) -> None:
        error.layout, error.row = spectrum.layout, spectrum.row
        self._reject(spectrum.source_file, error, "select")

    def _reject(self, name: str, error: BadObjectError, stage: str) -> None:
        count = self._count(error.layout)
        if error.selected_out:
            count.set_aside += 1
        else:
            count.bad += 1
        self.reasons[error.kind] += 1
        self.quarantine.append(quarantine_row(name, error.row, stage, error))

    def _count(self, layout: str | None) -> LayoutCount:
        return self.layouts.setdefault(layout or UNKNOWN, LayoutCount())


def _guessed_survey(file: TableFile) -> str | None:
    """The survey of a table that its columns alone tell; None where a column or the user says it."""
    columns = mmu.Columns.of(file)
    is_said = columns is None or "survey" in columns.labels or file.survey is not None
    return None if is_said or columns is None or columns.survey == mmu.UNKNOWN else columns.survey


def _conversions(spectrum: Spectrum) -> list[str]:
    """What was done to the numbers of the file, and what its reader remarks, in words."""
    words = list(spectrum.told())
    if spectrum.flux_scale != 1:
        unit = spectrum.flux_unit or "not declared"
        words.append(f"flux is stored divided by {spectrum.flux_scale:g} (flux_scale); unit: {unit}")
    if spectrum.wave_source is not None:
        words.append(f"wavelengths are converted from {spectrum.wave_source}")
    if spectrum.frame != "observed":
        words.append(f"wavelengths are in the {spectrum.frame} frame")
    return words


_ATTRIBUTES = {
    "object_id", "survey", "release", "ra", "dec", "layout", "label_source", "source_file", "flux_unit", "flux_scale",
    "wave_source", "frame",
}  # fmt: skip


def _column_value(spectrum: Spectrum, name: str) -> Any:
    """What a cut compares: the catalogue's value where it gives one, as `select` does of the catalogue alone."""
    if (said := spectrum.extra.get(name)) is not None:
        return said
    if name in _ATTRIBUTES:
        return getattr(spectrum, name)
    if name == "sn_median":
        return spectrum.sn_median()
    if name == SN_SURVEY:
        return spectrum.sn_survey()
    return spectrum.labels.get(name, spectrum.survey_sn.get(name))
