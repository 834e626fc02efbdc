"""A split's samples on local disk: indices and memory maps, opened when first needed and bounded in number."""

from __future__ import annotations

import io
import mmap
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from specshards.common.cache import Cache
from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.files import is_remote, sha256
from specshards.common.label_columns import only_possible, sifted, with_sn_survey
from specshards.common.spectrum import SN_SURVEY, SURVEY_SN
from specshards.shards.format.manifest import KEY_DIGITS, NPY_HEADER_BYTES, Manifest, key, label_npy
from specshards.shards.format.nearby import check_listed, listed, nearby_sidecar
from specshards.shards.format.tar import BLOCK

#: The mend of whatever changed after it was written.
RERUN = "run the same `make shards` again: it mends damaged shards"

_INTS = npt.NDArray[np.int64]
_KEY = f"^[0-9]{{{KEY_DIGITS}}}$"
#: Bytes of a line of an index that no encoding's extension makes longer.
_LONGEST_LINE = 1024


@dataclass(frozen=True)
class ShardIndex:
    """Where the n samples of one tar lie, and its bytes.

    Attributes:
        view: the whole file, uint8, mapped.
        offset, size: int64 `(n,)`, of the pictures' (or spectra's) members.
        labels: int64 `(n,)`, where the label vectors' members begin.
        rows: int64 `(n,)`, the keys as numbers.
    """

    view: npt.NDArray[np.uint8]
    offset: _INTS
    size: _INTS
    labels: _INTS
    rows: _INTS

    @classmethod
    def open(cls, tar: Path, samples: int, extension: str, label_bytes: int) -> ShardIndex:
        """Map `tar` and parse the index beside it: 28 bytes of memory and 0.5 us a sample.

        Args:
            label_bytes: size of a label vector's member.

        Raises:
            JobError: the index does not describe `samples` pairs of members, one after another, that fill the tar.
        """
        path = tar.with_suffix(".idx")
        try:
            if path.stat().st_size > _LONGEST_LINE * (samples + 1):
                raise ValueError(f"{path.stat().st_size:,} bytes for {samples} samples")
            content = path.read_bytes()
            first, _, body = content.partition(b"\n")
            if first.split() != [b"v1.2", str(samples).encode()]:
                raise ValueError(f"begins with {first[:40].decode('ascii', 'replace')!r}, not v1.2 {samples}")
            table = _parse(body)
            if table.num_rows != samples or set(table["f0"].unique().to_pylist()) != {extension}:
                raise ValueError(f"{table.num_rows} lines of {table['f0'].unique().to_pylist()}")
            offset, size, labels = (table[name].to_numpy() for name in ("f1", "f2", "f5"))
            rows = _keys(table, extension)
            view = _view(tar)
            _check_places(offset, size, labels, table["f6"].to_numpy(), label_bytes, len(view))
        except (OSError, ValueError, pa.ArrowException) as error:
            what = shortened(error, 150)
            raise JobError(f"{path}: not the index of its archive ({what}); run `make shards` again") from None
        return cls(view, offset, size, labels, rows)


def _keys(table: pa.Table, extension: str) -> _INTS:
    """The keys as numbers; ValueError where the two members of a sample are not named alike, as they should be."""
    names = pc.utf8_slice_codeunits(table["f7"], 0, KEY_DIGITS)
    for column, suffix in (("f3", extension), ("f7", "npy")):
        if not pc.all(pc.equal(table[column], pc.binary_join_element_wise(names, suffix, "."))).as_py():
            raise ValueError(f"a member is not named KEY.{suffix}")
    if set(table["f4"].unique().to_pylist()) != {"npy"} or not pc.all(pc.match_substring_regex(names, _KEY)).as_py():
        raise ValueError("not pairs of a sample and its labels")
    return np.asarray(names.cast(pa.int64()).to_numpy())


def _check_places(offset: _INTS, size: _INTS, labels: _INTS, label_size: _INTS, label_bytes: int, total: int) -> None:
    """ValueError unless the members lie one after another from the first byte on, and inside the archive."""
    if not len(size):
        return
    if size.min() < 0 or size.max() > total or (label_size != label_bytes).any():
        raise ValueError("members of an impossible size")
    lengths = np.column_stack([size, label_size])
    ends = np.cumsum(BLOCK + lengths + -lengths % BLOCK).reshape(-1, 2)
    if (ends - lengths - -lengths % BLOCK != np.column_stack([offset, labels])).any() or ends[-1, 1] > total:
        raise ValueError("members that do not follow one another")


def _view(tar: Path) -> npt.NDArray[np.uint8]:
    if is_remote(tar):
        return np.frombuffer(tar.read_bytes(), np.uint8)
    with tar.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_WILLNEED"):
        mapped.madvise(mmap.MADV_WILLNEED)  # samples are taken in another order than they lie in
    return np.frombuffer(mapped, np.uint8)


def _parse(body: bytes) -> pa.Table:
    """The lines of a DALI index as columns f0 to f7: extension, offset, size, name, twice."""
    names = [f"f{i}" for i in range(8)]
    types = {name: pa.int64() if i % 4 in (1, 2) else pa.string() for i, name in enumerate(names)}
    return pa_csv.read_csv(
        io.BytesIO(body),
        read_options=pa_csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )


class Archive:
    """The tars of one split, or of several data sets', as one sequence of samples.

    Attributes:
        tars: the files; starts: int64 `(len(tars) + 1,)`, where each begins among all samples.
    """

    def __init__(
        self, tars: Sequence[Path], samples: Sequence[int], extension: str, labels: Sequence[str], keep: int,
        opened: Callable[[int], None] = lambda number: None,
        opening: Callable[[int], AbstractContextManager[Path]] | None = None,
    ) -> None:  # fmt: skip
        """`labels` are the manifest's; `keep` is how many tars may be open at a time; `opened` is told of each.

        `opening` gives the file to open for a number, while it is opened: `tars` may lie elsewhere.
        """
        self._opened = opened
        self._opening = opening or (lambda number: nullcontext(self.tars[number]))
        self.tars, self._samples, self._extension, self._keep = tuple(tars), tuple(samples), extension, keep
        self._names = tuple(labels)
        member = label_npy(np.zeros(len(labels)))
        self._label_bytes, self._label_header = len(member), np.frombuffer(member[:NPY_HEADER_BYTES], np.uint8)
        self.starts = np.concatenate([[0], np.cumsum(samples)]).astype(np.int64)
        self._open: OrderedDict[int, ShardIndex] = OrderedDict()

    def shard(self, number: int) -> ShardIndex:
        """Index and bytes of one tar; the one not used for longest is let go."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        with self._opening(number) as tar:
            found = ShardIndex.open(tar, self._samples[number], self._extension, self._label_bytes)
        self._open[number] = found
        self._opened(number)
        if len(self._open) > self._keep:
            self._open.popitem(last=False)
        return found

    def locate(self, samples: _INTS) -> list[tuple[int, int]]:
        """The shard number and the place in it of each of `samples` (places among all)."""
        shards = np.searchsorted(self.starts, samples, side="right") - 1
        return list(zip(shards.tolist(), (samples - self.starts[shards]).tolist(), strict=True))

    def payloads(self, places: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.uint8]]:
        """The stored bytes of each sample: views into the mapped files."""
        found = []
        for number, i in places:
            shard = self.shard(number)
            start = shard.offset[i]
            found.append(shard.view[start : start + shard.size[i]])
        return found

    def vectors(self, places: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
        """The label vectors, float64 `(B, labels)`, and why not for each that is damaged.

        What no object can have is NaN.
        """
        total = self._label_bytes
        members = np.zeros((len(places), total), np.uint8)
        for row, (number, i) in enumerate(places):
            shard = self.shard(number)
            start = shard.labels[i]
            member = shard.view[start : start + total]
            members[row, : len(member)] = member
        wrong = (members[:, :NPY_HEADER_BYTES] != self._label_header).any(axis=1)
        vectors = members[:, NPY_HEADER_BYTES:].copy().view("<f8")
        return vectors, {int(row): "not a label vector" for row in np.flatnonzero(wrong)}

    def labels(self, places: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
        """The same, without numbers that no object can have: NaN is in their place."""
        vectors, wrong = self.vectors(places)
        only_possible(vectors, self._names)  # of a data set made before they were looked at
        return vectors, wrong

    def key(self, place: tuple[int, int]) -> str:
        """The sample's key."""
        return key(int(self.shard(place[0]).rows[place[1]]))

    def where(self, place: tuple[int, int]) -> str:
        """Words for an error: the tar, the member and where it begins."""
        number, i = place
        return f"{self.tars[number]}: {self.key(place)}.{self._extension} at byte {self.shard(number).offset[i]}"

    def close(self) -> None:
        """Let go of every file."""
        self._open.clear()


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
