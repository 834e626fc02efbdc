"""Label tables: streamed once into sorted buckets, memory-mapped by every worker, joined on the survey's key.

Where a catalogue has a value it wins over the file's header (they differ in places: subclass, |dz| up to 2e-3), its
error goes with it, and `label_source` records the choice.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import BadObjectError, JobError, UsageError, make_folder
from specshards.common.files import replacing, sha256, write_text
from specshards.common.identity import SAME_ARCSEC, separation
from specshards.common.impossible import Impossible
from specshards.common.json import fits, parse
from specshards.common.spectrum import (
    LIMITS,
    NUMBERS,
    NUMERIC_LABELS,
    SN_SURVEY,
    SURVEY_SN,
    Spectrum,
    sift,
    survey_sn_of,
    tells_sn_survey,
)
from specshards.ingest.catalogue.rows import (
    Rows,
    by_meaning,
    check_once,
    check_type,
    label_numbers,
    mapped,
    open_rows,
    refuse_large,
    the_one,
)
from specshards.ingest.ids import id_texts
from specshards.ingest.surveys.common import label, said_class, text
from specshards.ingest.surveys.survey import SURVEYS, check_survey, with_files

#: Usual column names of catalogues, in lower case, and ours; those of one survey are its `aliases`.
ALIASES = {
    "zerr": "z_err", "fe_h": "feh", "zwarn": "zwarning", "spectype": "class", "subtype": "subclass",
    "snmedian": SN_SURVEY, "target_ra": "ra", "target_dec": "dec", "plug_ra": "ra", "plug_dec": "dec",
}  # fmt: skip
_POSITION = ("ra", "dec")
_LABELS = ("class", "subclass", *NUMERIC_LABELS)
_SN = (*SURVEY_SN, SN_SURVEY)
_ERRORS = {label.name: label.columns[1] for label in NUMBERS if label.has_error}

# Sorting wants a bucket in memory; one in this many rows of the file's bytes keeps that to tens of MB.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.I)

_SEXAGESIMAL = re.compile(r"[+-]?\d+(?:\s*[:hd°]\s*|\s+)\d")

_BUCKET_BYTES = 64 << 20
_MAX_BUCKETS = 256


def prepare(
    path: Path,
    survey: str | None,
    folder: Path,
    kinds: Mapping[str, str] | None = None,
    exact: Collection[str] = (),
) -> Path:
    """Write the label columns of catalogue `path` as `folder/catalogue.arrow`, unless that is what it holds already.

    The result is an uncompressed Arrow file of record batches, each sorted by key, a key's batch given by its hash:
    workers map it into memory and share its pages, so that a catalogue of ten million rows costs each of them
    nothing, and writing it takes the memory of one batch.

    Args:
        kinds: further columns to keep, for selection cuts: name -> `text` or `number`. Those that the catalogue does
            not have are left to the files.
        exact: of these, the columns whose integers a float64 may not round.

    Raises:
        UsageError: no such file, an unknown format, no key column, no label column, or a key that repeats or may
            have been rounded (see `ingest.ids`); or a survey without a key.
    """
    if survey is None:
        names_of_surveys = ", ".join(survey.name for survey in with_files())
        raise UsageError(f"{path}: a catalogue is joined on its survey's key; name one of {names_of_surveys}")
    check_survey(survey)
    keys, aliases = SURVEYS[survey].keys, {**ALIASES, **SURVEYS[survey].aliases}
    rows = open_rows(path)
    meant = by_meaning(rows.columns, aliases)
    used = {*keys, *_LABELS, *_SN, *_POSITION, *(kinds or {})}
    names = {name: the_one(path, name, found) for name, found in meant.items() if name in used}
    key = next((names[k] for k in keys if k in names), None)
    if key is None:
        raise UsageError(
            f"{path}: no key column for {survey}: expected {' or '.join(keys)}, found {', '.join(rows.columns[:12])}"
        )
    signal = [name for name in _SN if name in names]
    # One band alone says nothing of the whole, and the file's own may be of another reduction: all or none.
    taken = [name for name in (*_LABELS, *(signal if tells_sn_survey(signal) else ()), *_POSITION) if name in names]
    check_once(path, rows.columns, [key, *(names[name] for name in taken)])
    wanted = {name: _reader_of(name) for name in taken}
    if not wanted.keys() & {*_LABELS, *_SN}:
        raise UsageError(f"{path}: no label column; expected any of class, subclass, {', '.join(NUMERIC_LABELS)}")
    for name, kind in (kinds or {}).items():
        if name in names and name not in wanted:
            wanted[name] = _TEXT if kind != "number" else _EXACT if name in exact else _NUMBER
    make_folder(folder)
    final = folder / "catalogue.arrow"
    status = path.stat()
    asked = [sorted(wanted), sorted(name for name, reader in wanted.items() if reader is _EXACT)]
    origin = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, survey, *asked, 3])
    if _record(final).get("origin") != origin or not final.exists():
        unread = _write(rows, {"key": key, **{name: names[name] for name in wanted}}, wanted, path, final)
        content = {"origin": origin, "sha256": sha256(final), "unread": asdict(unread)}
        write_text(final.with_suffix(".json"), json.dumps(content) + "\n")
    return final


def digest(prepared: Path) -> str:
    """sha256 of a prepared catalogue."""
    return str(_record(prepared)["sha256"])


def unread(prepared: Path) -> Impossible:
    """Values of a prepared catalogue that are no numbers where a number belongs: they are missing."""
    return Impossible.from_dict(_record(prepared).get("unread", {}))


_Column = tuple[pa.DataType, Callable[[Any], Any]]
_TEXT: _Column = (pa.string(), text)
_NUMBER: _Column = (pa.float64(), label)
_EXACT: _Column = (pa.float64(), label)


def _reader_of(name: str) -> _Column:
    if name == "class":
        return pa.string(), said_class
    return _TEXT if name == "subclass" else _NUMBER


def _record(prepared: Path) -> dict[str, Any]:
    try:
        record = parse(prepared.with_suffix(".json").read_text(encoding="utf-8"), nan=True)
        fits(record, _Record)
    except (FileNotFoundError, ValueError):
        return {}
    return dict(record)


@dataclass(frozen=True)
class _Record:
    """`catalogue.json`: what a prepared catalogue was made from, and its content."""

    origin: str
    sha256: str
    unread: Impossible


def _write(
    rows: Rows, names: Mapping[str, str], wanted: Mapping[str, _Column], path: Path, final: Path
) -> Impossible:
    """Write the prepared catalogue; what is no number in a column of numbers is null and comes back."""
    unread = Impossible()
    schema = pa.schema([("key", pa.string()), *((name, kind) for name, (kind, _) in wanted.items())])
    buckets = min(_MAX_BUCKETS, 1 + path.stat().st_size // _BUCKET_BYTES)
    with TemporaryDirectory(dir=final.parent, prefix=".catalogue-") as scratch:
        parts = [Path(scratch) / f"{i}.arrow" for i in range(buckets)]
        _scatter(_tables(rows, names, wanted, schema, path, unread), parts, schema)
        _refuse_other_numbers(path, unread)
        with (
            replacing(final) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            for part in parts:
                with pa.memory_map(str(part)) as source:
                    table = pa.ipc.open_stream(source).read_all().sort_by("key").combine_chunks()
                _refuse_repeats(path, names["key"], table["key"].combine_chunks())
                batches = table.to_batches()
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema))
    return unread


def _tables(
    rows: Rows,
    names: Mapping[str, str],
    wanted: Mapping[str, _Column],
    schema: pa.Schema,
    path: Path,
    unread: Impossible,
) -> Iterator[pa.Table]:
    for batch in rows.tables(list(dict.fromkeys(names.values()))):
        columns = {"key": id_texts(batch[names["key"]], names["key"], path)}
        for name, (kind, convert) in wanted.items():
            column = batch[names[name]]
            check_type(column.type, f"{path}: {names[name]}")
            if pa.types.is_boolean(column.type) and name in LIMITS:
                raise UsageError(f"{path}: {names[name]} holds true and false, where numbers belong")
            if kind != pa.float64():
                columns[name] = mapped(column, convert, kind)
                continue
            if wanted[name] is _EXACT:
                refuse_large(column, f"{path}: {names[name]}")
            columns[name], words = label_numbers(column, is_known=name in LIMITS)
            if words and name not in (*_LABELS, *_POSITION):
                raise UsageError(
                    f"{path}: {names[name]} is compared with numbers and holds {words[0][:40]!r}; "
                    "compare it with text in quotes"
                )
            for word in words:
                unread.add(name, word, f"in {names[name]}")
        table = pa.table(columns, schema=schema)
        yield table.filter(pc.is_valid(table["key"]))


def _refuse_other_numbers(path: Path, unread: Impossible) -> None:
    for name, examples in unread.examples.items():
        for value, _ in examples:
            if _DECIMAL_COMMA.fullmatch(value):
                raise UsageError(f"{path}: {name} is written with decimal commas ({value}); write decimal points")
            if name in _POSITION and _SEXAGESIMAL.match(value):
                raise UsageError(f"{path}: {name} is in sexagesimal ({value}): give degrees")


def _scatter(tables: Iterator[pa.Table], parts: Sequence[Path], schema: pa.Schema) -> None:
    writers = [pa.ipc.new_stream(str(part), schema) for part in parts]
    try:
        for table in tables:
            if len(parts) == 1:
                writers[0].write_table(table)
                continue
            bucket = pa.array([_bucket(key, len(parts)) for key in table["key"].to_pylist()])
            for index, writer in enumerate(writers):
                writer.write_table(table.filter(pc.equal(bucket, index)))
    finally:
        for writer in writers:
            writer.close()


def _bucket(key: str, buckets: int) -> int:
    return crc32(key.encode()) % buckets


def _refuse_repeats(path: Path, key: str, keys: pa.Array) -> None:
    again = keys.slice(1).filter(pc.equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1))))
    if len(again):
        examples = ", ".join(again.slice(0, 3).to_pylist())
        raise UsageError(
            f"{path}: {key} repeats in {len(again)} rows (such as {examples}); keep one row per spectrum"
        )


class Catalogue:
    """A prepared catalogue, opened by memory map."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        # Stays in the mapped file: as Python strings the keys would cost each worker a hundred bytes a row.
        self._buckets = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.columns = tuple(name for name in reader.schema.names if name != "key")

    def __len__(self) -> int:
        """Number of rows."""
        return sum(bucket.num_rows for bucket in self._buckets)

    def lookup(self, key: str) -> dict[str, Any] | None:
        """The row of one object, missing values as None; None where the object is not listed."""
        bucket = self._buckets[_bucket(key, len(self._buckets))]
        keys = bucket.column("key")
        at = bisect_left(range(len(keys)), key, key=lambda i: keys[i].as_py())
        if at == len(keys) or keys[at].as_py() != key:
            return None
        return {name: bucket.column(name)[at].as_py() for name in self.columns}

    def apply(self, spectrum: Spectrum) -> bool:
        """Overwrite the labels of `spectrum` where the catalogue has a value; False where it lists no such object.

        What no object can have is no value; it is told in `Spectrum.impossible`.

        A position fills in where the file has none; the other columns, kept for selection cuts, become `extra`. What
        the file itself says of the class stays there too, as `file_class` and `file_subclass`.

        Raises:
            BadObjectError: the catalogue has this id at another place than the file: one of them has a wrong id.
        """
        row = self.lookup(spectrum.object_id)
        if row is None:
            return False
        impossible = sift(row)
        known = {name: value for name, value in row.items() if value is not None}
        if known.keys() >= set(_POSITION):
            ra, dec = known["ra"] % 360.0, known["dec"]
            if math.isnan(spectrum.ra):
                spectrum.ra, spectrum.dec = ra, dec
            elif (apart := float(separation(ra, dec, spectrum.ra, spectrum.dec))) > SAME_ARCSEC:
                raise BadObjectError(
                    f"{spectrum.object_id} is at {spectrum.ra:.4f} {spectrum.dec:+.4f}, in the catalogue at {ra:.4f} "
                    f"{dec:+.4f}, {apart / 3600:.2g} degrees from there: its labels are another object's",
                    kind="at another place than in the catalogue: its labels are another object's",
                )
        labels = self._labels(known)
        if "class" in impossible:  # its subclass is not one of the file's class
            labels.pop("subclass", None)
        signal = {name: value for name, value in known.items() if name in _SN}
        if (sn := survey_sn_of(signal)) is not None:
            signal[SN_SURVEY] = sn
            spectrum.survey_sn |= signal
        else:
            signal = {}
        for name in (*labels, *signal):  # the file's may have been impossible; it is not needed any more
            spectrum.impossible.pop(name, None)
        spectrum.impossible |= impossible
        for name in ("class", "subclass"):
            if (said := spectrum.labels.get(name)) is not None:
                spectrum.extra[f"file_{name}"] = said
        ours = spectrum.labels.get("class")
        if ours not in (None, labels.get("class", ours)) and spectrum.labels.get("subclass") is not None:
            labels.setdefault("subclass", None)  # the file's is one of another class
        spectrum.labels.update(labels)
        spectrum.extra.update({name: value for name, value in known.items() if name not in _LABELS})
        if any(value is not None for value in labels.values()):
            spectrum.label_source = "catalogue"
        return True

    def _labels(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What replaces the file's labels. A value and its error are of one source, and None replaces an error, too.

        The file's error stays only where the catalogue has no such column: cuts ask for errors (LAMOST's `paper`).
        """
        labels = {name: value for name, value in known.items() if name in _LABELS}
        for value, error in _ERRORS.items():
            if value not in labels:
                labels.pop(error, None)
            elif error in self.columns:
                labels[error] = known.get(error)
        return labels


def conflict(spectrum: Spectrum) -> str | None:
    """How the catalogue's class, or else its spectral type (the subclass's first letter), differs from the file's.

    Both may be right: a pipeline's later version, a border between types. A star that is K in its file and A in the
    catalogue is a sign of a wrong join or a wrong row.
    """
    for name, told in (("class", str), ("subclass", lambda value: str(value).strip()[:1])):
        theirs, ours = spectrum.extra.get(f"file_{name}"), spectrum.labels.get(name)
        if theirs and ours and told(theirs) != told(ours):
            what = "class" if name == "class" else "type"
            return f"{what} {told(theirs)} in the file, {told(ours)} in the catalogue"
    return None


@lru_cache(maxsize=1)
def open_catalogue(path: Path) -> Catalogue:
    """The prepared catalogue at `path`, opened once a process."""
    return Catalogue(path)


def is_foreign(matched: int, objects: int) -> bool:
    """Whether a catalogue lists so few of the objects that it must be another one's."""
    return objects > 0 and matched < objects / 2


def check_matches(matched: int, objects: int, catalogue: Path, examples: Sequence[str]) -> None:
    """Refuse a join that matched under half of the objects: the key is probably another one.

    Raises:
        JobError: with examples of keys that were not found.
    """
    if is_foreign(matched, objects):
        raise JobError(
            f"{catalogue}: lists only {matched} of {objects} objects (missing, for example, "
            f"{', '.join(examples[:3])}); give the catalogue of this release, or none"
        )
