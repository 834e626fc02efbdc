"""Copying a subset: a first pass over a few columns chooses (`ingest.catalogue.choose`), a second copies whole rows.

Two kinds of input look alike to the first pass: a catalogue, and the spectra Parquet of `ingest build`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from glob import has_magic
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from specshards.common.errors import JobError, UsageError, is_environment, shortened
from specshards.common.files import replacing, sha256
from specshards.common.folder import locked
from specshards.common.further import FurtherColumn, further_of, united, with_further
from specshards.common.identity import id_hashes, judge
from specshards.common.json import parse
from specshards.common.messages import LOGGER
from specshards.common.spectrum import SN_SURVEY, SURVEY_SN
from specshards.common.text import count
from specshards.ingest.catalogue.choose import RowNumbers, Selection, SelectionCounts, find_roles
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.catalogue.rows import Rows, open_rows
from specshards.ingest.ids import id_texts
from specshards.ingest.spectra.ended import check_ended
from specshards.ingest.spectra.folder import open_table
from specshards.ingest.spectra.schema import LSF, SCHEMA, schema_of, spectra_writer, upgraded
from specshards.ingest.surveys.multimodal_universe import is_own
from specshards.ingest.tables import TableFile, parquet_files

# Of spectra: the row groups of `ingest build`, and 4096 rows a file. Of a catalogue: rows of a kilobyte or two.
_SPECTRA_ROWS, _PART_GROUPS = 128, 32
_CATALOGUE_ROWS = 32_768
_SCRATCH = ".select-"
#: Who and where, with names in full: parts of a data set have different dictionaries.
_PLAIN = pa.schema([("survey", pa.string()), ("object_id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64())])


def select(source: Path, out: Path, config: SelectConfig, *, force: bool = False) -> SelectionCounts:
    """Write the chosen rows of `source`, whole and in their order, to `out`, and print the account.

    A catalogue is read twice, a batch of rows at a time; of spectra only the row groups that hold a chosen one. The
    memory is that of `per_class` pairs of numbers for each class and survey; without it, of every row within the cut.

    Raises:
        UsageError: wrong arguments, no such file or column, a chosen id that repeats in a catalogue, or at
            another place among spectra, or `out` is in use.
        JobError: nothing to select, damaged spectra, or the environment failed.
    """
    files = _spectra_files(source)
    check_ended(files or [])
    _check_out(source, out, files is not None, config, force)
    with locked(out.with_name(f".{out.name}.lock") if files is None else out / f"{_SCRATCH}lock", out):
        _check_out(source, out, files is not None, config, force)  # what another process wrote since
        return _select(source, files, out, config, force)


def _select(source: Path, files: list[Path] | None, out: Path, config: SelectConfig, force: bool) -> SelectionCounts:
    rows = open_rows(source) if files is None else _spectra_rows(files)
    roles = find_roles(source, rows.columns, config, is_catalogue=files is None)
    selection = Selection(roles, config)
    for first, table in _numbered(rows, list(dict.fromkeys(roles.names.values())), "choose"):
        selection.add(table, first)
    counts = selection.counts()
    LOGGER.info(counts.table())
    if counts.listed != counts.selected + counts.not_selected:
        raise JobError(f"{source}: the account does not add up")
    if not counts.selected:
        raise JobError(f"{source}: no object is selected; see the reasons above, and change --where or --survey")
    if files is None:
        _refuse_repeats(source, rows, roles.names["id"], selection.repeats())
        _copy_rows(source, rows, selection.rows(), out, config, force)
    else:
        _refuse_ambiguous(source, rows, selection.repeats())
        _copy_spectra(files, selection.rows(), out, config, force)
    return counts


def _check_out(source: Path, out: Path, of_spectra: bool, config: SelectConfig, force: bool) -> None:
    mine, theirs = out.resolve(), source.resolve()
    if mine == theirs or (of_spectra and (mine in theirs.parents or theirs in mine.parents)):
        raise UsageError(f"{out}: --from and --out must lie apart; choose another --out")
    if not of_spectra and (out.is_dir() or out.suffix != ".parquet"):
        raise UsageError(f"{out}: a subset of a catalogue is one table; give --out a name that ends in .parquet")
    if of_spectra and (out.is_file() or out.suffix == ".parquet"):
        raise UsageError(f"{out}: a subset of spectra is a folder of Parquet files; give --out a folder")
    there = [out] if out.is_file() else list(out.iterdir()) if out.is_dir() else []
    there = [path for path in there if not path.name.startswith(_SCRATCH)]
    if not force and not all(_may_be_ours(path, of_spectra, config) for path in there):
        raise _used(out)


def _used(out: Path) -> UsageError:
    return UsageError(f"{out}: holds something already; choose another --out, or --force to replace it")


def _may_be_ours(path: Path, of_spectra: bool, config: SelectConfig) -> bool:
    """Whether a file says that it was selected as it is now; whether it is this subset, its bytes tell later."""
    if of_spectra and not path.match("part-*.parquet"):
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
        said = parse(metadata[b"specshards.config" if of_spectra else b"specshards.select"].decode(), nan=True)
        return bool((said["select"] if of_spectra else said) == asdict(config))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError):
        return False


def _refuse_others(out: Path, there: Sequence[Path], new: Mapping[str, Path]) -> None:
    """UsageError where a file that is there is not byte for byte the new one of its name.

    A run that was killed once its subset was whole, or on the way to that, goes on by being made again.
    """
    for path in there:
        if path.name not in new or sha256(path) != sha256(new[path.name]):
            raise _used(out)
    if there:
        LOGGER.info(f"{out}: {len(there)} of the subset's {count(len(new), 'file', 'files')} there already")


def _numbered(rows: Rows, columns: Sequence[str] | None, what: str) -> Iterator[tuple[int, pa.Table]]:
    """Batches of rows, each with the number of its first one, and a progress line."""
    bar: tqdm[NoReturn] = tqdm(
        total=rows.total, desc=what, unit="row", unit_scale=True, file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
    )  # fmt: skip
    first = 0
    with bar:
        for table in rows.tables(columns):
            yield first, table
            first += len(table)
            bar.update(len(table))


def _refuse_repeats(source: Path, rows: Rows, key: str, suspects: RowNumbers) -> None:
    if not len(suspects):
        return
    few = suspects[:1000]
    ids: dict[int, str] = {}
    for first, table in _numbered(rows, [key], "look at repeats"):
        for at in few[(few >= first) & (few < first + len(table))].tolist():
            ids[at] = id_texts(table[key].slice(at - first, 1), key, source)[0].as_py()
    again = [name for name, count in Counter(ids[at] for at in few.tolist()).items() if count > 1]
    if again:  # otherwise different ids have one hash, and are different objects
        raise UsageError(
            f"{source}: {key} repeats in {len(suspects):,} rows (such as {', '.join(again[:3])}); "
            "keep one row per spectrum"
        )


def _refuse_ambiguous(source: Path, rows: Rows, suspects: RowNumbers) -> None:
    """Of spectra, an id may repeat at one place: these are visits of one object."""
    if not len(suspects):
        return
    names, wanted = ["survey", "object_id", "ra", "dec"], np.sort(suspects)
    pieces = (_taken(table, first, wanted) for first, table in _numbered(rows, names, "look at repeats"))
    table = pa.concat_tables(piece.cast(_PLAIN) for piece in pieces)
    surveys, ids, ra, dec = (table[name] for name in names)

    def exact(places: RowNumbers) -> list[tuple[str, str]]:
        some = table.take(pa.array(np.searchsorted(wanted, places)))
        return list(zip(some["survey"].to_pylist(), some["object_id"].to_pylist(), strict=True))

    found = judge(id_hashes(surveys, ids), wanted, ra.to_numpy(), dec.to_numpy(), exact)
    if found.ambiguous:
        raise UsageError(f"{source}: {found.shown()}; give each object an id of its own")
    for line in found.lines():
        LOGGER.info(line)


def _copy_rows(source: Path, rows: Rows, chosen: RowNumbers, out: Path, config: SelectConfig, force: bool) -> None:
    pieces = _gathered(
        (_taken(table, first, chosen) for first, table in _numbered(rows, None, "copy")), _CATALOGUE_ROWS
    )
    start = next(pieces, pa.table({}))
    note = {**(start.schema.metadata or {}), "specshards.select": json.dumps(asdict(config), sort_keys=True)}
    schema, written = start.schema.with_metadata(note), 0
    with replacing(out) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in chain([start], pieces):
                writer.write_table(table, row_group_size=_CATALOGUE_ROWS)
                written += len(table)
        _check_written(source, written, chosen)
        if out.is_file() and not force:
            _refuse_others(out, [out], {out.name: temporary})


def _check_written(source: Path, written: int, chosen: RowNumbers) -> None:
    if written != len(chosen):
        raise JobError(f"{source}: gave {written:,} of {len(chosen):,} rows: it changed while it was read; run again")


def _taken(table: pa.Table, first: int, chosen: RowNumbers) -> pa.Table:
    low, high = np.searchsorted(chosen, [first, first + len(table)])
    return table.take(pa.array(chosen[low:high] - first))


def _gathered(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows`, but for the last, so that nothing written tells how they were read."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        if not len(table):
            continue
        waiting.append(table)
        size += len(table)
        while size >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()
            waiting, size = [whole.slice(rows)], size - rows
    if size:
        yield pa.concat_tables(waiting).combine_chunks()


def _spectra_files(source: Path) -> list[Path] | None:
    """The files of spectra Parquet at `source`; None where that is a catalogue, or nothing."""
    if source.is_file():
        try:
            is_spectra = TableFile.is_parquet(source) and "spectrum" in pq.read_schema(source).names
        except pa.ArrowException:
            is_spectra = False  # damaged: whoever reads it as a catalogue says so
        return [source] if is_spectra else None
    if not source.is_dir() and not has_magic(str(source)):
        return None
    files = parquet_files(source)[1]
    if not files:
        raise UsageError(f"{source}: no spectra Parquet there; give --from a folder of it, or a catalogue")
    return files


def _open_spectra(path: Path) -> TableFile:
    file = open_table(path)
    if not is_own(file):
        raise UsageError(
            f"{path}: not spectra Parquet of `specshards ingest build`; ingest it first, and give the folder spectra/"
        )
    return file


def _spectra_rows(files: Sequence[Path]) -> Rows:
    """Every column but the spectra, as if they were a catalogue."""

    def tables(wanted: Sequence[str] | None) -> Iterator[pa.Table]:
        for path in files:
            asked = columns if wanted is None else wanted
            with _named(path):
                file = _open_spectra(path)
                for group in range(len(file.groups)):
                    names = dict.fromkeys([*asked, "survey", *(SURVEY_SN if SN_SURVEY in asked else ())])
                    table = upgraded(file.read(list(names), group))
                    wanted_further = {name: further[name] for name in asked if name in further}
                    yield with_further(table, wanted_further).select(asked)

    def batches(wanted: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        for table in tables(wanted):
            yield table.to_pydict()

    further = _further(files)
    columns = [*(name for name in SCHEMA.names if name not in ("spectrum", LSF)), *further]
    return Rows(tuple(columns), sum(_open_spectra(path).rows for path in files), batches, tables)


def _further(files: Sequence[Path]) -> dict[str, FurtherColumn]:
    """The further columns of all files."""
    return united((further_of(_open_spectra(path).schema) for path in files), str(files[0].parent))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
        raise JobError(f"{path}: damaged Parquet ({shortened(error)}); ingest it again") from error


def _copy_spectra(files: Sequence[Path], chosen: RowNumbers, out: Path, config: SelectConfig, force: bool) -> None:
    for leftover in filter(Path.is_dir, out.glob(f"{_SCRATCH}*")):  # of a run that was killed
        shutil.rmtree(leftover)
    configs = {_open_spectra(path).metadata.get(b"specshards.config", b"{}") for path in files}
    note = {"select": asdict(config), "ingest": _parsed(files[0].parent, configs)}
    with TemporaryDirectory(dir=out, prefix=_SCRATCH) as scratch:
        written = _write_parts(_gathered(_read_chosen(files, chosen), _SPECTRA_ROWS), Path(scratch), note)
        _check_written(files[0].parent, written, chosen)
        parts, there = sorted(Path(scratch).iterdir()), sorted(out.glob("part-*.parquet"))
        if not force:
            _refuse_others(out, there, {part.name: part for part in parts})
        # Only now, so that a failure leaves what was there. Killed within these lines, the same command goes on.
        for old in there if force else ():
            old.unlink()
        for part in parts:
            os.replace(part, out / part.name)


def _parsed(folder: Path, configs: set[bytes]) -> list[Any]:
    """What each file says that it was made with."""
    try:
        return [parse(text.decode("utf-8"), nan=True) for text in sorted(configs)]
    except ValueError as error:
        raise JobError(
            f"{folder}: specshards.config in the Parquet is not what this program writes ({shortened(error)}); "
            "ingest it again"
        ) from error


def _read_chosen(files: Sequence[Path], chosen: RowNumbers) -> Iterator[pa.Table]:
    """The chosen spectra; row groups without one are not read.

    As Arrow from end to end: blocks of `ingest.spectra.blocks` are numbers to draw, and would be packed again.
    """
    arrays = [field.name for field in SCHEMA.field("spectrum").type]
    first, further = 0, _further(files)
    for path in files:
        file = _open_spectra(path)
        for group, rows in enumerate(file.groups):
            low, high = np.searchsorted(chosen, [first, first + rows])
            if low < high:
                with _named(path):
                    start = first
                    for table in file.slices(file.names, arrays, group):
                        yield with_further(upgraded(_taken(table, start, chosen)), further)
                        start += len(table)
            first += rows


def _write_parts(groups: Iterator[pa.Table], folder: Path, note: Mapping[str, Any]) -> int:
    written = part = 0
    group = next(groups, None)
    while group is not None:
        with spectra_writer(folder / f"part-{part:05d}.parquet", note) as writer:
            for table in chain([group], islice(groups, _PART_GROUPS - 1)):
                writer.write_table(_plain(table), row_group_size=_SPECTRA_ROWS)
                written += len(table)
        part, group = part + 1, next(groups, None)
    return written


def _plain(table: pa.Table) -> pa.Table:
    """With dictionaries in the order of the rows: those that were read depend on rows that were not chosen."""
    schema = schema_of(further_of(table.schema))
    columns = []
    for field in schema:
        column = table[field.name]
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type).dictionary_encode()
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)
