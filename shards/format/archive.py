"""A split's samples on local disk: files and indices are opened when needed, and few are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specshards.common.cache import Cache
from specshards.common.errors import JobError, UsageError, is_environment, one_line, shortened
from specshards.common.files import is_remote, sha256
from specshards.common.label_columns import only_possible, sifted, with_sn_survey
from specshards.common.spectrum import SN_SURVEY, SURVEY_SN
from specshards.shards.format.handles import HANDLES, Handle
from specshards.shards.format.index import ShardIndex, end_of
from specshards.shards.format.manifest import NPY_HEADER_BYTES, Manifest, key, label_npy
from specshards.shards.format.nearby import check_listed, listed, nearby_sidecar
from specshards.shards.format.tar import BLOCK

#: The mend of whatever changed after it was written.
RERUN = "run the same `make shards` again: it mends damaged shards"

_INTS = npt.NDArray[np.int64]
_NOTHING = np.empty(0, np.uint8)
#: Samples whose places are kept in memory, 24 bytes each: two windows of the loader's order (`loader.order.WINDOW`).
_KEPT = 131_072
#: What a tar counts towards it beside its samples, and the samples beyond which it counts no more: a large one is a
#: window of its own, and must not drive out those beside it.
_LEAST, _MOST = 4, 65_536


@dataclass(frozen=True)
class Samples:
    """B samples as they are stored, in the order in which they were asked for.

    Attributes:
        shards, offsets, rows: int64 `(B,)`: numbers of their tars, where they begin there, and keys as numbers.
        payloads: uint8, the stored bytes of each: views of the mapped files.
        members: uint8 `(B, bytes of a label vector's member)`, zeros where the tar ends before.
    """

    shards: _INTS
    offsets: _INTS
    rows: _INTS
    payloads: list[npt.NDArray[np.uint8]]
    members: npt.NDArray[np.uint8]


class Archive:
    """The tars of one split, or of several data sets', as one sequence of samples.

    Memory and open files are bounded, whatever the number and sizes of the tars: indices and maps are kept of two
    windows of samples, and of all archives of a process as many maps as `HANDLES` says; no file stays open.

    Attributes:
        tars: the files; starts: int64 `(len(tars) + 1,)`, where each begins among all samples.
    """

    def __init__(
        self, tars: Sequence[Path], samples: Sequence[int], extension: str, labels: Sequence[str],
        opened: Callable[[int], None] = lambda number: None,
        opening: Callable[[int], AbstractContextManager[Path]] | None = None,
    ) -> None:  # fmt: skip
        """`labels` are the manifest's; `opened` is told of each tar whose index is read.

        `opening` gives the file to open for a number, while it is opened: `tars` may lie elsewhere.
        """
        self._opened, self._token = opened, object()
        self._opening = opening or (lambda number: nullcontext(self.tars[number]))
        self.tars, self._extension = tuple(tars), extension
        self._names = tuple(labels)
        member = label_npy(np.zeros(len(labels)))
        self._label_bytes, self._label_header = len(member), np.frombuffer(member[:NPY_HEADER_BYTES], np.uint8)
        self.starts = np.concatenate([[0], np.cumsum(samples)]).astype(np.int64)
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._kept = 0

    def _shard(self, number: int) -> tuple[Handle, ShardIndex]:
        """One tar and its index; the indices not used for longest are let go."""
        name = self._token, number
        handle, index = HANDLES.get(name), self._indices.get(number)
        if handle is None or index is None or index.identity != handle.identity:
            with self._opening(number) as tar:
                handle, index = self._open(name, tar)
        self._indices.move_to_end(number)
        return handle, index

    def _open(self, name: tuple[object, int], tar: Path) -> tuple[Handle, ShardIndex]:
        _, number = name
        try:
            handle = HANDLES.open(name, tar)
        except OSError as error:
            mend = "" if is_environment(error) else "; run `make shards` again"
            raise JobError(f"{one_line(error)}{mend}") from None
        index = self._indices.get(number)
        if index is not None and index.identity == handle.identity:
            return handle, index
        samples = int(self.starts[number + 1] - self.starts[number])
        fresh = ShardIndex.open(tar.with_suffix(".idx"), handle, samples, self._extension, self._label_bytes)
        self._kept += 0 if index is not None else self._weight(number)
        self._indices[number] = fresh
        self._indices.move_to_end(number)
        self._opened(number)
        while self._kept > _KEPT:
            other, _ = self._indices.popitem(last=False)
            self._kept -= self._weight(other)
            HANDLES.drop((self._token, other))
        return handle, fresh

    def _weight(self, number: int) -> int:
        """What a tar counts towards `_KEPT`."""
        return _LEAST + min(_MOST, int(self.starts[number + 1] - self.starts[number]))

    def read(self, samples: _INTS) -> Samples:
        """Samples by their places among all; each file is turned to once.

        Raises:
            JobError: a tar or its index cannot be read.
        """
        count, total = len(samples), self._label_bytes
        order = np.argsort(samples, kind="stable")
        ordered = samples[order]
        shards = np.searchsorted(self.starts, ordered, side="right") - 1
        found = np.empty((count, 3), np.int64)
        members = np.zeros((count, total), np.uint8)
        payloads: list[npt.NDArray[np.uint8]] = [_NOTHING] * count
        cuts = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), count]
        for first, last in pairwise(cuts):
            number = int(shards[first])
            handle, index = self._shard(number)
            places = ordered[first:last] - self.starts[number]
            table = found[first:last] = index.table[places]
            starts, sizes, _ = table.T.tolist()
            labels = (end_of(table[:, 0], table[:, 1]) + BLOCK).tolist()
            for row, start, size, label in zip(order[first:last].tolist(), starts, sizes, labels, strict=True):
                payloads[row] = handle.view[start : start + size]
                member = handle.view[label : label + total]
                members[row, : len(member)] = member
        back = np.empty(count, np.int64)
        back[order] = np.arange(count)
        return Samples(shards[back], found[back, 0], found[back, 2], payloads, members)

    def vectors(self, samples: Samples) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
        """The label vectors, float64 `(B, labels)`, and why not for each that is damaged."""
        wrong = (samples.members[:, :NPY_HEADER_BYTES] != self._label_header).any(axis=1)
        vectors = samples.members[:, NPY_HEADER_BYTES:].copy().view("<f8")
        return vectors, {int(row): "not a label vector" for row in np.flatnonzero(wrong)}

    def labels(self, samples: Samples) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
        """The same, without numbers that no object can have: NaN is in their place."""
        vectors, wrong = self.vectors(samples)
        only_possible(vectors, self._names)  # of a data set made before they were looked at
        return vectors, wrong

    def where(self, samples: Samples, i: int) -> str:
        """Words for an error in one of them: the tar, the member and where it begins."""
        name = f"{key(int(samples.rows[i]))}.{self._extension}"
        return f"{self.tars[int(samples.shards[i])]}: {name} at byte {samples.offsets[i]}"

    def close(self) -> None:
        """Let go of every file."""
        HANDLES.drop_all(self._token)
        self._indices.clear()
        self._kept = 0


def labels_of(
    table: pa.Table, labels: Sequence[str], classes: Sequence[str], surveys: Sequence[str]
) -> npt.NDArray[np.float64]:
    """The label vectors that rows of a sidecar stand for: float64 `(rows, labels)`, NaN = missing.

    Raises:
        JobError: a column that holds no numbers.
    """
    found = np.full((table.num_rows, len(labels)), np.nan)
    for place, label in enumerate(labels):
        if label not in table.column_names:
            continue
        try:
            if label in ("class", "survey"):
                names = pa.array(list(classes if label == "class" else surveys), pa.string())
                codes = pc.index_in(table[label].cast(pa.string()), value_set=names)
                found[:, place] = codes.cast(pa.float64()).to_numpy(zero_copy_only=False)
            else:
                found[:, place] = table[label].cast(pa.float64()).to_numpy(zero_copy_only=False)
        except (pa.ArrowException, TypeError) as error:
            raise JobError(f"a table beside a tar has no numbers in its column {label} ({error})") from error
    return found


def not_said(vectors: npt.NDArray[np.float64], said: npt.NDArray[np.float64]) -> dict[int, str]:
    """Rows of label vectors that are not what their table has `said`."""
    unlike = ~((vectors == said) | (np.isnan(vectors) & np.isnan(said))).all(axis=1)
    return {int(i): "a label vector that is not what its table says" for i in np.flatnonzero(unlike)}


def check_codes(
    labels: npt.NDArray[np.float64], names: Sequence[str], classes: int, surveys: int | _INTS
) -> dict[int, str]:
    """Rows of label vectors whose class or survey is none of so many (for each row), and what it is."""
    wrong: dict[int, str] = {}
    for label, count in (("class", classes), ("survey", surveys)):
        codes = labels[:, names.index(label)]
        possible = np.isnan(codes) | ((codes >= 0) & (codes < count) & (codes == np.floor(codes)))
        wrong |= {int(i): f"not a label vector: {label} number {codes[i]:g}" for i in np.flatnonzero(~possible)}
    return wrong


def check_files(tars: Sequence[Path], sizes: Sequence[int]) -> None:
    """Refuse missing and cut archives before the first batch rather than hours later.

    Of those elsewhere only what a list of their folders says, where there is one.

    Raises:
        JobError: names the file and the mend.
    """
    lists: dict[Path, Mapping[str, int] | None] = {}
    for path, size in zip(tars, sizes, strict=True):
        if is_remote(path):
            if path.parent not in lists:
                lists[path.parent] = listed(path.parent)
            check_listed(path, size, lists[path.parent])
            continue
        if not path.is_file() or not path.with_suffix(".idx").is_file():
            raise JobError(f"{path}: the archive or its .idx is missing; run `make shards` again")
        if path.stat().st_size != size:
            raise JobError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}; run `make shards` again")


def read_sidecars(
    folders: Sequence[Path], manifests: Sequence[Manifest], split: str, columns: Sequence[str] | None = None,
    verify: bool = True, cache: Cache | None = None,
) -> pa.Table:  # fmt: skip
    """The table of a split of several data sets, one row a sample in the order of the tars.

    `key` is `<data set>/<sample key>`, the others are columns of the spectra Parquet. Labels that no object can have
    are null, and so is a column in the tables that lack it where another has it.

    Args:
        verify: compare each table with its checksum first.
        cache: of copies of tables that lie elsewhere.

    Raises:
        UsageError: no spectra had such a column. JobError: a damaged table.
    """
    tables: list[pa.Table] = []
    known = {name for manifest in manifests for name in manifest.further}
    lacking: list[tuple[Path, set[str]]] = []
    for index, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        wanted = None if columns is None else list(dict.fromkeys(["key", *columns]))
        for record in manifest.split(split):
            path = record.sidecar(folder)
            try:
                with nearby_sidecar(record, folder, cache) as near:
                    if verify and sha256(near) != record.sidecar_sha256:
                        raise JobError(f"{path}: not the bytes that the manifest speaks of (checksum); {RERUN}")
                    if (rows := pq.read_metadata(near).num_rows) != record.samples:
                        raise JobError(f"{path}: {rows} rows of {record.samples} samples; {RERUN}")
                    asked, there = wanted, pq.read_schema(near).names
                    if asked is not None and SN_SURVEY in asked and SN_SURVEY not in there:  # an earlier program's
                        own = (name for name in SURVEY_SN if name in there)
                        asked = list(dict.fromkeys([*(name for name in asked if name != SN_SURVEY), *own]))
                    known |= set(there)
                    missing = set(asked or ()) - set(there)
                    lacking += [(path, missing)] if missing else []
                    asked = None if asked is None else [name for name in asked if name in there]
                    table = pq.read_table(near, columns=asked)
                    for name in sorted(missing):
                        table = table.append_column(name, pa.nulls(rows))
                    if wanted is None or SN_SURVEY in wanted:
                        table = with_sn_survey(table)
                    table = table if wanted is None else table.select(wanted)
                    keys = pa.array([f"{index}/{key}" for key in table["key"].to_pylist()], pa.string())
            except (pa.ArrowException, FileNotFoundError, KeyError) as error:
                raise JobError(f"{path}: not a table of samples ({shortened(error)}); {RERUN}") from error
            tables.append(sifted(table.set_column(table.column_names.index("key"), "key", keys))[0])
    for path, missing in lacking:
        if nowhere := missing - known:
            raise UsageError(f"{path}: has no column {', '.join(sorted(nowhere))}; the spectra had none")
    return pa.concat_tables(tables, promote_options="permissive")
