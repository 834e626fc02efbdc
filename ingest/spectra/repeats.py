"""Spectra of a folder that have one id: repeated visits, exact copies of them, and ids that name two objects.

Only the columns of ids and positions are read, and the pixels of visits that look like copies. See
`common.identity` for what is what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError, JobError, UsageError, shortened
from specshards.common.further import number_text
from specshards.common.identity import Floats, Hashes, Repeats, Rows, among, id_hashes, judge, repeated
from specshards.common.label_columns import sifted
from specshards.common.text import escaped
from specshards.ingest.ids import exact_ids, id_text, is_text
from specshards.ingest.spectra.blocks import iter_blocks, read_blocks
from specshards.ingest.spectra.folder import SpectraFolder, columns_of, open_table
from specshards.ingest.surveys import multimodal_universe as mmu


@dataclass(frozen=True)
class Identities:
    """Who the rows of a folder are: all `(n,)`, in the order of the rows.

    Attributes:
        hashes: of survey and id, uint64. ra, dec: degrees, NaN where there is none. sn_median: NaN where unknown.
    """

    hashes: Hashes
    ra: Floats
    dec: Floats
    sn_median: npt.NDArray[np.float32]


def read_identities(source: SpectraFolder) -> Identities:
    """The identities of every row, 28 bytes each.

    Raises:
        JobError: a damaged file. UsageError: ids that are none.
    """
    tables = [_columns(source, file, first) for file, first in _files(source)]
    parts = zip(*((t.hashes, t.ra, t.dec, t.sn_median) for t in tables), strict=True)
    return Identities(*(np.concatenate(part) for part in parts))


def read_names(source: SpectraFolder, file: str, group: str | None = None) -> dict[str, pa.ChunkedArray]:
    """`survey`, `object_id` and `source_file` of the rows of a file, as text.

    Args:
        group: a further column that is wanted, as it is beside the shards; null where the file does not have it.

    Raises:
        JobError: a damaged file. UsageError: ids that are none.
    """
    surveys, ids, table = _read(source, file, ("source_file",))
    own = "source_file" in table.column_names
    files = table["source_file"].cast(pa.string()) if own else pa.repeat(escaped(file), len(ids))
    found = {"survey": surveys, "object_id": ids, "source_file": files}
    return found if group is None or group in found else {**found, group: _group(source, file, group, len(ids))}


def group_columns(source: SpectraFolder) -> list[str]:
    """The columns by which the spectra of a folder can be put together, in order of name.

    Raises:
        JobError: a damaged file.
    """
    names: set[str] = set()
    foreign = {group.file for group in source.groups if group.survey is not None}
    for file, _ in _files(source):
        if file in foreign:
            for block in read_blocks(source.folder, source.of_file[file][0], source.surveys):
                names.update(block.meta.column_names)
                break
        else:
            names.update(open_table(source.folder / file).names)
    return sorted(names - {"spectrum", "lsf_sigma", "_healpix_29"})


def _group(source: SpectraFolder, file: str, name: str, rows: int) -> pa.ChunkedArray:
    """A column of a file as its blocks have it; of others' Parquet the spectra are read for that."""
    groups = source.of_file[file]
    if groups[0].survey is None:
        table = open_table(source.folder / file)
        if name not in table.names:
            return pa.chunked_array([pa.nulls(rows, pa.string())])
        try:
            return sifted(table.read([name]))[0][name]
        except (pa.ArrowException, OSError) as error:
            raise JobError(f"{source.folder / file}: damaged Parquet ({shortened(error)})") from error
    values: list[object] = [None] * rows
    for _, block in iter_blocks(replace(source, groups=tuple(groups))):
        if name in block.meta.column_names:
            for row, value in zip(block.rows.tolist(), block.meta[name].to_pylist(), strict=True):
                values[row - groups[0].first_row] = value
    kinds = {type(value) for value in values} - {type(None)}
    texts = values if len(kinds) < 2 else [number_text(v) if isinstance(v, float) else v for v in values]
    return pa.chunked_array([pa.array(texts, None if kinds else pa.string())])


def find_repeats(source: SpectraFolder, who: Identities | None = None, *, copies: bool = True) -> Repeats:
    """What the rows with one id are.

    Args:
        who: all identities, where they have been read; otherwise this takes 16 bytes a row.
        copies: compare the pixels of visits that agree in place and S/N.

    Raises:
        JobError: a damaged file. UsageError: ids that are none.
    """
    files = _files(source)
    if who is not None:
        values = repeated([who.hashes])
        rows = np.flatnonzero(among(who.hashes, values))
        found = (who.hashes[rows], rows, who.ra[rows], who.dec[rows], who.sn_median[rows])
    else:
        hashes = [_columns(source, file, first).hashes for file, first in files]
        values = repeated(hashes)
        suspects = []
        for (file, first), part in zip(files, hashes, strict=True):
            at = np.flatnonzero(among(part, values))
            if len(at):
                one = _columns(source, file, first)
                suspects.append((part[at], first + at, one.ra[at], one.dec[at], one.sn_median[at]))
        if not suspects:
            return Repeats()
        found = tuple(np.concatenate(part) for part in zip(*suspects, strict=True))  # type: ignore[assignment]
    repeats = judge(*found[:4], lambda rows: _names(source, rows))
    return replace(repeats, copies=_copies(source, repeats, *found[1:])) if copies else repeats


def _files(source: SpectraFolder) -> list[tuple[str, int]]:
    """Every file and the number of its first row, in the order of the rows."""
    starts: dict[str, int] = {}
    for group in source.groups:
        starts.setdefault(group.file, group.first_row)
    return sorted(starts.items(), key=lambda item: item[1])


def _columns(source: SpectraFolder, file: str, first_row: int) -> Identities:
    surveys, ids, table = _read(source, file, ("ra", "dec", "sn_median"))

    def numbers(name: str) -> Floats:
        if name not in table.column_names:
            return np.full(len(table), np.nan)
        return np.asarray(table[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))

    ra, dec = numbers("ra"), numbers("dec")
    with np.errstate(invalid="ignore"):
        unplaced = ~(np.isfinite(ra) & (np.abs(dec) <= 90))
    ra, dec = np.where(unplaced, np.nan, ra), np.where(unplaced, np.nan, dec)
    return Identities(id_hashes(surveys, ids, first_row), ra, dec, numbers("sn_median").astype(np.float32))


def _read(source: SpectraFolder, file: str, more: Sequence[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.Table]:
    """Surveys and ids of a file as text, and further columns under our names, where it has them."""
    path = source.folder / file
    try:
        table = open_table(path)
        if mmu.is_own(table):
            names = {name: name for name in ("object_id", "survey", *more) if name in table.names}
            whose = None
        else:
            columns = columns_of(table)
            names = {name: columns.labels[name] for name in ("object_id", "survey", *more) if name in columns.labels}
            whose = source.of_file[file][0].survey
        found = table.read(list(dict.fromkeys(names.values())))
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path}: damaged Parquet ({shortened(error)})") from error
    ids = _ids(found[names["object_id"]], names["object_id"], path)
    if whose is None:
        surveys = found["survey"].cast(pa.string())
    elif "survey" in names:
        surveys = mmu.survey_names(found[names["survey"]], whose)
    else:
        surveys = pa.chunked_array([pa.array([whose] * len(found), pa.string())])
    return (
        surveys,
        ids,
        found.select([names[name] for name in more if name in names]).rename_columns(
            [name for name in more if name in names]
        ),
    )


def _ids(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([exact_ids(column, name)])
    except BadObjectError as error:
        if not is_text(column.type):
            raise UsageError(f"{path}: {error}") from error
        # A text that is no id is a bad object, and like no other.
        return pa.chunked_array([pa.array([_id_or_none(value, name) for value in column.to_pylist()], pa.string())])


def _id_or_none(value: str | bytes | None, name: str) -> str | None:
    try:
        return id_text(value, name)
    except BadObjectError:
        return None


def _names(source: SpectraFolder, rows: Rows) -> list[tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    files = _files(source)
    ends = [first for _, first in files[1:]] + [source.rows]
    for (file, first), end in zip(files, ends, strict=True):
        at = rows[(rows >= first) & (rows < end)]
        if len(at):
            surveys, ids, _ = _read(source, file, ())
            places = pa.array(at - first)
            pairs = zip(surveys.take(places).to_pylist(), ids.take(places).to_pylist(), strict=True)
            found |= dict(zip(at.tolist(), pairs, strict=True))
    return [found[row] for row in rows.tolist()]


def _copies(
    source: SpectraFolder, repeats: Repeats, rows: Rows, ra: Floats, dec: Floats, sn: npt.NDArray[np.float32]
) -> int:
    """Visits that are an earlier one of their object to the last bit of every pixel.

    Only those are read that agree in place and S/N with another visit.
    """
    order = np.argsort(rows)
    number = rows[order]
    facts = np.column_stack([ra, dec, sn.astype(np.float64)])[order].view(np.int64)
    leader = dict(zip(repeats.again.tolist(), repeats.first.tolist(), strict=True))
    visits = np.union1d(repeats.first, repeats.again)
    alike: dict[tuple[int, ...], list[int]] = {}
    for row, fact in zip(visits.tolist(), facts[np.searchsorted(number, visits)].tolist(), strict=True):
        alike.setdefault((leader.get(row, row), *fact), []).append(row)
    wanted = {row: key[0] for key, members in alike.items() if len(members) > 1 for row in members}
    places = np.array(sorted(wanted), np.int64)
    groups = [g for g in source.groups if np.diff(np.searchsorted(places, [g.first_row, g.first_row + g.rows]))]
    seen: set[tuple[int, bytes]] = set()
    copies = 0
    for _, block in iter_blocks(replace(source, groups=tuple(groups))):
        for i, row in enumerate(block.rows.tolist()):
            if row not in wanted:
                continue
            digest = hashlib.blake2b(digest_size=16)
            for values in block.arrays(i):
                digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
            mark = (wanted[row], digest.digest())
            copies += mark in seen
            seen.add(mark)
    return copies
