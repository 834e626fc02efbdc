"""Which file goes to which part, decided once and kept: what is new is appended, what changed is done again.

`ingest/plan.parquet` lists every input file, its name `escaped`, with a stamp of its content and its part. A rerun
compares it with what is there now: an unchanged file stays in its part, a part with a changed or lost file is redone,
and new files make new parts at the end, in a seeded random order, so that row groups are mixed from the start.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.errors import is_environment
from specshards.common.files import replacing
from specshards.common.messages import LOGGER
from specshards.common.text import escaped
from specshards.ingest.surveys import companions

_SCHEMA = pa.schema([("file", pa.string()), ("bytes", pa.int64()), ("stamp", pa.binary(8)), ("part", pa.int32())])
# Files of many spectra are large; a part of them is bounded by bytes, or one worker would have them all.
_PART_BYTES = 1 << 30


@dataclass(frozen=True)
class Part:
    """Files of one task, in the order of reading; `stamp` changes with any of them."""

    number: int
    files: tuple[str, ...]
    bytes: int
    stamp: str


def make_plan(root: Path, files: Sequence[str], path: Path, *, files_per_part: int, seed: int) -> list[Part]:
    """Bring the plan at `path` up to date with `files`, and return its parts that hold any."""
    table = _stamped(root, files)
    if (old := _earlier(path)) is not None:
        at = pc.index_in(table["file"], value_set=old["file"].combine_chunks())
        part = old["part"].take(at)
    else:
        part = pa.nulls(table.num_rows, pa.int32())
        old = _SCHEMA.empty_table()
    first_new = 1 + (pc.max(old["part"]).as_py() if old.num_rows else -1)
    numbers = part.to_numpy(zero_copy_only=False).astype(np.float64)
    new = np.flatnonzero(np.isnan(numbers))
    order = new[np.random.default_rng([seed, first_new]).permutation(len(new))]
    numbers[order] = first_new + _cut(table["bytes"].to_numpy()[order], files_per_part)
    table = table.append_column("part", pa.array(numbers.astype(np.int32)))
    # The order of reading: known files as they stood, then the new ones as permuted.
    place = np.empty(table.num_rows, np.int64)
    known = np.flatnonzero(~np.isnan(part.to_numpy(zero_copy_only=False).astype(np.float64)))
    if len(known):
        place[known] = at.take(pa.array(known)).to_numpy()
    place[order] = old.num_rows + np.arange(len(order))
    reading = np.lexsort((place, table["part"].to_numpy()))
    table = table.take(pa.array(reading))
    with replacing(path) as temporary:
        pq.write_table(table.cast(_SCHEMA), temporary, compression="zstd")
    return list(_parts(table, [files[i] for i in reading.tolist()]))


def _earlier(path: Path) -> pa.Table | None:
    """The plan that is there; None where there is none that this program can have written: it is made again."""
    try:
        old = pq.ParquetFile(path).read()
        if old.schema.equals(_SCHEMA) and not any(column.null_count for column in old.columns):
            parts = pc.min_max(old["part"]).as_py()
            if not old.num_rows or (parts["min"] >= 0 and parts["max"] < 2**31 - 1 - 2 * old.num_rows):
                return old
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
    LOGGER.info(f"{path}: not what this program writes, or damaged; made again")
    return None


def _stamped(root: Path, files: Sequence[str]) -> pa.Table:
    sizes, stamps = np.empty(len(files), np.int64), []
    for i, name in enumerate(files):
        sizes[i], identity = _stamp(root / name)
        for other in companions(name):  # a coadd is read with its labels, and again when these change
            if os.path.isfile(root / other):  # noqa: PTH113 - which has no errors
                identity += f" {other} {_stamp(root / other)[1]}"
        stamps.append(hashlib.blake2b(os.fsencode(identity), digest_size=8).digest())
    names = pa.array(map(escaped, files), pa.string())
    return pa.table({"file": names, "bytes": sizes, "stamp": pa.array(stamps, pa.binary(8))})


def _stamp(path: Path) -> tuple[int, str]:
    """Bytes of a file, and what changes with its content or with whether it can be read."""
    try:
        status = path.stat()
    except OSError as error:  # whoever opens it says why that cannot be
        return 0, f"error {error.errno}"
    if not stat.S_ISREG(status.st_mode):
        return 0, f"mode {status.st_mode}"
    return status.st_size, f"{status.st_size} {status.st_mtime_ns}"


def _cut(sizes: npt.NDArray[np.int64], files_per_part: int) -> npt.NDArray[np.int64]:
    """Part numbers from 0, so that none has more than `files_per_part` files or (but for one file) 1 GiB."""
    numbers = np.zeros(len(sizes), np.int64)
    number, count, total = 0, 0, 0
    for i, size in enumerate(sizes.tolist()):
        if count and (count == files_per_part or total + size > _PART_BYTES):
            number, count, total = number + 1, 0, 0
        numbers[i], count, total = number, count + 1, total + size
    return numbers


def _parts(table: pa.Table, names: Sequence[str]) -> Iterator[Part]:
    numbers = table["part"].to_numpy()
    edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=np.iinfo(np.int32).max))
    for start, stop in pairwise(edges.tolist()):
        rows = table.slice(start, stop - start)
        stamp = "\0".join(rows["file"].to_pylist()).encode() + b"".join(rows["stamp"].to_pylist())
        files = tuple(names[start:stop])
        yield Part(int(numbers[start]), files, pc.sum(rows["bytes"]).as_py(), hashlib.sha256(stamp).hexdigest())
