"""A prepared catalogue: its labels as an Arrow file that every worker maps into memory, sorted by key in buckets.

Beside it, in JSON, stands what it was made from, and what became of its columns and of what they hold.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError, make_folder
from specshards.common.files import replacing, sha256, write_text
from specshards.common.further import TEXT
from specshards.common.impossible import Impossible
from specshards.common.json import fits, parse
from specshards.common.spectrum import LIMITS, NUMBERS
from specshards.common.spectrum import POSITION as POSITIONS
from specshards.ingest.catalogue.columns import (
    FILE_KEYS,
    LABELS,
    POSITION,
    SN,
    ColumnAccount,
    choose,
    keys_of,
    unsaid_columns,
)
from specshards.ingest.catalogue.further import ALL, Wish, kinds_of
from specshards.ingest.catalogue.rows import Rows, open_rows
from specshards.ingest.catalogue.values import check_type, label_numbers, mapped, refuse_large
from specshards.ingest.ids import id_texts
from specshards.ingest.stems import DEEPEST, stem_of
from specshards.ingest.surveys.common import cell, label, said_class, text
from specshards.ingest.surveys.survey import SURVEYS, Unsaid, check_survey, with_files

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.I)

_SEXAGESIMAL = re.compile(r"[+-]?\d+(?:\s*[:hd°]\s*|\s+)\d")

# Sorting wants a bucket in memory; one in this many of the file's bytes keeps that to tens of MB.
_BUCKET_BYTES = 64 << 20
_MAX_BUCKETS = 256


def prepare(
    path: Path,
    survey: str | None,
    folder: Path,
    kinds: Mapping[str, str] | None = None,
    exact: Collection[str] = (),
    wish: Wish | None = None,
    depth: int = 1,
) -> Path:
    """Write the label columns of catalogue `path` as `folder/catalogue.arrow`, unless that is what it holds already.

    The result is an uncompressed Arrow file of record batches, each sorted by key, a key's batch given by its hash:
    workers map it into memory and share its pages, so that a catalogue of ten million rows costs each of them
    nothing, and writing it takes the memory of one batch.

    Args:
        kinds: further columns to keep, for selection cuts: name -> `text` or `number`. Those that the catalogue does
            not have are left to the files.
        exact: of these, the columns whose integers a float64 may not round.
        wish: for further labels.
        depth: of the names of files, as `ingest.stems.depth_of` has it; deeper where the catalogue's would repeat.

    Raises:
        UsageError: no such file, an unknown format, no key column, no label column, or a key that repeats or may
            have been rounded (see `ingest.ids`); or a survey without a key.
    """
    check_survey(survey)
    rows, wish = open_rows(path), wish or Wish()
    if survey is None and not {column.strip().lower() for column in rows.columns} & set(keys_of(None)):
        names_of_surveys = ", ".join(survey.name for survey in with_files())
        raise UsageError(f"{path}: a catalogue is joined on its survey's key; name one of {names_of_surveys}")
    choice = choose(path, rows.columns, survey, kinds or (), wish)
    names = choice.names
    wanted = {name: _reader_of(name) for name in names if name in (*LABELS, *SN, *POSITION)}
    for name, kind in (kinds or {}).items():
        if name in names and name not in wanted:
            wanted[name] = _TEXT if kind != "number" else _EXACT if name in exact else _NUMBER
    further = kinds_of(path, rows, choice.further, wish.said == ALL)
    columns = {name: choice.further[name] for name in further}
    for name, kind in further.items():
        wanted[name] = _MORE_TEXT if kind == TEXT else _MORE_NUMBER
    make_folder(folder)
    final = folder / "catalogue.arrow"
    status = path.stat()
    exact_ones = sorted(name for name, reader in wanted.items() if reader is _EXACT)
    asked = [sorted(wanted), exact_ones, sorted(choice.compared), *([[further, columns]] if further else [])]
    asked += [depth] if depth > 1 else []
    origin = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, survey, *asked, 5])
    if _record(final).get("origin") != origin or not final.exists():
        source = _Source(
            path, rows, {"key": choice.key, **names, **columns}, wanted, unsaid_columns(rows.columns, names, survey),
            choice.compared, {n: rows.units.get(c, (wish.usual or {}).get(n, "")) for n, c in columns.items()},
            depth,
        )  # fmt: skip
        source = _write(source, None if survey is None else SURVEYS[survey].unsaid, final)
        content = {
            "origin": origin, "sha256": sha256(final), "unread": asdict(source.unread), "unsaid": dict(source.lost),
            "columns": asdict(choice.account),
        }  # fmt: skip
        write_text(final.with_suffix(".json"), json.dumps(content) + "\n")
    return final


def digest(prepared: Path) -> str:
    """sha256 of a prepared catalogue."""
    return str(_record(prepared)["sha256"])


def unread(prepared: Path) -> Impossible:
    """Values of a prepared catalogue that are no numbers where a number belongs: they are missing."""
    return Impossible.from_dict(_record(prepared).get("unread", {}))


def columns_of(prepared: Path) -> ColumnAccount:
    """What became of the columns of a prepared catalogue, and where its labels say nothing."""
    record = _record(prepared)
    account = ColumnAccount(**record["columns"])
    lost = (f"{name} says nothing in {n:,} rows: it is missing there" for name, n in record["unsaid"].items() if n)
    return replace(account, unused=tuple(account.unused), notes=(*account.notes, *lost))


_Column = tuple[pa.DataType, Callable[[Any], Any]]
_TEXT: _Column = (pa.string(), text)
_NUMBER: _Column = (pa.float64(), label)
_EXACT: _Column = (pa.float64(), label)
#: Of further labels.
_MORE_TEXT: _Column = (pa.string(), lambda value: _more_text(value))
_MORE_NUMBER: _Column = (pa.float64(), lambda value: label(value, is_known=False))


def _more_text(value: Any) -> str | None:
    return cell(str(value).lower() if str(value) in ("True", "False", "TRUE", "FALSE") else value)


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
    unsaid: dict[str, int]
    columns: ColumnAccount


@dataclass(frozen=True)
class _Source:
    """A catalogue and what is read of it.

    Attributes:
        names: of `key` and all that is `wanted`, its column; others: what `Survey.unsaid` looks at, see there.
        compared: see `Choice`. units: of further labels. depth: of keys that name files.
        unread: what is no number in a column of numbers, and null. lost: column -> rows in which it says nothing.
    """

    path: Path
    rows: Rows
    names: Mapping[str, str]
    wanted: Mapping[str, _Column]
    others: Mapping[str, str]
    compared: Collection[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    depth: int = 1
    unread: Impossible = field(default_factory=Impossible)
    lost: Counter[str] = field(default_factory=Counter)

    def schema(self, unsaid: Unsaid | None) -> pa.Schema:
        """Of the prepared catalogue.

        What files may tell better stands in the metadata: of a field its column, of the whole the doubt. What is only
        compared stands there, too, so that parts of a job that compared the files' own are made again.
        """
        low = {column: name for name, column in self.others.items()}
        fields = [pa.field("key", pa.string())]
        for name, (kind, _) in self.wanted.items():
            column = low.get(self.names[name])
            said = {} if column is None else {"column": column}
            if self.wanted[name] in (_MORE_TEXT, _MORE_NUMBER):
                said["further"] = self.units.get(name) or ""
            fields.append(pa.field(name, kind, metadata=said or None))
        doubt = unsaid.doubt(self.others) if unsaid is not None and self.others else None
        notes = {"doubt": doubt, "compared": ", ".join(sorted(self.compared))}
        notes["stem"] = ("yes" if self.depth == 1 else str(self.depth)) if self.names_files else None
        return pa.schema(fields, {what: words for what, words in notes.items() if words} or None)

    @property
    def names_files(self) -> bool:
        return self.names["key"].strip().lower() in FILE_KEYS

    def batches(self) -> Iterator[pa.Table]:
        yield from self.rows.tables(list(dict.fromkeys([*self.names.values(), *self.others.values()])))


def _write(source: _Source, unsaid: Unsaid | None, final: Path) -> _Source:
    """Write the prepared catalogue; with folders where names of files repeat without. Returns what was written."""
    while True:
        try:
            _write_once(source, unsaid, final)
            return source
        except _RepeatsError:
            if not source.names_files or source.depth == DEEPEST:
                raise
            source = replace(source, depth=source.depth + 1, unread=Impossible(), lost=Counter())


class _RepeatsError(UsageError):
    """A key is that of two rows."""


def _write_once(source: _Source, unsaid: Unsaid | None, final: Path) -> None:
    schema = source.schema(unsaid)
    buckets = min(_MAX_BUCKETS, 1 + source.path.stat().st_size // _BUCKET_BYTES)
    with TemporaryDirectory(dir=final.parent, prefix=".catalogue-") as scratch:
        parts = [Path(scratch) / f"{i}.arrow" for i in range(buckets)]
        _scatter(_tables(source, unsaid, schema), parts, schema)
        _refuse_other_numbers(source.path, source.unread)
        with (
            replacing(final) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            for part in parts:
                with pa.memory_map(str(part)) as stream:
                    table = pa.ipc.open_stream(stream).read_all().sort_by("key").combine_chunks()
                _refuse_repeats(source.path, source.names["key"], table["key"].combine_chunks())
                batches = table.to_batches()
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema))


def _tables(source: _Source, unsaid: Unsaid | None, schema: pa.Schema) -> Iterator[pa.Table]:
    names = source.names
    for batch in source.batches():
        columns = {"key": id_texts(batch[names["key"]], names["key"], source.path)}
        if source.names_files:
            columns["key"] = mapped(
                pa.chunked_array([columns["key"]]), lambda name: stem_of(name, source.depth), pa.string()
            )
        nothing, lost = where_unsaid(batch, source.others, unsaid), dict[str, int]()
        for name in source.wanted:
            columns[name], theirs = _column(source, name, batch[names[name]]), names[name]
            if theirs in nothing:
                said = columns[name].is_valid().to_numpy(zero_copy_only=False)
                lost[theirs] = int(np.count_nonzero(nothing[theirs] & said))  # once, whatever asks for it
                columns[name] = pc.if_else(
                    pa.array(nothing[theirs]), pa.nulls(len(said), columns[name].type), columns[name]
                )
        source.lost.update(lost)
        table = pa.table(columns, schema=schema)
        if (again := _again(batch, source.others, unsaid)) is not None:
            table = table.filter(pa.array(~again))
        yield table.filter(pc.is_valid(table["key"]))


def _again(table: pa.Table, others: Mapping[str, str], unsaid: Unsaid | None) -> npt.NDArray[np.bool_] | None:
    """The rows that repeat another row's object, as the survey's own flags say; see `Unsaid.again`."""
    return None if unsaid is None or not others else unsaid.again(_numbers(table, others, unsaid))


def where_unsaid(
    table: pa.Table, others: Mapping[str, str], unsaid: Unsaid | None
) -> dict[str, npt.NDArray[np.bool_]]:
    """Column -> the rows in which it says nothing; see `Survey.unsaid`.

    Args:
        others: `unsaid_columns` of the table, also of several surveys.
    """
    if unsaid is None or not others:
        return {}
    return {others[low]: lost for low, lost in unsaid.where(_numbers(table, others, unsaid)).items()}


def _numbers(table: pa.Table, others: Mapping[str, str], unsaid: Unsaid) -> dict[str, npt.NDArray[np.float64]]:
    own = {low: table[name] for low, name in others.items() if low in unsaid.columns}
    return {low: label_numbers(column)[0].to_numpy(zero_copy_only=False) for low, column in own.items()}


def _column(source: _Source, name: str, column: pa.ChunkedArray) -> pa.Array:
    """A column as it is kept."""
    (kind, convert), path, theirs = source.wanted[name], source.path, source.names[name]
    check_type(column.type, f"{path}: {theirs}")
    if pa.types.is_boolean(column.type) and name in LIMITS:
        raise UsageError(f"{path}: {theirs} holds true and false, where numbers belong")
    if kind != pa.float64():
        return mapped(column, convert, kind)
    if source.wanted[name] is _MORE_NUMBER:
        return label_numbers(column, is_known=False)[0]
    if source.wanted[name] is _EXACT:
        refuse_large(column, f"{path}: {theirs}")
    numbers, words = label_numbers(column, is_known=name in LIMITS)
    if words and name not in (*LABELS, *SN, *POSITION):
        raise UsageError(
            f"{path}: {theirs} is compared with numbers and holds {words[0][:40]!r}; compare it with text in quotes"
        )
    for word in words:
        source.unread.add(name, word, f"in {theirs}")
    return _in_our_unit(numbers, name, source)


def _in_our_unit(numbers: pa.Array, name: str, source: _Source) -> pa.Array:
    """A label in the unit that its column has here; where the catalogue says another one, converted.

    Raises:
        UsageError: no unit of that.
    """
    theirs = source.names[name]
    said, ours = source.rows.units.get(theirs), _UNITS.get(name)
    if said is None or ours is None:
        return numbers
    from astropy import units

    try:
        factor = units.Unit(said).to(ours)
    except (ValueError, TypeError, units.UnitConversionError):
        raise UsageError(f"{source.path}: {theirs} is in {said[:40]}, of which no {ours} can be made") from None
    return numbers if factor == 1 else pc.multiply(numbers, factor)


_UNITS = {name: each.unit for each in (*NUMBERS, *POSITIONS) if each.unit for name in each.columns}


def _refuse_other_numbers(path: Path, unread: Impossible) -> None:
    for name, examples in unread.examples.items():
        for value, _ in examples:
            if _DECIMAL_COMMA.fullmatch(value):
                raise UsageError(f"{path}: {name} is written with decimal commas ({value}); write decimal points")
            if name in POSITION and _SEXAGESIMAL.match(value):
                raise UsageError(f"{path}: {name} is in sexagesimal ({value}): give degrees")


def _scatter(tables: Iterator[pa.Table], parts: Sequence[Path], schema: pa.Schema) -> None:
    writers = [pa.ipc.new_stream(str(part), schema) for part in parts]
    try:
        for table in tables:
            if len(parts) == 1:
                writers[0].write_table(table)
                continue
            bucket = pa.array([bucket_of(key, len(parts)) for key in table["key"].to_pylist()])
            for index, writer in enumerate(writers):
                writer.write_table(table.filter(pc.equal(bucket, index)))
    finally:
        for writer in writers:
            writer.close()


def bucket_of(key: str, buckets: int) -> int:
    """Which of the file's record batches holds a key."""
    return crc32(key.encode()) % buckets


def _refuse_repeats(path: Path, key: str, keys: pa.Array) -> None:
    again = keys.slice(1).filter(pc.equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1))))
    if len(again):
        examples = ", ".join(again.slice(0, 3).to_pylist())
        raise _RepeatsError(
            f"{path}: {key} repeats in {len(again)} rows (such as {examples}); keep one row per spectrum"
        )
