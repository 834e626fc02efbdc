"""One finished shard read from end to end, by other means than those that wrote it: the task of `verify --deep`."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, is_environment, shortened
from specshards.common.files import location
from specshards.common.identity import Hashes, id_hashes
from specshards.render import renderer
from specshards.shards.format.archive import labels_of
from specshards.shards.format.encoding import ENCODINGS, Encoding
from specshards.shards.format.flux import has_lsf
from specshards.shards.format.manifest import KEY_DIGITS, NPY_HEADER_BYTES, ShardConfig, ShardRecord, label_npy
from specshards.shards.format.nearby import fetched
from specshards.shards.format.tar import BLOCK, read_index
from specshards.shards.write.split import Splits, chosen, goes_by_id, split_keys

Floats = npt.NDArray[np.float64]
Result = TypeVar("Result")

#: Samples in one stretch of a tar, for `Spread`: about what a batch is.
STRETCH = 256


@dataclass(frozen=True)
class CheckTask:
    """Which shard to read, and what its data set's manifest says about all of them."""

    folder: str
    record: ShardRecord
    config: ShardConfig
    objects: int
    classes: tuple[str, ...]
    surveys: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """Sums from which `share` tells how well the order of samples mixes the input; they add up over shards.

    The input's row number, 0 to 1, is the variable, and stretches of `STRETCH` samples, as they lie in the tars, are
    the groups of an analysis of variance.
    """

    samples: int = 0
    stretches: int = 0
    total: float = 0.0
    squares: float = 0.0
    between: float = 0.0

    @classmethod
    def of(cls, rows: npt.NDArray[np.int64], objects: int) -> Spread:
        """The sums of one shard, whose samples are `rows` of `objects` in the tar's order."""
        place = rows / objects
        pieces = np.array_split(place, max(1, round(len(rows) / STRETCH)))
        between = sum(float(piece.sum() ** 2 / len(piece)) for piece in pieces)
        return cls(len(rows), len(pieces), float(place.sum()), float(np.square(place).sum()), between)

    def __add__(self, other: Spread) -> Spread:
        """The sums of both."""
        return Spread(
            self.samples + other.samples, self.stretches + other.stretches, self.total + other.total,
            self.squares + other.squares, self.between + other.between,
        )  # fmt: skip

    @property
    def share(self) -> float:
        """Share of the variance that lies between stretches: 1 for the input's own order, `random` for a random one.

        1/k means that a stretch is like k pieces of the input, taken at random.
        """
        mean = self.total**2 / max(1, self.samples)
        variance = self.squares - mean
        return (self.between - mean) / variance if variance > 0 else 0.0

    @property
    def random(self) -> float:
        """What `share` is on average when every sample was drawn at random."""
        return (self.stretches - 1) / max(1, self.samples - 1)


@dataclass(frozen=True)
class Findings:
    """What one shard came to.

    Attributes:
        faults: check -> the first fault found, one line that names the file.
        rows: int64 `(n,)`, the samples' global row numbers in the tar's order; empty where the tar cannot be read.
        labels: whether the labels below could be read.
        ra, dec: float64 `(n,)`, degrees. ids: hashes of survey and object id, uint64 `(n,)`.
        own: the split that each row would have alone (`shards.write.split`), int8 `(n,)`.
        keys: what that belongs to, uint64 `(n,)`; by_id: rows that have nothing but their id to be split by, bool.
        moments: float64 `(5, labels)`: count, sum, sum of squares, least and greatest value of each label.
    """

    record: ShardRecord
    faults: dict[str, str] = field(default_factory=dict)
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ra: Floats = field(default_factory=lambda: np.empty(0))
    dec: Floats = field(default_factory=lambda: np.empty(0))
    moments: Floats | None = None
    spread: Spread = field(default_factory=Spread)
    ids: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    own: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    keys: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    by_id: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


class _FaultError(Exception):
    """What is wrong with a file, in one line that names it."""


class _Sample(NamedTuple):
    key: str
    picture: int  # where the member's bytes begin in the tar, and how many there are
    picture_size: int
    label: int
    label_size: int


def examine(task: CheckTask) -> Findings:
    """Read a shard's tar, index and sidecar, and compare them with each other and with the manifest.

    Every check is made that what was found before allows: a wrong checksum says that bytes have changed, the others
    say what that means. A shard elsewhere is copied to a temporary folder first.

    Raises:
        JobError: the network.
    """
    with fetched(task.record, location(task.folder)) as here:
        return _examine(replace(task, folder=str(here)))


def _examine(task: CheckTask) -> Findings:
    faults: dict[str, str] = {}

    def attempt(name: str, check: Callable[..., Result], *arguments: Any) -> Result | None:
        try:
            return check(task, *arguments)
        except _FaultError as fault:
            faults[name] = str(fault)
            return None

    encoding = ENCODINGS[task.config.encoding](renderer(task.config.image), task.config.jpeg_quality)
    attempt("checksums", _checksums)
    samples = attempt("tar", _samples, encoding.extension)
    if samples is None:
        return Findings(task.record, faults)
    rows = np.array([int(sample.key) for sample in samples], np.int64)
    spread = Spread.of(rows, task.objects)
    attempt("index", _same_index, samples, encoding.extension)
    attempt("images", _pictures, samples, encoding)
    labels = attempt("labels", _label_vectors, samples)
    if labels is None:
        return Findings(task.record, faults, rows, spread=spread)
    named = attempt("labels", _same_labels, samples, rows, labels) or ()
    ra, dec = (labels[:, task.labels.index(name)].copy() for name in ("ra", "dec"))
    return Findings(task.record, faults, rows, ra, dec, _moments(labels), spread, *named)


def _checksums(task: CheckTask) -> None:
    if (path := task.record.damaged(Path(task.folder))) is not None:
        raise _FaultError(f"{_name(task, path)}: its sha256 is not that of the manifest")


def _samples(task: CheckTask, extension: str) -> list[_Sample]:
    """The samples as Python's own tarfile finds them: safe names, in pairs, one member right after another."""
    path = task.record.path(Path(task.folder))
    try:
        with tarfile.open(path, "r:") as tar:
            members = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
    except (tarfile.TarError, EOFError) as error:
        raise _FaultError(f"{task.record.name}: not readable as tar ({error})") from error
    samples: list[_Sample] = []
    expected = 0
    for first, second in zip(members[::2], members[1::2], strict=False):
        key = first[0].partition(".")[0]
        for (name, offset, size), last in ((first, extension), (second, "npy")):
            safe = len(key) == KEY_DIGITS and key.isascii() and key.isdigit() and int(key) < task.objects
            if not safe or name != f"{key}.{last}":
                raise _FaultError(
                    f"{task.record.name}: member {name!r} at byte {offset}: not KEY.{last}, KEY being {KEY_DIGITS} "
                    f"digits below {task.objects:,}"
                )
            if offset != expected + BLOCK:
                raise _FaultError(f"{task.record.name}: member {name} at byte {offset} instead of {expected + BLOCK}")
            expected = offset + size + -size % BLOCK
        samples.append(_Sample(key, *first[1:], *second[1:]))
    if len(members) != 2 * task.record.samples:
        raise _FaultError(
            f"{task.record.name}: {len(members)} members up to byte {expected}, where {task.record.samples} samples "
            f"have {2 * task.record.samples}"
        )
    return samples


def _same_index(task: CheckTask, samples: list[_Sample], extension: str) -> None:
    path = task.record.index(Path(task.folder))
    name = _name(task, path)
    try:
        lines = read_index(path)
    except (ValueError, IndexError) as error:
        raise _FaultError(f"{name}: not a whole DALI index v1.2") from error
    if len(lines) != len(samples):
        raise _FaultError(f"{name}: {len(lines)} samples, the tar has {len(samples)}")
    for number, (line, sample) in enumerate(zip(lines, samples, strict=True), 2):
        found = {
            extension: (sample.picture, sample.picture_size, f"{sample.key}.{extension}"),
            "npy": (sample.label, sample.label_size, f"{sample.key}.npy"),
        }
        for member, place in found.items():
            if line.get(member) != place or len(line) != len(found):
                says = " ".join(map(str, line.get(member, ("nothing",))))
                raise _FaultError(
                    f"{name}: line {number}, {sample.key}.{member}: says {says!r} (offset, size, name), the tar has "
                    f"{' '.join(map(str, place))!r}"
                )


def _pictures(task: CheckTask, samples: list[_Sample], encoding: Encoding) -> None:
    """Decode until one fails: a damaged shard is made again as a whole, and decoders are loud about bad input."""
    found = 0
    with task.record.path(Path(task.folder)).open("rb") as file:
        for sample in samples:
            file.seek(sample.picture)
            try:
                payload = file.read(sample.picture_size)
                encoding.decode(payload)
                found += task.config.lsf and has_lsf(payload)
            except (ValueError, cv2.error) as error:
                raise _FaultError(
                    f"{task.record.name}: {sample.key}.{encoding.extension} at byte {sample.picture}: {error}"
                ) from error
    if found != task.record.with_lsf:
        raise _FaultError(
            f"{task.record.name}: {found:,} samples with an LSF, by the manifest {task.record.with_lsf:,}"
        )


def _label_vectors(task: CheckTask, samples: list[_Sample]) -> Floats:
    """The label vectors, float64 `(samples, labels)`."""
    header = label_npy(np.zeros(len(task.labels)))[:NPY_HEADER_BYTES]
    size = NPY_HEADER_BYTES + 8 * len(task.labels)
    labels = np.empty((len(samples), len(task.labels)), "<f8")
    with task.record.path(Path(task.folder)).open("rb") as file:
        for row, sample in zip(labels, samples, strict=True):
            file.seek(sample.label)
            payload = file.read(sample.label_size)
            if len(payload) != size or payload[:NPY_HEADER_BYTES] != header:
                raise _FaultError(
                    f"{task.record.name}: {sample.key}.npy at byte {sample.label}: not a vector of "
                    f"{len(task.labels)} float64"
                )
            row[:] = np.frombuffer(payload, "<f8", offset=NPY_HEADER_BYTES)
    return labels


def _same_labels(
    task: CheckTask, samples: list[_Sample], rows: npt.NDArray[np.int64], labels: Floats
) -> tuple[Hashes, Splits, Hashes, npt.NDArray[np.bool_]]:
    """Compare keys and labels with the sidecar's rows: bit for bit, NaN in the vector being null in the table.

    Returns:
        A hash of each row's survey and object id, the split that is the row's own, what that belongs to, and
        whether it goes by its id.
    """
    path = task.record.sidecar(Path(task.folder))
    name = _name(task, path)
    try:
        table = pq.ParquetFile(path).read()
        keys = table["key"].to_pylist()
        source = table["source_row"].cast(pa.float64()).to_numpy()
        stored = labels_of(table, task.labels, task.classes, task.surveys)
        ids = id_hashes(table["survey"], table["object_id"].cast(pa.string()))
        whole, by_id = split_keys(table, task.config), goes_by_id(table, task.config)
    except (pa.ArrowException, OSError, ValueError, KeyError, JobError) as error:
        if is_environment(error):
            raise
        raise _FaultError(f"{name}: not a readable sidecar ({shortened(error)})") from error
    if len(keys) != len(samples):
        raise _FaultError(f"{name}: {len(keys)} rows, the tar has {len(samples)} samples")
    other = np.array([key != sample.key for key, sample in zip(keys, samples, strict=True)], bool) | (source != rows)
    if other.any():
        row = int(np.argmax(other))
        raise _FaultError(
            f"{name}: row {row} is {keys[row]} (source_row {source[row]:.0f}), the tar has {samples[row].key} there"
        )
    at_rest = table["frame"].to_pylist().count("rest") if "frame" in table.column_names else 0
    if at_rest != task.record.at_rest:
        raise _FaultError(f"{name}: {at_rest:,} rows in the rest frame, {task.record.at_rest:,} by the manifest")
    labels, stored = np.ascontiguousarray(labels), np.ascontiguousarray(stored)
    same = (labels.view(np.int64) == stored.view(np.int64)) | (np.isnan(labels) & np.isnan(stored))
    if not same.all():
        row, column = map(int, np.unravel_index(np.argmin(same), same.shape))
        offset = samples[row].label + NPY_HEADER_BYTES + 8 * column
        raise _FaultError(
            f"{task.record.name}: {samples[row].key}.npy: {task.labels[column]} at byte {offset} is "
            f"{float(labels[row, column])!r}, in {path.name} {float(stored[row, column])!r}"
        )
    return ids, chosen(whole, task.config), whole, by_id


def _moments(labels: Floats) -> Floats:
    known = ~np.isnan(labels)
    zero = np.where(known, labels, 0.0)
    least, greatest = np.where(known, labels, np.inf).min(axis=0), np.where(known, labels, -np.inf).max(axis=0)
    with np.errstate(over="ignore"):  # damaged vectors hold anything
        return np.stack([known.sum(axis=0), zero.sum(axis=0), np.square(zero).sum(axis=0), least, greatest])


def _name(task: CheckTask, path: Path) -> str:
    return path.relative_to(task.folder).as_posix()
